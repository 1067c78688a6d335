"""Errors: a probe must outrank a storm of retries, and the API's own outage must count for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import DETECTORS
from detectors.counted import VISITS_KEPT
from detectors.detector import (
    ERROR_5XX,
    ERROR_401,
    ERROR_403,
    ERROR_404,
    ERROR_429,
    READING,
    SEES_ADDRESS,
    SEES_DENIED,
    SEES_OUTCOME,
    SEES_STATUS,
    VISIT,
    config_record,
)
from detectors.error_units import DENIED, MISSING, PROBED
from detectors.errors import ERRORS, GUESSED, SERVER_BITS
from detectors.generate import load_pass
from detectors.lone_errors import CLASSES, LONE_BITS, NO_LIMIT, RETRY_BITS, alone, count_lone, lone_bits
from detectors.records import reading_of, records
from detectors.surprise import evidence_of
from pipeline.decide import STRONG_BITS
from pipeline.given import strongest_pair
from tests.detectors.one_key import record
from tests.detectors.streams import CONTEXT, HOUR_US, START_US, Array, Judge, blank, daily_visits

pytestmark = pytest.mark.timeout(900)  # the first one compiles the pass: 40 s of one free core

INDEX = DETECTORS.index(ERRORS)
SECOND_US = 1_000_000


def clean_key() -> tuple[Judge, int]:
    """A key without errors for 14 days; the time of its next visit."""
    judge = Judge(1)
    life = daily_visits(14)
    judge.feed(life)
    return judge, int(life["ts_us"][-1]) + 2 * HOUR_US


def burst(at_us: int, count: int, routes: int, error: int, share: float = 1.0) -> Array:
    """`count` calls within minutes over `routes` routes, a share of which fail."""
    events = blank(count)
    events["ts_us"] = at_us + np.arange(count) * SECOND_US
    events["route"] = 1000 + np.arange(count) % routes
    events["error"] = np.where(np.arange(count) % routes < routes * share, error, 0)
    return events


def best(judge: Judge) -> float:
    """Largest bits that errors found."""
    return max(judge.bits("errors"), default=0.0)


@pytest.mark.parametrize("error", [ERROR_403, ERROR_404, ERROR_429, ERROR_5XX])
def test_a_probe_of_many_routes_is_found(error: int) -> None:
    judge, at_us = clean_key()
    judge.feed(burst(at_us, 20, 20, error, 0.6))
    assert best(judge) > 15


def test_retries_of_one_route_stay_weak_and_below_a_probe() -> None:
    storm, at_us = clean_key()
    storm.feed(burst(at_us, 200, 1, ERROR_403))
    probe, _ = clean_key()
    probe.feed(burst(at_us, 8, 8, ERROR_403, 0.7))
    assert best(storm) <= 10.6
    assert best(probe) > best(storm)


def test_a_key_whose_visits_always_bring_errors_is_not_surprised_by_them() -> None:
    judge = Judge(1)
    life = daily_visits(30)
    life["route"] = 1 + np.arange(len(life)) % 6
    life["error"] = np.where(np.arange(len(life)) % 6 < 2, ERROR_404, 0)
    judge.feed(life)
    judge.found.clear()
    again = life[-6:].copy()
    again["ts_us"] += 4 * HOUR_US
    judge.feed(again)
    assert best(judge) == 0


def test_classes_are_judged_apart() -> None:
    judge = Judge(1)
    life = daily_visits(30)
    life["route"] = 1 + np.arange(len(life)) % 6
    life["error"] = np.where(np.arange(len(life)) % 6 < 3, ERROR_404, 0)
    judge.feed(life)
    judge.found.clear()
    judge.feed(burst(int(life["ts_us"][-1]) + 4 * HOUR_US, 12, 12, ERROR_403))
    assert best(judge) > 10


def outage(error: int, others_fail: bool, others_known: bool = True) -> Judge:
    """Twelve routes fail for key 0; five other keys have used them in the minutes before."""
    judge = Judge(6)
    life = daily_visits(14)
    first = life[:5].copy()
    first["slot"], first["ts_us"], first["request"] = range(1, 6), life["ts_us"][0] - 1, range(900_001, 900_006)
    judge.feed(first if others_known else first[:0])
    judge.feed(life)
    at_us = int(life["ts_us"][-1]) + 2 * HOUR_US
    parts = []
    for slot in range(1, 6):
        part = burst(at_us + slot, 12, 12, error if others_fail else 0)
        part["slot"] = slot
        parts.append(part)
    shared = np.concatenate(parts)
    judge.feed(shared[np.argsort(shared["ts_us"], kind="stable")])
    judge.found.clear()
    judge.feed(burst(at_us + 60 * SECOND_US, 12, 12, error))
    return judge


@pytest.mark.parametrize("error", [ERROR_5XX, ERROR_429])
def test_the_apis_own_outage_is_discounted(error: int) -> None:
    assert best(outage(error, others_fail=True)) == 0
    assert best(outage(error, others_fail=False)) > 10
    assert best(outage(error, others_fail=True, others_known=False)) > 10, "keys made for it fake no outage"


@pytest.mark.parametrize("error", [ERROR_403, ERROR_404])
def test_an_outage_excuses_no_refusals_and_no_missing_routes(error: int) -> None:
    assert best(outage(error, others_fail=True)) > 6


def test_one_failing_neighbour_is_no_outage() -> None:
    judge = Judge(3)
    life = daily_visits(14)
    judge.feed(life)
    at_us = int(life["ts_us"][-1]) + 2 * HOUR_US
    neighbour = burst(at_us, 12, 12, ERROR_5XX)
    neighbour["slot"] = 1
    judge.feed(neighbour)
    judge.found.clear()
    judge.feed(burst(at_us + 60 * SECOND_US, 12, 12, ERROR_5XX))
    assert best(judge) > 10


@pytest.mark.parametrize(
    "sees,error,found",
    [
        (SEES_ADDRESS, ERROR_403, False),
        (SEES_STATUS | SEES_OUTCOME, ERROR_403, False),
        (SEES_STATUS | SEES_OUTCOME, ERROR_404, True),
        (SEES_DENIED | SEES_OUTCOME, ERROR_404, False),
        (SEES_DENIED | SEES_OUTCOME, ERROR_403, True),
    ],
)
def test_a_class_that_the_format_cannot_show_is_not_judged(sees: int, error: int, found: bool) -> None:
    judge, at_us = clean_key()
    probe = burst(at_us, 20, 20, error)
    probe["sees"] = sees
    judge.feed(probe)
    assert (best(judge) > 0) == found


def test_refused_strangers_are_findings_but_no_evidence() -> None:
    judge, at_us = clean_key()
    probe = burst(at_us, 40, 40, ERROR_403)
    probe["authenticated"] = 0
    judge.feed(probe)
    assert best(judge) > 10
    assert not judge.changed
    owner = blank(1)
    owner["ts_us"] = at_us + 60 * SECOND_US
    judge.feed(owner)
    assert not judge.changed


def test_a_visit_without_routes_says_nothing() -> None:
    judge, at_us = clean_key()
    probe = burst(at_us, 20, 20, ERROR_403)
    probe["route"] = 0
    judge.feed(probe)
    assert best(judge) == 0
    assert at_us > START_US


def test_a_server_error_on_two_routes_opens_nothing_however_sudden() -> None:
    """The first keys that meet an outage come before the others' median can know of it."""
    judge, at_us = clean_key()
    outage = burst(at_us, 12, 2, ERROR_5XX)
    outage["ts_us"] = at_us + np.arange(12) * 90 * SECOND_US  # the key's own pace: a burst is spike's to judge
    judge.feed(outage)
    assert 0 < best(judge) <= SERVER_BITS
    assert len(judge.changed) == 0


