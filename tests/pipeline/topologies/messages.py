"""Slices of what other topologies read, and cores to judge them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from pipeline.config.tree import Config
from pipeline.core import Sides, Slice
from pipeline.runners.topology import open_core_of
from pipeline.topologies.core import TopologyCore
from schemas.incident import Incident
from schemas.key_event import KeyEvent
from schemas.sighting import FLEET, Beats, Break, Sighting, source_of
from tests.pipeline.log_of_requests import GEO, Declared
from tests.pipeline.restoring import carried

START_US = 1_780_000_000_000_000
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

Told = Sighting | Beats | Break | KeyEvent | int
"""A message, or the time of a tick."""
Record = tuple[bytes | None, bytes, int, bool]


def record(told: Told) -> Record:
    """Key, value, time in ms, and whether it is a tick."""
    if isinstance(told, int):
        return b"", b"", told // 1000, True
    value = msgspec.json.encode(told)
    if isinstance(told, Sighting):
        return source_of(told.asn, told.prefix).encode(), value, -(-told.ts_us // 1000), False
    if isinstance(told, KeyEvent):
        return told.key_id.encode(), value, -(-told.ts_us // 1000), False
    last_us = told.ts_us if isinstance(told, Break) else max(beat.ts_us for beat in told.beats)
    return FLEET.encode(), value, -(-last_us // 1000), False


def slices(told: Sequence[Told], cuts: Iterable[int] = (), first: int = 0) -> list[Slice]:
    """In slices that end at `cuts`."""
    records = [record(each) for each in told]
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(records)}), len(records)]
    out = []
    for start, end in pairwise(edges):
        if start == end:
            continue
        some = records[start:end]
        ticks = frozenset(i for i, each in enumerate(some) if each[3])
        out.append(
            Slice(
                "t", 0, range(first + start, first + end), [r[0] for r in some], [r[1] for r in some],
                [r[2] for r in some], ticks,
            )
        )  # fmt: skip
    return out


def core(topology: str) -> TopologyCore:
    """An empty one with the shipped geo database."""
    opened = open_core_of(topology)(0, Config(), Sides(Declared(), GEO, ""), "epoch", 1)
    assert isinstance(opened, TopologyCore)
    return opened


def judge(topology: str, told: Sequence[Told], cuts: Iterable[int] = ()) -> list[Incident]:
    """All revisions of incidents, in order."""
    opened = core(topology)
    return [incident for part in slices(told, cuts) for incident in opened.process(part).incidents]


def restored(old: TopologyCore, topology: str) -> TopologyCore:
    """As after a crash: only what a checkpoint would hold goes over."""
    old.due_rows()
    return carried(old, core(topology), old.meta())


def sighting(key: str, ts_us: int, kind: str = "used", address: int = 7, asn: int = 64500, **more: Any) -> Sighting:
    """A key at an address of a network."""
    return msgspec.convert(
        {
            "what": "sighting", "key_id": key, "ts_us": ts_us, "kind": kind, "asn": asn,
            "prefix": f"198.51.{address}.0/24", "client_ip": f"198.51.{address}.9", "country": "RO",
            "known_days": 30, **more,
        },
        Sighting,
    )  # fmt: skip


def seeded(seed: int) -> np.random.Generator:
    """Random, the same each time."""
    return np.random.default_rng(seed)
