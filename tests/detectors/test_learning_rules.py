"""What an attacker who is patient can teach: the rules of learning that hold, whatever comes.

Held by the detectors: nothing is learned before its visit has ended, nothing of a visit under an incident, a level
never counts for more than four times a slow anchor, and the anchor of a grown key rises by half a percent in a day.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import DETECTORS, feedback, fusion, known_values, request_level
from detectors.detector import DECLARED_LEAKED, EVENT, NET_HOSTING, NET_KNOWN, VISIT, config_record
from detectors.drift import DRIFT_BITS, DRIFT_LISTED_BITS, drift_bits
from detectors.known_values import SLOT
from detectors.records import records
from detectors.spike import STATE, Spike
from tests.detectors.one_more import one_more
from tests.detectors.streams import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    START_US,
    Array,
    Judge,
    blank,
    daily_visits,
    place,
    set_hours,
)

PEER = 10.0
DAY_H = 24
LEARNED = {
    "geography": ("network", "country", "networks", "countries"),
    "novel_client": ("mixture", "clients"),
    "novel_operation": ("mixture", "known"),
    "spike": ("seen", "exposed", "profile", "anchor", "held", "awake_h", "crowd_mean", "crowd_variance"),
    "egress": ("mean", "variance", "seen", "added", "noise", "sizes", "whole"),
    "errors": (),
}
"""What of each detector's state is its forecast; the rest is pending, rings and the running visit."""


def forecasts(key: Array) -> dict[str, bytes]:
    """The learned part of a key's record."""
    names = {d.name for d in DETECTORS}
    return {
        f"{name}.{each}": key[name][each].tobytes()
        for name, fields in LEARNED.items() if name in names for each in fields if each in (key[name].dtype.names or ())
    }  # fmt: skip


def spike_of(level_h: float) -> Any:
    """A key that has made so many requests in every hour of the last 30 days."""
    state = records(np.zeros(1, STATE))[0]
    learn(state, [level_h] * (30 * DAY_H))
    return state


def learn(state: Any, hours: list[float], anew: int = 0) -> None:
    """Hours of requests, each closed with the level that held then."""
    config = Spike()
    for n in hours:
        hour = int(state["awake_h"])
        level = request_level.level_of(state, PEER, config.anchor_cap)
        factor = request_level.profile_factor(state, hour)
        request_level.learn_hour(state, hour, float(n), level, factor, PEER, config.clip, anew)


@settings(max_examples=25)
@given(
    level=st.sampled_from([0.5, 20.0, 3_000.0]),
    days=st.lists(st.floats(0.0, 1e5), min_size=1, max_size=28),
    data=st.data(),
)
def test_no_traffic_lifts_the_anchor_faster_than_its_gain_nor_the_level_above_four_anchors(
    level: float, days: list[float], data: st.DataObject
) -> None:
    state = spike_of(level)
    start, hour = float(state["anchor"]), int(state["awake_h"])
    for multiple in days:
        learn(state, [level * multiple * data.draw(st.sampled_from([0.0, 1.0, 3.0])) for _ in range(DAY_H)])
        gains = np.maximum(1.0 - request_level.ANCHOR_KEEP, 1.0 / (1.0 + np.arange(hour, int(state["awake_h"])) + 1))
        assert float(state["anchor"]) <= start * float(np.prod(1.0 + 0.5 * gains)) * (1 + 1e-4)
        anchor = float(state["anchor"])
        assert request_level.level_of(state, PEER, 4.0) <= max(1e-4, 4.0 * anchor) * (1 + 1e-6)


def test_the_steepest_ramp_lifts_the_anchor_by_half_a_percent_a_day() -> None:
    state = spike_of(100.0)
    state["awake_h"] = 90 * DAY_H  # the gain of a grown key
    start = float(state["anchor"])
    for _ in range(28):
        learn(state, [100.0 * 1_000.0] * DAY_H)
    grown = float(state["anchor"]) / start
    assert 1.05 < grown < 1.005**28 * 1.02, "28 days: the design's cap is 2"


@settings(max_examples=25)
@given(
    level=st.sampled_from([0.5, 20.0, 3_000.0]),
    days=st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.5, 2.0, 10.0, 1e5]), min_size=57, max_size=70),
)
def test_no_sequence_of_days_raises_what_is_believed_by_more_than_a_tenth_a_day_or_twofold_in_28(
    level: float, days: list[float]
) -> None:
    """Whatever is sent, in whatever order; one request an hour more counts as no growth."""
    state = spike_of(level)
    believed = [float(state["held"])]
    for times in days:
        learn(state, [level * times] * DAY_H)
        believed.append(float(state["held"]))
        assert request_level.level_of(state, PEER, 4.0) <= believed[-1] * (1 + 1e-6)
    for i, now in enumerate(believed):
        assert now + 1.0 <= 1.1 * (min(believed[max(0, i - 1) : i + 1]) + 1.0) * (1 + 1e-4)
        assert now + 1.0 <= 2.0 * (max(believed[max(0, i - 56) : max(1, i - 27)]) + 1.0) * (1 + 1e-3)


