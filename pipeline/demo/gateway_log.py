"""What the demo's gateway and key service write to Kafka: requests as they happen, keys as they are declared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.config.tree import Topics
from pipeline.demo.history import place_of
from pipeline.errors import Fatal
from schemas.event import Event
from schemas.key import Key

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class GatewayLog:
    """Kafka on the API's side. Requests are acknowledged in the background; `lost` counts those that were not."""

    producer: AIOKafkaProducer
    topics: Topics
    partitions: int
    lost: int = 0
    sent: int = 0
    _waiting: set[asyncio.Future[object]] = field(default_factory=set)

    async def request(self, event: Event) -> None:
        """Log one request; its record's timestamp is the event's time."""
        key, partition = place_of(event.key_id, self.partitions)
        acknowledged = await self.producer.send(
            self.topics.requests, _encode(event), key=key, partition=partition, timestamp_ms=event.ts_us // 1_000
        )
        self.sent += 1
        self._waiting.add(acknowledged)
        acknowledged.add_done_callback(self._settled)

    def _settled(self, acknowledged: asyncio.Future[object]) -> None:
        self._waiting.discard(acknowledged)
        if acknowledged.cancelled() or acknowledged.exception() is not None:
            self.lost += 1

    async def key(self, key: Key) -> None:
        """Declare one key, acknowledged."""
        await self.producer.send_and_wait(self.topics.keys, _encode(key), key=key.key_id.encode())

    async def catalogue(self, keys: Iterable[Key]) -> int:
        """Declare all keys, acknowledged; returns how many."""
        sent = [asyncio.create_task(self.key(key)) for key in keys]
        await asyncio.gather(*sent)
        return len(sent)


async def connect(brokers: str) -> AIOKafkaProducer:
    """A producer with full acknowledgements and batches that fit the history. Raises `Fatal` without a broker."""
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers, acks="all", linger_ms=5, compression_type="lz4", max_batch_size=256 * 1024,
        client_id="demo-gateway",
    )  # fmt: skip
    try:
        await producer.start()
    except KafkaError as error:
        await producer.stop()
        raise Fatal(f"No Kafka broker at {brokers}: {error}") from error
    return producer
