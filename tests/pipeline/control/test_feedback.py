"""What a person says of an incident takes effect once, at a place in the log, and replays with it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import DETECTORS, calibration, feedback, fusion
from detectors.fuse import key_dtype, shared_dtype
from detectors.known_values import find
from detectors.records import records
from pipeline.column import constant
from pipeline.core import Sides
from pipeline.fields import fields_of
from pipeline.flow import KeyCore
from schemas.control import Control
from schemas.event import Event
from schemas.incident import Incident
from tests.pipeline import said
from tests.pipeline.log_of_requests import HOUR_US, START_US, Outcome, core, log, record, slices
from tests.pipeline.test_flow import assert_same, restored, run

RECORDS = log(1)
DAY_US = 24 * HOUR_US


def at_opening() -> tuple[int, Incident]:
    """Index of the record after which pk_1's incident is open, and the incident as it is then."""
    judge, outcome = core(), Outcome()
    for i in range(len(RECORDS)):
        outcome.take(judge.process(slices(RECORDS[i : i + 1], [], i)[0]))
        if outcome.incidents:
            return i + 1, next(iter(outcome.incidents.values()))
    raise AssertionError("no incident")


@pytest.fixture(scope="module")
def opened() -> tuple[int, Incident]:
    return at_opening()


def judged(parts: list[tuple[Sides | None, int, int]], cuts: list[int], crash_at: int = -1) -> Outcome:
    """The log in parts, each judged with its side inputs from its first record on; `crash_at`: a restart there."""
    judge, outcome = core(), Outcome()
    for sides, first, end in parts:
        if sides is not None:
            outcome.finish(judge.adopt(sides))
        for batch in slices(RECORDS[first:end], [cut - first for cut in cuts if first < cut < end], first):
            if batch.first <= crash_at < batch.next:
                outcome.finish(judge.due_rows())
                judge = restored(judge)
                outcome.finish(judge.adopt(sides or said.sides()))
            outcome.take(judge.process(batch))
    outcome.finish(judge.due_rows())
    return outcome


def with_feedback(at: int, *controls: Control) -> list[tuple[Sides | None, int, int]]:
    return [(None, 0, at), (said.sides(*controls), at, len(RECORDS))]


def stranger(incident: Incident) -> tuple[Event, ...]:
    """Requests of the incident's evidence, as ClickHouse has them."""
    sample = incident.findings[0].sample
    return (
        Event(
            key_id=incident.key_id, ts_us=START_US + 64 * HOUR_US, client_ip=sample.client_ip, method=sample.method,
            route=sample.route, status=sample.status, outcome="success", user_agent="python-requests/2.31",
        ),
    )  # fmt: skip


def test_expected_closes_the_open_incident_and_says_what_it_changed(opened: tuple[int, Incident]) -> None:
    at, incident = opened
    outcome = judged(with_feedback(at, said.feedback(incident, "expected", events=stranger(incident))), [])
    revisions = [x for (ident, _), x in sorted(outcome.incidents.items()) if ident == incident.incident_id]
    assert [x.change for x in revisions] == ["opened", "closed"]
    assert revisions[-1].label == "expected"
    ((row),) = outcome.rows["applied"].values()
    assert "closed the incident" in row[6] and "admitted 1 client" in row[6]  # its network has no number to name
    assert row[8] == str(at), "in effect from the first offset after its adoption"


def test_malicious_leaves_it_open_and_labels_it(opened: tuple[int, Incident]) -> None:
    at, incident = opened
    outcome = judged(with_feedback(at, said.feedback(incident, "malicious")), [])
    revisions = [x for (ident, _), x in sorted(outcome.incidents.items()) if ident == incident.incident_id]
    assert revisions[1].label == "malicious" and revisions[1].state == "open"
    assert all(x.label == "malicious" for x in revisions[1:])
    ((row),) = outcome.rows["applied"].values()
    assert "never adopted" in row[6]


def test_a_forgotten_key_begins_anew_and_its_open_incident_ends_without_its_content(
    opened: tuple[int, Incident],
) -> None:
    at, incident = opened
    judge, outcome = core(), Outcome()
    for batch in slices(RECORDS[:at], [], 0):
        outcome.take(judge.process(batch))
    known = set(judge._state.slots)
    outcome.finish(judge.adopt(said.sides(said.forget(incident.key_id))))
    effects = judge.process(slices(RECORDS[at : at + 1], [], at)[0])
    closed = next(each for each in effects.incidents if each.incident_id == incident.incident_id)
    assert (closed.change, closed.text, closed.findings) == ("closed", "the key was erased", ())
    assert effects.rows["applied"]["effect"] == ["forgotten"]
    used_again = effects.rows.get("requests", {}).get("key_id", [])
    assert set(judge._state.slots) == known - {incident.key_id} | set(used_again)
    for pool in (judge._state.minutes, judge._state.hours, judge._state.sources):
        named = {judge._state.identities.key_ids[slot] for slot in pool.rows["slot"][pool.rows["live"] == 1]}
        assert None not in named, "a window of nobody would be written under another key's name"
    assert incident.key_id not in effects.rows.get("keys_last_used", {}).get("key_id", []) or used_again


