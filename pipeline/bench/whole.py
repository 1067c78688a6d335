"""The whole worker as an operator runs it: `keywatch worker` as a process, effects and all, watched from outside.

Progress is what its /metrics say: an event is done when it was judged and ClickHouse has acknowledged its row. The
clock begins at the first fifth of the log. To tell all metrics takes the worker some 10 ms, so it is seldom asked
between the ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import aiohttp
import msgspec

from pipeline.bench.clock import Clock, Pace, cpu_s_of
from pipeline.bench.processes import CpuS
from pipeline.bench.trial import ALLOW_S, Progress, Trial, ask
from pipeline.config.tree import ClickHouse
from pipeline.errors import Fatal
from pipeline.sinks.connect import connect
from pipeline.sinks.topics import topic_id

FINE_S: Final = 0.1
COARSE_S: Final = 2.0
NEAR_END: Final = 0.95


class Whole(msgspec.Struct, frozen=True):
    """`start_s`: from the start of the process to its first event done, compiled code cached."""

    pace: Pace
    start_s: float
    rows_per_event: float


async def measure(trial: Trial, total: int, servers: Mapping[str, CpuS]) -> Whole:
    """One worker over the log. Raises Fatal where it ends or does not come to the end of the log."""
    began = time.perf_counter()
    child, port = await trial.start()
    clock = Clock(total, cpu_s_of(child.process.pid), servers=servers)
    try:
        async with asyncio.timeout(ALLOW_S), aiohttp.ClientSession() as session:
            started, last = await _watch(session, trial, port, clock)
    except TimeoutError:
        raise Fatal(await _short_of(trial, port, total)) from None
    finally:
        await trial.stop(child)
    return Whole(clock.pace, started - began, sum(last.rows.values()) / total)


async def _short_of(trial: Trial, port: int, total: int) -> str:
    """Where the events are that are missing; the log's ids are all different, so rows tell lost ones from others."""
    async with aiohttp.ClientSession() as session:
        last = await ask(session, port)
    epoch = await topic_id(trial.kafka, trial.log)
    rows, ids = await asyncio.to_thread(rows_of, ClickHouse(url=trial.clickhouse_url), epoch)
    return (
        f"the worker did {last.done} of {total} events in {ALLOW_S:.0f} s: {last.told};"
        f" in ClickHouse {rows} rows with {ids} request ids"
    )


def rows_of(clickhouse: ClickHouse, epoch: str) -> tuple[int, int]:
    """(rows, different request ids) of the topic that has this id."""
    client = connect(clickhouse, clickhouse.database)
    try:
        sql = "SELECT count(), uniqExact(request_id) FROM requests FINAL WHERE epoch = {epoch:String}"
        ((rows, ids),) = client.query(sql, {"epoch": epoch}).result_rows
    finally:
        client.close()
    return int(rows), int(ids)


async def _watch(session: aiohttp.ClientSession, trial: Trial, port: int, clock: Clock) -> tuple[float, Progress]:
    """(when the first event was done, the last progress)."""
    started = 0.0
    while True:
        trial.children.check()
        now = await ask(session, port)
        if not started and now.consumed:
            started = time.perf_counter()
        if clock.at(now.done):
            return started, now
        near = clock.first is None or clock.last[1] > NEAR_END * clock.total
        await asyncio.sleep(FINE_S if near else COARSE_S)
