"""What Kafka would delete: told of the settings it would do it by, and of no others."""

from __future__ import annotations

import re

import pytest

from pipeline.config.tree import Config, Kafka
from pipeline.sinks.topic_settings import faults, topic_settings
from pipeline.sinks.topics import PAGES_CONFIG, TopicSpec, create_topics, topic_specs

CONFIG = Config()
DELETED = {"cleanup.policy": "delete", "retention.ms": "604800000", "message.timestamp.type": "CreateTime"}
"""As brokers make topics that nobody has made before."""


def test_topics_as_keywatch_makes_them_are_well() -> None:
    made = {spec.name: DELETED | spec.config for spec in topic_specs(CONFIG)}
    topics = CONFIG.topics
    made |= {pages: PAGES_CONFIG for pages in (topics.pages, topics.sources_pages, topics.lifecycle_pages)}
    assert faults(CONFIG, made) == {}


def test_of_what_can_not_be_seen_nothing_is_said() -> None:
    assert faults(CONFIG, {}) == {}


def test_of_topics_as_brokers_make_them_all_that_lose_something_are_named() -> None:
    topics = {getattr(CONFIG.topics, name) for name in CONFIG.topics.__struct_fields__}
    assert faults(CONFIG, dict.fromkeys(topics, DELETED)).keys() == {
        "api.keys", "api.control", "api.responses",
        "keywatch.pages", "keywatch.sources", "keywatch.lifecycle",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "setting", "value", "words"),
    [
        ("keywatch.pages", "cleanup.policy", "compact,delete", "add-config cleanup.policy=compact"),
        ("keywatch.pages", "max.message.bytes", "100000", "add-config max.message.bytes=1048588"),
        ("api.requests", "cleanup.policy", "compact", "add-config cleanup.policy=delete"),
        ("api.requests", "retention.ms", "3600000", "less than a day"),
        ("api.responses", "retention.ms", "604800000", "it is the audit. Mend it: .*retention.ms=-1"),
    ],
)
def test_each_fault_says_how_it_is_mended(topic: str, setting: str, value: str, words: str) -> None:
    (found,) = faults(CONFIG, {topic: {setting: value}}).items()
    assert found[0] == topic
    assert re.search(words, found[1])


async def test_the_demos_broker_tells_them_too(embedded_broker: str) -> None:
    """It hangs up where single settings are asked for; Apache Kafka's answer is tests/kafka/test_operators.py's."""
    kafka = Kafka(brokers=embedded_broker)
    await create_topics(kafka, [TopicSpec("settings.pages", 1, PAGES_CONFIG)])
    assert (await topic_settings(kafka, ["settings.pages"]))["settings.pages"]["cleanup.policy"] == "compact"
