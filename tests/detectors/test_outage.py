"""The table by which the API's own failures are known: who counts as the others, and which route is watched."""

from __future__ import annotations

from typing import Any

import pytest

from detectors.outage import CELLS, OTHERS_MIN, TABLE, WINDOW_US, median_of_others, see
from tests.detectors.one_key import MONDAY_US, record

ROUTE = 7


def failing(others: int) -> Any:
    """A table in which so many keys (slots 1 and up) get nothing but failures on the route."""
    table = record(TABLE)
    for slot in range(1, others + 1):
        for second in range(4):
            see(table, ROUTE, slot, MONDAY_US + second * 1_000_000, True)
    return table


@pytest.mark.parametrize(("others", "slot", "share"), [
    (OTHERS_MIN - 1, 0, 0.0), (OTHERS_MIN, 0, 1.0), (OTHERS_MIN, 1, 0.0),
])  # fmt: skip
def test_below_three_other_keys_it_abstains_and_the_key_itself_is_none_of_them(
    others: int, slot: int, share: float
) -> None:
    assert median_of_others(failing(others), ROUTE, slot, MONDAY_US) == share


def test_a_route_that_is_in_use_keeps_its_cell_and_an_idle_one_gives_way() -> None:
    table = failing(OTHERS_MIN)
    see(table, ROUTE + CELLS, 9, MONDAY_US + 5_000_000, False)
    assert median_of_others(table, ROUTE, 0, MONDAY_US) == 1.0
    see(table, ROUTE + CELLS, 9, MONDAY_US + 2 * WINDOW_US, False)
    assert median_of_others(table, ROUTE, 0, MONDAY_US) == 0.0
