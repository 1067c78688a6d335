"""Misses are grouped by why, and the table adds up."""

from __future__ import annotations

import pytest

from tests.evaluation import misses
from tests.evaluation.misses import CAUSES, Told
from tests.real_data import real

pytestmark = pytest.mark.timeout(600)


def told(
    *, caught: bool = False, visits: int = 50, reach: bool = True, short: float = 1.0,
    bits: float = 40.0,
) -> Told:  # fmt: skip
    return Told("bulk_read", caught, 1, visits, 3, reach, short, "spike +3.0", "spike", 12.0, bits=bits)


@pytest.mark.parametrize(
    ("miss", "cause"),
    [
        (told(visits=0), 0),
        (told(reach=False), 1),
        (told(visits=3), 2),
        (told(short=1.9), 3),
        (told(short=2.0), 4),
        (told(short=9.0), 5),
    ],
)
def test_a_miss_has_one_cause(miss: Told, cause: int) -> None:
    assert miss.cause == CAUSES[cause]


def test_the_table_counts_each_miss_once() -> None:
    each = [told(caught=True), told(short=1.0), told(short=3.0), told(short=3.0, bits=39.0)]
    last = misses.table(["bulk_read"], each).splitlines()[-1]
    assert last == "| bulk read | 3 of 4 | 2 of 3 | 0 | 0 | 0 | 1 | 2 | 0 | spike 3 |"


def test_missed_placements_say_how_far_they_fell_short_whichever_others_are_asked_for() -> None:
    real("weblog-elastic-apache")
    both = misses.placements(31, 12, 4, ("off_hours_own", "leaked_abroad"))
    assert {each.scenario for each in both} == {"off_hours_own", "leaked_abroad"}
    missed = [each for each in both if not each.caught]
    assert missed
    assert all(each.short > 0 for each in missed)
    assert {each.reached for each in both} == {True, False}
    assert all(each.in_reach for each in both if each.reached)
    for each in both:  # what is printed by part is what the placement was cut by
        assert sum(each.oracle.values()) == pytest.approx(each.bits)
    assert sorted(map(repr, misses.placements(31, 12, 4, ("off_hours_own",)))) == sorted(
        repr(each) for each in both if each.scenario == "off_hours_own"
    )
