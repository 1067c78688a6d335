"""What an operator may do to a topic behind the worker's back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.config.tree import Kafka
from pipeline.errors import Fatal
from pipeline.sinks.administration import administrator
from pipeline.sinks.topics import TopicSpec, create_topics, topic_id


async def configure(kafka: Kafka, topic: str, **settings: str) -> None:
    """Set a topic's configuration; what isn't named falls back to the default."""
    named = {name.replace("_", "."): value for name, value in settings.items()}
    async with administrator(kafka) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=named)])


async def delete_before(kafka: Kafka, topic: str, offsets: Mapping[int, int]) -> None:
    """What lies before these offsets, by partition, as retention does it."""
    wanted = {TopicPartition(topic, number): RecordsToDelete(before_offset=at) for number, at in offsets.items()}
    async with administrator(kafka) as admin:
        await admin.delete_records(wanted)


async def make_anew(kafka: Kafka, topic: str, partitions: int) -> None:
    """Delete it and create it again: same name, offsets from 0."""
    old = await topic_id(kafka, topic)
    async with administrator(kafka) as admin:
        await admin.delete_topics([topic])
    ident = old
    while ident == old:
        with contextlib.suppress(Fatal):  # exists already, as long as the old one is not quite gone
            await create_topics(kafka, [TopicSpec(topic, partitions)])
        with contextlib.suppress(Fatal):
            ident = await topic_id(kafka, topic)
