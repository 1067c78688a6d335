"""On a real broker: the witness begins at the confirmation, goes back for a further key, and tells within seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from pipeline.config.tree import Config, Kafka, Topics
from pipeline.respond.enforcement.proof import Enforcement, Verdict
from pipeline.respond.enforcement.witness import witnessing
from pipeline.sinks.topics import create_topics, topic_specs
from schemas.event import Event
from tests.kafka import cluster
from tests.pipeline.respond.enforcement.test_proof import watch

pytestmark = pytest.mark.kafka

Put = Callable[[str, float, int], Awaitable[None]]


def test_the_witness_tells_what_the_log_says_from_the_confirmation_on(node: cluster.Cluster) -> None:
    config = Config(kafka=Kafka(brokers=node.brokers, partitions=4), topics=Topics(requests="witness.requests"))
    asyncio.run(watched(config))


async def watched(config: Config) -> None:
    await create_topics(config.kafka, [each for each in topic_specs(config) if each.name == config.topics.requests])
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.brokers)
    await producer.start()
    now_s = time.time()

    async def put(key_id: str, after_s: float, status: int) -> None:
        at_us = int((now_s + after_s) * 1e6)
        outcome = "success" if status < 400 else "disabled"
        value = msgspec.json.encode(Event(key_id=key_id, ts_us=at_us, status=status, outcome=outcome))
        await producer.send_and_wait(config.topics.requests, value, key=key_id.encode(), timestamp_ms=at_us // 1000)

    try:
        await follow(config, put, int((now_s - 30) * 1e6))
    finally:
        await producer.stop()


async def follow(config: Config, put: Put, confirmed_us: int) -> None:
    told: asyncio.Queue[Verdict] = asyncio.Queue()
    enforcement = Enforcement(skew_s=1.0)
    for n in range(50):
        await put("k1", -200.0 + n, 200)
    async with asyncio.timeout(60), witnessing(config, enforcement, told.put) as check:
        enforcement.watch(watch(confirmed_us=confirmed_us, allowance_us=0))
        await put("k1", -20.0, 403)
        assert (await told.get()).word == "enforced"
        for n in range(20):
            await put(f"other{n}", -19.0, 200)  # on every partition
        await put("k1", -18.0, 200)
        assert (await told.get()).word == "broken"
        enforcement.watch(watch(response_id="r2", key_id="other7", confirmed_us=confirmed_us, allowance_us=0))
        assert (await told.get()).watch.key_id == "other7"
        enforcement.ended("r1")
        enforcement.ended("r2")
        enforcement.watch(watch(response_id="r3", key_id="other3", confirmed_us=confirmed_us, allowance_us=0))
        assert (await told.get()).watch.key_id == "other3"
        check()
    assert told.empty()
