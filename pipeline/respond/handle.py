"""From an incident to an act: guard, decide, act, record; and its delivery. One screen of order, no I/O of its own.

For one revision of an incident:
 1 its messages are queued for the endpoints (`deliver.py`);
 2 all guards are asked (`guard.py`); if all say yes, the act is proposed on `api.decisions` and its verdict read back;
 3 the decision is recorded on `api.responses`, acknowledged: `decided`;
 4 `acting` is recorded, then the target is told (`act.py`), again and again until it has answered or the intent is old;
 5 `done` or `failed` is recorded, then the act is closed on `api.decisions`;
 6 the incident's offset may be committed once all that is done and its messages are delivered or handed over.
Killed anywhere, the incident is read again: a granted act that is still open goes on under its own ids, within 15 min
of its grant; a closed one is left alone. The audit may then hold a stage twice (same response_id, revision, stage),
never too few. Revisions of one key are handled one after the other, different keys side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from pipeline.config import Revocation
from pipeline.errors import Retry
from pipeline.metrics import METRICS
from pipeline.ports import Publisher
from pipeline.respond import guard
from pipeline.respond.act import Actor, act_id, response_id
from pipeline.respond.adapters.adapter import Intent, Outcome
from pipeline.respond.audit import Positioned, rfc3339
from pipeline.respond.decisions import RETRY_S, Decisions
from pipeline.respond.deliver import Deliveries
from pipeline.respond.guard import Question
from pipeline.respond.ledger import DAY_US, HOUR_US, Act, Finished, Proposed, Verdict
from schemas.incident import Incident, Rung
from schemas.key import Key
from schemas.response import GuardResult, Response, Stage
from schemas.response import Verdict as Word

log = logging.getLogger(__name__)

RUNG: Final[Rung] = "revoke"
STILL_ASKED: Final = frozenset(
    {"catalogued", "protected"}
)  # of an act that was granted; the actor asks the kill switch
MAX_REASON: Final = 500  # characters of the incident's text that go to the target
DECIDED_ON: Final = frozenset({"opened", "extended", "escalated"})


class Keys(Protocol):
    """What the catalogue says now."""

    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        """(the key or None, number of active keys or 0, why the catalogue can't be read or "")."""


@dataclass
class Responder:
    """Handles incidents, one call each. `killed` gives the reason of the kill switch, "" is off."""

    policy: Revocation
    responses_topic: str
    publisher: Publisher
    decisions: Decisions
    keys: Keys
    actor: Actor
    deliveries: Deliveries
    killed: Callable[[], str]
    now_s: Callable[[], float]
    endpoint: str = ""  # the name in the audit
    _locks: dict[str, tuple[asyncio.Lock, int]] = field(default_factory=dict)  # with how many hold or want it

    async def receive(self, record: Positioned) -> Awaitable[None]:
        """Queue one incident's messages, in the order of calls; await the result for all the rest of it."""
        incident = decode(record)
        if incident is None:
            return _nothing()
        released = await self.deliveries.send(incident, record.partition)
        return self._handle(incident, released)

    async def _handle(self, incident: Incident, released: list[asyncio.Event]) -> None:
        if incident.change in DECIDED_ON:
            async with self._one_at_a_time(incident.key_id):
                await self._respond(incident)
        for event in released:
            await event.wait()

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self, key_id: str) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(key_id, (asyncio.Lock(), 0))
        self._locks[key_id] = (lock, waiting + 1)
        try:
            async with lock:  # in the order of asking
                yield
        finally:
            waiting = self._locks[key_id][1] - 1
            if waiting:
                self._locks[key_id] = (lock, waiting)
            else:
                del self._locks[key_id]

    async def _respond(self, incident: Incident) -> None:
        case = Case.of(incident)
        act = self.decisions.ledger.act_of(case.act_id)
        if act and case.owns(act):
            if act.stage == "open":
                await self._resume(case, act)
            return
        key, active_keys, error = await self.keys.look_up(incident.key_id)
        question = Question(incident, self.policy, key, error, self._stopped(), self.now_s())
        guards = guard.judge(question)
        if no := guard.refusals(guards):
            await self._refuse(case, guards, no)
            return
        verdict = await self.decisions.write(self._proposal(case, active_keys))
        guards = (*guards, guard.result(verdict.guard, case.stands(verdict), verdict.reason))
        if verdict.act and case.stands(verdict):
            await self._go(case, verdict.act, guards)
        else:
            await self._refuse(case, guards, guards[-1:])

    async def _refuse(self, case: Case, guards: tuple[GuardResult, ...], no: tuple[GuardResult, ...]) -> None:
        for each in no:
            METRICS.refusals.labels(each.guard).inc()
        reason = "; ".join(f"{each.guard}: {each.reason}" for each in no)
        await self._record(case, "decided", "refused", reason, guards=guards)
        METRICS.decisions.labels(RUNG, "refused").inc()

    async def _go(self, case: Case, act: Act, guards: tuple[GuardResult, ...]) -> None:
        self._show_caps(act.proposal)
        word: Word = "simulated" if act.proposal.simulated else "allowed"
        reason = "would have been revoked (simulate)" if act.proposal.simulated else "all guards passed"
        await self._record(case, "decided", word, reason, guards=guards)
        METRICS.decisions.labels(RUNG, word).inc()
        if not act.proposal.simulated:
            await self._carry_out(case, act)

    async def _resume(self, case: Case, act: Act) -> None:
        log.warning("going on with the act %s of incident %s", act.proposal.response_id, case.incident.incident_id)
        key, _, error = await self.keys.look_up(case.incident.key_id)
        question = Question(case.incident, self.policy, key, error, self._stopped(), self.now_s())
        guards = guard.judge(question)
        reason = "granted before an interruption, going on with it"  # its own line may never have been written
        await self._record(case, "decided", "allowed", reason, guards=guards)
        if no := [each for each in guard.refusals(guards) if each.guard in STILL_ASKED]:
            await self._close(case, Outcome("failed", no[0].reason, "failed"))
        else:
            await self._carry_out(case, act)

    async def _carry_out(self, case: Case, act: Act) -> None:
        await self._record(case, "acting", "allowed", "telling the target", endpoint=self.endpoint)
        with METRICS.act_seconds.time():
            outcome = await self.actor.act(case.intent(act))
        await self._close(case, outcome)

    async def _close(self, case: Case, outcome: Outcome) -> None:
        METRICS.acts.labels(RUNG, outcome.label).inc()
        stage: Stage = "done" if outcome.result == "done" else "failed"
        if stage == "done" and (age_s := guard.evidence_age_s(case.incident, self.now_s())) is not None:
            METRICS.end_to_end_seconds.labels("act").observe(age_s)
        await self._record(case, stage, "allowed", outcome.words, endpoint=self.endpoint, outcome=outcome.words)
        await self.decisions.write(Finished(
            act_id=case.act_id, response_id=case.response_id, result=outcome.result, outcome=outcome.words
        ))  # fmt: skip

    async def _record(
        self, case: Case, stage: Stage, verdict: Word, reason: str, *,
        guards: tuple[GuardResult, ...] = (), endpoint: str = "", outcome: str = "",
    ) -> None:  # fmt: skip
        incident = case.incident
        line = Response(
            response_id=case.response_id, incident_id=incident.incident_id, revision=incident.revision,
            key_id=incident.key_id, key_version=incident.key_version, at=rfc3339(self.now_s()), stage=stage,
            verdict=verdict, rung=RUNG, reason=reason, guards=guards, evidence_hash=guard.evidence_hash(incident),
            policy_version=guard.policy_version(self.policy), endpoint=endpoint, outcome=outcome,
        )  # fmt: skip
        log.info("%s %s %s: %s", incident.key_id, stage, verdict, reason)
        await publish(self.publisher, self.responses_topic, incident.key_id.encode(), msgspec.json.encode(line))

    def _stopped(self) -> str:
        switch = self.decisions.ledger.stopped
        return self.killed() or (f"stopped by {switch.by}: {switch.reason}" if switch else "")

    def _proposal(self, case: Case, active_keys: int) -> Proposed:
        policy, incident = self.policy, case.incident
        return Proposed(
            act_id=case.act_id, response_id=case.response_id, incident_id=incident.incident_id,
            revision=incident.revision, key_id=incident.key_id, key_version=incident.key_version,
            responder=self.decisions.responder, rung=RUNG, simulated=policy.mode != "enforce",
            max_per_hour=policy.max_per_hour, max_per_day=policy.max_per_day,
            max_share_of_active=policy.max_share_of_active, active_keys=active_keys,
            reason=incident.text[:MAX_REASON],
        )  # fmt: skip

    def _show_caps(self, last: Proposed) -> None:
        ledger = self.decisions.ledger
        for word, span_us, cap in (("hour", HOUR_US, last.max_per_hour), ("day", DAY_US, last.max_per_day)):
            METRICS.cap_used_ratio.labels(word).set(ledger.used(span_us, last.simulated) / max(cap, 1))


