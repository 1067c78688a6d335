"""The incident of a key: what opens, extends, escalates and closes it, and who cannot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import fuse, fusion
from detectors.calibration import CALIBRATION
from detectors.detector import DECLARED_DECOY, ERROR_403, NET_HOSTING, NET_KNOWN, READING, VISIT, config_record
from detectors.records import records
from tests.detectors.one_key import record
from tests.detectors.one_more import one_more
from tests.detectors.streams import DAY_US, HOUR_US, MINUTE_US, Array, Judge, blank, daily_visits, place, random_stream

pytestmark = pytest.mark.timeout(900)  # the first one compiles the pass: 40 s of one free core


def watched(days: int = 30) -> tuple[Judge, int]:
    """A quiet key and the time of its next visit."""
    judge = Judge(1)
    life = daily_visits(days)
    judge.feed(life)
    return judge, int(life["ts_us"][-1]) + 3 * HOUR_US


def theft(at_us: int, count: int = 40) -> Array:
    """A stranger from a foreign hosting network who tries many routes."""
    events = blank(count)
    events["ts_us"] = at_us + np.arange(count) * 1_500_000
    place(events, 2)
    events["net_flags"] = NET_KNOWN | NET_HOSTING
    events["address"] = 99 << 40
    events["route"] = 500 + np.arange(count)
    events["error"] = np.where(np.arange(count) % 2, ERROR_403, 0)
    return events


def test_a_quiet_key_never_has_an_incident() -> None:
    judge, _ = watched(60)
    assert not judge.changed


def test_a_theft_opens_one_incident_with_its_evidence_and_closes_after_an_idle_hour() -> None:
    judge, at_us = watched()
    stolen = theft(at_us)
    judge.feed(stolen)
    assert judge.kinds()[0] == "opened"
    assert judge.kinds().count("opened") == 1
    opened = judge.changed[0]
    assert opened["return_days"] >= 1000
    evidence = {row["detector"] for row in judge.found if row["event"] == opened["event"]}
    assert 0 in evidence
    closed = np.zeros(4, fuse.CHANGED)
    last = int(judge.keys["fusion"]["evidence_us"][0])
    assert fuse.close_due(judge.keys, 1, last + HOUR_US - 1, judge.settings, closed) == 0
    assert fuse.close_due(judge.keys, 1, last + HOUR_US, judge.settings, closed) == 1
    assert closed[0]["kind"] == fusion.CLOSED
    assert closed[0]["at_us"] == last + HOUR_US
    assert fuse.close_due(judge.keys, 1, last + DAY_US, judge.settings, closed) == 0


def test_new_evidence_of_another_family_escalates() -> None:
    judge, at_us = watched()
    judge.settings["listed_days"] = 1.0
    stolen = theft(at_us)
    stolen["error"][:20] = 0
    judge.feed(stolen)
    assert "escalated" in judge.kinds()
    severities = [row["severity"] for row in judge.changed if row["kind"] != fusion.CLOSED]
    assert severities == sorted(severities)


def test_the_key_owner_cannot_be_framed_by_requests_that_never_authenticated() -> None:
    judge, at_us = watched()
    stolen = theft(at_us)
    stolen["authenticated"] = 0
    judge.feed(stolen)
    assert not judge.changed


def test_one_opening_a_week_and_rule() -> None:
    judge, at_us = watched()
    for hour in (0, 3, 6, 9):
        judge.feed(theft(at_us + hour * HOUR_US))
    opened = [row for row in judge.changed if row["kind"] == fusion.OPENED]
    assert len(opened) == len({row["rule"] for row in opened})
    judge.feed(theft(at_us + 26 * HOUR_US))
    assert len([row for row in judge.changed if row["kind"] == fusion.OPENED]) == len(opened), "told yesterday"
    judge.feed(theft(at_us + 8 * DAY_US))
    later = [row for row in judge.changed if row["kind"] == fusion.OPENED]
    assert len(later) > len(opened), "of page grade: never adopted"


def told_on_the_first_day(days: float, score: float, families: int) -> tuple[Any, Any]:
    """(a key's record with an incident since the first day, settings)"""
    state = records(np.zeros(1, fusion.fusion_dtype(1)))[0]
    settings = records(config_record(fusion.Settings()))[0]
    fusion.open_incident(state, DAY_US, fusion.RULE_VISIT, days, score, families, settings)
    return state, settings


def test_what_is_four_times_rarer_is_told_again_after_a_day() -> None:
    state, settings = told_on_the_first_day(2_000.0, 15.0, 1)
    assert fusion.rule_that_opens(state, 3 * DAY_US, 5_000.0, 0.0, 1, settings) == 0
    assert fusion.rule_that_opens(state, 3 * DAY_US, 9_000.0, 0.0, 1, settings) == fusion.RULE_VISIT
    assert fusion.rule_that_opens(state, DAY_US + HOUR_US, 9_000.0, 0.0, 1, settings) == 0


def test_another_kind_of_evidence_is_told_after_a_day_however_rare_the_last_was() -> None:
    """A load test that was muted or expected must not hide the theft that comes two days later."""
    state, settings = told_on_the_first_day(1e9, 40.0, 0b01)
    assert fusion.rule_that_opens(state, 3 * DAY_US, 5_000.0, 0.0, 0b01, settings) == 0
    assert fusion.rule_that_opens(state, 3 * DAY_US, 5_000.0, 0.0, 0b10, settings) == fusion.RULE_VISIT
    assert fusion.rule_that_opens(state, DAY_US + HOUR_US, 5_000.0, 0.0, 0b10, settings) == 0


def test_an_incident_closes_after_a_week_even_if_evidence_goes_on() -> None:
    judge, at_us = watched()
    for minute in range(0, 8 * 24 * 60, 50):
        judge.feed(theft(at_us + minute * MINUTE_US, 4))
    closed = [row for row in judge.changed if row["kind"] == fusion.CLOSED]
    assert closed
    assert all(row["at_us"] - row["opened_us"] <= 7 * DAY_US for row in closed)


def test_messages_about_growth_are_few() -> None:
    judge, at_us = watched()
    judge.feed(theft(at_us, 1200))
    assert len(judge.changed) < 30


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), marks=st.lists(st.integers(1, 399), max_size=8))
def test_the_sweep_closes_exactly_what_the_keys_next_event_would(seed: int, marks: list[int]) -> None:
    events = random_stream(seed, 400, 3, days=6.0)
    events["ts_us"] = np.sort(events["ts_us"])
    lazy, swept = Judge(3, listed_days=0.05), Judge(3, listed_days=0.05)
    lazy.feed(events)
    closed = np.zeros(8, fuse.CHANGED)
    by_sweep = []
    for part in np.split(events, sorted(marks)):
        swept.feed(part)
        if len(part):
            count = fuse.close_due(swept.keys, 3, int(part["ts_us"][-1]), swept.settings, closed)
            by_sweep += [(row["slot"].item(), row["at_us"].item(), row["score"].item()) for row in closed[:count]]
    ends = [(row["slot"], row["at_us"], row["score"]) for row in swept.changed if row["kind"] == fusion.CLOSED]
    lazily = [(row["slot"], row["at_us"], row["score"]) for row in lazy.changed if row["kind"] == fusion.CLOSED]
    assert set(lazily) <= set(ends + by_sweep)
    others = [row for row in lazy.changed if row["kind"] != fusion.CLOSED]
    assert [row for row in swept.changed if row["kind"] != fusion.CLOSED] == others
    final = int(events["ts_us"][-1]) + 30 * DAY_US
    for judge in (lazy, swept):
        fuse.close_due(judge.keys, 3, final, judge.settings, closed)
    assert lazy.keys.tobytes() == swept.keys.tobytes()


