"""May this incident lead to an act on its key? Pure predicates, each with a name and a sentence, passed or not.

All of them are asked, always, and all answers go into the audit: the on-call sees every reason at once. What is not
known counts as no: an unreadable catalogue is a protected key, a time that can't be read is stale. The caps and
"already acted" are not here but in `ledger.py`, since only the order on the decisions topic can answer them; what the
adapter can do, and to whom, is in `ladder.py`. A rule that leads to "observe" is not asked for evidence.
Source: reference/response.md, section 3; DESIGN.md, D3 (never on volume alone).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from pipeline.config.policy import Approver, Policy
from pipeline.given import best, strongest_pair
from pipeline.respond import approval
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.entries import BOUND, Proposed
from schemas.incident import KEY_RULES, PROOF_RULES, Finding, Incident
from schemas.key import Key
from schemas.response import GuardResult

MAX_AHEAD_S: Final = 120.0  # evidence from the future by more than the lateness is a broken clock, not fresh


@dataclass(frozen=True, slots=True)
class Question:
    """One incident against one policy. `key` is None where the catalogue does not know it; `now_s` is Unix time."""

    incident: Incident
    ladder: Ladder
    key: Key | None
    catalogue_error: str  # "" if it could be read
    killed: str  # why the kill switch is on, "" if it is off
    now_s: float
    published_s: float = 0.0  # when the worker told of the incident, by the broker's clock; 0 is not asked
    changed_s: float = 0.0  # when that by which is judged last changed (`builds.py`), by the broker's clock; 0 is never

    @property
    def policy(self) -> Policy:
        """What holds for every rule."""
        return self.ladder.policy

    @property
    def evidence(self) -> tuple[Finding, ...]:
        """The findings whose caller proved that he holds the key: with a key's public id alone anyone makes others."""
        return _authenticated(self.incident)


def judge(question: Question) -> tuple[GuardResult, ...]:
    """Every guard's answer, in the order of `GUARDS`."""
    return tuple(guard(question) for guard in GUARDS)


def refusals(results: tuple[GuardResult, ...]) -> tuple[GuardResult, ...]:
    """Those that said no."""
    return tuple(result for result in results if not result.passed)


def result(guard: str, passed: bool, reason: str) -> GuardResult:
    """One answer."""
    return GuardResult(guard=guard, passed=passed, reason=reason)


def mode(question: Question) -> GuardResult:
    """The policy is on: simulate goes all the way but for the act."""
    now = question.policy.mode
    known = now in ("simulate", "enforce")
    return result("mode", known, f"the mode is {now}" if known else f"responding is {now}")


def kill_switch(question: Question) -> GuardResult:
    """Nobody has stopped all acts."""
    return result("kill_switch", not question.killed, question.killed or "off")


def state(question: Question) -> GuardResult:
    """The incident is open."""
    now = question.incident.state
    return result("state", now == "open", f"the incident is {now}")


def rule(question: Question) -> GuardResult:
    """It is about one key: of its own topology or a leak feed's; those of other topologies are for people."""
    now = question.incident.rule
    return result("rule", now in KEY_RULES | PROOF_RULES, f"the incident's rule is {now}")


def policy(question: Question) -> GuardResult:
    """A rule of the policy leads from this incident, on this key, to a rung."""
    rule, why = question.ladder.rule_of(question.incident, question.key)
    return result("policy", rule is not None, why)


def authenticated(question: Question) -> GuardResult:
    """Somebody really used the key."""
    good, all_of_them = len(question.evidence), len(question.incident.findings)
    return result("authenticated", good > 0, f"{good} of {all_of_them} findings rest on authenticated requests")


def evidence(question: Question) -> GuardResult:
    """A proof, or two findings of different families, each strong GIVEN the other (`pipeline/given.py`).

    More than `min_family_bits`, not as many: 10 bits is all that an odd hour can have (`detectors/off_hours.py`).

    So never volume and errors, however much of them: a deploy brings both, and they are one fact.
    """
    if question.incident.rule in PROOF_RULES:  # hearsay of a leak has no authenticated finding
        return result("evidence", bool(question.evidence), "the incident is a proof")
    needs = question.policy.min_family_bits
    families = best((finding.family, finding.bits) for finding in question.evidence)
    pair = strongest_pair(families)
    if pair is None:
        words = _list(f"{family} {bits:.1f} bits" for family, bits in families.items())
        return result("evidence", False, f"two families with more than {needs:g} bits are needed: {words}")
    words = (
        f"{pair.first} {pair.first_bits:.1f} bits, {pair.first_given:.1f} given {pair.second}; "
        f"{pair.second} {pair.second_bits:.1f}, {pair.second_given:.1f} given {pair.first}"
    )
    return result("evidence", pair.weaker > needs, f"{words}; more than {needs:g} are needed of each given the other")


def freshness(question: Question) -> GuardResult:
    """The newest evidence is from just now: not from a backlog, a recovery or a replay."""
    youngest, limit = evidence_age_s(question.incident, question.now_s), question.policy.max_evidence_age_s
    if youngest is None:
        return result("freshness", False, "the evidence has no readable time")
    passed = -MAX_AHEAD_S <= youngest <= limit
    return result("freshness", passed, f"the newest evidence is {youngest:.0f} s old, at most {limit:.0f} s")


