"""From an event to the incident that it opened, while a load of fixed rate goes on (`offer.py`).

Measured is from when the opening event was due (its own time) to when a consumer of the incidents topic has the
record: what a responder sees. Everything in between counts: the producer, the fetch, the slice before it, the core, the
acknowledgement, the consumer's fetch. An attack without an incident is missing, and said so.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import aiohttp
import msgspec
import numpy as np
from aiokafka import TopicPartition

from pipeline.bench import load, stages
from pipeline.bench.attacks import Attacks, history
from pipeline.bench.offer import Offer, Offered
from pipeline.bench.trial import ALLOW_S, Trial, ask, metrics_of
from pipeline.demo.children import Child, last_words
from pipeline.errors import Fatal
from pipeline.sinks.kafka import side_consumer
from schemas.incident import Incident

GRACE_S: Final = 20.0
"""After the last event, for incidents that are still on their way."""


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds over all incidents of one run; `offered_late_ms` is the load's own worst delay, included.

    `stages_p99_ms`: what the worker itself told of the run (`stages.py`).
    """

    per_s: float
    p50_ms: float | None
    p99_ms: float | None
    worst_ms: float | None
    incidents: int
    missing: int
    offered_late_ms: float
    stages_p99_ms: dict[str, float | None] = {}


async def measure(trial: Trial, attacks: Attacks, per_s: float, hot: float = 0.0) -> Latency:
    """One run: the victims' past first, then load and attacks. Raises Fatal where a part ends."""
    await trial.create()
    past = await load.fill(trial.kafka, trial.log, history(attacks, time.time_ns() // 1000))
    child, port = await trial.start()
    try:
        await _until_done(trial, port, past)
        offer = Offer(
            brokers=trial.kafka.brokers, topic=trial.log, partitions=trial.kafka.partitions, per_s=per_s,
            attacks=attacks, hot=hot,
        )  # fmt: skip
        async with aiohttp.ClientSession() as session:
            before = stages.buckets(await metrics_of(session, port))
            measured = await _run(trial, offer)
            after = stages.buckets(await metrics_of(session, port))
        return msgspec.structs.replace(measured, stages_p99_ms=stages.between(before, after))
    finally:
        await trial.stop(child)


async def _until_done(trial: Trial, port: int, events: int) -> None:
    try:
        async with asyncio.timeout(ALLOW_S), aiohttp.ClientSession() as session:
            while (await ask(session, port)).done < events:
                trial.children.check()
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise Fatal(f"the worker did not read {events} events of history in {ALLOW_S:.0f} s") from None


async def _run(trial: Trial, offer: Offer) -> Latency:
    arrived: list[float] = []
    reading = asyncio.create_task(_read(trial, offer.attacks.count, arrived))
    command = [sys.executable, "-m", "pipeline.bench.offer", msgspec.json.encode(offer).decode()]
    child = await trial.children.start("offer", command)
    try:
        offered = await _offered(trial, child)
        await asyncio.wait([reading], timeout=GRACE_S)
        if reading.done():
            reading.result()  # raises what ended it
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await trial.stop(child)
    return summed_up(offer, offered, arrived)


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
