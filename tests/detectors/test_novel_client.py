"""A new client is as surprising as the key's clients are few."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DETECTORS
from detectors.detector import READING, SEES_CLIENT, config_record
from detectors.generate import load_pass
from detectors.novel_client import NOVEL_CLIENT, TAKEN
from detectors.records import reading_of, records
from tests.detectors.one_more import INDEX, bits_of, found_in, one_more
from tests.detectors.streams import CONTEXT, DAY_US, HOUR_US, Array, Judge, daily_visits, place

pytestmark = pytest.mark.timeout(900)

OWN, OTHER = 5, 77


def bits_of_a_visit_by(client: int, life: Array) -> float:
    return bits_of("novel_client", life, one_more(life, client=client))


def test_a_servers_key_used_by_another_program_is_a_finding() -> None:
    assert bits_of_a_visit_by(OTHER, daily_visits(60)) > 6


def test_the_owners_own_client_is_none() -> None:
    assert bits_of_a_visit_by(OWN, daily_visits(60)) == 0


def test_a_key_that_often_brings_new_clients_is_hardly_surprising() -> None:
    life = daily_visits(60)
    life["client"] = 10 + np.arange(len(life)) // 12  # another one every second visit
    assert 0 < bits_of_a_visit_by(OTHER, life) < 2.5


def test_the_first_visit_tests_nothing_and_a_young_key_says_little() -> None:
    first = daily_visits(1, per_day=1)
    assert bits_of_a_visit_by(OTHER, first) < 3
    judge = Judge(1, finding_bits=0.5)
    judge.feed(first)
    assert judge.bits("novel_client") == []


def test_what_one_visit_brought_is_known_in_the_next() -> None:
    judge = Judge(1, finding_bits=0.5, listed_days=1e12)
    life = daily_visits(60)
    judge.feed(life)
    new = one_more(life, client=OTHER)
    judge.feed(new)
    once = len(judge.bits("novel_client"))
    assert once > 0
    again = new.copy()
    again["ts_us"] += 3 * HOUR_US
    again["request"] += 50
    judge.feed(again)
    assert len(judge.bits("novel_client")) == once


def test_beside_a_new_place_a_new_client_weighs_no_more_than_among_peers() -> None:
    def ratio(moved: bool) -> float:
        judge = Judge(1, finding_bits=0.5)
        life = daily_visits(60)
        judge.feed(life)
        visit = one_more(life, client=OTHER)
        if moved:
            place(visit, 2)
            visit["address"] = 99
        judge.feed(visit)
        return max(row["lr_stranger"] for row in judge.found if row["detector"] == INDEX["novel_client"])

    assert ratio(moved=False) > 6
    assert 0 < ratio(moved=True) < 2  # .3 + .7 / .25


def test_a_format_without_user_agents_is_not_covered() -> None:
    life = daily_visits(60)
    judge = Judge(1, finding_bits=0.5)
    judge.feed(life)
    visit = one_more(life, client=OTHER)
    visit["sees"] = 127 & ~SEES_CLIENT
    judge.feed(visit)
    assert judge.bits("novel_client") == []


def slow_evidence(clients: list[int], first_days: int = 60) -> list[float]:
    """Of one visit by each of these clients in turn, three hours apart, after the key's life with its own."""
    judge = Judge(1, finding_bits=0.0, listed_days=1e12)
    life = daily_visits(first_days)
    judge.feed(life)
    told = []
    for number, client in enumerate(clients):
        visit = one_more(life, client=client)
        visit["ts_us"] += number * 3 * HOUR_US
        visit["request"] += 100 * (number + 1)
        slow = judge.keys["fusion"]["best_slow"]
        judge.feed(visit)
        told.append(float(slow[0]))
    return told


def test_a_client_that_stays_is_one_fact_and_one_that_alternates_with_the_owners_is_told_again() -> None:
    stayed = slow_evidence([OTHER, OTHER, OTHER, OTHER])
    assert stayed[0] > 2
    assert stayed[1:] == [0.0, 0.0, 0.0]
    alternating = slow_evidence([OTHER, OWN, OTHER, OWN, OTHER])
    assert [told > 2 for told in alternating] == [True, False, True, False, True]


