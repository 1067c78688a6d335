"""A silence is odd only for a key that is never silent."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.detector import ERROR_401
from detectors.dormant import DORMANT
from tests.detectors.one_key import MONDAY_US, OneKey, event_at
from tests.detectors.one_more import bits_of, found_in, one_more
from tests.detectors.streams import DAY_US, HOUR_US, Judge, daily_visits

pytestmark = pytest.mark.timeout(900)


def test_a_daily_key_that_wakes_after_two_months_is_a_finding_that_says_how_long() -> None:
    life = daily_visits(40)
    found = found_in("dormant", life, one_more(life, later_us=60 * DAY_US))
    assert found and found[0]["bits"] > 6
    assert found[0]["observed"] == pytest.approx(60, abs=0.2)
    assert found[0]["high"] < 5


def test_every_event_of_the_visit_says_the_same_so_that_it_adds_up_with_what_comes_later() -> None:
    life = daily_visits(40)
    visit = one_more(life, calls=6, later_us=60 * DAY_US)
    visit["client"][3:] = 99  # another finding, at which all readings are told
    rows = found_in("dormant", life, visit)
    assert len({row["bits"] for row in rows}) == 1


def test_a_weekend_and_a_week_off_are_nothing() -> None:
    life = daily_visits(40)
    assert bits_of("dormant", life, one_more(life, later_us=6 * DAY_US)) == 0


def test_a_monthly_key_comes_every_month() -> None:
    life = daily_visits(12, per_day=1)
    life["ts_us"] += np.arange(len(life)) // 6 * 29 * DAY_US
    assert bits_of("dormant", life, one_more(life, later_us=31 * DAY_US)) < 3


def test_four_visits_are_too_few_to_know() -> None:
    life = daily_visits(1, per_day=4)
    assert bits_of("dormant", life, one_more(life, later_us=60 * DAY_US)) == 0


def test_a_refused_request_in_the_keys_name_does_not_end_the_silence() -> None:
    """Who found an old key could send one with a wrong secret first, and wake it unseen an hour later."""
    life = daily_visits(40)
    visit = one_more(life, later_us=60 * DAY_US)
    tries = [one_more(life, 1, hours * HOUR_US, authenticated=0, error=ERROR_401) for hours in (480, 960, 1438)]
    found = found_in("dormant", np.concatenate([life, *tries]), visit)
    assert found and found[0]["bits"] == found_in("dormant", life, visit)[0]["bits"]
    assert found[0]["observed"] == pytest.approx(60, abs=0.2)


def test_nor_do_many_in_every_second_for_hours() -> None:
    """Visits end by the hour, too: at one in the second of the last of the one before, no time has passed."""
    life = daily_visits(40)
    noise = one_more(np.repeat(life[-1:], 3 * 7200), 3 * 7200, 59 * DAY_US, authenticated=0, error=ERROR_401)
    noise["ts_us"] += np.arange(3 * 7200) // 2 * 1_000_000
    assert bits_of("dormant", np.concatenate([life, noise]), one_more(life, later_us=60 * DAY_US)) > 6


def test_refused_requests_make_no_key_one_of_many_visits() -> None:
    """What is rare is counted in key-days: 46 visits a day by who has no more than its id took 4 bits and more."""
    life, judge = daily_visits(20), Judge(1)
    tries = np.concatenate([one_more(life, 1, n * HOUR_US, authenticated=0, error=ERROR_401) for n in range(1, 100)])
    judge.feed(life)
    before = int(judge.keys["visit"]["ordinal"][0])
    judge.feed(tries)
    judge.feed(one_more(life, later_us=5 * DAY_US))
    assert int(judge.keys["visit"]["ordinal"][0]) == before + 1


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_silence_that_ended_under_an_open_incident_is_not_learned(weight: float) -> None:
    key = OneKey(DORMANT)
    for day in range(10):
        key.feed(event_at(MONDAY_US + day * DAY_US))
    key.feed(event_at(MONDAY_US + 70 * DAY_US), weight)
    before = key.state.gaps.tobytes()
    key.turn_visit(MONDAY_US + 71 * DAY_US, weight)
    assert (key.state.gaps.tobytes() == before) == (weight == 0.0)