def test_what_counts_as_evidence_lies_outside_of_what_is_said_to_be_usual() -> None:
    """A first refused route of a key that never had one: "1 where 0 [0-1] are usual" would deny its own bits."""
    judge, at_us = clean_key()
    judge.feed(burst(at_us, 12, 12, ERROR_403, 0.2))
    strong = [record for record in judge.found if record["detector"] == INDEX and record["bits"] > 5.0]
    assert strong
    assert all(record["observed"] > record["high"] for record in strong)


@pytest.mark.parametrize(("routes", "said"), [(1.0, "404 on the only route of"), (9.0, "404 on 1 of 9 routes of")])
def test_one_route_is_said_in_the_singular(routes: float, said: str) -> None:
    reading = {"a": 1.0, "observed": 1.0, "b": routes, "median": 0.0, "low": 0.0, "high": 1.0}
    assert ERRORS.explain(reading, CONTEXT).startswith(said)


def evidence(judge: Judge) -> float:
    """Largest evidence of errors among what was found."""
    index = [detector.name for detector in DETECTORS].index("errors")
    return max((row["lr_insider"] for row in judge.found if row["detector"] == index), default=0.0)


def test_an_error_that_the_key_had_before_on_that_route_is_its_habit() -> None:
    judge, at_us = clean_key()
    judge.settings["listed_days"] = 1e12
    judge.feed(burst(at_us, 6, 6, ERROR_404))
    assert evidence(judge) > 5
    judge.found.clear()
    judge.feed(burst(at_us + 4 * HOUR_US, 6, 6, ERROR_404))
    assert best(judge) == 0
    other = burst(at_us + 8 * HOUR_US, 6, 6, ERROR_404)
    other["route"] += 500
    judge.feed(other)
    assert best(judge) > 6


