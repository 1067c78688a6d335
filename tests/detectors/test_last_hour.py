"""The hour before an incident: what an attacker gains who prepares in it, and what the incident takes back."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detectors import DETECTORS, feedback
from detectors.detector import ERROR_403, OPERATION_DELETE, OPERATION_READ
from detectors.known_operations import is_known
from tests.detectors.one_key import first
from tests.detectors.streams import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Array,
    Judge,
    blank,
    daily_visits,
    place,
    set_hours,
)

pytestmark = pytest.mark.timeout(900)

WAYS = ("calls", "sizes", "objects", "errors", "turns", "fingerprint")
LOST = {"spike": 4.5, "egress": 1.0, "errors": 1.0, "enumeration": 1.0, "sharing": 5.0, "novel_client": 2.5,
        "off_hours": 5.5}  # fmt: skip
"""Bits that a detector's finding may lose by a visit in the hour before; operations are another matter (below)."""
NAMES = [detector.name for detector in DETECTORS]


@cache
def life() -> Array:
    """Sixty days of the owner."""
    events = daily_visits(60)
    events["bytes_out"] = 2_000
    events["object"] = 1 + np.arange(len(events)) % 5
    events["fingerprint"] = 8
    return events


def burst(at_us: int, calls: int, way: str) -> Array:
    """A call a second from the owner's place, or from two places in turn."""
    events = blank(calls)
    events["ts_us"] = at_us + np.arange(calls) * 1_000_000
    events["request"] += 1_000_000 + at_us // 1_000_000 % 1_000_003 * 100
    events["object"] = 10_000 + np.arange(calls) if way == "objects" else 1
    events["bytes_out"] = 5_000_000 if way == "sizes" else 2_000
    events["fingerprint"] = 77 if way == "fingerprint" else 8
    if way == "errors":
        events["error"], events["route"] = ERROR_403, 900 + np.arange(calls) % 30
    if way == "turns":
        place(events[::2], 2)
    set_hours(events)
    return events


def attacked(way: str, calls: int, before_min: int) -> tuple[bool, dict[str, float]]:
    """Whether an incident opened in the visit before the attack, and the attack's largest bits by detector."""
    judge = Judge(1, finding_bits=0.25)
    judge.feed(life())
    start_us = int(life()["ts_us"][-1]) + 6 * HOUR_US
    if calls:
        judge.feed(burst(start_us - before_min * MINUTE_US - calls * 1_000_000, calls, way))
    early, told = "opened" in judge.kinds(), len(judge.found)
    judge.feed(burst(start_us, 80, way))
    assert judge.kinds().count("opened") == 1
    bits: dict[str, float] = {}
    for row in judge.found[told:]:
        name = NAMES[row["detector"]]
        bits[name] = max(bits.get(name, 0.0), row["bits"])
    return early, bits


@cache
def unprepared(way: str) -> dict[str, float]:
    return attacked(way, 0, 0)[1]


@settings(max_examples=60)
@example(way="turns", calls=6, before_min=30)
@example(way="calls", calls=12, before_min=58)
@given(way=st.sampled_from(WAYS), calls=st.integers(1, 80), before_min=st.integers(30, 58))
def test_whoever_prepares_in_the_hour_before_is_told_then_or_gains_a_few_bits(
    way: str, calls: int, before_min: int
) -> None:
    """He gains the less the more a law remembers: a visit of fifty or a hundred. An incident opens either way."""
    early, bits = attacked(way, calls, before_min)
    for name, most in LOST.items():
        was = unprepared(way).get(name, 0.0)
        assert early or bits.get(name, 0.0) >= was - most, (name, was, bits)


def known(judge: Judge, route: int, sensitive: bool = True) -> bool:
    return bool(is_known(first(judge.keys["novel_operation"].copy()), route, sensitive))


def operation(at_us: int, route: int, kind: int, calls: int = 1) -> Array:
    """An operation at the owner's place."""
    events = burst(at_us, calls, "calls")
    events["route"], events["operation"] = route, kind
    return events