def test_in_a_keys_first_week_no_client_returns() -> None:
    assert slow_evidence([OTHER, OWN, OTHER, OWN, OTHER], first_days=2)[2:] == [0.0, 0.0, 0.0]


def test_a_young_client_that_returns_is_said_to() -> None:
    judge = Judge(1, finding_bits=0.25, listed_days=1e12)
    life = daily_visits(60)
    judge.feed(life)
    for number, client in enumerate([OTHER, OWN, OTHER]):
        visit = one_more(life, client=client)
        visit["ts_us"] += number * 3 * HOUR_US
        visit["request"] += 100 * (number + 1)
        before = len(judge.found)
        judge.feed(visit)
    told = [row for row in judge.found[before:] if row["detector"] == INDEX["novel_client"]]
    assert told and told[0]["a"] == 2.0
    row = records(np.zeros(1, READING))
    row[0]["a"] = 2.0
    assert "in turn with an older client" in NOVEL_CLIENT.explain(reading_of(row[0]), CONTEXT)


def test_beside_a_new_place_the_owners_client_speaks_for_the_owner_less_than_elsewhere() -> None:
    """Of owners who move a quarter change their client, of all others none: STAY / .75 against STAY."""
    judge = Judge(1, finding_bits=0.0)
    life = daily_visits(60)
    judge.feed(life)
    visit = one_more(life)
    place(visit, 2)
    visit["address"] = 99
    state, shared = records(judge.keys)[0]["novel_client"], records(judge.shared)[0]["novel_client"]
    told = []
    for new_place in (0, 1):
        turned = records(judge.keys)[0]["visit"]
        turned["new_place"] = new_place
        reading = records(np.zeros(1, READING))[0]
        config = records(config_record(NOVEL_CLIENT.config))[0]
        score = getattr(load_pass(DETECTORS), f"score_{INDEX['novel_client']}")
        score(state, shared, turned, records(visit)[0], config, reading)
        told.append(float(reading["lr_stranger"]))
    assert told[0] < -1.5 < told[1] < -1.0


def evidence_of_the_last(visit: Array, judge: Judge) -> float:
    """What the detector says of the visit's last event, in bits of evidence."""
    judge.feed(visit[:-1])
    reading = records(np.zeros(1, READING))[0]
    config = records(config_record(NOVEL_CLIENT.config))[0]
    key, shared = records(judge.keys)[0], records(judge.shared)[0]["novel_client"]
    score = getattr(load_pass(DETECTORS), f"score_{INDEX['novel_client']}")
    score(key["novel_client"], shared, key["visit"], records(visit[-1:])[0], config, reading)
    return float(reading["lr_stranger"])


def after(clients: list[int], new_clients: float = 0.0, turned: float = 0.0) -> float:
    """Evidence of the last of a visit's calls by these clients, after two months by OWN."""
    judge, life = Judge(1, listed_days=1e12), daily_visits(60)
    judge.feed(life)
    judge.shared["novel_client"]["new_clients"], judge.shared["novel_client"]["turned"] = new_clients, turned
    return evidence_of_the_last(one_more(life, len(clients), client=clients), judge)


def test_where_the_keys_own_client_comes_between_a_new_ones_calls_these_are_worth_more() -> None:
    once = after([OWN, OTHER])
    assert after([OTHER, OTHER, OTHER]) == after([OWN, OWN, OTHER, OTHER]) == once, "that is another one, no turn"
    assert after([OTHER, OWN, OTHER + 1]) == once, "nothing came between the calls of either"
    assert after([OTHER, OWN, OTHER]) == after([OWN, OTHER, OWN, OWN, OTHER]) == pytest.approx(once + 2.0, abs=0.05)
    assert after([OTHER, OWN]) == after([OWN]) < 0, "the owner's own call"


def test_peers_turns_can_only_lower_what_a_turn_is_worth_and_never_speak_for_the_owner() -> None:
    once, turn = after([OWN, OTHER]), [OTHER, OWN, OTHER]
    assert after(turn, new_clients=9_000.0) == after(turn)
    assert once + 0.5 < after(turn, new_clients=1_000.0, turned=200.0) < once + 1.5
    assert after(turn, new_clients=100.0, turned=90.0) == once


