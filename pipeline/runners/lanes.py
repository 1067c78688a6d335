"""A line of slices for each partition: in order within a line, the lines side by side.

The core is one thread, but a slice is done only when its incidents are acknowledged. While those of one partition are
on their way, the core judges another partition's slice. Nothing else changes: within a partition the next slice waits
for the effects of the one before, and a line holds one slice at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """`handle` must not raise; what it does with a slice of a lost partition is its own business."""

    def __init__(self, handle: Callable[[T], Awaitable[None]]) -> None:
        self._handle = handle
        self._lines: dict[int, asyncio.Queue[T]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def put(self, partition: int, item: T) -> None:
        """Returns when the line has room: one is being handled and none waits."""
        if partition not in self._lines:
            self._open(partition)
        await self._lines[partition].put(item)

    def _open(self, partition: int) -> None:
        self._lines[partition] = asyncio.Queue(1)
        self._tasks.append(asyncio.create_task(self._work(self._lines[partition])))

    async def _work(self, line: asyncio.Queue[T]) -> None:
        while True:
            await self._handle(await line.get())

    async def close(self) -> None:
        """Drop what waits; what is being handled is cut off."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
