"""Carrying out what the ledger granted, and recording each stage: `decided` (elsewhere), `acting`, `done` or `failed`.

All of it comes from the granted proposal, so that whoever goes on after a crash does and records the same act under
the same ids. An undo is carried out though the kill switch is on: going down is always allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from pipeline.config.policy import Approver
from pipeline.errors import Retry
from pipeline.metrics import METRICS
from pipeline.ports import Publisher
from pipeline.respond import approval, guard
from pipeline.respond.act import Actor, NullActor, act_id
from pipeline.respond.adapters.adapter import Direction, Intent, Outcome
from pipeline.respond.audit import rfc3339
from pipeline.respond.keys import Keys
from pipeline.respond.ladder import NOT_PROMOTED, Ladder
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.decisions import RETRY_S, Decisions
from pipeline.respond.ledger.entries import Finished, Noted, Proposed
from schemas.incident import Rung
from schemas.key import Key
from schemas.response import GuardResult, Response, Stage, Verdict

log = logging.getLogger(__name__)


@dataclass
class Locks:
    """One thing at a time is done to one key; in the order of asking."""

    _held: dict[str, tuple[asyncio.Lock, int]] = field(default_factory=dict)  # with how many hold or want it

    def busy(self, key_id: str) -> bool:
        """Whether somebody holds or wants it."""
        return key_id in self._held

    @contextlib.asynccontextmanager
    async def one_at_a_time(self, key_id: str) -> AsyncIterator[None]:
        """Hold the key's lock."""
        lock, waiting = self._held.get(key_id, (asyncio.Lock(), 0))
        self._held[key_id] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            waiting = self._held[key_id][1] - 1
            if waiting:
                self._held[key_id] = (lock, waiting)
            else:
                del self._held[key_id]


@dataclass
class Carrier:
    """Acts and records. `actors` and `undoers` by adapter's name: the latter aren't held by the kill switch."""

    responses_topic: str
    publisher: Publisher
    decisions: Decisions
    now_s: Callable[[], float]
    actors: Mapping[str, Actor]
    undoers: Mapping[str, Actor] = field(default_factory=dict)
    locks: Locks = field(default_factory=Locks)
    ladder: Ladder | None = None  # with the approvers: what approvals are counted by; None: nothing approved is done
    approvers: tuple[Approver, ...] = ()

    async def carry_out(self, act: Act, decided: Awaitable[None] | None = None, *, again: bool = False) -> Outcome:
        """The act itself, to its end; returns what became of it. `again`: it may have been sent before.

        `decided` writes the line before: both go out together, since the thief has the time that each takes.
        """
        acting = self.record(act.proposal, "acting", "allowed", "telling the target", act=act)
        await (asyncio.gather(decided, acting) if decided else acting)
        actor = self.actors.get(act.proposal.adapter) or NullActor()
        with METRICS.act_seconds.time():
            outcome = await actor.act(intent_of(act), partial(self._note, act))
        outcome = replace(outcome, answered_s=self.now_s())  # before the records that close it, which take their time
        if again and outcome.result == "failed":
            outcome = replace(outcome, result="expired")
        await self.close(act, outcome)
        return outcome

    async def _note(self, act: Act, before: str) -> str:
        """Keep what is there now on the topic, before it is changed; what was kept first counts.

        "" where the act is over: others ended it while our write waited, and nobody would undo what we do now.
        """
        of = act.proposal
        await self.decisions.write(Noted(act_id=of.act_id, response_id=of.response_id, before=before))
        now = self.decisions.ledger.act_of(of.act_id)
        if now is None or now.proposal.response_id != of.response_id or now.undo is not None:
            return ""
        return (now.before or before) if now.stage in ("open", "done", "expired") else ""

    async def resume(self, act: Act, keys: Keys) -> None:
        """Go on with an act that was granted some time ago: before a crash, or when people had approved it.

        What was sent before the crash is not known: what doesn't succeed now has expired, and ends in its time.
        """
        key, _, error = await keys.look_up(act.proposal.key_id)
        guards = guard.still(act.proposal, key, error, approved=bool(act.approved_by))
        if act.approved_by or act.proposal.approvals:
            guards += (self._signed(act, key),)
        elif why_not := self.decisions.ledger.promotions.refuses(act.proposal):  # earned then, and no more
            guards += (guard.result(NOT_PROMOTED, False, why_not),)
        why = "granted before an interruption, going on with it"  # its own line may never have been written
        reason = f"approved by {' and '.join(act.approved_by)}" if act.approved_by else why
        await self.record(act.proposal, "decided", "allowed", reason, act=act, guards=guards)
        if no := guard.refusals(guards):
            await self.close(act, Outcome("expired", no[0].reason, "failed"))
        else:
            await self.carry_out(act, again=True)

    def _signed(self, act: Act, key: Key | None) -> GuardResult:
        if self.ladder is None:
            return guard.result("approvals", False, "this responder knows no approvers")
        return guard.signed(act, key, self.ladder, self.approvers)

    async def close(self, act: Act, outcome: Outcome) -> None:
        """Record the end and let the ledger know it."""
        wanted = act.proposal
        METRICS.acts.labels(wanted.rung, outcome.label).inc()
        stage: Stage = "done" if outcome.result == "done" else "failed"
        await self.record(wanted, stage, "allowed", outcome.words, act=act, outcome=outcome)
        await self.decisions.write(Finished(
            act_id=wanted.act_id, response_id=wanted.response_id, result=outcome.result, outcome=outcome.words,
            before=outcome.before, new_key_id=outcome.new_key_id, ends_old=outcome.ends_old,
        ))  # fmt: skip

    async def undo(self, act: Act) -> None:
        """The undo that the ledger granted, to its end."""
        assert act.undo is not None
        asked = act.undo.asked
        await self.record(act.proposal, "decided", "allowed", asked.reason, act=act, direction="undo")
        await self.record(act.proposal, "acting", "allowed", "telling the target", act=act, direction="undo")
        actor = self.undoers.get(act.proposal.adapter) or NullActor()
        outcome = self._unsigned(act) or await actor.act(intent_of(act, "undo"))
        METRICS.undos.labels(act.proposal.rung, outcome.label).inc()
        stage: Stage = "done" if outcome.result == "done" else "failed"
        await self.record(act.proposal, stage, "allowed", outcome.words, act=act, direction="undo", outcome=outcome)
        await self.decisions.write(Finished(
            act_id=act.proposal.act_id, response_id=act.proposal.response_id, result=outcome.result,
            outcome=outcome.words, direction="undo",
        ))  # fmt: skip

    def _unsigned(self, act: Act) -> Outcome | None:
        """What becomes of a forced undo that too few of our own approvers signed, whoever its proposal names."""
        assert act.undo is not None
        undo, of, policy = act.undo, act.proposal, self.ladder.policy if self.ladder else None
        people = approval.people((each for each in undo.words if each.ticket == undo.asked.ticket), self.approvers)
        needs = max(1, of.force_approvals, policy.bulk_approvals if policy else 0)
        if not undo.words or len(people) >= needs:
            return None
        return Outcome("failed", f"not sent: {len(people)} of our approvers signed it, {needs} are needed", "failed")

    async def record(
        self, of: Proposed, stage: Stage, verdict: Verdict, reason: str, *, act: Act | None = None,
        guards: tuple[GuardResult, ...] = (), direction: Direction = "apply", outcome: Outcome | None = None,
    ) -> None:  # fmt: skip
        """One line of the audit, acknowledged."""
        line = line_of(of, act, direction, outcome)
        line = msgspec.structs.replace(
            line, at=rfc3339(self.now_s()), stage=stage, verdict=verdict, reason=reason, guards=guards,
            endpoint="" if stage == "decided" else of.adapter,
        )  # fmt: skip
        log.info("%s %s %s %s: %s", of.key_id, of.rung, stage, verdict, reason)
        await publish(self.publisher, self.responses_topic, of.key_id.encode(), msgspec.json.encode(line))