def test_errors_that_come_together_are_worth_their_tail_and_no_product() -> None:
    judge, at_us = clean_key()
    judge.feed(burst(at_us, 6, 6, ERROR_404))
    assert 4 < evidence(judge) < best(judge)


def test_the_apis_own_failures_are_weak_evidence_however_many() -> None:
    judge, at_us = clean_key()
    judge.feed(burst(at_us, 40, 40, ERROR_5XX))
    assert best(judge) > 15
    assert evidence(judge) < 4


def guessed(tries: int, address: int) -> Any:
    """What errors says of a success from `address` after that many refused tries from another one of the internet."""
    judge, at_us = clean_key()
    events = blank(tries + 1)
    events["ts_us"] = at_us + np.arange(tries + 1) * SECOND_US
    events["address"] = 77 << 40
    events["error"], events["authenticated"] = ERROR_401, 0
    events["error"][-1], events["authenticated"][-1], events["address"][-1] = 0, 1, address
    judge.feed(events[:-1])
    reading, key = records(np.zeros(1, READING)), records(judge.keys)[0]
    score, config = getattr(load_pass(DETECTORS), f"score_{INDEX}"), records(config_record(ERRORS.config))[0]
    score(key["errors"], records(judge.shared)[0]["errors"], key["visit"], records(events)[-1], config, reading[0])
    return reading_of(reading[0])


def test_a_success_after_guesses_from_its_own_address_is_evidence_and_from_another_none() -> None:
    found = guessed(30, 77 << 40)
    assert found.a == GUESSED
    assert found.bits > 10
    assert 5 < found.lr_stranger < 6
    assert found.lr_insider == 0, "whoever holds the key need not guess"
    assert ERRORS.explain(found, CONTEXT) == "let in after 30 refused tries (401) from the same address"
    elsewhere = guessed(30, 78 << 40)
    assert elsewhere.a != GUESSED
    assert elsewhere.lr_stranger == 0


def test_a_mistyped_secret_or_two_is_no_guessing_and_a_thousand_tries_are_worth_six_bits() -> None:
    assert guessed(4, 77 << 40).lr_stranger == 0
    assert 0 < guessed(6, 77 << 40).lr_stranger < guessed(200, 77 << 40).lr_stranger == 6.0


def test_one_refused_route_is_worth_no_more_than_its_retries_however_rarely_peers_are_refused() -> None:
    """keybench's integration with 403 for days was listed in one of ten: 17 bits at its very first request."""
    judge = Judge(3)
    for slot in range(3):
        life = daily_visits(60)
        life["slot"] = slot
        judge.feed(life)
    probe = burst(int(life["ts_us"][-1]) + 2 * HOUR_US, 1, 1, ERROR_403)
    judge.feed(probe)
    assert best(judge) == LONE_BITS
    judge.feed(burst(int(probe["ts_us"][0]) + SECOND_US, 4, 4, ERROR_403))
    assert best(judge) > RETRY_BITS + 5