@settings(max_examples=25)
@given(days=st.lists(st.floats(0.0, 2.5), min_size=1, max_size=60))
def test_held_growth_alone_never_tells(days: list[float]) -> None:
    """What is clipped, held or anchored is no finding: only a free level above three anchors is."""
    state, config = spike_of(20.0), records(config_record(Spike()))[0]
    for times in days:
        learn(state, [20.0 * times] * DAY_H)
        free = request_level.free_level(state)
        assert (drift_bits(state, config) > 0.0) == (free >= 3.0 * max(1e-3, float(state["anchor"])))
        if times <= 1.0 and max(days) <= 1.0:
            assert drift_bits(state, config) == 0.0


def test_a_ramp_of_three_percent_a_day_is_told_when_it_has_tripled_and_listed_when_it_has_quadrupled() -> None:
    state, config = spike_of(20.0), records(config_record(Spike()))[0]
    told: dict[float, float] = {}
    for day in range(150):
        learn(state, [20.0 * 1.03**day] * DAY_H)
        told.setdefault(drift_bits(state, config), request_level.free_level(state) / float(state["anchor"]))
    assert sorted(told) == [0.0, DRIFT_BITS, DRIFT_LISTED_BITS]
    assert told[DRIFT_BITS] == pytest.approx(3.0, rel=0.05)
    assert told[DRIFT_LISTED_BITS] == pytest.approx(4.0, rel=0.05)


def attack(at_us: int, calls: int, which: int, spacing_us: int) -> Array:
    events = blank(calls)
    events["ts_us"] = at_us + np.arange(calls) * spacing_us
    place(events, which)
    events["net_flags"] = NET_KNOWN | NET_HOSTING
    events["address"] = (90 + which) << 40
    events["client"] = 60 + which
    events["route"] = 500 + np.arange(calls) % 20
    events["request"] = 1_000_000 + at_us % 1_000_003 * 1_000 + np.arange(calls)
    return events


@settings(max_examples=12)
@given(calls=st.integers(1, 60), which=st.integers(1, 3), spacing_s=st.sampled_from([0, 1, 30]), cut=st.integers(0, 60))
def test_nothing_is_learned_while_its_visit_goes_on(calls: int, which: int, spacing_s: int, cut: int) -> None:
    """So what came just before an incident opens is withheld with it, as far as the visit reaches back."""
    judge = Judge(1)
    life = daily_visits(20)
    judge.feed(life)
    stolen = attack(int(life["ts_us"][-1]) + 6 * HOUR_US, calls, which, spacing_s * 1_000_000)
    judge.feed(stolen[:1])  # ends the owner's visit, which is learned now
    before = forecasts(judge.keys[0])
    judge.feed(stolen[1 : 1 + cut])
    judge.feed(stolen[1 + cut :])
    assert forecasts(judge.keys[0]) == before


@settings(max_examples=12)
@given(visits=st.integers(1, 6), which=st.integers(1, 3), gap_min=st.sampled_from([31, 45, 59]))
def test_nothing_of_a_visit_under_an_incident_is_ever_learned(visits: int, which: int, gap_min: int) -> None:
    judge = Judge(1, listed_days=1.0)
    life = daily_visits(30)
    judge.feed(life)
    start = int(life["ts_us"][-1]) + 6 * HOUR_US
    first = attack(start, 40, which, 1_000_000)
    judge.feed(first[:1])
    before = forecasts(judge.keys[0])
    judge.feed(first[1:])
    if judge.keys["fusion"]["open"][0] == 0:
        return  # it opened nothing: its visit may be learned
    for visit in range(1, visits):
        judge.feed(attack(start + visit * gap_min * MINUTE_US, 20, which, 1_000_000))
        if judge.keys["fusion"]["open"][0] == 0:
            return
    owner = daily_visits(1, per_day=1)
    owner["ts_us"] += start - int(owner["ts_us"][0]) + (visits - 1) * gap_min * MINUTE_US + 40 * MINUTE_US
    judge.feed(owner[:1])  # ends the last visit
    assert forecasts(judge.keys[0]) == before


