"""What a key partition tells: each key and network once, wherever slices end, and enough to see one source."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.tree import Config, Worker
from pipeline.core import Message
from pipeline.flow import KeyCore
from pipeline.sight import REFUSALS_AN_HOUR
from schemas.event import Event
from schemas.key_event import KeyEvent
from schemas.sighting import FLEET, Beat, Beats, Break, Sighting
from tests.pipeline.log_of_requests import ABROAD, HOME, HOUR_US, START_US, Record, core, log, record, slices
from tests.pipeline.test_flow import restored

Told = Sighting | Beat | Break | KeyEvent
_decode = msgspec.json.Decoder(Sighting | Beats | Break).decode


def plain(messages: list[Message]) -> list[Told]:
    """One by one, beats out of their bundles."""
    out: list[Told] = []
    for message in messages:
        if message.lane == "key_events":
            out.append(msgspec.json.decode(message.value, type=KeyEvent))
            continue
        told = _decode(message.value)
        out += told.beats if isinstance(told, Beats) else [told]
    return out


def tell(records: list[Record], cuts: list[int], judge: KeyCore | None = None) -> list[Told]:
    judge = judge or core()
    return plain([message for part in slices(records, cuts) for message in judge.process(part).messages])


def used(key: str, ts_us: int, address: str, status: int = 200) -> Event:
    outcome = {401: "invalid"}.get(status, "success")
    return Event(
        key_id=key, ts_us=ts_us, client_ip=address, status=status, outcome=outcome, request_id=f"{key}{ts_us}{address}"
    )


def sighted(told: list[Told], kind: str) -> list[Sighting]:
    return [each for each in told if isinstance(each, Sighting) and each.kind == kind]


def test_a_network_that_is_new_to_a_key_is_told_once() -> None:
    home = [used("pk_9", START_US + hour * HOUR_US, HOME[0]) for hour in range(0, 60, 4)]
    away = [used("pk_9", START_US + (60 + hour) * HOUR_US, ABROAD[0]) for hour in range(4)]
    told = tell([record(event) for event in (*home, *away)], [])
    assert [(each.kind, each.asn) for each in told if isinstance(each, Sighting)] == [("first", 15169), ("used", 60729)]
    (seen,) = sighted(told, "used")
    assert (seen.prefix, seen.country, seen.known_days) == ("185.220.101.0/24", "DE", 2)


def test_a_known_key_tells_its_owner() -> None:
    told = tell([record(used("pk_0", START_US, HOME[0]))], [])
    assert sighted(told, "first")[0].owner == "acme"


def test_who_names_many_keys_is_told_a_bounded_number_of_times() -> None:
    guesses = [record(used(f"made_up_{n}", START_US + n * 1000, ABROAD[0], 401)) for n in range(500)]
    assert len(sighted(tell(guesses, []), "refused")) == REFUSALS_AN_HOUR


def test_a_client_that_retries_is_told_once_a_day() -> None:
    retries = [record(used("pk_1", START_US + n * 60_000_000, HOME[0], 401)) for n in range(100)]
    assert len(sighted(tell(retries, []), "refused")) == 1


def test_a_key_beats_once_in_each_hour_of_its_own() -> None:
    busy = [record(used("pk_1", START_US + n * 60_000_000, HOME[0])) for n in range(600)]
    beats = [each for each in tell(busy, []) if isinstance(each, Beat)]
    assert len(beats) in (10, 11)
    assert {later.ts_us - earlier.ts_us for earlier, later in pairwise(beats[1:])} == {HOUR_US}


def test_refused_requests_in_a_keys_name_are_no_beats_and_take_none_from_its_holder() -> None:
    """Else they keep a key alive whose owner was cut off, or make a fleet that stops at once, for who knows the ids."""
    hours = [START_US + hour * HOUR_US for hour in range(10)]
    tries = [used("pk_1", ts_us + second * 1_000_000, ABROAD[0], 401) for ts_us in hours for second in range(-9, 9)]
    assert not [each for each in tell([record(event) for event in tries], []) if isinstance(each, Beat)]
    own = [used("pk_1", ts_us + 10_000_000, HOME[0]) for ts_us in hours]
    events = sorted([*tries, *own], key=lambda event: event.ts_us)
    for cuts in ([], list(range(1, len(events)))):
        beats = [each for each in tell([record(event) for event in events], cuts) if isinstance(each, Beat)]
        assert [each.ts_us for each in beats] == [event.ts_us for event in own]


def test_hours_of_different_keys_begin_at_different_moments() -> None:
    keys = [record(used(f"pk_{n}", START_US + hour * HOUR_US + 1, HOME[0])) for hour in range(2) for n in range(50)]
    many = [used(f"pk_{n}", START_US + 60_000_000 * minute, HOME[0]) for minute in range(180) for n in range(20)]
    beats = [each for each in tell([record(event) for event in many], []) if isinstance(each, Beat)]
    second = {each.key_id: each.ts_us for each in beats if each.ts_us > START_US}
    assert len(set(second.values())) > 10
    assert keys


def test_an_incident_is_told_to_the_fleet_with_its_cause() -> None:
    told = [each for each in tell(log(1), []) if isinstance(each, Break) and each.incident_id]
    assert [each.key_id for each in told] == ["pk_1"]
    assert told[0].detectors
    assert told[0].route.startswith("GET ")


def test_odd_errors_are_told_to_the_fleet_without_an_incident() -> None:
    odd = [each for each in tell(log(1), []) if isinstance(each, Break) and not each.incident_id]
    assert odd
    assert {each.detectors for each in odd} == {("errors",)}


def test_odd_errors_say_whether_their_caller_held_the_key() -> None:
    """Anybody can scan in a key's name; the fleet must not take that for what befalls the holders of many."""
    life = [used("pk_1", START_US + hour * HOUR_US, HOME[0]) for hour in range(100)]
    since_us = START_US + 101 * HOUR_US
    paths = [f"/v1/{first}{second}le" for first in ("ta", "ru", "pi", "so", "ne") for second in "bdgkmp"]
    for outcome, refused in (("invalid", True), ("denied", False)):
        scan = [
            msgspec.structs.replace(used("pk_1", since_us + n, ABROAD[0], 403), path=path, outcome=outcome)
            for n, path in enumerate(paths)
        ]
        told = tell([record(event) for event in (*life, *scan)], [])
        odd = [each for each in told if isinstance(each, Break) and not each.incident_id]
        assert odd and {each.stranger for each in odd} == {refused}, outcome


