"""A policy's faults: what stops the responder, what can never match, what is unsafe."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.config.file import build
from pipeline.config.policy import Caps, Policy, Rule
from pipeline.config.tree import Respond, Revocation
from pipeline.errors import ConfigError
from pipeline.respond.adapters import aws_iam
from pipeline.respond.adapters.settings import AwsIam
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.ladder import Matrix
from pipeline.respond.policy.check import check, faults
from tests.pipeline.respond.people import ANN, BOB

GOOD = Rule(name="good", rung="fence", otherwise=("suspend",))
MATRICES: dict[str, Matrix] = {"keys": MATRIX, "flags": {"flag": MATRIX["flag"]}}
DETECTORS = frozenset({"geography", "spike"})


def respond(*rules: Rule, **changes: Any) -> Respond:
    values: dict[str, Any] = {"policy": Policy(adapter="keys"), "approvers": (ANN.approver, BOB.approver)}
    return Respond(rules=rules or (GOOD,), **(values | changes))


def said(of: Respond) -> list[tuple[str, str]]:
    return [(fault.level, fault.words) for fault in faults(of, MATRICES, DETECTORS)]


def test_a_good_policy_has_no_faults() -> None:
    assert said(respond()) == []
    check(respond())


FENCE_ONLY = Rule(name="odd", rung="fence", proof="never")


@pytest.mark.parametrize(
    ("rules", "active_keys", "where"),
    [
        ((GOOD,), 999, ["caps", "proof_caps"]),
        ((GOOD,), 1000, []),
        ((GOOD,), 199, ["caps", "fence_caps", "proof_caps"]),
        ((FENCE_ONLY,), 199, ["fence_caps"]),
        ((FENCE_ONLY,), 200, []),
        ((GOOD,), 0, []),  # not known
    ],
)
def test_a_share_of_less_than_one_key_is_said_to_allow_nothing(
    rules: tuple[Rule, ...], active_keys: int, where: list[str]
) -> None:
    found = list(faults(respond(*rules), MATRICES, DETECTORS, active_keys))
    assert [fault.where for fault in found] == [f"respond.policy.{name}" for name in where]
    assert all(fault.level == "never" and "max_share_of_active" in fault.words for fault in found)


def rule(**changes: Any) -> Rule:
    values: dict[str, Any] = {"name": "it", "rung": "suspend"}
    return Rule(**(values | changes))


@pytest.mark.parametrize(
    ("of", "level", "words"),
    [
        (respond(rule(), rule()), "wrong", "two rules have this name"),
        (respond(policy=Policy(mode="enforce")), "wrong", "no adapter: name one"),
        (respond(rule(adapter="keys"), policy=Policy(mode="enforce", revoke_at_drain=True)), "wrong", "no adapter"),
        (respond(policy=Policy(max_per_owner=1)), "unsafe", "no adapter: name one"),
        (respond(rule(adapter="nobody")), "wrong", "there is no adapter 'nobody'"),
        (respond(rule(approvals=3)), "wrong", "3 approvals, and there are 2 approvers"),
        (respond(approvers=(ANN.approver, ANN.approver)), "wrong", "two have the same name or the same key"),
        (respond(revocation=Revocation(max_per_hour=4)), "wrong", "is the old form"),
        (respond(rule(adapter="flags")), "never", "flags can do none of suspend"),
        (respond(rule(detectors=("geografy",))), "never", "detectors: none of geografy exists"),
        (respond(rule(roles=("full", "boss"))), "never", "roles: boss does not exist"),
        (respond(rule(environments=())), "never", "environments is empty"),
        (respond(rule(min_severity="medium", approvals=1), rule(name="later")), "never", "rule it before it takes all"),
        (respond(rule(rung="throttle")), "never", "throttle needs limit_per_s"),
        (respond(rule(rung="deny")), "never", "deny needs scopes"),
        (respond(rule(rung="deny", adapter="flags")), "never", "deny needs scopes"),
        (respond(policy=Policy(adapter="keys", caps=Caps(max_per_hour=20))), "never", "is above max_per_day"),
        (respond(rule(rung="revoke")), "unsafe", "revoke cannot be undone"),
        (respond(rule(duration_s=0.0)), "unsafe", "nothing ends it but a person"),
        (respond(rule(duration_s=10 * 86_400.0)), "unsafe", "suspends for 10 days"),
        (respond(rule(rung="rotate", overlap_s=3600.0)), "unsafe", "ends 1 h later, whether its owner has moved"),
        (respond(rule(rung="rotate", overlap_s=0.0)), "unsafe", "a rotated key has no deadline"),
        (respond(rule(min_severity="medium")), "unsafe", "acts on medium incidents by itself"),
        (respond(rule(criticalities=("critical",))), "unsafe", "acts on critical keys by itself"),
        (respond(approvers=()), "unsafe", "protected keys are never acted on"),
        (respond(policy=Policy(adapter="keys", breaker_owners=0)), "unsafe", "there is no breaker"),
        (respond(policy=Policy(adapter="keys", settle_s=0.0)), "unsafe", "acts during recovery"),
        (respond(policy=Policy(adapter="keys", fence_caps=Caps(max_share_of_active=0.2))), "unsafe", "20% of all keys"),
    ],
)  # fmt: skip
def test_each_fault_is_named(of: Respond, level: str, words: str) -> None:
    assert [each for each in said(of) if each[0] == level and words in each[1]]
    if level != "wrong" or "adapter 'nobody'" in words:
        check(of)
    else:
        with pytest.raises(ConfigError):
            check(of)


def test_an_adapter_with_a_list_of_its_own_needs_no_scopes() -> None:
    matrices = {"iam": aws_iam.matrix(AwsIam())}
    denies = respond(rule(rung="deny"), policy=Policy(adapter="iam"))
    assert [fault.words for fault in faults(denies, matrices, DETECTORS)] == []


@pytest.mark.parametrize(
    ("mode", "of", "beyond"),
    [
        ("enforce", {"rung": "suspend"}, "suspend"),
        ("enforce", {"rung": "fence", "otherwise": ("throttle", "revoke"), "limit_per_s": 1.0}, "throttle and revoke"),
        ("enforce", {"rung": "fence", "otherwise": ("flag",)}, ""),
        ("enforce", {"rung": "revoke", "proof": "only"}, ""),
        ("enforce", {"rung": "suspend", "approvals": 1}, ""),
        ("simulate", {"rung": "suspend"}, ""),
    ],
)
def test_more_than_a_fence_is_remarked_where_it_is_enforced_before_it_is_earned(
    mode: str, of: dict[str, Any], beyond: str
) -> None:
    policy = respond(rule(**of), policy=Policy(mode=mode, adapter="keys"))
    found = [words for level, words in said(policy) if level == "unsafe" and "respond promotion" in words]
    assert [words.split(" by itself")[0] for words in found] == ([f"enforces {beyond}"] if beyond else [])
    check(policy)


def test_a_stage_that_must_be_earned_is_not_overridden_by_nobody() -> None:
    policy = Policy(mode="enforce", adapter="keys", promotion="required", promotion_approvals=0)
    with pytest.raises(ConfigError, match="promotion_approvals: 0 would let anybody take a step up"):
        check(respond(rule(), policy=policy))
    advised = msgspec.structs.replace(policy, promotion="advised")
    check(respond(rule(), policy=advised))
    alone = said(respond(rule(), policy=msgspec.structs.replace(policy, promotion_approvals=1), approvers=()))
    assert [words for level, words in alone if level == "unsafe" and "no step can be signed" in words]


def test_where_it_must_be_earned_only_what_never_can_be_is_remarked() -> None:
    policy = Policy(mode="enforce", adapter="keys", promotion="required", promotion_approvals=3)
    found = said(respond(rule(), rule(name="end", rung="revoke", min_severity="critical"), policy=policy))
    unsafe = [words for level, words in found if level == "unsafe"]
    assert not [words for words in unsafe if "enforces" in words]
    assert [words for words in unsafe if "revoke is never earned but for proofs" in words]
    assert [words for words in unsafe if "`respond promote` can't be approved" in words]
    signed = said(respond(rule(rung="revoke", approvals=1), policy=Policy(adapter="keys", promotion="required")))
    assert not [words for _, words in signed if "never earned" in words]


def test_a_rule_after_a_narrower_one_can_match() -> None:
    narrow = rule(name="narrow", owners=("acme",), min_severity="high")
    assert not [words for level, words in said(respond(narrow, rule())) if level == "never"]


def test_the_configuration_file_holds_it_and_its_mistakes_are_named() -> None:
    tree: dict[str, Any] = {
        "respond": {
            "policy": {"mode": "simulate", "adapter": "keys", "fence_caps": {"max_per_hour": 4}},
            "rules": [{"name": "leak", "rung": "fence", "otherwise": ["suspend"], "detectors": ["geography"]}],
            "approvers": [{"name": "ann", "public_key": ANN.approver.public_key}],
        }
    }
    config = build(tree)
    assert config.respond.policy.fence_caps.max_per_hour == 4
    assert config.respond.rules[0].otherwise == ("suspend",)
    for change, words in (
        ({"rules": [{"name": "x", "rung": "explode"}]}, "explode"),
        ({"rules": [{"name": "x", "rung": "fence", "durations": 3}]}, "unknown setting respond.rules.0..durations"),
        ({"approvers": [{"name": "ann", "public_key": "short"}]}, "respond.approvers"),
        ({"policy": {"max_per_ower": 3}}, "did you mean max_per_owner"),
    ):
        with pytest.raises(ConfigError, match=words):
            build({"respond": {**tree["respond"], **change}})


@pytest.mark.parametrize("name", ["approval_s", "exempt_s"])
def test_what_the_topic_forgets_after_seven_days_neither_waits_nor_exempts_for_longer(name: str) -> None:
    msgspec.convert({name: 6 * 86_400.0}, Policy)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({name: 7 * 86_400.0}, Policy)
