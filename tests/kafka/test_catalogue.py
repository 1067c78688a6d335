"""The catalogue on a real Kafka: written, read to its end, refreshed, taken back; and what doctor says of topics."""

from __future__ import annotations

import itertools

from pipeline.config.tree import Config, Kafka, Topics
from pipeline.doctor import check_kafka
from pipeline.keys.catalogue import CatalogueReader, publish_keys, read_catalogue
from pipeline.sinks.topics import TopicSpec, create_topics, ensure_topics, partitions_of
from schemas.key import Key
from tests.kafka.cluster import Cluster

_numbers = itertools.count()


def config_for(node: Cluster) -> Config:
    name = f"catalogue{next(_numbers)}"
    names = {each: f"{name}.{each}" for each in Topics.__struct_fields__}
    return Config(kafka=Kafka(brokers=node.brokers, partitions=3), topics=Topics(**names))


async def test_keys_are_written_read_refreshed_and_taken_back(node: Cluster) -> None:
    config = config_for(node)
    await create_topics(config.kafka, [TopicSpec(config.topics.keys, 3, {"cleanup.policy": "compact"})])
    while not await partitions_of(config.kafka, [config.topics.keys]):  # metadata follows creation with a delay
        pass
    assert len(await read_catalogue(config)) == 0
    keys = [Key(key_id=f"k{number}", owner="x") for number in range(50)]
    assert await publish_keys(config, keys) == 50
    reader = CatalogueReader(config)
    first = await reader.open()
    assert dict(first.items()) == {key.key_id: key for key in keys}
    changed = Key(key_id="k1", protected=True)
    await publish_keys(config, [changed], removed=["k2"])
    second = await reader.refresh()
    while second is first:
        second = await reader.refresh()
    await reader.close()
    whole = await read_catalogue(config)
    assert whole.get("k2") is None
    assert whole.get("k1") == changed
    assert len(whole) == 49


async def test_a_missing_topic_is_an_empty_catalogue(node: Cluster) -> None:
    assert len(await read_catalogue(config_for(node))) == 0


async def test_doctor_tells_missing_and_wrong_topics(node: Cluster) -> None:
    config = config_for(node)
    assert {finding.state for finding in await check_kafka(config)} == {"ok", "warn"}
    await create_topics(config.kafka, [TopicSpec(config.topics.requests, 3), TopicSpec(config.topics.decisions, 2)])
    await create_topics(config.kafka, [TopicSpec(config.topics.pages, 2), TopicSpec(config.topics.control, 2)])
    made = [config.topics.requests, config.topics.decisions, config.topics.pages, config.topics.control]
    while len(await partitions_of(config.kafka, made)) < len(made):  # metadata follows creation with a delay
        pass
    failed = [finding for finding in await check_kafka(config) if finding.state == "fail"]
    wrong = {config.topics.pages, config.topics.decisions, config.topics.control}  # by partitions, or what they delete
    assert {finding.text.split()[0].removesuffix(":") for finding in failed} == wrong
    assert all(finding.advice for finding in failed)


async def test_doctor_is_content_with_what_ensure_topics_makes(node: Cluster) -> None:
    config = config_for(node)
    await ensure_topics(config)
    assert {finding.state for finding in await check_kafka(config)} == {"ok"}
