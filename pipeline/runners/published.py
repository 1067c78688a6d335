"""What stands on the topic of incidents: read where side inputs have changed behind a checkpoint (`disown.py`)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiokafka import TopicPartition

from pipeline.config.tree import Config
from pipeline.sinks.kafka import DENIED, fetched_highwaters, side_consumer
from pipeline.sinks.topics import partitions_of
from schemas.incident import Incident

log = logging.getLogger(__name__)

Published = Callable[[], Awaitable[list[Incident]]]
_decode = msgspec.json.Decoder(Incident).decode


def once(read: Published) -> Published:
    """Reads at the first call, and answers the same after it."""
    known: list[list[Incident]] = []

    async def answer() -> list[Incident]:
        if not known:
            known.append(await read())
        return known[0]

    return answer


def newest_incidents(config: Config) -> Published:
    """The newest revision of every incident on the topic; nothing, and a warning, where it may not be read."""

    async def read() -> list[Incident]:
        try:
            return await _read(config)
        except DENIED:
            log.warning(
                "%s may not be read: incidents that were published since the last checkpoint, and that the changed "
                "side inputs do not bring again, stay open. Grant Read on it (deploy/kafka/acls.sh)",
                config.topics.incidents,
            )
            return []

    return read


async def _read(config: Config) -> list[Incident]:
    topic, newest = config.topics.incidents, dict[str, Incident]()
    count = (await partitions_of(config.kafka, [topic])).get(topic, 0)
    ends = await fetched_highwaters(config.kafka, topic, range(count))
    waiting = {TopicPartition(topic, number) for number, end in ends.items() if end}
    if not waiting:
        return []
    async with side_consumer(config.kafka) as consumer:
        consumer.assign(list(waiting))
        await consumer.seek_to_beginning()
        while waiting:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    _take(record.value, newest)
            waiting = {tp for tp in waiting if await consumer.position(tp) < ends[tp.partition]}
    return list(newest.values())


def _take(value: bytes | None, newest: dict[str, Incident]) -> None:
    try:
        incident = _decode(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return  # somebody else's
    known = newest.get(incident.incident_id)
    if known is None or incident.revision >= known.revision:
        newest[incident.incident_id] = incident
