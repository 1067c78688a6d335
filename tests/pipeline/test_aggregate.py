"""Windows against a plain dictionary; distinct counts within what linear counting promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline.aggregate import distinct
from schemas.rows import TABLES
from tests.pipeline.log_of_requests import Outcome, core, log, slices


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    records, judge, got = log(4, events=3000), core(), Outcome()
    for part in slices(records, range(0, len(records), 333)):
        got.take(judge.process(part))
    got.finish(judge.due_rows())
    return got


@pytest.mark.parametrize(("table", "period_s"), [("requests_1m", 60), ("requests_1h", 3600)])
def test_every_window_holds_what_the_raw_rows_say(outcome: Outcome, table: str, period_s: int) -> None:
    raw = list(outcome.rows["requests"].values())
    wanted = Counter((row[0], int(row[1]) // 1_000_000 // period_s * period_s) for row in raw)
    got: Counter[tuple[str, int]] = Counter()
    for row in outcome.rows[table].values():
        got[row[0], int(row[1])] += int(row[4])
    assert got == wanted


def test_sources_split_by_address_route_client_and_outcome(outcome: Outcome) -> None:
    raw = list(outcome.rows["requests"].values())
    wanted = Counter((row[0], row[9], row[11], row[4], row[7]) for row in raw)
    got: Counter[tuple[str, str, str, str, str]] = Counter()
    for row in outcome.rows["key_source_1h"].values():
        got[row[0], row[4], row[5], row[6], row[7]] += int(row[10])
    assert got == wanted


def test_bytes_and_errors_add_up(outcome: Outcome) -> None:
    raw = list(outcome.rows["requests"].values())
    hours = list(outcome.rows["requests_1h"].values())
    answered = [name for name, _ in TABLES["requests"]].index("bytes_out")
    assert sum(int(row[12]) for row in hours) == sum(int(row[answered]) for row in raw)
    assert sum(int(row[6]) for row in hours) == sum(row[6] == "403" for row in raw)
    assert sum(int(row[7]) for row in hours) == sum(row[6] == "404" for row in raw)


@pytest.mark.parametrize("n", [0, 1, 5, 50, 200])
def test_linear_counting_is_near(n: int) -> None:
    rng = np.random.default_rng(n)
    bits = np.zeros((1, 4), np.uint64)
    for value in rng.integers(0, 256, n).tolist():
        bits[0, value >> 6] |= np.uint64(1) << np.uint64(value & 63)
    assert abs(int(distinct(bits)[0]) - n) <= max(1, 0.2 * n)
