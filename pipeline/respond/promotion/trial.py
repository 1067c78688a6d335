"""A policy on history: what would have been done to which keys, against the caps. Nothing is sent, nothing is written.

Incidents come from ClickHouse at their newest revision, so each is judged once, as strong as it became, at the time of
its last evidence; the catalogue is today's. The ledger is the real one, in memory, with the incidents' own times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.config.policy import Approver, Rule
from pipeline.respond import fence, guard, propose
from pipeline.respond.guard import Question
from pipeline.respond.ladder import Ladder, Matrix, Means, step_of
from pipeline.respond.ledger.acts import TIME
from pipeline.respond.ledger.entries import Finished, Undo
from pipeline.respond.ledger.ledger import DAY_US, HOUR_US, Ledger
from pipeline.respond.promotion.earned import Stage, earned
from pipeline.times import micros
from schemas.incident import PROOF_RULES, Incident
from schemas.key import Key

MOST: Final = 100_000
_QUERY: Final = """
SELECT body FROM incidents FINAL WHERE last_at >= fromUnixTimestamp64Micro({from_us:Int64})
ORDER BY last_at, incident_id LIMIT {most:UInt32}
"""


@dataclass(frozen=True, slots=True)
class Tried:
    """What would have become of one incident. `word`: done | waiting | refused | observed."""

    at_us: int
    incident: Incident
    rule: str
    rung: str
    word: str
    guard: str
    reason: str
    hour: int = 0  # keys of its kind acted on within the hour, this one included
    day: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """What history is judged with."""

    ladder: Ladder
    approvers: tuple[Approver, ...]
    keys: Mapping[str, Key]
    matrices: Mapping[str, Matrix]
    networks: Callable[[str, int], tuple[str, ...]]  # of a key before a time
    stage: Stage = "revoke"  # as if so much had been earned


def incidents_since(client: Client, from_us: int) -> list[Incident]:
    """At their newest revision, in the order of their last evidence."""
    rows = client.query(_QUERY, parameters={"from_us": from_us, "most": MOST}).result_rows
    return [msgspec.json.decode(str(body), type=Incident) for (body,) in rows]


def tried(incidents: Iterable[Incident], past: Past) -> list[Tried]:
    """Each in turn. The mode doesn't matter: what would be done if it were enforced."""
    policy = msgspec.structs.replace(past.ladder.policy, mode="enforce", promotion="advised")  # `past.stage` holds
    past = replace(past, ladder=replace(past.ladder, policy=policy))
    ledger, results = Ledger(), []
    for incident in incidents:
        at_us = _at_us(incident)
        _end_what_is_over(ledger, at_us)
        results.append(_one(msgspec.structs.replace(incident, state="open", change="extended"), past, ledger, at_us))
    return results


def _one(incident: Incident, past: Past, ledger: Ledger, at_us: int) -> Tried:
    key = past.keys.get(incident.key_id)
    question = Question(incident, past.ladder, key, "", "", at_us / 1e6)
    guards = guard.judge(question)
    rule, why = past.ladder.rule_of(incident, key)
    if rule is None or rule.rung == "observe":
        name, word = (rule.name, "observed") if rule else ("", "refused")
        return Tried(at_us, incident, name, "observe", word, "policy", why)
    active = sum(each.status == "active" for each in past.keys.values())
    means = _means(question, past, rule)
    if not propose.approvals(question, rule, guards, len(past.approvers)):
        means = replace(means, earned=earned(past.stage, incident.rule in PROOF_RULES))
    step = step_of(rule, means)
    guards = (*guards, *step.guards)
    wanted = propose.proposal(question, rule, guards, step, means, active, past.approvers, 0)
    if no := propose.final(guard.refusals(guards), wanted):
        return Tried(at_us, incident, rule.name, step.rung, "refused", no[0].guard, no[0].reason)
    verdict = ledger.apply(ledger.next_offset, at_us, wanted)
    waits = verdict.act is not None and verdict.act.stage == "pending" and not verdict.granted
    if verdict.granted:
        ledger.apply(ledger.next_offset, at_us, Finished(
            act_id=wanted.act_id, response_id=wanted.response_id, result="done"
        ))  # fmt: skip
    word = "done" if verdict.granted else "waiting" if waits and verdict.guard == "approvals" else "refused"
    hour, day = (ledger.used(span, cap=wanted.cap) for span in (HOUR_US, DAY_US))
    return Tried(at_us, incident, rule.name, step.rung, word, verdict.guard, verdict.reason, hour, day)


def _means(question: Question, past: Past, rule: Rule) -> Means:
    incident, key = question.incident, question.key
    others = [each for each in past.keys.values() if each.status == "active" and each.key_id != incident.key_id]
    of_owner = sum(each.owner == key.owner for each in others) if key and key.owner else None
    adapter, fences = past.ladder.adapter_of(rule), "fence" in (rule.rung, *rule.otherwise)
    networks = past.networks(incident.key_id, fence.first_suspicious_us(incident)) if fences else ()
    return Means(
        adapter=adapter, matrix=past.matrices.get(adapter), networks=fence.with_declared(networks, key),
        suspects=fence.suspects(incident), owner_keys=of_owner, other_keys=len(others),
    )  # fmt: skip


def _end_what_is_over(ledger: Ledger, at_us: int) -> None:
    for act in [act for act in ledger.acts.values() if act.ends and act.until_us <= at_us]:
        wanted, over_us = act.proposal, max(act.until_us, ledger.now_us)
        ledger.apply(ledger.next_offset, over_us, Undo(act_id=wanted.act_id, by=TIME, reason="", responder=""))
        ledger.apply(ledger.next_offset, over_us, Finished(
            act_id=wanted.act_id, response_id=wanted.response_id, result="done", direction="undo"
        ))  # fmt: skip


def _at_us(incident: Incident) -> int:
    """A second after its newest authenticated evidence."""
    times = [micros(each.at) for each in incident.findings if each.authenticated and _is_time(each.at)]
    return max(times, default=micros(incident.last_at)) + 1_000_000


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def summary(results: Iterable[Tried]) -> list[tuple[str, str, int]]:
    """(what, by which rung or guard, how many), the most first."""
    counted = Counter((each.word, each.rung if each.word != "refused" else each.guard) for each in results)
    return [(word, by, number) for (word, by), number in counted.most_common()]
