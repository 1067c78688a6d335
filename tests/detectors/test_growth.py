"""What a patient attacker can lift: whatever visits he makes, what is usual grows twofold in 28 days at most."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import egress, enumeration, growth, log_sizes, route_sizes
from detectors.crowds import FREE_REACH, LEAST_VARIANCE, crowd_bits
from detectors.detector import SEES_BYTES, SEES_OUTCOME, VISIT
from detectors.records import records
from detectors.spike import DETECTOR as SPIKE
from tests.detectors.one_key import DAY_US, HOUR_US, MONDAY_US, OneKey, event_at, record

pytestmark = pytest.mark.timeout(900)

DAYS = st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.3, 2.0, 5.0, 40.0, 1e4]), min_size=58, max_size=75)
"""Times the usual, by day; a day has its visits in it."""
SLACK = 1e-3
LEARNED = 28
"""Days of the usual: the value at the end of the last of them is what the next 28 are held to."""
PER_DAY = 4


def doubled_at_most(reached: list[float], free: float) -> None:
    """Of one value a day: none is above twice the largest of the 28 days that ended 28 days before, or `free`."""
    for day, now in enumerate(reached):
        before = max(reached[max(0, day - 56) : max(1, day - 27)])
        assert now <= max(free, before) + math.log(2.0) + SLACK


def visits_of(days: int) -> Any:
    """VISIT records, PER_DAY a day, of a key's life."""
    visit = record(VISIT)
    visit.first_seen_us = MONDAY_US
    for number in range(days * PER_DAY):
        visit.start_us = MONDAY_US + number * DAY_US // PER_DAY
        visit.ordinal = number
        yield visit


