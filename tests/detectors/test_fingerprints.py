"""A copied user agent: a known client whose connection has a TLS fingerprint that it never had for this key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import DETECTORS, feedback, fingerprints
from detectors.detector import READING
from detectors.known_values import ADMITTED, SLOT
from detectors.novel_client import CLIENTS, NOVEL_CLIENT, PENDING, SHARED
from detectors.records import reading_of, records
from tests.detectors.one_key import DAY_US, HOUR_US, MONDAY_US, OneKey, event_at, record
from tests.detectors.one_more import INDEX, bits_of, one_more
from tests.detectors.streams import CONTEXT, Array, Judge, daily_visits, place

pytestmark = pytest.mark.timeout(900)

OWN, COPY, LIBRARY = 500, 77, 900
CLIENT, TOOL = 5, 6


def a_life(days: int = 90, per_day: int = 4) -> Array:
    """One client with one fingerprint, version 3."""
    events = daily_visits(days, per_day)
    events["fingerprint"], events["version"] = OWN, 3
    return events


def visits_by(key: OneKey, *brought: int, at_day: int = 0, version: int = 3, client: int = CLIENT) -> list[float]:
    """Bits of visits, three hours apart, of two requests each with these fingerprints."""
    told = []
    for number, fingerprint in enumerate(brought):
        bits = 0.0
        for request in range(2):
            event = event_at(MONDAY_US + at_day * DAY_US + number * 3 * HOUR_US + request * 1_000_000)
            event.sees, event.client, event.fingerprint, event.version = 127, client, fingerprint, version
            bits = max(bits, float(key.feed(event).bits))
        told.append(bits)
    return told


def owned(visits: int = 400) -> OneKey:
    """A key whose client's fingerprint has stood as long as counts."""
    key = OneKey(NOVEL_CLIENT)
    visits_by(key, *[OWN] * visits)
    assert fingerprints.standing(key.state.clients[0]) == fingerprints.LONGEST
    return key