@settings(max_examples=10)
@given(seed=st.integers(1, 3), cuts=st.lists(st.integers(1, 1690), max_size=20))
def test_where_slices_end_changes_nothing_of_what_is_told(seed: int, cuts: list[int]) -> None:
    records = log(seed)
    assert sorted(map(repr, tell(records, cuts))) == sorted(map(repr, tell(records, [])))


@settings(max_examples=6)
@given(at=st.integers(1, 1690))
def test_a_core_that_goes_on_after_a_crash_tells_nothing_anew(at: int) -> None:
    records = log(2)
    first, rest = slices(records, [at])
    before = core()
    told = before.process(first).messages
    told += restored(before).process(rest).messages
    assert sorted(map(repr, plain(told))) == sorted(map(repr, tell(records, [])))


def test_it_can_be_turned_off() -> None:
    silent = core(Config(worker=Worker(tell=False)))
    assert tell(log(1), [], silent) == []


def test_fleet_messages_come_to_one_place() -> None:
    messages = [message for part in slices(log(1), []) for message in core().process(part).messages]
    assert {message.key for message in messages if b'"beats"' in message.value} == {FLEET.encode()}


@pytest.mark.parametrize("outcome", ["unknown", "invalid", "expired", "disabled"])
def test_a_request_that_proves_nothing_is_no_use(outcome: str) -> None:
    event = msgspec.structs.replace(used("pk_0", START_US, HOME[0]), outcome=outcome)
    told = tell([record(event)], [])
    assert not sighted(told, "first") or outcome == "unknown"


def test_what_may_be_a_use_a_beat_and_a_refusal_at_once_is_told_as_all_three() -> None:
    """A format that says no outcome: its 401 may be of a key's holder. All keys at once, each after a day's pause."""
    keys = [f"pk_{n}" for n in range(12)]
    began = [used(key, START_US + n, HOME[0]) for n, key in enumerate(keys)]
    refused = [
        msgspec.structs.replace(used(key, START_US + 30 * HOUR_US + n, ABROAD[0], 401), source="combined", outcome="")
        for n, key in enumerate(keys)
    ]
    told = tell([record(event) for event in (*began, *refused)], [len(began)])
    assert len(sighted(told, "refused")) == min(len(keys), REFUSALS_AN_HOUR)
    assert {each.key_id for each in told if isinstance(each, Beat)} == set(keys)
