"""The rate of something that warms up, and its processor time: over the log from its first fifth to its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

SKIP: Final = 0.2
"""Share of the log that is not measured: fetching begins, caches are cold, code is loaded."""


class Pace(msgspec.Struct, frozen=True):
    """Events per second, and microseconds of processor time per event, of all threads of the process.

    The second hardly depends on what else the machine does meanwhile; broker and database are not in it.
    """

    per_s: float
    cpu_us: float | None
    servers_us: dict[str, float] = {}  # of broker and ClickHouse meanwhile, per event, where it was asked for


@dataclass(slots=True)
class Clock:
    """Progress is told by `at`; the rate counts from the first tell at or above SKIP of `total`."""

    total: int
    cpu_s: Callable[[], float] = time.process_time
    first: tuple[float, int] | None = None
    last: tuple[float, int] = field(default=(0.0, 0))
    spent: tuple[float, float] = field(default=(0.0, 0.0))
    servers: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    spent_by: tuple[dict[str, float], dict[str, float]] = field(default=({}, {}))

    def at(self, done: int) -> bool:
        """`done` events are done now; True once that is all."""
        now = time.perf_counter()
        if self.first is None and done >= SKIP * self.total:
            self.first = (now, done)
            self.spent, self.spent_by = (self.cpu_s(), 0.0), (self._servers_s(), {})
        self.last = (now, done)
        if done >= self.total:
            self.spent, self.spent_by = (self.spent[0], self.cpu_s()), (self.spent_by[0], self._servers_s())
        return done >= self.total

    @property
    def per_s(self) -> float:
        """Events per second."""
        began, before = self.first or self.last
        return (self.last[1] - before) / max(self.last[0] - began, 1e-9)

    @property
    def pace(self) -> Pace:
        """All of it, once the end was told."""
        counted = self.last[1] - (self.first or self.last)[1]
        cpu_us = 1e6 * (self.spent[1] - self.spent[0]) / max(counted, 1)
        before, after = self.spent_by
        servers_us = {name: round(1e6 * (s - before.get(name, 0.0)) / max(counted, 1), 2) for name, s in after.items()}
        return Pace(self.per_s, round(cpu_us, 2) if cpu_us > 0 else None, servers_us)

    def _servers_s(self) -> dict[str, float]:
        return {name: cpu_s() for name, cpu_s in self.servers.items()}

    def told(self) -> str:
        """The last line of a process that was measured."""
        return msgspec.json.encode(self.pace).decode() + "\n"


def cpu_s_of(pid: int) -> Callable[[], float]:
    """Processor time of another process so far, in seconds; 0 where the system does not tell (it is Linux' way)."""

    def told() -> float:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return told
