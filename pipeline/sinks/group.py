"""The workers' consumer group from outside: what it committed, who is in it, setting its offsets while nobody is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    for_code,
)

from pipeline.config.tree import Kafka
from pipeline.errors import Fatal
from pipeline.sinks.administration import AWAY, administrator
from pipeline.sinks.kafka import by_consequence, client_settings, started

GONE: Final = ("Empty", "Dead")
COORDINATOR_WAIT_S: Final = 30.0
MOVES: Final = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError, *AWAY)
"""A young cluster makes its offsets topic now; a coordinator died, moves or loads."""


async def committed_offsets(kafka: Kafka, topic: str) -> dict[int, int | None]:
    """What the group has committed, by partition; what it never committed is missing or None. Raises Fatal."""
    async with administrator(kafka) as admin:
        (described,) = await admin.describe_topics([topic])
        wanted = [TopicPartition(topic, each["partition"]) for each in described["partitions"]]
        offsets = await _group_offsets(admin, kafka.group, wanted)
    return {
        tp.partition: meta.offset if meta.offset >= 0 else None for tp, meta in offsets.items() if tp.topic == topic
    }


async def _group_offsets(admin: Any, group: str, wanted: list[TopicPartition]) -> Any:
    """Asked for by name: to "all of the group's" Tansu sends an answer that cannot be decoded."""
    async with asyncio.timeout(COORDINATOR_WAIT_S):
        while True:
            try:
                return await admin.list_consumer_group_offsets(group, partitions=wanted)
            except MOVES:
                await asyncio.sleep(0.1)


async def group_members(kafka: Kafka) -> int:
    """How many members the group has; at least 1 while it rebalances. Raises Fatal."""
    async with administrator(kafka) as admin:
        responses: Any = await admin.describe_consumer_groups([kafka.group])
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
