"""Counted shares, and what windows reach in visits."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.counted import BINS, RAIL, bin_of, log_share, shipped
from detectors.shipped_counts import EGRESS, PEAKS, REPETITION, RETURNS
from detectors.spike import SHARED, STATE
from detectors.surprise import evidence_of
from detectors.window_peaks import SPARSE, count_visit, counted_bits, note_peak
from tests.detectors.one_key import DAY_US, record

NODES = RETURNS[0, 0]


@pytest.mark.parametrize("rows", [PEAKS, RETURNS, EGRESS, REPETITION])
def test_what_ships_falls_with_the_bits_and_is_a_share(rows: np.ndarray) -> None:
    assert (np.diff(rows, axis=-1) <= 0).all()
    assert (rows <= 0).all()


def test_every_score_has_a_bin_and_the_ends_are_open() -> None:
    assert [bin_of(bits) for bits in (-50.0, -0.01, 0.0, 1.99, 2.0, 61.9, 62.0, 900.0)] == [0, 0, 1, 1, 2, 31, 32, 32]


def test_what_is_counted_replaces_what_ships() -> None:
    counts = np.zeros(BINS)
    counts[bin_of(8.0)] = 2_000.0
    share = log_share(NODES, counts, 100_000.0, 8.0)
    assert share == pytest.approx(np.log2(0.02), abs=0.1)
    assert log_share(NODES, counts, 100_000.0, 20.0) < shipped(NODES, 20.0), "what never came is rarer than shipped"


def test_no_count_leaves_the_rails() -> None:
    counts = np.full(BINS, 1e6)
    assert log_share(NODES, counts, 1e6, 30.0) == pytest.approx(shipped(NODES, 30.0) + np.log2(RAIL))
    assert log_share(NODES, np.zeros(BINS), 1e12, 30.0) == pytest.approx(shipped(NODES, 30.0) - np.log2(RAIL))


def test_a_window_that_keys_often_reach_says_little_and_a_key_that_rings_for_a_week_counts_once() -> None:
    state, shared, visit = record(STATE), record(SHARED), record(np.dtype([(n, "i8") for n in VISIT_FIELDS]))
    visit.start_us, visit.last_us, visit.first_seen_us, visit.ordinal = 40 * DAY_US, 40 * DAY_US, DAY_US, 40
    visit.teaches = 1
    before = counted_bits(state, shared, visit, 3, 40.0)
    for number in range(2_000):
        if number % 4 == 0:
            note_peak(state, 1, 45.0)
        count_visit(state, shared, visit, 1.0, 8.0)
    assert shared.visits[3, SPARSE] == 2_000
    assert shared.peaks[3, SPARSE].sum() == 1, "one key, one week"
    assert counted_bits(state, shared, visit, 3, 40.0) > before - 1.0
    for number in range(2_000):
        visit.start_us += 8 * DAY_US if number % 4 == 0 else 0
        if number % 4 == 0:
            note_peak(state, 1, 45.0)
        count_visit(state, shared, visit, 1.0, 8.0)
    assert shared.peaks[3, SPARSE].sum() == 501
    assert counted_bits(state, shared, visit, 3, 40.0) < before - 3.0, "as far as the rails let it"
    note_peak(state, 1, 31.0)
    count_visit(state, shared, visit, 0.0, 8.0)
    assert shared.visits[3, SPARSE] == 4_000, "what is not to be learned is not counted"
    assert not state.peak.any()


VISIT_FIELDS = ("start_us", "last_us", "first_seen_us", "ordinal", "events", "teaches")


def test_evidence_is_a_ratio_of_densities() -> None:
    bits = np.linspace(0, 30, 30_001)
    ratio = 2.0 ** (bits - 4.378126)
    assert np.trapezoid(ratio * np.log(2) * 2.0**-bits, bits) == pytest.approx(1.0, abs=1e-3)
    assert evidence_of(20.0) == pytest.approx(15.621874)
    assert evidence_of(0.0) == -1.0
