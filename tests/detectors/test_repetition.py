"""One operation over and over. Near misses: the own mix as fast, a poller that polls more, a client that retries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import repetition
from detectors.detector import ERROR_5XX, ERROR_403, ERROR_404, VISIT
from detectors.repetition import LEAST, UNIT, USUAL_LEAST
from detectors.spike import DETECTOR
from pipeline.state.pages import migrate
from tests.detectors.one_key import DAY_US, HOUR_US, MONDAY_US, SECOND_US, OneKey, event_at, record
from tests.detectors.streams import CONTEXT

MIX = (1, 2, 3, 4, 1, 5, 6, 2)
DAYS = 10


def call(at_us: int, route: int, error: int = 0) -> Any:
    """An attested call of a route."""
    event = event_at(at_us)
    event.route, event.error = route, error
    return event


def service(routes: tuple[int, ...], days: int = DAYS) -> OneKey:
    """A key that makes eight calls an hour, in turn of these routes."""
    key = OneKey(DETECTOR)
    for hour in range(days * 24):
        for i in range(8):
            key.feed(call(MONDAY_US + hour * HOUR_US + i * 20 * SECOND_US, routes[i % len(routes)]))
    return key


def abuse(key: OneKey, routes: tuple[int, ...], count: int = 240, gap_s: float = 14.0, error: int = 0) -> list[Any]:
    """Readings of an hour's calls, paced so that no minute is full."""
    start_us = MONDAY_US + DAYS * DAY_US + 40 * 60 * SECOND_US
    return [key.feed(call(start_us + int(i * gap_s * SECOND_US), routes[i % len(routes)], error)) for i in range(count)]


def most(readings: list[Any]) -> float:
    """The largest evidence."""
    return max(float(reading.lr_insider) for reading in readings)


@pytest.fixture(scope="module")
def mixed() -> OneKey:
    """Six routes in turn."""
    return service(MIX)


def copied(key: OneKey) -> OneKey:
    """The same key once more."""
    other = OneKey(DETECTOR)
    for name in ("state", "shared", "visit"):
        for field in getattr(key, name).dtype.names:
            getattr(other, name)[field] = getattr(key, name)[field]
    return other


def test_one_operation_for_an_hour_is_evidence_and_the_own_mix_as_fast_is_less(mixed: OneKey) -> None:
    readings = abuse(copied(mixed), (3,))
    assert most(readings) > 13.0
    assert most(readings) > most(abuse(copied(mixed), MIX)) + 3.0
    loudest = max(readings, key=lambda reading: float(reading.bits))
    assert DETECTOR.explain(loudest, CONTEXT).startswith(f"{loudest.observed:.0f} calls of")
    assert loudest.observed > 100 and loudest.high == 8


def test_a_hundred_times_as_much_of_a_mix_is_no_operation_over_and_over(mixed: OneKey) -> None:
    """A load test of the key's own mix, in which one operation is four calls of ten: its surplus is none of that."""
    mix = (3, 3, 1, 3, 2, 3, 4, 5, 6, 1)
    surplus = [float(reading.a) for reading in abuse(copied(mixed), mix, 900, 3.9) if float(reading.bits) > 0.0]
    assert -1.0 not in surplus


@settings(max_examples=20)
@given(st.integers(0, 2), st.integers(3, 6))
def test_hiding_an_operation_takes_more_than_two_calls_of_others_for_six_of_it(
    mixed: OneKey, others: int, n: int
) -> None:
    """Nobody quiets it by a few calls of another kind in between."""
    pattern = (3,) * (2 * n) + (1, 5)[:others]
    hidden, plain = abuse(copied(mixed), pattern), abuse(copied(mixed), (3,))
    assert most(hidden) > most(plain) - 4.5
    assert any(float(reading.a) == -1.0 for reading in hidden)


@pytest.mark.parametrize("error", [ERROR_403, ERROR_404])
def test_calls_that_do_not_count_do_not_hide_those_that_do(mixed: OneKey, error: int) -> None:
    """Refused and missing calls of anything cost a thief nothing, and are no use of the key."""
    key, start_us = copied(mixed), MONDAY_US + DAYS * DAY_US + 40 * 60 * SECOND_US
    readings = []
    for i in range(120):
        at_us = start_us + i * 28 * SECOND_US
        readings.append(key.feed(call(at_us, 3)))
        for j in range(2):
            key.feed(call(at_us + (j + 1) * 9 * SECOND_US, 7, error))
    assert most(readings) > 10.0
    assert any(float(reading.a) == -1.0 for reading in readings)


