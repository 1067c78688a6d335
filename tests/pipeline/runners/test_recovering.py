"""A recovery says how far it is: what is loaded, then what waited and is judged, and nothing once that is done."""

from __future__ import annotations

import asyncio
import io
import logging
from dataclasses import dataclass, field

import pytest

from pipeline.runners import recovering
from pipeline.runners.recovering import Recovery, tell_recovery


@dataclass
class Part:
    expected: int
    judged_to: int
    empty_to: int = -1


@dataclass
class Shell:
    settled: bool = False
    loading: tuple[int, int] = (0, 0)
    owned: dict[int, Part] = field(default_factory=dict)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_first_what_is_loaded_is_counted_then_what_waited() -> None:
    shell = Shell()
    recovery = Recovery(shell)
    assert recovery.look(0.0) is None, "nothing is assigned yet"
    shell.loading = (1, 4)
    stage = recovery.look(10.0)
    assert stage is not None
    assert stage.words(12.0) == "loading state: 1 of 4 partitions, 25 %, about 6 s left"
    shell.settled, shell.owned = True, {0: Part(100, 1_100), 1: Part(50, 50)}
    stage = recovery.look(20.0)
    assert stage is not None
    assert stage.words(21.0) == "judging what waited: 0 of 1,000 records, 0 %"
    shell.owned[0].expected = 600
    stage = recovery.look(30.0)
    assert stage is not None
    assert stage.words(30.0) == "judging what waited: 500 of 1,000 records, 50 %, about 10 s left"
    assert stage.bar(30.0).startswith("[############............] judging")
    shell.owned[0].empty_to = 1_100
    assert recovery.look(40.0) is None, "a transaction's marker at the end is no record to wait for"


def test_a_partition_that_comes_back_is_counted_from_where_it_is_loaded_again() -> None:
    shell = Shell(settled=True, owned={0: Part(0, 100)})
    recovery = Recovery(shell)
    recovery.look(0.0)
    shell.owned[0] = Part(90, 190)
    stage = recovery.look(1.0)
    assert stage is not None
    assert (stage.done, stage.total) == (0, 100)


async def _told(shell: Shell, stream: io.StringIO, enough: asyncio.Event) -> None:
    telling = asyncio.create_task(tell_recovery(shell, stream))
    await asyncio.wait_for(enough.wait(), 10)
    telling.cancel()


async def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovering, "BAR_S", 0.001)
    enough, shell = asyncio.Event(), Shell(loading=(1, 2))

    class Watched(Terminal):
        def write(self, text: str) -> int:
            shell.loading, shell.settled = (2, 2), bool(self.getvalue())
            if self.getvalue() and text == "\r\x1b[K\r":
                enough.set()
            return super().write(text)

    terminal = Watched()
    await _told(shell, terminal, enough)
    assert "[############............] loading state: 1 of 2 partitions, 50 %" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K\r")


async def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovering, "LINES_S", 0.001)
    enough, shell, lines = asyncio.Event(), Shell(settled=True, owned={0: Part(0, 10)}), list[str]()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            shell.owned[0].expected += 5
            if lines[-1].startswith("recovered"):
                enough.set()

    handler = Heard()
    recovering.log.addHandler(handler)
    monkeypatch.setattr(recovering.log, "level", logging.INFO)
    silent = io.StringIO()
    await _told(shell, silent, enough)
    recovering.log.removeHandler(handler)
    assert lines[0] == "judging what waited: 0 of 10 records, 0 %"
    assert lines[-1] == "recovered: everything that waited is judged"
    assert silent.getvalue() == ""
