"""Two wrong routes a second apart are rare in a key that is known for long, however unsure its own law is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.close_errors import LEVELS, MOST_BITS, SUMS, close_bits, count_close, level_with, note_close
from detectors.detector import ERROR_403, ERROR_404, EVENT, VISIT
from detectors.errors import ERRORS, KEEP
from detectors.usual_errors import USUAL_MOST, bits_set, keep_usual
from tests.detectors.one_key import record
from tests.detectors.one_more import INDEX
from tests.detectors.streams import HOUR_US, START_US, Judge, blank, daily_visits

pytestmark = pytest.mark.timeout(900)
SECOND_US = 1_000_000


def told(
    seconds: float, authenticated: int = 1, error: int = ERROR_404, before: int = 0, seen: float = 0.0
) -> float:  # fmt: skip
    """Most evidence of errors in a visit of two wrong routes so far apart.

    `before`: new ones in the last visits; `seen`: visits of peers, all of which came to every level.
    """
    judge = Judge(1, finding_bits=0.25, listed_days=1e12)
    life = daily_visits(150)
    index = 6 * np.arange(1, before + 1)
    life["error"][-index], life["route"][-index] = ERROR_404, 9_000 + index
    judge.feed(life)
    judge.found.clear()
    judge.shared["errors"]["close_visits"][:] += seen
    visit = blank(2)
    visit["ts_us"] = life["ts_us"][-1] + 2 * HOUR_US + np.array([0, round(seconds * SECOND_US)])
    visit["route"], visit["error"], visit["authenticated"] = [4_242, 4_243], error, authenticated
    judge.feed(visit)
    rows = [row for row in judge.found if row["detector"] == INDEX["errors"]]
    return max((float(row["lr_insider"]) for row in rows), default=0.0)


def visit_number(ordinal: int, a_day: float = 20.0) -> Any:
    """A key's visit of that number, of so many a day."""
    visit = record(VISIT)
    visit.ordinal, visit.start_us = ordinal, START_US
    visit.first_seen_us = START_US - int(ordinal / a_day * 24) * HOUR_US
    return visit


def level_of(gaps_s: list[float], wrong: list[bool]) -> int:
    """The level of a visit of such requests."""
    return level_at(np.cumsum(gaps_s).tolist(), wrong)


def level_at(seconds: list[float], wrong: list[bool]) -> int:
    """The same of requests at these seconds, in the order in which they come."""
    state, visit, event = record(ERRORS.state), visit_number(100), record(EVENT)
    for at, each in zip(seconds, wrong, strict=True):
        event.ts_us = START_US + round(at * SECOND_US)
        note_close(state, visit, event, each)
        visit.last_us = max(int(visit.last_us), int(event.ts_us))
    return int(state.close) // SUMS


def test_routes_that_miss_a_second_apart_say_more_than_those_a_minute_apart() -> None:
    assert told(1.0) > told(60.0) + 1.0
    assert told(60.0) == told(600.0)


def test_it_counts_who_held_the_key_and_what_a_probe_meets() -> None:
    assert told(1.0, error=ERROR_403) > told(60.0, error=ERROR_403)
    assert told(1.0, authenticated=0) == 0.0


def test_a_key_that_was_wrong_lately_has_them_more_often() -> None:
    assert told(1.0, before=3) < told(1.0) - 2.0


@pytest.mark.parametrize(
    ("gaps_s", "level"),
    [([0, 4], 1), ([0, 6], 0), ([0, 1, 1], 2), ([0, 4, 4], 1), ([0, 1, 1, 1], 3), ([0, 2.5, 2.5, 2.5], 2), ([0], 0)],
)
def test_how_many_come_together_goes_by_the_seconds_between(gaps_s: list[float], level: int) -> None:
    assert level_of(gaps_s, [True] * len(gaps_s)) == level


@given(
    first=st.integers(0, 60_000), second=st.integers(0, 60_000), right=st.lists(st.integers(0, 60_000), max_size=3),
)  # fmt: skip
def test_two_wrong_routes_are_as_close_in_whatever_order_they_come(first: int, second: int, right: list[int]) -> None:
    """Gateways' nodes send their logs by turns, so the same two come in either order (ms of one minute)."""
    level = level_at([first / 1e3, second / 1e3], [True, True])
    assert level == level_at([second / 1e3, first / 1e3], [True, True])
    assert level == (1 if abs(first - second) <= 5_000 else 0)
    late = [max(first, second), *(each for each in right if each <= max(first, second)), min(first, second)]
    assert level_at([each / 1e3 for each in late], [True, *[False] * (len(late) - 2), True]) == level


