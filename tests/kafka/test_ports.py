"""Kafka's producer, reader and groups keep the contracts of the simulation's fakes (tests/simulation/test_fakes.py)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.protocol.commit import OffsetCommitRequest

from pipeline.config.tree import Kafka
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.kafka import Producer, client_settings, pages_in_turn, read_pages, side_consumer
from pipeline.sinks.topics import PAGES_CONFIG, TopicSpec, create_topics
from tests.contracts import group_contract, ports_contract
from tests.kafka.cluster import PATIENCE, Cluster

pytestmark = pytest.mark.kafka


async def test_kafka_holds_the_contracts_of_publisher_and_page_log(node: Cluster) -> None:
    kafka = Kafka(brokers=node.brokers)
    await create_topics(kafka, [TopicSpec("ports.any", 1), TopicSpec("ports.pages", 1, PAGES_CONFIG)])
    producer = Producer(kafka).pages_to("ports.pages")
    await producer.start()

    async def read() -> dict[bytes, bytes]:
        return (await read_pages(kafka, "ports.pages", [0]))[0]

    await ports_contract.publisher_holds(producer, "ports.any")
    await ports_contract.page_log_holds(producer, read)
    await producer.close()


@dataclass
class Group:
    """Kafka's coordinator, asked as aiokafka asks it, with members and generations of our choice."""

    kafka: Kafka
    topic: str
    members: dict[str, AIOKafkaConsumer] = field(default_factory=dict)  # by the id that the coordinator gave

    async def join(self) -> str:
        consumer = AIOKafkaConsumer(
            self.topic, **client_settings(self.kafka), group_id=self.kafka.group, enable_auto_commit=False,
            heartbeat_interval_ms=200,
        )  # fmt: skip
        await consumer.start()
        member: str = consumer._coordinator.member_id
        self.members[member] = consumer
        await self._settled()
        return member

    async def leave(self, member: str) -> None:
        before = await self.generation()
        await self.members.pop(member).stop()
        await self._settled(before + 1)

    async def generation(self) -> int:
        newest: int = max(each._coordinator.generation for each in self.members.values())
        return newest

    async def commit(self, member: str, generation: int, offset: int) -> bool:
        asked = next(iter(self.members.values()))._coordinator
        keep = OffsetCommitRequest.DEFAULT_RETENTION_TIME
        request = OffsetCommitRequest(self.kafka.group, generation, member, keep, [(self.topic, [(0, offset, "")])])
        ((_, ((_, code),)),) = (await asked._send_req(request)).topics
        return not code

    async def committed(self) -> int:
        return (await committed_offsets(self.kafka, self.topic))[0] or 0

    async def _settled(self, least: int = 0) -> None:
        """All members are in one generation, at least this one."""
        async with asyncio.timeout(30 * PATIENCE):
            while not self._in_one(least):  # noqa: ASYNC110  # aiokafka tells nobody
                await asyncio.sleep(0.05)

    def _in_one(self, least: int) -> bool:
        found = {each._coordinator.generation for each in self.members.values()}
        return len(found) == 1 and min(found) >= least


async def test_kafka_holds_the_contract_of_a_group(node: Cluster) -> None:
    kafka = Kafka(brokers=node.brokers, group="ports.group")
    await create_topics(kafka, [TopicSpec("ports.grouped", 2)])
    group = Group(kafka, "ports.grouped")
    try:
        await group_contract.group_holds(group)
    finally:
        for consumer in group.members.values():
            await consumer.stop()


async def test_what_goes_out_together_lies_where_its_keys_belong_in_order_with_its_headers(node: Cluster) -> None:
    kafka = Kafka(brokers=node.brokers)
    await create_topics(kafka, [TopicSpec("ports.many", 3)])
    producer = Producer(kafka)
    await producer.start()
    sent = [(b"key%d" % (n % 7), b"%06d" % n * 200, [("number", b"%d" % n)]) for n in range(2_000)]  # many batches
    await producer.publish_all("ports.many", sent)
    for n in range(7):
        await producer.publish("ports.many", b"key%d" % n, b"alone")
    await producer.close()
    async with side_consumer(kafka) as consumer:
        tps = [TopicPartition("ports.many", number) for number in range(3)]
        consumer.assign(tps)
        await consumer.seek_to_beginning()
        read: dict[bytes, list[ConsumerRecord]] = {}
        while sum(map(len, read.values())) < 2_007:
            for record in chain.from_iterable((await consumer.getmany(timeout_ms=500)).values()):
                read.setdefault(record.key, []).append(record)
    for key, records in read.items():
        assert len({record.partition for record in records}) == 1, "alone or together, a key has one partition"
        wanted = [(value, headers) for each, value, headers in sent if each == key]
        assert [(r.value, list(r.headers)) for r in records[:-1]] == wanted
        assert records[-1].value == b"alone"


async def test_partitions_are_read_one_after_the_other_to_their_ends_empty_ones_too(node: Cluster) -> None:
    kafka = Kafka(brokers=node.brokers)
    await create_topics(kafka, [TopicSpec("turns.pages", 4, PAGES_CONFIG)])
    producer = Producer(kafka).pages_to("turns.pages")
    await producer.start()
    wide = {b"k%d" % n: bytes([n % 251]) * 60_000 for n in range(400)}  # three fetches
    for partition in (0, 2):
        await producer.send_all(partition, [(b"old", b"x"), *wide.items(), (b"old", None)])
    turns = [(number, pages) async for number, pages in pages_in_turn(kafka, "turns.pages", [2, 1, 0, 3])]
    assert [number for number, _ in turns] == [2, 1, 0, 3]
    assert [pages for _, pages in turns] == [wide, {}, wide, {}]
    async with aclosing(pages_in_turn(kafka, "turns.pages", [0, 2])) as left_early:
        assert (await anext(left_early))[0] == 0
    assert [each async for each in pages_in_turn(kafka, "turns.pages", [])] == []
    await producer.close()
