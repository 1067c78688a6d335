"""Bytes out, at once and day by day."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.detector import SEES_BYTES
from detectors.egress import DAYS, VISIT, slow_bits
from tests.detectors.one_more import bits_of, found_in, one_more
from tests.detectors.streams import Array, daily_visits

pytestmark = pytest.mark.timeout(900)


def life_of(days: int = 60, call_bytes: int = 20_000) -> Array:
    life = daily_visits(days)
    rng = np.random.default_rng(1)
    life["bytes_out"] = (call_bytes * rng.lognormal(0.0, 0.5, len(life))).astype(np.int64)
    return life


def test_an_export_of_a_hundred_times_the_usual_is_a_finding() -> None:
    life = life_of()
    found = found_in("egress", life, one_more(life, bytes_out=10_000_000))
    assert found and max(row["bits"] for row in found) > 6
    assert {row["a"] for row in found} == {VISIT}


def test_a_large_answer_below_the_floor_or_a_little_more_is_none() -> None:
    life = life_of()
    assert bits_of("egress", life, one_more(life, bytes_out=200_000)) == 0
    assert bits_of("egress", life, one_more(life)) == 0


def test_days_that_stay_above_the_usual_are_found_slowly() -> None:
    life = life_of(120)
    after = life["ts_us"] > life["ts_us"][0] + 60 * 86_400_000_000
    life["bytes_out"][after] *= 3
    found = found_in("egress", life, one_more(life))
    assert found and found[-1]["a"] == DAYS
    assert bits_of("egress", life_of(120), one_more(life_of(120))) == 0, "nothing changed there"


def test_the_sums_bits_are_its_run_length() -> None:
    assert slow_bits(0.0) == 0
    assert slow_bits(13.0) == pytest.approx(np.log2(10_000), abs=0.7)


def test_a_format_without_sizes_is_not_covered() -> None:
    life = life_of()
    assert bits_of("egress", life, one_more(life, bytes_out=10**8, sees=127 & ~SEES_BYTES)) == 0
