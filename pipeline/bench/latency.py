"""From an event to the incident that it opened, while a load of fixed rate goes on (`offer.py`).

Measured is from when the opening event was due (its own time) to when a consumer of the incidents topic has the
record: what a responder sees. Everything in between counts: the producer, the fetch, the slice before it, the core, the
acknowledgement, the consumer's fetch. An attack without an incident is missing, and said so.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import chain
from typing import Final

import aiohttp
import msgspec
import numpy as np
from aiokafka import TopicPartition

from pipeline.bench import load, stages
from pipeline.bench.attacks import Attacks, history
from pipeline.bench.clock import cpu_s_of
from pipeline.bench.offer import Offer, Offered, Start, usual
from pipeline.bench.processes import CpuS, now, servers
from pipeline.bench.trial import ALLOW_S, Trial, ask, metrics_of
from pipeline.demo.children import Child, last_words
from pipeline.errors import Fatal
from pipeline.sinks.kafka import side_consumer
from schemas.incident import Incident

GRACE_S: Final = 20.0
"""After the last event, for incidents that are still on their way."""
SAMPLE_S: Final = 0.5
WAIT_S: Final = 0.2


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds over all incidents of one run; `offered_late_ms` is the load's own worst delay, included.

    `stages_p99_ms` and `steps_ms`: what the worker itself told of the run (`stages.py`); `cpu`: how many processors
    worker, load, broker and ClickHouse took meanwhile.
    """

    per_s: float
    p50_ms: float | None
    p99_ms: float | None
    worst_ms: float | None
    incidents: int
    missing: int
    offered_late_ms: float
    stages_p99_ms: dict[str, float | None] = {}
    steps_ms: dict[str, dict[str, float | None]] = {}
    cpu: dict[str, float] = {}


async def measure(trial: Trial, attacks: Attacks, per_s: float, hot: float = 0.0) -> Latency:
    """One run: the keys' past first, then load and attacks. Raises Fatal where a part ends."""
    offer = _offer(trial, attacks, per_s, hot)
    async with _with_a_past(trial, offer) as (child, port), aiohttp.ClientSession() as session:
        cpu_s = {"worker": cpu_s_of(child.process.pid), **servers(trial.kafka.brokers, trial.clickhouse_url)}
        before = stages.buckets(await metrics_of(session, port))
        measured = await _run(trial, offer, cpu_s)
        after = stages.buckets(await metrics_of(session, port))
        told = {"stages_p99_ms": stages.between(before, after), "steps_ms": stages.steps(before, after)}
        return msgspec.structs.replace(measured, **told)


async def sustained(trial: Trial, attacks: Attacks, per_s: float) -> float:
    """Events per second that a worker judges while a load of `per_s`, more than it can do, is being produced.

    What it does with a log that was written before is more: then nobody produces. Shares of this are what a load is
    told by, since only below it no queue grows.
    """
    offer = _offer(trial, attacks, per_s, 0.0)
    async with _with_a_past(trial, offer) as (_, port), aiohttp.ClientSession() as session:
        child = await _offering(trial, offer)
        samples = []
        try:
            while child.running:
                samples.append((time.perf_counter(), (await ask(session, port)).consumed))
                await asyncio.sleep(SAMPLE_S)
            await _offered(trial, child)
        finally:
            await trial.stop(child)
        trial.children.check()
    return steepest(samples)


