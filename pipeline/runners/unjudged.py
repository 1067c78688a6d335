"""Events that lie in the requests topic beyond what state includes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final, NamedTuple

from aiokafka import TopicPartition

from pipeline.config.tree import Kafka
from pipeline.core import TICK_HEADER
from pipeline.sinks.kafka import fetched_highwaters, side_consumer

POLL_MS: Final = 200


class Waiting(NamedTuple):
    """One event that nobody has judged."""

    partition: int
    offset: int
    key: bytes | None


async def unjudged(kafka: Kafka, topic: str, since: Mapping[int, int]) -> AsyncGenerator[Waiting, None]:
    """Events at or after the given offsets, to the log's end as of now; ticks are no events. Raises Fatal."""
    ends = await fetched_highwaters(kafka, topic, since)
    left = {TopicPartition(topic, number): ends[number] for number, start in since.items() if start < ends[number]}
    if not left:
        return
    async with side_consumer(kafka) as consumer:
        consumer.assign(list(left))
        for tp in left:
            consumer.seek(tp, since[tp.partition])
        while left:
            for tp, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                for record in records:
                    if not any(name == TICK_HEADER for name, _ in record.headers):
                        yield Waiting(tp.partition, record.offset, record.key)
            left = {tp: end for tp, end in left.items() if await consumer.position(tp) < end}


async def first_unjudged(kafka: Kafka, topic: str, since: Mapping[int, int]) -> Waiting | None:
    """One of them, None where all has been judged."""
    async with aclosing(unjudged(kafka, topic, since)) as found:
        async for waiting in found:
            return waiting
    return None
