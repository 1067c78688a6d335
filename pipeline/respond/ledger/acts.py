"""One act as the ledger knows it, and what of a key stands in the way of another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from pipeline.respond.caps import DAY_US
from pipeline.respond.ladder import ENDS, LADDER, UNDOABLE
from pipeline.respond.ledger.entries import Extended, Finished, Kept, Noted, Proposed, Signed, Undo

TIME: Final = "time"
"""Who undoes an act whose time is over."""
UNCERTAIN_TRIES: Final = 5  # to undo what expired and may never have taken place
REVOKED_US: Final = 30 * DAY_US
"""A revocation stands in the way of other acts, and of undoing them, for so long: then the key is deleted by hand, or
somebody has decided that it lives on."""

Stage = Literal["pending", "open", "done", "failed", "expired", "declined", "lapsed", "undone", "superseded"]


@dataclass(slots=True)
class Undoing:
    """An undo under way. A failed one is asked for again."""

    asked: Undo
    at_us: int
    stage: Literal["open", "failed", "done"] = "open"
    tries: int = 1
    words: tuple[Signed, ...] = ()  # forced, by as many people as it takes: so are its retries


@dataclass(slots=True)
class Act:
    """One act that was granted, or waits for people; `at_us` is when it was granted (or proposed, while it waits)."""

    proposal: Proposed
    offset: int
    at_us: int
    stage: Stage = "open"
    outcome: str = ""
    before: str = ""
    new_key_id: str = ""
    ends_old: bool = False  # rotate: the old key is ours to end; False: the gateway ends it
    until_us: int = 0
    ticket: str = ""
    words_said: dict[str, Signed] = field(default_factory=dict)
    approved_by: tuple[str, ...] = ()
    undo: Undoing | None = None
    ended_by: str = ""
    ended_us: int = 0
    done_us: int = 0  # when it was closed as done, failed or expired; 0 where that is no longer known
    confirmed_us: int = 0  # when the target said that it is done; 0 also where it never did, though it may stand
    kept_us: int = 0
    used_us: int = 0  # rotate: when its new key was first seen in use; 0: not yet
    extended: Extended | None = None  # rotate: by whom its end was last put off, and
    extended_us: int = 0  # when

    @property
    def stands(self) -> bool:
        """In force, as far as is known: an act that expired may have taken place."""
        return not self.proposal.simulated and self.proposal.rung in UNDOABLE and self.stage in ("done", "expired")

    @property
    def ends(self) -> bool:
        """By itself: then it is undone. A rotation's time is its overlap, which ends with the old key (`overlaps`)."""
        return self.stands and self.until_us > 0 and self.proposal.rung in ENDS

    @property
    def overlaps(self) -> bool:
        """A rotation that stands and whose old key is ours to end: at its deadline, or when its traffic has moved.

        Not where somebody wants it undone, though that failed so far: the old key is to live on.
        """
        return self.stands and self.stage == "done" and self.ends_old and self.undo is None

    @property
    def taken_back(self) -> bool:
        """A rotation that stands and that somebody wants undone, whether or not that works."""
        return self.stands and self.proposal.rung == "rotate" and self.undo is not None

    @property
    def revoked(self) -> bool:
        """A revocation that the target has confirmed: it has no undo, and nothing else is done to this key."""
        return not self.proposal.simulated and self.proposal.rung == "revoke" and self.stage == "done"

    @property
    def lapses_us(self) -> int:
        """When it waits no longer for people."""
        return self.at_us + int(self.proposal.approval_s * 1e6)

    @property
    def words(self) -> str:
        """Why it stands in the way of another one."""
        now = {"pending": "waits for approval", "open": "is being acted on"}.get(self.stage, "was acted on")
        lasts = "; that counts for 30 days, or until the catalogue has another version" if self.revoked else ""
        return f"this version of the key {now} ({self.proposal.rung}) for incident {self.proposal.incident_id}{lasts}"

    def same_key(self, other: Proposed) -> bool:
        """Of the same version of the same key, both real or both simulated."""
        ours = self.proposal
        return (ours.key_id, ours.key_version, ours.simulated) == (other.key_id, other.key_version, other.simulated)

    def answers_to(self, ticket: str) -> bool:
        """Its own ticket, or its bulk's."""
        return ticket in (self.ticket, self.proposal.group) and bool(ticket)

    def keep(self, record: Kept, others: Iterable[Act], now_us: int) -> None:
        """It was said again; by one who knew less, perhaps, or more: an end is only put off, as far as it may be.

        `others`: on the same version of the key; a revocation among them ended this one, forgotten while that was said.
        """
        if self.stands and any(each.revoked for each in others):
            self.stage = "superseded"
        self.kept_us, self.used_us = now_us, self.used_us or record.used_us
        if self.undo is None and self.stands:
            self.undo = _undoing(record)
        if self.overlaps and self.until_us:
            most_us = self.at_us + int(self.proposal.max_overlap_s * 1e6)
            self.until_us = max(self.until_us, min(record.until_us, most_us))

    def note(self, record: Noted) -> None:
        """What was there before it; the first one counts."""
        if self.proposal.response_id == record.response_id and self.stage in ("open", "expired"):
            self.before = self.before or record.before

    def words_for(self, asked: Undo) -> tuple[Signed, ...]:
        """By which this undo is forced, if it is the same again after it failed."""
        return self.undo.words if self.undo and self.undo.asked.ticket == asked.ticket else ()

    def end(self, record: Finished, now_us: int) -> None:
        """What became of its undo."""
        if record.ended_by and self.stands:
            self.stage, self.ended_by, self.ended_us, self.outcome = "undone", record.ended_by, now_us, record.outcome
            return
        if self.undo is None or self.undo.stage != "open":
            return
        if record.result != "done":
            self.undo.stage = "failed"
            if self.stage == "expired" and self.undo.tries >= UNCERTAIN_TRIES:
                self.stage, self.outcome = "failed", record.outcome
            return
        self.undo.stage = "done"
        self.stage, self.ended_by, self.ended_us = "undone", self.undo.asked.by, now_us
        self.outcome = self.undo.asked.reason


