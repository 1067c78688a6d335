"""The policy as the configuration holds it: `[respond.policy]`, `[[respond.rules]]`, `[[respond.approvers]]`.

The first rule that matches an incident says which rung of the ladder it leads to, with which parameters, for how long,
by which adapter and with how many approvals; `otherwise` names, in order, what may be done instead where the adapter
lacks the rung or the key offers nothing to do it with. What no rule matches is not acted on. Numbers marked (start)
are our starting points, no published figures (reference/response.md, section 3).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.incident import Rung

Seconds = Annotated[float, Meta(ge=0, le=30 * 86_400)]
People = Annotated[int, Meta(ge=0, le=5)]
Share = Annotated[float, Meta(ge=0, le=1)]
Number = Annotated[int, Meta(ge=0, le=1_000_000)]
Label = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
Severity = Literal["medium", "high", "critical"]


class Caps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most the smallest of these many different keys; 0 is none."""

    max_per_hour: Number = 3  # different keys within an hour
    max_per_day: Number = 10  # different keys within a day
    max_share_of_active: Share = 0.001  # of the active keys in the catalogue


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for every rule. `simulate` goes all the way but for the act."""

    mode: Annotated[str, Meta(pattern="^(off|simulate|enforce)$")] = (
        "simulate"  # off decides nothing, simulate decides and does nothing, enforce acts
    )
    adapter: str = ""  # of rules that name none: an entry of respond.adapters, or of respond.endpoints
    min_family_bits: Annotated[float, Meta(ge=0, le=1000)] = 10.0  # each of two families has more, given the other
    max_evidence_age_s: Seconds = 600.0  # older evidence is no ground to act
    max_lag_s: Seconds = 300.0  # from evidence to incident: above it the worker lags, recovers or replays; 0: any
    settle_s: Seconds = 600.0  # nothing acts for so long after a deploy, another geo database or policy; 0: at once
    approval_s: Annotated[float, Meta(ge=0, le=6 * 86_400)] = 1800.0  # an act that waits for people lapses after that
    protected_approvals: People = 1  # of protected, undeclared and unreadable keys, where the rule asks for fewer
    bulk_approvals: People = 1  # of `respond bulk`
    revoke_at_drain: bool = False  # a rotated key is revoked once its traffic has moved; never a protected one
    max_overlap_s: Seconds = 2_592_000.0  # `respond extend` puts a rotation's end off to so long after it; 0: never
    exempt_s: Annotated[float, Meta(ge=0, le=6 * 86_400)] = 86_400.0  # after a person's undo nothing acts by itself
    max_per_owner: Number = 2  # different keys of one owner within an hour (start); 0: no cap of its own
    breaker_owners: Number = 5  # so many owners' keys tripping within `breaker_s` open it (start); 0: never
    breaker_s: Annotated[float, Meta(ge=1, le=3600)] = 600.0  # the span in which owners' keys count together
    breaker_age_days: Annotated[float, Meta(ge=0, le=400)] = 7.0  # younger keys don't count towards it
    promotion: Annotated[str, Meta(pattern="^(advised|required)$")] = (
        "advised"  # required: what acts by itself does only what `respond promote` has earned; advised: counted only
    )
    promotion_approvals: People = 1  # of each step up by `respond promote`; 1 at least
    caps: Caps = Caps()  # of all acts but fences, flags and proofs
    fence_caps: Caps = Caps(max_per_hour=10, max_per_day=50, max_share_of_active=0.005)  # and of flags, counted apart
    proof_caps: Caps = Caps(max_per_hour=3, max_per_day=10, max_share_of_active=0.001)  # not stopped by the breaker


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Empty lists match everything."""

    name: Label  # as the audit names it
    rung: Rung  # what is done
    otherwise: tuple[Rung, ...] = ()  # what may be done instead, in order, where the rung is not to be had
    min_severity: Severity = "high"  # of the incident
    proof: Literal["any", "only", "never"] = "any"  # whether it holds for proofs (decoy, dead key, leak)
    environments: tuple[str, ...] = ("live", "test")  # of the key, as declared
    roles: tuple[str, ...] = ()  # of the key, as declared
    owners: tuple[str, ...] = ()  # of the key, as declared
    detectors: tuple[str, ...] = ()  # at least one of these among the authenticated findings
    criticalities: tuple[str, ...] = ()  # of the key, as declared
    adapter: str = ""  # who does it; "" is the policy's
    duration_s: Seconds = 3600.0  # of throttle, fence, deny, suspend; 0: till undone
    overlap_s: Seconds = 604_800.0  # rotate: so long the old key stays valid; 0: till its traffic has moved
    approvals: People = 0  # how many people must sign first
    scopes: tuple[str, ...] = ()  # deny: what the key may not do any more; aws_iam: IAM actions, or its own list
    limit_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0  # throttle


class Approver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One who may approve, and the public half of the key he signs with (`keywatch respond approver NAME`)."""

    name: Label  # as `--as` says it
    public_key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{43}=$")]  # Ed25519, base64
