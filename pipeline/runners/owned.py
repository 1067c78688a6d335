"""What the shell holds of a partition, and what it is handed of one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from pipeline.core import Core, Sides, Slice
from pipeline.emit import Emitter
from pipeline.errors import Fatal

MOST_SEEKS: Final = 20
"""Seeks to one offset without getting there: the log has ended before it, or something is broken."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A slice and what is known of the log before it: nothing lies in [`start`, records.first)."""

    records: Slice
    start: int
    breaks: int = 0  # how often the position had been set when this was fetched
    size_bytes: int = 0  # of keys and values, as far as it was told
    at_s: float = field(default_factory=time.time)  # when it was, in seconds since 1970


@dataclass(slots=True)
class Owned:
    """One partition in one life of its arrays."""

    core: Core
    emitter: Emitter
    expected: int  # offset of the next record to judge
    generation: int
    sides: Sides  # what it has adopted
    judged_to: int = 0  # a crashed life may have judged, and published, up to here: the log's end when it was loaded
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    seeks: int = 0
    nudges: int = 0  # seeks to `expected` because nothing came, without anything coming
    empty_to: int = -1  # nothing lies in [expected, empty_to): a transaction's marker, or what compaction took
    holes: int = 0
    active_at: float = field(default_factory=time.monotonic)

    @property
    def unsaved(self) -> bool:
        """More was judged than the last manifest includes."""
        return self.core.next_offset > self.emitter.writer.next_offset

    def ask_back(self, first: int) -> int:
        """What begins at `first` is not the next slice: Faust lost one, or this one is old. Returns where to seek to.

        Raises Fatal where that was tried too often.
        """
        self.seeks += 1
        if self.seeks > MOST_SEEKS:
            raise Fatal(
                f"partition {self.emitter.writer.partition}: {MOST_SEEKS} seeks to offset {self.expected} did not lead "
                f"there; the last slice began at {first}"
            )
        return self.expected
