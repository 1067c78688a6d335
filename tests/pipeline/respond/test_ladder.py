"""The ladder: which rung a policy leads to, and what an adapter's matrix, the key and its siblings allow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.config.policy import Caps, Policy, Rule
from pipeline.config.tree import Respond, Revocation
from pipeline.respond.adapters import aws_iam
from pipeline.respond.adapters.adapter import Support
from pipeline.respond.adapters.settings import AwsIam
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.ladder import LADDER, UNDOABLE, Ladder, Matrix, Means, ladder_of, lasts_s, step_of
from schemas.incident import Rung
from tests.pipeline.respond.incidents import finding, incident, key

ALL: dict[Rung, Support] = {rung: Support("key", 1.0, rung != "revoke") for rung in LADDER[1:]}
LIMITED = Rule(name="limited", rung="suspend", min_severity="critical", roles=("limited",))
MANY = tuple(f"10.{number // 256}.{number % 256}.0/24" for number in range(257))
IAM = aws_iam.matrix(AwsIam())["fence"]
FENCE = Rule(name="fence", rung="fence", otherwise=("suspend",))


def means(**changes: Any) -> Means:
    values: dict[str, Any] = {
        "adapter": "gateway", "matrix": ALL, "networks": ("192.0.2.0/24",), "owner_keys": 0, "other_keys": 3,
    }  # fmt: skip
    return Means(**(values | changes))


def refused(rule: Rule, of: Means) -> list[str]:
    return [each.guard for each in step_of(rule, of).guards if not each.passed]


def test_the_first_rule_that_matches_decides() -> None:
    ladder = Ladder(Policy(), (LIMITED, FENCE))
    rule, why = ladder.rule_of(incident(), key(role="limited"))
    assert (rule, why) == (LIMITED, "rule limited: suspend")
    assert ladder.rule_of(incident(), key(role="full"))[0] == FENCE
    assert ladder.rule_of(incident(severity="high"), key(role="limited"))[0] == FENCE


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"min_severity": "critical"}, "high is below critical"),
        ({"environments": ("test",)}, "environment live is not test"),
        ({"roles": ("full",)}, "role read_only is not full"),
        ({"owners": ("acme",)}, "owner not known is not acme"),
        ({"detectors": ("errors",)}, "found by network or volume, not by errors"),
        ({"criticalities": ("critical",)}, "criticality normal is not critical"),
        ({"proof": "only"}, "no proof"),
    ],
)
def test_a_rule_that_does_not_match_says_why(rule: dict[str, Any], word: str) -> None:
    ladder = Ladder(Policy(), (Rule(name="it", rung="suspend", **({"min_severity": "high"} | rule)),))
    found, why = ladder.rule_of(incident(severity="high", rule="visit"), key(role="read_only"))
    assert found is None
    assert word in why


@pytest.mark.parametrize(
    ("changes", "matches"), [({}, True), ({"bits": 0.0}, False), ({"authenticated": False}, False)]
)
def test_a_rule_by_detector_goes_by_findings_that_say_something_of_who_held_the_key(
    changes: dict[str, Any], matches: bool
) -> None:
    ladder = Ladder(Policy(), (Rule(name="it", rung="suspend", detectors=("errors",)),))
    found, _ = ladder.rule_of(incident(findings=(finding("network"), finding("errors", **changes))), key())
    assert (found is not None) == matches


def test_a_rule_for_no_proof_leaves_proofs_to_the_next() -> None:
    ladder = Ladder(Policy(), (Rule(name="odd", rung="fence", proof="never"), Rule(name="sure", rung="revoke")))
    rule, _ = ladder.rule_of(incident(rule="proof", findings=(finding("declared"),)), key())
    assert rule is not None
    assert rule.name == "sure"


def test_what_the_adapter_lacks_is_refused_by_name_unless_the_policy_names_another_rung() -> None:
    without: dict[Rung, Support] = {"suspend": ALL["suspend"]}
    assert refused(Rule(name="only", rung="fence"), means(matrix=without)) == ["supported"]
    fallen = step_of(FENCE, means(matrix=without))
    assert fallen.rung == "suspend"
    assert fallen.possible
    assert "gateway cannot fence a key" in fallen.guards[0].reason
    assert refused(FENCE, means(matrix=None)) == ["supported"]


def test_the_ladder_is_never_left_for_a_rung_that_the_policy_does_not_name() -> None:
    only_revoke: dict[Rung, Support] = {"revoke": ALL["revoke"]}
    step = step_of(FENCE, means(matrix=only_revoke))
    assert (step.rung, step.possible) == ("fence", False)


def test_a_rotation_whose_old_key_nobody_can_end_is_refused() -> None:
    rule = Rule(name="r", rung="rotate")
    rotate, revoke = MATRIX["rotate"], MATRIX["revoke"]
    assert rotate.ends_old == "keywatch"
    assert refused(rule, Means("keys", {"rotate": rotate, "revoke": revoke})) == []
    assert refused(rule, Means("keys", {"rotate": replace(rotate, ends_old="gateway")})) == []
    matrices: list[Matrix] = [{"rotate": rotate}, {"rotate": replace(rotate, ends_old=""), "revoke": revoke}]
    for matrix in matrices:
        assert refused(rule, Means("keys", matrix)) == ["supported"]


@pytest.mark.parametrize(
    ("granularity", "owner_keys", "other_keys", "hits"),
    [("key", None, None, False), ("consumer", 0, 9, False), ("consumer", 1, 9, True), ("consumer", None, 9, True),
     ("account", 0, 1, True), ("account", 0, 0, False), ("account", 0, None, True)],
)  # fmt: skip
def test_a_rung_that_would_hit_other_keys_is_refused(
    granularity: Any, owner_keys: int | None, other_keys: int | None, hits: bool
) -> None:
    matrix: dict[Rung, Support] = {"suspend": Support(granularity, 1.0, True)}
    of = means(matrix=matrix, owner_keys=owner_keys, other_keys=other_keys)
    assert refused(Rule(name="s", rung="suspend"), of) == (["granularity"] if hits else [])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"networks": ()}, "no network was used on 7 days"),
        ({"networks": (), "networks_error": "ClickHouse is away"}, "ClickHouse is away"),
        ({"suspects": ("192.0.2.9",)}, "come from networks it was used from before"),
        ({"networks": MANY}, "too many networks for a fence: at least 257; gateway takes 256"),
        ({"networks": MANY[:81], "matrix": {**ALL, "fence": IAM}}, "too many networks for a fence: at least 81;"),
    ],
)
def test_a_fence_that_has_no_networks_or_keeps_nobody_out_is_no_fence(changes: dict[str, Any], why: str) -> None:
    assert refused(Rule(name="only", rung="fence"), means(**changes)) == ["parameters"]
    fallen = step_of(FENCE, means(**changes))
    assert fallen.rung == "suspend"
    assert why in fallen.guards[0].reason


def test_as_many_networks_as_can_be_in_a_fence_are_in_it() -> None:
    assert step_of(FENCE, means(networks=MANY[:256])).rung == "fence"


def test_a_fence_keeps_out_who_comes_from_elsewhere() -> None:
    assert step_of(FENCE, means(suspects=("203.0.113.5", "192.0.2.9"))).rung == "fence"
    assert step_of(FENCE, means(suspects=("2001:db8::1",))).rung == "fence"


def test_throttle_and_deny_need_their_numbers() -> None:
    assert refused(Rule(name="t", rung="throttle"), means()) == ["parameters"]
    assert refused(Rule(name="t", rung="throttle", limit_per_s=2.0), means()) == []
    assert refused(Rule(name="d", rung="deny"), means()) == ["parameters"]
    assert refused(Rule(name="d", rung="deny", scopes=("admin",)), means()) == []
    assert (
        refused(Rule(name="d", rung="deny"), means(matrix=aws_iam.matrix(AwsIam()))) == []
    )  # it has a list of its own


def test_every_rung_but_observe_and_revoke_can_be_undone() -> None:
    assert {"flag", "throttle", "fence", "deny", "suspend", "rotate"} == UNDOABLE


def test_proofs_fences_and_flags_are_counted_by_themselves() -> None:
    ladder = Ladder(Policy(), ())
    assert ladder.caps_of("suspend", proof=False) == ("usual", Caps())
    assert ladder.caps_of("fence", proof=False)[0] == "fence"
    assert ladder.caps_of("flag", proof=False)[0] == "flag"
    assert ladder.caps_of("fence", proof=True) == ("proof", Policy().proof_caps)


def test_the_old_form_is_one_rule_with_its_caps_for_everything() -> None:
    old = Revocation(mode="enforce", endpoint="keys", max_per_hour=7, detectors=("geography",))
    ladder = ladder_of(Respond(revocation=old))
    (rule,) = ladder.rules
    assert (rule.rung, rule.detectors, ladder.policy.adapter) == ("revoke", ("geography",), "keys")
    assert ladder.caps_of("revoke", proof=True) == ladder.caps_of("revoke", proof=False)
    assert ladder.policy.caps.max_per_hour == 7


def test_every_number_and_rule_is_in_the_policy_s_version() -> None:
    versions = {
        Ladder(Policy(), (FENCE,)).version,
        Ladder(Policy(), (FENCE, LIMITED)).version,
        Ladder(Policy(max_per_owner=3), (FENCE,)).version,
        Ladder(Policy(fence_caps=Caps(max_per_day=9)), (FENCE,)).version,
    }
    assert len(versions) == 4


def test_a_rotated_key_stays_valid_for_its_overlap_and_never_as_long_as_a_fence_lasts() -> None:
    """Its owner would be cut off: `duration_s` is an hour where nobody set it."""
    rule = Rule(name="leaked", rung="rotate", otherwise=("suspend", "revoke"), duration_s=60.0)
    assert [lasts_s(rule, rung) for rung in ("rotate", "suspend", "revoke")] == [7 * 86_400.0, 60.0, 0.0]
    assert lasts_s(Rule(name="leaked", rung="rotate", overlap_s=0.0), "rotate") == 0.0