@given(first=st.floats(-60, 60), second=st.floats(-60, 60))
def test_the_mixture_of_two_alternatives_is_right_and_never_above_the_larger(first: float, second: float) -> None:
    mixed = fusion.mixed(first, second)
    assert mixed == pytest.approx(math.log2(0.5 * 2.0**first + 0.5 * 2.0**second), abs=1e-9)
    assert max(first, second) - 1 <= mixed <= max(first, second) + 1e-9


def test_the_slow_rule_adds_small_facts_within_days_and_forgets_in_weeks() -> None:
    state = records(np.zeros(1, fusion.fusion_dtype(1)))[0]
    scores = []
    for day in range(10):
        state["slow"] = fusion.slow_step(state, day * DAY_US, 4.0)
        state["slow_us"] = day * DAY_US
        scores.append(float(state["slow"]))
    assert scores == sorted(scores)
    assert scores[-1] > 1e6
    assert fusion.slow_bits(fusion.slow_step(state, 60 * DAY_US, 0.0)) == 0.0


def test_visits_without_a_new_fact_add_nothing_to_the_slow_rule() -> None:
    state = records(np.zeros(1, fusion.fusion_dtype(1)))[0]
    state["slow"] = 16.0
    assert fusion.slow_step(state, 0, 0.0) == 16.0
    assert fusion.slow_step(state, 0, -5.0) == 16.0


