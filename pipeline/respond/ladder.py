"""The ladder: what each rung does and needs, how it ends; and which one an incident leads to.

    observe   nothing is done to the key; the decision is recorded
    flag      a header tells the backend                                      undo
    throttle  so many requests a second                                       undo, ends by itself
    fence     goes on from the networks it was used from, refused elsewhere   undo, ends by itself
    deny      without the sensitive scopes                                    undo, ends by itself
    suspend   refused                                                         undo, ends by itself
    rotate    a new key is made, the old one ends at drain or a deadline      undo, until the old one has ended
    revoke    refused for ever                                                none

Going up needs an incident; time and people only go down. A fence needs the networks that the key used on at least 7
days before the first suspicious event, or that its owner declared: without any, or with more than can be in one, the
policy's `otherwise` comes next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Final

import msgspec

from pipeline.config.policy import Caps, Policy, Rule
from pipeline.config.tree import Respond, Revocation
from pipeline.respond.adapters.adapter import MOST_NETWORKS, Support
from schemas.incident import PROOF_RULES, SEVERITIES, Incident, Rung, Severity
from schemas.key import Key
from schemas.response import GuardResult

LADDER: Final[tuple[Rung, ...]] = ("observe", "flag", "throttle", "fence", "deny", "suspend", "rotate", "revoke")
UNDOABLE: Final = frozenset(LADDER) - {"observe", "revoke"}
SURE: Final = frozenset({"observe", "flag", "fence"})
"""A wrong one of these is felt by nobody who behaves as before: the stage of a policy between simulate and all else."""
ENDS: Final = frozenset({"throttle", "fence", "deny", "suspend"})

BESIDE: Final = ("promotion", "promotion_approvals", "max_overlap_s")
"""What of the policy says nothing of which acts are decided on: another one is no other policy."""
NOT_PROMOTED: Final = "not_promoted"
"""The refusal of a rung above what was earned."""

Matrix = Mapping[Rung, Support]
Others = tuple[int | None, int | None]
"""(other active keys of the same owner, other active keys at all); None is not known."""


def lasts_s(rule: Rule, rung: Rung) -> float:
    """How long the rung stands by this rule; of rotate how long the old key stays valid. 0: without end, or none."""
    if rung == "rotate":
        return rule.overlap_s
    return rule.duration_s if rung in ENDS else 0.0


@dataclass(frozen=True, slots=True)
class Ladder:
    """Policy and rules, in force together."""

    policy: Policy
    rules: tuple[Rule, ...]
    apart: bool = True  # proofs, fences and flags have caps of their own

    @property
    def version(self) -> str:
        """12 hex digits over every number and rule, so that an audit row says by which rules it was decided.

        Not over `BESIDE`, how a stage is earned, say: to require it is no other policy, and its days go on counting.
        """
        policy = msgspec.to_builtins(self.policy)
        for name in BESIDE:
            del policy[name]
        return hashlib.blake2b(msgspec.json.encode((policy, self.rules)), digest_size=6).hexdigest()

    def simulated(self) -> Ladder:
        """The same, but nothing is carried out: what the simulate switch makes of it."""
        if self.policy.mode != "enforce":
            return self
        return replace(self, policy=msgspec.structs.replace(self.policy, mode="simulate"))

    def rule_of(self, incident: Incident, key: Key | None) -> tuple[Rule | None, str]:
        """(the first rule that matches, why; or None, and why each does not)."""
        reasons: list[str] = []
        for rule in self.rules:
            no = next(_mismatches(rule, incident, key), "")
            if not no:
                return rule, f"rule {rule.name}: {rule.rung}"
            reasons.append(f"{rule.name}: {no}")
        return None, "no rule matches: " + ("; ".join(reasons) or "there is none")

    def caps_of(self, rung: str, proof: bool) -> tuple[str, Caps]:
        """(what it is counted as, its caps): proofs, fences and flags are counted by themselves."""
        if not self.apart:
            return "usual", self.policy.caps
        if proof:
            return "proof", self.policy.proof_caps
        return (rung, self.policy.fence_caps) if rung in ("fence", "flag") else ("usual", self.policy.caps)

    def adapter_of(self, rule: Rule) -> str:
        """The name of the adapter that carries the rule out."""
        return rule.adapter or self.policy.adapter


def ladder_of(respond: Respond) -> Ladder:
    """The policy of `[respond.policy]` and its rules; of `[respond.revocation]` alone where there is none of them."""
    if respond.rules or respond.policy != Policy():
        return Ladder(respond.policy, respond.rules)
    return revocation(respond.revocation)


def revocation(old: Revocation) -> Ladder:
    """The one rule of `[respond.revocation]`: revoke, by a webhook, with its caps for all; what is newer is off."""
    caps = Caps(max_per_hour=old.max_per_hour, max_per_day=old.max_per_day, max_share_of_active=old.max_share_of_active)
    policy = Policy(
        mode=old.mode, adapter=old.endpoint, min_family_bits=old.min_family_bits, max_lag_s=0.0, settle_s=0.0,
        max_evidence_age_s=old.max_evidence_age_s, caps=caps, max_per_owner=0, breaker_owners=0, protected_approvals=0,
    )  # fmt: skip
    rule = Rule(
        name="revocation", rung="revoke", min_severity=msgspec.convert(old.min_severity, Severity),
        environments=old.environments, detectors=old.detectors,
    )  # fmt: skip
    return Ladder(policy, (rule,), apart=False)


def _mismatches(rule: Rule, incident: Incident, key: Key | None) -> Iterator[str]:
    order = {name: rank for rank, name in enumerate(SEVERITIES)}
    if order.get(incident.severity, -1) < order.get(rule.min_severity, len(order)):
        yield f"{incident.severity} is below {rule.min_severity}"
    proof = incident.rule in PROOF_RULES
    if rule.proof != "any" and proof != (rule.proof == "only"):
        yield "no proof" if rule.proof == "only" else "a proof"
    environment = (key.environment if key else "") or incident.environment
    if environment not in rule.environments:
        yield f"environment {environment or 'not known'} is not {_any_of(rule.environments)}"
    found = {each.detector for each in incident.findings if each.authenticated and (each.bits > 0.0 or each.proof)}
    if rule.detectors and not found & set(rule.detectors):
        yield f"found by {_any_of(sorted(found))}, not by {_any_of(rule.detectors)}"
    for word, wanted, has in (
        ("role", rule.roles, (key.role if key else "") or incident.role),
        ("owner", rule.owners, (key.owner if key else "") or incident.owner),
        ("criticality", rule.criticalities, key.criticality if key else ""),
    ):
        if wanted and has not in wanted:
            yield f"{word} {has or 'not known'} is not {_any_of(wanted)}"


def _any_of(words: tuple[str, ...] | list[str]) -> str:
    return " or ".join(words) or "any"


@dataclass(frozen=True, slots=True)
class Means:
    """What there is to act with: the adapter's matrix (None: no such adapter), the key's networks, its siblings."""

    adapter: str
    matrix: Matrix | None
    networks: tuple[str, ...] = ()
    networks_error: str = ""
    suspects: tuple[str, ...] = ()  # addresses of the suspicious requests
    owner_keys: int | None = None  # other active keys of the same owner; None is not known
    other_keys: int | None = None  # other active keys at all
    earned: frozenset[str] | None = None  # rungs that may be taken without people; None: all of them


@dataclass(frozen=True, slots=True)
class Step:
    """The rung that the policy leads to with these means; `passed` by all three guards, or the last one tried."""

    rung: Rung
    guards: tuple[GuardResult, ...]

    @property
    def possible(self) -> bool:
        """Whether it can be taken."""
        return all(guard.passed for guard in self.guards)


def step_of(rule: Rule, means: Means) -> Step:
    """The rule's rung, or the first of its `otherwise` that is possible; else the rule's rung with its refusals."""
    steps = [Step(rung, judged(rung, rule, means)) for rung in (rule.rung, *rule.otherwise)]
    chosen = next((step for step in steps if step.possible), None)
    if chosen is None:
        return steps[0]
    fallen = [f"{s.rung}: {g.reason}" for s in steps[: steps.index(chosen)] for g in s.guards if not g.passed]
    if not fallen:
        return chosen
    because = GuardResult(guard="otherwise", passed=True, reason=f"{chosen.rung}, since {'; '.join(fallen)}")
    return Step(chosen.rung, (because, *chosen.guards))


def judged(rung: Rung, rule: Rule, means: Means) -> tuple[GuardResult, ...]:
    """Was it earned, can the adapter do it, does it hit nobody else, is there what it needs?"""
    if rung == "observe":
        return ()
    guards = (supported, granularity, parameters)
    return tuple(guard(rung, rule, means) for guard in (guards if means.earned is None else (promoted, *guards)))


def promoted(rung: Rung, rule: Rule, means: Means) -> GuardResult:
    """The stage that was earned has the rung; what holds in the end is the topic's order (`earned.py`)."""
    has = means.earned is None or rung in means.earned
    return GuardResult(guard=NOT_PROMOTED, passed=has, reason=f"{rung} was {'' if has else 'not '}earned")


