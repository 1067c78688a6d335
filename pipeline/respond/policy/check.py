"""What of a policy cannot be meant (the responder doesn't start), can never match, or is unsafe (`policy check`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.config.policy import Caps, Policy, Rule
from pipeline.config.tree import Respond, Revocation
from pipeline.errors import ConfigError
from pipeline.respond.ladder import ENDS, SURE, UNDOABLE, Ladder, Matrix, denied, ladder_of
from schemas.incident import SEVERITIES
from schemas.key import CRITICALITIES, ROLES

ENVIRONMENTS: Final = ("live", "test")
MODES: Final = ("off", "simulate", "enforce")
WIDE_SHARE: Final = 0.01
LONG_S: Final = 7 * 86_400.0
SHORT_S: Final = 86_400.0

Level = Literal["wrong", "never", "unsafe"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`wrong` stops the responder; `never` is a rule that can't match; `unsafe` is a person's to judge."""

    level: Level
    where: str
    words: str


def check(respond: Respond) -> None:
    """Raise `ConfigError` for a policy that names what does not exist: no start is better than a guard never asked."""
    wrong = next((fault for fault in faults(respond) if fault.level == "wrong"), None)
    if wrong:
        raise ConfigError(f"{wrong.where}: {wrong.words}")


def faults(
    respond: Respond, matrices: Mapping[str, Matrix] | None = None, detectors: frozenset[str] | None = None,
    active_keys: int = 0,
) -> Iterator[Fault]:  # fmt: skip
    """All of them; `matrices` by adapter's name, the names of detectors, and active keys (0: unknown) where known."""
    yield from _together(respond)
    ladder = ladder_of(respond)
    yield from _adapters(respond, ladder, matrices)
    yield from _drain(ladder)
    yield from _people(respond, ladder)
    for index, rule in enumerate(ladder.rules):
        yield from _unknown(rule, detectors)
        yield from _rule(rule, ladder.rules[:index], (matrices or {}).get(ladder.adapter_of(rule)))
        yield from _unsafe_rule(rule)
    yield from _not_earned(ladder)
    yield from _unsafe_policy(ladder)
    for name, caps, needed in shares(ladder):
        if 0 < active_keys < needed:
            words = (
                f"max_share_of_active = {caps.max_share_of_active:g} of {active_keys} active keys is less than one "
                f"key: nothing is ever acted on; from {1 / active_keys:.2g} on it is one"
            )
            yield Fault("never", f"respond.policy.{name}", words)


def shares(ladder: Ladder) -> Iterator[tuple[str, Caps, int]]:
    """(name, caps, how many active keys there must be before the share allows one) of each that a rule comes under."""
    used = {
        ladder.caps_of(rung, proof)[0]
        for rule in ladder.rules
        for rung in {rule.rung, *rule.otherwise} - {"observe"}
        for proof in {"any": (True, False), "only": (True,), "never": (False,)}[rule.proof]
    }
    policy = ladder.policy
    for name, caps, kinds in (
        ("caps", policy.caps, {"usual"}), ("fence_caps", policy.fence_caps, {"fence", "flag"}),
        ("proof_caps", policy.proof_caps, {"proof"}),
    ):  # fmt: skip
        if used & kinds and caps.max_share_of_active > 0:
            yield name, caps, math.ceil(1 / caps.max_share_of_active - 1e-6)


def _together(respond: Respond) -> Iterator[Fault]:
    names = [endpoint.name for endpoint in respond.endpoints]
    if len(set(names)) != len(names):
        yield Fault("wrong", "respond.endpoints", "two have the same name")
    new = bool(respond.rules) or respond.policy != Policy()
    old = respond.revocation
    if new and old != Revocation():
        yield Fault("wrong", "respond.revocation", "is the old form of respond.policy and respond.rules: keep one")
    if old.mode not in MODES:
        yield Fault("wrong", "respond.revocation", f"mode is {old.mode!r}: one of {', '.join(MODES)}")
    if old.min_severity not in SEVERITIES:
        yield Fault(
            "wrong", "respond.revocation", f"min_severity is {old.min_severity!r}: not among {', '.join(SEVERITIES)}"
        )
    if not new and old.endpoint and old.endpoint not in names:
        yield Fault("wrong", "respond.revocation", f"endpoint is {old.endpoint!r}: no endpoint has that name")
    if not new and old.mode == "enforce" and not old.endpoint:
        yield Fault("wrong", "respond.revocation", "mode is enforce: set respond.revocation.endpoint")


