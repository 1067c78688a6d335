"""What the product says, read from its topics as any consumer would: incidents and responses, in order of arrival."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.config.tree import Topics
from schemas.incident import Incident
from schemas.response import Response


@dataclass(frozen=True, slots=True)
class Seen:
    """One message and when the demo read it (UTC us)."""

    at_us: int
    body: Incident | Response


@dataclass(slots=True)
class Watch:
    """Everything read so far. `tell` is called with each message; `first_us` decides what belongs to the story."""

    tell: Callable[[Incident | Response], None]
    incidents: list[Seen] = field(default_factory=list)
    responses: list[Seen] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, topic: str, value: bytes, topics: Topics) -> None:
        """One record. Raises msgspec.ValidationError if it is not what the topic carries."""
        if topic == topics.incidents:
            incident = msgspec.json.decode(value, type=Incident)
            self.incidents.append(Seen(_now_us(), incident))
            self.tell(incident)
        else:
            response = msgspec.json.decode(value, type=Response)
            self.responses.append(Seen(_now_us(), response))
            self.tell(response)
        self.news.set()

    def first_incident(self, keys: frozenset[str], since_us: int) -> Seen | None:
        """The first message about one of `keys` that rests on something after `since_us`."""
        return next((seen for seen in self.incidents if _is_about(seen.body, keys, since_us)), None)

    def acts(self, keys: frozenset[str] | None = None) -> list[Seen]:
        """Responses that did something to a key (of `keys`, or of any)."""
        return [
            seen for seen in self.responses
            if isinstance(seen.body, Response) and seen.body.verdict == "allowed"
            and seen.body.stage in ("acting", "done") and (keys is None or seen.body.key_id in keys)
        ]  # fmt: skip


def _is_about(body: Incident | Response, keys: frozenset[str], since_us: int) -> bool:
    return isinstance(body, Incident) and body.key_id in keys and body.change != "closed" and rests_on(body, since_us)


def rests_on(incident: Incident, since_us: int) -> bool:
    """True where a finding of the incident is of that time or later."""
    since = rfc3339(since_us)
    return any(finding.at >= since for finding in incident.findings) or incident.opened_at >= since


def rfc3339(at_us: int) -> str:
    """Microseconds UTC as the schemas write them; texts of this form sort by time."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_us // 1_000_000)) + f".{at_us % 1_000_000:06d}Z"


async def read(watch: Watch, brokers: str, topics: Topics, partitions: int) -> None:
    """Read both topics from their beginning, without a group, until cancelled."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", client_id="demo-watch")
    try:
        await consumer.start()
        consumer.assign(
            [TopicPartition(topics.incidents, partition) for partition in range(partitions)]
            + [TopicPartition(topics.responses, 0)]
        )
        async for record in consumer:
            if record.value is not None:
                watch.take(record.topic, record.value, topics)
    finally:
        await consumer.stop()


def _now_us() -> int:
    return time.time_ns() // 1_000