def probe_then_incident(pause_h: float, seed_visits: int = 30) -> tuple[Judge, Array]:
    """A stranger's quiet visit by the network and client that he comes back with, so much later, for an incident."""
    judge, life = Judge(1), daily_visits(seed_visits)
    judge.feed(life)
    first = attack(int(life["ts_us"][-1]) + 6 * HOUR_US, 1, 2, 1_000_000)
    first["route"], first["net_flags"] = 1, NET_KNOWN
    back = attack(int(first["ts_us"][0] + pause_h * HOUR_US), 60, 2, 1_000_000)
    back["error"] = 2
    judge.feed(np.concatenate([first, back]))
    later = daily_visits(1, per_day=1)
    later["ts_us"] += int(back["ts_us"][-1]) + 3 * HOUR_US - int(later["ts_us"][0])
    later["request"] += 9_000_000
    judge.feed(later)  # ends the incident's visit
    return judge, first


def values(judge: Judge, detector: str, table: str) -> set[int]:
    return {int(value) for value in judge.keys[detector][table]["value"][0] if value}


@pytest.mark.parametrize("pause_h", [0.6, 0.9])
def test_what_the_hour_before_an_incident_brought_is_withheld_too(pause_h: float) -> None:
    judge, first = probe_then_incident(pause_h)
    assert "opened" in judge.kinds()
    assert int(first["asn"][0]) not in values(judge, "geography", "networks")
    assert int(first["country"][0]) not in values(judge, "geography", "countries")
    assert int(first["client"][0]) not in values(judge, "novel_client", "clients")
    assert int(first["address"][0]) >> 32 not in judge.keys["geography"]["addresses"][0].tolist()
    assert 64500 in values(judge, "geography", "networks"), "the owner's stays"
    assert blank(1)["address"][0] >> 32 in judge.keys["geography"]["addresses"][0].tolist()
    assert 5 in values(judge, "novel_client", "clients")


def test_who_was_quiet_while_his_new_way_was_adopted_may_be_as_busy_as_before() -> None:
    """What is taken anew only ever rises: a key that has moved in its holidays is no grown one afterwards."""
    levels = []
    for anew in (0, 1):
        state = spike_of(20.0)
        learn(state, [2.0] * (10 * DAY_H), anew)
        learn(state, [20.0] * (14 * DAY_H))
        levels.append(request_level.level_of(state, PEER, Spike().anchor_cap))
        assert drift_bits(state, records(config_record(Spike()))[0]) == 0.0
    assert levels[1] >= levels[0]


