"""The comparison with River is made at one budget for both sides."""

from __future__ import annotations

import pytest

from pipeline.evaluation.run import Opened, Outcome, Placement
from tests.evaluation.river_adds import compare, ours, quiet_enough


def opened(days: float, planted: bool = True) -> Opened:
    return Opened(0, 0, 0, days, planted, "spike", False, 1)


def placed(scenario: str, days: float, score: float) -> Placement:
    placement = Placement(scenario, 40.0, 0, 0, 0, 3.0)
    placement.opened, placement.scores = [opened(days)], {"half_space": score}
    return placement


def outcome(*placements: Placement) -> Outcome:
    untouched = [opened(float(n), planted=False) for n in range(1, 101)]
    scores = [n / 1000 for n in range(1000)]
    return Outcome(key_days=1e5, untouched=untouched, placements=list(placements), baselines={"half_space": scores})


def test_the_detectors_threshold_lets_the_budget_through_and_no_more() -> None:
    found = outcome()
    limit = quiet_enough(found, 10.0)
    assert sum(each.return_days > limit for each in found.untouched) == 10
    assert ours(placed("bulk_read", limit, 0.0), limit) == 0.0
    assert ours(placed("bulk_read", limit + 1, 0.0), limit) == 1.0


def test_both_together_catch_what_either_catches_at_half_the_budget() -> None:
    seen, unseen = placed("bulk_read", 1000.0, 0.0), placed("bulk_read", 0.0, 2.0)
    assert compare(outcome(seen, unseen), 10.0) == pytest.approx({"ours": 0.5, "forest": 0.5, "both": 1.0})
