"""The proposal that an incident leads to: everything the ledger judges it by and the adapter needs, in one record."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final

import msgspec

from pipeline.config.policy import Approver, Rule
from pipeline.respond import fence, guard
from pipeline.respond.act import act_id, response_id
from pipeline.respond.delivery.notice import one_line
from pipeline.respond.guard import Question
from pipeline.respond.ladder import Means, Step, denied, lasts_s
from pipeline.respond.ledger.entries import Proposed
from schemas.incident import PROOF_RULES, Incident
from schemas.response import GuardResult

MAX_REASON: Final = 500  # characters of the incident's text that go to the target
DAY_S: Final = 86_400.0


def nothing(question: Question, rule: Rule | None, partition: int) -> Proposed:
    """What is recorded where nothing is to be done: never proposed."""
    return _about(question, "observe", rule, partition)


def proposal(
    question: Question, rule: Rule, guards: tuple[GuardResult, ...], step: Step, means: Means, active_keys: int,
    approvers: tuple[Approver, ...], partition: int,
) -> Proposed:  # fmt: skip
    """To take this step on the incident's key, by the policy's numbers."""
    policy, key = question.policy, question.key
    required = policy.promotion == "required"  # else nothing of it: releases without promotion name it the same
    cap, caps = question.ladder.caps_of(step.rung, question.incident.rule in PROOF_RULES)
    return msgspec.structs.replace(
        _about(question, step.rung, rule, partition),
        max_per_hour=caps.max_per_hour, max_per_day=caps.max_per_day, max_share_of_active=caps.max_share_of_active,
        active_keys=active_keys, cap=cap, max_per_owner=policy.max_per_owner, settled=_is_old(question),
        breaker_owners=policy.breaker_owners, breaker_s=policy.breaker_s, exempt_s=policy.exempt_s,
        approvals=approvals(question, rule, guards, len(approvers)), approval_s=policy.approval_s, approvers=approvers,
        adapter=means.adapter, duration_s=lasts_s(rule, step.rung),
        networks=means.networks if step.rung == "fence" else (),
        scopes=denied(rule, means.matrix) if step.rung == "deny" else (),
        limit_per_s=rule.limit_per_s if step.rung == "throttle" else 0.0,
        max_overlap_s=policy.max_overlap_s if step.rung == "rotate" else 0.0,
        force_approvals=max(1, policy.bulk_approvals, rule.approvals) if step.rung == "rotate" else 0,
        promotion_required=required, promotion_approvals=policy.promotion_approvals if required else 0,
        owner=(key.owner if key else "") or question.incident.owner, labels=tuple(labels(question.incident)),
    )  # fmt: skip


def _about(question: Question, rung: str, rule: Rule | None, partition: int) -> Proposed:
    incident = question.incident
    act, response = ids(incident.key_id, incident.key_version, rung, incident.incident_id, incident.revision)
    return Proposed(
        act_id=act, response_id=response, incident_id=incident.incident_id, revision=incident.revision,
        key_id=incident.key_id, key_version=incident.key_version, responder="", rung=rung, partition=partition,
        simulated=question.policy.mode != "enforce", reason=one_line(incident.text, MAX_REASON), bits=incident.bits,
        first_us=fence.first_suspicious_us(incident),
        rule=rule.name if rule else "", evidence_hash=guard.evidence_hash(incident),
        policy_version=question.ladder.version,
    )  # fmt: skip


def ids(key_id: str, key_version: int, rung: str, incident_id: str, revision: int) -> tuple[str, str]:
    """(act_id, response_id). A key's version is revoked once, whatever led to it; other rungs may be taken again."""
    if rung == "revoke":
        return act_id(key_id, key_version, rung), response_id(incident_id, rung, key_version)
    what = f"{rung}\x00{revision}"
    return act_id(key_id, key_version, f"{what}\x00{incident_id}"), response_id(incident_id, what, key_version)


def approvals(question: Question, rule: Rule, guards: tuple[GuardResult, ...], people: int) -> int:
    """How many must approve: as the rule says, and of what only people may touch as the policy says; 0: nobody can."""
    for_people = any(no.guard in guard.APPROVABLE for no in guard.refusals(guards))
    needed = max(rule.approvals, question.policy.protected_approvals) if for_people else rule.approvals
    return needed if people >= needed else 0


def final(no: tuple[GuardResult, ...], wanted: Proposed) -> tuple[GuardResult, ...]:
    """The refusals that no approval overcomes; all of them where nobody is asked."""
    return tuple(each for each in no if each.guard not in guard.APPROVABLE or not wanted.approvals)


def same(ours: Proposed, theirs: Proposed) -> bool:
    """The same wish: a write whose acknowledgement was lost stands on the topic twice."""
    return (ours.act_id, ours.response_id, ours.revision, ours.simulated) == (
        theirs.act_id, theirs.response_id, theirs.revision, theirs.simulated,
    )  # fmt: skip


def labels(incident: Incident) -> Iterator[str]:
    """What its evidence has in common with other keys' incidents, each once."""
    seen = {}
    for finding in incident.findings:
        sample = finding.sample
        if finding.authenticated:
            seen[f"network:{prefix(sample.client_ip)}"] = bool(prefix(sample.client_ip))
            seen[f"asn:{sample.asn}"] = sample.asn > 0
            seen[f"client:{sample.client}"] = bool(sample.client)
    seen[f"owner:{incident.owner}"] = bool(incident.owner)
    return (label for label, told in seen.items() if told)


def prefix(address: str) -> str:
    """Its /24 or /48, "" of what is no address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    return str(ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


def _is_old(question: Question) -> bool:
    """Whether the key counts towards the breaker: watched, or made, long enough ago."""
    days = question.incident.seen_days
    if question.key and question.key.created_at:
        try:
            made = datetime.fromisoformat(question.key.created_at)
        except ValueError:
            made = None
        if made is not None and made.tzinfo:
            days = max(days, (question.now_s - made.timestamp()) / DAY_S)
    return days >= question.policy.breaker_age_days
