"""A range of a topic as `keywatch replay --topic` reads it: every record on its own partition, with its own offset.

No group, no commit, nothing is left behind on the broker. The end is fixed at the start, so a topic that is written to
meanwhile doesn't make the replay endless.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import TopicPartition

from pipeline.config.tree import Config
from pipeline.core import TICK_HEADER
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue, read_catalogue
from pipeline.sinks.kafka import fetched_highwaters, side_consumer
from pipeline.sinks.topics import partitions_of, topic_id

POLL_MS: Final = 200


@dataclass(frozen=True, slots=True)
class Raw:
    """One record as the broker has it; `tick`: a worker wrote it into an idle partition."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    tick: bool = False


@dataclass(frozen=True, slots=True)
class Topic:
    """What must be known before the first record: `epoch` names the rows as the worker names them."""

    name: str
    partitions: int
    epoch: str


def time_ms(text: str, option: str) -> int | None:
    """RFC 3339 to milliseconds, None for ""; without an offset it is UTC. Raises ConfigError."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} {text!r} is no RFC 3339 time, e.g. 2026-05-01T12:00:00Z") from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def describe(config: Config, topic: str) -> Topic:
    """Partitions and epoch of a topic. Raises ConfigError where there is no such topic, Fatal without a broker."""
    return asyncio.run(_describe(config, topic))


async def _describe(config: Config, topic: str) -> Topic:
    count = (await partitions_of(config.kafka, [topic])).get(topic)
    if not count:
        raise ConfigError(f"there is no topic {topic!r} at {config.kafka.brokers}")
    return Topic(topic, count, config.worker.topic_epoch or await topic_id(config.kafka, topic) or topic)


def declared_keys(config: Config) -> Catalogue:
    """The catalogue as a worker would read it now, from its topic. Raises Fatal."""
    return asyncio.run(read_catalogue(config))


async def read_range(
    config: Config, topic: Topic, from_: str = "", to: str = "", ends: dict[int, int] | None = None
) -> AsyncIterator[list[Raw]]:
    """Records whose partition had reached `from_` and not yet `to` (by record timestamps; "" is open), in batches.

    Within a partition by offset; `ends`: `ends_of` this range, where they are known. Raises ConfigError for a time that
    is none, Fatal without a broker.
    """
    first_ms = time_ms(from_, "--from")
    last = await ends_of(config, topic, to) if ends is None else ends
    until = {TopicPartition(topic.name, number): end for number, end in last.items()}
    async with side_consumer(config.kafka, max_partition_fetch_bytes=1 << 20) as consumer:
        consumer.assign(list(until))
        await _go_to(consumer, list(until), until, first_ms)
        async for batch in _batches(consumer, until):
            yield batch


async def ends_of(config: Config, topic: Topic, to: str = "") -> dict[int, int]:
    """Partition -> the offset after the last record that had not reached `to`, now; raises as `read_range`.

    Ends come out of fetch responses, which are right on every broker.
    """
    until_ms = time_ms(to, "--to")
    ends = await fetched_highwaters(config.kafka, topic.name, range(topic.partitions))
    if until_ms is None:
        return ends
    partitions = [TopicPartition(topic.name, number) for number in ends]
    async with side_consumer(config.kafka) as consumer:
        consumer.assign(partitions)
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, until_ms))
    return ends | {tp.partition: min(ends[tp.partition], at.offset) for tp, at in found.items() if at is not None}


async def _go_to(
    consumer: Any, partitions: list[TopicPartition], ends: dict[TopicPartition, int], first_ms: int | None
) -> None:
    await consumer.seek_to_beginning(*partitions)
    if first_ms is None:
        return
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, first_ms))
    for tp in partitions:
        at = found.get(tp)
        consumer.seek(tp, ends[tp] if at is None else at.offset)


async def _batches(consumer: Any, ends: dict[TopicPartition, int]) -> AsyncIterator[list[Raw]]:
    waiting = await _unread(consumer, ends, ends)
    while waiting:
        for tp, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
            if batch := [_raw(tp.partition, record) for record in records if record.offset < ends[tp]]:
                yield batch
        waiting = await _unread(consumer, waiting, ends)


async def _unread(consumer: Any, of: Any, ends: dict[TopicPartition, int]) -> set[TopicPartition]:
    """By position: it also passes what compaction or a transaction's marker left empty."""
    left = {tp for tp in of if await consumer.position(tp) < ends[tp]}
    done = [tp for tp in of if tp not in left]
    if done:
        consumer.pause(*done)
    return left


def _raw(partition: int, record: Any) -> Raw:
    tick = any(name == TICK_HEADER for name, _ in record.headers)
    return Raw(partition, record.offset, record.key, record.value, record.timestamp, tick)
