"""One key in several hands: what changes back and forth is told, what moves once or always did so is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from detectors import DETECTORS
from detectors.detector import NET_KNOWN, NET_PRIVATE, READING, SEES_ADDRESS
from detectors.records import reading_of, records
from detectors.sharing import LEAST, RAREST, SHARING, STATE, level_of, share_of
from tests.detectors.one_key import MINUTE_US, MONDAY_US, OneKey, event_at
from tests.detectors.one_more import INDEX, bits_of, found_in, one_more
from tests.detectors.streams import CONTEXT, DAY_US, HOUR_US, Array, daily_visits

pytestmark = pytest.mark.timeout(900)  # the first one compiles the pass: 40 s of one free core

HOME = 64_500
AWAY = 64_502


def life_with(networks: Sequence[int], days: int = 30) -> Array:
    """A key's quiet life whose visits' requests (six each) come from these networks in turn."""
    life = daily_visits(days)
    life["asn"] = np.array(networks)[np.arange(len(life)) % 6 % len(networks)]
    return life


def visit_of(life: Array, networks: Sequence[int]) -> Array:
    """One more visit a day later, a request from each of these networks."""
    events = one_more(life, calls=len(networks))
    events["asn"] = networks
    events["ts_us"] = int(life["ts_us"][-1]) + DAY_US + np.arange(len(events)) * 60_000_000
    return events


def evidence(life: Array, networks: Sequence[int]) -> float:
    rows = found_in("sharing", life, visit_of(life, networks))
    return max((row["lr_stranger"] for row in rows), default=0.0)


def test_two_hands_in_turn_are_found_and_said_in_words() -> None:
    life = life_with([HOME])
    rows = found_in("sharing", life, visit_of(life, [HOME, AWAY, HOME, AWAY]))
    assert max(row["bits"] for row in rows) > 6
    assert max(row["lr_stranger"] for row in rows) > 2
    row = records(np.zeros(1, READING))
    row[0]["observed"] = 3
    said = SHARING.explain(reading_of(row[0]), CONTEXT)
    assert said == "3 changes of network within one visit, now AS64500 (EXAMPLE) in RO: in several hands at once"


def test_who_moves_changes_once_and_says_nothing_here() -> None:
    life = life_with([HOME])
    assert bits_of("sharing", life, visit_of(life, [HOME, HOME, AWAY, AWAY])) == 0
    assert bits_of("sharing", life, visit_of(life, [AWAY, AWAY, AWAY])) == 0


def test_a_key_from_many_residential_addresses_a_call_each_is_found_and_the_more_the_louder() -> None:
    life = life_with([HOME])
    three, seven = evidence(life, [HOME, 7, 8]), evidence(life, [HOME, 7, 8, 9, 10, 11, 12])
    assert 0 < three < seven


def test_a_key_that_always_comes_from_two_networks_at_once_is_its_owners() -> None:
    life = life_with([HOME, AWAY])
    assert evidence(life, [HOME, AWAY, HOME, AWAY, HOME]) < 0.5
    assert bits_of("sharing", life, visit_of(life, [HOME, AWAY, HOME, AWAY, HOME])) < 1


def test_peers_teach_what_a_first_change_leads_to() -> None:
    state, shared = (records(np.zeros(1, dtype))[0] for dtype in (STATE, SHARING.shared))
    before = share_of(state, shared, 1)
    shared["visits"][0, 0] = 1_000.0  # a thousand first changes, none of which came back
    assert share_of(state, shared, 1) < before / 10
    shared["visits"][0, 0] = 1e9
    assert share_of(state, shared, 3) == RAREST


def test_levels_are_reached_at_two_three_and_five_changes() -> None:
    assert [level_of(changes) for changes in range(7)] == [-1, 0, 1, 2, 2, 3, 3]
    assert list(LEAST) == sorted(LEAST)


@pytest.mark.parametrize(
    ("field", "value"),
    [("authenticated", 0), ("net_flags", NET_KNOWN | NET_PRIVATE), ("asn", 0), ("sees", 127 & ~SEES_ADDRESS)],
)
def test_requests_without_the_key_or_without_a_place_change_nothing(field: str, value: int) -> None:
    life = life_with([HOME])
    visit = visit_of(life, [HOME, AWAY, HOME, AWAY])
    visit[field][1::2] = value
    assert bits_of("sharing", life, visit) == 0


@pytest.mark.parametrize(("weight", "learned"), [(1.0, 1.0), (0.0, 0.0)])
def test_what_came_under_an_open_incident_is_not_learned(weight: float, learned: float) -> None:
    key = OneKey(SHARING)
    for minute, network in enumerate([HOME, AWAY, HOME, AWAY]):
        event = event_at(MONDAY_US + minute * MINUTE_US)
        event.asn, event.net_flags, event.sees = network, NET_KNOWN, 127
        key.feed(event, weight)
    key.turn_visit(MONDAY_US + HOUR_US, 1.0)
    assert list(key.state.visits) == [learned, learned, learned, 0.0]
    assert (int(key.state.network), int(key.state.changes)) == (0, 0)


def test_sharing_is_a_fact_about_networks() -> None:
    assert DETECTORS[INDEX["sharing"]].family == "network"


@pytest.mark.parametrize(("new_place", "most"), [(0, SHARING.config.known_bits), (1, SHARING.config.cap_bits)])
def test_where_no_network_of_the_visit_is_new_sharing_is_worth_three_bits_at_most(new_place: int, most: float) -> None:
    key = OneKey(SHARING)
    key.shared.visits[0, 0] = 1e6  # peers whose first change led to no more, so several are as rare as can be
    weights = []
    for minute in range(8):
        event = event_at(MONDAY_US + minute * MINUTE_US)
        event.asn, event.net_flags, event.sees = (HOME, AWAY)[minute % 2], NET_KNOWN, 127
        key.visit.new_place = new_place
        weights.append(float(key.feed(event).lr_stranger))
    assert max(weights) == most
