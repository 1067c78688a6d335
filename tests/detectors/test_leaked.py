"""A key whose secret is public: its owner goes on, whoever else holds it is a proof."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import fusion
from detectors.detector import DECLARED_LEAKED
from tests.detectors.one_more import one_more
from tests.detectors.streams import DAY_US, HOUR_US, Array, Judge, daily_visits, place

pytestmark = pytest.mark.timeout(900)


def leaked(events: Array, at_us: int) -> Array:
    """From then on its secret is public."""
    late = events["ts_us"] >= at_us
    events["declared"][late] |= DECLARED_LEAKED
    events["leaked_h"][late] = at_us // HOUR_US % 65_536
    return events


def proofs(life: Array, visit: Array) -> list[str]:
    """Rules of the incidents that open in a life with this visit at its end; no other can."""
    judge = Judge(1, listed_days=1e15, page_days=1e15)
    judge.feed(life)
    judge.feed(visit)
    return [fusion.RULES[row["rule"]] for row in judge.changed if fusion.KINDS[row["kind"]] == "opened"]


def stranger(life: Array, client: int = 5, network: int = 2, authenticated: int = 1) -> Array:
    """A visit from elsewhere, a day later."""
    visit = one_more(life, client=client, authenticated=authenticated)
    if network:
        place(visit, network)
        visit["address"] = 0x1234567890ABCDEF
    return visit


def test_a_stranger_with_a_leaked_key_is_a_proof_by_network_or_by_client() -> None:
    life = daily_visits(20)
    at_us = int(life["ts_us"][-1])
    assert proofs(leaked(life.copy(), at_us), leaked(stranger(life), at_us)) == ["proof"]
    assert proofs(leaked(life.copy(), at_us), leaked(stranger(life, client=6, network=0), at_us)) == ["proof"]


def test_the_owner_goes_on_with_a_leaked_key() -> None:
    life = daily_visits(20)
    at_us = int(life["ts_us"][0]) + 12 * DAY_US
    assert proofs(leaked(life.copy(), at_us), leaked(one_more(life), at_us)) == []


def test_the_same_stranger_is_none_where_nothing_leaked() -> None:
    life = daily_visits(20)
    assert proofs(life, stranger(life)) == []


def test_who_names_the_key_without_holding_it_is_none() -> None:
    life = daily_visits(20)
    at_us = int(life["ts_us"][-1])
    assert proofs(leaked(life.copy(), at_us), leaked(stranger(life, authenticated=0), at_us)) == []


def test_a_thief_of_the_week_before_the_leak_was_known_does_not_become_its_owner_by_waiting() -> None:
    life = daily_visits(20)
    thief = stranger(life)
    at_us = int(life["ts_us"][-1]) + 3 * DAY_US
    owner = one_more(life, later_us=2 * DAY_US)
    owner["request"] += 5_000_000
    before = np.concatenate([life, thief, owner])
    again = leaked(one_more(thief, later_us=30 * DAY_US), at_us)
    assert proofs(before, again) == ["proof"]


def test_a_key_younger_than_a_week_at_its_leak_has_no_ways_to_tell_by() -> None:
    life = daily_visits(4)
    at_us = int(life["ts_us"][-1])
    assert proofs(leaked(life.copy(), at_us), leaked(stranger(life), at_us)) == []


def test_a_key_of_more_networks_than_it_has_places_for_may_have_had_any_of_them() -> None:
    life = daily_visits(20)
    life["asn"] = 64_500 + np.arange(len(life)) // 6 % 40
    at_us = int(life["ts_us"][-1])
    for network in (int(life["asn"][-1]) - 20, 65_000):
        again = leaked(one_more(life, asn=network, address=0x1234567890ABCDEF), at_us)
        assert proofs(leaked(life.copy(), at_us), again) == [], network
