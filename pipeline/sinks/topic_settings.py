"""Settings of topics by which Kafka itself would delete what we rely on: what the broker says, and what is wrong.

Whoever lets the broker make topics (auto.create.topics.enable) gets all of them with `delete` and a week.
The decisions topic's are the doctor's (`of_decisions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, UnknownError

from pipeline.config.tree import Config, Kafka
from pipeline.sinks.administration import administrator

Settings = Mapping[str, Mapping[str, str]]
"""Of each topic: name of a setting -> its value."""
POLICY: Final = "cleanup.policy"
KEEP: Final = "retention.ms"
DAY_MS: Final = 86_400_000
PAGE_BYTES: Final = 1_000_000


async def topic_settings(kafka: Kafka, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """What can be seen: a topic is missing where the user has no right to DescribeConfigs, or the broker can't tell."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]  # for all: Tansu knows no others
    async with administrator(kafka) as admin:
        try:
            answers: list[Any] = await admin.describe_configs(asked) if asked else []
        except (IncompatibleBrokerVersion, UnknownError):
            return {}
    return {
        topic: {name: value for name, value, *_ in settings}
        for answer in answers
        for code, _, _, topic, settings in answer.resources
        if not code
    }


def faults(config: Config, settings: Settings) -> dict[str, str]:
    """Topic -> what is wrong with it and how to mend it; the first fault of each."""
    found: dict[str, str] = {}
    for topic, words, mended in _faults(config, settings):
        found.setdefault(topic, f"{topic} {words}. Mend it: kafka-configs.sh --alter --add-config {mended}")
    return found


def _faults(config: Config, settings: Settings) -> Iterator[tuple[str, str, str]]:
    topics = config.topics
    kept = {topics.keys: "what is declared of keys", topics.control: "what people said"}
    pages = (topics.pages, topics.sources_pages, topics.lifecycle_pages)
    for topic in (*kept, *pages):
        if "delete" in _of(settings, topic, POLICY):
            what = kept.get(topic, "the state of keys that are quiet, which a restart then can't read,")
            words = f"has {POLICY}={_of(settings, topic, POLICY)}: {what} is deleted in time"
            yield topic, words, f"{POLICY}=compact"
    for topic in pages:
        if 0 < _number(settings, topic, "max.message.bytes") < PAGE_BYTES:
            yield topic, "takes no record of 1 MB: pages of state may be as large", "max.message.bytes=1048588"
    logs = (topics.raw, topics.requests, topics.incidents, topics.sightings, topics.key_events)
    for topic in (*logs, topics.rejected, topics.responses):
        if "compact" in _of(settings, topic, POLICY):
            yield topic, "is compacted: of each key's records all but the last are deleted", f"{POLICY}=delete"
    if _number(settings, topics.responses, KEEP) > 0:
        yield topics.responses, f"has {KEEP}={_of(settings, topics.responses, KEEP)}: it is the audit", f"{KEEP}=-1"
    for topic in logs:
        if 0 < _number(settings, topic, KEEP) < DAY_MS:
            words = "is kept for less than a day: a longer stop of its readers loses records"
            yield topic, words, f"{KEEP}={7 * DAY_MS}"


def _of(settings: Settings, topic: str, name: str) -> str:
    """Its value, "" where it is not known."""
    return settings.get(topic, {}).get(name) or ""


def _number(settings: Settings, topic: str, name: str) -> int:
    """0 where it is not known."""
    return int(_of(settings, topic, name) or 0)
