"""A small seeded log with everything in it that the core must stand: rhythm, bursts, strangers, late and double
events, junk; and what the tests need to run it through a core."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from pipeline.column import plain
from pipeline.config import tree as settings
from pipeline.config.tree import Config
from pipeline.core import Effects, Rows, Sides, Slice
from pipeline.flow import KeyCore, open_core
from pipeline.geo.provider import open_geo
from schemas.event import Event
from schemas.incident import Incident
from schemas.key import Key
from schemas.rows import TABLES

START_US = 1_780_000_000_000_000  # 2026-05-28T20:26:40Z
HOUR_US = 3_600_000_000
HOME = ("8.8.8.8", "8.8.4.4", "9.9.9.9")
ABROAD = ("185.220.101.4", "185.220.101.9", "45.155.205.7")
GEO = open_geo(settings.Geo())

Record = tuple[bytes | None, bytes | None, int]  # key, value, timestamp in ms


class Declared:
    """A catalogue of a few keys; the others are unknown."""

    version = "test-1"

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = {key.key_id: key for key in keys}

    def get(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)


def catalogue() -> Declared:
    return Declared([Key(key_id="pk_0", environment="live", owner="acme", time_zone="Europe/Berlin", version=3)])


def record(event: Event) -> Record:
    return event.key_id.encode(), msgspec.json.encode(event), event.ts_us // 1000


def _event(rng: np.random.Generator, key: int, ts_us: int, number: int, address: str, status: int = 200) -> Event:
    outcome = {401: "invalid", 403: "denied", 429: "rate_limited"}.get(status, "success")
    return Event(
        key_id=f"pk_{key}", ts_us=ts_us, client_ip=address, method="GET", path=f"/v1/things/{int(rng.integers(9))}x",
        status=status, outcome=outcome, latency_ms=float(rng.integers(1, 900)), bytes_out=int(rng.integers(5000)),
        user_agent="python-requests/2.31" if key % 2 else "curl/8.1", request_id=f"r{number}",
    )  # fmt: skip


def log(seed: int, events: int = 1500, keys: int = 6, days: int = 4) -> list[Record]:
    """Records in the order of the log. The last third of the time pk_1 is used from abroad, in a burst, denied."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, days * 24 * HOUR_US, events)) + START_US
    out: list[Record] = []
    for number, ts_us in enumerate(times.tolist()):
        out.append(record(_event(rng, int(rng.integers(keys)), ts_us, number, HOME[number % 3])))
    middle = START_US + days * 16 * HOUR_US
    for k in range(150):
        stranger = _event(rng, 1, middle + k * 300_000, 10_000 + k, ABROAD[k % 3], (200, 403, 404)[k % 3])
        out.append(record(stranger))
    out.sort(key=lambda r: r[2])
    for at in rng.integers(0, len(out) - 5, 20).tolist():
        out.insert(at + 4, out[at])  # delivered twice
    for at in rng.integers(50, len(out), 10).tolist():
        late = _event(rng, int(rng.integers(keys)), out[at][2] * 1000 - 40 * 60_000_000, 20_000 + at, HOME[0])
        out.insert(at, record(late))
    for at in rng.integers(0, len(out), 12).tolist():
        out.insert(at, (b"pk_2", (b"{", b'{"key_id":"pk_2"}', b"\xff\xfe", b"[1]")[at % 4], out[at][2]))
    return out


def slices(records: Sequence[Record], cuts: Iterable[int], first: int = 0) -> list[Slice]:
    """The log in slices that end at `cuts` (indices of records)."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(records)}), len(records)]
    out = []
    for start, end in itertools.pairwise(edges):
        keys, values, times = zip(*records[start:end], strict=True)
        out.append(Slice("api.requests", 0, range(first + start, first + end), keys, values, times))
    return out


def core(config: Config | None = None) -> KeyCore:
    return open_core(0, config or Config(), Sides(catalogue(), GEO, "c1"), "epoch")


def keep_rows(kept: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]], rows: Rows) -> None:
    """What ClickHouse would hold after FINAL: the newest full value of every row."""
    for table, columns in rows.items():
        names = [name for name, _ in TABLES[table]]
        for row in zip(*(plain(columns[name]) for name in names), strict=True):
            values = dict(zip(names, row, strict=True))
            identity = tuple(str(values[name]) for name in IDENTITY[table])
            kept.setdefault(table, {})[identity] = tuple(map(str, row))


IDENTITY = {
    "requests": ("epoch", "partition", "offset"),
    "requests_1m": ("key_id", "window_start", "part"),
    "requests_1h": ("key_id", "window_start", "part"),
    "key_source_1h": (
        "key_id", "window_start", "prefix", "asn", "country", "client", "route", "outcome", "part",
    ),
    "keys_last_used": ("key_id",),
    "findings": ("finding_id",),
    "incidents": ("incident_id",),
    "evidence": ("incident_id", "epoch", "partition", "offset"),
    "adoptions": ("epoch", "partition", "offset", "input"),
    "controls": ("control_id", "seq"),
    "applied": ("control_id", "seq", "partition"),
    "withheld": ("withheld_id",),
    "evictions": ("key_id",),
}  # fmt: skip


class Outcome:
    """Everything that a run brought about, by identity."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {}
        self.incidents: dict[tuple[str, int], Incident] = {}
        self.rejects: dict[int, str] = {}

    def take(self, effects: Effects) -> None:
        keep_rows(self.rows, effects.rows)
        self.incidents |= {(x.incident_id, x.revision): x for x in effects.incidents}
        self.rejects |= {x.offset: x.reason for x in effects.rejects}

    def finish(self, rows: Rows) -> None:
        keep_rows(self.rows, rows)
