"""Enrichment and detectors of one event at a time: the same work for every peer that `keywatch bench` measures.

Enrichment is cached by value, the detectors are the worker's own compiled ones, called with one event. The key's record
goes in and comes out as bytes, since every peer keeps it in a store of its own; what keys share stays in memory.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from zlib import crc32

import numpy as np

from detectors import DETECTORS, fuse
from detectors.detector import EVENT, config_record
from detectors.fusion import Settings
from pipeline.clients import family, version
from pipeline.config.tree import Geo as GeoConfig
from pipeline.enrich import ERROR_CLASS, hash32, hash64
from pipeline.formats import sees_of
from pipeline.geo.provider import open_geo
from pipeline.operations import operation
from pipeline.routes import template as template_of
from schemas.event import AUTHENTICATED, METHODS, OUTCOMES

KEY: Final = fuse.key_dtype(DETECTORS)
CACHED: Final = 1 << 16
Minute = list[int]
"""[events, errors, bytes out] of a key's minute."""


class Judge:
    """`request` is anything with the fields of event v1: `schemas.event.Event`, or the peer's own record of them."""

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
        self.route = lru_cache(CACHED)(template_of)
        self.client = lru_cache(CACHED)(lambda agent: (hash32(family(agent).encode()), version(agent)))
        self.operation = lru_cache(CACHED)(operation)
        self.number = lru_cache(CACHED)(lambda text: hash32(text.encode()))
        self.mark = lru_cache(CACHED)(lambda text: hash32(text.encode()) if text else 0)

    def _place(self, address: str) -> tuple[int, int, float, float, float, int, int]:
        place = self._geo.look_up(address)
        country = ord(place.country[0]) * 256 + ord(place.country[1]) if place.country else 0
        number = hash64(place.address) if place.address else 0
        return number, place.asn, place.lat, place.lon, place.accuracy_km, country, place.flags

    def judge(self, request: Any, offset: int, record: bytes) -> tuple[bytes, int]:
        """(the key's record after the event, findings); `record` is b"" for a key never seen."""
        self._event[0] = self._numbers(request, offset)
        key = np.frombuffer(bytearray(record or KEY.itemsize), KEY)
        _, found, _ = self._pass(
            key, self._shared, self._event, 0, self._configs, self._settings, self._found, self._changed
        )
        return key.tobytes(), found

    def _numbers(self, request: Any, offset: int) -> tuple[Any, ...]:
        address, asn, lat, lon, accuracy_km, country, flags = self.place(request.client_ip)
        template = request.route or self.route(request.path)
        route = self.number(f"{request.method} {template}")
        client, major = self.client(request.user_agent)
        return (
            request.ts_us, offset, request.bytes_in, request.bytes_out, address, hash64(request.request_id.encode()),
            0, asn, client, self.mark(request.fingerprint), route, crc32(request.path.encode()), request.latency_ms,
            lat, lon, accuracy_km, country, request.status, (request.ts_us // 3_600_000_000 + 72) % 168, -1, 0, 0,
            OUTCOMES.index(request.outcome),
            request.outcome in AUTHENTICATED, METHODS.index(request.method), ERROR_CLASS[request.status], flags,
            sees_of(request.source), -1, 0, 1, self.operation(request.method, template), major, 0,
        )  # fmt: skip


def add_to_minute(minute: Minute | None, request: Any) -> Minute:
    """The minute with one more event."""
    events, errors, size = minute or (0, 0, 0)
    return [events + 1, errors + (request.status >= 400), size + request.bytes_out]
