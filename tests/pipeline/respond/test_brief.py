"""What is read first: every line is there, missing numbers are said to be, and the safest act can be undone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.policy import Approver, Policy, Rule
from pipeline.respond.adapters.adapter import Support
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.brief import LADDER, NO_NUMBERS, Usage, brief, lines, safest, size
from pipeline.respond.ladder import Ladder, Matrix
from pipeline.respond.set_up import why_not
from schemas.incident import Rung
from tests.pipeline.respond.incidents import finding, incident, key
from tests.pipeline.respond.notices import USAGE, full
from tests.pipeline.respond.people import BOTH


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


ENFORCING = Ladder(Policy(mode="enforce", adapter="keys"), ())


@pytest.mark.parametrize(
    ("ladder", "approvers", "matrices", "says"),
    [
        (ENFORCING, BOTH, {"keys": MATRIX}, ""),
        (ENFORCING, (), {"keys": MATRIX}, "1 must sign, and respond.approvers names 0"),
        (ENFORCING, BOTH, {}, "keys cannot fence"),
        (Ladder(Policy(adapter="keys"), ()), BOTH, {"keys": MATRIX}, "respond.policy.mode is simulate"),
        (Ladder(Policy(mode="enforce"), ()), BOTH, {"keys": MATRIX}, "names nothing that could act"),
        (Ladder(Policy(mode="enforce", adapter="keys", bulk_approvals=3), ()), BOTH, {"keys": MATRIX}, "3 must sign"),
        (ENFORCING, BOTH, {"keys": {"fence": Support("consumer", 1.0, True)}}, "would hit the whole consumer"),
    ],
)
def test_a_command_is_named_only_where_it_would_work(
    ladder: Ladder, approvers: tuple[Approver, ...], matrices: dict[str, Matrix], says: str
) -> None:
    told = brief(full(), key(), why_not=why_not(ladder, approvers, matrices))
    assert told.act == "fence"  # that is still the safest act
    if not says:
        assert told.do == "keywatch respond act incident-k1 --rung fence"
        assert "can't" not in told.act_words
    else:
        assert (told.do, told.undo) == ("keywatch explain incident-k1", "nothing to undo")
        assert says in told.act_words and "at the gateway" in told.act_words


def test_the_policy_asks_for_as_many_people_as_the_rule_and_the_key_need() -> None:
    ladder = Ladder(Policy(mode="enforce", adapter="keys", protected_approvals=3), (
        Rule(name="partner", rung="suspend", owners=("partner",), approvals=3),
    ))  # fmt: skip
    asked = why_not(ladder, BOTH, {"keys": MATRIX})
    assert asked(full(), key(), "fence") == ""
    for declared in (key(protected=True), key(owner="partner"), None):
        assert asked(full(owner="x"), declared, "fence").startswith("3 must sign")
