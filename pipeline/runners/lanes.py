"""A line of slices for each partition: in order within a line, the lines side by side; what waits is done at once.

The core is one thread, but a slice is done only when its incidents are acknowledged. While those of one partition are
on their way, the core judges another partition's slice. Nothing else changes: within a partition the next slice waits
for the effects of the one before.

A slice costs some milliseconds however short it is, and under a live load each fetch brings few records. So what came
while a line was busy is joined, up to the size of one slice: the more behind a worker is, the longer its slices are.
Before, sixteen of them stood in a row, each with the 20 records that 5 ms had brought; on a machine that gave the
worker a fifth of a processor 1,000 events a second had to wait for 4 to 8 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.config.tree import Config
from pipeline.records import following
from pipeline.runners.owned import Fetched
from pipeline.tasks import cancel_and_wait

T = TypeVar("T")
Told = tuple[int, Fetched]
"""Generation and slice."""


def _apart(waiting: Sequence[T], item: T) -> bool:
    return False


def _first(items: Sequence[T]) -> T:
    return items[0]


@dataclass(slots=True)
class _Line(Generic[T]):
    waiting: list[T] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    taken: asyncio.Event = field(default_factory=asyncio.Event)


class Lanes(Generic[T]):
    """`handle` must not raise; what it does with a slice of a lost partition is its own business.

    `fits`: whether an item may be handled with those that wait, by `join` of all; without it every one goes alone.
    """

    def __init__(
        self, handle: Callable[[T], Awaitable[None]], fits: Callable[[Sequence[T], T], bool] = _apart,
        join: Callable[[Sequence[T]], T] = _first,
    ) -> None:  # fmt: skip
        self._handle = handle
        self._fits = fits
        self._join = join
        self._lines: dict[int, _Line[T]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def put(self, partition: int, item: T) -> None:
        """Returns when the line has room: nothing waits, or it fits to what does."""
        line = self._lines.get(partition) or self._open(partition)
        while line.waiting and not self._fits(line.waiting, item):
            line.taken.clear()
            await line.taken.wait()
        line.waiting.append(item)
        line.came.set()

    def _open(self, partition: int) -> _Line[T]:
        line = self._lines[partition] = _Line[T]()
        self._tasks.append(asyncio.create_task(self._work(line)))
        return line

    async def _work(self, line: _Line[T]) -> None:
        while True:
            await line.came.wait()
            line.came.clear()
            items, line.waiting = line.waiting, []
            line.taken.set()
            await self._handle(items[0] if len(items) == 1 else self._join(items))

    async def close(self) -> None:
        """Drop what waits; what is being handled is cut off."""
        for task in self._tasks:
            await cancel_and_wait(task)


def fitting(config: Config) -> Callable[[Sequence[Told], Told], bool]:
    """Whether a slice goes on where those that wait end, in one generation and since one seek, and all make one slice.

    Nothing lies between them, or the join would say so of records that it has not seen.
    """
    most, most_bytes = config.worker.slice_events, config.worker.slice_bytes

    def fits(waiting: Sequence[Told], item: Told) -> bool:
        (generation, last), (its_generation, it) = waiting[-1], item
        if generation != its_generation or last.breaks != it.breaks or it.start > last.records.next:
            return False
        if it.records.first < last.records.next:  # read again
            return False
        parts = [it, *(each for _, each in waiting)]
        events = sum(len(each.records.offsets) for each in parts)
        return events <= most and sum(each.size_bytes for each in parts) <= most_bytes

    return fits


def joined(items: Sequence[Told]) -> Told:
    """Slices that fit as one."""
    generation, first = items[0]
    records = following([each.records for _, each in items])
    size_bytes = sum(each.size_bytes for _, each in items)
    return generation, Fetched(records, first.start, first.breaks, size_bytes, items[-1][1].at_s)
