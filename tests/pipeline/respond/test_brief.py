"""What is read first: every line is there, missing numbers are said to be, and the safest act can be undone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.respond.brief import LADDER, NO_NUMBERS, Usage, brief, lines, safest, size
from schemas.incident import Rung
from tests.pipeline.respond.incidents import finding, incident, key
from tests.pipeline.respond.notices import USAGE, full


def test_the_first_screen_answers_every_question() -> None:
    told = dict(lines(brief(full(), key(owner="billing", criticality="high"), USAGE)))
    assert list(told) == [
        "Owner", "What", "Owner still working", "Touched", "Safest act", "It would break", "Do", "Undo"
    ]  # fmt: skip
    assert told["Owner"] == "billing"
    assert told["Owner still working"].startswith("yes, 31 requests")
    assert told["Touched"] == "GET /v1/users/{id}: 412 requests, 3.4 MB sent"
    assert told["It would break"] == "distinct clients 14, requests a minute 220.4, high criticality"
    assert "incident-k1" in told["Do"] and "incident-k1" in told["Undo"]


def test_a_missing_number_is_said_to_be_unknown_and_never_zero() -> None:
    told = dict(lines(brief(full(), key(), NO_NUMBERS)))
    assert told["Owner still working"] == "unknown"
    assert told["It would break"].startswith("distinct clients unknown, requests a minute unknown")
    assert "the whole is unknown" in told["Touched"]


def test_nothing_from_the_usual_networks_is_not_the_same_as_unknown() -> None:
    assert brief(full(), key(), Usage(usual_requests=0)).working == "no"
    assert brief(full(), key(), NO_NUMBERS).working == "unknown"


@pytest.mark.parametrize(
    ("rung", "findings", "changes", "expected"),
    [
        ("revoke", ("network", "volume"), {}, "fence"),
        ("revoke", ("client", "volume"), {}, "suspend"),
        ("throttle", ("volume",), {}, "suspend"),
        ("rotate", ("client",), {}, "suspend"),
        ("revoke", ("network",), {"decoy": True}, "observe"),
    ],
)
def test_the_safest_act_stops_what_was_seen_and_no_more(
    rung: Rung, findings: tuple[str, ...], changes: dict[str, Any], expected: Rung
) -> None:
    about = incident(rung=rung, findings=tuple(finding(name) for name in findings))
    assert safest(about, key(**changes))[0] == expected


def test_evidence_that_anybody_could_have_made_fences_nothing() -> None:
    about = incident(findings=(finding("network", authenticated=False), finding("client")))
    assert safest(about, key())[0] == "suspend"


def test_of_a_key_nobody_declared_no_act_is_called_safe() -> None:
    told = brief(full(), None, USAGE)
    assert told.act == "observe"
    assert told.undo == "nothing to undo"
    assert "nobody declared" in told.act_words


def test_an_unreadable_catalogue_is_not_taken_for_an_undeclared_key() -> None:
    told = brief(full(), None, USAGE, "no broker")
    assert told.act == "observe"
    assert "the catalogue cannot be read (no broker)" in told.act_words
    assert told.owner == "billing"  # as the incident itself says


@pytest.mark.parametrize(("rule", "look"), [("spray", "keywatch explain i9"), ("breaker", "keywatch respond queue")])
def test_what_is_of_no_single_key_asks_to_look_and_not_for_an_owner(rule: str, look: str) -> None:
    told = brief(incident("source:198.51.100.0/24", rule=rule, incident_id="i9"), None, NO_NUMBERS)
    assert (told.act, told.do, told.undo) == ("observe", look, "nothing to undo")
    assert "no single key" in told.act_words


def test_a_protected_key_says_that_people_must_approve() -> None:
    assert "people must approve" in brief(full(), key(protected=True), USAGE).act_words


@given(st.sampled_from(("observe", "flag", "throttle", "fence", "deny", "suspend", "rotate", "revoke")), st.booleans())
def test_what_has_no_undo_is_never_called_the_safest(rung: Rung, protected: bool) -> None:
    about = incident(rung=rung, findings=(finding("client"),))
    act, why = safest(about, key(protected=protected))
    assert act in LADDER
    assert why


def test_an_id_that_is_no_word_can_not_become_another_command() -> None:
    told = brief(incident(incident_id="x; rm -rf /"), key(), NO_NUMBERS)
    assert "'x; rm -rf /'" in told.do


def test_sizes_are_for_people() -> None:
    assert [size(each) for each in (0, 999, 3_400, 34_000, 2**40)] == ["0 B", "999 B", "3.4 kB", "34 kB", "1.1 TB"]