def steepest(samples: Sequence[tuple[float, int]]) -> float:
    """Events per second over the busiest half of the samples that came one after the other."""
    window = max(2, len(samples) // 2)
    spans = zip(samples, samples[window - 1 :], strict=False)
    return max(((b - a) / (after - before) for (before, a), (after, b) in spans), default=0.0)


def _offer(trial: Trial, attacks: Attacks, per_s: float, hot: float) -> Offer:
    return Offer(
        brokers=trial.kafka.brokers, topic=trial.log, partitions=trial.kafka.partitions, per_s=per_s,
        attacks=attacks, hot=hot,
    )  # fmt: skip


@asynccontextmanager
async def _with_a_past(trial: Trial, offer: Offer) -> AsyncIterator[tuple[Child, int]]:
    """A worker that knows the victims and the keys of the load: a day like others, not the first."""
    await trial.create()
    now_us = time.time_ns() // 1000
    past = chain(history(offer.attacks, now_us), usual(offer, now_us - 300_000_000))
    count = await load.fill(trial.kafka, trial.log, past)
    child, port = await trial.start()
    try:
        await _until_done(trial, port, count)
        yield child, port
    finally:
        await trial.stop(child)


async def _until_done(trial: Trial, port: int, events: int) -> None:
    try:
        async with asyncio.timeout(ALLOW_S), aiohttp.ClientSession() as session:
            while (last := await ask(session, port)).done < events:
                trial.children.check()
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise Fatal(f"the worker did not do {events} events of history in {ALLOW_S:.0f} s: {last.told}") from None


async def _offering(trial: Trial, offer: Offer) -> Child:
    command = [sys.executable, "-m", "pipeline.bench.offer", msgspec.json.encode(offer).decode()]
    return await trial.children.start(f"offer-{offer.topic}", command)


async def _run(trial: Trial, offer: Offer, cpu_s: dict[str, CpuS]) -> Latency:
    arrived: list[float] = []
    reading = asyncio.create_task(_read(trial, offer.attacks.count, arrived))
    child = await _offering(trial, offer)
    using = asyncio.create_task(_processors(child, offer, cpu_s | {"load": cpu_s_of(child.process.pid)}))
    try:
        offered = await _offered(trial, child)
        await asyncio.wait([reading], timeout=GRACE_S)
        if reading.done():
            reading.result()  # raises what ended it
        cpu = await using
    finally:
        reading.cancel()
        using.cancel()
        await asyncio.gather(reading, using, return_exceptions=True)
        await trial.stop(child)
    return msgspec.structs.replace(summed_up(offer, offered, arrived), cpu=cpu)


async def _processors(child: Child, offer: Offer, cpu_s: Mapping[str, CpuS]) -> dict[str, float]:
    """How many processors each took in the middle of the load."""
    while not (lines := child.log.read_text().splitlines()):  # noqa: ASYNC110  (another process writes it)
        await asyncio.sleep(WAIT_S)
    start_us, quarter_s = msgspec.json.decode(lines[0], type=Start).start_us, offer.attacks.seconds / 4
    await asyncio.sleep(start_us / 1e6 + quarter_s - time.time())
    before, began = now(cpu_s), time.perf_counter()
    await asyncio.sleep(2 * quarter_s)
    after, took_s = now(cpu_s), time.perf_counter() - began
    return {name: round((after[name] - before[name]) / took_s, 3) for name in cpu_s}


async def _offered(trial: Trial, child: Child) -> Offered:
    try:
        async with asyncio.timeout(ALLOW_S):
            code = await child.process.wait()
    except TimeoutError:
        raise Fatal(f"the load did not end in {ALLOW_S:.0f} s") from None
    if code:
        raise Fatal(f"the load ended with code {code}: {last_words(child.log)}")
    return msgspec.json.decode(child.log.read_text().strip().splitlines()[-1], type=Offered)


async def _read(trial: Trial, count: int, arrived: list[float]) -> None:
    """Milliseconds of every opened incident as it comes, until there are `count`."""
    seen: set[str] = set()
    decode = msgspec.json.Decoder(Incident).decode
    async with side_consumer(trial.kafka, fetch_max_wait_ms=500) as consumer:
        consumer.assign([TopicPartition(trial.incidents, 0)])
        await consumer.seek_to_beginning()
        while len(arrived) < count:
            found = await consumer.getmany(timeout_ms=1_000)
            now_ms = time.time_ns() / 1e6
            for incident in [decode(record.value) for records in found.values() for record in records]:
                if incident.change == "opened" and incident.key_id.startswith("pk_victim"):
                    if incident.incident_id not in seen:
                        arrived.append(now_ms - opened_ms(incident))
                    seen.add(incident.incident_id)


def opened_ms(incident: Incident) -> float:
    """The time of the event that opened it, in ms since 1970: the latest of the first revision."""
    return datetime.fromisoformat(incident.last_at).timestamp() * 1000


def summed_up(offer: Offer, offered: Offered, arrived: Sequence[float]) -> Latency:
    """A missing incident counts as an endless one, so that few and quick ones don't look good."""
    missing = max(0, offer.attacks.count - len(arrived))
    sample = np.array([*arrived, *([np.inf] * missing)])
    p50, p99 = (float(np.percentile(sample, q, method="higher")) for q in (50, 99))
    return Latency(
        per_s=offer.per_s, p50_ms=_told(p50), p99_ms=_told(p99), worst_ms=_told(float(sample.max())),
        incidents=len(arrived), missing=missing, offered_late_ms=round(offered.late_ms, 1),
    )  # fmt: skip


def _told(ms: float) -> float | None:
    return round(ms, 1) if np.isfinite(ms) else None