def test_the_owners_user_agent_with_another_tls_stack_is_a_finding_and_evidence() -> None:
    life = a_life()
    assert bits_of("novel_client", life, one_more(life, fingerprint=COPY)) >= 6
    judge = Judge(1)
    judge.feed(life)
    judge.feed(one_more(life, fingerprint=COPY))
    [row] = [row for row in judge.found if row["detector"] == INDEX["novel_client"]]
    assert row["a"] == 5.0
    assert row["lr_stranger"] > 4


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, "the owner's own"),
        ({"fingerprint": 0}, "none is logged"),
        ({"fingerprint": LIBRARY, "version": 4}, "the client was updated, TLS library and all"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_innocent_visit_tells_nothing(changed: dict[str, int], why: str) -> None:
    life = a_life()
    assert bits_of("novel_client", life, one_more(life, **changed)) == 0, why


def test_the_first_fingerprint_that_a_gateway_logs_is_the_clients_own() -> None:
    key = OneKey(NOVEL_CLIENT)
    assert max(visits_by(key, *[0] * 100)[1:]) == 0
    assert visits_by(key, OWN, OWN, OWN, at_day=30) == [0, 0, 0]


def test_a_fingerprint_of_a_young_key_says_little() -> None:
    key = OneKey(NOVEL_CLIENT)
    assert max(visits_by(key, OWN, COPY)[1:]) <= 2


def test_one_visit_of_a_stranger_does_not_make_his_the_owners() -> None:
    key = owned()
    told = visits_by(key, COPY, OWN, COPY, OWN, at_day=90)
    assert told[0] > told[2] > 3
    assert told[1] == told[3] == 0


def test_a_library_that_was_updated_without_a_version_is_told_less_each_time_and_then_known() -> None:
    key = owned()
    told = visits_by(key, *[LIBRARY] * 8, at_day=90)
    assert told[0] > told[1] > told[2] > 0
    assert told[5:] == [0, 0, 0]
    assert visits_by(key, COPY, at_day=93)[0] <= 4, "and has to stand for as long again"


def test_a_browser_with_a_new_ja3_at_each_connection_is_never_told() -> None:
    key = OneKey(NOVEL_CLIENT)
    assert max(visits_by(key, *range(1, 300))[1:]) <= 1


def test_what_was_not_learned_leaves_no_trace() -> None:
    key = owned()
    event = event_at(MONDAY_US + 90 * DAY_US)
    event.sees, event.client, event.fingerprint, event.version = 127, CLIENT, COPY, 3
    key.feed(event, weight=0.0)
    before = key.state.clients[0].tobytes()
    key.turn_visit(MONDAY_US + 91 * DAY_US, 1.0)
    assert key.state.clients[0].tobytes() == before
    assert int(key.state.brought) == 0


def test_a_stranger_in_the_owners_visit_is_told_and_kept_apart_from_him() -> None:
    key = owned()
    told = []
    for request, fingerprint in enumerate((OWN, COPY, OWN)):
        event = event_at(MONDAY_US + 90 * DAY_US + request * 1_000_000)
        event.sees, event.client, event.fingerprint, event.version = 127, CLIENT, fingerprint, 3
        told.append(float(key.feed(event).bits))
    assert told[1] > 6
    assert told[0] == told[2] == 0


def test_of_a_client_that_gives_way_at_once_no_other_gets_the_fingerprint() -> None:
    """Two new clients in one visit of a key whose table is full of used ones: the second takes the first one's slot."""
    key = OneKey(NOVEL_CLIENT)
    for number in range(CLIENTS):
        visits_by(key, *[OWN] * 30, at_day=10 * number, client=20 + number)
    for request, client in enumerate((30, 31)):
        event = event_at(MONDAY_US + 50 * DAY_US + request * 1_000_000)
        event.sees, event.client, event.fingerprint, event.version = 127, client, COPY + request, 3
        key.feed(event)
    before = {int(slot.value): fingerprints.known(slot) for slot in key.state.clients}
    key.turn_visit(MONDAY_US + 51 * DAY_US, 1.0)
    after = {int(slot.value): fingerprints.known(slot) for slot in key.state.clients}
    assert 30 not in after and 31 in after
    assert all(after[client] == before[client] for client in after if client in before)


def test_of_a_new_client_the_fingerprint_is_no_second_fact() -> None:
    def row(**fields: int) -> dict[str, Any]:
        judge = Judge(1, finding_bits=0.25)
        life = a_life()
        judge.feed(life)
        judge.feed(one_more(life, client=TOOL, **fields))
        return max((r for r in judge.found if r["detector"] == INDEX["novel_client"]), key=lambda r: float(r["bits"]))

    same, other = row(), row(fingerprint=COPY)
    assert same["a"] == other["a"] == 1.0
    assert [same[name] for name in ("bits", "lr_stranger")] == [other[name] for name in ("bits", "lr_stranger")]


def test_beside_a_new_place_it_weighs_no_more_than_a_new_client_does() -> None:
    judge = Judge(1, finding_bits=0.25)
    life = a_life()
    judge.feed(life)
    visit = one_more(life, fingerprint=COPY)
    place(visit, 2)
    visit["address"] = 99
    judge.feed(visit)
    assert max(row["lr_stranger"] for row in judge.found if row["detector"] == INDEX["novel_client"]) <= 0


def test_when_many_keys_change_at_once_a_few_are_told_and_then_none() -> None:
    keys = 30
    judge = Judge(keys)
    life = np.repeat(a_life(), keys)
    life["slot"] = np.tile(np.arange(keys), len(life) // keys)
    life["request"] = np.arange(1, len(life) + 1)
    judge.feed(life)
    visit = life[-keys:].copy()  # all within the same second: nobody's visit has ended when the next one comes
    visit["ts_us"] += DAY_US + np.arange(keys)
    visit["request"] += 1_000_000
    visit["fingerprint"] = LIBRARY
    before = len(judge.found)
    judge.feed(visit)
    told = [row for row in judge.found[before:] if row["detector"] == INDEX["novel_client"]]
    assert 1 <= len(told) <= 4
    assert all(int(row["event"]) - int(visit["request"][0]) < 6 for row in told)


def test_what_a_person_admits_takes_the_place_at_once() -> None:
    judge = Judge(1)
    life = a_life()
    judge.feed(life)
    visit = one_more(life, fingerprint=LIBRARY)
    feedback.admit(DETECTORS, judge.configs, judge.keys, judge.shared, visit[:1])
    before = len(judge.found)
    judge.feed(one_more(life, fingerprint=LIBRARY, later_us=2 * DAY_US))
    assert not [row for row in judge.found[before:] if row["detector"] == INDEX["novel_client"]]


def test_it_is_said_in_words() -> None:
    row = records(np.zeros(1, READING))
    row[0]["a"] = 5.0
    said = "by curl in name, but with a TLS fingerprint that it never had for this key: a copied user agent?"
    assert NOVEL_CLIENT.explain(reading_of(row[0]), CONTEXT) == said


def test_a_fingerprint_has_bits_that_no_client_uses() -> None:
    assert CLIENTS <= fingerprints.AT, "below are marks by slot"
    assert PENDING <= 2, "one bit says which client brought it"


@given(
    marks=st.integers(0, 15), admitted=st.booleans(), brought=st.integers(1, 127), stands=st.integers(0, 3),
    version=st.integers(0, 255), again=st.integers(1, 127),
)  # fmt: skip
def test_what_is_written_is_read_and_nothing_else_is_touched(
    marks: int, admitted: bool, brought: int, stands: int, version: int, again: int
) -> None:
    slot = record(SLOT)
    slot.with_ = marks | (ADMITTED if admitted else 0)
    for each in (again, brought):
        fingerprints.write(slot, each, stands, version)
    assert (fingerprints.known(slot), fingerprints.standing(slot)) == (brought, stands)
    assert not fingerprints.updated(slot, version)
    assert fingerprints.differs(slot, again) == (again != brought)
    assert int(slot.with_) & 15 == marks
    assert bool(int(slot.with_) & ADMITTED) == admitted


@given(st.integers(1, 2**32 - 1))
def test_any_fingerprint_is_one_of_127(number: int) -> None:
    assert 1 <= fingerprints.short(number) <= 127
    assert fingerprints.short(0) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=300))
def test_whatever_peers_tell_a_change_has_a_chance_and_is_never_certain(visits: list[tuple[int, bool]]) -> None:
    shared = record(SHARED)
    for stands, foreign in visits:
        fingerprints.tell_peers(shared, stands, foreign)
        shared.lately += 1.0 if foreign else 0.0
    for stands in range(fingerprints.STANDINGS):
        assert fingerprints.least(stands) <= fingerprints.p_foreign(shared, stands) < 1
    assert (shared.changed <= shared.stood).all()
