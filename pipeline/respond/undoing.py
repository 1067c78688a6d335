"""What a person takes back or puts off, and why not: pure, of one act and the others on its key.

The undo of a rotation deletes the new key. Once that was seen in use (`Used` on the topic) it is refused, unless it is
forced: by as many signatures as the rotation's proposal says, over one ticket, in the time that its approvals have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pipeline.config.policy import Approver
from pipeline.respond import approval
from pipeline.respond.caps import DAY_US
from pipeline.respond.ladder import UNDOABLE
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.entries import Proposed, Signed, Undo
from pipeline.respond.ledger.standing import extend_of
from pipeline.times import rfc3339

WRONGLY_REVOKED: Final = (
    "if the revocation was wrong, enable the key at the gateway and give it another version in the catalogue"
)
"""What a person does in the place of the undo that there is not."""


def why_no_undo(act: Act, others: Iterable[Act], now_us: int, force: bool = False) -> str:
    """Why a person can't take it back; "" if he can. One that failed may have been done all the same.

    `others`: acts on the same version of the key.
    """
    if act.proposal.rung not in UNDOABLE:
        return f"{act.proposal.rung} cannot be undone"
    if not act.stands and act.stage != "failed":
        ended = "superseded, by a revocation or another try" if act.stage == "superseded" else act.stage
        return f"it is {ended}"
    if act.undo and act.undo.stage == "open":
        return "it is being undone"
    revoked = _revocations(others)
    if revoked & {"open", "done"}:
        return "the key is revoked"
    if act.proposal.rung == "rotate" and act.undo is None:  # to delete the new key would leave none
        if not act.ends_old and 0 < act.until_us <= now_us:
            return "its gateway has ended the old key"
        if "expired" in revoked:
            return "the old key may be revoked: its revocation got no answer"
    return "" if force or not act.used_us else in_use(act)


def in_use(act: Act) -> str:
    """What the undo would break, and what to do instead."""
    end = f"keep the old key for longer: {extend_of(act)}"
    if not (act.ends_old and act.until_us):
        end = "the old key is ended once its traffic has moved, or by its gateway"
    return (
        f"new_key_in_use: {act.new_key_id} was used at {rfc3339(act.used_us)}, and the undo deletes it; {end}; "
        f"--force deletes it all the same, by {_needs(act.proposal)} signed"
    )


def why_not_extended(act: Act, others: Iterable[Act], until_us: int, now_us: int) -> str:
    """Why a rotation's end is not put off to then; "" if it is."""
    of, most_us = act.proposal, act.at_us + int(act.proposal.max_overlap_s * 1e6)
    if of.rung != "rotate":
        return f"it is a {of.rung}: only the end of a rotation is put off"
    if act.undo is not None:
        return "its rotation is undone, or being so: the old key lives on"
    if _revocations(others) & {"open", "done", "expired"}:
        return "the rotation is over: the old key is revoked, or is being so"
    if act.stage != "done":
        return f"no rotation of it stands: it is {act.stage}"
    if not act.ends_old:
        return f"{of.adapter} ends the old key by itself: put that off there"
    if not act.until_us:
        return "it has no deadline: the old key ends when its traffic has moved"
    if until_us <= max(act.until_us, now_us):
        return f"the old key ends at {rfc3339(act.until_us)}: that can only be put off"
    if until_us > most_us:
        longest = f"to {rfc3339(most_us)} at the latest" if of.max_overlap_s else "not at all"
        return f"its end is put off {longest}, by respond.policy.max_overlap_s as it was when the key was rotated"
    return ""


def why_lives_on(acts: Iterable[Act], wanted: Proposed) -> str:
    """Why the old key of a rotation is not ended now, whatever its proposal rests on."""
    rotations = [act for act in acts if act.proposal.rung == "rotate" and act.same_key(wanted)]
    if any(act.taken_back for act in rotations):
        return "its rotation is being undone: the old key is to live on"
    if wanted.deadline_us and any(act.overlaps and act.until_us > wanted.deadline_us for act in rotations):
        return "its end was put off: the old key lives on until then"
    return ""


def _revocations(others: Iterable[Act]) -> set[str]:
    return {each.stage for each in others if each.proposal.rung == "revoke"}


def _needs(of: Proposed) -> int:
    return max(1, of.force_approvals)


@dataclass(slots=True)
class Forced:
    """A forced undo that waits for signatures, since when (broker's time, us)."""

    asked: Undo
    act: Act
    at_us: int
    words: list[Signed] = field(default_factory=list)

    @property
    def needs(self) -> int:
        """How many must sign it."""
        return _needs(self.act.proposal)

    @property
    def lapses_us(self) -> int:
        """When it waits no longer."""
        return self.at_us + int(self.act.proposal.approval_s * 1e6)

    @property
    def serves_us(self) -> int:
        """Until when the same words could be asked for again (`ask`)."""
        return self.asked.asked_us + int(self.act.proposal.approval_s * 1e6)

    @property
    def approvers(self) -> tuple[Approver, ...]:
        """Who may."""
        return self.act.proposal.approvers

    @property
    def signed(self) -> tuple[str, ...]:
        """Who did."""
        return approval.people(self.words, self.approvers)


@dataclass(slots=True)
class Forces:
    """Those that wait, by ticket; and until when one that was signed or declined could come again: each serves once."""

    waiting: dict[str, Forced] = field(default_factory=dict)
    _over: dict[str, int] = field(default_factory=dict)

    def ask(self, act: Act, asked: Undo, now_us: int) -> str:
        """A new one; what it waits for, or why it does not."""
        if abs(now_us - asked.asked_us) > act.proposal.approval_s * 1e6:
            return "it was asked for at another time, and what is signed is good for then alone"
        if asked.ticket in self._over:
            return "that one was signed or declined: give the command again"
        forced = self.waiting.setdefault(asked.ticket, Forced(asked, act, now_us))
        return f"waits for {forced.needs}, ticket {asked.ticket}"

    def hear(self, word: Signed, now_us: int) -> tuple[bool, str, Forced | None]:
        """(whether it was taken, in words, what enough have signed)."""
        forced = self.waiting[word.ticket]
        if now_us > forced.lapses_us:
            return False, f"it lapsed: {forced.needs} did not sign in time", None
        if not approval.is_genuine(word, forced.approvers):
            return False, f"no approver {word.person!r} signed this", None
        forced.words.append(word)
        if word.yes and len(forced.signed) < forced.needs:
            return True, f"{len(forced.signed)} of {forced.needs} approved", None
        del self.waiting[word.ticket]
        self._over[word.ticket] = forced.serves_us
        return True, "" if word.yes else f"declined: {word.reason}", forced if word.yes else None

    def forget(self, now_us: int) -> None:
        """Those that nobody signed in time, a day later: until then that is said; and what can't come again."""
        self.waiting = {ticket: each for ticket, each in self.waiting.items() if now_us <= each.lapses_us + DAY_US}
        self._over = {ticket: serves_us for ticket, serves_us in self._over.items() if now_us <= serves_us}