def incident_after(*earlier: Array, pause_min: int, way: str = "sizes") -> Judge:
    """Visits, so many minutes later an incident, and the owner's next day."""
    judge = Judge(1)
    judge.feed(life())
    for visit in earlier:
        judge.feed(visit)
    judge.feed(burst(int(earlier[-1]["ts_us"][-1]) + pause_min * MINUTE_US, 80, way))
    assert "opened" in judge.kinds()
    judge.feed(burst(int(life()["ts_us"][-1]) + DAY_US, 1, "calls"))
    return judge


@settings(max_examples=20)
@given(
    pause_min=st.integers(30, 150),
    kind=st.sampled_from([OPERATION_DELETE, OPERATION_READ]),
    routes=st.lists(st.integers(5_000, 6_000), min_size=1, max_size=3, unique=True),
)
def test_operations_of_the_hour_before_an_incident_are_taken_back_and_older_ones_stay(
    pause_min: int, kind: int, routes: list[int]
) -> None:
    start_us = int(life()["ts_us"][-1]) + 6 * HOUR_US
    visit = [operation(start_us + k * 1_000_000, route, kind) for k, route in enumerate(routes)]
    judge = incident_after(np.concatenate(visit), pause_min=pause_min)
    for route in routes:
        if pause_min <= 60:
            assert not known(judge, route, kind == OPERATION_DELETE)
        else:
            assert known(judge, route, kind == OPERATION_DELETE)
    assert known(judge, 1, False) and known(judge, 3, False), "the owner's own stay"


def test_a_list_of_new_routes_does_not_push_out_what_is_to_be_taken_back() -> None:
    start_us = int(life()["ts_us"][-1]) + 6 * HOUR_US
    visit = [operation(start_us + k * 1_000_000, 5_000 + k, OPERATION_DELETE) for k in range(3)]
    judge = incident_after(np.concatenate(visit), pause_min=40, way="errors")
    assert not any(known(judge, 5_000 + k) for k in range(3))


def test_what_was_held_is_known_at_once_and_kept_when_the_next_visit_is_learned() -> None:
    start_us = int(life()["ts_us"][-1]) + 6 * HOUR_US
    judge = Judge(1)
    judge.feed(life())
    judge.feed(operation(start_us, 5_001, OPERATION_DELETE))
    judge.feed(operation(start_us + 40 * MINUTE_US, 1, OPERATION_READ))  # ends the visit
    assert known(judge, 5_001)
    judge.feed(operation(start_us + 80 * MINUTE_US, 1, OPERATION_READ))
    judge.feed(burst(start_us + 120 * MINUTE_US, 80, "errors"))
    judge.feed(burst(start_us + DAY_US, 1, "calls"))
    assert "opened" in judge.kinds() and known(judge, 5_001)


def test_an_operation_that_a_person_admitted_is_not_taken_back_by_the_next_incident() -> None:
    start_us = int(life()["ts_us"][-1]) + 6 * HOUR_US
    judge = Judge(1)
    judge.feed(life())
    mine = operation(start_us, 5_001, OPERATION_DELETE)
    feedback.admit(DETECTORS, judge.configs, judge.keys[:1], judge.shared, mine)
    judge.feed(burst(start_us + 40 * MINUTE_US, 80, "errors"))
    judge.feed(burst(start_us + DAY_US, 1, "calls"))
    assert "opened" in judge.kinds() and known(judge, 5_001)


@pytest.mark.parametrize(("kind", "learned"), [(OPERATION_READ, 8), (OPERATION_DELETE, 4)])
def test_of_more_new_operations_than_can_wait_reads_are_kept_and_deletions_are_learned_the_next_time(
    kind: int, learned: int
) -> None:
    start_us = int(life()["ts_us"][-1]) + 6 * HOUR_US
    judge = Judge(1, listed_days=1e12)
    judge.feed(life())
    for number in (0, 4):
        visit = [operation(start_us + (number * 600 + k) * 1_000_000, 5_000 + number + k, kind) for k in range(4)]
        judge.feed(np.concatenate(visit))
    judge.feed(burst(start_us + DAY_US, 1, "calls"))
    assert sum(known(judge, 5_000 + k, kind == OPERATION_DELETE) for k in range(8)) == learned