def test_who_looks_for_what_is_there_is_refused_and_misses_and_both_count_together() -> None:
    """A scan of keybench has two missing routes and a refused one; taken apart, neither was loud enough."""
    found = {}
    for name, errors in (("both", [ERROR_404, ERROR_403, ERROR_404]), ("missing", [ERROR_404, 0, ERROR_404])):
        judge, at_us = clean_key()
        scan = burst(at_us, 3, 3, 0)
        scan["error"] = errors
        judge.feed(scan)
        found[name] = best(judge)
    assert found["both"] > found["missing"] + 3
    row = records(np.zeros(1, READING))
    row[0]["a"], row[0]["observed"], row[0]["b"] = PROBED, 3, 4
    assert ERRORS.explain(reading_of(row[0]), CONTEXT).startswith("401, 403 or 404 on 3 of 4 routes of this visit")


def lone_state(*wrong: int) -> Any:
    """A visit with so many errors by class, whose caller held the key."""
    state = record(ERRORS.state)
    for kind, count in enumerate(wrong):
        state.held_wrong[kind] = count
        state.visit_wrong[kind] = count
    return state


def named_state(*wrong: int) -> Any:
    """The same by somebody who knows the key's id alone."""
    state = lone_state(*wrong)
    for kind in range(len(wrong)):
        state.held_wrong[kind] = 0
    return state


def test_who_knows_ids_alone_makes_no_owner_s_error_two_and_no_refusal_usual() -> None:
    shared = record(ERRORS.shared)
    for _ in range(2_000):
        count_lone(lone_state(0, 1), shared, visit_of(0.5))
        count_lone(named_state(1), shared, visit_of(0.5))
    assert lone_bits(named_state(1), shared, visit_of(0.5), MISSING) < 2.0, "the owner's is the only one"
    assert lone_bits(lone_state(), shared, visit_of(0.5), DENIED) > RETRY_BITS, "nobody who held a key was refused"


def visit_of(a_day: float) -> Any:
    """A visit of a key of so many a day, known for 50 days."""
    visit = record(VISIT)
    visit.first_seen_us, visit.start_us = START_US, START_US + 50 * 24 * HOUR_US
    visit.ordinal = int(51 * a_day)
    return visit


def test_a_first_missing_route_of_a_key_of_few_visits_is_worth_what_its_peers_bear_out() -> None:
    shared = record(ERRORS.shared)
    for number in range(2_000):
        count_lone(lone_state(0, 1 if number % 100 == 0 else 0), shared, visit_of(0.5))
        count_lone(lone_state(0, 1 if number % 1000 == 0 else 0), shared, visit_of(20.0))
    few, many = (lone_bits(lone_state(), shared, visit_of(a_day), MISSING) for a_day in (0.5, 20.0))
    assert 7.0 < few < 7.5 < 9.5 < many < 10.6


def steered(judge: Judge, visits: float, lone: float) -> Judge:
    """What peers' single errors come to is counted so."""
    shared = judge.shared["errors"]
    shared["visits"], shared["lone"] = visits, lone
    return judge


@pytest.mark.parametrize("error", [ERROR_403, ERROR_404])
def test_peers_can_hide_or_swell_a_visit_s_only_error_by_six_bits_and_no_other_so_its_count_needs_no_rail(
    error: int,
) -> None:
    """Both ends of what anybody could make of the count: no visit has one, and all have. Neither opens anything."""
    found: dict[tuple[int, float], float] = {}
    for wrong in (1, 2):
        for lone in (0.0, 1e6):
            judge, at_us = clean_key()
            steered(judge, 1e6, lone)
            judge.feed(burst(at_us, wrong, wrong, error))
            found[wrong, lone] = evidence(judge)
            assert wrong > 1 or not judge.changed
            assert wrong > 1 or best(judge) <= LONE_BITS
    assert found[1, 1e6] == 0.0 < found[1, 0.0] <= evidence_of(RETRY_BITS) < 6.3
    assert found[2, 1e6] == found[2, 0.0] > found[1, 0.0]


def test_old_visits_fade_and_with_them_what_they_brought() -> None:
    shared = record(ERRORS.shared)
    shared.visits[:], shared.lone[:] = VISITS_KEPT, VISITS_KEPT / 500
    before = lone_bits(lone_state(), shared, visit_of(0.5), DENIED)
    count_lone(lone_state(), shared, visit_of(0.5))
    assert float(shared.visits.min()) < VISITS_KEPT
    assert lone_bits(lone_state(), shared, visit_of(0.5), DENIED) == pytest.approx(before, abs=0.01)


