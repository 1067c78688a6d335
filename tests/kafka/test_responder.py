"""Responders as processes on Apache Kafka: killed by SIGKILL and two at once, against a key service that counts."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.config.tree import Config, Kafka, Topics
from pipeline.respond.consume import TopicReader
from pipeline.respond.desk import opened
from pipeline.respond.ledger.entries import Joined, decode, encode
from pipeline.runners.ending import EXIT_FATAL
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.kafka import Producer, client_settings, fetched_highwaters
from pipeline.sinks.topics import TopicSpec, create_topics, topic_specs
from schemas.incident import Incident
from schemas.response import Response
from tests.kafka import topics
from tests.kafka.cluster import Cluster
from tests.pipeline.respond import log_contract
from tests.pipeline.respond.incidents import SECRET, finding, incident, key
from tests.pipeline.respond.receiver import Receiver, code

ROOT = Path(__file__).parents[2]
_numbers = itertools.count()


def now() -> str:
    return datetime.now(UTC).isoformat()


def fresh(name: str) -> Incident:
    """An incident of this moment."""
    findings = tuple(msgspec.structs.replace(finding(family), at=now()) for family in ("network", "volume"))
    return incident(name, findings=findings, last_at=now())


class World:
    """Topics of its own, a key service and responder processes."""

    def __init__(self, brokers: str, url: str) -> None:
        prefix = f"r{next(_numbers)}."
        self.config = Config(
            kafka=Kafka(brokers=brokers, partitions=2),
            topics=Topics(**{name: prefix + name for name in Topics.__struct_fields__}),
        )
        self.settings: dict[str, Any] = {
            "kafka": {
                "brokers": brokers, "session_timeout_s": 6, "heartbeat_s": 1, "rebalance_timeout_s": 6, "partitions": 2,
                "group": prefix,
            },
            "topics": {name: prefix + name for name in Topics.__struct_fields__},
            "clickhouse": {"url": "http://127.0.0.1:9"},
            "respond": {
                "group": prefix + "respond", "metrics_port": 0,
                "endpoints": [{"name": "keys", "url": url, "secret": SECRET, "allow_private": True, "events": []}],
                "revocation": {"mode": "enforce", "endpoint": "keys", "max_share_of_active": 0.5},
            },
        }  # fmt: skip
        self.processes: list[subprocess.Popen[bytes]] = []
        self.consumers: list[Any] = []

    def start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "KW_CONFIG": json.dumps(self.settings)}
        command = ["timeout", "-s", "KILL", "120", sys.executable, "-m", "tests.kafka.run_responder"]
        self.processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL))
        return self.processes[-1]

    def signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        """To the responder, the child of `timeout`."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), number)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.signal(process, signal.SIGKILL)
            process.wait(10)

    async def prepare(self, keys: int) -> None:
        await create_topics(self.config.kafka, list(topic_specs(self.config)))
        async with self.producer() as producer:
            for name in (f"k{i}" for i in range(keys)):
                await producer.publish(self.config.topics.keys, name.encode(), msgspec.json.encode(key(name)))

    async def open(self, *names: str) -> None:
        async with self.producer() as producer:
            for name in names:
                value = msgspec.json.encode(fresh(name))
                await producer.publish(self.config.topics.incidents, name.encode(), value)

    async def go(self) -> None:
        """As `keywatch respond go`."""
        async with opened(self.config, "alice", False) as desk:
            await desk.switch(False, "looked at it")

    async def lines(self, until: Callable[[list[Response]], bool]) -> list[Response]:
        """The audit so far, as soon as it is as wanted."""
        reader = await self.reader(self.config.topics.responses)
        lines: list[Response] = []
        async with asyncio.timeout(60):
            while not until(lines):
                lines += [msgspec.json.decode(each.value or b"", type=Response) for each in await reader.read()]
        await self.close_readers()
        return lines

    async def joined(self, responders: int) -> None:
        """So many are up."""
        reader, seen = await self.reader(self.config.topics.decisions), set[str]()
        async with asyncio.timeout(60):
            while len(seen) < responders:
                records = [decode(each.value) for each in await reader.read()]
                seen |= {each.responder for each in records if isinstance(each, Joined)}
        await self.close_readers()

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[Producer]:
        producer = Producer(self.config.kafka)
        await producer.start()
        yield producer
        await producer.close()

    async def reader(self, topic: str) -> TopicReader:
        consumer = AIOKafkaConsumer(**client_settings(self.config.kafka), auto_offset_reset="earliest")
        await consumer.start()
        consumer.assign([TopicPartition(topic, 0)])
        self.consumers.append(consumer)
        return TopicReader(consumer)

    async def close_readers(self) -> None:
        for consumer in self.consumers:
            await consumer.stop()
        self.consumers.clear()


