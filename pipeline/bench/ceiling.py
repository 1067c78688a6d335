"""Consume and decode alone, the most that any consumer in Python can do: `python -m pipeline.bench.ceiling`.

aiokafka's `getmany` over all partitions, with the worker's fetch size, and msgspec into the typed event; nothing else.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
from aiokafka import TopicPartition

from pipeline.bench.clock import Clock
from pipeline.config.tree import Kafka
from pipeline.sinks.kafka import REQUESTS_FETCH_BYTES, side_consumer
from schemas.event import Event


async def measure(brokers: str, topic: str, partitions: int, total: int) -> Clock:
    """A clock that has run."""
    decode = msgspec.json.Decoder(Event).decode
    clock, done = Clock(total), 0
    async with side_consumer(Kafka(brokers=brokers), max_partition_fetch_bytes=REQUESTS_FETCH_BYTES) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        await consumer.seek_to_beginning()
        while not clock.at(done):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                done += len([decode(record.value) for record in records])
    return clock


if __name__ == "__main__":
    brokers, topic, partitions, total = sys.argv[1:]
    sys.stdout.write(asyncio.run(measure(brokers, topic, int(partitions), int(total))).told())