@given(
    visits=st.floats(0, 1e6), lone=st.floats(0, 1e6), bits=st.floats(0, 60), other=st.integers(0, CLASSES - 1),
    a_day=st.sampled_from([0.5, 20.0]), held=st.integers(0, 3),
)  # fmt: skip
def test_whatever_is_counted_a_lone_error_has_its_limit_and_two_have_none(
    visits: float, lone: float, bits: float, other: int, a_day: float, held: int
) -> None:
    shared = record(ERRORS.shared)
    shared.visits[:], shared.lone[:] = visits, min(lone, visits)
    limit = lone_bits(lone_state(*[0] * other, held), shared, visit_of(a_day), DENIED)
    if held:
        assert limit >= NO_LIMIT
    else:
        assert evidence_of(min(alone(1, bits), limit)) < 6.3


def test_who_knows_ids_alone_makes_no_scan_usual_and_tells_nothing_of_the_holder() -> None:
    """Tries without the secret, in the owner's visit, at the very routes that a thief misses then."""
    judge, at_us = clean_key()
    judge.settings["listed_days"] = 1e12
    tries = burst(at_us, 7, 6, ERROR_404)
    tries["authenticated"][:-1] = 0
    tries["error"][-1], tries["status"][-1], tries["route"][-1] = 0, 200, 7
    judge.feed(tries)
    rows = [row for row in judge.found if row["detector"] == INDEX]
    assert max(row["bits"] for row in rows if row["event"] != tries["request"][-1]) > 6.0
    assert not [row for row in rows if row["event"] == tries["request"][-1] and row["bits"] > 0.0]
    judge.found.clear()
    judge.feed(burst(at_us + 4 * HOUR_US, 6, 6, ERROR_404))
    assert evidence(judge) > 3.0


def test_a_lone_error_that_peers_have_daily_is_no_finding_either() -> None:
    said = []
    for lone in (0.0, 500.0):
        judge, at_us = clean_key()
        judge.shared["errors"]["visits"][:], judge.shared["errors"]["lone"][:, :, MISSING] = 2_000.0, lone
        judge.feed(burst(at_us, 1, 1, ERROR_404))
        said.append(best(judge))
    assert said[0] > 5.0 and said[1] < 2.5


@pytest.mark.parametrize("wrong", [(0, 1), (1, 0), (0, 0, 1)])
def test_two_errors_or_one_of_a_kind_that_peers_do_not_have_are_worth_as_much_as_before(wrong: tuple[int, ...]) -> None:
    shared = record(ERRORS.shared)
    for _ in range(2_000):
        count_lone(lone_state(0, 1), shared, visit_of(0.5))
    assert lone_bits(lone_state(*wrong), shared, visit_of(0.5), MISSING) == NO_LIMIT
    assert lone_bits(lone_state(), shared, visit_of(0.5), DENIED) > RETRY_BITS


def test_a_visit_without_errors_is_not_limited_and_counts() -> None:
    shared = record(ERRORS.shared)
    assert lone_bits(lone_state(), shared, visit_of(0.5), -1) == NO_LIMIT
    assert lone_bits(lone_state(), shared, visit_of(0.5), MISSING) == pytest.approx(RETRY_BITS)
    count_lone(lone_state(), shared, visit_of(0.5))
    assert shared.visits[0] == 1.0 and shared.lone[0].sum() == 0.0


def weaker_beside_a_move(errors: int) -> float:
    """Bits of the weaker of two families, given each other: a new network, and so many of 12 routes refused."""
    judge, at_us = clean_key()
    judge.feed(burst(at_us, 12, 12, ERROR_403, errors / 12))
    pair = strongest_pair({"network": 13.0, "outcome": best(judge)})
    assert pair is not None
    return pair.weaker


def test_a_move_and_a_visit_s_only_error_are_a_finding_more_and_no_two_strong_families() -> None:
    assert 8.0 < weaker_beside_a_move(1) <= LONE_BITS <= STRONG_BITS  # an act takes more


def test_a_move_and_two_refused_routes_still_are() -> None:
    assert weaker_beside_a_move(2) > STRONG_BITS
