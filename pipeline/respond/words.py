"""What people say to all responders, for the audit: who stopped them, let them go on, raised a cap, put an end off.

The topic of decisions forgets it after 28 days, the audit never does. Each such word becomes one line of it, of no
incident (rung observe) and about no key (`key_id` "*") unless it is about one rotation, with the broker's time and the
person in `by`. That a line is written stands on the topic (`Told`), so that one who was away writes what is missing;
killed in between, it comes twice at worst, under one id. What the caretaker says again is nobody's word. Pure, from the
ordered topic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from pipeline.config.policy import Approver
from pipeline.respond import approval
from pipeline.respond.audit import rfc3339
from pipeline.respond.ledger.entries import (
    FORCE,
    PROMOTION,
    Extended,
    Promoted,
    Proposed,
    Raised,
    Record,
    Reset,
    Signed,
    Simulating,
    Switched,
    Undo,
)
from pipeline.respond.night.records import Told
from schemas.response import Response, Verdict

ALL_KEYS: Final = "*"
_SUBJECT: Final = "word:{}"

Word = Switched | Simulating | Promoted | Reset | Raised | Signed | Undo | Extended


@dataclass(frozen=True, slots=True)
class Said:
    """One word, where and when (broker's time, us). `of`: the one act that it is about."""

    offset: int
    at_us: int
    word: Word
    of: Proposed | None = None

    @property
    def told(self) -> Told:
        """That its line is written."""
        return Told(subject=_SUBJECT.format(self.offset), step="audited")

    def line(self, approvers: tuple[Approver, ...]) -> Response:
        """Its line of the audit; a signature is checked by our own approvers."""
        name = hashlib.blake2b(f"{self.offset}\0{self.at_us}".encode(), digest_size=16, person=b"kw-word").hexdigest()
        verdict, switch, by, reason, ticket = _told(self.word, approvers)
        return Response(
            response_id=name, incident_id="", revision=0, key_id=self.of.key_id if self.of else ALL_KEYS,
            key_version=self.of.key_version if self.of else 0, at=rfc3339(self.at_us / 1e6),
            stage="decided", verdict=verdict, rung="observe", reason=reason, by=by, ticket=ticket, switch=switch,
        )  # fmt: skip


@dataclass(slots=True)
class Words:
    """Those whose line isn't known to be written, by their place on the topic."""

    waiting: dict[int, Said] = field(default_factory=dict)

    def apply(
        self, offset: int, at_us: int, record: Record | None, tickets: Collection[str], granted: bool = False,
        of: Proposed | None = None,
    ) -> None:  # fmt: skip
        """Take the next record of the topic; `tickets`: of raises, promotions and forced undos by then."""
        match record:
            case Told():
                for said in [each for each in self.waiting.values() if each.told == record]:
                    del self.waiting[said.offset]
            case Switched(again=True) | Simulating(again=True) | Promoted(again=True):
                pass
            case Switched() | Simulating() | Promoted() | Reset() | Raised():
                self.waiting[offset] = Said(offset, at_us, record)
            case Undo() if record.force and record.ticket in tickets:
                self.waiting[offset] = Said(offset, at_us, record, of)
            case Extended() if granted:
                self.waiting[offset] = Said(offset, at_us, record, of)
            case Signed() if record.ticket in tickets:
                self.waiting[offset] = Said(offset, at_us, record, of)


def _told(word: Word, approvers: tuple[Approver, ...]) -> tuple[Verdict, str, str, str, str]:
    """(verdict, what it is, by whom, in words, ticket)."""
    match word:
        case Switched():
            what = "stops all acts" if word.stop else "lets acts go on"
            return "allowed", "stop" if word.stop else "go_on", word.by, _why(word.by, what, word.reason), ""
        case Simulating():
            what = "has acts simulated only" if word.on else "ends the simulation"
            return "allowed", "simulate" if word.on else "enforce", word.by, _why(word.by, what, word.reason), ""
        case Promoted():
            return _promotion(word)
        case Reset():
            return "allowed", "close_breaker", word.by, _why(word.by, "closes the breaker", word.reason), ""
        case Raised():
            return "waiting", "raise_caps", word.by, _why(word.by, _raise(word), word.reason), word.ticket
        case Signed():
            genuine = approval.is_genuine(word, approvers)
            of, switch = _signed(word.ticket)
            what = f"{'signs' if word.yes else 'declines'} {of}"
            what += "" if genuine else ", and is no approver of ours, or did not sign it"
            verdict: Verdict = "allowed" if genuine and word.yes else "refused"
            return verdict, switch, word.person, _why(word.person, what, word.reason), word.ticket
        case Undo():
            what = f"asks to undo the rotation {word.act_id} though its new key is in use"
            return "waiting", "force_undo", word.by, _why(word.by, what, word.reason), word.ticket
        case Extended():
            what = f"puts the end of the old key of {word.response_id} off to {rfc3339(word.until_us / 1e6)}"
            return "allowed", "extend", word.by, _why(word.by, what, word.reason), ""


def _signed(ticket: str) -> tuple[str, str]:
    """(of what the ticket is, the switch)."""
    if ticket.startswith(FORCE):
        return "a forced undo", "sign_undo"
    return ("a promotion", "sign_promotion") if ticket.startswith(PROMOTION) else ("a raise of caps", "sign_raise")


def _promotion(word: Promoted) -> tuple[Verdict, str, str, str, str]:
    if word.to == "revoke" and not word.override:
        return "refused", "promote", word.by, _why(word.by, "asks for revoke, which is never earned", word.reason), ""
    if not word.asked_us:
        what = f"lets acts go no further than {word.to} by themselves"
        return "allowed", "promote", word.by, _why(word.by, what, word.reason), ""
    counted = "which was not earned" if word.override else word.counted or "nothing was counted"
    what = f"asks to let acts go up to {word.to} by themselves ({counted})"
    switch = "override_promotion" if word.override else "promote"
    return "waiting", switch, word.by, _why(word.by, what, word.reason), word.ticket


def _raise(word: Raised) -> str:
    return (
        f"asks for wider caps of {word.cap} until {rfc3339(word.until_us / 1e6)}: {word.max_per_hour} keys an hour, "
        f"{word.max_per_day} a day, {word.max_share_of_active:g} of the active ones"
    )


def _why(by: str, what: str, reason: str) -> str:
    return f"{by} {what}: {reason or 'no reason'}"
