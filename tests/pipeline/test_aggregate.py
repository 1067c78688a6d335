"""Windows against a plain dictionary; distinct counts within what linear counting promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline.aggregate import MOST_SOURCES, distinct
from schemas.event import Event
from schemas.rows import TABLES
from tests.pipeline.log_of_requests import START_US, Outcome, core, log, record, slices


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


def asked(number: int, path: str, address: str, outcome: str = "success") -> Event:
    return Event(
        key_id="pk_0", ts_us=START_US + number * 1_000, path=path, client_ip=address, outcome=outcome, status=200,
        request_id=f"{number}{outcome}",
    )  # fmt: skip


def sources_of(events: list[Event], every: int) -> tuple[list[tuple[str, ...]], int]:
    """Rows of `key_source_1h`, and how many the state has."""
    judge, got = core(), Outcome()
    for part in slices([record(event) for event in events], range(0, len(events), every)):
        got.take(judge.process(part))
    got.finish(judge.due_rows())
    return list(got.rows["key_source_1h"].values()), int((judge.state.sources.rows["live"] == 1).sum())


def word(number: int) -> str:
    """No two are alike, and none looks like an id."""
    return "".join("bdgklmnprst"[number // 11**k % 11] + "aeiou"[number % (3 + k) % 5] for k in range(5))


@pytest.mark.parametrize("every", [97, 1_000_000])
def test_a_thief_who_walks_paths_without_end_makes_no_more_rows_than_some(every: int) -> None:
    n = 3 * MOST_SOURCES
    walk = [asked(i, f"/v1/{word(i)}/{word(i * 7)}", "8.8.8.8") for i in range(n)]
    rows, live = sources_of(walk, every)
    assert len(rows) == live == MOST_SOURCES + 1
    other = [row for row in rows if row[6] == ""]
    assert [(row[2], row[5], int(row[10])) for row in other] == [("8.8.8.0/24", "", n - MOST_SOURCES)]


def test_networks_without_end_make_no_more_rows_and_those_of_strangers_take_none_from_the_holder() -> None:
    n = 3 * MOST_SOURCES
    strange = [asked(i, "/v1/a", f"2a00:{i:x}::1", "invalid") for i in range(n)]
    own = [asked(n + i, f"/v1/{word(i)}", "8.8.8.8") for i in range(500)]
    rows, live = sources_of([*strange, *own], 1_000)
    assert len({row[6] for row in rows if row[7] == "success"}) == 500
    refused = [row for row in rows if row[7] == "invalid"]
    assert len(refused) == live - 500 == 2 * MOST_SOURCES + 1
    assert [int(row[10]) for row in refused if row[2] == ""] == [n - 2 * MOST_SOURCES]
