"""Larger answers than a key's routes give: at once, little by little, and what only looks like it.

The real log is Elastic's Apache sample: its addresses are the keys. The incident is the kind of Optus (2022) and Trello
(2024): one caller takes whole records, in lists, where others of the API ask for single ones.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import route_sizes
from detectors.detector import ERROR_5XX, SEES_BYTES
from detectors.egress import (
    DETECTOR,
    DRIFT,
    SHARED,
    STATE,
    STEP_MOST,
    SUM_UNIT,
    explain,
    rarities,
    size_words,
    sum_bits,
)
from detectors.records import records
from detectors.surprise import LN2
from pipeline.evaluation.sources import LINE
from pipeline.routes import template
from pipeline.state.pages import migrate
from tests.detectors.one_key import DAY_US, HOUR_US, MINUTE_US, MONDAY_US, OneKey, event_at, first, record
from tests.detectors.streams import CONTEXT
from tests.real_data import real

ALARM_BITS = 12.0
PAGE = 40_000
STEP_BITS = (STEP_MOST - DRIFT) / LN2
ROUTES = (11, 12, 13)


def answer(at_us: int, size: int, route: int = 11, key: int = 0, error: int = 0) -> Any:
    """An answered request of that many bytes."""
    event = event_at(at_us)
    event.sees |= SEES_BYTES
    event.bytes_out, event.route, event.slot, event.error = size, route, key, error
    return event


def sizes_of(visit: int, calls: int, seed: int, times: float = 1.0) -> np.ndarray:
    """A page is 40 kB, give or take 30 %."""
    rng = np.random.default_rng([seed, visit])
    return (times * PAGE * rng.lognormal(0.0, 0.3, calls)).astype(int)


def visit_of(key: OneKey, at_us: int, sizes: np.ndarray, number: int = 0) -> list[Any]:
    """The readings of one visit, a request every 20 s."""
    return [
        key.feed(answer(at_us + i * 20_000_000, int(size), ROUTES[i % len(ROUTES)], number))
        for i, size in enumerate(sizes)
    ]


def fleet(keys: int = 6, days: int = 20) -> list[OneKey]:
    """Keys that share their routes, three visits a day of eight pages each."""
    shared = record(DETECTOR.shared)
    every = [OneKey(DETECTOR, shared) for _ in range(keys)]
    for visit in range(days * 3):
        for number, key in enumerate(every):
            visit_of(key, MONDAY_US + visit * 8 * HOUR_US + number * MINUTE_US, sizes_of(visit, 8, number), number)
    return every


def most(readings: list[Any]) -> float:
    """The largest bits."""
    return max(float(reading.bits) for reading in readings)


def test_whole_lists_instead_of_pages_are_found_within_five_requests_and_said_in_bytes() -> None:
    key = fleet()[0]
    readings = visit_of(key, MONDAY_US + 21 * DAY_US, sizes_of(0, 8, 99, times=50.0))
    assert most(readings[:5]) > ALARM_BITS
    assert max(float(r.lr_insider) for r in readings) > 8.0
    words = explain(readings[-1], CONTEXT)
    assert "MB in a visit where" in words and "an answer where" in words
    assert readings[-1].observed == pytest.approx(sizes_of(0, 8, 99, times=50.0).sum(), rel=0.01)


def test_many_more_answers_of_the_usual_size_are_no_matter_of_bytes() -> None:
    key = fleet()[0]
    assert most(visit_of(key, MONDAY_US + 21 * DAY_US, sizes_of(0, 150, 99))) < 6.0


def test_half_as_much_again_in_every_visit_adds_up_within_days() -> None:
    key = fleet()[0]
    by_visit = [
        most(visit_of(key, MONDAY_US + 21 * DAY_US + v * 8 * HOUR_US, sizes_of(v, 3, 99, times=1.5))) for v in range(18)
    ]
    assert by_visit[0] < ALARM_BITS < max(by_visit)


def test_single_larger_answers_among_the_owners_carry_an_incident_within_days_where_no_visit_does() -> None:
    """As in keybench's slow exfiltration: four times as large, one or two in a visit of the owner's five."""
    key = fleet()[0]
    worth = []
    for visit in range(12):
        sizes = sizes_of(visit, 5, 99)
        sizes[1:3] *= 4
        readings = visit_of(key, MONDAY_US + 21 * DAY_US + visit * 4 * HOUR_US, sizes)
        worth.append(max(float(reading.lr_insider) for reading in readings))
        words = [explain(reading, CONTEXT) for reading in readings]
    assert worth[0] < 12.0, "no visit by itself"
    assert words[-1].startswith("visit after visit larger answers") and "in this one where" in words[2]
    readings[-1].bits = 4.0
    assert explain(readings[-1], CONTEXT).startswith("of late somewhat larger answers"), "no finding by itself"
    assert max(worth) > 17.5, "what an incident takes of the busiest keys, nothing else being odd"


def test_a_visit_of_larger_answers_each_week_is_forgotten_in_between() -> None:
    """Near miss: an owner's weekly export adds nothing to the last week's."""
    key = fleet()[0]
    weekly = []
    for visit in range(12 * 7 * 3):
        times = 4.0 if visit % 21 == 0 else 1.0
        most(visit_of(key, MONDAY_US + 21 * DAY_US + visit * 8 * HOUR_US, sizes_of(visit, 5, 99, times)))
        if visit % 21 == 1:
            weekly.append(sum_bits(key.state))
    assert max(weekly) <= STEP_BITS


@pytest.mark.parametrize("scatter", [0.3, 1.0, 1.5])
def test_answers_that_vary_by_themselves_ring_hardly_more_often_than_is_said(scatter: float) -> None:
    """Records of a real API are log-normal, not static files: what ships is counted over such, and may only lower."""
    shared, rng = record(DETECTOR.shared), np.random.default_rng(7)
    every, loud, visits = [OneKey(DETECTOR, shared) for _ in range(8)], 0, 0
    for visit in range(260):
        for number, key in enumerate(every):
            sizes = (PAGE * rng.lognormal(0.0, scatter * (0.5 + number / 8), int(rng.integers(1, 13)))).astype(int)
            loudest = most(visit_of(key, MONDAY_US + visit * 8 * HOUR_US + number * MINUTE_US, sizes, number))
            visits += visit >= 60
            loud += visit >= 60 and loudest >= 7.0
    assert loud <= 4 * 2.0**-7 * visits


@settings(max_examples=15)
@given(
    visits=st.lists(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=6), min_size=1, max_size=8),
    larger=st.floats(1.0, 100.0),
)
def test_larger_answers_never_make_it_quieter_and_one_visit_adds_a_step_at_most(
    visits: list[list[float]], larger: float
) -> None:
    key = fleet(keys=2, days=10)[0]
    before = 0.0
    for number, times in enumerate(visits):
        at = MONDAY_US + 21 * DAY_US + number * 8 * HOUR_US
        event = answer(at, int(PAGE * times[0]))
        key.turn_visit(at, 1.0)
        assert 0.0 <= sum_bits(key.state) <= before + STEP_BITS + 1 / 64
        before = sum_bits(key.state)
        quiet = key.score(event)
        assert float(key.score(answer(at, int(PAGE * times[0] * larger))).bits) >= float(quiet.bits)
        visit_of(key, at, (PAGE * np.array(times)).astype(int))


def test_what_an_incident_has_told_is_used_up_and_not_learned() -> None:
    key = fleet()[0]
    key.feed(answer(MONDAY_US + 20 * DAY_US, PAGE))  # settles the last visit
    key.feed(answer(MONDAY_US + 20 * DAY_US + HOUR_US, PAGE), weight=0.0)
    before = (float(key.state["mean"]), float(key.state["sizes"]["mean"]))
    at = MONDAY_US + 21 * DAY_US
    for visit in range(4):
        for i, size in enumerate(sizes_of(visit, 8, 99, times=50.0)):
            key.feed(answer(at + visit * 8 * HOUR_US + i * 20_000_000, int(size), ROUTES[i % 3]), weight=0.0)
    key.feed(answer(at + 2 * DAY_US, PAGE))
    assert (float(key.state["mean"]), float(key.state["sizes"]["mean"])) == before
    assert sum_bits(key.state) == 0.0


def test_who_knows_the_keys_id_alone_does_not_take_back_what_has_added_up() -> None:
    """A visit of nothing but refused requests is not learned either, and no incident has told anything."""
    key = fleet()[0]
    key.state.added = int(20 * SUM_UNIT)
    key.visit.tainted = 0
    DETECTOR.settle(key.state, key.shared, key.visit, 0.0, key.config)
    assert sum_bits(key.state) == 20.0
    key.visit.tainted = 1
    DETECTOR.settle(key.state, key.shared, key.visit, 0.0, key.config)
    assert sum_bits(key.state) == 0.0


def migrated(record: Any, dtype: np.dtype[Any], *without: str) -> Any:
    """As a worker takes over what the former version has written; its sum was `slow`, in another unit."""
    layout = [(name, dtype[name]) for name in dtype.names or () if name not in without]
    old, new = np.zeros(1, [*layout, ("slow", "f4")]), np.zeros(1, dtype)
    for name, _ in layout:
        old[name][0] = record[name]
    old["slow"] = 30.0
    migrate(old, new)
    return first(new)


def test_nobody_is_rung_by_a_sum_of_the_former_version_and_visits_before_it_make_no_sum_rare() -> None:
    key = fleet()[0]
    key.shared.visits[:] = 1e6
    key.state = migrated(key.state, STATE, "added", "noise", "sum_bin")
    before = migrated(key.shared, SHARED, "sum_visits", "sum_peaks")
    usual = [reading for v in range(3) for reading in visit_of(key, MONDAY_US + (21 + v) * DAY_US, sizes_of(v, 8, 99))]
    assert max(float(reading.lr_insider) for reading in usual) < 4.0
    key.state.added = int(20 * SUM_UNIT)
    assert rarities(key.state, before, 1, 8.0, 4.0)[1] == rarities(key.state, record(SHARED), 1, 8.0, 4.0)[1]


def test_a_route_whose_answers_grew_for_everybody_is_soon_usual() -> None:
    every = fleet()
    late = []
    for visit in range(60, 180):
        for number, key in enumerate(every):
            at = MONDAY_US + visit * 8 * HOUR_US + number * MINUTE_US
            readings = visit_of(key, at, sizes_of(visit, 8, number, times=1.5), number)
            late += [most(readings)] if visit >= 165 else []
    assert max(late) < 9.0 < ALARM_BITS


def test_an_answer_without_a_body_and_an_error_page_say_nothing_and_teach_nothing() -> None:
    key = fleet()[0]
    at = MONDAY_US + 21 * DAY_US
    key.feed(answer(at, PAGE))
    before = key.state.tobytes()
    assert float(key.feed(answer(at + 1, 0)).bits) == 0.0
    assert float(key.feed(answer(at + 2, 900 * PAGE, error=ERROR_5XX)).bits) == 0.0
    assert key.state.tobytes() == before


def test_a_format_without_sizes_is_not_covered_and_one_with_them_is() -> None:
    key = OneKey(DETECTOR)
    assert int(key.feed(event_at(MONDAY_US)).covered) == 0
    assert int(key.feed(answer(MONDAY_US + 1, PAGE)).covered) == 1


def test_a_key_alone_does_not_teach_a_route_however_often_it_asks() -> None:
    table = records(np.zeros(1, route_sizes.TABLE))[0]
    for _ in range(500):
        route_sizes.teach(table, 7, 3, 10.0, MONDAY_US, False)
    assert route_sizes.off_by(table, 7, 14.0) == (False, 0.0)
    for turn in range(20):
        route_sizes.teach(table, 7, turn % 2, 10.0, MONDAY_US, False)
    assert route_sizes.off_by(table, 7, 12.5) == (True, route_sizes.FAR)


def test_what_is_a_thousand_times_as_large_counts_for_more_than_what_is_ten_times_as_large() -> None:
    """With four deviations at most, eight answers of 80 MB on a key of 20 kB opened no incident."""
    times = [1.0, 10.0, 30.0, 1_000.0, 1e6, 1e9]
    far = [float(route_sizes.bounded(float(np.log(each)), 0.5)) for each in times]
    assert far == sorted(far)
    assert far[1] == route_sizes.FAR < far[2] < far[3] <= far[4] == far[5] == route_sizes.FARTHEST
    assert route_sizes.bounded(float(np.log(1_000.0)), 2.0) < route_sizes.FAR, "of a route whose answers vary as much"


def test_popular_routes_stay_in_the_table_whatever_a_scan_asks_for() -> None:
    table = records(np.zeros(1, route_sizes.TABLE))[0]
    for turn in range(400):
        route_sizes.teach(table, 7, turn % 5, 10.0, MONDAY_US, False)
    for route in range(1_000, 21_000):
        route_sizes.teach(table, route, route % 5, 3.0, MONDAY_US, False)
    assert route_sizes.find(table, 7) >= 0


@cache
def log_lines(folder: Path) -> list[tuple[str, int, int, int]]:
    """(address, route, status, bytes) of the real log, in order."""
    found = []
    numbers: dict[str, int] = defaultdict(lambda: len(numbers) + 1)
    for line in (folder / "apache_logs").read_text(errors="replace").splitlines():
        if match := LINE.match(line):
            address, _, path, status, size, _ = match.groups()
            found.append((address, numbers[template(path.split("?")[0])], int(status), int(size) if size != "-" else 0))
    return found


def test_real_readers_are_quiet_and_one_who_takes_twenty_times_as_much_is_not() -> None:
    """Near miss: nobody exfiltrates in the log, though its answers have from 200 bytes to 60 MB."""
    shared = record(DETECTOR.shared)
    lines = log_lines(real("weblog-elastic-apache"))
    numbers = {address: number for number, address in enumerate(dict.fromkeys(line[0] for line in lines))}
    keys = {address: OneKey(DETECTOR, shared) for address in numbers}
    bits, at = [], MONDAY_US
    for address, route, status, size in lines:
        at += 120_000_000  # 14 days
        event = answer(at, size, route, numbers[address], ERROR_5XX if status >= 400 else 0)
        bits.append(float(keys[address].feed(event).bits))
    assert sum(each > ALARM_BITS for each in bits) <= 5, "of 10,000 requests"
    reader = max(keys, key=lambda address: int(keys[address].visit.ordinal))
    mine = [(route, size) for address, route, status, size in lines if address == reader and size > 0 and status < 400]
    taken = [
        keys[reader].feed(answer(at + DAY_US + i * 20_000_000, size * 20, route, numbers[reader]))
        for i, (route, size) in enumerate(mine[-12:])
    ]
    assert most(taken) > max([*bits[-2_000:], 8.0])


def test_bytes_are_said_in_two_digits() -> None:
    sizes = (12.0, 1_400.0, 38_200_000.0, 999_000.0, 2.5e9)
    assert [size_words(size) for size in sizes] == ["12 bytes", "1.4 kB", "38 MB", "1 MB", "2.5 GB"]