def supported(rung: Rung, rule: Rule, means: Means) -> GuardResult:
    """The adapter's matrix has the rung."""
    if means.matrix is None:
        return GuardResult(guard="supported", passed=False, reason=f"there is no adapter {means.adapter!r}")
    has = rung in means.matrix
    if has and rung == "rotate" and not ends_old(means.matrix):
        words = f"{means.adapter} makes a new key, but nobody could end the old one"
        return GuardResult(guard="supported", passed=False, reason=words)
    return GuardResult(
        guard="supported", passed=has, reason=f"{means.adapter} {'can' if has else 'cannot'} {rung} a key"
    )


def ends_old(matrix: Matrix) -> bool:
    """Whether somebody ends the old key of a rotation: the gateway, or Keywatch, which must be able to."""
    ends = matrix["rotate"].ends_old
    return ends == "gateway" or (ends == "keywatch" and "revoke" in matrix)


def granularity(rung: Rung, rule: Rule, means: Means) -> GuardResult:
    """Nobody else's key is hit: where the adapter acts on more than the key, the catalogue must know of no other."""
    hits, words = reach((means.matrix or {}).get(rung), (means.owner_keys, means.other_keys))
    return GuardResult(guard="granularity", passed=not hits, reason=words)


def reach(support: Support | None, others: Others) -> tuple[bool, str]:
    """(whether it may hit other keys, in words): by itself, by hand and in messages it is judged by this alone."""
    if support is None or support.granularity == "key":
        return False, "hits this key alone"
    count = others[0] if support.granularity == "consumer" else others[1]
    known = "it is not known how many others it has" if count is None else f"{count} other active keys"
    return count != 0, f"hits the whole {support.granularity}: {known}"


