"""A count at a rail is told: what `detectors.counted` clamps, nobody would see otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.counted import RAIL, log_share, shipped
from detectors.records import records
from detectors.shipped_counts import RETURNS
from pipeline.rails import LOWER, UPPER, railed
from pipeline.state.partition import SHARED

BITS = 20.0
BIN = int(BITS / 2) + 1


def counted(visits: float, runs: float) -> tuple[dict[str, int], float]:
    """Rows at a rail, and how far (log2) what is believed at BITS lies off what ships."""
    shared = np.zeros(1, SHARED)
    shared["calibration"]["visits"][0, 0, 1] = visits
    shared["calibration"]["counts"][0, 0, 1, BIN] = runs
    known = records(shared)[0]["calibration"]
    nodes = RETURNS[0, 1]
    believed = log_share(nodes, known["counts"][0, 1], known["visits"][0, 1], BITS)
    return railed(shared), float(believed - shipped(nodes, BITS))


def test_nothing_counted_and_what_ships_counted_lie_at_no_rail() -> None:
    assert railed(np.zeros(1, SHARED)) == {UPPER: 0, LOWER: 0}
    share = 2.0 ** shipped(RETURNS[0, 1], BITS)
    told, off = counted(100.0, round(100.0 * share))
    assert told == {UPPER: 0, LOWER: 0}
    assert abs(off) < 1.5


def test_the_upper_rail_is_told_exactly_where_it_holds() -> None:
    visits = 10_000.0
    runs, held = 1.0, np.log2(RAIL) - 1e-9
    while runs < visits and counted(visits, runs)[1] < held:
        runs *= 1.1
    assert counted(visits, runs)[0][UPPER] == 1
    below = next(r for r in (runs / 1.1**n for n in range(1, 40)) if not counted(visits, r)[0][UPPER])
    assert counted(visits, below)[1] < held


def test_the_lower_rail_is_told_where_many_visits_never_reach_a_thing() -> None:
    told, off = counted(1e9, 0.0)
    assert off == pytest.approx(-np.log2(RAIL))
    assert told == {UPPER: 0, LOWER: 1}


@pytest.mark.parametrize(
    ("detector", "visits"),
    [("spike", "visits"), ("spike", "same_visits"), ("egress", "visits"), ("egress", "sum_visits")],
)
def test_every_count_of_runs_is_looked_at(detector: str, visits: str) -> None:
    shared = np.zeros(1, SHARED)
    shared[detector][visits] = 1e9
    assert railed(shared)[LOWER] == shared[detector][visits].size
