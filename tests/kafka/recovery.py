"""How long each fault took to be over: stated in a table at the end of the run, never asserted.

Over means that all that was in the log when the fault ended is committed, and so judged, told and written (`emit.py`).
Rows also go to the file that KEYWATCH_RECOVERIES names; `python -m tests.kafka.recovery FILE` prints what several runs
have left there (`make test-faults`). On a machine with other work to do these are times of that machine.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec

from pipeline.errors import Fatal, Retry

if TYPE_CHECKING:
    from tests.kafka.deployment import Deployment

LOOK_S: Final = 0.5
NOT_NOW: Final = (Fatal, Retry, TimeoutError, OSError)
"""What asking a broker gives that is away, or busy: it is asked again."""


class Recovery(msgspec.Struct, frozen=True):
    """One fault of one test. Seconds."""

    test: str
    fault: str
    runner: str
    lasted_s: float  # what was broken stayed broken so long
    over_s: float | None  # from its end until the worker had caught up; None: the test ended before


ROWS: Final[list[Recovery]] = []


def state(deployment: Deployment, fault: str, lasted_s: float, over_s: float | None) -> None:
    """Keep a row for the table."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[-1].split("[")[0].split(" ")[0]
    row = Recovery(test, fault, deployment.runner, lasted_s, over_s)
    ROWS.append(row)
    if path := os.environ.get("KEYWATCH_RECOVERIES"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")


@contextmanager
def until_caught_up(deployment: Deployment, fault: str, began_s: float | None = None) -> Iterator[None]:
    """The block waits until all is done. `began_s`: when the fault began, if it ends only now; by time.monotonic."""
    ended_s = time.monotonic()
    yield
    state(deployment, fault, ended_s - (began_s or ended_s), time.monotonic() - ended_s)


@dataclass
class _Open:
    fault: str
    lasted_s: float
    ended_s: float
    ends: dict[int, int] | None = None  # of the log, asked for as soon as a broker answers


@dataclass
class Watch:
    """Looks on while faults follow each other, so that one may come in the middle of another's recovery."""

    deployment: Deployment
    _open: list[_Open] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ended(self, fault: str, began_s: float) -> None:
        """A fault that began then is repaired now."""
        now = time.monotonic()
        self._open.append(_Open(fault, now - began_s, now))

    def close(self) -> None:
        """The workers are stopped: they have committed all that they had done."""
        self._stop.set()
        self._thread.join(60)
        for each in self._open:
            state(self.deployment, each.fault, each.lasted_s, None)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            if self._open:
                with suppress(*NOT_NOW):
                    self._look()

    def _look(self) -> None:
        for each in list(self._open):
            each.ends = each.ends or self.deployment.ends()
        committed, now = self.deployment.committed(), time.monotonic()
        for each in list(self._open):
            if reached(committed, each.ends or {}):
                self._open.remove(each)
                state(self.deployment, each.fault, each.lasted_s, now - each.ended_s)


def reached(committed: dict[int, int], ends: dict[int, int]) -> bool:
    """Whether each partition has come so far."""
    return all(committed.get(number, 0) >= end for number, end in ends.items())


def table(rows: Iterable[Recovery]) -> list[str]:
    """One line for each fault of each test and runner."""
    groups: dict[tuple[str, str, str], list[Recovery]] = {}
    for row in rows:
        groups.setdefault((row.test, row.fault, row.runner), []).append(row)
    lines = [f"{'fault':<62} {'runner':<6} {'times':>5} {'lasted s':>9} {'over after s':>13} {'at most':>8}"]
    for test in dict.fromkeys(test for test, _, _ in groups):
        lines.append(test)
        lines += [_line(fault, runner, rows) for (of, fault, runner), rows in groups.items() if of == test]
    return lines


def _line(fault: str, runner: str, rows: list[Recovery]) -> str:
    over = [row.over_s for row in rows if row.over_s is not None]
    lasted = median(row.lasted_s for row in rows)
    told = f"{median(over):>13.1f} {max(over):>8.1f}" if over else f"{'-':>13} {'-':>8}"
    unseen = f"  ({len(rows) - len(over)} not over when the load ended)" if len(over) < len(rows) else ""
    return f"  {fault:<60} {runner:<6} {len(rows):>5} {lasted:>9.1f} {told}{unseen}"


def main(path: str) -> None:
    """Print the table of a file of rows."""
    lines = Path(path).read_bytes().splitlines() if Path(path).exists() else []
    print("\n".join(table(msgspec.json.decode(line, type=Recovery) for line in lines)))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