def test_a_poller_that_polls_faster_is_judged_by_its_volume_alone_until_it_is_sixteen_times_as_much() -> None:
    key = service((3,))
    readings = abuse(key, (3,), 150, 24.0)
    told = [float(reading.observed) for reading in readings if float(reading.a) == -1.0]
    assert min(told) > 16 * 7.5 > 100, "eight calls are stored as 8 or a little less"
    assert all(float(reading.a) > 0.0 for reading in readings[:100] if float(reading.bits) > 0.0)


def test_what_a_release_learned_of_single_hours_is_no_measure_of_a_whole_day() -> None:
    """Its `same_usual` began anew with each visit: an ordinary key's day would come to ten times as much."""
    layout = [("same_usual" if name == "usual_same" else name, *rest) for name, *rest in DETECTOR.state.descr if name]
    old, new = np.zeros(1, layout), np.zeros(1, DETECTOR.state)
    old["same_usual"], old["same_share"], old["seen"] = 65, 66, 100
    migrate(old, new)
    assert new["same_share"][0] == 66 and new["seen"][0] == 100 and new["usual_same"][0] == 0
    state = record(DETECTOR.state)
    for name in DETECTOR.state.names or ():
        state[name] = new[name][0]
    assert repetition.raw_bits(state, record(VISIT), 400.0) == 0.0


def test_hours_of_one_operation_are_more_evidence_than_the_first_of_them(mixed: OneKey) -> None:
    """A visit ends after an hour, what goes on does not; the second hour is not judged as if the first had not been."""
    readings = abuse(copied(mixed), (3,), 400, 36.0)
    first, later = most(readings[:100]), most(readings[100:])
    assert later > first + 2.0
    assert max(reading.observed for reading in readings if float(reading.a) == -1.0) >= 399


def test_half_an_hour_s_pause_ends_the_count_and_a_shorter_one_does_not(mixed: OneKey) -> None:
    start_us = MONDAY_US + DAYS * DAY_US + 40 * 60 * SECOND_US
    for pause_s, goes_on in ((29 * 60, True), (30 * 60, False)):
        key, at_us = copied(mixed), start_us
        for i in range(240):
            at_us += (pause_s if i == 120 else 40) * SECOND_US
            reading = key.feed(call(at_us, 3))
            if i == 120:
                assert (float(reading.a) == -1.0) == goes_on, "the first call after the pause is judged by it, too"
        assert int(key.state.same) == (240 if goes_on else 120)


def test_a_mix_leaves_nothing_to_the_next_visit(mixed: OneKey) -> None:
    key = copied(mixed)
    abuse(key, MIX, 600, 14.0)
    assert int(key.state.same) < LEAST


def test_a_client_that_tries_again_is_no_use_of_the_key(mixed: OneKey) -> None:
    key = copied(mixed)
    abuse(key, (3,), error=ERROR_5XX)
    assert int(key.state.same) <= 1


def test_fewer_than_thirty_say_nothing(mixed: OneKey) -> None:
    key = copied(mixed)
    for surplus in (1, LEAST - 1):
        assert repetition.same_bits(key.state, key.shared, key.visit, surplus) == 0.0
    assert repetition.same_bits(key.state, key.shared, key.visit, 400) > 10.0


@settings(max_examples=30)
@given(st.integers(30, 2_000))
def test_less_than_four_times_what_is_usual_at_most_says_nothing(mixed: OneKey, surplus: int) -> None:
    """A launch brings three times as much, and a visit that is longest by little comes again and again."""
    key = copied(mixed)
    key.state.usual_same = repetition.stored(100)
    bits = repetition.same_bits(key.state, key.shared, key.visit, surplus)
    assert (bits > 10.0) if surplus > 420 else (bits == 0.0 or surplus >= 370), "usual is stored to a sixteenth"


@pytest.mark.parametrize("days", [3, 6])
def test_a_first_week_says_nothing(days: int) -> None:
    key = service(MIX, days)
    assert repetition.same_bits(key.state, key.shared, key.visit, 400) == 0.0


def few_visits(days: tuple[int, ...], operations: int = 6) -> OneKey:
    """A key that makes so many calls on each of these days, and none on others."""
    key = OneKey(DETECTOR)
    for day in days:
        for i in range(operations):
            key.feed(call(MONDAY_US + day * DAY_US + i * 20 * SECOND_US, MIX[i % len(MIX)]))
    return key


