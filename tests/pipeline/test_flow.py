"""The core as a function of the log: wherever slices end, wherever it was stopped and restored, the same comes out."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.tree import Config, Worker
from pipeline.core import Effects, Slice
from pipeline.errors import Fatal
from pipeline.flow import KeyCore
from schemas.event import Event
from schemas.incident import Incident
from tests.pipeline.log_of_requests import GEO, HOUR_US, START_US, Outcome, Record, core, log, record, slices
from tests.pipeline.restoring import carried


def run(parts: list[Slice], judge: KeyCore | None = None) -> tuple[Outcome, KeyCore]:
    judge = judge or core()
    outcome = Outcome()
    for part in parts:
        outcome.take(judge.process(part))
    outcome.finish(judge.due_rows())
    return outcome, judge


def restored(old: KeyCore, config: Config | None = None) -> KeyCore:
    """As after a crash: only what a checkpoint would hold goes over, block by block."""
    return carried(old, core(config), old.meta())


def assert_same(one: Outcome, other: Outcome) -> None:
    assert one.incidents == other.incidents
    assert one.rejects == other.rejects
    assert one.rows.keys() == other.rows.keys()
    for table, rows in one.rows.items():
        assert rows == other.rows[table], table


@pytest.fixture(scope="module")
def clean() -> tuple[Outcome, KeyCore]:
    return run(slices(log(1), []))


def test_the_log_brings_an_incident_findings_and_all_aggregates(clean: tuple[Outcome, KeyCore]) -> None:
    outcome, judge = clean
    assert {x.key_id for x in outcome.incidents.values()} == {"pk_1"}
    assert set(outcome.rows) >= {"requests", "requests_1m", "requests_1h", "key_source_1h", "findings", "incidents"}
    assert len(judge.state.slots) == 6


def test_every_request_is_counted_once(clean: tuple[Outcome, KeyCore]) -> None:
    outcome, _ = clean
    requests = len(outcome.rows["requests"])
    per_minute = sum(int(row[4]) for row in outcome.rows["requests_1m"].values())
    per_source = sum(int(row[10]) for row in outcome.rows["key_source_1h"].values())
    assert requests == per_minute == per_source == 1500 + 150 + 10


@settings(max_examples=15)
@given(seed=st.integers(1, 3), cuts=st.lists(st.integers(1, 1690), max_size=40))
def test_where_slices_end_changes_nothing(seed: int, cuts: list[int]) -> None:
    records = log(seed)
    assert_same(run(slices(records, cuts))[0], run(slices(records, []))[0])


def test_one_record_at_a_time_gives_what_one_slice_gives(clean: tuple[Outcome, KeyCore]) -> None:
    records = log(1)
    assert_same(run(slices(records, range(len(records))))[0], clean[0])


@settings(max_examples=10)
@given(at=st.integers(1, 1690))
def test_a_core_restored_from_its_blocks_goes_on_as_if_nothing_had_been(at: int) -> None:
    records = log(2)
    whole, _ = run(slices(records, []))
    first, rest = slices(records, [at])
    outcome = Outcome()
    before = core()
    outcome.take(before.process(first))
    outcome.finish(before.due_rows())
    after = restored(before)
    outcome.take(after.process(rest))
    outcome.finish(after.due_rows())
    assert_same(outcome, whole)


def test_a_slice_that_comes_again_changes_nothing(clean: tuple[Outcome, KeyCore]) -> None:
    parts = slices(log(1), [400, 800])
    again, _ = run([parts[0], parts[1], parts[0], parts[1], parts[2], parts[2]])
    assert_same(again, clean[0])


def test_evicting_keys_loses_no_count() -> None:
    records = log(3, keys=12)
    small = Config(worker=Worker(max_keys_per_partition=4))
    outcome, judge = run(slices(records, [300, 900]), core(small))
    assert len(judge.state.slots) <= 4
    assert sum(int(row[4]) for row in outcome.rows["requests_1m"].values()) == len(outcome.rows["requests"])
    assert_same(outcome, run(slices(records, [17, 450, 451, 1200]), core(small))[0])


def test_an_unknown_key_that_never_authenticates_gets_no_state() -> None:
    junk = [record(Event(key_id=f"made_up_{n}", ts_us=START_US + n, status=401, outcome="invalid")) for n in range(500)]
    outcome, judge = run(slices(junk, []))
    assert not judge.state.slots
    assert len(outcome.rows["requests"]) == 500


def test_an_event_from_the_future_is_refused_and_moves_no_watermark() -> None:
    event = Event(key_id="pk_0", ts_us=START_US, outcome="success")
    ahead = msgspec.structs.replace(event, ts_us=START_US + 10**13)
    key, value, _ = record(ahead)
    outcome, judge = run(slices([record(event), (key, value, START_US // 1000)], []))
    assert outcome.rejects == {1: "future"}
    assert judge.state.meta.watermark_us == START_US - 120_000_000


def test_a_late_event_is_not_where_a_key_was_used_last() -> None:
    def seen(address: str, ts_us: int) -> Event:
        return Event(key_id="pk_0", ts_us=ts_us, client_ip=address, outcome="success", request_id=address)

    records = [record(seen("8.8.8.8", START_US)), record(seen("9.9.9.9", START_US - 3 * HOUR_US))]
    for cuts in ([], [1]):
        outcome, _ = run(slices(records, cuts))
        ((row),) = outcome.rows["keys_last_used"].values()
        assert "8.8.8.8" in row


@pytest.mark.parametrize("cuts", [[], [1], [2], [1, 2, 3]])
def test_refused_requests_in_a_keys_name_are_no_use_of_it(cuts: list[int]) -> None:
    """Else an unused key looks used, its network is a stranger's, and what is unused is never revoked."""

    def seen(address: str, minute: int, outcome: str = "success") -> Record:
        ts_us = START_US + minute * 60_000_000
        return record(Event(key_id="pk_0", ts_us=ts_us, client_ip=address, outcome=outcome, request_id=f"r{minute}"))

    before, own, after = seen("9.9.9.9", 0, "invalid"), seen("8.8.8.8", 1), seen("9.9.9.9", 1, "invalid")
    outcome, _ = run(slices([before, own, after, seen("9.9.9.9", 5, "expired")], cuts))
    ((row),) = outcome.rows["keys_last_used"].values()
    at_us = START_US + 60_000_000
    assert row[1:4] == (str(at_us), str(at_us), "8.8.8.8") and int(row[-1]) == at_us << 12
    assert "keys_last_used" not in run(slices([before, seen("9.9.9.9", 5, "expired")], cuts))[0].rows


