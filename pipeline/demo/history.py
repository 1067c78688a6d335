"""The 14 days before the demo, as the gateway would have logged them, produced to Kafka in seconds.

A record's timestamp is its event's time; records are sent in order of time within each partition. Batches are built
by hand: `send` per record takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.demo.fleet import SDK_VERSIONS, Client
from pipeline.demo.rhythm import DAY_US, Calls
from pipeline.demo.routes import FIRST_MISSING, ROUTES, Route, path_of
from schemas.event import Event

HISTORY_DAYS: Final = 14
BATCH_BYTES: Final = 256 * 1024
UPGRADED_DAYS_AGO: Final = 9.0
"""When the client library's last version came: a new version is nothing new to these keys."""


def events(fleet: Sequence[Client], planned: Calls, seed: int, now_us: int) -> Iterator[Event]:
    """The planned calls as the gateway logged them, one by one in the same order."""
    rng = np.random.default_rng([seed, 3])
    sizes, latencies = _sizes_and_latencies(planned, rng)
    upgraded_us = now_us - int(UPGRADED_DAYS_AGO * DAY_US)
    columns = (planned[name].tolist() for name in ("ts_us", "client", "route", "address", "record"))
    for number, (ts_us, client, route, address, record, size, latency) in enumerate(
        zip(*columns, sizes.tolist(), latencies.tolist(), strict=True)
    ):
        yield _event(fleet[client], ROUTES[route], ts_us, address, record, size, latency, number, ts_us < upgraded_us)


def _sizes_and_latencies(planned: Calls, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], ...]:
    medians = np.array([route.size_bytes for route in ROUTES], np.float64)[planned["route"]]
    spreads = np.array([route.spread for route in ROUTES])[planned["route"]]
    times = np.array([route.latency_ms for route in ROUTES])[planned["route"]]
    sizes = medians * np.exp(spreads * rng.standard_normal(len(planned)))
    latencies = times * np.exp(0.35 * rng.standard_normal(len(planned)))
    return sizes.astype(np.int64), np.round(latencies, 2)


def _event(
    client: Client,
    route: Route,
    ts_us: int,
    address: int,
    record: int,
    size: int,
    latency: float,
    number: int,
    old: bool,
) -> Event:
    missing = route.has_id and record >= FIRST_MISSING
    agent = client.user_agent
    return Event(
        key_id=client.key_id, ts_us=ts_us, client_ip=client.addresses[address], method=route.method,
        route=route.template, path=path_of(route, record), status=404 if missing else route.status, outcome="success",
        latency_ms=latency, bytes_in=route.bytes_in, bytes_out=90 if missing else size,
        user_agent=agent.replace(SDK_VERSIONS[1], SDK_VERSIONS[0]) if old else agent,
        environment=client.key.environment, scope=route.scope, request_id=f"h{number:08d}", source="native",
    )  # fmt: skip


async def produce(producer: AIOKafkaProducer, topic: str, partitions: int, stream: Iterator[Event]) -> int:
    """Send all events of `stream` to `topic`, acknowledged; returns how many. Raises KafkaError."""
    encode = msgspec.json.Encoder().encode
    builders = [producer.create_batch() for _ in range(partitions)]
    places: dict[str, tuple[bytes, int]] = {}
    count = 0
    for event in stream:
        if event.key_id not in places:
            places[event.key_id] = place_of(event.key_id, partitions)
        key, partition = places[event.key_id]
        value = encode(event)
        timestamp_ms = event.ts_us // 1_000
        if builders[partition].append(timestamp=timestamp_ms, key=key, value=value) is None:
            await _send(producer, builders[partition], topic, partition)
            builders[partition] = producer.create_batch()
            builders[partition].append(timestamp=timestamp_ms, key=key, value=value)
        count += 1
    for partition, builder in enumerate(builders):
        await _send(producer, builder, topic, partition)
    await producer.flush()
    return count


async def _send(producer: AIOKafkaProducer, builder: BatchBuilder, topic: str, partition: int) -> None:
    if builder.record_count():
        acknowledged = await producer.send_batch(builder, topic, partition=partition)
        await acknowledged  # in order: a repeated batch must not overtake the next one


def place_of(key_id: str, partitions: int) -> tuple[bytes, int]:
    """Record key and partition of a key, as Java's default partitioner would choose (murmur2)."""
    key = key_id.encode()
    return key, (murmur2(key) & 0x7FFFFFFF) % partitions
