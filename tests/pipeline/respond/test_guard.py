"""Guards: what may act on a key by itself, and each refusal by its name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.policy import Policy, Rule
from pipeline.config.tree import Revocation
from pipeline.decide import rung
from pipeline.respond import guard
from pipeline.respond.guard import GUARDS, Question, evidence_hash, judge, refusals, still
from pipeline.respond.ladder import Ladder, revocation
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.entries import Proposed
from schemas.incident import Finding, Incident
from schemas.key import Key, undeclared
from tests.pipeline.respond.incidents import NOW_S, finding, incident, key, policy
from tests.pipeline.respond.ledger.test_ledger import proposed
from tests.pipeline.respond.people import ANN, BOB, EVE

NEW = Ladder(Policy(mode="enforce", adapter="keys"), (Rule(name="fence", rung="fence"),))


def question(**changes: Any) -> Question:
    values: dict[str, Any] = {
        "incident": incident(), "ladder": revocation(policy()), "key": key(), "catalogue_error": "", "killed": "",
        "now_s": NOW_S,
    }  # fmt: skip
    if "policy" in changes:
        changes["ladder"] = revocation(changes.pop("policy"))
    return Question(**(values | changes))


def refused_by(asked: Question) -> set[str]:
    return {result.guard for result in refusals(judge(asked))}


def test_a_strong_incident_on_a_declared_key_passes_all_guards() -> None:
    assert refused_by(question()) == set()


def test_every_guard_answers_with_its_own_name_and_a_sentence() -> None:
    results = judge(question())
    assert [result.guard for result in results] == [guard.__name__ for guard in GUARDS]
    assert all(result.reason for result in results)


def test_nothing_acts_by_default() -> None:
    assert (Policy().mode, Revocation().mode) == ("simulate", "simulate")
    assert Revocation().endpoint == ""


@pytest.mark.parametrize(
    ("changes", "guard"),
    [
        ({"policy": policy(mode="off")}, "mode"),
        ({"policy": policy(mode="Enforce")}, "mode"),
        ({"killed": "the file exists"}, "kill_switch"),
        ({"incident": incident(state="closed")}, "state"),
        ({"incident": incident(rule="lifecycle")}, "rule"),
        ({"incident": incident(severity="medium")}, "policy"),
        ({"policy": policy(environments=("test",))}, "policy"),
        ({"policy": policy(detectors=("off_hours",))}, "policy"),
        ({"ladder": Ladder(Policy(mode="enforce"), ())}, "policy"),
        ({"ladder": NEW, "published_s": NOW_S + 300}, "lag"),
        ({"ladder": NEW, "changed_s": NOW_S - 599}, "settled"),
        ({"ladder": NEW, "changed_s": NOW_S + 5}, "settled"),
        ({"incident": incident(findings=(finding("network", ago_s=601), finding("volume", ago_s=700)))}, "freshness"),
        ({"incident": incident(findings=(finding("network", ago_s=-121), finding("volume", ago_s=-500)))}, "freshness"),
        ({"key": None}, "catalogued"),
        ({"key": None}, "protected"),
        ({"catalogue_error": "no broker"}, "protected"),
        ({"key": key(protected=True)}, "protected"),
        ({"key": undeclared("k1")}, "protected"),
        ({"key": key(status="revoked")}, "status"),
        ({"key": key(version=2)}, "key_version"),
        ({"key": key(version=0)}, "key_version"),
        ({"incident": incident(key_version=0)}, "key_version"),
    ],
)  # fmt: skip
def test_each_guard_refuses_what_it_is_there_for(changes: dict[str, Any], guard: str) -> None:
    assert guard in refused_by(question(**changes))


def test_volume_and_errors_together_never_act_since_a_deploy_brings_both() -> None:
    both = (finding("volume", bits=500.0), finding("outcome", bits=500.0))
    assert "evidence" in refused_by(question(incident=incident(findings=both)))
    weak = (*both, finding("network", bits=9.9))
    assert "evidence" in refused_by(question(incident=incident(findings=weak)))
    beside = (*both, finding("network", bits=10.1))
    assert "evidence" not in refused_by(question(incident=incident(findings=beside)))


def test_three_novelties_of_one_new_visitor_are_one_fact_and_the_audit_says_how_much_each_adds() -> None:
    moved = (finding("network", bits=14.0), finding("client", bits=13.0), finding("operation", bits=13.0))
    said = {each.guard: each.reason for each in judge(question(incident=incident(findings=moved)))}
    assert said["evidence"].startswith("network 14.0 bits, 10.9 given operation; operation 13.0, 9.9 given network")
    assert "evidence" in refused_by(question(incident=incident(findings=moved)))


def test_what_anyone_can_send_does_not_explain_the_holders_findings_away() -> None:
    junk = finding("client", bits=500.0, authenticated=False)
    assert refused_by(question(incident=incident(findings=(*incident().findings, junk)))) == set()


def test_a_policy_that_asks_for_no_bits_still_asks_for_two_facts() -> None:
    release = (finding("volume", bits=500.0), finding("outcome", bits=500.0))
    assert "evidence" in refused_by(question(policy=policy(min_family_bits=0.0), incident=incident(findings=release)))


def test_volume_alone_never_acts_however_much_of_it_there_is() -> None:
    much = tuple(finding("volume", bits=500.0, detector=f"spike{i}") for i in range(5))
    assert "evidence" in refused_by(question(incident=incident(findings=much)))


def test_two_findings_of_one_family_are_one_kind_of_evidence() -> None:
    country_and_network = (finding("network", detector="country"), finding("network", detector="asn"))
    assert "evidence" in refused_by(question(incident=incident(findings=country_and_network)))


@pytest.mark.parametrize(("bits", "refused"), [(9.9, {"evidence"}), (10.0, {"evidence"}), (10.0 + 1e-9, set())])
def test_a_family_counts_only_with_more_bits_than_the_policys(bits: float, refused: set[str]) -> None:
    strong = finding("outcome")
    assert refused_by(question(incident=incident(findings=(finding("network", bits=bits), strong)))) == refused


def test_the_most_that_an_odd_hour_can_have_is_no_second_fact() -> None:
    both = (finding("declared", bits=20.0), finding("time", bits=10.0))
    assert refused_by(question(incident=incident(findings=both))) == {"evidence"}
    assert rung(both) != "revoke", "what the incident recommends goes by the same border"


def test_what_anyone_can_cause_with_a_key_s_public_id_is_no_evidence() -> None:
    junk = (finding("network", authenticated=False), finding("outcome", authenticated=False), finding("volume"))
    assert refused_by(question(incident=incident(findings=junk))) == {"evidence"}
    assert "authenticated" in refused_by(question(incident=incident(findings=junk[:2])))


@pytest.mark.parametrize("rule", ["proof", "leak"])
def test_a_proof_needs_one_authenticated_finding_and_no_second_family(rule: str) -> None:
    assert refused_by(question(incident=incident(rule=rule, findings=(finding("declared"),)))) == set()
    guessed = incident(rule=rule, findings=(finding("declared", authenticated=False),))
    assert "evidence" in refused_by(question(incident=guessed))


def test_the_declared_environment_counts_before_the_one_in_the_events() -> None:
    live_only = policy(environments=("live",))
    assert "policy" in refused_by(question(policy=live_only, key=key(environment="test")))
    assert "policy" not in refused_by(question(policy=live_only, key=key(environment="")))


@pytest.mark.parametrize("at", ["", "yesterday", "2026-11-24T02:00:00"])
def test_evidence_without_a_readable_time_is_stale(at: str) -> None:
    findings = tuple(_at(each, at) for each in incident().findings)
    assert "freshness" in refused_by(question(incident=incident(findings=findings)))


def _at(original: Finding, at: str) -> Finding:
    import msgspec

    return msgspec.structs.replace(original, at=at)


_findings = st.lists(
    st.builds(
        finding,
        family=st.sampled_from(["network", "volume", "outcome", ""]),
        bits=st.floats(allow_nan=True, allow_infinity=True),
        ago_s=st.floats(-1000, 10_000),
        authenticated=st.booleans(),
    ),
    max_size=6,
).map(tuple)


@given(findings=_findings, severity=st.sampled_from(["medium", "high", "critical"]), declared=st.booleans())
def test_what_passes_rests_on_two_strong_authenticated_families(
    findings: tuple[Finding, ...], severity: str, declared: bool
) -> None:
    asked = question(incident=incident(findings=findings, severity=severity), key=key() if declared else None)
    if not refused_by(asked):
        best = {each.family for each in findings if each.authenticated and each.bits > 10.0}
        assert declared
        assert severity in ("high", "critical")
        assert best > {"network"}


@given(findings=_findings)
def test_a_protected_key_never_passes(findings: tuple[Finding, ...]) -> None:
    for asked in (_protected(incident(findings=findings)), _protected(incident(rule="proof", findings=findings))):
        assert "protected" in refused_by(asked)


def _protected(of: Incident) -> Question:
    declared: Key = key(protected=True)
    return question(incident=of, key=declared)


def test_hashes_name_the_evidence_and_the_policy() -> None:
    assert evidence_hash(incident()) == evidence_hash(incident(revision=2))
    assert evidence_hash(incident()) != evidence_hash(incident(findings=()))
    assert revocation(policy()).version != revocation(policy(max_per_hour=4)).version


def test_a_lag_and_a_change_that_are_long_over_stop_nothing() -> None:
    asked = question(ladder=NEW, published_s=NOW_S - 4, changed_s=NOW_S - 601)
    assert refused_by(asked) == set()


@pytest.mark.parametrize(
    ("declared", "error", "approved", "refused"),
    [
        (key(), "", False, ""),
        (None, "", False, "catalogued"),
        (None, "", True, ""),
        (None, "no broker", True, "catalogued"),
        (key(protected=True), "", False, "protected"),
        (key(protected=True), "", True, ""),
        (key(version=2), "", True, "key_version"),
    ],
)
def test_before_an_old_grant_is_carried_out_the_key_is_looked_at_again(
    declared: Key | None, error: str, approved: bool, refused: str
) -> None:
    wanted = Proposed(
        act_id="a", response_id="r", incident_id="i", revision=1, key_id="k1", key_version=1, responder="me"
    )
    no = [each.guard for each in refusals(still(wanted, declared, error, approved))]
    assert no == ([refused] if refused else [])


def _approved(approvals: int = 1, group: str = "", rule: str = "") -> Act:
    """Signed by ann, and by eve whom only the proposal calls an approver."""
    wanted = proposed("k1", approvals=approvals, approvers=(ANN.approver, EVE.approver), group=group, rule=rule)
    act = Act(wanted, 0, 0, stage="open", ticket="t", approved_by=("ann", "eve"))
    act.words_said = {each.name: each.says("t") for each in (ANN, EVE)}
    return act


@pytest.mark.parametrize(
    ("act", "key_", "passed"),
    [
        (_approved(1), key(), True),
        (_approved(2), key(), False),  # eve is nobody here
        (_approved(1), key(protected=True), False),  # two are needed for those, whatever the proposal says
        (_approved(1), None, False),
        (_approved(1, rule="careful"), key(), False),
        (_approved(1, group="bulk2-1"), key(), True),
        (_approved(1, group="bulk-1"), key(), False),  # bound to nothing but ids
    ],
)
def test_approvals_are_counted_by_the_responders_own_approvers_and_numbers(
    act: Act, key_: Key | None, passed: bool
) -> None:
    careful = Rule(name="careful", rung="suspend", approvals=2)
    ladder = Ladder(Policy(protected_approvals=2), (careful,))
    assert guard.signed(act, key_, ladder, (ANN.approver, BOB.approver)).passed == passed


def test_a_bulk_needs_as_many_approvals_as_the_responders_own_policy_asks_for_bulks() -> None:
    act, ladder = _approved(1, group="bulk2-1"), Ladder(Policy(bulk_approvals=2), ())
    assert not guard.signed(act, key(), ladder, (ANN.approver, BOB.approver)).passed
    act.words_said["bob"] = BOB.says("t")
    assert guard.signed(act, key(), ladder, (ANN.approver, BOB.approver)).passed


def test_without_approvers_of_its_own_a_responder_does_nothing_that_needs_them() -> None:
    assert not guard.signed(_approved(1), key(), Ladder(Policy(), ()), ()).passed