def in_the_way(acts: Iterable[Act], wanted: Proposed) -> Act | None:
    """The act on this version of this key that makes another one needless: the same rung, or a higher one in force."""
    for act in acts:
        if not act.same_key(wanted) or act.stage not in ("pending", "open", "done"):
            continue
        ours, theirs = act.proposal.rung, wanted.rung
        if ours == theirs or act.proposal.act_id == wanted.act_id:
            return act
        if act.stage != "pending" and ours != "rotate" and _rank(ours) > _rank(theirs):
            return act
    return None


def _rank(rung: str) -> int:
    return LADDER.index(rung) if rung in LADDER else len(LADDER)


def supersede(act: Act, others: Iterable[Act]) -> None:
    """A revoked key has nothing to go back to: what else stood on it neither ends nor is undone.

    What may still be of an earlier try of the same rung ends with this one, once this one is sure to stand. If that
    one noted something else, this one may have found its work and taken it for what was: then nobody knows.
    """
    all_of_them = [act, *others]
    for other in all_of_them[1:]:
        if act.stage == "done" and other.stage == "expired" and other.proposal.rung == act.proposal.rung:
            other.stage = "superseded"
            act.before = act.before if other.before in ("", act.before) else ""
    if any(each.proposal.rung == "revoke" and each.stage == "done" for each in all_of_them):
        for each in all_of_them:
            each.stage = "superseded" if each.stands else each.stage


def is_kept(act: Act, now_us: int) -> bool:
    """Remembered for more than a day: what is in force, waits or is under way, a person's undo while it exempts, and
    a revocation for 30 days. Not a rotation whose gateway has ended the old key: nothing is left to do or undo.
    """
    if act.proposal.simulated:
        return False
    if act.proposal.rung == "rotate" and act.stage == "done" and act.undo is None and not act.ends_old:
        return not 0 < act.until_us < now_us - DAY_US
    if act.revoked:
        return now_us < act.at_us + REVOKED_US
    exempt = act.stage == "undone" and now_us < act.ended_us + max(DAY_US, int(act.proposal.exempt_s * 1e6))
    return act.stage in ("pending", "open") or act.stands or exempt


def kept_act(record: Kept) -> Act:
    """The act that a `Kept` speaks of."""
    assert record.proposal is not None
    return Act(
        record.proposal, record.offset, record.at_us, stage="done", before=record.before, new_key_id=record.new_key_id,
        ends_old=record.ends_old, until_us=record.until_us, approved_by=record.approved_by, used_us=record.used_us,
        undo=_undoing(record),
    )  # fmt: skip


def _undoing(record: Kept) -> Undoing | None:
    """An undo that is still wanted."""
    if record.undo is None:
        return None
    return Undoing(record.undo, record.undo_us, "failed", record.undo_tries, record.undo_words)


def kept(act: Act, responder: str) -> Kept:
    """What is said again of it."""
    undo = act.undo
    return Kept(
        proposal=act.proposal, offset=act.offset, at_us=act.at_us, until_us=act.until_us, before=act.before,
        new_key_id=act.new_key_id, ends_old=act.ends_old, used_us=act.used_us, undo=undo.asked if undo else None,
        undo_us=undo.at_us if undo else 0, undo_tries=undo.tries if undo else 0,
        undo_words=undo.words if undo else (), approved_by=act.approved_by, responder=responder,
    )  # fmt: skip