@settings(max_examples=6)
@given(cuts=st.lists(st.integers(1, 1690), max_size=30), crash=st.integers(-1, 1690))
def test_a_key_is_forgotten_at_the_same_place_wherever_slices_end_or_a_crash_lies(cuts: list[int], crash: int) -> None:
    at, incident = at_opening_cached()
    parts = with_feedback(at, said.forget(incident.key_id))
    found, wanted = judged(parts, cuts, crash), judged(parts, [])
    for outcome in (found, wanted):  # what a checkpoint wrote of the key before it was forgotten: erased by `erase`
        for table in ("requests_1m", "requests_1h", "key_source_1h"):
            rows = outcome.rows[table].items()
            outcome.rows[table] = {own: row for own, row in rows if own[0] != incident.key_id}
    assert_same(found, wanted)


@settings(max_examples=12)
@given(
    cuts=st.lists(st.integers(1, 1690), max_size=30),
    crash=st.integers(-1, 1690),
    verdict=st.sampled_from(["expected", "malicious"]),
)
def test_the_same_log_and_the_same_word_give_the_same_wherever_slices_end_or_a_crash_lies(
    cuts: list[int], crash: int, verdict: Any
) -> None:
    at, incident = at_opening_cached()
    parts = with_feedback(at, said.feedback(incident, verdict, events=stranger(incident)), said.mute(key_id="pk_3"))
    whole, cut = judged(parts, []), judged(parts, cuts, crash)
    assert_same(cut, whole)


_OPENING: list[tuple[int, Incident]] = []


def at_opening_cached() -> tuple[int, Incident]:
    if not _OPENING:
        _OPENING.append(at_opening())
    return _OPENING[0]


def test_a_word_said_again_is_heard_once_and_another_one_again(opened: tuple[int, Incident]) -> None:
    at, incident = opened
    first, second = said.feedback(incident, "malicious"), said.feedback(incident, "expected")
    middle = at + 5
    parts = [
        (None, 0, at), (said.sides(first), at, middle), (said.sides(first), middle, middle + 5),
        (said.sides(first, second), middle + 5, len(RECORDS)),
    ]  # fmt: skip
    outcome = judged(parts, [])
    words = [(row[1], row[4]) for row in outcome.rows["applied"].values()]
    assert words == [("0", "malicious"), ("1", "expected")]


def test_what_is_said_of_a_key_without_state_changes_nothing(opened: tuple[int, Incident]) -> None:
    at, incident = opened
    other = msgspec.structs.replace(incident, key_id="somebody_else")
    outcome = judged(with_feedback(at, said.feedback(other, "expected")), [])
    assert "applied" not in outcome.rows


def one_key() -> tuple[KeyCore, int]:
    """A key that was used from home for 20 days, and the time then."""
    judge = core()
    life = [
        record(Event(
            key_id="pk_7", ts_us=START_US + day * DAY_US + k * 60_000_000, client_ip="8.8.8.8", method="GET",
            route="/v1/a", status=200, outcome="success", user_agent="curl/8", request_id=f"{day}/{k}",
        ))
        for day in range(20) for k in range(3)
    ]  # fmt: skip
    judge.process(slices(life, [])[0])
    return judge, START_US + 20 * DAY_US


def abroad(now_us: int, k: int = 0) -> Event:
    return Event(
        key_id="pk_7", ts_us=now_us + k * 1_000_000, client_ip="185.220.101.4", method="GET", route="/v1/b", status=200,
        outcome="success", user_agent="Go-http-client/2", request_id=f"s{now_us}/{k}",
    )  # fmt: skip


def table_of(judge: KeyCore, detector: str, table: str) -> Any:
    slot = judge.state.slots["pk_7"]
    return records(judge.state.keys.data)[slot][detector][table]


def first_use_bits(judge: KeyCore, now_us: int) -> dict[str, float]:
    rows = judge.process(slices([record(abroad(now_us, k)) for k in range(3)], [], judge.next_offset)[0]).rows
    found = rows.get("findings", {"detector": [], "bits": []})
    return dict(zip(found["detector"], found["bits"], strict=True))


def test_the_values_of_an_expected_incident_are_known_from_then_on() -> None:
    judge, now_us = one_key()
    assert "geography" in first_use_bits(restored(judge), now_us)
    incident = Incident(
        incident_id="cd" * 16, key_id="pk_7", rule="visit", revision=1, change="opened", state="open",
        severity="medium", rung="observe", opened_at="2026-06-17T20:26:40.000000Z",
        last_at="2026-06-17T20:26:40.000000Z",
    )  # fmt: skip
    judge.adopt(said.sides(said.feedback(incident, "expected", events=(abroad(now_us - HOUR_US),))))
    assert not first_use_bits(judge, now_us)
    event = judge._enricher.columns(fields_of([abroad(now_us)]), [0], constant(None, 1)).columns[0]
    assert find(table_of(judge, "geography", "networks"), event["asn"]) >= 0
    assert find(table_of(judge, "novel_client", "clients"), event["client"]) >= 0


