"""The workers' consumer group as an operator sees it: who is in it, and setting its offsets while nobody is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from pipeline.config import Kafka
from pipeline.errors import Fatal
from pipeline.sinks.kafka import by_consequence, client_settings, started

GONE: Final = ("Empty", "Dead")


async def group_members(kafka: Kafka) -> int:
    """How many members the group has; at least 1 while it rebalances. Raises Fatal."""
    admin = AIOKafkaAdminClient(**client_settings(kafka))
    try:
        await admin.start()
        responses: Any = await admin.describe_consumer_groups([kafka.group])
    except (KafkaError, OSError) as error:
        raise await by_consequence(kafka, error) from error
    finally:
        await admin.close()
    code, _, state, _, _, members, *_ = responses[0].groups[0]
    if code:
        raise Fatal(f"group {kafka.group}: {for_code(code).__name__}")
    return 0 if state in GONE else max(1, len(members))


async def refuse_members(kafka: Kafka, doing: str) -> None:
    """Raises Fatal while a worker is in the group: it would write state while we read or replace it."""
    if members := await group_members(kafka):
        raise Fatal(
            f"group {kafka.group} has {members} member(s): stop all workers first, then {doing}. One that was killed "
            f"leaves the group {kafka.session_timeout_s:.0f} s later"
        )


async def set_offsets(kafka: Kafka, topic: str, offsets: Mapping[int, int]) -> None:
    """Commit these offsets for the group, which has no members. Raises Fatal."""
    consumer = AIOKafkaConsumer(**client_settings(kafka), group_id=kafka.group, enable_auto_commit=False)
    wanted = {TopicPartition(topic, partition): offset for partition, offset in offsets.items()}
    async with started(kafka, consumer):
        consumer.assign(list(wanted))
        try:
            await consumer.commit(wanted)
        except KafkaError as error:
            raise await by_consequence(kafka, error) from error
