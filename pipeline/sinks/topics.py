"""The topics Keywatch uses: what they must look like, creating them, and the identity of one.

A topic's id is the epoch of its offsets: a topic that was deleted and made anew has the same name and other offsets.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from pipeline.config.tree import Config, Kafka
from pipeline.errors import ConfigError, Fatal
from pipeline.partitioner import moved
from pipeline.sinks.administration import administrator
from pipeline.sinks.topic_settings import POLICY, faults, topic_settings

log = logging.getLogger(__name__)

PAGES_CONFIG: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": str(64 << 20),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(10 * 60 * 1000),
}

# Time is the broker's (caps must not depend on a responder's clock). What stands is said again each day while a
# responder runs (`respond/caretaker.py`), so it outlives 27 days without any; less than a month, as erasure has it.
# Never compacted: its records have no keys, and all but the last would go.
DECISIONS_CONFIG: Final = {
    "cleanup.policy": "delete",
    "retention.ms": str(28 * 86_400_000),
    "message.timestamp.type": "LogAppendTime",
}

# Whatever was said in the last 400 days stays as it was said, so that a replay judges by it from when it held.
CONTROL_CONFIG: Final = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(400 * 86_400_000)}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as Keywatch creates it."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def topic_specs(config: Config) -> tuple[TopicSpec, ...]:
    """All topics of a deployment but for the pages."""
    topics, partitions = config.topics, config.kafka.partitions
    all_of_them = (
        TopicSpec(topics.raw, partitions),
        TopicSpec(topics.requests, partitions),
        TopicSpec(topics.rejected, partitions, {"retention.ms": str(7 * 86_400_000)}),
        TopicSpec(topics.keys, 1, {"cleanup.policy": "compact"}),
        TopicSpec(topics.control, 1, CONTROL_CONFIG),
        TopicSpec(topics.incidents, partitions),
        TopicSpec(topics.decisions, 1, DECISIONS_CONFIG),
        TopicSpec(topics.responses, 1, {"retention.ms": "-1"}),
        TopicSpec(topics.sightings, partitions),
        TopicSpec(topics.key_events, partitions),
    )
    return tuple({spec.name: spec for spec in all_of_them}.values())  # another topology's `requests` is one of them


class _Uuid(AbstractType[uuid.UUID]):
    """16 bytes, as Kafka's protocol has it since topic ids exist."""

    @classmethod
    def encode(cls, value: uuid.UUID | None) -> bytes:
        return (value or uuid.UUID(int=0)).bytes

    @classmethod
    def decode(cls, data: Any) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


class _MetadataResponse(Response):
    """Metadata v10 (aiokafka itself stops at v5, which has no topic ids)."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestV10(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestV10]):
    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataRequestV10]) -> _MetadataRequestV10:
        return request_struct_class([(None, self._topic, {})], False, False, False, {})


async def topic_id(kafka: Kafka, topic: str) -> str:
    """The broker's id of a topic (32 hex digits), "" where the broker is too old to have one. Raises Fatal."""
    async with administrator(kafka) as admin:
        try:
            response: Any = await admin._send_request(_MetadataRequest(topic))
        except (IncompatibleBrokerVersion, NotImplementedError):
            return ""
    code, _, ident, *_ = response.topics[0]
    if code:
        raise Fatal(f"topic {topic}: {for_code(code).__name__}")
    return str(ident.hex) if ident.int else ""


async def partitions_of(kafka: Kafka, topics: list[str]) -> dict[str, int]:
    """Number of partitions of each topic that exists. Raises Fatal, also where the user may not see one of them."""
    async with administrator(kafka) as admin:
        described: Any = await admin.describe_topics(topics)
    denied = [each["topic"] for each in described if for_code(each["error_code"]) is TopicAuthorizationFailedError]
    if denied:
        raise Fatal(
            f"Kafka at {kafka.brokers}: user {kafka.username!r} may not see {', '.join(denied)}: grant what it needs, "
            "deploy/kafka/acls.sh has the list"
        )
    return {each["topic"]: len(each["partitions"]) for each in described if not each["error_code"]}


async def ensure_topics(config: Config) -> int:
    """Create what is missing (where allowed) and check what must agree; returns the requests topic's partitions.

    Raises ConfigError where a topic is missing and may not be created, where pages and requests differ, or where
    Kafka would delete pages.
    """
    kafka, topics = config.kafka, config.topics
    told = set() if config.worker.tell else {topics.sightings, topics.key_events} - {topics.requests}
    specs = [spec for spec in topic_specs(config) if spec.name not in told]
    existing = await partitions_of(kafka, [spec.name for spec in specs] + [topics.pages])
    count = existing.get(topics.requests, kafka.partitions)
    specs.append(TopicSpec(topics.pages, count, PAGES_CONFIG))
    missing = [spec for spec in specs if spec.name not in existing]
    if missing and not kafka.declare_topics:
        names = ", ".join(spec.name for spec in missing)
        raise ConfigError(f"topics are missing: {names}; create them or set kafka.declare_topics")
    await create_topics(kafka, missing)
    pages = existing.get(topics.pages, count)
    if pages != count:
        raise ConfigError(moved(topics.requests, pages, count))
    for topic, wrong in faults(config, await topic_settings(kafka, sorted(existing))).items():
        if topic == topics.pages and POLICY in wrong:
            raise ConfigError(wrong)
        log.warning("%s", wrong)
    return count


async def ensure_control(config: Config) -> None:
    """Make the control topic where it is missing and may be made: people may speak before any worker has started.

    Raises ConfigError where it is missing and may not be made, Fatal.
    """
    name = config.topics.control
    if await partitions_of(config.kafka, [name]):
        return
    if not config.kafka.declare_topics:
        raise ConfigError(f"there is no topic {name}: create it (deploy/kafka/topics.sh) or set kafka.declare_topics")
    await create_topics(config.kafka, [spec for spec in topic_specs(config) if spec.name == name])


async def create_topics(kafka: Kafka, specs: list[TopicSpec]) -> None:
    """Create topics; one that exists already is left as it is. Raises Fatal."""
    if not specs:
        return
    new = [NewTopic(s.name, s.partitions, kafka.replication, topic_configs=dict(s.config)) for s in specs]
    async with administrator(kafka) as admin:
        response: Any = await admin.create_topics(new)
    for name, code, *rest in response.topic_errors:
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise Fatal(f"topic {name} cannot be created: {for_code(code).__name__} {rest[0] if rest else ''}")


async def add_partitions(kafka: Kafka, topic: str, partitions: int) -> None:
    """Let a topic have so many, more than it has. Raises Fatal."""
    async with administrator(kafka) as admin:
        await admin.create_partitions({topic: NewPartitions(partitions)})
