"""One key under one detector, event by event, with the visits that `fuse.py` keeps: the test bench of a detector."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from detectors.detector import EVENT, READING, SEES_OUTCOME, VISIT, VISIT_GAP_US, VISIT_MAX_US, Detector, config_record
from detectors.records import records
from detectors.teaching import TEACHES

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
MONDAY_US = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp()) * SECOND_US


def record(dtype: np.dtype[Any]) -> Any:
    """One zeroed record, fields as attributes; compiled and plain code both write into it."""
    return first(np.zeros(1, dtype))


def first(array: np.ndarray[Any, Any]) -> Any:
    """The first record, fields as attributes."""
    plain = records(array)
    return (array.view(np.recarray) if plain is array else plain)[0]


def event_at(ts_us: int, zone: str = "", in_hours: int = -1) -> Any:
    """An attested event at a time, with the hours that enrichment would give it."""
    event = record(EVENT)
    event.ts_us = ts_us
    event.sees = SEES_OUTCOME
    event.authenticated = 1
    event.in_hours = in_hours
    moment = datetime.fromtimestamp(ts_us // SECOND_US, UTC)
    event.utc_hour = moment.weekday() * 24 + moment.hour
    event.local_hour = -1
    if zone:
        local = moment.astimezone(ZoneInfo(zone))
        event.local_hour = local.weekday() * 24 + local.hour
    return event


class OneKey:
    """A key and its detector. `shared` may be handed from key to key: then they are peers."""

    def __init__(self, detector: Detector, shared: Any = None) -> None:
        self.detector = detector
        self.state = record(detector.state)
        self.shared = record(detector.shared) if shared is None else shared
        self.visit = record(VISIT)
        self.visit.teaches = TEACHES
        self.config = first(config_record(detector.config))

    def feed(self, event: Any, weight: float = 1.0) -> Any:
        """Settle, prepare, score, learn; weight 0 is an open incident. Returns the reading."""
        ts_us, visit = int(event.ts_us), self.visit
        self.turn_visit(ts_us, weight)
        reading = self.judge(self.state, event)
        self.detector.learn(self.state, self.shared, visit, event, weight, self.config)
        visit.tainted = 1 if weight == 0.0 else visit.tainted
        visit.last_us = max(int(visit.last_us), ts_us)
        visit.events = int(visit.events) + 1
        return reading

    def turn_visit(self, ts_us: int, weight: float) -> None:
        """End the visit that this time lies beyond."""
        visit = self.visit
        start_us = int(visit.start_us)
        if start_us and ts_us - int(visit.last_us) < VISIT_GAP_US and ts_us - start_us < VISIT_MAX_US:
            return
        if start_us:
            taught = 0.0 if int(visit.tainted) else 1.0
            self.detector.settle(self.state, self.shared, visit, taught, self.config)
            visit.ordinal = int(visit.ordinal) + 1
        else:
            visit.first_seen_us = ts_us
        visit.start_us = ts_us
        visit.events = 0
        visit.tainted = 0

    def score(self, event: Any) -> Any:
        """What the detector says of an event, of which nothing stays."""
        return self.judge(self.state.copy(), event)

    def judge(self, state: Any, event: Any) -> Any:
        """Prepare, score."""
        reading = record(READING)
        if self.detector.prepare is not None:
            self.detector.prepare(state, self.shared, self.visit, event, self.config)
        self.detector.score(state, self.shared, self.visit, event, self.config, reading)
        return reading

    def run(self, times_us: Iterable[int], zone: str = "", weight: float = 1.0) -> float:
        """Feed events at these times; returns the largest bits."""
        return max((float(self.feed(event_at(int(t), zone), weight).bits) for t in times_us), default=0.0)


def every(interval_s: float, start_us: int, duration_s: float) -> list[int]:
    """Times of a steady caller."""
    return [start_us + int(i * interval_s * SECOND_US) for i in range(int(duration_s / interval_s))]


def at_random(per_hour: float, start_us: int, hours: float, seed: int = 1) -> list[int]:
    """Times of a Poisson caller, ascending."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(per_hour * hours)
    return sorted(int(t) for t in start_us + rng.uniform(0, hours * HOUR_US, count))