def test_what_was_adopted_of_a_malicious_one_is_forgotten_and_what_was_known_before_stays() -> None:
    judge, now_us = one_key()
    for day in range(3):  # learned: no incident was open
        judge.process(slices([record(abroad(now_us + day * DAY_US))], [], judge.next_offset)[0])
    event = judge._enricher.columns(fields_of([abroad(now_us)]), [0], constant(None, 1)).columns[0]
    home = judge._enricher.columns(
        fields_of([Event(key_id="pk_7", ts_us=now_us, client_ip="8.8.8.8")]), [0], constant(None, 1)
    ).columns[0]
    slot = judge.state.slots["pk_7"]
    key = judge.state.keys.data[slot : slot + 1]
    values = {"asn": {int(event["asn"]), int(home["asn"])}, "client": {int(event["client"])}}
    before = find(table_of(judge, "geography", "networks"), event["asn"])
    assert before >= 0
    assert feedback.forget(DETECTORS, key, values, now_us - HOUR_US) >= 2
    assert find(table_of(judge, "geography", "networks"), event["asn"]) < 0
    assert find(table_of(judge, "geography", "networks"), home["asn"]) >= 0


@given(bits=st.lists(st.floats(-3, 60), max_size=30), own=st.lists(st.floats(-3, 60), min_size=1, max_size=4))
def test_taking_a_run_out_of_the_calibration_undoes_its_counting(bits: list[float], own: list[float]) -> None:
    shared, key = np.zeros(1, shared_dtype(DETECTORS)), np.zeros(1, key_dtype(DETECTORS))
    known, row = records(shared)[0]["calibration"], records(key)[0]
    shared["since_us"] = 499 * HOUR_US  # as young as the key: it counts
    for each in bits:
        calibration.count(known, 0, calibration.stratum_of(2.0), each, -1)
    before = shared["calibration"]["counts"].copy()
    for hour, each in enumerate(own):
        for name in ("start_us", "last_us", "first_seen_us"):
            row["visit"][name] = (500 + hour) * HOUR_US
        fusion.count_run(row["fusion"], row["visit"], known, 0, each)
    assert not feedback.uncount(key, shared, "visit", (500 + len(own)) * HOUR_US)  # its visit goes on
    row["visit"]["start_us"] = 600 * HOUR_US
    assert not feedback.uncount(key, shared, "visit", 400 * HOUR_US)  # of no run that is known
    assert feedback.uncount(key, shared, "visit", 500 * HOUR_US)
    assert np.array_equal(shared["calibration"]["counts"], before)
    assert not feedback.uncount(key, shared, "visit", 500 * HOUR_US)  # once


def test_a_count_that_a_young_key_never_made_is_not_taken_out() -> None:
    """It teaches nobody in its first week; what its run holds is of before or of after."""
    shared, key = np.zeros(1, shared_dtype(DETECTORS)), np.zeros(1, key_dtype(DETECTORS))
    known, row = records(shared)[0]["calibration"], records(key)[0]
    shared["since_us"] = 1
    calibration.count(known, 0, 0, 20.0, -1)
    for name in ("start_us", "last_us", "first_seen_us"):
        row["visit"][name] = 500 * HOUR_US
    fusion.count_run(row["fusion"], row["visit"], known, 0, 20.0)
    before = shared["calibration"].copy()
    row["visit"]["start_us"] = 600 * HOUR_US
    assert not feedback.uncount(key, shared, "visit", 520 * HOUR_US)
    assert np.array_equal(shared["calibration"], before)


def test_a_visit_that_goes_on_is_not_taken_out_but_will_not_be_counted() -> None:
    shared, key = np.zeros(1, shared_dtype(DETECTORS)), np.zeros(1, key_dtype(DETECTORS))
    key["visit"]["start_us"], key["fusion"]["series_us"] = 5, 3
    assert not feedback.uncount(key, shared, "visit", 7)
    assert feedback.condemn(key, 7)
    assert key["fusion"]["under"][0] == 1
    assert key["fusion"]["series_severity"][0] == 2


def test_confirming_an_incident_of_another_series_adopts_nothing() -> None:
    key = np.zeros(1, key_dtype(DETECTORS))
    key["fusion"]["series_us"], key["visit"]["tainted"] = 100 * DAY_US, 1
    assert not feedback.confirm(key, 3 * DAY_US, 120 * DAY_US)
    assert key["visit"]["tainted"][0] == 1
    assert feedback.confirm(key, 101 * DAY_US, 102 * DAY_US)
    assert key["visit"]["tainted"][0] == 0


def test_the_clean_run_without_a_word_is_the_one_before(opened: tuple[int, Incident]) -> None:
    assert_same(judged([(None, 0, len(RECORDS))], []), run(slices(RECORDS, []))[0])