def _adapters(respond: Respond, ladder: Ladder, matrices: Mapping[str, Matrix] | None) -> Iterator[Fault]:
    for rule in ladder.rules:
        name, where = ladder.adapter_of(rule), f"respond.rules {rule.name}"
        if rule.rung == "observe" or (not respond.rules and not name):
            continue
        if not name:
            level: Level = "wrong" if ladder.policy.mode == "enforce" else "unsafe"
            yield Fault(level, where, "no adapter: name one here or in respond.policy.adapter")
        elif matrices is not None and name not in matrices:
            yield Fault("wrong", where, f"there is no adapter {name!r}: {', '.join(matrices) or 'none is set up'}")
        elif matrices is not None and not any(rung in matrices[name] for rung in (rule.rung, *rule.otherwise)):
            yield Fault("never", where, f"{name} can do none of {', '.join((rule.rung, *rule.otherwise))}")


def _drain(ladder: Ladder) -> Iterator[Fault]:
    policy = ladder.policy
    if policy.revoke_at_drain and not policy.adapter:
        level: Level = "wrong" if policy.mode == "enforce" else "unsafe"
        yield Fault(level, "respond.policy.revoke_at_drain", "no adapter: name one in respond.policy.adapter")


def _people(respond: Respond, ladder: Ladder) -> Iterator[Fault]:
    people = respond.approvers
    if len({each.name for each in people}) < len(people) or len({each.public_key for each in people}) < len(people):
        yield Fault("wrong", "respond.approvers", "two have the same name or the same key")
    for rule in ladder.rules:
        if rule.approvals > len(people):
            words = f"{rule.approvals} approvals, and there are {len(people)} approvers"
            yield Fault("wrong", f"respond.rules {rule.name}", words)
    if respond.rules and ladder.policy.protected_approvals > len(people):
        words = "protected keys are never acted on: too few respond.approvers"
        yield Fault("unsafe", "respond.policy.protected_approvals", words)
    policy = ladder.policy
    if policy.promotion == "required" and not policy.promotion_approvals:
        words = "0 would let anybody take a step up: 1 at least (who steps back signs nothing)"
        yield Fault("wrong", "respond.policy.promotion_approvals", words)
    if respond.rules and policy.promotion == "required" and not people:
        words = "no step can be signed, so none is taken: too few respond.approvers"
        yield Fault("unsafe", "respond.policy.promotion", words)
    elif respond.rules and policy.promotion == "required" and policy.promotion_approvals > len(people):
        words = "`respond promote` can't be approved: too few respond.approvers"
        yield Fault("unsafe", "respond.policy.promotion_approvals", words)
    if respond.rules and ladder.policy.bulk_approvals > len(people):
        words = "`respond bulk` can't be approved: too few respond.approvers"
        yield Fault("unsafe", "respond.policy.bulk_approvals", words)


def _unknown(rule: Rule, detectors: frozenset[str] | None) -> Iterator[Fault]:
    where = f"respond.rules {rule.name}"
    known = {
        "detectors": (rule.detectors, detectors or set(rule.detectors)), "roles": (rule.roles, set(ROLES)),
        "environments": (rule.environments, set(ENVIRONMENTS)),
        "criticalities": (rule.criticalities, set(CRITICALITIES)),
    }  # fmt: skip
    for name, (wanted, all_of_them) in known.items():
        if wanted and not set(wanted) & all_of_them:
            yield Fault("never", where, f"{name}: none of {', '.join(wanted)} exists")
        elif unknown := set(wanted) - all_of_them:
            yield Fault("never", where, f"{name}: {', '.join(sorted(unknown))} does not exist")


def _rule(rule: Rule, before: tuple[Rule, ...], matrix: Matrix | None) -> Iterator[Fault]:
    where = f"respond.rules {rule.name}"
    if rule.name in {each.name for each in before}:
        yield Fault("wrong", where, "two rules have this name")
    if not rule.environments:
        yield Fault("never", where, "environments is empty: it matches no key")
    if hidden := next((each for each in before if _covers(each, rule)), None):
        yield Fault("never", where, f"rule {hidden.name} before it takes all it could match")
    for rung in (rule.rung, *rule.otherwise):
        if rung == "throttle" and not rule.limit_per_s:
            yield Fault("never", where, "throttle needs limit_per_s")
        if rung == "deny" and not denied(rule, matrix):
            yield Fault("never", where, "deny needs scopes")


