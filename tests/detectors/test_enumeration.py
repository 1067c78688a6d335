"""One object after another against a retry of one, a job that always does so, and more requests of the same kind."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from detectors.detector import ERROR_404, ERROR_NONE
from detectors.enumeration import ENUMERATION, LEAST_OBJECTS
from tests.detectors.one_key import DAY_US, MONDAY_US, SECOND_US, OneKey, event_at
from tests.detectors.one_more import bits_of, found_in, one_more
from tests.detectors.streams import CONTEXT, Array, Judge, blank, daily_visits

pytestmark = pytest.mark.timeout(900)

MEMBERS = 77


def visit_of(objects: Array, start_us: int, error: int = ERROR_NONE, pause_us: int = 5 * SECOND_US) -> list[object]:
    """One request an object, on one route."""
    events = []
    for i, number in enumerate(objects):
        event = event_at(start_us + i * pause_us)
        event.route, event.object, event.error = MEMBERS, number, error
        events.append(event)
    return events


LATER_US = MONDAY_US + 20 * DAY_US


@cache
def _poller() -> OneKey:
    key = OneKey(ENUMERATION)
    for day in range(14):
        for event in visit_of(np.arange(60) % 10 + 1, MONDAY_US + day * DAY_US):
            key.feed(event)
    return key


def poller() -> OneKey:
    """A key that asks for the same ten records again and again, six rounds a visit, every day."""
    key = OneKey(ENUMERATION)
    for name in ("state", "shared", "visit"):
        setattr(key, name, getattr(_poller(), name).copy())
    return key


def loudest(key: OneKey, events: list[object]) -> tuple[float, float]:
    """(bits, log2 ratio) at most."""
    readings = [key.feed(event) for event in events]
    return max(float(r.bits) for r in readings), max(float(r.lr_stranger) for r in readings)


def test_a_poller_that_walks_through_ids_at_its_own_pace_is_found() -> None:
    bits, ratio = loudest(poller(), visit_of(np.arange(1_000, 1_060), LATER_US))
    assert bits > 6
    assert ratio > 2


def test_the_same_records_more_often_are_more_requests_and_no_more_objects() -> None:
    bits, ratio = loudest(poller(), visit_of(np.arange(300) % 10 + 1, LATER_US, pause_us=SECOND_US))
    assert bits < 2
    assert ratio == 0


def test_a_job_that_reads_as_many_objects_every_night_is_quiet_and_so_is_a_larger_one() -> None:
    key = OneKey(ENUMERATION)
    for night in range(12):
        for event in visit_of(np.arange(60) + night * 10_000 + 1, MONDAY_US + night * DAY_US):
            reading = key.feed(event)
            assert float(reading.bits) < 3, "64 bits tell 60 objects to within a tenth"
            assert float(reading.lr_stranger) < 0.5
    bits, _ = loudest(key, visit_of(np.arange(180) + 900_000, MONDAY_US + 21 * DAY_US))
    assert bits < 3, "so many more requests: spike's to judge"


def test_addresses_looked_up_one_by_one_are_evidence_and_a_retried_path_is_none() -> None:
    tried, ratio = loudest(poller(), visit_of(np.arange(60) + 5_000, LATER_US, ERROR_404))
    assert tried > 6
    assert ratio > 4
    retried, ratio = loudest(poller(), visit_of(np.full(60, 5_000), LATER_US, ERROR_404))
    assert (retried, ratio) == (0, 0)


def test_a_scan_over_many_routes_is_left_to_errors() -> None:
    events = visit_of(np.arange(60) + 5_000, LATER_US, ERROR_404)
    for i, event in enumerate(events):
        event.route = 100 + i  # type: ignore[attr-defined]
    assert loudest(poller(), events) == (0, 0)


def test_a_client_that_asks_for_what_is_gone_every_day_is_soon_usual() -> None:
    key = poller()
    loud = [
        loudest(key, visit_of(np.arange(30) + 5_000, MONDAY_US + (20 + day) * DAY_US, ERROR_404))[1] for day in range(4)
    ]
    assert loud[0] > 2
    assert loud[3] < 1


def test_who_is_refused_without_holding_the_key_is_no_evidence_and_teaches_nothing() -> None:
    key = poller()
    events = visit_of(np.arange(60) + 5_000, LATER_US, ERROR_404)
    for event in events:
        event.authenticated = 0  # type: ignore[attr-defined]
    assert loudest(key, events) == (0, 0)
    assert int(key.state.wrong_bits) == 0


def test_few_objects_and_young_keys_say_nothing() -> None:
    assert loudest(poller(), visit_of(np.arange(LEAST_OBJECTS - 2) + 500, LATER_US))[0] == 0
    assert loudest(OneKey(ENUMERATION), visit_of(np.arange(60) + 1, MONDAY_US))[0] == 0


def test_what_is_under_an_incident_is_not_learned() -> None:
    key = poller()
    before = float(key.state["objects"]["mean"])
    for event in visit_of(np.arange(60) + 1_000, MONDAY_US + 20 * DAY_US):
        key.feed(event, weight=0.0)
    key.turn_visit(MONDAY_US + 21 * DAY_US, 1.0)
    assert float(key.state["objects"]["mean"]) == before


def test_in_the_pass_the_lookups_open_an_incident_with_errors_and_are_said_in_words() -> None:
    life = daily_visits(30, calls=20)
    life["object"] = np.arange(len(life)) % 10 + 1
    visit = blank(60)
    visit["ts_us"] = life["ts_us"][-1] + DAY_US + np.arange(60) * 5 * SECOND_US
    visit["request"] += 1_000_000
    visit["route"], visit["error"], visit["status"] = MEMBERS, ERROR_404, 404
    visit["object"] = np.arange(60) + 5_000
    found = found_in("enumeration", life, visit)
    assert max(row["bits"] for row in found) > 5
    last = max(found, key=lambda row: row["bits"])
    assert "refused or missing in a visit" in ENUMERATION.explain(_Reading(last), CONTEXT)
    visit["object"] = 5_000
    assert bits_of("enumeration", life, visit) == 0


class _Reading:
    """A row of findings as `explain` reads it."""

    def __init__(self, row: dict[str, float]) -> None:
        self.__dict__ |= row


def test_a_quiet_life_has_no_finding() -> None:
    life = daily_visits(30)
    life["object"] = np.arange(len(life)) % 7 + 1
    judge = Judge(1, finding_bits=2.0)
    judge.feed(life)
    judge.feed(one_more(life))
    assert judge.bits("enumeration") == []
