"""Sensitive operations that a key never did, visit after visit. Near misses: one of them, known ones, young keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import first_harms
from detectors.detector import (
    ERROR_404,
    OPERATION_ADMIN,
    OPERATION_CREDENTIAL,
    OPERATION_DELETE,
    OPERATION_READ,
    OPERATION_WRITE,
    SEES_ROUTE,
)
from detectors.novel_operation import NOVEL_OPERATION as DETECTOR
from tests.detectors.one_key import DAY_US, HOUR_US, MONDAY_US, SECOND_US, OneKey, event_at
from tests.detectors.streams import CONTEXT

HARMS = (OPERATION_DELETE, OPERATION_ADMIN, OPERATION_CREDENTIAL)
DAYS = 40


def call(at_us: int, route: int, operation: int = OPERATION_READ, error: int = 0) -> Any:
    """An attested call of a route of this class."""
    event = event_at(at_us)
    event.route, event.operation, event.error = route, operation, error
    event.sees = int(event.sees) | SEES_ROUTE
    return event


def service(days: int = DAYS) -> OneKey:
    """A key that makes three calls an hour, of five routes, one a write."""
    key = OneKey(DETECTOR)
    for hour in range(days * 24):
        for i in range(3):
            route = 1 + (hour + i) % 5
            kind = OPERATION_WRITE if route == 5 else OPERATION_READ
            key.feed(call(MONDAY_US + hour * HOUR_US + i * 20 * SECOND_US, route, kind))
    return key


@pytest.fixture(scope="module")
def known() -> OneKey:
    return service()


def copied(key: OneKey) -> OneKey:
    """The same key once more."""
    other = OneKey(DETECTOR)
    for name in ("state", "shared", "visit"):
        for field in getattr(key, name).dtype.names:
            getattr(other, name)[field] = getattr(key, name)[field]
    return other


def harms(
    key: OneKey, count: int, apart_h: float = 2.0, kinds: tuple[int, ...] = HARMS, first: int = 100, error: int = 0
) -> list[Any]:
    """Readings of single calls of new routes of these classes, hours apart, beside nothing else."""
    start_us = MONDAY_US + DAYS * DAY_US + HOUR_US
    return [
        key.feed(call(start_us + int(i * apart_h * HOUR_US), first + i, kinds[i % len(kinds)], error))
        for i in range(count)
    ]


def told(reading: Any) -> bool:
    """Whether the sum is what tells."""
    return int(reading.a) // 16 & 8 > 0


def test_sensitive_operations_hours_apart_add_up_to_what_carries_an_incident(known: OneKey) -> None:
    readings = harms(copied(known), 5)
    bits = [float(reading.lr_insider) for reading in readings]
    assert not told(readings[0]), "the first one is judged by itself"
    assert told(readings[-1])
    assert bits[-1] > 17.0
    assert bits[-1] > bits[0] + 6.0
    said = DETECTOR.explain(readings[-1], CONTEXT)
    assert "never did" in said and said.endswith("the latest of several such within a day or two")


@pytest.mark.parametrize("kinds", [(OPERATION_READ,), (OPERATION_WRITE,)])
def test_as_many_new_reads_or_writes_add_up_to_nothing(known: OneKey, kinds: tuple[int, ...]) -> None:
    assert not any(told(reading) for reading in harms(copied(known), 6, kinds=kinds))


def test_missing_routes_are_no_operations(known: OneKey) -> None:
    assert not any(told(reading) for reading in harms(copied(known), 6, error=ERROR_404))


def test_one_a_day_is_forgotten_in_between(known: OneKey) -> None:
    often, seldom = harms(copied(known), 5), harms(copied(known), 5, apart_h=48.0)
    assert float(seldom[-1].lr_insider) < float(often[-1].lr_insider) - 5.0


def test_what_the_key_did_before_is_no_news(known: OneKey) -> None:
    key = copied(known)
    harms(key, 5)
    key.feed(call(MONDAY_US + (DAYS + 2) * DAY_US, 1))
    again = [key.feed(call(MONDAY_US + (DAYS + 3) * DAY_US + i * 2 * HOUR_US, 100 + i, HARMS[i % 3])) for i in range(5)]
    assert not any(told(reading) for reading in again)


def test_a_key_that_brings_such_things_every_day_is_told_less_of_each(known: OneKey) -> None:
    used = copied(known)
    for day in range(20):
        at_us = MONDAY_US + (DAYS + day) * DAY_US
        used.feed(call(at_us, 500 + day, HARMS[day % 3]))
        for hour in range(1, 24):
            used.feed(call(at_us + hour * HOUR_US, 1))
    start_us = MONDAY_US + (DAYS + 20) * DAY_US
    late = [used.feed(call(start_us + i * 2 * HOUR_US, 900 + i, HARMS[i % 3])) for i in range(5)]
    assert float(late[-1].lr_insider) < float(harms(copied(known), 5)[-1].lr_insider) - 5.0


def test_nothing_is_said_of_a_key_in_its_first_two_weeks() -> None:
    key = service(13)
    start_us = MONDAY_US + 13 * DAY_US + HOUR_US
    readings = [key.feed(call(start_us + i * HOUR_US, 100 + i, HARMS[i % 3])) for i in range(8)]
    assert not any(told(reading) for reading in readings)
    assert int(key.state.news_bits) == 0


def test_what_an_incident_has_told_is_used_up(known: OneKey) -> None:
    key = copied(known)
    harms(key, 4)
    at_us = MONDAY_US + DAYS * DAY_US + 9 * HOUR_US
    key.feed(call(at_us, 300, OPERATION_DELETE), weight=0.0)
    key.feed(call(at_us + 2 * HOUR_US, 1))
    assert int(key.state.news_bits) == 0


@settings(max_examples=60)
@given(
    gaps_h=st.lists(st.integers(1, 60), min_size=1, max_size=25),
    kinds=st.lists(st.sampled_from((-1, 0, 1, 2)), min_size=25, max_size=25),
)
def test_the_sum_never_falls_by_news_nor_exceeds_what_fits_and_peers_are_counted_once_a_visit(
    gaps_h: list[int], kinds: list[int]
) -> None:
    key = service(1)
    state, shared, visit = key.state, key.shared, key.visit
    visit.first_seen_us, visit.ordinal = MONDAY_US, 800
    before = float(np.sum(shared.sum_visits))
    at_us = MONDAY_US + 40 * DAY_US
    for gap_h, kind in zip(gaps_h, kinds, strict=False):
        at_us += gap_h * HOUR_US
        visit.start_us = at_us
        kept = int(state.news_bits) / first_harms.SUM_UNIT * 2.0 ** (-first_harms.hours_since(state, visit) / 12.0)
        total = first_harms.sum_with(state, shared, visit, kind)
        assert total == 0.0 if kind < 0 else kept - 1 / 32 <= total <= first_harms.SUM_MOST
        first_harms.settle_sum(state, shared, visit, kind)
    visits = len(gaps_h)
    assert float(np.sum(shared.sum_visits)) - before == visits
    assert float(np.sum(shared.asked)) == visits
    assert float(np.sum(shared.brought)) == sum(kind >= 0 for kind in kinds[:visits])