def parameters(rung: Rung, rule: Rule, means: Means) -> GuardResult:
    """A fence has networks, a throttle its limit, a denial its scopes or the adapter's own."""
    if rung == "fence":
        why = why_no_fence(means)
        words = why or f"goes on from {len(means.networks)} networks"
        return GuardResult(guard="parameters", passed=not why, reason=words)
    missing = {"throttle": not rule.limit_per_s, "deny": not denied(rule, means.matrix)}.get(rung, False)
    words = f"rule {rule.name} says {'no limit_per_s' if rung == 'throttle' else 'no scopes'}"
    return GuardResult(guard="parameters", passed=not missing, reason=words if missing else "complete")


def denied(rule: Rule, matrix: Matrix | None) -> tuple[str, ...]:
    """What the rule denies: its scopes, or the list of the adapter's own."""
    support = (matrix or {}).get("deny")
    return rule.scopes or (support.own_scopes if support else ())


def why_no_fence(means: Means) -> str:
    """Why a fence can't be, or would keep nobody out; "" if it would."""
    if means.networks_error:
        return means.networks_error
    if not means.networks:
        return "no network was used on 7 days before, and none is declared"
    if why := too_many(means.networks, means.adapter, (means.matrix or {}).get("fence")):
        return why
    nets = [ip_network(each) for each in means.networks]
    outside = [each for each in means.suspects if not any(ip_address(each) in net for net in nets)]
    return "" if outside or not means.suspects else "the suspicious requests come from networks it was used from before"


def too_many(networks: tuple[str, ...], adapter: str, support: Support | None) -> str:
    """Why a fence would leave some of these out; "" if all fit."""
    most = support.most_networks if support else MOST_NETWORKS
    if len(networks) <= most:
        return ""
    return f"too many networks for a fence: at least {len(networks)}; {adapter or 'an adapter'} takes {most}"