def _covers(first: Rule, then: Rule) -> bool:
    """Whether the first one takes everything that the second could."""
    order = {name: rank for rank, name in enumerate(SEVERITIES)}
    wider = all(
        not ours or (theirs and set(theirs) <= set(ours))
        for ours, theirs in (
            (first.roles, then.roles), (first.owners, then.owners), (first.detectors, then.detectors),
            (first.criticalities, then.criticalities),
        )
    )  # fmt: skip
    return (
        wider and order[first.min_severity] <= order[then.min_severity] and first.proof in ("any", then.proof)
        and set(then.environments) <= set(first.environments) and len(first.detectors) <= len(then.detectors)
    )  # fmt: skip


def _unsafe_rule(rule: Rule) -> Iterator[Fault]:
    where = f"respond.rules {rule.name}"
    rungs = (rule.rung, *rule.otherwise)
    if "revoke" in rungs and rule.proof != "only" and not rule.approvals:
        yield Fault("unsafe", where, "revokes by itself and without a proof; revoke cannot be undone: prefer suspend")
    if not rule.duration_s and ENDS & set(rungs):
        yield Fault("unsafe", where, "duration_s is 0: nothing ends it but a person")
    if "rotate" in rungs and not rule.overlap_s:
        yield Fault(
            "unsafe", where, "overlap_s is 0: a rotated key has no deadline, it ends when its traffic has moved"
        )
    if "rotate" in rungs and 0 < rule.overlap_s < SHORT_S:
        words = f"a rotated key ends {rule.overlap_s / 3600:g} h later, whether its owner has moved or not"
        yield Fault("unsafe", where, words)
    if rule.duration_s > LONG_S and "suspend" in rungs:
        yield Fault("unsafe", where, f"suspends for {rule.duration_s / 86_400:.0f} days")
    if rule.min_severity == "medium" and UNDOABLE & set(rungs) - {"flag"} and not rule.approvals:
        yield Fault("unsafe", where, "acts on medium incidents by itself: chance alone opens one in 1,000 key-days")
    if "critical" in rule.criticalities and not rule.approvals:
        yield Fault("unsafe", where, "acts on critical keys by itself: ask for approvals")


def _not_earned(ladder: Ladder) -> Iterator[Fault]:
    """Rules that enforce more than a fence by themselves; proofs alone and what people approve are not meant.

    Where it must be earned, a guard refuses it: then only what never can be is named.
    """
    required = ladder.policy.promotion == "required"
    for rule in ladder.rules if required else ():
        if rule.rung in ("rotate", "revoke") and rule.proof != "only" and not rule.approvals:
            words = f"{rule.rung} is never earned but for proofs: refused until people override that or approve"
            yield Fault("unsafe", f"respond.rules {rule.name}", words)
    for rule in ladder.rules if ladder.policy.mode == "enforce" and not required else ():
        beyond = [rung for rung in dict.fromkeys((rule.rung, *rule.otherwise)) if rung not in SURE]
        if beyond and rule.proof != "only" and not rule.approvals:
            words = (
                f"enforces {' and '.join(beyond)} by itself; that is earned by fence only, two weeks without a wrong "
                'one, and nothing asks for it here: `keywatch respond promotion`, promotion = "required"'
            )
            yield Fault("unsafe", f"respond.rules {rule.name}", words)


def _unsafe_policy(ladder: Ladder) -> Iterator[Fault]:
    policy = ladder.policy
    for name in ("caps", "fence_caps", "proof_caps"):
        caps = getattr(policy, name)
        if caps.max_share_of_active > WIDE_SHARE:
            yield Fault("unsafe", f"respond.policy.{name}", f"{caps.max_share_of_active:.0%} of all keys")
        if caps.max_per_day < caps.max_per_hour:
            yield Fault("never", f"respond.policy.{name}", "max_per_hour is above max_per_day, which counts first")
    if not policy.breaker_owners:
        yield Fault("unsafe", "respond.policy.breaker_owners", "there is no breaker: only the caps stop an outbreak")
    if not policy.max_lag_s or not policy.settle_s:
        yield Fault("unsafe", "respond.policy", "max_lag_s or settle_s is 0: acts during recovery, or after a change")
