"""Rows on their way to the row sink: coalesced over partitions, bounded, written again with the same bytes.

One buffer serves all partitions of a worker, since ClickHouse wants few large inserts. Rows are full values, so it is
harmless if rows of a partition that was lost meanwhile are still written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from pipeline.column import Columns, count, join_rows
from pipeline.core import Rows
from pipeline.errors import Retry
from pipeline.faults import reach
from pipeline.metrics import METRICS
from pipeline.ports import RowSink

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 5.0


def count_rows(rows: Mapping[str, Columns]) -> int:
    """Rows in all tables together."""
    return sum(count(columns) for columns in rows.values())


def append_rows(target: Rows, rows: Mapping[str, Columns]) -> None:
    """Add rows to what waits, column by column; what was handed in stays as it is."""
    for table, columns in rows.items():
        target[table] = join_rows([target[table], columns]) if table in target else columns


class RowBuffer:
    """Waiting rows. `add` never blocks; `flush` returns when everything added before is acknowledged."""

    def __init__(self, sink: RowSink, insert_s: float, max_pending_rows: int) -> None:
        self._sink = sink
        self._insert_s = insert_s
        self.bound = max_pending_rows
        self._open: dict[str, list[Columns]] = {}  # as they came: joined once, when they are written
        self._sealed: list[tuple[str, list[Columns]]] = []  # tables that are being written: not touched again
        self._lock = asyncio.Lock()
        self._line = asyncio.Lock()  # first come, first served: else small slices pass a large one for ever
        self._changed = asyncio.Event()  # there may be room again
        self._coming = 0  # events of slices that were let in and have added nothing yet
        self._told = False
        self.pending_rows = 0
        self.rows_written = 0
        self.retries = 0

    def add(self, rows: Mapping[str, Columns]) -> None:
        """Take rows in."""
        for table, columns in rows.items():
            self._open.setdefault(table, []).append(columns)
        self.pending_rows += count_rows(rows)
        if self.full and not self._told:
            self._told = True
            log.error(
                "%d rows wait for ClickHouse, the bound: consumption pauses until they are written", self.pending_rows
            )

    @property
    def full(self) -> bool:
        """At the bound: the runner must not hand in further slices."""
        return self.pending_rows >= self.bound

    @asynccontextmanager
    async def room(self, events: int) -> AsyncIterator[None]:
        """Wait until so many events may add their rows, one each, which they have done when this is left.

        A slice waits for the core behind those of all other partitions, so those that were let in count as well. One
        may always go, be the bound as small as it likes.
        """
        async with self._line:
            while self.full or (self._coming and self.pending_rows + self._coming + events > self.bound):
                self._changed.clear()
                await self._changed.wait()
            self._coming += events
        try:
            yield
        finally:
            self._coming -= events
            self._changed.set()

    async def flush(self) -> None:
        """Write and await all rows that were added before this call; retries for ever, cancel it to give up."""
        async with self._lock:
            await self._write_sealed()
            self._sealed = list(self._open.items())
            self._open = {}
            if self._sealed:
                await self._write_sealed()
                reach("after_rows")

    async def run(self) -> None:
        """Flush every `insert_s` until cancelled."""
        while True:
            await asyncio.sleep(self._insert_s)
            await self.flush()

    async def _write_sealed(self) -> None:
        while self._sealed:
            table, parts = self._sealed[0]
            columns = await asyncio.to_thread(join_rows, parts) if len(parts) > 1 else parts[0]
            self._sealed[0] = (table, [columns])
            await self._write(table, columns)
            self._sealed.pop(0)
            written = count(columns)
            self.pending_rows -= written
            self.rows_written += written
            METRICS.clickhouse_insert_rows.labels(table).inc(written)
            self._changed.set()
            self._told = self._told and self.full

    async def _write(self, table: str, columns: Columns) -> None:
        wait_s, failed = FIRST_WAIT_S, METRICS.clickhouse_insert_errors.labels(table)  # at 0 before the first failure
        while True:
            try:
                with METRICS.clickhouse_insert_seconds.labels(table).time():
                    return await self._sink.write(table, columns)
            except Retry as error:
                self.retries += 1
                failed.inc()
                log.warning("rows of %s not written, again in %.1f s: %s", table, wait_s, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
