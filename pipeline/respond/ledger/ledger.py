"""The one ordered state of all acts: what the topic `api.decisions` says, from its start, in its order.

A responder that wants to act *proposes* it on the topic, waits for the acknowledgement and reads its own record back
through this state machine, as all other responders do. Which proposals stand follows from the order on the topic
alone: within any hour and any day only as many different keys as the cap allows, the later ones are refused and
queued. So two responders cannot exceed a cap together, and a restart neither repeats an act nor forgets one, its end
or its undo.

    proposed ─┬─> pending ─(signed by enough people)─┐        undo: by a person, or when its time is over
              └──────────────────────────────────────┴─> open ─> done ─> (undo open) ─> undone
      pending ─> declined, lapsed               open ─> failed, expired          done ─> superseded (by a revoke)

 - Time is the broker's (the record's timestamp), never behind that of an earlier record: a responder's wrong clock
   cannot make room, nor end a suspension early.
 - A proposal is judged by the numbers it carries (its responder's policy), so that every reader comes to the same
   verdict; whatever was granted to anybody counts.
 - What fails still counts towards the caps: whether the target did it is not known. One that expired may have taken
   place, too: it ends in its time like one that did.
 - A record that cannot be read may be an act that we don't know of: for a day nothing is granted.
Simulated proposals have counts of their own, so that a simulation shows what enforcement would have done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pipeline.config.policy import Caps
from pipeline.respond import approval
from pipeline.respond.audit import rfc3339
from pipeline.respond.breaker import Breaker
from pipeline.respond.builds import Builds
from pipeline.respond.caps import APPROVED, DAY_US, HOUR_US, ROTATION, Counts, Raise, share_of
from pipeline.respond.ledger.acts import TIME, Act, Undoing, in_the_way, is_kept, kept_act, supersede
from pipeline.respond.ledger.entries import (
    Build,
    Bulked,
    Extended,
    Finished,
    HandedOver,
    Joined,
    Kept,
    Noted,
    Paged,
    Promoted,
    Proposed,
    Raised,
    Record,
    Reset,
    Settled,
    Signed,
    Simulating,
    Switched,
    Undo,
    Used,
    decode,
    encode,
    ticket_of,
)
from pipeline.respond.promotion.earned import NOT_PROMOTED, Promotions
from pipeline.respond.undoing import Forces, why_lives_on, why_no_undo, why_not_extended
from pipeline.respond.words import Words

__all__ = [
    "DAY_US", "HOUR_US", "IGNORED", "TIME", "Act", "Finished", "HandedOver", "Joined", "Ledger", "Proposed", "Record",
    "Settled", "Switched", "Verdict", "decode", "encode", "share_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the order on the topic says of one record. `act` is the granted one, or the one that stands in the way."""

    granted: bool
    guard: str
    reason: str
    act: Act | None = None


BLIND: Final = (
    "a record on the decisions topic cannot be read, so the counts are not known: renew all responders together, or it "
    "is so"
)
IGNORED: Final = Verdict(False, "none", "nothing to judge")


@dataclass(frozen=True, slots=True)
class Queued:
    """One key that would have been acted on but for the caps or the breaker."""

    proposal: Proposed
    at_us: int
    guard: str


