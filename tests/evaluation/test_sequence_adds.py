"""The order of operations as a detector would see it, and the comparison at one budget for both sides."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.detector import ERROR_403, ERROR_NONE, OPERATION_CREDENTIAL, OPERATION_DELETE, OPERATION_READ
from pipeline.evaluation.run import Opened, Outcome, Placement
from tests.detectors.streams import HOUR_US, MINUTE_US, START_US, Array, blank
from tests.evaluation.sequence_adds import BEGIN, REFUSED, Chain, attackers_of, compare, peers_of, steps_of, visits_of


def visit(*operations: int, start_us: int = 0) -> Array:
    events = blank(len(operations))
    events["operation"], events["route"] = operations, np.arange(len(operations)) + 1
    events["error"] = ERROR_NONE
    events["ts_us"] = START_US + start_us + np.arange(len(operations)) * MINUTE_US
    return events


def test_a_visit_s_steps_are_distinct_and_repeats_of_a_route_are_one() -> None:
    events = visit(OPERATION_READ, OPERATION_READ, OPERATION_READ, OPERATION_DELETE)
    events["route"][1] = events["route"][0]
    events["error"][3] = ERROR_403
    assert steps_of(events).tolist() == [
        [BEGIN, OPERATION_READ], [OPERATION_READ, OPERATION_READ], [OPERATION_READ, REFUSED],
    ]  # fmt: skip


def test_a_pause_and_an_hour_end_a_visit_as_they_do_in_the_pass() -> None:
    events = np.concatenate([visit(*[OPERATION_READ] * 70), visit(OPERATION_READ, start_us=3 * HOUR_US)])
    assert [len(events[each]) for each in visits_of(events)] == [60, 10, 1]


def test_an_order_that_the_key_has_never_had_outweighs_its_habit() -> None:
    life = [np.concatenate([visit(*[OPERATION_READ] * 5, start_us=day * 24 * HOUR_US) for day in range(30)])]
    peers, attackers, chain = peers_of(life), attackers_of([]), Chain()
    usual = steps_of(visit(*[OPERATION_READ] * 5))
    for _ in range(30):
        chain.learn(usual)
    theft = steps_of(visit(OPERATION_READ, OPERATION_CREDENTIAL, OPERATION_DELETE))
    assert chain.score(usual, peers, attackers) == 0.0
    assert chain.score(theft, peers, attackers) > 4.0


def test_both_together_catch_what_either_catches_at_half_the_budget() -> None:
    placed = [Placement("bulk_read", 40.0, 0, 0, 0, 3.0) for _ in range(2)]
    for each, days, score in zip(placed, (1000.0, 0.0), (0.0, 20.0), strict=True):
        each.opened, each.scores = [Opened(0, 0, 0, days, True, "spike", False, 1)], {"sequence": score}
    untouched = [Opened(0, 0, 0, float(n), False, "spike", False, 1) for n in range(1, 101)]
    found = compare(Outcome(key_days=1e5, untouched=untouched, placements=placed), list(range(10)), 1e5, 10.0)
    assert (found["ours"], found["sequence"], found["both"]) == pytest.approx((0.5, 0.5, 1.0))
