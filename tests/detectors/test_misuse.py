"""Use against the declaration: rare the first time, usual for a key that always does it, a proof where it has ended."""

from __future__ import annotations

import pytest

from detectors import fusion
from detectors.detector import (
    DECLARED_ENDED,
    DECLARED_NETWORK,
    DECLARED_OVERAGE,
    DECLARED_SCOPE,
    DECLARED_SUPERSEDED,
    ERROR_5XX,
    ERROR_NONE,
)
from detectors.misuse import RULES, WORDS
from tests.detectors.one_more import bits_of, found_in, one_more
from tests.detectors.streams import DAY_US, Judge, daily_visits

pytestmark = pytest.mark.timeout(900)


def test_the_first_use_outside_of_the_allowed_networks_is_a_finding_and_evidence() -> None:
    life = daily_visits(30)
    found = found_in("misuse", life, one_more(life, declared=DECLARED_NETWORK))
    assert found and found[0]["bits"] > 6
    assert found[0]["lr_stranger"] > 5


@pytest.mark.parametrize("rule", range(len(RULES)), ids=WORDS)
def test_each_of_the_ten_ways_to_break_a_declaration_is_a_finding_the_first_time_and_says_which(rule: int) -> None:
    life = daily_visits(30)
    (found,) = found_in("misuse", life, one_more(life, declared=int(RULES[rule])))
    assert found["bits"] > 6 and int(found["a"]) == rule
    assert (found["lr_stranger"] > 0) == (int(RULES[rule]) != DECLARED_OVERAGE)


def test_a_client_that_was_never_in_its_allowed_networks_is_misconfigured_not_stolen() -> None:
    life = daily_visits(30)
    life["declared"] = DECLARED_NETWORK
    judge = Judge(1)
    judge.feed(life)
    assert judge.kinds() == []
    assert bits_of("misuse", life, one_more(life)) < 2


def test_a_success_with_an_ended_key_is_a_proof_and_a_refusal_is_not() -> None:
    life = daily_visits(30)
    for authenticated, opened in ((1, ["proof"]), (0, [])):
        judge = Judge(1, listed_days=1e15, page_days=1e15)
        judge.feed(life)
        judge.feed(one_more(life, declared=DECLARED_ENDED, authenticated=authenticated))
        rules = [fusion.RULES[row["rule"]] for row in judge.changed if fusion.KINDS[row["kind"]] == "opened"]
        assert rules == opened


def test_who_holds_an_ended_key_and_gets_nothing_for_it_is_no_proof() -> None:
    life = daily_visits(30)
    for error in range(ERROR_NONE, ERROR_5XX + 1):
        (found,) = found_in("misuse", life, one_more(life, calls=1, declared=DECLARED_ENDED, error=error))
        assert bool(found["proof"]) == (error == ERROR_NONE), error


def test_a_superseded_key_is_evidence_once_and_a_forgotten_job_is_none_for_long() -> None:
    life = daily_visits(30)
    found = found_in("misuse", life, one_more(life, declared=DECLARED_SUPERSEDED))
    assert found and found[0]["bits"] > 6
    assert 4 < found[0]["lr_stranger"] < 8
    judge = Judge(1)
    judge.feed(life)
    later = daily_visits(30)
    later["ts_us"] += 30 * DAY_US
    later["request"] += 1_000_000
    later["declared"] = DECLARED_SUPERSEDED
    judge.feed(later)
    assert judge.kinds() == []
    again = one_more(later, declared=DECLARED_SUPERSEDED)
    judge.found.clear()
    judge.feed(again)
    assert judge.bits("misuse") == []


def test_old_age_is_a_finding_and_never_evidence() -> None:
    life = daily_visits(30)
    rows = found_in("misuse", life, one_more(life, declared=DECLARED_OVERAGE))
    assert rows and all(row["lr_stranger"] == 0 == row["lr_insider"] for row in rows)


def test_several_broken_rules_are_one_fact() -> None:
    life = daily_visits(30)
    one = found_in("misuse", life, one_more(life, declared=DECLARED_NETWORK))[0]
    both = found_in("misuse", life, one_more(life, declared=DECLARED_NETWORK | DECLARED_SCOPE))[0]
    assert both["lr_stranger"] == one["lr_stranger"]
    assert both["observed"] == 2