def on_end(key: OneKey, day: int, count: int = 300) -> list[Any]:
    """Readings of one operation over and over, from this day's tenth hour on."""
    start_us = MONDAY_US + day * DAY_US + 10 * HOUR_US
    return [key.feed(call(start_us + i * 15 * SECOND_US, 3)) for i in range(count)]


@pytest.mark.parametrize("days", [(0,), (0, 2), (0, 1, 2, 3)])
def test_a_key_of_few_visits_is_known_by_its_age(days: tuple[int, ...]) -> None:
    """One visit in 18 days says that the key is used rarely; in its first week the same visit says nothing yet."""
    readings = on_end(few_visits(days), 18)
    assert most(readings) > 10.0
    loudest = max((each for each in readings if float(each.a) == -1.0), key=lambda each: float(each.bits))
    assert loudest.high == 8 and loudest.observed > 200
    assert all(float(each.a) != -1.0 for each in on_end(few_visits(days), 6))


def test_what_its_few_visits_had_is_usual_to_it() -> None:
    """An export in the first week: as much once more is no news."""
    key = few_visits((0, 1, 1, 3))
    on_end(key, 4, 60)
    assert not any(float(each.a) == -1.0 for each in on_end(key, 18, 60))


def test_a_load_test_of_few_calls_says_nothing_of_such_a_key() -> None:
    """keybench's came to 78 calls of one operation more than of all others."""
    assert not any(float(each.a) == -1.0 for each in on_end(few_visits((0,)), 18, 100))


def test_a_key_s_first_visit_however_long_after_is_not_judged() -> None:
    assert all(float(each.a) != -1.0 for each in on_end(OneKey(DETECTOR), 18))


def test_a_known_key_whose_state_is_older_than_this_count_is_learned_for_a_week_first() -> None:
    key = service(MIX, 3)
    for name in ("same", "same_mark", "same_most", "usual_same", "same_base", "same_share", "same_bin"):
        key.state[name] = 0
    for hour in range(3 * 24, 20 * 24):
        for i in range(60 if hour == 200 else 8):  # an export in the week that is learned
            key.feed(call(MONDAY_US + hour * HOUR_US + i * 20 * SECOND_US, 3 if hour == 200 else MIX[i % len(MIX)]))
        if hour == 13 * 24:
            assert repetition.same_bits(key.state, key.shared, key.visit, 400) == 0.0
    assert repetition.raw_bits(key.state, key.visit, 60.0) < 1.0
    assert repetition.same_bits(key.state, key.shared, key.visit, 600) > 10.0


@settings(max_examples=50)
@given(routes=st.lists(st.integers(1, 5), min_size=1, max_size=200))
def test_an_operation_of_more_than_half_of_the_calls_leads_with_at_least_what_it_has_more(routes: list[int]) -> None:
    state = record(DETECTOR.state)
    for route in routes:
        repetition.count_same(state, call(MONDAY_US, route))
    for route in set(routes):
        more = 2 * routes.count(route) - len(routes)
        if more > 0:
            assert int(state.same_mark) == repetition.mark_of(route)
            assert int(state.same) >= more
    assert int(state.same) <= len(routes)


@settings(max_examples=8)
@given(days=st.lists(st.integers(1, 120), min_size=1, max_size=60))
def test_no_sequence_of_visits_makes_twice_the_repetition_usual_in_28_days(days: list[int]) -> None:
    key, reached = OneKey(DETECTOR), list[int]()
    for day, count in enumerate([10] * 30 + days):
        for visit in range(2):
            at_us = MONDAY_US + day * DAY_US + visit * 6 * HOUR_US
            for i in range(count):
                key.feed(call(at_us + i * SECOND_US, 3))
        reached.append(max(USUAL_LEAST, int(key.state.usual_same)))
    for day in range(30, len(reached)):
        assert reached[day] - reached[max(30, day - 28)] <= UNIT * 0.6932


def test_under_an_incident_no_repetition_is_learned(mixed: OneKey) -> None:
    key = copied(mixed)
    before = int(key.state.usual_same)
    start_us = MONDAY_US + (DAYS + 1) * DAY_US
    for i in range(200):
        key.feed(call(start_us + i * SECOND_US, 3), weight=0.0)
    key.feed(call(start_us + 6 * HOUR_US, 1))
    assert int(key.state.usual_same) == before
