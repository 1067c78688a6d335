"""Refused requests in a key's name, which anybody can send: whatever they are, its holder is judged as without them."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DETECTORS
from detectors.detector import ERROR_401, ERROR_403, ERROR_404
from tests.detectors.streams import DAY_US, HOUR_US, Array, Judge, blank, daily_visits, place, set_hours

pytestmark = pytest.mark.timeout(900)
AWAY = 4  # of streams.PLACES
MOST_BITS = 2.0  # by which the score may differ: filters of few bits, and the time of a visit's first request


def life_and_theft(rng: np.random.Generator) -> Array:
    """A quiet life, then one visit of 40 calls that differs by some of client, routes, errors and place."""
    life, theft = daily_visits(40), blank(40)
    begin_us = int(life["ts_us"][-1]) + int(rng.integers(1, 12)) * DAY_US + 2 * HOUR_US
    theft["ts_us"] = begin_us + np.arange(40) * int(rng.integers(1, 60)) * 1_000_000
    theft["client"] = 77 if rng.random() < 0.5 else 5
    theft["route"] = 50 + np.arange(40) % int(rng.integers(1, 8))
    theft["request"] += 9_000_000
    place(theft, int(rng.integers(0, AWAY)))
    if rng.random() < 0.4:
        theft["error"][::3], theft["status"][::3], theft["outcome"][::3] = ERROR_403, 403, 2
    set_hours(theft)
    return np.concatenate([life, theft])


def with_noise(rng: np.random.Generator, events: Array) -> Array:
    """Up to 400 refused requests, any client, route, place and error: at any time, beside its own, or at the end."""
    noise = blank(int(rng.integers(1, 400)))
    first_us, last_us, count = int(events["ts_us"][0]), int(events["ts_us"][-1]), len(noise)
    beside = events["ts_us"][rng.integers(0, len(events), count)] + rng.integers(-600, 600, count) * 1_000_000
    anytime = [rng.integers(since, last_us, count) for since in (first_us, last_us - 2 * DAY_US)]
    noise["ts_us"] = np.sort([beside, *anytime][rng.integers(0, 3)])
    noise["authenticated"], noise["outcome"], noise["status"] = 0, 4, 401
    noise["error"] = rng.choice([ERROR_401, ERROR_403, ERROR_404], count)
    noise["request"] += 7_000_000
    noise["client"], noise["route"] = rng.integers(1, 100, count), rng.integers(1, 60, count)
    noise["address"] = rng.integers(1, 1 << 40, count)
    for at in range(count):
        place(noise[at : at + 1], int(rng.integers(0, AWAY)))
    set_hours(noise)
    both = np.concatenate([noise, events])
    return both[np.argsort(both["ts_us"], kind="stable")]


def strongest(events: Array) -> float:
    """The highest score that was told; 0: no incident."""
    judge = Judge(1)
    judge.feed(events)
    return max((float(change["score"]) for change in judge.changed), default=0.0)


@pytest.mark.parametrize("seed", range(40))
def test_they_hide_no_theft_and_make_none(seed: int) -> None:
    """A third of such thefts opened no incident while noise was learned as errors and was part of its visits."""
    rng = np.random.default_rng(seed)
    events = life_and_theft(rng)
    alone, beside = strongest(events), strongest(with_noise(rng, events))
    threshold = 18.0  # what opens lies between 16 and 17 bits
    assert abs(alone - beside) <= MOST_BITS or max(alone, beside) < threshold


def errors_of(events: Array) -> list[float]:
    """Bits of the findings of errors in requests of the key's holder."""
    judge = Judge(1)
    judge.feed(events)
    held = set(events["request"][events["authenticated"] == 1].tolist())
    errors = [detector.name for detector in DETECTORS].index("errors")
    return [row["bits"] for row in judge.found if row["detector"] == errors and row["event"] in held]


def scan(count: int, begin_us: int, outcome: int) -> Array:
    """So many forbidden routes, a second apart."""
    events = blank(count)
    events["ts_us"] = begin_us + np.arange(count) * 1_000_000
    events["route"], events["error"], events["status"] = 50 + np.arange(count), ERROR_403, 403
    events["outcome"], events["authenticated"] = outcome, int(outcome != 4)
    events["request"] += 7_000_000 + 1_000 * outcome
    place(events, 0)
    set_hours(events)
    return events


def test_louder_refused_requests_before_do_not_keep_a_holders_findings_from_being_told() -> None:
    """A thief may send them himself: an act needs findings of two families of the key's holder."""
    life = daily_visits(40)
    begin_us = int(life["ts_us"][-1]) + DAY_US
    theft = scan(10, begin_us + 600_000_000, 2)
    alone = errors_of(np.concatenate([life, theft]))
    beside = errors_of(np.concatenate([life, scan(200, begin_us, 4), theft]))
    assert alone and max(alone) - MOST_BITS <= max(beside)


def test_of_a_long_scan_that_is_refused_few_findings_are_told() -> None:
    life, refused = daily_visits(40), scan(2_000, 0, 4)
    refused["ts_us"] += int(life["ts_us"][-1]) + DAY_US
    judge = Judge(1)
    judge.feed(np.concatenate([life, refused]))
    named = set(refused["request"].tolist())
    assert 0 < sum(row["event"] in named for row in judge.found) < 50
