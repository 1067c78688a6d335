"""Kafka's producer and reader keep the contracts that the simulation's fakes keep (tests/simulation/test_fakes.py)."""

from __future__ import annotations

import pytest

from pipeline.config import Kafka
from pipeline.sinks.kafka import Producer, read_pages
from pipeline.sinks.topics import PAGES_CONFIG, TopicSpec, create_topics
from tests.contracts import ports_contract
from tests.kafka.cluster import Cluster

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
