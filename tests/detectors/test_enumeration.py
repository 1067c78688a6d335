"""Walking through objects, against polling one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.detectors.one_more import bits_of, found_in, one_more
from tests.detectors.streams import Array, daily_visits

pytestmark = pytest.mark.timeout(900)


def life_of(objects: int) -> Array:
    life = daily_visits(40)
    life["object"] = 1 + np.arange(len(life)) % objects
    return life


def visit_of(life: Array, objects: int, calls: int = 300) -> Array:
    """One visit of `calls` requests for so many objects."""
    visit = np.repeat(one_more(life, calls=1), calls)
    visit["ts_us"] += np.arange(calls) * 1_000_000
    visit["request"] += np.arange(calls, dtype="u8")
    visit["object"] = 10_000 + np.arange(calls) % objects
    return visit


def test_three_hundred_records_where_four_are_usual_is_a_finding() -> None:
    life = life_of(4)
    found = found_in("enumeration", life, visit_of(life, 300))
    assert max(row["bits"] for row in found) > 6
    assert max(row["observed"] for row in found) > 60


def test_polling_one_object_is_none_however_often() -> None:
    life = life_of(4)
    assert bits_of("enumeration", life, visit_of(life, 1)) == 0


def test_a_key_that_walks_through_everything_is_used_to_it() -> None:
    life = daily_visits(40, calls=40)  # an hour of them
    life["object"] = 1 + np.arange(len(life))
    assert bits_of("enumeration", life, visit_of(life, 50)) < 4


def test_a_few_new_objects_are_none() -> None:
    life = life_of(4)
    assert bits_of("enumeration", life, visit_of(life, 15)) == 0
