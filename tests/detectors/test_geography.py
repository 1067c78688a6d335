"""Geography: what must be found, what must not, and what nobody may be able to do to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors import DETECTORS, novelty
from detectors.detector import NET_HOSTING, NET_KNOWN, NET_PRIVATE, READING, VISIT, config_record, tells
from detectors.generate import load_pass
from detectors.geography import GEOGRAPHY, leap_factor
from detectors.records import reading_of, records
from detectors.travel import distance_km
from tests.detectors.streams import (
    CONTEXT,
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Array,
    Judge,
    blank,
    country,
    daily_visits,
    place,
)

pytestmark = pytest.mark.timeout(900)  # the first one compiles the pass: 40 s of one free core

INDEX = DETECTORS.index(GEOGRAPHY)


def read(judge: Judge, event: Any) -> Any:
    """What geography says of one event, without learning it."""
    reading = records(np.zeros(1, READING))
    keys, shared = records(judge.keys)[0], records(judge.shared)[0]
    config = records(config_record(GEOGRAPHY.config))[0]
    score = getattr(load_pass(DETECTORS), f"score_{INDEX}")
    score(keys["geography"], shared["geography"], keys["visit"], records(np.array([event]))[0], config, reading[0])
    return reading_of(reading[0])


def known_key(days: int = 14) -> tuple[Judge, Array]:
    """A key with `days` quiet days from one German network, and one later event, settled (`after`)."""
    judge = Judge(1)
    life = daily_visits(days)
    judge.feed(life)
    after = blank(8)
    after["ts_us"] += int(life["ts_us"][-1] - after["ts_us"][0]) + 2 * HOUR_US
    judge.feed(after[:1])
    after["address"][1:] = 77 << 40
    return judge, after


def test_a_new_network_in_a_new_country_is_found_and_said_in_words() -> None:
    judge, after = known_key()
    place(after[1:], 2)
    reading = read(judge, after[1])
    assert reading.bits >= 5
    assert reading.lr_stranger > 5
    assert reading.observed == 0
    assert GEOGRAPHY.explain(reading, CONTEXT).startswith("from AS64502 (EXAMPLE) in RO, never seen for this key in 14")


def test_the_usual_network_says_nothing_odd_and_speaks_for_the_owner() -> None:
    judge, after = known_key()
    reading = read(judge, after[1])
    assert reading.bits == 0
    assert reading.lr_stranger < 0
    assert reading.covered == 1 and not tells(reading)


def test_what_is_told_of_a_usual_network_says_how_often_the_key_came_from_it() -> None:
    judge, after = known_key()
    after["country"][1:] = country("BR")
    assert read(judge, after[1]).observed > 10


def test_a_longer_known_key_is_more_surprised() -> None:
    bits = []
    for days in (2, 14, 60):
        judge, after = known_key(days)
        place(after[1:], 2)
        bits.append(read(judge, after[1]).bits)
    assert bits == sorted(bits)
    assert bits[0] < bits[2] - 2


def test_a_key_that_always_roams_is_not_surprised_by_one_more_network() -> None:
    judge = Judge(1)
    life = daily_visits(20)
    life["asn"] = 1000 + np.arange(len(life)) // 6
    life["address"] = life["asn"].astype("u8") << np.uint64(33)
    judge.feed(life)
    stranger = life[-1:].copy()
    stranger["ts_us"] += 3 * HOUR_US
    stranger["asn"] = 99
    stranger["address"] = 99 << 33
    assert read(judge, stranger[0]).bits < 2


def test_the_first_visit_tests_nothing_but_is_covered() -> None:
    judge = Judge(1)
    reading = read(judge, blank(1)[0])
    assert (reading.bits, reading.covered) == (0, 1)


def test_hosting_says_more_for_an_office_key_than_for_a_server_key() -> None:
    said = []
    for flags in (NET_KNOWN, NET_KNOWN | NET_HOSTING):
        judge = Judge(1)
        life = daily_visits(14)
        life["net_flags"] = flags
        judge.feed(life)
        stranger = blank(1)
        stranger["ts_us"] = life["ts_us"][-1] + 2 * HOUR_US
        stranger["address"] = 5 << 40
        place(stranger, 3)
        stranger["net_flags"] = NET_KNOWN | NET_HOSTING
        said.append(read(judge, stranger[0]).lr_stranger)
    assert 1 < said[0] - said[1] < 4


@pytest.mark.parametrize("flags", [0, NET_KNOWN | NET_PRIVATE])
def test_an_address_without_a_place_is_not_covered(flags: int) -> None:
    judge, after = known_key()
    place(after[1:], 2)
    after["net_flags"] = flags
    assert read(judge, after[1]).covered == 0


def test_a_value_is_tested_once_a_visit_and_keeps_its_reading() -> None:
    judge, after = known_key()
    judge.settings["listed_days"] = 1e12  # an opening tells all there is
    stranger = after[1:].copy()
    place(stranger, 2)
    stranger["address"] = 77 << 40
    judge.feed(stranger)
    assert len([row for row in judge.found if row["detector"] == INDEX]) <= 1
    again = stranger[-1].copy()
    again["ts_us"] += MINUTE_US
    assert read(judge, again).bits >= 4


def far_pair(hours_apart: float) -> tuple[Judge, Array]:
    """A key that used two far networks in turns, on different days; then one after the other."""
    judge = Judge(1)
    life = daily_visits(24)
    away = (life["ts_us"] - life["ts_us"][0]) // DAY_US % 6 >= 3
    distant = life[away]
    place(distant, 2)
    distant["address"] = 88 << 40
    life[away] = distant
    judge.feed(life)
    pair = blank(2)
    pair["ts_us"] = life["ts_us"][-1] + 40 * HOUR_US
    pair["ts_us"][1] += int(hours_apart * HOUR_US)
    pair["address"] = [(91 << 40), (92 << 40)]
    place(pair[1:], 2)
    judge.feed(pair[:1])
    return judge, pair


def test_an_address_without_a_network_is_said_to_have_none() -> None:
    words = GEOGRAPHY.explain({"a": 0.0, "b": 0.0}, CONTEXT)
    assert words.startswith("from an unknown network")


def test_two_known_far_networks_within_minutes_are_impossible_travel() -> None:
    judge, pair = far_pair(0.2)
    reading = read(judge, pair[1])
    assert reading.bits >= 5
    assert "travelled" in GEOGRAPHY.explain(reading, CONTEXT)


def test_with_time_enough_to_fly_there_is_no_travel() -> None:
    judge, pair = far_pair(20)
    assert read(judge, pair[1]).bits == 0


@pytest.mark.parametrize("name,value", [("net_flags", NET_KNOWN | NET_HOSTING), ("error", 2), ("accuracy_km", 9000)])
def test_hosting_failures_and_vague_places_do_not_travel(name: str, value: int) -> None:
    judge, pair = far_pair(0.2)
    pair[name][1] = value
    assert read(judge, pair[1]).bits == 0


def test_networks_that_occur_together_do_not_travel() -> None:
    judge = Judge(1)
    life = daily_visits(14)
    mixed = life[::2]
    place(mixed, 2)
    mixed["address"] = 88 << 40
    life[::2] = mixed
    judge.feed(life)
    assert max(judge.bits("geography"), default=0) < 6
    one = blank(2)
    one["ts_us"] = life["ts_us"][-1] + 5 * HOUR_US + np.arange(2) * MINUTE_US
    place(one[1:], 2)
    one["address"] = [(91 << 40), (92 << 40)]
    judge.feed(one[:1])
    assert read(judge, one[1]).bits == 0


def test_a_swap_of_the_database_is_neither_travel_nor_novelty() -> None:
    judge, after = known_key()
    judge.settings["listed_days"] = 1e12
    after["address"] = after["address"][0]
    place(after[1:], 2)  # the same address, which the new database puts elsewhere
    assert read(judge, after[1]).bits == 0
    judge.feed(after[1:])
    later = after[-1:].copy()
    later["ts_us"] += 2 * HOUR_US
    judge.feed(later)
    assert 64502 in judge.keys["geography"]["networks"]["value"][0]
    other = later.copy()
    other["ts_us"] += MINUTE_US
    other["address"] = 123 << 40
    assert read(judge, other[0]).bits == 0, "the network's new name has been learned"


def test_what_came_under_an_open_incident_is_not_learned() -> None:
    judge, after = known_key()
    judge.settings["listed_days"] = 0.001
    stranger = after[1:].copy()
    place(stranger, 2)
    stranger["address"] = 77 << 40
    judge.feed(stranger)
    assert "opened" in judge.kinds()
    later = stranger[-1:].copy()
    later["ts_us"] += 40 * MINUTE_US
    judge.feed(later)
    assert 64502 not in judge.keys["geography"]["networks"]["value"][0]


def test_unauthenticated_requests_teach_nothing() -> None:
    judge, after = known_key()
    stranger = after[1:].copy()
    place(stranger, 2)
    stranger["address"] = 77 << 40
    stranger["authenticated"] = 0
    judge.feed(stranger)
    later = after[-1:].copy()
    later["ts_us"] += 2 * HOUR_US
    judge.feed(later)
    assert 64502 not in judge.keys["geography"]["networks"]["value"][0]
    assert not judge.changed


def test_distances_on_earth_are_right_or_too_short() -> None:
    assert distance_km(52.5, 13.4, 48.1, 11.6) == pytest.approx(504, rel=0.02)
    assert distance_km(40.6, -73.8, 51.5, -0.5) == pytest.approx(5540, rel=0.02)
    assert 15_000 < distance_km(0, 0, 0, 180) <= 20_015


def moved_after(hours: float, per_day: int) -> float:
    """Evidence of a new network abroad that many hours after the last visit of a key of so many visits a day."""
    judge = Judge(1)
    life = daily_visits(30, per_day=per_day, calls=2)
    judge.feed(life)
    far = blank(1)
    far["ts_us"] = int(life["ts_us"][-1]) + int(hours * HOUR_US)
    place(far, 2)
    far["address"] = 99 << 40
    judge.keys["visit"]["events"] = 0  # as the pass turns the visit before it scores
    return float(read(judge, far[0]).lr_stranger)


def test_a_busy_keys_silence_before_a_new_place_speaks_of_a_journey() -> None:
    assert moved_after(12, per_day=8) < moved_after(2, per_day=8) - 3
    assert moved_after(14, per_day=2) == pytest.approx(moved_after(12, per_day=2), abs=1)


def test_what_forecasts_promise_too_often_the_fleet_corrects() -> None:
    shared = records(np.zeros(1, GEOGRAPHY.shared))[0]
    assert novelty.fleet_p(shared, 0.001) == pytest.approx(0.001)
    for _ in range(20_000):
        novelty.tell_fleet(shared, 0.001, False)
    assert novelty.fleet_p(shared, 0.001) < 0.0002
    assert novelty.fleet_p(shared, 0.1) == pytest.approx(0.1)
    assert novelty.fleet_p(shared, 1.0) == 1.0
    for _ in range(1_000):
        novelty.tell_fleet(shared, 0.1, True)
    assert novelty.fleet_p(shared, 0.1) == pytest.approx(0.1), "downwards only"


def test_impossible_travel_to_a_new_network_holds_for_the_rest_of_its_visit() -> None:
    judge, after = known_key(days=30)
    place(after[1:4], 2)
    after["ts_us"][1:4] = after["ts_us"][0] + np.arange(1, 4) * MINUTE_US
    first = read(judge, after[1])
    assert int(first.b) // 65_536 & 4
    judge.feed(after[1:3])
    second = read(judge, after[3])
    assert second.lr_stranger == first.lr_stranger
    assert int(second.b) // 65_536 & 4


def test_that_servers_move_at_once_the_peers_teach_apart_for_keys_of_few_visits() -> None:
    shared, visit = records(np.zeros(1, GEOGRAPHY.shared))[0], records(np.zeros(1, VISIT))[0]
    visit["start_us"], visit["first_seen_us"] = 100 * DAY_US, 0
    busy, sparse = 2_000, 50  # visits in 100 days

    def factor(visits: int) -> float:
        visit["ordinal"] = visits
        return float(leap_factor(shared, visit))

    before = factor(busy)
    assert before == factor(sparse)
    shared["moves"], shared["leaps"] = (200.0, 200.0), (0.0, 100.0)
    assert factor(busy) < 1.2 < 3 < before < factor(sparse)
    shared["moves"], shared["leaps"] = 1e6, 0.0
    assert factor(busy) == factor(sparse) < 17, "a fleet that never moved makes it no proof"