def visits_then_incident(*before: Array) -> Judge:
    """Visits half an hour and more apart from a full hour on, and 66 minutes after the first one an incident's."""
    judge, life = Judge(1), daily_visits(30)
    judge.feed(life)
    begin_us = (int(life["ts_us"][-1]) // HOUR_US + 6) * HOUR_US
    back = attack(begin_us + 66 * MINUTE_US, 60, 2, 1_000_000)
    back["error"] = 2
    for number, visit in enumerate((*before, back)):
        visit["request"] += 10_000 * number
        visit["ts_us"] += 0 if visit is back else begin_us + number * 33 * MINUTE_US - int(visit["ts_us"][0])
        judge.feed(visit)
    later = daily_visits(1, per_day=1)
    later["ts_us"] += begin_us + 5 * HOUR_US - int(later["ts_us"][0])
    later["request"] += 9_000_000
    judge.feed(later)  # ends the incident's visit
    assert "opened" in judge.kinds()
    return judge


def probe() -> Array:
    """One quiet call by the network and address that the incident has."""
    visit = attack(0, 1, 2, 0)
    visit["route"], visit["net_flags"] = 1, NET_KNOWN
    return visit


def test_whoever_comes_twice_in_the_hour_before_his_incident_is_no_known_address_either() -> None:
    """An address that stayed would make its network known for ever: one that the database has renamed."""
    judge = visits_then_incident(probe(), probe())
    assert int(probe()["asn"][0]) not in values(judge, "geography", "networks")
    assert int(probe()["address"][0]) >> 32 not in judge.keys["geography"]["addresses"][0].tolist()
    again = probe()
    again["ts_us"], again["request"] = int(judge.keys["visit"]["last_us"][0]) + 2 * DAY_US, 77_000_000
    seen = len(judge.bits("geography"))
    judge.settings["finding_bits"] = 0.25
    judge.feed(again)
    assert max(judge.bits("geography")[seen:], default=0.0) > 3.0


def test_an_address_of_the_owners_that_came_between_does_not_hide_the_strangers() -> None:
    owner = daily_visits(1, per_day=1)[:1]
    owner["address"] = 0x7777 << 40
    judge = visits_then_incident(probe(), owner)
    kept = judge.keys["geography"]["addresses"][0].tolist()
    assert int(probe()["address"][0]) >> 32 not in kept
    assert blank(1)["address"][0] >> 32 in kept, "what the owner had for long stays"


def test_what_a_person_has_admitted_is_not_taken_back_by_the_next_incident() -> None:
    judge, life = Judge(1), daily_visits(30)
    judge.feed(life)
    begin_us = (int(life["ts_us"][-1]) // HOUR_US + 6) * HOUR_US
    mine = attack(begin_us, 1, 1, 0)
    feedback.admit(DETECTORS, judge.configs, judge.keys[:1], judge.shared, mine)
    back = attack(begin_us + 40 * MINUTE_US, 60, 2, 1_000_000)
    back["error"] = 2
    judge.feed(back)
    assert "opened" in judge.kinds()
    judge.feed(one_more(life, later_us=2 * DAY_US))
    assert int(mine["asn"][0]) in values(judge, "geography", "networks")
    assert int(mine["client"][0]) in values(judge, "novel_client", "clients")


def test_what_an_incident_takes_back_makes_no_stranger_of_a_value_that_had_given_way() -> None:
    """Of a leaked key; a table that was full never held all that its owner has."""
    for full in (True, False):
        slots, visit, event = np.zeros(4, SLOT), np.zeros(1, VISIT), np.zeros(1, EVENT)
        for value in range(1, 5 if full else 4):
            known_values.keep(records(slots), value, (90_000 if value < 3 else 99_000) * HOUR_US, False)
        visit["start_us"] = event["ts_us"] = 99_001 * HOUR_US
        visit["first_seen_us"] = 80_000 * HOUR_US
        event["declared"], event["authenticated"], event["leaked_h"] = DECLARED_LEAKED, 1, 98_000 % 65_536
        assert known_values.forget_lately(records(slots), records(visit)[0]) == (0b1100 if full else 0b0100)
        assert known_values.is_strangers(records(slots), 9, records(visit)[0], records(event)[0]) is not full


@settings(max_examples=200)
@given(
    series_days=st.floats(0.1, 60.0), opened_days=st.floats(0.1, 60.0), severity=st.integers(0, 2),
    taken=st.integers(0, 2),
)  # fmt: skip
def test_what_is_usual_is_taken_anew_after_an_adoption_only_and_for_two_weeks_at_most(
    series_days: float, opened_days: float, severity: int, taken: int
) -> None:
    state = records(np.zeros(1, fusion.fusion_dtype(1)))[0]
    now = 400 * DAY_US
    state["series_us"], state["series_severity"], state["taken"] = int(now - series_days * DAY_US), severity, taken
    state["visit_opened_us"] = int(now - opened_days * DAY_US)
    if fusion.begins_anew(state, now):
        assert taken and severity == 0 and series_days > 6.999 and opened_days < 14.001


def test_a_grown_key_is_held_from_where_it_was_adopted() -> None:
    """For good: what is adopted is usual, whatever the anchor was."""
    for anew, times in ((0, 6.0), (1, 3.0), (1, 6.0)):
        state = spike_of(20.0)
        learn(state, [20.0 * times] * (14 * DAY_H), anew)
        level = request_level.level_of(state, PEER, Spike().anchor_cap)
        reached = level / 20.0
        assert reached > 0.7 * times if anew else reached < 1.5
        assert (drift_bits(state, records(config_record(Spike()))[0]) == 0.0) == (anew == 1)
        learn(state, [20_000.0] * (28 * DAY_H))
        assert request_level.level_of(state, PEER, Spike().anchor_cap) < 2.3 * level, "and is held again"


def busy(days: int, start_day: int, calls: int, rng: np.random.Generator) -> Array:
    """Eight visits a day of so many calls on average, each within 50 minutes."""
    counts = rng.poisson(calls, days * 8)
    visit = np.repeat(np.arange(len(counts)), counts)
    events = blank(len(visit))
    at_us = np.concatenate([np.sort(rng.integers(0, 3_000, count)) for count in counts]) * 1_000_000
    events["ts_us"] += (start_day + visit // 8) * DAY_US + visit % 8 * 2 * HOUR_US + at_us - events["ts_us"] + START_US
    events["request"] += start_day * 1_000_000
    set_hours(events)
    return events


def test_a_key_that_has_grown_sixfold_for_good_is_told_and_adopted_and_told_no_more() -> None:
    judge, rng = Judge(1), np.random.default_rng(1)
    judge.feed(busy(60, 0, 40, rng))
    assert judge.kinds() == []
    judge.feed(busy(80, 60, 240, rng))
    assert [kind for kind in judge.kinds() if kind in ("opened", "adopted")] == ["opened", "adopted"]


def test_what_came_hours_before_an_incident_stays_learned() -> None:
    judge, first = probe_then_incident(4.0)
    assert "opened" in judge.kinds()
    assert int(first["asn"][0]) in values(judge, "geography", "networks")


@settings(max_examples=40)
@given(
    series_days=st.floats(0.1, 30.0), severity=st.integers(0, 2), started=st.booleans(),
)  # fmt: skip
def test_adoption_waits_for_seven_days_and_never_takes_page_grade(
    series_days: float, severity: int, started: bool
) -> None:
    state = records(np.zeros(1, fusion.fusion_dtype(1)))[0]
    now = 400 * DAY_US
    state["series_us"] = int(now - series_days * DAY_US) if started else 0
    state["series_severity"] = severity
    assert fusion.adopts(state, now) == (started and severity == 0 and now - int(state["series_us"]) >= 7 * DAY_US)


def test_an_adoption_is_marked_on_the_incidents_that_follow_it() -> None:
    moved = daily_visits(9, per_day=1)
    moved["ts_us"] += 60 * DAY_US
    moved["request"] += 1_000_000
    place(moved, 2)
    moved["address"], moved["client"] = 99, 77
    judge = Judge(1, listed_days=20.0, page_days=1e15)
    judge.feed(daily_visits(60, per_day=1))
    judge.feed(moved)
    judge.feed(attack(int(moved["ts_us"][-1]) + 6 * HOUR_US, 40, 1, 2_000_000))
    days = [(row["at_us"] - int(moved["ts_us"][0])) / DAY_US for row in judge.changed]
    marks = [row["adopted"] for row in judge.changed]
    assert 0 in marks and 1 in marks
    assert all(day >= 7 for day, mark in zip(days, marks, strict=True) if mark)
    assert all(day < 7 for day, mark in zip(days, marks, strict=True) if not mark)


def taken_over(per_day: int, history_days: int) -> Array:
    """Twelve days of somebody else, from another network by another client, who also does one thing that is new."""
    moved = daily_visits(12, per_day)
    moved["ts_us"] += (history_days + 1) * DAY_US
    moved["request"] += 5_000_000
    moved["route"][::6] = 900
    place(moved, 2)
    moved["address"], moved["client"] = 99, 77
    return moved


def test_a_silent_adoption_is_told_once_however_the_log_is_cut() -> None:
    moved, told = taken_over(4, 60), []
    for cut in (len(moved), 5):
        judge = Judge(1)
        judge.feed(daily_visits(60, per_day=4))
        for start in range(0, len(moved), cut):
            judge.feed(moved[start : start + cut])
        days = [(row["at_us"] - int(moved["ts_us"][0])) / DAY_US for row in judge.changed]
        assert judge.kinds()[:2] == ["opened", "closed"] and judge.kinds()[-1] == "adopted"
        assert [row["adopted"] for row in judge.changed] == [0] * (len(judge.changed) - 1) + [1]
        assert 7 <= days[-1] < 7.5
        assert 64502 in judge.keys["geography"]["networks"]["value"][0]
        told.append(judge.changed)
    assert told[0] == told[1]


def test_a_page_in_a_series_that_was_adopted_is_not_told_as_adopted() -> None:
    judge, moved = Judge(1), taken_over(4, 60)
    judge.feed(daily_visits(60, per_day=4))
    judge.feed(moved)
    assert "adopted" in judge.kinds()
    judge.feed(attack(int(moved["ts_us"][-1]) + 6 * HOUR_US, 200, 3, 2_000_000))
    pages = [row for row in judge.changed if row["severity"] > 0]
    assert pages and not any(row["adopted"] for row in pages)


def test_a_simulated_detector_weighs_nothing_but_tells() -> None:
    from detectors import fuse

    quiet = fuse.compile_pass(DETECTORS, {detector.name for detector in DETECTORS})
    judge = Judge(1)
    life = daily_visits(30)
    stolen = attack(int(life["ts_us"][-1]) + 6 * HOUR_US, 40, 2, 1_000_000)
    events = np.concatenate([life, stolen])
    found, changed = np.zeros(4096, fuse.FOUND), np.zeros(4096, fuse.CHANGED)
    end, n_found, n_changed = quiet(judge.keys, judge.shared, events, 0, judge.configs, judge.settings, found, changed)
    assert (end, n_changed) == (len(events), 0)
    assert n_found > 0