@dataclass(frozen=True, slots=True)
class Case:
    """One revision of an incident and the ids of the act it may lead to, the same in every responder."""

    incident: Incident
    act_id: str
    response_id: str

    @staticmethod
    def of(incident: Incident) -> Case:
        """Ids from the incident, the key and the key's version alone."""
        key, version = incident.key_id, incident.key_version
        return Case(incident, act_id(key, version, RUNG), response_id(incident.incident_id, RUNG, version))

    def owns(self, act: Act) -> bool:
        """Whether this very revision led to the act: it was handled before a crash, or is being handled elsewhere.

        An open act is carried on by any later revision too.
        """
        ours = act.proposal.response_id == self.response_id
        return ours and (act.stage == "open" or act.proposal.revision == self.incident.revision)

    def stands(self, verdict: Verdict) -> bool:
        """Granted, now or by an earlier copy of the same proposal (a write whose acknowledgement was lost)."""
        act = verdict.act
        return verdict.granted or (act is not None and act.stage == "open" and self._same(act))

    def _same(self, act: Act) -> bool:
        proposal = act.proposal
        return (proposal.response_id, proposal.revision) == (self.response_id, self.incident.revision)

    def intent(self, act: Act) -> Intent:
        """What the target is told."""
        granted, at_s = act.proposal, act.at_us / 1e6
        return Intent(
            act_id=granted.act_id, response_id=granted.response_id, incident_id=granted.incident_id,
            key_id=granted.key_id, key_version=granted.key_version, granted_at=rfc3339(at_s), granted_at_s=at_s,
            reason=granted.reason,
        )  # fmt: skip


def decode(record: Positioned) -> Incident | None:
    """The incident, or None (and an error in the log) for what is none."""
    try:
        return _decoder.decode(record.value or b"")
    except msgspec.MsgspecError as error:
        log.error("no incident at partition %d offset %d: %s", record.partition, record.offset, error)  # noqa: TRY400
        return None


_decoder: Final = msgspec.json.Decoder(Incident)


async def publish(publisher: Publisher, topic: str, key: bytes, value: bytes) -> None:
    """Publish, for as long as it takes: without its record nothing goes on."""
    while True:
        try:
            await publisher.publish(topic, key, value)
        except Retry as error:
            log.warning("cannot write to %s, trying again: %s", topic, error)
            await asyncio.sleep(RETRY_S)
        else:
            return


async def _nothing() -> None:
    return None
