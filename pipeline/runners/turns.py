"""Copies for checkpoints take turns, so that slices of other partitions get the core's thread in between.

The core is one thread that works in the order of asking. A checkpoint of all partitions used to ask for all copies at
once: each takes the core some 70 ms (due rows of 4,000 keys, 6 ms of it the pages), so with four partitions every slice
behind them waited for 0.3 s every 5 s: one event in twenty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """One for all partitions of a worker."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def then(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        """A turn and, only after it, the partition's lock: a partition that waits for its turn goes on with slices."""
        async with self._turn, lock:
            yield
