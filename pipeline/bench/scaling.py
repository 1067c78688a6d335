"""Several workers of one group over one log, as a rate, to be compared with one worker's over the same log.

Counted is the time in which all of them work: from when each has judged something and a fifth of the log is done, to
when the first one has no more. Partitions are of unequal size, so the last one's tail says nothing of scaling.
Processor time of workers and servers is of the same while: it tells whether two workers take more for an event than
one does, or the machine has no more to give.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import aiohttp

from pipeline.bench.clock import SKIP, cpu_s_of
from pipeline.bench.processes import CpuS, now, per_event
from pipeline.bench.trial import ALLOW_S, Trial, ask
from pipeline.errors import Fatal

EVERY_S: Final = 0.5
WORKERS: Final = "workers"


class Sample(NamedTuple):
    """Seconds, events judged by each worker, and processor seconds by name of the process."""

    at_s: float
    counts: tuple[int, ...]
    cpu_s: Mapping[str, float] = {}


class Together(NamedTuple):
    """Events per second of all workers, and microseconds of processor time per event by name."""

    per_s: float
    cpu_us: dict[str, float]


async def measure(trial: Trial, workers: int, total: int, servers: Mapping[str, CpuS]) -> Together | None:
    """None where they never worked together for long enough to tell."""
    samples: list[Sample] = []
    started = [await trial.start() for _ in range(workers)]
    cpu_s = [cpu_s_of(child.process.pid) for child, _ in started]
    everybody = {WORKERS: lambda: sum(each() for each in cpu_s), **servers}
    try:
        async with asyncio.timeout(ALLOW_S), aiohttp.ClientSession() as session:
            while not samples or sum(samples[-1].counts) < total:
                await asyncio.sleep(EVERY_S)
                trial.children.check()
                told = await asyncio.gather(*(ask(session, port) for _, port in started))
                counts = tuple(each.consumed for each in told)
                samples.append(Sample(time.perf_counter(), counts, now(everybody)))
    except TimeoutError:
        raise Fatal(f"{workers} workers did not come to the end of the log in {ALLOW_S:.0f} s") from None
    finally:
        await asyncio.gather(*(trial.stop(child) for child, _ in started))
    return rate(samples, total)


def rate(samples: Sequence[Sample], total: int) -> Together | None:
    """What was done while all worked, from at least three samples."""
    final = samples[-1].counts
    busy = [
        each
        for each in samples
        if sum(each.counts) >= SKIP * total
        and all(0 < count < end for count, end in zip(each.counts, final, strict=True))
    ]
    if len(busy) < 3:
        return None
    first, last = busy[0], busy[-1]
    events = sum(last.counts) - sum(first.counts)
    return Together(events / (last.at_s - first.at_s), per_event(first.cpu_s, last.cpu_s, events))
