"""A bar is for people at a terminal: there it counts, elsewhere nothing at all is written."""

from __future__ import annotations

import io
import sys

import pytest

from pipeline.progress import EVERY, counted


class Terminal(io.StringIO):
    """What stderr is for somebody who sits there."""

    def isatty(self) -> bool:
        return True


def sit_down(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """In the test itself: before it, pytest puts its own stderr in place."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm-256color")
    return made


def test_all_things_come_through_in_order_whether_it_is_shown_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sit_down(monkeypatch)
    things = list(range(3 * EVERY + 1))
    assert list(counted(things, "counting")) == things
    assert list(counted(things, "counting", shown=False)) == things
    assert list(counted(iter(things[:3]), "counting", 3)) == things[:3]
    assert list(counted([], "counting")) == []


def test_it_says_how_many_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_down(monkeypatch)
    list(counted(range(2 * EVERY), "replaying"))
    assert f"replaying {2 * EVERY:,}" in terminal.getvalue()


def test_a_known_total_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_down(monkeypatch)
    list(counted(range(4), "writing partitions", 4))
    assert "writing partitions" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()


def test_the_cursor_comes_back_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_down(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        for thing in counted(range(4), "dividing", 4):
            1 // (thing - 2)
    assert "\x1b[?25h" in terminal.getvalue()


def test_nothing_is_written_where_nobody_sits(capsys: pytest.CaptureFixture[str]) -> None:
    list(counted(range(2 * EVERY), "replaying"))
    assert capsys.readouterr() == ("", "")