def test_what_is_refused_twice_counts_once_whenever_its_holder_came_last() -> None:
    refused = Event(key_id="pk_0", ts_us=START_US + 9, client_ip="9.9.9.9", outcome="invalid", request_id="r")
    own = msgspec.structs.replace(refused, ts_us=START_US, outcome="success", request_id="own")
    outcome, _ = run(slices([record(own), record(refused), record(refused)], [2]))
    assert len(outcome.rows["requests"]) == 2


def test_a_late_event_makes_a_part_of_its_own() -> None:
    def at(minutes: int) -> Event:
        return Event(key_id="pk_0", ts_us=START_US + minutes * 60_000_000, outcome="success", request_id=f"m{minutes}")

    stale = msgspec.structs.replace(at(0), request_id="late")
    outcome, _ = run(slices([record(at(0)), record(at(30)), record(stale)], [2]))
    minute = str(at(0).ts_us // 60_000_000 * 60)
    parts = {row[2]: row[4] for row in outcome.rows["requests_1m"].values() if row[1] == minute}
    assert parts == {"epoch/0/0": "1", "epoch/0/2": "1"}


def test_a_flood_of_rejects_stops_the_worker_instead_of_dead_lettering_everything() -> None:
    judge = core(Config(worker=Worker(max_reject_run=100)))
    with pytest.raises(Fatal, match=r"undecodable.*another format"):
        run(slices([(b"k", b"not json", START_US // 1000)] * 300, [60, 120, 180]), judge)


def test_a_restart_does_not_let_the_same_flood_pass_again() -> None:
    limited = Config(worker=Worker(max_reject_run=100))
    judge, parts = core(limited), slices([(b"k", b"not json", START_US // 1000)] * 120, [60])
    judge.process(parts[0])
    with pytest.raises(Fatal, match="another format"):
        restored(judge, limited).process(parts[1])


def test_the_first_adoption_is_a_row_like_every_other(clean: tuple[Outcome, KeyCore]) -> None:
    adopted = {row[4]: row[5] for row in clean[0].rows["adoptions"].values()}
    assert adopted == {"catalogue": "test-1", "geo": GEO.build, "config": "c1"}


def test_ticks_close_windows_and_incidents_of_an_idle_partition() -> None:
    outcome, judge = run(slices(log(1), []))
    last = max(int(row[20]) for row in outcome.rows["requests_1m"].values()) // 1000  # last_ts
    tick = Slice("api.requests", 0, [99_999], [b""], [b""], [last + 3 * 3_600_000], frozenset([0]))
    outcome.take(judge.process(tick))
    assert {x.state for x in outcome.incidents.values() if x.change == "closed"} == {"closed"}
    assert not judge.state.open
    assert not (judge.state.minutes.rows["live"] == 1).any()


def test_the_state_of_a_key_stays_within_its_bytes(clean: tuple[Outcome, KeyCore]) -> None:
    state = clean[1].state
    assert state.keys.dtype.itemsize + state.book.dtype.itemsize + 200 <= 2200
    assert np.all(state.keys.data["visit"]["start_us"][:6] > 0)


def test_a_mirror_of_the_log_into_its_own_topic_changes_no_incident() -> None:
    """Copies of what came before, in order, in the middle of an attack: hours old but for the last ones."""
    records = log(3, events=3_000)
    told = judged(records)
    at = told.incidents[0].offset + 1 + 5
    copies = [(key, value, records[at][2]) for key, value, _ in records[at - 1_500 : at]]
    again = judged(records[:at] + copies + records[at:])
    assert [_seen(each) for each in again.incidents] == [_seen(each) for each in told.incidents]
    assert again.counts["late"] > 1_000


def judged(records: list[Record]) -> Effects:
    return core().process(slices(records, [])[0])


def _seen(incident: Incident) -> tuple[str, int, str, str, float]:
    return incident.incident_id, incident.revision, incident.change, incident.last_at, incident.bits


def test_a_thief_hides_no_request_behind_a_refused_one_of_the_same_id_and_second() -> None:
    times = [START_US + second * 1_000_000 for second in range(20)]
    pairs = [(ts_us, told) for ts_us in times for told in (("invalid", 401, "/v1/nothing"), ("success", 200, "/v1/x"))]
    events = [
        Event(key_id="pk_0", ts_us=ts_us, request_id="same", outcome=outcome, status=status, path=path)
        for ts_us, (outcome, status, path) in pairs
    ]
    (part,) = slices([record(event) for event in events], [])
    assert core().process(part).counts["duplicates"] == 0


def test_what_callers_ask_for_who_do_not_hold_the_key_makes_no_rows_of_its_own() -> None:
    """Anybody can name a key and make up paths and agents: a million such requests took a gigabyte."""
    tries = [
        Event(
            key_id="pk_0", ts_us=START_US + number, client_ip="8.8.8.8", outcome="invalid", status=401,
            path=f"/v1/{'abcdefghij'[number % 10]}x{'abcdefghij'[number // 10]}", user_agent=f"agent{number % 10}/1",
        )
        for number in range(100)
    ]  # fmt: skip
    held = [msgspec.structs.replace(each, outcome="success", status=200) for each in tries]
    for events, rows, named in ((tries, 1, False), (held, 100, True)):
        judge = core()
        (part,) = slices([record(event) for event in events], [])
        judge.process(part)
        sources = judge.state.sources.rows
        assert (sources["live"] == 1).sum() == rows
        assert int(sources["requests"].sum()) == 100
        assert bool(judge.state.source_texts.rows) == named