def test_right_routes_alone_are_no_level_and_many_between_take_from_it() -> None:
    assert level_of([0, 1, 1], [False] * 3) == 0
    assert level_of([0, *[0.1] * 3, 0.1], [True, False, False, False, True]) == 1
    assert level_of([0, *[0.1] * 20, 0.1], [True, *[False] * 20, True]) == 0


@given(
    level=st.integers(0, LEVELS - 1), ordinal=st.integers(0, 50_000), lately=st.floats(0, 100), due=st.floats(0, 1e4),
    seen=st.integers(0, 1_000), a_day=st.sampled_from([0.5, 20.0]),
)  # fmt: skip
def test_it_is_bounded_and_less_of_younger_keys_and_of_those_that_were_wrong(
    level: int, ordinal: int, lately: float, due: float, seen: int, a_day: float
) -> None:
    shared = record(ERRORS.shared)
    shared.close_visits[:, 0] = due
    shared.close_visits[:, 1:] = seen
    visit = visit_number(ordinal, a_day)
    bits = close_bits(shared, visit, level, lately)
    assert 0.0 <= bits <= MOST_BITS
    assert close_bits(shared, visit, level, lately + 1.0) <= bits
    assert close_bits(shared, visit, 0, lately) == 0.0


def test_where_all_keys_do_so_it_says_nothing() -> None:
    shared, state = record(ERRORS.shared), record(ERRORS.state)
    state.close = 3 * SUMS
    first = close_bits(shared, visit_number(300), 3, 0.0)
    for ordinal in range(5, 1_000):
        count_close(state, shared, visit_number(ordinal), 0.0)
    assert first > 15.0 and close_bits(shared, visit_number(300), 3, 0.0) < 4.0


def test_one_key_that_does_so_again_and_again_makes_it_usual_for_no_other() -> None:
    """A crawler of what is gone, or somebody who has a key of his own: 1,000 visits of it in a partition's 4,000."""
    shared, state, quiet = record(ERRORS.shared), record(ERRORS.state), record(ERRORS.state)
    state.close = 3 * SUMS
    first, lately = close_bits(shared, visit_number(300), 3, 0.0), 0.0
    for ordinal in range(100, 1_100):
        count_close(state, shared, visit_number(ordinal), lately)
        lately = lately * KEEP + 4.0
        for _ in range(3):
            count_close(quiet, shared, visit_number(10), 0.0)
    assert first > 17.0 and close_bits(shared, visit_number(300), 3, 0.0) > first - 5.0


def test_who_steers_the_count_of_his_peers_leaves_what_the_key_s_own_law_says() -> None:
    """Many keys of his own, known for a week, whose visits are all scans: then a scan is as it was before the count."""
    steered = told(1.0, seen=10_000.0)
    assert steered == told(60.0) > 4.0


def test_a_key_that_is_known_for_longer_is_more_surprising_and_a_young_one_not_at_all() -> None:
    shared = record(ERRORS.shared)
    bits = [close_bits(shared, visit_number(ordinal), 1, 0.0) for ordinal in (0, 4, 10, 100, 1_000)]
    assert bits[:2] == [0.0, 0.0] and 8.0 < bits[2] < bits[3] - 3.0 < bits[4] - 6.0


def test_what_is_counted_is_halved_and_keeps_its_shares() -> None:
    shared, state = record(ERRORS.shared), record(ERRORS.state)
    shared.close_visits[1] = [10_000.0, 40.0, 20.0, 10.0]
    count_close(state, shared, visit_number(1_000), 0.0)
    assert shared.close_visits[1].tolist() == pytest.approx([5_000.0, 20.0, 10.0, 5.0], rel=1e-3)


def test_a_level_holds_for_the_visit() -> None:
    state = record(ERRORS.state)
    state.close = 2 * SUMS + 5
    assert level_with(state, 0) == 2 and level_with(state, 63) == 3


def test_a_filter_of_usual_errors_that_is_half_full_begins_anew() -> None:
    state = record(ERRORS.state)
    state.usual[: USUAL_MOST // 8] = 255
    keep_usual(state, 1.0)
    assert bits_set(state.usual) == USUAL_MOST
    state.wrong_now[-1] = 1
    keep_usual(state, 1.0)
    assert bits_set(state.usual) == 0 and bits_set(state.wrong_now) == 0


def test_a_filter_that_another_release_left_full_does_not_stay_so() -> None:
    """A release that counted its bits apart (`usual_set`) may leave all of them set: nothing new would ever come."""
    state = record(ERRORS.state)
    state.usual[:] = 255
    keep_usual(state, 0.0)
    assert bits_set(state.usual) == 0