@dataclass(slots=True)
class Ledger:
    """The state: equal records in equal order give equal verdicts. Keeps a day, and what `is_kept` says."""

    next_offset: int = 0
    now_us: int = 0
    stopped: Switched | None = None
    stopped_us: int = 0
    simulating: Simulating | None = None
    simulating_us: int = 0
    blind_until_us: int = 0
    acts: dict[tuple[bool, str], Act] = field(default_factory=dict)  # by (simulated, act_id): the latest
    replaced: list[Act] = field(default_factory=list)  # real ones of whose id there is a later one: for what is told
    counts: Counts = field(default_factory=Counts)
    breaker: Breaker = field(default_factory=Breaker)
    queue: dict[str, Queued] = field(default_factory=dict)  # by key: real ones only
    raises: dict[str, Raise] = field(default_factory=dict)
    forces: Forces = field(default_factory=Forces)
    groups: dict[str, Bulked] = field(default_factory=dict)
    builds: Builds = field(default_factory=Builds)
    promotions: Promotions = field(default_factory=Promotions)
    words: Words = field(default_factory=Words)

    def apply(self, offset: int, at_us: int, record: Record | None) -> Verdict:
        """Take the record at `offset` with the broker's time; offsets ascend, one that was applied does nothing."""
        if offset < self.next_offset:
            return IGNORED
        self.next_offset, self.now_us = offset + 1, max(self.now_us, at_us)
        self._forget()
        tickets, of = self._tickets(record), self._of(record)  # before: the last signature takes a ticket away
        verdict = self._take(offset, record)
        self.words.apply(offset, at_us, record, tickets | self._tickets(record), verdict.granted, of)
        return verdict

    def _of(self, record: Record | None) -> Proposed | None:
        """Of which act people say it, if of one."""
        forced = self.forces.waiting.get(record.ticket) if isinstance(record, Signed) else None
        act = self.acts.get((False, record.act_id)) if isinstance(record, Undo | Extended) else forced and forced.act
        return act.proposal if act else None

    def _tickets(self, record: Record | None) -> set[str]:
        """Of what people sign that is no act of its own; asked of words alone, since each is a digest."""
        if not isinstance(record, Signed | Undo):
            return set()
        return {*self.raises, *self.promotions.tickets, *self.forces.waiting}

    def _take(self, offset: int, record: Record | None) -> Verdict:
        match record:
            case Proposed():
                return self._judge(offset, record)
            case Finished():
                self._finish(record)
            case Noted():
                self._note_before(record)
            case Undo():
                return self._undo(record)
            case Extended():
                return self._extend(record)
            case Used():
                self._use(record)
            case Signed():
                return self._sign(record)
            case Kept():
                return self._keep(record)
            case None:
                self.blind_until_us = self.now_us + DAY_US
            case _:
                self._note(record)
        return IGNORED

    def act_of(self, act_id: str, simulated: bool = False) -> Act | None:
        """The latest granted or waiting act with this id, whatever became of it."""
        return self.acts.get((simulated, act_id))

    def of_incident(self, incident_id: str) -> list[Act]:
        """What an incident led to, not simulated."""
        return [a for (simulated, _), a in self.acts.items() if not simulated and a.proposal.incident_id == incident_id]

    @property
    def held(self) -> str:
        """Why nothing granted is sent, by the switches on the topic; "" is go on."""
        if self.stopped:
            return f"stopped by {self.stopped.by}: {self.stopped.reason or 'no reason'}"
        if self.simulating:
            return f"put to simulate by {self.simulating.by}: {self.simulating.reason or 'no reason'}"
        return ""

    def used(self, span_us: int, simulated: bool = False, cap: str = "usual") -> int:
        """Different keys with a granted act within the last `span_us` as of the newest record."""
        return len(self.counts.keys(self.now_us, span_us, simulated, cap))

    def _judge(self, offset: int, wanted: Proposed) -> Verdict:
        if no := self._refusal(wanted):
            return no
        if wanted.approvals:
            return self._wait(offset, wanted)
        if no := self._stopped_by(NOT_PROMOTED, self.promotions.refuses(wanted), wanted):
            return no
        self.breaker.trip(wanted, self.now_us, offset)
        no = self._stopped_by("breaker", self.breaker.stops(wanted), wanted) or self._stopped_by(
            "caps", self.counts.over(wanted, self.now_us, self._raises(wanted)), wanted
        )
        if no:
            return no
        act = self._put(self._open(Act(wanted, offset, self.now_us), wanted.cap))
        hour, day = (self.used(span, wanted.simulated, wanted.cap) for span in (HOUR_US, DAY_US))
        return Verdict(True, "caps", f"key {hour} of this hour and {day} of this day, within the caps", act)

    def _refusal(self, wanted: Proposed) -> Verdict | None:
        if before := in_the_way(self.acts.values(), wanted):
            return Verdict(False, "already_acted", before.words, before)
        if (no := self._said_no(wanted)) is not None:
            return no
        if not wanted.simulated and (no := self._off()):
            return no
        if wanted.cap == ROTATION and (why := why_lives_on(self.acts.values(), wanted)):
            return Verdict(False, "undo", why)
        if self.now_us < self.blind_until_us:
            return Verdict(False, "caps", f"{BLIND} until {rfc3339(self.blind_until_us / 1e6)}")
        bulk = self.groups.get(wanted.group)
        if wanted.group and (bulk is None or not bulk.holds(wanted)):
            return Verdict(False, "group", "the bulk does not name it")
        return None

    def _off(self, act: Act | None = None) -> Verdict | None:
        return Verdict(False, "kill_switch" if self.stopped else "mode", self.held, act) if self.held else None

    def _said_no(self, wanted: Proposed) -> Verdict | None:
        """What a person undid is not done again by itself for a while; what was declined, not for this incident."""
        for act in self.acts.values():
            if act.proposal.key_id != wanted.key_id or act.proposal.simulated != wanted.simulated or wanted.group:
                continue
            if act.stage == "declined" and act.proposal.incident_id == wanted.incident_id:
                return Verdict(False, "declined", f"{act.ended_by} declined it for this incident")
            by_person = act.stage == "undone" and act.ended_by != TIME
            if by_person and not wanted.approvals and self.now_us < act.ended_us + int(wanted.exempt_s * 1e6):
                return Verdict(False, "undone", f"{act.ended_by} undid an act on this key: {act.outcome}")
        return None

    def _stopped_by(self, guard: str, why: str, wanted: Proposed) -> Verdict | None:
        if not why:
            return None
        if not wanted.simulated and wanted.cap != ROTATION:  # the queue is what people act on at once, at night
            self.queue[wanted.key_id] = Queued(wanted, self.now_us, guard)
        return Verdict(False, guard, why)

    def _wait(self, offset: int, wanted: Proposed) -> Verdict:
        if wanted.simulated:
            return Verdict(True, "approvals", f"would have waited for {wanted.approvals}", Act(wanted, offset, 0))
        act = self._put(Act(wanted, offset, self.now_us, stage="pending", ticket=ticket_of(wanted, offset)))
        return Verdict(False, "approvals", f"waits for {wanted.approvals}, ticket {wanted.group or act.ticket}", act)

    def _put(self, act: Act) -> Act:
        """The latest of its id; what became of the one before may not have been told yet."""
        name = act.proposal.simulated, act.proposal.act_id
        if (before := self.acts.get(name)) and not act.proposal.simulated:
            self.replaced.append(before)
        self.acts[name] = act
        return act

    def _open(self, act: Act, cap: str) -> Act:
        """Granted now."""
        wanted = act.proposal
        act.stage, act.at_us = "open", self.now_us
        act.until_us = self.now_us + int(wanted.duration_s * 1e6) if wanted.duration_s else 0
        for other in self._same_key(act):
            if wanted.rung == "revoke" and other.undo:
                other.undo.stage = "failed"  # or it would bring a revoked key back
        self.counts.add(wanted, self.now_us, cap)
        if not wanted.simulated:
            self.queue.pop(wanted.key_id, None)
        return act

    def _same_key(self, act: Act) -> list[Act]:
        return [each for each in self.acts.values() if each is not act and each.same_key(act.proposal)]

    def _raises(self, wanted: Proposed) -> list[Caps]:
        allowed = (each.caps(wanted, self.now_us) for each in self.raises.values())
        return [caps for caps in allowed if caps is not None]

    def _sign(self, word: Signed) -> Verdict:
        if raise_ := self.raises.get(word.ticket):
            return Verdict(True, "approvals", raise_.hear(word))
        if heard := self.promotions.hear(word, self.now_us):
            return Verdict(True, "approvals", heard)
        if word.ticket in self.forces.waiting:
            taken, why, signed = self.forces.hear(word, self.now_us)
            return self._undo(signed.asked, tuple(signed.words)) if signed else Verdict(taken, "approvals", why)
        waiting = [act for act in self.acts.values() if act.stage == "pending" and act.answers_to(word.ticket)]
        verdicts = [self._hear(act, word) for act in waiting]
        return verdicts[0] if verdicts else Verdict(False, "approvals", "nothing waits under this ticket")

    def _hear(self, act: Act, word: Signed) -> Verdict:
        wanted = act.proposal
        if self.now_us > act.lapses_us:
            return Verdict(False, "approvals", f"it lapsed {wanted.approval_s / 60:.0f} min after it was proposed", act)
        if not approval.is_genuine(word, wanted.approvers):
            return Verdict(False, "approvals", f"no approver {word.person!r} signed this", act)
        if not word.yes:
            act.stage, act.ended_by, act.ended_us = "declined", word.person, self.now_us
            return Verdict(True, "approvals", f"declined: {word.reason}", act)
        if no := self._off(act):
            return no
        if other := in_the_way([each for each in self.acts.values() if each is not act], wanted):
            return Verdict(False, "already_acted", other.words, act)
        act.words_said[word.person] = word
        act.approved_by = approval.people(act.words_said.values(), wanted.approvers)
        if len(act.approved_by) >= wanted.approvals:
            self._open(act, APPROVED)
        return Verdict(True, "approvals", f"{len(act.approved_by)} of {wanted.approvals} approved", act)

    def _undo(self, asked: Undo, words: tuple[Signed, ...] = ()) -> Verdict:
        act = self.acts.get((False, asked.act_id))
        if act is None:
            return Verdict(False, "undo", "no act of this id is known")
        if asked.by == TIME and not (act.stands and 0 < act.until_us <= self.now_us):
            return Verdict(False, "undo", "its time is not over", act)
        if why := self.why_no_undo(act, asked.force):
            return Verdict(False, "undo", why, act)
        words = words or act.words_for(asked)
        if act.used_us and asked.force and not words:
            return Verdict(False, "approvals", self.forces.ask(act, asked, self.now_us), act)
        act.undo = Undoing(asked, self.now_us, tries=act.undo.tries + 1 if act.undo else 1, words=words)
        return Verdict(True, "undo", "being undone", act)

    def why_no_undo(self, act: Act, force: bool = False) -> str:
        """Why a person can't take it back; "" if he can."""
        return why_no_undo(act, self._same_key(act), self.now_us, force)

    def _use(self, record: Used) -> None:
        act = self.acts.get((False, record.act_id))
        if act is not None and act.proposal.response_id == record.response_id and act.proposal.rung == "rotate":
            act.used_us = act.used_us or record.at_us

    def _extend(self, asked: Extended) -> Verdict:
        act = self.acts.get((False, asked.act_id))
        if act is None or act.proposal.response_id != asked.response_id:
            return Verdict(False, "extend", "no rotation of this id is known")
        if act.extended == asked:
            return Verdict(True, "extend", "it is put off", act)  # the same, written twice
        if why := why_not_extended(act, self._same_key(act), asked.until_us, self.now_us):
            return Verdict(False, "extend", why, act)
        act.until_us, act.extended, act.extended_us = asked.until_us, asked, self.now_us
        return Verdict(True, "extend", "it is put off", act)

    def _finish(self, record: Finished) -> None:
        act = self.acts.get((False, record.act_id))
        if act is None or act.proposal.response_id != record.response_id:
            return
        if record.direction == "undo":
            act.end(record, self.now_us)
        elif act.stage == "open" or (act.stage == "expired" and record.result == "done"):
            # one responder gave it up, perhaps by a wrong clock, and another had the answer: it stands
            act.stage, act.outcome = record.result, record.outcome
            act.before, act.new_key_id, act.done_us = record.before or act.before, record.new_key_id, self.now_us
            act.confirmed_us = self.now_us if record.result == "done" else 0
            act.ends_old = record.ends_old
            supersede(act, self._same_key(act))
        elif act.stage == "pending" and self.now_us > act.lapses_us:
            act.stage, act.outcome = "lapsed", record.outcome
        elif act.stage == "declined":
            act.outcome = record.outcome

    def _note_before(self, record: Noted) -> None:
        if (act := self.acts.get((False, record.act_id))) is not None:
            act.note(record)

    def _keep(self, record: Kept) -> Verdict:
        if record.proposal is None:
            if False in self.breaker.opened or not self.breaker.trips:
                self.breaker.keep(record.offset, record.at_us, record.owners, self.now_us)
            return IGNORED
        act = self.acts.setdefault((False, record.proposal.act_id), kept_act(record))
        act.keep(record, self._same_key(act), self.now_us)
        return Verdict(act.stands or act.revoked, "kept", f"it is {act.stage}", act)

    def _note(self, record: Record) -> None:
        match record:
            case Switched():
                self.stopped, self.stopped_us = (record if record.stop else None), self.now_us
            case Simulating():
                self.simulating, self.simulating_us = (record if record.on else None), self.now_us
            case Promoted():
                self.promotions.apply(record, self.now_us)
            case Reset():
                self.breaker.close()
            case Paged():
                self.breaker.paged(record.opened_offset)
            case Raised():
                self.raises[record.ticket] = Raise(record, self.now_us)
            case Bulked() if record.is_whole:
                self.groups[record.group] = record
            case Build():
                self.builds.apply(record, self.now_us)

    def _forget(self) -> None:
        self.counts.forget(self.now_us)
        start = self.now_us - DAY_US
        self.acts = {name: act for name, act in self.acts.items() if act.at_us > start or is_kept(act, self.now_us)}
        self.replaced = [act for act in self.replaced if act.at_us > start]
        self.queue = {key: each for key, each in self.queue.items() if each.at_us > start}
        self.raises = {name: each for name, each in self.raises.items() if each.at_us > start}
        self.forces.forget(self.now_us)