@pytest.fixture
def world(node: Cluster, target: Receiver) -> Iterator[World]:
    this = World(node.brokers, target.url)
    yield this
    this.end()


def decided(count: int) -> Callable[[list[Response]], bool]:
    """So many incidents have a decision, and every granted act an end."""

    def enough(lines: list[Response]) -> bool:
        lines = [line for line in lines if not line.switch]
        ended = {line.response_id for line in lines if line.stage in ("done", "failed")}
        granted = {line.response_id for line in lines if line.stage == "decided" and line.verdict == "allowed"}
        return len({line.incident_id for line in lines if line.stage == "decided"}) >= count and granted <= ended

    return enough


def told(line: Response) -> str:
    """Why nothing was done, where nothing was: refused, or granted in the new topic by who had not noticed yet."""
    return {"refused": line.reason, "allowed": line.outcome}.get(line.verdict, "")


async def test_kafka_holds_the_contract_of_a_log(world: World) -> None:
    topic = world.config.topics.decisions
    await create_topics(world.config.kafka, [TopicSpec(topic, 1), TopicSpec(topic + "2", 1)])
    async with world.producer() as producer:
        await log_contract.holds(producer, lambda: world.reader(topic), topic)
        await log_contract.two_agree_on_verdicts(producer, lambda: world.reader(topic + "2"), topic + "2")
    await world.close_readers()


async def test_two_responders_stay_within_the_cap_and_stop_at_the_end_of_the_log(
    world: World, target: Receiver
) -> None:
    names = [f"k{i}" for i in range(10)]
    await world.prepare(keys=20)
    both = [world.start(), world.start()]
    await world.joined(2)
    await world.open(*names)
    lines = await world.lines(decided(10))
    told = Counter(each.message["data"]["key_id"] for each in target.received)
    assert len(told) == 3
    assert len({each.headers["idempotency-key"] for each in target.received}) == 3
    verdicts = {line.incident_id: line.verdict for line in lines if line.stage == "decided"}
    assert Counter(verdicts.values()) == {"allowed": 3, "refused": 7}
    for process in both:
        world.signal(process, signal.SIGTERM)
    assert [process.wait(30) for process in both] == [0, 0]
    kafka = msgspec.structs.replace(world.config.kafka, group=world.settings["respond"]["group"])
    committed = await committed_offsets(kafka, world.config.topics.incidents)
    assert sum(offset or 0 for offset in committed.values()) == 10


async def test_killed_while_the_target_is_being_told_the_act_goes_on_under_its_id(
    world: World, target: Receiver
) -> None:
    target.gate.clear()
    await world.prepare(keys=20)
    first = world.start()
    await world.open("k1")
    await target.until(1)
    world.signal(first, signal.SIGKILL)
    first.wait(10)
    target.gate.set()
    world.start()
    await world.open("k2", "k3", "k4")
    lines = await world.lines(decided(4))
    assert Counter(line.stage for line in lines if line.key_id == "k1" and line.stage in ("done", "failed")) == {
        "done": 1
    }
    mine = [each for each in target.received if each.message["data"]["key_id"] == "k1"]
    assert len(mine) == 2
    assert len({(each.headers["idempotency-key"], each.message_id, each.body) for each in mine}) == 1
    assert len({each.message["data"]["key_id"] for each in target.received}) == 3


