"""Return periods: monotone, within rails, slow, and said in words."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import calibration
from detectors.calibration import CALIBRATION, return_days, survival, words
from detectors.counted import RAIL, VISITS_KEPT, bin_of, shipped
from detectors.records import records
from detectors.shipped_counts import RETURNS

pytestmark = pytest.mark.timeout(900)  # the first one compiles the pass: 40 s of one free core


def nothing_counted() -> Any:
    return records(np.zeros(1, CALIBRATION))[0]


def prior(rule: int, stratum: int, score: float) -> float:
    return float(2.0 ** min(0.0, shipped(RETURNS[rule, stratum], score)))


@given(rule=st.integers(0, 1), stratum=st.integers(0, 2), low=st.floats(-20, 80), more=st.floats(0, 40))
def test_more_bits_are_never_more_frequent(rule: int, stratum: int, low: float, more: float) -> None:
    known = nothing_counted()
    rare = survival(known, rule, stratum, low + more)
    assert 0 < rare <= survival(known, rule, stratum, low) * (1 + 1e-12) <= 1 + 1e-12


@given(rule=st.integers(0, 1), stratum=st.integers(0, 2), edge=st.integers(0, 31))
def test_nothing_counted_is_what_ships(rule: int, stratum: int, edge: int) -> None:
    score = 2.0 * edge
    assert survival(nothing_counted(), rule, stratum, score) == pytest.approx(prior(rule, stratum, score))


@given(scores=st.lists(st.floats(-5, 90), max_size=60), rule=st.integers(0, 1), score=st.floats(0, 60))
def test_whatever_is_counted_stays_within_the_rails(scores: list[float], rule: int, score: float) -> None:
    known = nothing_counted()
    for value in scores * 20:
        calibration.count(known, rule, 1, value, -1)
    share = survival(known, rule, 1, score)
    assert prior(rule, 1, score) / RAIL * 0.999 <= share <= min(1.0, prior(rule, 1, score) * RAIL * 1.001)


@given(scores=st.lists(st.floats(-5, 90), max_size=60), rule=st.integers(0, 1))
def test_more_bits_are_never_more_frequent_whatever_was_counted(scores: list[float], rule: int) -> None:
    known = nothing_counted()
    for value in scores * 20:
        calibration.count(known, rule, 2, value, -1)
    shares = [survival(known, rule, 2, score / 4) for score in range(280)]
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(shares))


def test_a_loud_partition_becomes_stricter_and_a_quiet_one_keener() -> None:
    loud, quiet = nothing_counted(), nothing_counted()
    for i in range(20_000):
        calibration.count(loud, 0, 0, 19.0 if i % 20 == 0 else -1.0, -1)
        calibration.count(quiet, 0, 0, -1.0, -1)
    base = return_days(nothing_counted(), 0, 15.0, 1.0)
    assert return_days(loud, 0, 15.0, 1.0) < base < return_days(quiet, 0, 15.0, 1.0)


def test_what_busy_keys_reach_says_nothing_of_keys_of_few_visits() -> None:
    known = nothing_counted()
    before = return_days(known, 0, 15.0, 1.0)
    for _ in range(1_000):
        calibration.count(known, 0, 2, 30.0, -1)
    assert return_days(known, 0, 15.0, 1.0) == before
    assert return_days(known, 0, 15.0, 20.0) < return_days(nothing_counted(), 0, 15.0, 20.0)


def test_a_run_counts_once_by_its_largest_score() -> None:
    known = nothing_counted()
    place = -1
    for score in (3.0, 30.0, 12.0, 30.5):
        place = calibration.count(known, 0, 1, score, place)
    assert known["visits"][0][1] == 4
    assert known["counts"][0].sum() == 1
    assert known["counts"][0][1][bin_of(30.0)] == 1


def test_old_visits_fade() -> None:
    known = nothing_counted()
    known["visits"][0][0] = VISITS_KEPT
    known["counts"][0][0][3] = 100
    calibration.count(known, 0, 0, -3.0, -1)
    assert known["counts"][0][0][3] == 50


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
