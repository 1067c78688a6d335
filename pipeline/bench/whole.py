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
from pipeline.errors import Fatal

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
        raise Fatal(f"the worker did {clock.last[1]} of {total} events in {ALLOW_S:.0f} s") from None
    finally:
        await trial.stop(child)
    return Whole(clock.pace, started - began, sum(last.rows.values()) / total)


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
