"""What is read first: every line is there, missing numbers are said to be, and the safest act can be undone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.policy import Approver, Policy, Rule
from pipeline.respond.adapters import build
from pipeline.respond.adapters.adapter import Support
from pipeline.respond.adapters.settings import Adapters
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.brief import LADDER, Known, Usage, brief, lines, safest, size
from pipeline.respond.ladder import Ladder, Matrix
from pipeline.respond.ledger.acts import Act, Stage
from pipeline.respond.ledger.standing import standing
from pipeline.respond.set_up import SetUp
from schemas.incident import Rung
from tests.pipeline.respond.incidents import NOW_S, finding, incident, key
from tests.pipeline.respond.ledger.test_ledger import proposed
from tests.pipeline.respond.notices import USAGE, full
from tests.pipeline.respond.people import BOTH


def test_the_first_screen_answers_every_question() -> None:
    told = dict(lines(brief(full(), key(owner="billing", criticality="high"), Known(usage=USAGE))))
    assert list(told) == [
        "Owner", "What", "Owner still working", "Touched", "Safest act", "It would break", "Do", "Undo"
    ]  # fmt: skip
    assert told["Owner"] == "billing"
    assert told["Owner still working"].startswith("yes, 31 requests")
    assert told["Touched"] == "GET /v1/users/{id}: 412 requests, 3.4 MB sent"
    assert told["It would break"] == "distinct clients 14, requests a minute 220.4, high criticality"
    assert "incident-k1" in told["Do"] and "incident-k1" in told["Undo"]


def test_a_missing_number_is_said_to_be_unknown_and_never_zero() -> None:
    told = dict(lines(brief(full(), key())))
    assert told["Owner still working"] == "unknown"
    assert told["It would break"].startswith("distinct clients unknown, requests a minute unknown")
    assert "the whole is unknown" in told["Touched"]


def test_nothing_from_the_usual_networks_is_not_the_same_as_unknown() -> None:
    assert brief(full(), key(), Known(usage=Usage(usual_requests=0))).working == "no"
    assert brief(full(), key()).working == "unknown"


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
    told = brief(full(), None, Known(usage=USAGE))
    assert told.act == "observe"
    assert told.undo == "nothing to undo"
    assert "nobody declared" in told.act_words


def test_an_unreadable_catalogue_is_not_taken_for_an_undeclared_key() -> None:
    told = brief(full(), None, Known(usage=USAGE, unreadable="no broker"))
    assert told.act == "observe"
    assert "the catalogue cannot be read (no broker)" in told.act_words
    assert told.owner == "billing"  # as the incident itself says


@pytest.mark.parametrize(("rule", "look"), [("spray", "keywatch explain i9"), ("breaker", "keywatch respond queue")])
def test_what_is_of_no_single_key_asks_to_look_and_not_for_an_owner(rule: str, look: str) -> None:
    told = brief(incident("source:198.51.100.0/24", rule=rule, incident_id="i9"), None)
    assert (told.act, told.do, told.undo) == ("observe", look, "nothing to undo")
    assert "no single key" in told.act_words


def test_a_protected_key_says_that_people_must_approve() -> None:
    assert "people must approve" in brief(full(), key(protected=True), Known(usage=USAGE)).act_words


@given(st.sampled_from(("observe", "flag", "throttle", "fence", "deny", "suspend", "rotate", "revoke")), st.booleans())
def test_what_has_no_undo_is_never_called_the_safest(rung: Rung, protected: bool) -> None:
    about = incident(rung=rung, findings=(finding("client"),))
    act, why = safest(about, key(protected=protected))
    assert act in LADDER
    assert why


def test_an_id_that_is_no_word_can_not_become_another_command() -> None:
    told = brief(incident(incident_id="x; rm -rf /"), key())
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
        (ENFORCING, BOTH, {"keys": {"fence": Support("consumer", 1.0, True)}}, "hits the whole consumer"),
    ],
)
def test_a_command_is_named_only_where_it_would_work(
    ladder: Ladder, approvers: tuple[Approver, ...], matrices: dict[str, Matrix], says: str
) -> None:
    told = brief(full(), key(), Known(set_up=SetUp(ladder, approvers, matrices)))
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
    here = SetUp(ladder, BOTH, {"keys": MATRIX})
    assert here.closed(full(), key()) == ""
    for declared in (key(protected=True), key(owner="partner"), None):
        assert here.closed(full(owner="x"), declared).startswith("3 must sign")


REAL = build.matrices(Adapters())


@pytest.mark.parametrize("adapter", sorted(REAL))
@pytest.mark.parametrize(("siblings", "alone"), [(0, True), (3, False)])
def test_for_network_evidence_every_gateway_gets_the_mildest_act_it_can_do_to_this_key(
    adapter: str, siblings: int, alone: bool
) -> None:
    here = SetUp(Ladder(Policy(mode="enforce", adapter=adapter), ()), BOTH, REAL)
    told = brief(full(), key(owner="billing"), Known(set_up=here, others=(siblings, 99)))
    fences = REAL[adapter].get("fence")
    expected = "fence" if fences and (fences.granularity == "key" or alone) else "suspend"
    assert told.act == expected
    assert told.do == f"keywatch respond act incident-k1 --rung {expected}"
    assert told.undo == "keywatch respond undo incident-k1 --reason TEXT"
    assert ("no fence: " in told.act_words) == (expected == "suspend")


def test_a_key_without_networks_of_its_own_is_not_told_to_be_fenced() -> None:
    known = Known(usage=Usage(fence_networks=()))
    assert brief(full(), key(), known).do.endswith("--rung suspend")
    assert brief(full(), key(allowed_networks=("192.0.2.0/24",)), known).do.endswith("--rung fence")
    assert brief(full(), key()).do.endswith("--rung fence")  # not known is not none
    thief_inside = Known(usage=Usage(fence_networks=("198.51.100.0/24",)))  # where the evidence comes from
    assert brief(full(), key(), thief_inside).do.endswith("--rung suspend")


def act(stage: Stage = "done", **changes: Any) -> Act:
    values: dict[str, Any] = {"rung": "suspend", "incident_id": "incident-k1", "key_version": 1, "rule": "live"}
    of = proposed("k1", **(values | changes))
    until_us = us(3600) if of.rung != "revoke" else 0
    return Act(of, 0, us(0), stage=stage, done_us=us(1), until_us=until_us, ticket="act-1")


def us(seconds: float) -> int:
    return int((NOW_S + seconds) * 1e6)


def told_of(*acts: Act) -> dict[str, str]:
    return dict(lines(brief(full(), key(), Known(usage=USAGE, standing=standing(acts, full())))))


@pytest.mark.parametrize("incident_id", ["incident-k1", "another one on the same key"])
def test_what_stands_is_said_with_its_undo_and_nothing_is_proposed_again(incident_id: str) -> None:
    of = act(incident_id=incident_id)
    told = told_of(of)
    assert next(iter(told)) == "In force"
    assert told["In force"].startswith("suspend is in force since 2026-11-18 11:06 UTC until 2026-11-18 12:06 UTC")
    assert told["In force"].endswith("by rule live alone")
    assert told["Do"] == "keywatch explain incident-k1"
    assert told["Undo"] == f"keywatch respond undo {of.proposal.response_id[:12]} --reason TEXT"
    assert told["Safest act"].startswith("nothing more: suspend is in force")


def test_what_waits_is_to_be_approved_and_a_lower_rung_leaves_room_for_the_act() -> None:
    assert told_of(act("pending"))["Do"] == "keywatch respond approve act-1"
    flagged = told_of(act(rung="flag"))
    assert flagged["Do"] == "keywatch respond act incident-k1 --rung fence"
    assert "flag is in force" in flagged["In force"] and flagged["Undo"].startswith("keywatch respond undo ")
    revoked = told_of(act(rung="revoke"))
    assert (revoked["Do"], revoked["Undo"]) == ("keywatch explain incident-k1", "a revocation has no undo")


def test_what_was_simulated_is_over_or_is_of_another_key_does_not_stand() -> None:
    for other in (act(simulated=True), act("undone"), act("failed"), act("declined")):
        assert "In force" not in told_of(other)
    assert standing([act(incident_id="i2")], full(key_id="k2")) == ()
    earlier = told_of(act(key_version=7))
    assert "an earlier version" in earlier["In force"] and "respond act" in earlier["Do"]
