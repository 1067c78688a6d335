"""Numbers for the brief: right where ClickHouse has them, unknown where it has not, and never late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pipeline.config.tree import ClickHouse
from pipeline.respond.brief import NO_NUMBERS, Usage
from pipeline.respond.usage import UsageReader, merged
from pipeline.sinks.clickhouse import ClickHouseSink
from tests.pipeline.respond.incidents import incident
from tests.row_examples import rows_of

HOUR_S = 3600
OPENED_S = 1_790_000_000 // HOUR_S * HOUR_S + 1800
KEY = "usage-key"
ABOUT = incident(KEY, incident_id="f" * 32, opened_at="2026-09-21T14:30:00Z")


async def fill(config: ClickHouse) -> None:
    """Two clients the day before, 120 requests in two hours; since it opened 3 of its own network's, 2 others, and a
    stranger in that network who has no more than the key's id. And who was to steal it named it the day before."""
    sink = ClickHouseSink(config)
    hour = OPENED_S - 1800
    await sink.write("key_source_1h", rows_of(
        "key_source_1h", 4, key_id=[KEY] * 4, asn=[1, 1, 64500, 64500], client=["python", "go", "curl", "curl"],
        window_start=[hour - HOUR_S, hour - 2 * HOUR_S, hour, hour - 3 * HOUR_S], requests=[60, 60, 999, 999],
        outcome=["success", "success", "success", "invalid"],
    ))  # fmt: skip
    await sink.write("requests", rows_of(
        "requests", 7, key_id=[KEY] * 7, ts=[(OPENED_S + at) * 10**6 for at in (-5, 1, 2, 3, 4, 5, 6)],
        asn=[1, 1, 1, 1, 64500, 64500, 1], one_in=[1] * 7, offset=range(7),
        outcome=["success", "success", "denied", "disabled", "success", "success", "invalid"],
    ))  # fmt: skip
    await sink.write("evidence", rows_of(
        "evidence", 3, incident_id=[ABOUT.incident_id] * 3, method=["GET"] * 3, route=["/b", "/a", "/b"],
        bytes_out=[100, 50, 100], offset=range(3),
    ))  # fmt: skip
    await sink.close()


@asynccontextmanager
async def reading(config: ClickHouse, within_s: float = 10.0) -> AsyncIterator[UsageReader]:
    reader = UsageReader(config, within_s)
    yield reader
    await reader.close()


async def test_the_numbers_are_those_of_the_tables(clickhouse: ClickHouse) -> None:
    await fill(clickhouse)
    async with reading(clickhouse) as reader:
        told = await reader.read(ABOUT)
    assert told == Usage(
        clients=2, per_minute=1.0, usual_requests=3, touched=("GET /b", "GET /a"), requests=3, bytes_out=250,
        fence_networks=(),
    )  # fmt: skip


async def test_a_key_that_nobody_used_has_no_clients_and_its_evidence_is_not_written_yet(
    migrated: ClickHouse,
) -> None:
    async with reading(migrated) as reader:
        told = await reader.read(incident("nobody", incident_id="e" * 32, opened_at="2026-09-21T14:30:00Z"))
    assert (told.clients, told.per_minute, told.usual_requests) == (0, 0.0, 0)
    assert (told.touched, told.requests, told.bytes_out) == (None, None, None)


async def test_a_clickhouse_that_hangs_costs_its_time_once_and_then_is_not_asked_for_a_while() -> None:
    asked = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with reading(ClickHouse(url=f"http://127.0.0.1:{port}"), within_s=0.2) as reader:
        began = time.monotonic()
        assert await reader.read(ABOUT) == NO_NUMBERS
        assert time.monotonic() - began < 5
        before = asked
        assert await reader.read(ABOUT) == NO_NUMBERS
        assert asked == before
    server.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "chdb:///nowhere"])
async def test_a_clickhouse_that_is_away_is_unknown_numbers(url: str) -> None:
    async with reading(ClickHouse(url=url), within_s=2) as reader:
        assert await reader.read(ABOUT) == NO_NUMBERS


async def test_no_time_is_no_question() -> None:
    async with reading(ClickHouse(url="http://127.0.0.1:9"), within_s=0) as reader:
        assert await reader.read(ABOUT) == NO_NUMBERS


def test_what_came_in_time_counts_though_the_rest_did_not() -> None:
    assert merged([{"clients": 3, "per_minute": float("nan")}]) == Usage(clients=3, per_minute=0.0)
