"""From an incident to an act: guard, decide, act, record; and its delivery. One screen of order, no I/O of its own.

For one revision of an incident:
 1 its messages are queued for the endpoints (`deliver.py`);
 2 all guards are asked (`guard.py`), the policy leads to a rung (`ladder.py`); if all say yes, the act is proposed on
   `api.decisions` and its verdict read back: granted, refused, or waiting for people;
 3 the decision is recorded on `api.responses`: `decided`;
 4 `acting` is recorded with it; once both are acknowledged the target is told (`act.py`), again and again until it has
   answered or the intent is old;
 5 `done` or `failed` is recorded, then the act is closed on `api.decisions` (4 and 5: `carry.py`);
 6 the incident's offset may be committed once all that is done and its messages are delivered or handed over.
What waits for people, ends by itself or is undone goes on from the ledger alone (`caretaker.py`).
Killed anywhere, the incident is read again: a granted act that is still open goes on under its own ids, within 15 min
of its grant; a closed one is left alone. The audit may then hold a stage twice (same response_id, revision, stage),
never too few. What was refused (by the caps, say, or above what was earned) leaves nothing to go on with: it is judged
anew, by what holds then, and only while its evidence is fresh. Revisions of one key are handled one after the other,
different keys side by side.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from pipeline.config.policy import Approver, Rule
from pipeline.metrics import METRICS
from pipeline.respond import fence, guard, propose
from pipeline.respond.audit import Positioned
from pipeline.respond.carry import Carrier
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.enforcement.witness import acted
from pipeline.respond.fence import Networks
from pipeline.respond.guard import Question
from pipeline.respond.keys import Keys
from pipeline.respond.ladder import NOT_PROMOTED, Ladder, Matrix, Means, step_of
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Build, Proposed
from pipeline.respond.ledger.ledger import Verdict
from pipeline.respond.promotion.earned import Who, earned
from schemas.incident import KEY_RULES, PROOF_RULES, Incident
from schemas.response import GuardResult
from schemas.response import Verdict as Word

log = logging.getLogger(__name__)

DECIDED_ON: Final = frozenset({"opened", "extended", "escalated"})


@dataclass
class Responder:
    """Handles incidents, one call each. `killed` gives the reason of the kill switch, "" is off."""

    ladder: Ladder
    approvers: tuple[Approver, ...]
    matrices: dict[str, Matrix]  # by adapter's name
    carrier: Carrier
    keys: Keys
    networks: Networks
    deliveries: Deliveries
    killed: Callable[[], str]

    @property
    def decisions(self) -> Decisions:
        """The ledger and its topic."""
        return self.carrier.decisions

    async def note_policy(self) -> None:
        """Other rules are a change like a deploy, known to every responder before this one judges by them."""
        ours = self.ladder.version
        if self.decisions.ledger.builds.policy.current != (ours,):
            await self.decisions.write(Build(partition=-1, config_version="", geo_build="", policy_version=ours))

    async def receive(self, record: Positioned) -> Awaitable[None]:
        """Queue one incident's messages, in the order of calls; await the result for all the rest of it."""
        incident = decode(record)
        if incident is None:
            return _nothing()
        released = await self.deliveries.send(incident, record.partition)
        return self._handle(incident, record, released)

    async def _handle(self, incident: Incident, record: Positioned, released: list[asyncio.Event]) -> None:
        if incident.change in DECIDED_ON:
            async with self.carrier.locks.one_at_a_time(incident.key_id):
                await self._respond(incident, record)
        for event in released:
            await event.wait()

    async def _respond(self, incident: Incident, record: Positioned) -> None:
        if await self._led_to_an_act(incident):
            return
        await self._note_build(incident, record.partition)
        key, active_keys, error = await self.keys.look_up(incident.key_id)
        ladder = self.ladder.simulated() if self.decisions.ledger.simulating else self.ladder
        question = Question(
            incident, ladder, key, error, self._stopped(), self.carrier.now_s(), record.timestamp_us / 1e6,
            self.decisions.ledger.builds.changed_us / 1e6,
        )  # fmt: skip
        guards = guard.judge(question)
        rule, _ = ladder.rule_of(incident, key)
        if rule is None or rule.rung == "observe":
            await self._observe(propose.nothing(question, rule, record.partition), guards, rule)
            return
        means = await self._means(question, rule, ask=_may_pass(guards))
        if not propose.approvals(question, rule, guards, len(self.approvers)):
            means = replace(means, earned=self._earned(question))
        step = step_of(rule, means)
        guards = (*guards, *step.guards)
        wanted = propose.proposal(question, rule, guards, step, means, active_keys, self.approvers, record.partition)
        wanted = msgspec.structs.replace(wanted, responder=self.decisions.responder)
        no = propose.final(guard.refusals(guards), wanted)
        if any(each.guard != NOT_PROMOTED for each in no):
            await self._refuse(wanted, guards, no)
        else:  # what was earned is the topic's to say; what wasn't waits in the queue
            asked = tuple(each for each in guards if each not in no)
            await self._decide(wanted, asked, incident, record)

    async def _decide(
        self, wanted: Proposed, guards: tuple[GuardResult, ...], incident: Incident, record: Positioned
    ) -> None:
        verdict = await self.decisions.write(wanted)
        act = verdict.act
        mine = act is not None and propose.same(act.proposal, wanted)
        answered = act is not None and (verdict.granted or mine)
        guards = (*guards, guard.result(verdict.guard, answered, verdict.reason))
        if act is None or not answered:
            await self._refuse(wanted, guards, guards[-1:])
        elif act.stage == "pending":
            await self._say(wanted, "waiting", verdict.reason, guards, act)
        else:
            said = self._say_granted(act, guards, verdict)
            await (said if act.proposal.simulated else self._go(act, incident, record.timestamp_us / 1e6, said))

    async def _say_granted(self, act: Act, guards: tuple[GuardResult, ...], verdict: Verdict) -> None:
        if act.proposal.simulated:
            reason = f"would have been done: {act.proposal.rung}, {verdict.reason} (simulate)"
            await self._say(act.proposal, "simulated", reason, guards, act)
            return
        await self._say(act.proposal, "allowed", "all guards passed", guards, act)

    async def _go(self, act: Act, incident: Incident, incident_s: float, decided: Awaitable[None]) -> None:
        outcome = await self.carrier.carry_out(act, decided)
        age_s = guard.evidence_age_s(incident, outcome.answered_s)
        if outcome.result == "done":
            event_s = None if age_s is None else outcome.answered_s - age_s
            acted(event_s, incident_s, act.at_us / 1e6, outcome.answered_s)
        if outcome.result == "done" and age_s is not None:
            METRICS.end_to_end_seconds.labels("act").observe(age_s)

    async def _led_to_an_act(self, incident: Incident) -> bool:
        """Whether this very revision did, before a crash or elsewhere. What is still open of any goes on first.

        Another revision is judged all the same: it may call for a higher rung, and a needless one is refused as such.
        So is one on which a person acted by hand.
        """
        acts = self.decisions.ledger.of_incident(incident.incident_id)
        for opened in [act for act in acts if act.stage == "open"]:
            log.warning("going on with the act %s of incident %s", opened.proposal.response_id, incident.incident_id)
            await self.carrier.resume(opened, self.keys)
        return any(act.proposal.revision == incident.revision and not act.proposal.group for act in acts)

    async def _observe(self, of: Proposed, guards: tuple[GuardResult, ...], rule: Rule | None) -> None:
        if rule is None:
            await self._refuse(of, guards, guard.refusals(guards))
        else:
            await self._say(of, "allowed", f"rule {rule.name}: observe", guards)

    async def _refuse(self, of: Proposed, guards: tuple[GuardResult, ...], no: tuple[GuardResult, ...]) -> None:
        for each in no:
            METRICS.refusals.labels(each.guard).inc()
            if each.guard == "caps":
                METRICS.cap_refusals.labels(of.cap).inc()
        await self._say(of, "refused", "; ".join(f"{each.guard}: {each.reason}" for each in no), guards)

    async def _say(
        self, of: Proposed, word: Word, reason: str, guards: tuple[GuardResult, ...], act: Act | None = None
    ) -> None:
        await self.carrier.record(of, "decided", word, reason, guards=guards, act=act)
        METRICS.decisions.labels(of.rung, word).inc()

    async def _means(self, question: Question, rule: Rule, ask: bool) -> Means:
        name = self.ladder.adapter_of(rule)
        networks: tuple[str, ...] = ()
        error = "" if ask else "where it was used from was not asked: other guards refuse"
        if ask and "fence" in (rule.rung, *rule.otherwise):
            first_us = fence.first_suspicious_us(question.incident)
            networks, error = await self.networks.usual(question.incident.key_id, first_us)
        of_owner, others = await self.keys.others(question.key) if question.key else (None, None)
        return Means(
            adapter=name, matrix=self.matrices.get(name), networks=fence.with_declared(networks, question.key),
            networks_error="" if fence.with_declared((), question.key) else error,
            suspects=fence.suspects(question.incident), owner_keys=of_owner, other_keys=others,
        )  # fmt: skip

    def _earned(self, question: Question) -> frozenset[str] | None:
        """Rungs that may be taken by themselves; where only higher ones can, the ledger refuses, and queues the key."""
        policy = question.policy
        if policy.promotion != "required" or policy.mode != "enforce":
            return None
        stage = self.decisions.ledger.promotions.stage(Who.of(policy, self.approvers))
        return earned(stage, question.incident.rule in PROOF_RULES)

    async def _note_build(self, incident: Incident, partition: int) -> None:
        """Another configuration, version or geo database is known to everybody before anything it says is judged."""
        now = (incident.config_version, incident.geo_build)
        if incident.rule in KEY_RULES and any(now) and self.decisions.ledger.builds.at.get(partition) != now:
            await self.decisions.write(Build(partition=partition, config_version=now[0], geo_build=now[1]))

    def _stopped(self) -> str:
        switch = self.decisions.ledger.stopped
        return self.killed() or (f"stopped by {switch.by}: {switch.reason}" if switch else "")


def _may_pass(guards: tuple[GuardResult, ...]) -> bool:
    return all(no.guard in guard.APPROVABLE for no in guard.refusals(guards))


def decode(record: Positioned) -> Incident | None:
    """The incident, or None (and an error in the log) for what is none."""
    try:
        return _decoder.decode(record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        log.error("no incident at partition %d offset %d: %s", record.partition, record.offset, error)  # noqa: TRY400
        return None


_decoder: Final = msgspec.json.Decoder(Incident)


async def _nothing() -> None:
    return None
