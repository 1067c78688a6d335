"""How far a worker is on its way back to where it was, told while it lasts: a bar on a terminal, lines of the log else.

Two stages: the state of each assigned partition is loaded; then the records are judged that waited in the log when that
was done. What comes in meanwhile is lag (a metric), not recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TextIO

log = logging.getLogger(__name__)

BAR_S: Final = 0.2
LINES_S: Final = 10.0
"""A recovery of less is not worth a line: each partition has one when it is loaded."""
WIDTH: Final = 24


class Part(Protocol):
    """Of an owned partition: offsets."""

    expected: int
    empty_to: int
    judged_to: int


class Recovering(Protocol):
    """Of the shell: what is loaded."""

    settled: bool
    loading: tuple[int, int]

    @property
    def owned(self) -> Mapping[int, Part]:
        """Those that are loaded."""


@dataclass(frozen=True, slots=True)
class Stage:
    """`done` of `total` things since `began_s` (monotonic)."""

    doing: str
    unit: str
    done: int
    total: int
    began_s: float

    def words(self, now_s: float) -> str:
        """E.g. "judging what waited: 1,200 of 4,000 records, 30 %, about 12 s left"."""
        share = self.done / self.total
        left_s = (now_s - self.began_s) * (1 - share) / share if share else None
        ends = "" if left_s is None else f", about {left_s:.0f} s left"
        return f"{self.doing}: {self.done:,} of {self.total:,} {self.unit}, {100 * share:.0f} %{ends}"

    def bar(self, now_s: float) -> str:
        """The same behind a bar."""
        full = int(WIDTH * self.done / self.total)
        return f"[{'#' * full}{'.' * (WIDTH - full)}] {self.words(now_s)}"


@dataclass(slots=True)
class Recovery:
    """Looks at a shell again and again."""

    shell: Recovering
    _began_s: dict[str, float] = field(default_factory=dict)
    _from: dict[int, tuple[Part, int]] = field(default_factory=dict)

    def look(self, now_s: float) -> Stage | None:
        """The stage that goes on; None where everything is where it was."""
        found = self._loading() or self._judging()
        if found is None:
            self._began_s.clear()
            return None
        doing, unit, done, total = found
        return Stage(doing, unit, done, total, self._began_s.setdefault(doing, now_s))

    def _loading(self) -> tuple[str, str, int, int] | None:
        done, total = self.shell.loading
        return None if self.shell.settled or not total else ("loading state", "partitions", done, total)

    def _judging(self) -> tuple[str, str, int, int] | None:
        parts = self.shell.owned
        known = {number: self._from.get(number) for number in parts}
        self._from = {
            number: was if was is not None and was[0] is parts[number] else (parts[number], parts[number].expected)
            for number, was in known.items()
        }
        total = sum(max(0, part.judged_to - first) for part, first in self._from.values())
        left = sum(max(0, part.judged_to - max(part.expected, part.empty_to)) for part in parts.values())
        return ("judging what waited", "records", total - left, total) if left else None


async def tell_recovery(shell: Recovering, stream: TextIO | None = None) -> None:
    """Until cancelled. `stream` is stderr as the process got it: Faust makes a log of `sys.stderr`."""
    out = stream or sys.__stderr__
    recovery = Recovery(shell)
    with contextlib.suppress(OSError, ValueError):  # the terminal may go away, the worker goes on
        if out is not None and out.isatty():
            await _draw(recovery, out)
    await _write_lines(recovery)


async def _draw(recovery: Recovery, out: TextIO) -> None:
    """The cursor stays at the line's begin, so that a line of the log takes the bar's place."""
    shown = False
    while True:
        stage = recovery.look(time.monotonic())
        if stage is not None or shown:
            out.write(f"\r\x1b[K{'' if stage is None else stage.bar(time.monotonic())}\r")
            out.flush()
        shown = stage is not None
        await asyncio.sleep(BAR_S)


async def _write_lines(recovery: Recovery) -> None:
    told: Stage | None = None
    while True:
        await asyncio.sleep(LINES_S)
        now_s = time.monotonic()
        stage = recovery.look(now_s)
        if stage is not None:
            log.info("%s", stage.words(now_s))
        elif told is not None:
            log.info("recovered: everything that waited is judged")
        told = stage
