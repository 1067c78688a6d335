"""The same work as Faust's documentation shows it: `async for event in stream`, one event at a time, tables for state.

`python -m pipeline.bench.plain_agent BROKERS TOPIC PARTITIONS EVENTS GROUP`. Enrichment is cached by value, the
detectors are the same compiled ones, called with one event; what keys share stays in memory. It writes nothing to
ClickHouse, drops no repeats and opens no incident, so it does less than the worker.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import lru_cache
from typing import Any, Final

import faust
import numpy as np

from detectors import DETECTORS, fuse
from detectors.detector import EVENT, config_record
from detectors.fusion import Settings
from pipeline.bench.clock import Clock
from pipeline.clients import family
from pipeline.config import Geo as GeoConfig
from pipeline.enrich import ERROR_CLASS, hash32, hash64
from pipeline.formats import sees_of
from pipeline.geo.provider import open_geo
from pipeline.routes import template
from schemas.event import AUTHENTICATED, METHODS, OUTCOMES

KEY: Final = fuse.key_dtype(DETECTORS)
CACHED: Final = 1 << 16


class Request(faust.Record, serializer="json"):
    """Event v1 as a Faust record."""

    key_id: str
    ts_us: int
    client_ip: str = ""
    method: str = ""
    route: str = ""
    path: str = ""
    status: int = 0
    outcome: str = "unknown"
    latency_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    user_agent: str = ""
    environment: str = ""
    request_id: str = ""
    source: str = ""


class Judge:
    """Enrichment and detectors of one event at a time."""

    def __init__(self) -> None:
        self._pass = fuse.compile_pass(DETECTORS)
        self._configs = fuse.configs(DETECTORS)
        self._settings = config_record(Settings())
        self._shared = np.zeros(1, fuse.shared_dtype(DETECTORS))
        self._event = np.zeros(1, EVENT)
        self._found = np.zeros(64, fuse.FOUND)
        self._changed = np.zeros(64, fuse.CHANGED)
        self._geo = open_geo(GeoConfig())
        self.place = lru_cache(CACHED)(self._place)
        self.route = lru_cache(CACHED)(template)
        self.client = lru_cache(CACHED)(lambda agent: hash32(family(agent).encode()))
        self.number = lru_cache(CACHED)(lambda text: hash32(text.encode()))

    def _place(self, address: str) -> tuple[int, int, float, float, float, int, int]:
        place = self._geo.look_up(address)
        country = ord(place.country[0]) * 256 + ord(place.country[1]) if place.country else 0
        number = hash64(place.address) if place.address else 0
        return number, place.asn, place.lat, place.lon, place.accuracy_km, country, place.flags

    def judge(self, request: Request, offset: int, record: bytes) -> tuple[bytes, int]:
        """(the key's record after the event, findings); `record` is b"" for a key never seen."""
        self._event[0] = self._numbers(request, offset)
        key = np.frombuffer(bytearray(record or KEY.itemsize), KEY)
        _, found, _ = self._pass(
            key, self._shared, self._event, 0, self._configs, self._settings, self._found, self._changed
        )
        return key.tobytes(), found

    def _numbers(self, request: Request, offset: int) -> tuple[Any, ...]:
        address, asn, lat, lon, accuracy_km, country, flags = self.place(request.client_ip)
        route = self.number(f"{request.method} {request.route or self.route(request.path)}")
        return (
            request.ts_us, offset, request.bytes_in, request.bytes_out, address, hash64(request.request_id.encode()),
            0, asn, self.client(request.user_agent), route, request.latency_ms, lat, lon, accuracy_km, country,
            request.status, (request.ts_us // 3_600_000_000 + 72) % 168, -1, OUTCOMES.index(request.outcome),
            request.outcome in AUTHENTICATED, METHODS.index(request.method), ERROR_CLASS[request.status], flags,
            sees_of(request.source), -1, 0, 1, (0, 0, 0),
        )  # fmt: skip


def make(brokers: str, topic: str, partitions: int, total: int, group: str, clock: Clock) -> tuple[Any, asyncio.Event]:
    """The application and what is set at its last event."""
    app: Any = faust.App(
        group, broker=f"kafka://{brokers}", store="memory://", topic_partitions=partitions, web_enabled=False,
        broker_rebalance_timeout=3.0, broker_session_timeout=20.0, consumer_auto_offset_reset="earliest",
        topic_replication_factor=1, topic_disable_leader=True,
    )  # fmt: skip
    schema: Any = faust.Schema(key_type=str, value_type=bytes, key_serializer="raw", value_serializer="raw")
    states = app.Table("states", schema=schema, partitions=partitions)
    minutes = app.Table("minutes", key_type=str, default=list, partitions=partitions).tumbling(60.0, expires=600.0)
    requests = app.topic(topic, key_type=str, key_serializer="raw", value_type=Request, partitions=partitions)
    judge, finished = Judge(), asyncio.Event()

    async def agent(stream: Any) -> None:
        done = 0
        async for event in stream.events():
            request: Request = event.value
            record, _ = judge.judge(request, event.message.offset, states.get(request.key_id) or b"")
            states[request.key_id] = record
            window = minutes[request.key_id]
            count, errors, size = window.value() or (0, 0, 0)
            minutes[request.key_id] = [count + 1, errors + (request.status >= 400), size + request.bytes_out]
            done += 1
            if clock.at(done):
                finished.set()

    app.agent(requests, name="judge")(agent)
    return app, finished


async def measure(brokers: str, topic: str, partitions: int, total: int, group: str) -> None:
    """Prints events per second and ends the process."""
    clock = Clock(total)
    app, finished = make(brokers, topic, partitions, total, group, clock)
    await app.start()
    await finished.wait()
    sys.stdout.write(f"{clock.per_s}\n")
    sys.stdout.flush()
    os._exit(0)  # to stop Faust takes longer than what is measured


if __name__ == "__main__":
    brokers, topic, partitions, total, group = sys.argv[1:]
    asyncio.run(measure(brokers, topic, int(partitions), int(total), group))
