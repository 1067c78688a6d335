"""The RowSink on ClickHouse: columns in, one Native block out (`native.py`), acknowledged before `write` returns.

Types come from `schemas/rows.py`, so no round trip asks the server for them. DateTime64 columns are integers in
microseconds, DateTime columns in seconds; IPv6 columns are text, "" is ::, an IPv4 address is mapped
(::ffff:a.b.c.d). A write may be repeated with the same rows: tables replace by key, so nothing is deduplicated on the
way in. The block is made and compressed in a thread, since it may hold a second's rows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.compression import get_compressor
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline import private
from pipeline.column import Column, Columns, plain
from pipeline.config.tree import ClickHouse
from pipeline.errors import Fatal, Retry
from pipeline.sinks import native
from pipeline.sinks.connect import (
    DENIED_CODES,
    by_consequence,
    connect,
    connect_async,
    display_name,
    error_code,
    is_embedded,
)
from schemas.rows import TABLES

INSERT_SETTINGS: Final[dict[str, int | str]] = {"throw_on_max_partitions_per_insert_block": 0}
"""A backfill may touch any number of days at once; refused by default above 100 partitions, for ever."""
WISHED: Final[dict[str, int | str]] = {
    "optimize_on_insert": 0,
    "insert_deduplicate": 0,
    "deduplicate_insert": "disable",
}
"""What is asked of a server that knows it and whose administrator has not pinned it.

`optimize_on_insert` 0: no row is looked for in its own insert, as a merge would: hardly any is there twice, merges and
FINAL find it all the same (ClickHouse takes no part as free of repeats that was not merged), and it was half of what an
insert costs. The others (the newer name supersedes): a replicated table drops a block that it has had, so that of an
insert which failed between it and its views (`hours`, `places`) the second try may never reach these.
"""


class ClickHouseSink:
    """Writes rows to one database. Made without any I/O; connects at the first write, which may raise `Retry`."""

    def __init__(self, config: ClickHouse) -> None:
        self._config = config
        self._client: AsyncClient | None = None
        self._embedded: Client | None = None
        self._connecting = asyncio.Lock()
        self._was_let_in = False

    async def write(self, table: str, rows: Columns) -> None:
        """Insert and await the acknowledgement. Raises `Retry` (transport, overload) or `Fatal` (schema, rights).

        A user who was let in and is no longer is `Retry`: a password that is changed there must not end detection.
        """
        names, columns = checked(table, rows)
        if not len(columns[0]):
            return
        try:
            await self._insert(table, names, columns)
            self._was_let_in = True
        except (ClickHouseError, aiohttp.ClientError, TimeoutError, OSError) as error:
            found = by_consequence(f"insert into {self._config.database}.{table}", error)
            if self._was_let_in and error_code(error) in DENIED_CODES:
                found = Retry(f"{found}; rows wait until it is given back")
            raise found from error
        except (TypeError, ValueError, OverflowError, AttributeError) as error:  # a value that its type can't take
            raise Fatal(f"insert into {table}: a value doesn't fit its column: {error}") from error

    async def _insert(self, table: str, names: list[str], columns: list[Column]) -> None:
        target = f"{quote_identifier(self._config.database)}.{quote_identifier(table)}"
        if is_embedded(self._config):
            await asyncio.to_thread(self._insert_embedded, target, names, _block(table, names, columns, None))
            return
        client = await self._connected()
        compression = client.write_compression
        body = await asyncio.to_thread(_block, table, names, columns, compression)
        async with asyncio.timeout(self._config.timeout_s):
            await client.raw_insert(target, names, body, settings_of(client), "Native", compression)

    def _insert_embedded(self, target: str, names: list[str], body: bytes) -> None:
        if self._embedded is None:
            self._embedded = connect(self._config, None)
        self._embedded.raw_insert(target, names, body, settings_of(self._embedded), "Native")

    async def _connected(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                self._client = await connect_async(self._config, None)
            return self._client

    async def ping(self) -> bool:
        """Whether ClickHouse answers now."""
        try:
            if is_embedded(self._config):
                return True
            return await (await self._connected()).ping()
        except (Retry, ClickHouseError, aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def close(self) -> None:
        """Release connections."""
        if self._client is not None:
            await self._client.close()
        if self._embedded is not None:
            await asyncio.to_thread(self._embedded.close)
        self._client = self._embedded = None

    def __repr__(self) -> str:
        return f"ClickHouseSink({display_name(self._config)}, {self._config.database})"


def settings_of(client: Client | AsyncClient) -> dict[str, int | str]:
    """Of an insert."""
    known = client.server_settings
    return INSERT_SETTINGS | {name: WISHED[name] for name in WISHED if name in known and not known[name].readonly}


def checked(table: str, rows: Columns) -> tuple[list[str], list[Column]]:
    """(names, columns) in the table's order. Raises `Fatal` where columns miss, exceed or differ in length."""
    declared = TABLES.get(table)
    if declared is None:
        raise Fatal(f"no table {table!r} in schemas/rows.py")
    names = [name for name, _ in declared]
    if rows.keys() != set(names):
        wrong = sorted(set(names) ^ rows.keys())
        raise Fatal(f"rows for {table} don't match schemas/rows.py: {', '.join(wrong)}")
    columns = [rows[name] for name in names]
    if len({len(column) for column in columns}) > 1:
        raise Fatal(f"rows for {table} have columns of unequal length")
    return names, columns


def _block(table: str, names: list[str], columns: list[Column], compression: str | None) -> bytes:
    compressor: Any = get_compressor(compression)  # its methods have no types
    block = native.block(names, [kind for _, kind in TABLES[table]], columns)
    return bytes(compressor.compress_block(block)) + (compressor.flush() or b"")


def rows_of(columns: Sequence[Column], names: Sequence[str]) -> list[dict[str, Any]]:
    """Row by row, in Python's own values."""
    return [dict(zip(names, row, strict=True)) for row in zip(*map(plain, columns), strict=True)]


class MemorySink:
    """Rows in memory, a list of dicts per table: for tests and the first steps of a tool."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}

    async def write(self, table: str, rows: Columns) -> None:
        """Append. Raises `Fatal` as the real one does."""
        names, columns = checked(table, rows)
        self.rows.setdefault(table, []).extend(rows_of(columns, names))

    async def close(self) -> None:
        """Nothing to release."""


class FileSink:
    """Rows as JSON lines, one file per table in a folder; the lines of a write are complete when it returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        private.folder(folder)

    async def write(self, table: str, rows: Columns) -> None:
        """Append. Raises `Fatal` as the real one does, `Retry` where the disk is full."""
        names, columns = checked(table, rows)
        lines = [json.dumps(row) + "\n" for row in rows_of(columns, names)]
        try:
            private.append(self._folder / f"{table}.jsonl", "".join(lines).encode())
        except OSError as error:
            raise Retry(f"{self._folder}: {error}") from error

    async def close(self) -> None:
        """Nothing to release."""
