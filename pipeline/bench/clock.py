"""The rate of something that warms up: over the log from its first fifth to its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

SKIP: Final = 0.2
"""Share of the log that is not measured: fetching begins, caches are cold, code is loaded."""


@dataclass(slots=True)
class Clock:
    """Progress is told by `at`; the rate counts from the first tell at or above SKIP of `total`."""

    total: int
    first: tuple[float, int] | None = None
    last: tuple[float, int] = field(default=(0.0, 0))

    def at(self, done: int) -> bool:
        """`done` events are done now; True once that is all."""
        now = time.perf_counter()
        if self.first is None and done >= SKIP * self.total:
            self.first = (now, done)
        self.last = (now, done)
        return done >= self.total

    @property
    def per_s(self) -> float:
        """Events per second."""
        began, before = self.first or self.last
        return (self.last[1] - before) / max(self.last[0] - began, 1e-9)
