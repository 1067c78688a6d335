"""When a client calls, and what: vectorised, the same for the same seed and span.

Visits start by a Poisson process whose rate follows the hour of the week in the client's own zone; each visit is a
handful of calls. History and live traffic are one process: the live part is the same function over a later span.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from pipeline.demo.fleet import Client
from pipeline.demo.routes import FIRST_MISSING

US: Final = 1_000_000
HOUR_US: Final = 3_600 * US
DAY_US: Final = 24 * HOUR_US

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CALL: Final = np.dtype([("ts_us", "i8"), ("client", "i4"), ("route", "i2"), ("address", "i2"), ("record", "i4")])
"""One planned call; `route` and `address` index the client's own tuples' values, see `calls`."""
Calls = npt.NDArray[Any]

_OFFICE_DAY: Final = np.array([0] * 8 + [0.6, 1.2, 1.4, 1.2, 0.6, 1.1, 1.3, 1.2, 1.0, 0.7, 0.2] + [0] * 5, np.float64)
_PEOPLE_DAY: Final = np.array(
    [.4, .2, .1, .05, .05, .1, .4, .8, .9, .7, .7, .8, 1.1, .9, .7, .7, .9, 1.2, 1.6, 2.0, 2.3, 2.1, 1.5, .8]
)  # fmt: skip
_SERVICE_DAY: Final = 1.0 + 0.5 * np.sin((np.arange(24) - 7) / 24 * 2 * np.pi)
_GROWTH: Final = ((9.0, 1.0), (4.0, 1.3), (1.5, 1.6), (0.0, 2.0))
"""Of the growing customer: days before the end of the history, level from then on."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_us` on, before `end_us`; UTC microseconds."""

    start_us: int
    end_us: int


def plan(fleet: tuple[Client, ...], span: Span, seed: int, now_us: int | None = None) -> Calls:
    """All calls of a span, in order of time. `now_us` (default: the span's end) is when the history ends."""
    now = span.end_us if now_us is None else now_us
    parts = [calls(client, span, seed, now) for client in fleet]
    planned = np.concatenate(parts)
    return planned[np.argsort(planned["ts_us"], kind="stable")]


def calls(client: Client, span: Span, seed: int, now_us: int) -> Calls:
    """The calls of one client in a span; unordered. Its own random stream: other clients change nothing."""
    rng = np.random.default_rng([seed, 2, client.number, span.start_us // US])
    starts = _job_starts(client, span, rng) if client.kind == "job" else _visit_starts(client, span, rng, now_us)
    if client.kind == "job":
        sizes = np.full(len(starts), int(client.calls_per_visit))
    else:
        sizes = rng.geometric(1 / client.calls_per_visit, len(starts))
    made = _calls_of_visits(client, starts, sizes, span, rng)
    first_us = now_us - client.first_days * DAY_US
    last_us = now_us - client.last_days * DAY_US if client.last_days else np.inf
    used: Calls = made[(made["ts_us"] >= first_us) & (made["ts_us"] < last_us)]
    return used


def _visit_starts(client: Client, span: Span, rng: np.random.Generator, now_us: int) -> Ints:
    first = span.start_us // HOUR_US
    hours = np.arange(first, -(-span.end_us // HOUR_US))
    rates = client.visits_per_day / 24 * weekly_profile(client.kind)[hours_of_week(client.time_zone, hours)]
    if client.grows:
        rates = rates * growth(hours * HOUR_US, now_us)
    counts = rng.poisson(rates)
    return np.repeat(hours, counts) * HOUR_US + rng.integers(0, HOUR_US, int(counts.sum()))


def _job_starts(client: Client, span: Span, rng: np.random.Generator) -> Ints:
    every = int(DAY_US / client.visits_per_day)
    phase = (client.number * 37 % 600) * US
    first = -(-(span.start_us - phase) // every)
    starts: Ints = np.arange(first, (span.end_us - phase) // every + 1) * every + phase
    return starts + rng.integers(0, 2 * US, len(starts))


def _calls_of_visits(client: Client, starts: Ints, sizes: Ints, span: Span, rng: np.random.Generator) -> Calls:
    total = int(sizes.sum())
    gaps = rng.exponential(client.gap_s * US, total)
    running = np.cumsum(gaps)
    begins = np.repeat(np.cumsum(sizes) - sizes, sizes)  # index of the first call of each call's visit
    result = np.zeros(total, CALL)
    result["ts_us"] = np.repeat(starts, sizes) + (running - running[begins]).astype(np.int64)
    result["client"] = client.number
    result["route"] = np.asarray(client.routes)[_skewed(len(client.routes), total, rng)]
    result["address"] = np.repeat(_skewed(len(client.addresses), len(starts), rng), sizes)
    result["record"] = _records(client, total, rng)
    kept: Calls = result[(result["ts_us"] >= span.start_us) & (result["ts_us"] < span.end_us)]
    return kept


def _skewed(choices: int, count: int, rng: np.random.Generator) -> Ints:
    """Indices with weights 1, 1/2, 1/3, ...: the first choice most."""
    weights = 1 / np.arange(1, choices + 1)
    return rng.choice(choices, count, p=weights / weights.sum())


def _records(client: Client, count: int, rng: np.random.Generator) -> Ints:
    """The record that a call names; FIRST_MISSING and above do not exist."""
    exists = rng.integers(1_000, FIRST_MISSING, count)
    missing = rng.integers(FIRST_MISSING, 100_000, count)
    return np.where(rng.random(count) < client.missing_share, missing, exists)


def weekly_profile(kind: str) -> Floats:
    """Relative rate by hour of the week (Monday 00h first), mean 1 over a day of full use."""
    if kind == "office":
        day = _OFFICE_DAY / _OFFICE_DAY.sum() * 24
        return np.concatenate([np.tile(day, 5), np.zeros(48)])
    if kind == "people":
        day = _PEOPLE_DAY / _PEOPLE_DAY.sum() * 24
        return np.concatenate([np.tile(day, 5), np.tile(day, 2) * 1.4])
    return np.tile(_SERVICE_DAY, 7)


def hours_of_week(time_zone: str, hours: Ints) -> Ints:
    """Local hour of the week of hours since 1970, daylight saving included."""
    zone = ZoneInfo(time_zone)
    offsets = np.empty(len(hours), np.int64)
    for i, hour in enumerate(hours.tolist()):
        offset = datetime.fromtimestamp(hour * 3_600, UTC).astimezone(zone).utcoffset()
        assert offset is not None
        offsets[i] = round(offset.total_seconds() / 3_600)
    return (hours + offsets + 3 * 24) % 168  # 1970-01-01 was a Thursday


def growth(at_us: Ints, now_us: int) -> Floats:
    """The growing customer's level: stepwise, by how long before `now_us`."""
    days_left = (now_us - at_us) / DAY_US
    level = np.full(len(at_us), 0.8)
    for before, value in _GROWTH:
        level[days_left <= before] = value
    return level
