"""Return periods: monotone, within rails, slow, and said in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import calibration
from detectors.calibration import CALIBRATION, RAIL, return_days, shipped, survival, words
from detectors.records import records

pytestmark = pytest.mark.timeout(900)  # the first one compiles the pass: 40 s of one free core


def nothing_counted() -> Any:
    return records(np.zeros(1, CALIBRATION))[0]


@settings(deadline=None)
@given(rule=st.integers(0, 1), low=st.floats(-20, 80), more=st.floats(0, 40))
def test_more_bits_are_never_more_frequent(rule: int, low: float, more: float) -> None:
    known = nothing_counted()
    assert 0 < survival(known, rule, low + more) <= survival(known, rule, low) <= 1


@settings(deadline=None)
@given(rule=st.integers(0, 1), score=st.floats(0, 60))
def test_nothing_counted_is_what_ships(rule: int, score: float) -> None:
    assert survival(nothing_counted(), rule, score) == pytest.approx(shipped(rule, score))


@settings(deadline=None)
@given(scores=st.lists(st.floats(-5, 90), max_size=60), rule=st.integers(0, 1), score=st.floats(0, 60))
def test_whatever_is_counted_stays_within_the_rails(scores: list[float], rule: int, score: float) -> None:
    known = nothing_counted()
    for value in scores * 20:
        calibration.count(known, rule, value, True)
    prior = shipped(rule, score)
    assert prior / RAIL * 0.999 <= survival(known, rule, score) <= min(1.0, prior * RAIL * 1.001)


def test_a_loud_partition_becomes_stricter_and_a_quiet_one_keener() -> None:
    loud, quiet = nothing_counted(), nothing_counted()
    for i in range(20_000):
        calibration.count(loud, 0, 9.0 if i % 20 == 0 else -1.0, True)
        calibration.count(quiet, 0, -1.0, True)
    base = return_days(nothing_counted(), 0, 15.0, 1.0)
    assert return_days(loud, 0, 15.0, 1.0) < base < return_days(quiet, 0, 15.0, 1.0)


def test_a_visit_that_may_not_count_as_exceedance_counts_as_visit() -> None:
    known = nothing_counted()
    assert not calibration.count(known, 0, 30.0, False)
    assert calibration.count(known, 0, 30.0, True)
    assert known["visits"][0] == 2
    assert known["counts"][0].sum() == 1


def test_old_visits_fade() -> None:
    known = nothing_counted()
    known["visits"][0] = calibration.VISITS_KEPT
    known["counts"][0][3] = 100
    calibration.count(known, 0, -3.0, True)
    assert known["counts"][0][3] == 50


@pytest.mark.parametrize(
    "days,text",
    [
        (1, "nothing unusual"),
        (45, "rarer than once in about 45 key-days"),
        (328_000, "rarer than once in about 900 key-years"),
        (4.56e7, "rarer than once in about 120,000 key-years"),
    ],
)
def test_words_round_to_two_digits(days: float, text: str) -> None:
    assert words(days) == text
