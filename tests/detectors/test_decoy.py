"""A decoy's use is a proof: it opens an incident whatever the budget says."""

from __future__ import annotations

import pytest

from detectors import fusion
from detectors.detector import DECLARED_DECOY
from tests.detectors.streams import Judge, blank

pytestmark = pytest.mark.timeout(900)


def judged(authenticated: int) -> Judge:
    judge = Judge(1, listed_days=1e15, page_days=1e15)
    events = blank(3)
    events["declared"] = DECLARED_DECOY
    events["authenticated"] = authenticated
    judge.feed(events)
    return judge


def test_the_first_use_opens_a_critical_incident_by_proof() -> None:
    judge = judged(authenticated=1)
    assert judge.kinds()[0] == "opened"
    assert fusion.RULES[judge.changed[0]["rule"]] == "proof"
    assert judge.changed[0]["severity"] == 2
    assert judge.changed[0]["event"] == 1, "the very first event"


def test_who_only_names_it_leaves_a_finding_and_no_incident() -> None:
    judge = judged(authenticated=0)
    assert judge.kinds() == []
    assert judge.bits("decoy")


def test_an_ordinary_keys_use_is_none() -> None:
    judge = Judge(1, finding_bits=0.1)
    judge.feed(blank(50))
    assert judge.bits("decoy") == []