@given(first_day=st.integers(1, 20), waits_h=st.integers(0, 20 * 24), adopted=st.booleans())
def test_what_adds_up_on_an_adopted_key_while_the_slow_rule_waits_is_used_up(
    first_day: int, waits_h: int, adopted: bool
) -> None:
    """Else it rings as the cool-down ends, by a call that brings nothing; a key that isn't adopted forgets nothing."""
    state, visit = record(fusion.fusion_dtype(1)), record(VISIT)
    state.slow_opened_us = (first_day + 8) * DAY_US
    state.series_us = first_day * DAY_US
    state.series_severity = 0 if adopted else 1
    visit.start_us = int(state.slow_opened_us) + HOUR_US * (1 + waits_h)
    visit.last_us = visit.start_us
    state.best, state.best_slow = 4.0, 4.0
    fusion.end_visit(state, visit, record(CALIBRATION))
    waits = adopted and 1 + waits_h < 7 * 24
    assert float(state.slow) == (0.0 if waits else pytest.approx(16.0))


def test_a_blind_detector_does_not_weigh() -> None:
    readings = np.zeros(1, READING)
    readings["lr_stranger"] = 30.0
    judge, at_us = watched()
    blind = theft(at_us, 3)
    blind["sees"] = 16  # only the outcome is known
    judge.feed(blind)
    assert not judge.changed


def days_of_openings_after_a_move(**settings: float) -> list[float]:
    """Days since a key moved to another place and client for good, at which incidents opened."""
    moved = daily_visits(40, per_day=1)
    moved["ts_us"] += 60 * DAY_US
    moved["request"] += 1_000_000
    place(moved, 2)
    moved["address"] = 99
    moved["client"] = 77
    judge = Judge(1, listed_days=20.0, **settings)
    judge.feed(daily_visits(60, per_day=1))
    quiet = len(judge.changed)
    judge.feed(moved)
    opened = [row["at_us"] for row in judge.changed[quiet:] if fusion.KINDS[row["kind"]] == "opened"]
    return [(at - int(moved["ts_us"][0])) / DAY_US for at in opened]


def test_a_key_that_has_moved_rings_for_a_week_and_then_lives_at_its_new_place() -> None:
    days = days_of_openings_after_a_move(page_days=1e15)
    assert days and days[0] < 1
    assert max(days) < 16, "adopted after seven days, and its values are young for seven more"


def test_what_once_was_of_page_grade_is_never_adopted() -> None:
    assert max(days_of_openings_after_a_move(page_days=20.0)) > 21


@pytest.mark.parametrize(("declared", "counted"), [(0, True), (DECLARED_DECOY, False)])
def test_what_began_under_an_open_incident_is_not_counted_as_what_chance_brings(declared: int, counted: bool) -> None:
    life = daily_visits(20)
    judge = Judge(1)
    judge.feed(life)
    judge.feed(one_more(life, later_us=60 * DAY_US, declared=declared))
    strange = one_more(life, later_us=60 * DAY_US + 40 * MINUTE_US, calls=2)
    place(strange, 2)
    strange["address"], strange["request"] = 0x1234567890ABCDEF, [5, 6]
    judge.feed(strange)
    before = judge.shared["calibration"].tobytes()
    judge.feed(one_more(life, later_us=61 * DAY_US))
    assert (judge.shared["calibration"].tobytes() != before) == counted
