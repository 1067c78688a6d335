"""Intake against a real Kafka: from the raw topic to keyed events, over a stop and over a crash before the commit."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition

from pipeline.config.tree import Config, Intake, Kafka, Topics
from pipeline.errors import Fatal
from pipeline.intake.run import run
from pipeline.partitioner import PARTITIONERS
from pipeline.sinks import kafka
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.kafka import Producer, fetched_highwaters, side_consumer
from pipeline.sinks.topics import TopicSpec, create_topics
from schemas.event import Event
from schemas.reasons import Rejected
from tests.kafka.cluster import Cluster

T = 1_764_000_000_000_000
PARTITIONS = 3
_numbers = itertools.count()


def config_for(node: Cluster) -> Config:
    name = f"intake{next(_numbers)}"
    topics = Topics(raw=f"{name}.raw", requests=f"{name}.requests", rejected=f"{name}.rejected")
    settings = Kafka(brokers=node.brokers, partitions=PARTITIONS, session_timeout_s=10.0)
    return Config(kafka=settings, topics=topics, intake=Intake(group=name, metrics_port=0))


async def ship(config: Config, first: int, count: int) -> None:
    """`count` raw messages without keys, each an array: two keys, a request without one, and a broken record."""
    producer = Producer(config.kafka)
    await producer.start()
    for number in range(first, first + count):
        records: list[Any] = [{"key_id": f"k{number % 5 + key}", "ts_us": T + number} for key in range(2)]
        records += [{"ts_us": T, "client_ip": "203.0.113.7", "status": 401}, {"key_id": "k"}]
        await producer.publish(config.topics.raw, b"", msgspec.json.encode(records), partition=number % PARTITIONS)
    await producer.close()


async def everything(config: Config, topic: str) -> list[Any]:
    ends = await fetched_highwaters(config.kafka, topic, range(PARTITIONS))
    waiting = {TopicPartition(topic, partition) for partition, end in ends.items() if end}
    records: list[Any] = []
    if not waiting:
        return records
    async with side_consumer(config.kafka) as consumer:
        consumer.assign(list(waiting))
        await consumer.seek_to_beginning()
        while waiting:
            for batch in (await consumer.getmany(timeout_ms=100)).values():
                records += batch
            waiting = {tp for tp in waiting if await consumer.position(tp) < ends[tp.partition]}
    return records


async def drained(config: Config) -> bool:
    ends = await fetched_highwaters(config.kafka, config.topics.raw, range(PARTITIONS))
    group = msgspec.structs.replace(config.kafka, group=config.intake.group)
    return await committed_offsets(group, config.topics.raw) == ends


async def run_until_drained(config: Config) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(run(config, "kafka", stop=stop))
    async with asyncio.timeout(60):
        while not task.done() and not await drained(config):
            await asyncio.wait([task], timeout=0.1)
    stop.set()
    await task


async def prepare(config: Config) -> None:
    await create_topics(config.kafka, [TopicSpec(config.topics.raw, PARTITIONS)])


async def test_raw_arrays_become_keyed_events_and_a_stopped_intake_goes_on_where_it_was(node: Cluster) -> None:
    config = config_for(node)
    await prepare(config)
    await ship(config, 0, 20)
    await run_until_drained(config)
    await ship(config, 20, 20)
    await run_until_drained(config)
    records = await everything(config, config.topics.requests)
    events = [msgspec.json.decode(record.value, type=Event) for record in records]
    assert len({event.request_id for event in events}) == len(events) == 80
    for record, event in zip(records, events, strict=True):
        assert record.key == event.key_id.encode()
        assert record.partition == PARTITIONERS["murmur2"](record.key, PARTITIONS)
    rejected = [msgspec.json.decode(r.value, type=Rejected) for r in await everything(config, config.topics.rejected)]
    reasons = [each.reason for each in rejected]
    assert reasons.count("invalid") == 40
    held = sum(each.suppressed for each in rejected)
    assert 30 <= reasons.count("no_key") + held <= 40  # the rest waits to be told by the next of that network


async def test_a_crash_before_the_commit_repeats_and_loses_nothing(
    node: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(node)
    await prepare(config)
    await ship(config, 0, 30)
    real, published = kafka.Producer.publish, itertools.count()

    async def dies(self: Producer, *args: Any, **kwargs: Any) -> int:
        if next(published) == 25:
            raise Fatal("killed here")
        return await real(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(kafka.Producer, "publish", dies)
        with pytest.raises(Fatal, match="killed here"):
            await run(config, "kafka", stop=asyncio.Event())
    await run_until_drained(config)
    events = [msgspec.json.decode(r.value, type=Event) for r in await everything(config, config.topics.requests)]
    assert len({event.request_id for event in events}) == 60
    assert len(events) > 60  # the first attempt's are there twice, with the same request ids
