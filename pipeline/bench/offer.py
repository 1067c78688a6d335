"""An open-loop load: events at a fixed rate, whatever becomes of them, from a process of its own.

`python -m pipeline.bench.offer` with `Offer` as JSON for its argument. An event's time is when it is due, so a
delay of this process counts as the worker's. It tells when it began and how late it was at the worst; attacks
(`attacks.py`) are mixed in. With `hot`, one key makes that share of its partition's traffic.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from pipeline.bench import load
from pipeline.bench.attacks import Attacks, attack
from pipeline.config import Kafka
from pipeline.demo import history
from pipeline.sinks.kafka import client_settings

TICK_S: Final = 0.005
POOL: Final = 50_000
"""Events that are made before, and sent again and again with another time and another id."""
HOT_KEY: Final = "pk_hot"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What is offered. `per_s` in events per second; attacks go on for `seconds`, the load a little longer."""

    brokers: str
    topic: str
    partitions: int
    per_s: float
    attacks: Attacks
    keys: int = 20_000
    hot: float = 0.0


class Offered(msgspec.Struct, frozen=True):
    """What was."""

    start_us: int
    events: int
    late_ms: float  # of the worst tick, against its due time


Piece = tuple[int, bytes, bytes, bytes]
"""Partition, key, and the value before and after the time; the id comes last."""


def pool(offer: Offer) -> list[Piece]:
    """Events of the usual load, cut open at their times."""
    settings = load.Load(events=POOL, keys=offer.keys)
    hot = history.place_of(HOT_KEY, offer.partitions)[1]
    chosen = np.random.default_rng(3).random(POOL) < offer.hot
    made = []
    for event, is_hot in zip(load.events(settings, load.MARK_US), chosen.tolist(), strict=True):
        key, partition = history.place_of(event.key_id, offer.partitions)
        if is_hot and partition == hot:
            key, event = HOT_KEY.encode(), msgspec.structs.replace(event, key_id=HOT_KEY)
        value = msgspec.json.encode(msgspec.structs.replace(event, ts_us=load.MARK_US, request_id="", source=""))
        head, tail = value.split(b"%d" % load.MARK_US)
        made.append((partition, key, head, tail[:-1].replace(b"%", b"%%") + b',"source":"native","request_id":"o-%x"}'))
    return made


Record = tuple[int, bytes, bytes, int]
"""Partition, key, value, time in ms."""


def due(offer: Offer, pieces: list[Piece], start_us: int) -> Callable[[int], Iterator[Record]]:
    """A function: what became due since its last call, in order."""
    thieves = [(event.ts_us, event) for event in attack(offer.attacks, start_us)]
    sent = stolen = 0

    def until(now_us: int) -> Iterator[Record]:
        nonlocal sent, stolen
        while stolen < len(thieves) and thieves[stolen][0] <= now_us:
            ts_us, event = thieves[stolen]
            key, partition = history.place_of(event.key_id, offer.partitions)
            yield partition, key, msgspec.json.encode(event), ts_us // 1000
            stolen += 1
        last = int((now_us - start_us) * offer.per_s / 1e6)
        for number in range(sent, last):
            partition, key, head, tail = pieces[number % len(pieces)]
            ts_us = start_us + int(number * 1e6 / offer.per_s)
            yield partition, key, head + b"%d" % ts_us + tail % number, ts_us // 1000
        sent = max(sent, last)

    return until


async def run(offer: Offer) -> Offered:
    """Offer it."""
    pieces = pool(offer)
    producer = AIOKafkaProducer(
        **client_settings(Kafka(brokers=offer.brokers)), acks=1, max_batch_size=history.BATCH_BYTES
    )
    await producer.start()
    try:
        return await _offer(producer, offer, pieces)
    finally:
        await producer.stop()


async def _offer(producer: Any, offer: Offer, pieces: list[Piece]) -> Offered:
    start_us = time.time_ns() // 1000
    until, end_us = due(offer, pieces, start_us), start_us + int((offer.attacks.seconds + 2.0) * 1e6)
    events, worst_us = 0, 0
    waiting: set[Any] = set()
    before_us = now_us = start_us
    while now_us < end_us:
        now_us = time.time_ns() // 1000
        worst_us = max(worst_us, now_us - before_us)
        before_us = now_us
        ready = list(until(now_us))
        events += len(ready)
        for partition, builder in in_batches(producer.create_batch, ready, offer.partitions):
            waiting.add(await producer.send_batch(builder, offer.topic, partition=partition))
        waiting = {sent for sent in waiting if not sent.done()}
        await asyncio.sleep(max(0.0, TICK_S - (time.time_ns() // 1000 - now_us) / 1e6))
    await asyncio.gather(*waiting)
    return Offered(start_us, events, worst_us / 1000)


def in_batches(create: Callable[[], Any], records: Sequence[Record], partitions: int) -> list[tuple[int, Any]]:
    """The records in builders of one partition each, in order; a full one is followed by another."""
    full: list[tuple[int, Any]] = []
    builders = [create() for _ in range(partitions)]
    for partition, key, value, ms in records:
        if builders[partition].append(timestamp=ms, key=key, value=value) is None:
            full.append((partition, builders[partition]))
            builders[partition] = create()
            builders[partition].append(timestamp=ms, key=key, value=value)
    return full + [(partition, builder) for partition, builder in enumerate(builders) if builder.record_count()]


if __name__ == "__main__":
    wanted = msgspec.json.decode(sys.argv[1], type=Offer)
    sys.stdout.write(msgspec.json.encode(asyncio.run(run(wanted))).decode() + "\n")