@settings(max_examples=25)
@given(days=DAYS, usual=st.sampled_from([30.0, 2_000.0, 5e7]), sway=st.sampled_from([1.0, 1.5, 6.0]))
def test_no_sequence_of_visits_doubles_a_size_in_28_days(days: list[float], usual: float, sway: float) -> None:
    """However sizes sway: what is usual at most is held, be it by the mean or by the spread."""
    law, reached = record(log_sizes.LAW), []
    for number, visit in enumerate(visits_of(LEARNED + len(days))):
        times = 1.0 if number < LEARNED * PER_DAY else days[number // PER_DAY - LEARNED]
        size = usual * times * (sway if number % 2 else 1.0 / sway)
        log_sizes.learn_held(law, visit, size, 0.0)
        if number >= LEARNED * PER_DAY - 1 and number % PER_DAY == PER_DAY - 1:
            reached.append(growth.reach(float(law["mean"]), float(law["variance"]), log_sizes.LEAST_VARIANCE))
    doubled_at_most(reached, 0.0)


def test_what_is_held_back_is_held_by_growth_alone_and_falls_at_once() -> None:
    """Without the cap the same visits teach forty times the usual; lower ones teach as they always did."""
    held, free = record(log_sizes.LAW), record(log_sizes.LAW)
    for number, visit in enumerate(visits_of(60)):
        size = 1_000.0 if number < 30 * PER_DAY else 40_000.0
        log_sizes.learn_held(held, visit, size, 0.0)
        log_sizes.learn_size(free, size)
    assert log_sizes.usual(free, 0.0) > 10_000.0
    assert log_sizes.usual(held, 0.0) < 2_000.0
    for _ in range(100):
        visit.ordinal += 1
        log_sizes.learn_held(held, visit, 10.0, 0.0)
    assert log_sizes.usual(held, 0.0) < 100.0


def test_after_an_adoption_the_new_size_is_usual_and_held_from_there() -> None:
    law = record(log_sizes.LAW)
    for number, visit in enumerate(visits_of(120)):
        day = number // PER_DAY
        visit.anew = 1 if 30 <= day < 60 else 0
        log_sizes.learn_held(law, visit, 1_000.0 if day < 30 else 40_000.0 if day < 60 else 4e9, 0.0)
        if day == 59:
            adopted = growth.reach(float(law["mean"]), float(law["variance"]), log_sizes.LEAST_VARIANCE)
    assert log_sizes.usual(law, 0.0) > 10_000.0
    after = growth.reach(float(law["mean"]), float(law["variance"]), log_sizes.LEAST_VARIANCE)
    assert after <= adopted + 3 * growth.LOG_ROOT_2 + SLACK, "three times 28 days began"


@settings(max_examples=10)
@given(days=DAYS)
def test_no_sequence_of_visits_makes_twice_the_objects_usual_in_28_days(days: list[float]) -> None:
    key, reached = OneKey(enumeration.ENUMERATION), []
    for day in range(LEARNED + len(days)):
        times = 1.0 if day < LEARNED else days[day - LEARNED]
        for visit in range(PER_DAY):
            for number in range(min(60, max(1, int(20 * times)))):
                event = event_at(MONDAY_US + day * DAY_US + visit * 6 * HOUR_US + number * 1_000)
                event.route, event.object = 7, 1 + day * 1_000 + number
                key.feed(event)
        law = key.state.objects  # of all days: the 28 before the first odd one are what it is held to
        reached.append(growth.reach(float(law["mean"]), float(law["variance"]), log_sizes.LEAST_VARIANCE))
    doubled_at_most(reached, math.log(enumeration.LEAST_OBJECTS))


@settings(max_examples=10)
@given(days=DAYS, route=st.sampled_from([0, 7]))
def test_no_sequence_of_visits_makes_larger_answers_usual_than_twice_in_28_days(days: list[float], route: int) -> None:
    """Of a route that nobody else uses, and of none: the key's own sizes, a visit's bytes, and its mean deviation."""
    key, reached = OneKey(egress.DETECTOR), {name: list[float]() for name in ("sizes", "whole", "")}
    for day in range(LEARNED + len(days)):
        times = 1.0 if day < LEARNED else days[day - LEARNED]
        for visit in range(PER_DAY):
            event = event_at(MONDAY_US + day * DAY_US + visit * 6 * HOUR_US)
            event.sees, event.route = SEES_OUTCOME | SEES_BYTES, route
            event.bytes_out = max(1, int(5_000 * times * (1.4 if visit % 2 else 1.0)))
            key.feed(event)
        for name, values in reached.items() if day >= LEARNED - 1 else ():
            law, least = (key.state[name], log_sizes.LEAST_VARIANCE) if name else (key.state, egress.LEAST_VARIANCE)
            values.append(growth.reach(float(law["mean"]), float(law["variance"]), least))
    for values in reached.values():
        doubled_at_most(values, egress.NO_FLOOR)


def crowd_of(key: OneKey, day: int, count: int) -> float:
    """The largest bits of the day's visits, of so many requests within a second each; and what is usual at most."""
    for visit in range(PER_DAY):
        at_us = MONDAY_US + day * DAY_US + visit * 6 * HOUR_US + 1_000_000
        key.run([at_us + number * 1_000_000 // count for number in range(count)])
    return growth.reach(float(key.state.crowd_mean[0]), float(key.state.crowd_variance[0]), LEAST_VARIANCE)


@settings(max_examples=8)
@given(days=DAYS, usual=st.sampled_from([1, 6, 15]))
def test_no_sequence_of_visits_makes_twice_the_crowd_usual_in_28_days(days: list[float], usual: int) -> None:
    key = OneKey(SPIKE)
    sizes = [usual] * LEARNED + [min(120, max(1, int(usual * times))) for times in days]
    reached = [crowd_of(key, day, size) for day, size in enumerate(sizes)][LEARNED - 1 :]
    doubled_at_most(reached, FREE_REACH)


@settings(max_examples=8)
@given(days=st.lists(st.integers(1, 60), min_size=1, max_size=40), usual=st.sampled_from([4, 15]))
def test_held_growth_of_crowds_alone_never_tells(days: list[int], usual: int) -> None:
    """Whatever came before, what was usual at most when these 28 days began, and twice that, is nothing odd."""
    key = OneKey(SPIKE)
    for day in range(30):
        crowd_of(key, day, usual)
    for day, count in enumerate(days):
        before = max(1.0, math.exp(float(key.state.crowd_mean[0])))
        crowd_of(key, 30 + day, count)
        for n in (before, 2.0 * before, 3.9 * math.exp(float(key.state.crowd_mean[0]))):
            if n <= 3.9 * math.exp(float(key.state.crowd_mean[0])):
                assert crowd_bits(key.state, key.shared, key.visit, 0, max(1.0, n)) == 0.0


def reach_of(table: Any) -> float:
    """What is usual at most of route 7."""
    slot = route_sizes.find(table, 7)
    return growth.reach(float(table["mean"][slot]), float(table["variance"][slot]), route_sizes.LEAST_VARIANCE)


def taught(table: Any, day: int, times: float, keys: int, lessons: int = 24) -> float:
    """A day on which `keys` in turn get answers of a route, `times` the usual; what was usual at most in it."""
    reached = 0.0
    for number in range(lessons):
        at_us = MONDAY_US + day * DAY_US + number * DAY_US // lessons
        size = math.log(max(1.0, 20_000.0 * times * (1.5 if number % 3 else 0.7)))
        route_sizes.teach(table, 7, number % keys, size, at_us, False)
        reached = max(reached, reach_of(table))
    return reached


@settings(max_examples=20)
@given(days=DAYS, keys=st.integers(2, route_sizes.MANY - 1))
def test_no_answers_to_fewer_than_eight_keys_make_a_routes_answers_twice_as_large_in_28_days(
    days: list[float], keys: int
) -> None:
    table = records(np.zeros(1, route_sizes.TABLE))[0]
    doubled_at_most([taught(table, day, times, keys) for day, times in enumerate([1.0] * 30 + days)], 0.0)


def test_two_of_many_keys_do_not_move_a_route_and_all_of_them_do_within_days() -> None:
    """An attacker's two keys bring forty times the usual; then a release of the API does, to everybody."""
    table = records(np.zeros(1, route_sizes.TABLE))[0]
    for day in range(30):
        usual = taught(table, day, 1.0, 10)
    for day in range(30, 50):
        for number in range(40):
            at_us = MONDAY_US + day * DAY_US + number * 1_000_000
            route_sizes.teach(table, 7, number % 2, math.log(800_000.0), at_us, False)
    assert reach_of(table) <= usual + math.log(2.0) + SLACK
    for day in range(50, 60):
        taught(table, day, 40.0, 10, lessons=100)
    assert float(table["mean"][route_sizes.find(table, 7)]) > math.log(400_000.0)


def test_a_key_that_was_adopted_teaches_a_route_freely() -> None:
    held, free = (records(np.zeros(1, route_sizes.TABLE))[0] for _ in range(2))
    for table, anew in ((held, False), (free, True)):
        for number in range(800):
            at_us = MONDAY_US + number * DAY_US // 40
            size = math.log(20_000.0 if number < 200 else 400_000.0)
            route_sizes.teach(table, 7, number % 2, size, at_us, anew and number >= 200)
    slot = route_sizes.find(held, 7)
    assert float(free["mean"][slot]) > math.log(300_000.0) > math.log(50_000.0) > float(held["mean"][slot])