def lag(question: Question) -> GuardResult:
    """The worker told of it as it happened: one that lags, recovers or replays knows no more what is going on."""
    limit, told = question.policy.max_lag_s, question.published_s
    if not limit or not told:
        return result("lag", True, "not asked")
    behind = evidence_age_s(question.incident, told)
    if behind is None:
        return result("lag", False, "the evidence has no readable time")
    return result("lag", behind <= limit, f"told {behind:.0f} s after it happened, at most {limit:.0f} s")


def settled(question: Question) -> GuardResult:
    """Nothing by which is judged is just new: in another geo database, one address in twenty lies elsewhere.

    Nor are detectors' numbers and code, or the policy: whoever changed them has not seen yet what they do.
    """
    wait, since = question.policy.settle_s, question.now_s - question.changed_s
    if not wait or not question.changed_s:
        return result("settled", True, "neither version, configuration, geo database nor policy has changed")
    words = f"version, configuration, geo database or policy changed {since:.0f} s ago, nothing acts for {wait:.0f} s"
    return result("settled", since >= wait, words)


def catalogued(question: Question) -> GuardResult:
    """Somebody declared the key; not to know it is to protect it."""
    if question.catalogue_error:
        return result("catalogued", False, f"the catalogue cannot be read: {question.catalogue_error}")
    known = question.key is not None
    return result("catalogued", known, "declared" if known else "nobody declared this key, so it is protected")


def protected(question: Question) -> GuardResult:
    """Not one of those that only a person may touch."""
    key = question.key
    if key is None or question.catalogue_error:
        return result("protected", False, "not known, so protected")
    return result("protected", not key.protected, "declared protected" if key.protected else "not protected")


def status(question: Question) -> GuardResult:
    """There is something left to act on: the key is in use, or stopped for a time only."""
    now = question.key.status if question.key else "not known"
    return result("status", now in ("active", "suspended"), f"the key is {now}")


def key_version(question: Question) -> GuardResult:
    """The evidence is about the secret that is valid now, not about one that was replaced since."""
    seen, now = question.incident.key_version, question.key.version if question.key else 0
    if now <= 0 or seen <= 0:
        return result("key_version", False, "the key's version is not known, so the act can't be bound to it")
    same = seen == now
    return result("key_version", same, f"version {now}" if same else f"evidence on version {seen}, now valid: {now}")


GUARDS: Final[tuple[Callable[[Question], GuardResult], ...]] = (
    mode, kill_switch, state, rule, policy, authenticated, evidence, freshness, lag, settled, catalogued, protected,
    status, key_version,
)  # fmt: skip
APPROVABLE: Final = frozenset({"catalogued", "protected"})
"""Refusals that people's approval overcomes; all others stand whatever anybody says."""


def signed(act: Act, key: Key | None, ladder: Ladder, approvers: tuple[Approver, ...]) -> GuardResult:
    """Approvals by this responder's own approvers and numbers, whatever the one who proposed it has written there."""
    wanted, policy = act.proposal, ladder.policy
    rule = next((each for each in ladder.rules if each.name == wanted.rule), None)
    needs = max(
        wanted.approvals, policy.bulk_approvals if wanted.group else 0, rule.approvals if rule else 0,
        policy.protected_approvals if key is None or key.protected else 0,
    )  # fmt: skip
    if wanted.group and not wanted.group.startswith(BOUND):
        return result("approvals", False, "its bulk was approved without networks and duration: give the command again")
    people = approval.people(act.words_said.values(), approvers)
    return result("approvals", len(people) >= needs, f"{_list(people)} of our approvers signed it, {needs} are needed")


def still(wanted: Proposed, key: Key | None, catalogue_error: str, approved: bool) -> tuple[GuardResult, ...]:
    """Asked again of an act that was granted some time ago, right before it is carried out."""
    if catalogue_error:
        return (result("catalogued", False, f"the catalogue cannot be read: {catalogue_error}"),)
    if key is None:
        return (result("catalogued", approved, "nobody declared this key, so it is protected"),)
    same = key.version == wanted.key_version
    return (
        result("protected", approved or not key.protected, "declared protected" if key.protected else "not protected"),
        result("key_version", same, f"granted for version {wanted.key_version}, now valid: {key.version}"),
    )


def evidence_age_s(incident: Incident, now_s: float) -> float | None:
    """Seconds since the newest authenticated finding; None where none has a readable time."""
    ages = (_age_s(finding.at, now_s) for finding in _authenticated(incident))
    return min((age for age in ages if age is not None), default=None)


def evidence_hash(incident: Incident) -> str:
    """What the decision rests on: 32 hex digits over the findings as they came."""
    return hashlib.blake2b(msgspec.json.encode(incident.findings), digest_size=16).hexdigest()


def _authenticated(incident: Incident) -> tuple[Finding, ...]:
    return tuple(finding for finding in incident.findings if finding.authenticated)


def _age_s(at: str, now_s: float) -> float | None:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return None
    return now_s - moment.timestamp() if moment.tzinfo else None


def _list(words: object) -> str:
    return ", ".join(sorted(words)) or "none"  # type: ignore[call-overload]
