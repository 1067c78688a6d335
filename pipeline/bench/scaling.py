"""Several workers of one group over one log, as a rate, to be compared with one worker's over the same log.

Counted is the time in which all of them work: from when each has judged something and a fifth of the log is done, to
when the first one has no more. Partitions are of unequal size, so the last one's tail says nothing of scaling.
Processor time of workers and servers is of the same while: it tells whether two workers take more for an event than
one does, or the machine has no more to give. A worker's threads keep more than one processor busy, so on a machine of
two the second worker is measured against what the first left over. `pinned` gives each worker one processor, the first
too: then two against one tells what another worker brings where it has processors of its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import aiohttp

from pipeline.bench.clock import SKIP, cpu_s_of
from pipeline.bench.processes import CpuS, now, per_event
from pipeline.bench.trial import ALLOW_S, Trial, ask
from pipeline.demo.children import Child
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


async def measure(
    trial: Trial, workers: int, total: int, servers: Mapping[str, CpuS], pinned: bool = False
) -> Together | None:
    """None where they never worked together for long enough to tell."""
    samples: list[Sample] = []
    started = [await _start(trial, number if pinned else None) for number in range(workers)]
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
        read = sum(samples[-1].counts) if samples else 0
        raise Fatal(f"{workers} workers read {read} of {total} events in {ALLOW_S:.0f} s") from None
    finally:
        await asyncio.gather(*(trial.stop(child) for child, _ in started))
    return rate(samples, total)


async def _start(trial: Trial, place: int | None) -> tuple[Child, int]:
    child, port = await trial.start()
    if place is not None:
        pin(child.process.pid, place)
    return child, port


def can_pin(workers: int) -> bool:
    """Whether this machine has a processor for each, and lets us choose (Linux)."""
    return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) >= workers


def pin(pid: int, place: int) -> None:
    """Give a process that has no threads yet, and so all that it starts, one of our processors."""
    os.sched_setaffinity(pid, {sorted(os.sched_getaffinity(0))[place]})


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
