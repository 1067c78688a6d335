"""Seeded streams of events for the tests of the pass, and a pass that is compiled once per process."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from detectors import DETECTORS, fuse, fusion
from detectors.detector import (
    ERROR_NONE,
    EVENT,
    NET_HOSTING,
    NET_KNOWN,
    VISIT_GAP_US,
    Context,
    config_record,
)

Array = np.ndarray[Any, Any]
START_US = 1_790_000_000_000_000 - 1_790_000_000_000_000 % 604_800_000_000_000
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
PLACES = ((64500, "DE", 51.0, 10.0), (64501, "DE", 51.0, 10.0), (64502, "BR", -10.0, -55.0), (64503, "US", 38.0, -97.0))
CONTEXT = Context(
    key_id="k", method="GET", route="/a", status=200, client_ip="192.0.2.1", country="RO", asn=64500,
    network="EXAMPLE", client="curl", local_time="Tue 03:12", time_zone="UTC", seen_days=14.0,
)  # fmt: skip


def country(code: str) -> int:
    """A country as EVENT has it."""
    return ord(code[0]) * 256 + ord(code[1])


def blank(count: int) -> Array:
    """`count` plain successes of slot 0 from one German network, a minute apart."""
    events = np.zeros(count, EVENT)
    events["ts_us"] = START_US + np.arange(count) * MINUTE_US
    events["request"] = np.arange(1, count + 1)
    events["route"] = 7
    events["client"] = 5
    events["status"] = 200
    events["authenticated"] = 1
    events["outcome"] = 1
    events["sees"] = 127
    events["net_flags"] = NET_KNOWN
    events["in_hours"] = -1
    events["local_hour"] = -1
    events["address"] = 0xABCDEF0123456789
    place(events, 0)
    set_hours(events)
    return events


def place(events: Array, which: int) -> None:
    """Put events (a slice or one record) at one of PLACES."""
    asn, code, lat, lon = PLACES[which]
    events["asn"] = asn
    events["country"] = country(code)
    events["lat"] = lat
    events["lon"] = lon
    events["accuracy_km"] = 200.0


def set_hours(events: Array) -> None:
    """Hour of the week in UTC from the time."""
    events["utc_hour"] = (events["ts_us"] // HOUR_US + 72) % 168


def random_stream(seed: int, count: int, keys: int, days: float = 3.0) -> Array:
    """A lively mixture: bursts, errors, new places, unauthenticated and blind events, some of them out of order."""
    rng = np.random.default_rng(seed)
    events = blank(count)
    pauses = rng.choice([0.2, 30.0, 700.0], count, p=[0.6, 0.3, 0.1]) * rng.exponential(1.0, count)
    at_us = np.cumsum(pauses) / max(1.0, pauses.sum()) * days * DAY_US
    events["ts_us"] = (
        START_US + at_us.astype(np.int64) - rng.integers(0, 100_000_000, count) * (rng.random(count) < 0.1)
    )
    events["slot"] = rng.integers(0, keys, count)
    for which in range(len(PLACES)):
        chosen = rng.random(count) < (0.04 if which else 0.0)
        asn, code, lat, lon = PLACES[which]
        for name, value in (("asn", asn), ("country", country(code)), ("lat", lat), ("lon", lon)):
            events[name][chosen] = value
    events["address"] = events["asn"].astype("u8") << np.uint64(40) | rng.integers(1, 20, count).astype(
        "u8"
    ) << np.uint64(33)
    failed = rng.random(count) < 0.2
    events["error"] = np.where(failed, rng.integers(1, 7, count), ERROR_NONE)
    events["route"] = rng.integers(1, 40, count)
    events["authenticated"] = rng.random(count) < 0.9
    events["net_flags"] = np.where(rng.random(count) < 0.05, NET_KNOWN | NET_HOSTING, NET_KNOWN)
    events["sees"] = np.where(rng.random(count) < 0.03, 0, 127)
    set_hours(events)
    events["client"] = rng.choice([5, 6, 7], count, p=[0.9, 0.08, 0.02])
    events["operation"] = rng.integers(0, 7, count)
    events["object"] = rng.integers(1, 400, count)
    events["bytes_out"] = (2_000 * rng.lognormal(0.0, 1.5, count)).astype(np.int64)
    events["fingerprint"] = rng.choice([0, 8, 9, 10], count, p=[0.3, 0.6, 0.08, 0.02])
    events["declared"] = np.where(rng.random(count) < 0.01, 1 << rng.integers(1, 10, count), 0)
    return events


@cache
def compiled_pass() -> fuse.Run:
    """The pass over the whole tuple."""
    return fuse.compile_pass(DETECTORS)


class Judge:
    """State of some keys and what the pass said so far."""

    def __init__(self, keys: int, **settings: float) -> None:
        self.keys = np.zeros(keys, fuse.key_dtype(DETECTORS))
        self.shared = np.zeros(1, fuse.shared_dtype(DETECTORS))
        self.configs = fuse.configs(DETECTORS)
        self.settings = config_record(fusion.Settings(**settings))
        self.found: list[Any] = []
        self.changed: list[Any] = []

    def feed(self, events: Array, rows: int = 4096) -> None:
        """Run the pass over one slice, with output arrays of `rows` records."""
        found, changed = np.zeros(rows, fuse.FOUND), np.zeros(rows, fuse.CHANGED)
        start = 0
        while start < len(events):
            start, n_found, n_changed = compiled_pass()(
                self.keys, self.shared, events, start, self.configs, self.settings, found, changed
            )
            self.found += [row_of(row, events) for row in found[:n_found]]
            self.changed += [row_of(row, events) for row in changed[:n_changed]]

    def bits(self, name: str) -> list[float]:
        """All found bits of a detector."""
        index = [detector.name for detector in DETECTORS].index(name)
        return [row["bits"] for row in self.found if row["detector"] == index]

    def kinds(self) -> list[str]:
        """The changes so far, in words."""
        return [fusion.KINDS[row["kind"]] for row in self.changed]


def row_of(row: Any, events: Array) -> dict[str, Any]:
    """A record as a dict in which the event's index is replaced by its request, which no cut changes."""
    named = {name: row[name].item() for name in row.dtype.names if not name.startswith("pad")}
    named["event"] = int(events["request"][named["event"]])
    return named


def daily_visits(days: int, per_day: int = 4, calls: int = 6) -> Array:
    """One key's quiet life: visits spread over office hours, some calls each, from one network."""
    events = blank(days * per_day * calls)
    visit = np.arange(len(events)) // calls
    begin_us = START_US + visit // per_day * DAY_US + (8 * HOUR_US) + visit % per_day * (2 * HOUR_US + VISIT_GAP_US)
    events["ts_us"] = begin_us + np.arange(len(events)) % calls * 90_000_000
    events["route"] = 1 + np.arange(len(events)) % 3
    set_hours(events)
    return events
