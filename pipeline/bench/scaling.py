"""Several workers of one group over one log, as a rate, to be compared with one worker's over the same log.

Counted is the time in which all of them work: from when each has judged something and a fifth of the log is done, to
when the first one has no more. Partitions are of unequal size, so the last one's tail says nothing of scaling.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import aiohttp

from pipeline.bench.clock import SKIP
from pipeline.bench.trial import ALLOW_S, Trial, ask
from pipeline.errors import Fatal

EVERY_S: Final = 0.5
Sample = tuple[float, tuple[int, ...]]
"""Seconds, events judged by each worker."""


async def measure(trial: Trial, workers: int, total: int) -> float | None:
    """Events per second of all; None where they never worked together for long enough to tell."""
    samples: list[Sample] = []
    started = [await trial.start() for _ in range(workers)]
    try:
        async with asyncio.timeout(ALLOW_S), aiohttp.ClientSession() as session:
            while not samples or sum(samples[-1][1]) < total:
                await asyncio.sleep(EVERY_S)
                trial.children.check()
                told = await asyncio.gather(*(ask(session, port) for _, port in started))
                samples.append((time.perf_counter(), tuple(each.consumed for each in told)))
    except TimeoutError:
        raise Fatal(f"{workers} workers did not come to the end of the log in {ALLOW_S:.0f} s") from None
    finally:
        await asyncio.gather(*(trial.stop(child) for child, _ in started))
    return rate(samples, total)


def rate(samples: Sequence[Sample], total: int) -> float | None:
    """Events per second while all worked, from at least three samples."""
    final = samples[-1][1]
    busy = [
        (at, sum(counts))
        for at, counts in samples
        if sum(counts) >= SKIP * total and all(0 < count < end for count, end in zip(counts, final, strict=True))
    ]
    if len(busy) < 3:
        return None
    return (busy[-1][1] - busy[0][1]) / (busy[-1][0] - busy[0][0])