def line_of(of: Proposed, act: Act | None, direction: Direction, outcome: Outcome | None) -> Response:
    """What of a line doesn't depend on its stage."""
    before = (outcome.before if outcome else "") or (act.before if act else "")
    ended = (act.undo.asked.by if act.undo else act.ended_by) if act else ""
    return Response(
        response_id=of.response_id, incident_id=of.incident_id, revision=of.revision, key_id=of.key_id,
        key_version=of.key_version, at="", stage="decided", verdict="allowed", rung=_rung(of), reason="",
        evidence_hash=of.evidence_hash, policy_version=of.policy_version, rule=of.rule, direction=direction, by=ended,
        outcome=outcome.words if outcome else "", until=rfc3339(act.until_us / 1e6) if act and act.until_us else "",
        approvals=act.approved_by if act else (), before_hash=before_hash(before),
        ticket=(of.group or act.ticket) if act and act.stage == "pending" else "",
        new_key_id=(outcome.new_key_id if outcome else "") or (act.new_key_id if act else ""),
    )  # fmt: skip


def _rung(of: Proposed) -> Rung:
    rung: Rung = msgspec.convert(of.rung, Rung)
    return rung


def before_hash(before: str) -> str:
    """Names what an undo restores, without showing it: 32 hex digits; "" of nothing."""
    return hashlib.blake2b(before.encode(), digest_size=16).hexdigest() if before else ""


def intent_of(act: Act, direction: Direction = "apply") -> Intent:
    """What the adapter is told. Each attempt at an undo has an age of its own, and all have one idempotency key."""
    of = act.proposal
    at_s = (act.undo.at_us if act.undo and direction == "undo" else act.at_us) / 1e6
    return Intent(
        act_id=undo_id(of) if direction == "undo" else of.act_id, response_id=of.response_id,
        incident_id=of.incident_id, key_id=of.key_id, key_version=of.key_version, granted_at=rfc3339(at_s),
        granted_at_s=at_s, reason=act.undo.asked.reason if act.undo and direction == "undo" else of.reason,
        rung=_rung(of), direction=direction, until_s=act.until_us / 1e6, networks=of.networks, scopes=of.scopes,
        limit_per_s=of.limit_per_s, before=act.before,
    )  # fmt: skip


def undo_id(of: Proposed) -> str:
    """The idempotency key of an act's undo."""
    return act_id(of.key_id, of.key_version, f"undo\x00{of.act_id}")


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
