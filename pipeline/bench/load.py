"""The log that is measured: keys as unequal as in life (Zipf), a few addresses each, routes with ids in their paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer

from pipeline.config.tree import Kafka
from pipeline.demo import history
from pipeline.sinks.kafka import client_settings
from schemas.event import Event

ROUTES: Final = ("orders", "users", "invoices", "items", "carts", "search", "tokens", "exports")
AGENTS: Final = (
    "python-requests/2.32.3", "curl/8.7.1", "okhttp/4.12.0", "axios/1.7.2", "Go-http-client/2.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
)  # fmt: skip
FIRST_OCTETS: Final = (3, 8, 13, 18, 34, 52, 80, 91, 104, 185)
STATUSES: Final = ((200, 0.95), (201, 0.02), (404, 0.015), (403, 0.005), (429, 0.005), (500, 0.005))
MARK_US: Final = 1_111_111_111_111_111
"""A time that is easy to find in JSON, to be replaced by another."""
OUTCOMES: Final = {403: "denied", 429: "rate_limited"}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much, and of what. `per_s`: events per second of event time, of all keys together.

    With fewer events the rates are less than what goes on: most of a short log's keys are new ones, whose state is
    made, and the last second, in which the remaining rows are written, weighs more.
    """

    events: int = 600_000
    keys: int = 20_000
    partitions: int = 4
    zipf: float = 1.1
    per_s: int = 1_000
    seed: int = 7


def events(load: Load, start_us: int) -> Iterator[Event]:
    """The log in order of time; the same for the same load and start."""
    rng = np.random.default_rng(load.seed)
    n, (keys, since_us) = load.events, _keys_and_times(load, rng)
    times = start_us + since_us
    status = rng.choice([s for s, _ in STATUSES], n, p=[p for _, p in STATUSES])
    homes = _addresses(rng, load.keys)
    columns: list[Any] = [
        times.tolist(), keys.tolist(), rng.integers(0, 3, n).tolist(), rng.integers(0, len(ROUTES), n).tolist(),
        rng.integers(0, 5_000, n).tolist(), status.tolist(), rng.gamma(2.0, 20.0, n).round(2).tolist(),
        rng.integers(90, 20_000, n).tolist(),
    ]  # fmt: skip
    for number, (ts_us, key, home, route, record, code, latency, size) in enumerate(zip(*columns, strict=True)):
        yield Event(
            key_id=f"pk_{key:05d}", ts_us=ts_us, client_ip=homes[key][home % (1 + key % 3)], method="GET",
            path=f"/v1/{ROUTES[route]}/{record}", status=code, outcome=OUTCOMES.get(code, "success"),
            latency_ms=latency, bytes_in=300, bytes_out=size, user_agent=AGENTS[key % len(AGENTS)],
            environment="live", request_id=f"{load.seed:x}-{number:x}", source="native",
        )  # fmt: skip


def _keys_and_times(load: Load, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    weights = 1.0 / np.arange(1, load.keys + 1) ** load.zipf
    keys = rng.choice(load.keys, load.events, p=weights / weights.sum())
    return keys, np.sort(rng.integers(0, load.events * 1_000_000 // load.per_s, load.events))


def key_minutes(load: Load) -> int:
    """Distinct pairs of key and minute in the log, where it begins with a minute: the rows of a window table."""
    keys, since_us = _keys_and_times(load, np.random.default_rng(load.seed))
    return len(np.unique(keys.astype(np.int64) * 1_000_000 + since_us // 60_000_000))


def _addresses(rng: np.random.Generator, keys: int) -> list[list[str]]:
    """Three of one network for each key."""
    networks = rng.integers(1, 255, (keys, 2)).tolist()
    hosts = rng.integers(1, 255, (keys, 3)).tolist()
    first = rng.choice(FIRST_OCTETS, keys).tolist()
    return [[f"{first[k]}.{networks[k][0]}.{networks[k][1]}.{host}" for host in hosts[k]] for k in range(keys)]


async def fill(kafka: Kafka, topic: str, log: Iterator[Event]) -> int:
    """Write a log to a topic that exists, with `kafka.partitions`; returns the number of events."""
    producer = AIOKafkaProducer(**client_settings(kafka), acks="all", max_batch_size=history.BATCH_BYTES)
    await producer.start()
    try:
        return await history.produce(producer, topic, kafka.partitions, log)
    finally:
        await producer.stop()
