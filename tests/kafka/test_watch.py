"""Whether workers keep up, as a real Kafka tells it: by offsets and members alone, without reading a record."""

from __future__ import annotations

import uuid

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.config.tree import Kafka
from pipeline.respond.night.watch import KafkaEyes, Look, Sight
from pipeline.sinks.kafka import Producer, client_settings
from pipeline.sinks.topics import TopicSpec, create_topics
from tests.kafka.cluster import Cluster


async def test_ends_commits_and_members_are_those_of_the_group(node: Cluster) -> None:
    name = f"watched-{uuid.uuid4().hex[:8]}"
    kafka = Kafka(brokers=node.brokers, group=f"group-{name}")
    await create_topics(kafka, [TopicSpec(name, 2)])
    producer = Producer(kafka)
    await producer.start()
    for _ in range(3):
        await producer.publish(name, b"k", b"v", partition=0)
    await producer.close()
    eyes = KafkaEyes(kafka, name)
    alone = await eyes.look()
    assert (dict(alone.ends), alone.members) == ({0: 3, 1: 0}, 0)
    assert not any(alone.commits.values())
    consumer = AIOKafkaConsumer(name, **client_settings(kafka), group_id=kafka.group, enable_auto_commit=False)
    await consumer.start()
    await consumer.commit({TopicPartition(name, 0): 2})
    watched = await eyes.look()
    await consumer.stop()
    assert watched.members == 1
    assert watched.commits[0] == 2
    sight = Sight(blind_after_s=300)
    assert sight.take(alone, 0.0 + 1e9).since_s == 0
    assert sight.take(alone, 1e9 + 300).why == "no worker is running"
    assert sight.take(Look(watched.ends, {0: 3, 1: 0}, 1), 1e9 + 315).well
