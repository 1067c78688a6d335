"""A bar is for people at a terminal: there it counts, elsewhere nothing at all is written."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from pipeline.progress import EVERY, counted
from pipeline.runners.replay import ReplayOptions, run

LINE = '192.0.2.1 - anna [17/May/2015:10:05:03 +0000] "GET /x HTTP/1.1" 200 203 "-" "curl/7"\n'


class Terminal(io.StringIO):
    """What stderr is for somebody who sits there."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm-256color")
    return made


def test_all_things_come_through_in_order_whether_it_is_shown_or_not(terminal: Terminal) -> None:
    things = list(range(3 * EVERY + 1))
    assert list(counted(things, "counting")) == things
    assert list(counted(things, "counting", shown=False)) == things
    assert list(counted(iter(things[:3]), "counting", 3)) == things[:3]
    assert list(counted([], "counting")) == []


def test_it_says_how_many_there_were(terminal: Terminal) -> None:
    list(counted(range(2 * EVERY), "replaying"))
    assert f"replaying {2 * EVERY:,}" in terminal.getvalue()


def test_a_known_total_is_a_bar(terminal: Terminal) -> None:
    list(counted(range(4), "writing partitions", 4))
    assert "writing partitions" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()


def test_the_cursor_comes_back_when_the_work_fails(terminal: Terminal) -> None:
    with pytest.raises(ZeroDivisionError):
        for thing in counted(range(4), "dividing", 4):
            1 // (thing - 2)
    assert terminal.getvalue().rstrip().endswith(("\x1b[?25h", "\x1b[2K"))


def test_nothing_is_written_where_nobody_sits(capsys: pytest.CaptureFixture[str]) -> None:
    list(counted(range(2 * EVERY), "replaying"))
    assert capsys.readouterr() == ("", "")


def test_a_replay_shows_it_to_people_and_not_to_programs(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text(LINE * 3)
    paths = (tmp_path / "access.log",)
    run(ReplayOptions(paths=paths, format="combined", json=True))
    assert terminal.getvalue() == ""
    assert run(ReplayOptions(paths=paths, format="combined")).events == 3
    assert "replaying 3" in terminal.getvalue()