def test_a_turn_that_only_the_order_of_arrival_makes_is_none() -> None:
    judge, life = Judge(1, listed_days=1e12), daily_visits(60)
    judge.feed(life)
    visit = one_more(life, 3, client=[OTHER, OWN, OTHER])
    visit["ts_us"][1] = visit["ts_us"][0] - 1_000_000
    assert evidence_of_the_last(visit, judge) == after([OWN, OTHER])


def counted_in(clients: list[int]) -> tuple[float, float]:
    """Visits with a new client, and turns, that a visit by these adds to what peers are counted by."""
    judge, life = Judge(1, listed_days=1e12), daily_visits(60)
    judge.feed(life)
    counts = judge.shared["novel_client"]
    before = float(counts["new_clients"][0]), float(counts["turned"][0])
    visit = one_more(life, len(clients), client=clients)
    judge.feed(visit)
    later = one_more(life, 2, later_us=2 * DAY_US, client=OWN)
    later["request"] += 50
    judge.feed(later)
    assert int(judge.keys["novel_client"]["last"][0]) < TAKEN, "nothing came between this visit's calls yet"
    return float(counts["new_clients"][0]) - before[0], float(counts["turned"][0]) - before[1]


def test_a_visit_is_counted_once_and_as_a_turn_only_where_one_was_told() -> None:
    assert counted_in([OTHER, OWN, OTHER, OWN, OTHER]) == (1.0, 1.0)
    assert counted_in([OTHER, OWN, OWN]) == (1.0, 0.0), "who tries one and goes back to the other"
    assert counted_in([OWN, OWN]) == (0.0, 0.0)


def test_the_words_say_that_the_keys_own_client_comes_between() -> None:
    row = records(np.zeros(1, READING))
    row[0]["a"], row[0]["b"] = 6.0, 1.0
    assert "between whose calls come those of one that it knows (it uses 1 other)" in NOVEL_CLIENT.explain(
        reading_of(row[0]), CONTEXT
    )


def versions(life: Array, version: int) -> Array:
    events = life.copy()
    events["version"] = version
    return events


@pytest.mark.parametrize(
    ("version", "told"), [(7, True), (0, False), (8, False), (9, False), (200, False)], ids=lambda value: str(value)
)
def test_an_older_major_version_than_the_key_ever_used_is_told_and_weighs_nothing(version: int, told: bool) -> None:
    life = versions(daily_visits(60), 9)
    life["version"][:24] = 8
    plain, visit = one_more(life, version=9), one_more(life, version=version)
    assert (bits_of("novel_client", life, visit) > 0) == told
    weights = []
    for events in (plain, visit):
        judge = Judge(1)
        judge.feed(life)
        judge.feed(events)
        weights.append(float(judge.keys["fusion"]["best"][0]))
    assert weights[0] == weights[1]


def test_an_older_version_is_said_in_words_and_is_known_after_its_visit() -> None:
    life = versions(daily_visits(60), 9)
    visit = one_more(life, version=6)
    rows = found_in("novel_client", life, visit, listed_days=1e12)
    row = records(np.zeros(1, READING))
    row[0]["a"], row[0]["b"] = rows[-1]["a"], rows[-1]["b"]
    assert (
        NOVEL_CLIENT.explain(reading_of(row[0]), CONTEXT) == "by curl 6, older than any that it was used by (from 9 on)"
    )
    again = one_more(np.concatenate([life, visit]), version=6)
    again["request"] += 5_000_000
    assert bits_of("novel_client", np.concatenate([life, visit]), again) == 0


def test_a_client_that_takes_anothers_slot_brings_its_own_version() -> None:
    life = versions(daily_visits(60), 9)
    for number in range(4):
        life["client"][-6 * (number + 1) :] = 80 + number
        life["version"][-6 * (number + 1) :] = 3
    judge = Judge(1)
    judge.feed(life)
    judge.feed(one_more(life, client=83, version=3))
    kept = judge.keys["novel_client"]
    assert {int(v) for v, s in zip(kept["oldest"][0], kept["clients"][0], strict=True) if s["value"] >= 80} <= {3}
