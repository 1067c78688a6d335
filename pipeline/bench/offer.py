"""An open-loop load: events at a fixed rate, whatever becomes of them, from a process of its own.

`python -m pipeline.bench.offer` with `Offer` as JSON for its argument. An event's time is when it is due, so a
delay of this process counts as the worker's, and so does its wait for the next tick. It tells when it began and how
late it was at the worst; attacks (`attacks.py`) are mixed in. With `hot`, one key makes that share of its partition's
traffic. All batches are made before the first is due: while it goes on, the load takes a few hundredths of a processor,
where making events took as much as judging them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from pipeline.bench import load
from pipeline.bench.attacks import Attacks, attack
from pipeline.config.tree import Kafka
from pipeline.demo import history
from pipeline.sinks.kafka import client_settings
from schemas.event import Event

TICK_US: Final = 10_000
SAMPLE: Final = 50
"""Ticks that are made first, to see how long all will take; they begin that much later, and half as much again."""
ALLOWANCE: Final = 1.5
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


class Start(msgspec.Struct, frozen=True):
    """Told before it begins."""

    start_us: int


class Offered(msgspec.Struct, frozen=True):
    """What was."""

    start_us: int
    events: int
    late_ms: float  # of the latest tick


Piece = tuple[int, bytes, bytes, bytes]
"""Partition, key, and the value before and after the time; the id comes last."""


def usual(offer: Offer, start_us: int) -> Iterator[Event]:
    """The events of the pool at their own times: sent before, they make the load's keys known ones."""
    return load.events(load.Load(events=POOL, keys=offer.keys), start_us)


def pool(offer: Offer) -> list[Piece]:
    """Events of the usual load, cut open at their times."""
    hot = history.place_of(HOT_KEY, offer.partitions)[1]
    chosen = np.random.default_rng(3).random(POOL) < offer.hot
    made = []
    for event, is_hot in zip(usual(offer, load.MARK_US), chosen.tolist(), strict=True):
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


Tick = tuple[int, list[tuple[int, Any]]]
"""When it is due, in us; and its batches with their partitions."""


def prepared(create: Callable[[], Any], offer: Offer, pieces: list[Piece], start_us: int) -> Iterator[Tick]:
    """All of the load, tick by tick."""
    until = due(offer, pieces, start_us)
    for at_us in range(start_us + TICK_US, start_us + round((offer.attacks.seconds + 2.0) * 1e6), TICK_US):
        yield at_us, in_batches(create, list(until(at_us)), offer.partitions)


async def run(offer: Offer) -> Offered:
    """Offer it."""
    pieces = pool(offer)
    producer = AIOKafkaProducer(
        **client_settings(Kafka(brokers=offer.brokers)), acks=1, max_batch_size=history.BATCH_BYTES
    )
    await producer.start()
    try:
        began = time.perf_counter()
        sample = list(islice(prepared(producer.create_batch, offer, pieces, 0), SAMPLE))
        takes_s = (time.perf_counter() - began) / len(sample) * (offer.attacks.seconds + 2.0) * 1e6 / TICK_US
        start_us = time.time_ns() // 1000 + round((1.0 + ALLOWANCE * takes_s) * 1e6)
        return await _offer(producer, offer, list(prepared(producer.create_batch, offer, pieces, start_us)), start_us)
    finally:
        await producer.stop()


async def _offer(producer: Any, offer: Offer, ticks: Sequence[Tick], start_us: int) -> Offered:
    sys.stdout.write(msgspec.json.encode(Start(start_us)).decode() + "\n")
    sys.stdout.flush()
    events = late_us = 0
    waiting: set[Any] = set()
    for at_us, batches in ticks:
        await asyncio.sleep(max(0.0, (at_us - time.time_ns() // 1000) / 1e6))
        late_us = max(late_us, time.time_ns() // 1000 - at_us)
        for partition, builder in batches:
            events += builder.record_count()
            waiting.add(await producer.send_batch(builder, offer.topic, partition=partition))
        waiting = {sent for sent in waiting if not sent.done()}
    await asyncio.gather(*waiting)
    return Offered(start_us, events, late_us / 1000)


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