async def test_a_webhook_that_failed_before_a_kill_is_delivered_after_it_under_the_same_id(
    world: World, target: Receiver
) -> None:
    respond = world.settings["respond"]
    respond["endpoints"][0]["events"] = ["incident.opened"]
    respond["revocation"] = {"mode": "simulate", "max_share_of_active": 0.5}
    target.answers.append(code(503))
    await world.prepare(keys=20)
    first = world.start()
    await world.open("k1")
    await target.until(1)
    await world.lines(decided(1))
    world.signal(first, signal.SIGKILL)
    first.wait(10)
    world.start()
    await target.until(1)
    assert len({(each.message_id, each.body) for each in target.received}) == 1
    assert [each.message["type"] for each in target.received] == ["incident.opened"] * 2


async def test_a_decisions_topic_made_anew_ends_a_running_responder_and_the_next_one_acts_once_a_person_says_go(
    world: World, target: Receiver
) -> None:
    """To one that goes on, all that is said is of offsets that it has read: stops, proposals and undos are nothing."""
    await world.prepare(keys=20)
    first = world.start()
    await world.open("k1", "k2")
    await world.lines(decided(2))
    await topics.make_anew(world.config.kafka, world.config.topics.decisions, 1)
    await world.open("k3")
    assert first.wait(60) == 1
    world.start()
    await world.lines(lambda lines: any(line.key_id == "k3" and "was emptied" in told(line) for line in lines))
    await world.go()
    await world.open("k4")
    await world.lines(lambda lines: any(line.key_id == "k4" and line.stage == "done" for line in lines))
    names = {(each.message["data"]["key_id"], each.headers["idempotency-key"]) for each in target.received}
    assert sorted(name for name, _ in names) == ["k1", "k2", "k4"], "each under one id"


async def test_a_stop_while_the_broker_is_silent_ends_all_the_same(world: World, node: Cluster) -> None:
    await world.prepare(keys=20)
    process = world.start()
    await world.open("k1")
    await world.lines(decided(1))
    node.freeze(True)
    try:
        world.signal(process, signal.SIGTERM)
        assert process.wait(90) == EXIT_FATAL
    finally:
        node.freeze(False)


async def test_on_an_emptied_decisions_topic_nothing_is_done_by_itself_until_a_person_says_go(
    world: World, target: Receiver
) -> None:
    """Caps, ends and the kill switch were in it; what the audit tells says that something was."""
    await world.prepare(keys=20)
    first = world.start()
    await world.open("k1", "k2")
    await world.lines(decided(2))
    world.signal(first, signal.SIGKILL)
    first.wait(10)
    decisions = world.config.topics.decisions
    end = (await fetched_highwaters(world.config.kafka, decisions, [0]))[0]
    await topics.delete_before(world.config.kafka, decisions, {0: end})
    second = world.start()
    await world.open("k3")
    (refused,) = [line for line in await world.lines(decided(3)) if line.key_id == "k3" and line.stage == "decided"]
    assert refused.verdict == "refused"
    assert "was emptied" in refused.reason
    world.signal(second, signal.SIGKILL)  # the next one is not taken in by what the second wrote
    second.wait(10)
    world.start()
    await world.open("k4")
    lines = await world.lines(decided(4))
    assert [line.verdict for line in lines if line.key_id == "k4" and line.stage == "decided"] == ["refused"]
    await world.go()
    await world.open("k5")
    await world.lines(lambda lines: any(line.key_id == "k5" and line.stage == "done" for line in lines))
    assert {each.message["data"]["key_id"] for each in target.received} == {"k1", "k2", "k5"}


async def test_a_decisions_topic_made_anew_that_has_outgrown_the_old_one_ends_a_responder_all_the_same(
    world: World,
) -> None:
    await world.prepare(keys=20)
    first = world.start()
    await world.open("k1")
    await world.lines(decided(1))
    kafka, decisions = world.config.kafka, world.config.topics.decisions
    end = (await fetched_highwaters(kafka, decisions, [0]))[0]
    world.signal(first, signal.SIGSTOP)  # it reads on when the new topic has more than the old one had
    await topics.make_anew(kafka, decisions, 1)
    async with world.producer() as producer:
        for number in range(end + 50):
            value = encode(Joined(responder="somebody", mark=str(number)))
            await producer.publish(decisions, b"", value, partition=0)
    world.signal(first, signal.SIGCONT)
    assert first.wait(60) == 1
