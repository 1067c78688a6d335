"""What was earned: up to which stage acts happen by themselves, where `respond.policy.promotion` is required. Pure.

    simulate   nothing
    fence      fence and flag: a wrong one is felt by nobody who behaves as before
    suspend    throttle, deny, suspend; after a proof rotate and revoke, too
    revoke     all; never earned, only overridden

A person takes a step by `keywatch respond promote`, which counts first (`promotion.py`); a wrong act that a review
finds takes one back (`review.py`). Both are records on the decisions topic: the last one that stands holds, for all
responders and over restarts. One that was not earned stands for a proposal once enough of the proposal's own approvers
have signed it, in the time that its approvals have. Where nothing is known, nothing was earned.
What was earned is written by whoever may write the topic, unsigned; the copy of an old override signs nothing anew.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Final, Literal, Self

import msgspec

from pipeline.policy import Approver, Policy
from pipeline.respond import approval
from pipeline.respond.entries import Promoted, Proposed, Signed
from pipeline.respond.ladder import LADDER, NOT_PROMOTED, SURE

__all__ = ["NOT_PROMOTED", "STAGES", "Promotions", "Stage", "Step", "Who", "below", "earned"]

Stage = Literal["simulate", "fence", "suspend", "revoke"]
STAGES: Final[tuple[Stage, ...]] = ("simulate", "fence", "suspend", "revoke")
MOST_STEPS: Final = 50
MOST_HEARD: Final = 1_000  # tickets
REVIEW: Final = "review"
"""Who takes back a step after a wrong act; no person. It never raises: it may not have read a person's step back."""


def earned(stage: Stage, proof: bool) -> frozenset[str]:
    """The rungs that may be taken without people at this stage."""
    if stage == "simulate":
        return frozenset({"observe"})
    if stage == "fence":
        return SURE
    every = frozenset[str](LADDER)
    return every if proof or stage == "revoke" else every - {"rotate", "revoke"}


def below(stage: Stage) -> Stage:
    """One stage back."""
    return STAGES[max(STAGES.index(stage) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Who:
    """By whose signatures, how many, within how long, what was not earned stands."""

    approvers: tuple[Approver, ...]
    needs: int
    within_s: float

    @classmethod
    def of(cls, policy: Policy, approvers: tuple[Approver, ...]) -> Self:
        """As this policy says."""
        return cls(approvers, policy.promotion_approvals, policy.approval_s)


@dataclass(slots=True, order=True)
class Step:
    """One record, when it was first said (broker's time, us), and who signed it when."""

    at_us: int
    record: Promoted = field(compare=False)
    words: list[tuple[int, Signed]] = field(default_factory=list, compare=False)
    said_us: int = field(default=0, compare=False)  # when last

    def signed(self, who: Who) -> tuple[str, ...]:
        """Who of them did, in time."""
        ends_us = self.at_us + int(who.within_s * 1e6)
        return approval.people((word for at_us, word in self.words if at_us <= ends_us), who.approvers)

    def counted(self, who: Who) -> tuple[Signed, ...]:
        """The words that make it stand, one of each person: what came too late must not count when it is said again."""
        ends_us = self.at_us + int(who.within_s * 1e6)
        words = [word for at_us, word in self.words if at_us <= ends_us and word.yes]
        return tuple({word.person: word for word in words if approval.is_genuine(word, who.approvers)}.values())

    def is_copy(self, who: Who) -> bool:
        """Whether an old override was written again: its signatures were for then."""
        return self.record.override and abs(self.at_us - self.record.asked_us) > who.within_s * 1e6

    def stands(self, who: Who) -> bool:
        """Whether it counts: earned, or signed by enough people and declined by none."""
        if not self.record.override:
            return True
        if self.is_copy(who):
            return False
        no = any(not word.yes and approval.is_genuine(word, who.approvers) for _, word in self.words)
        return not no and len(self.signed(who)) >= who.needs


@dataclass(slots=True)
class Promotions:
    """The steps that may still count, the oldest first."""

    steps: list[Step] = field(default_factory=list)
    _heard: dict[str, None] = field(default_factory=dict)  # tickets: what is written twice by a retry counts once

    @property
    def tickets(self) -> set[str]:
        """Of what may be signed."""
        return {step.record.ticket for step in self.steps if step.record.override}

    def apply(self, record: Promoted, now_us: int) -> None:
        """Take the next one. What is said again has its old place: it never comes after what superseded it."""
        if record.to == "revoke" and not record.override:
            return  # never earned
        at_us = min(record.at_us, now_us) if record.again else now_us
        if record.ticket in self._heard:
            for step in self.steps:
                if step.record.ticket == record.ticket and record.again:
                    step.said_us = now_us
            return
        self._heard[record.ticket] = None
        if len(self._heard) > MOST_HEARD:
            del self._heard[next(iter(self._heard))]
        words = [(at_us, word) for word in record.words]
        first = msgspec.structs.replace(record, again=False, at_us=0, words=())
        insort(self.steps, Step(at_us, first, words, now_us))
        self._forget()

    def hear(self, word: Signed, now_us: int) -> str:
        """A person's word on what was not earned; what came of it, "" where it is about something else."""
        steps = [step for step in self.steps if step.record.override and step.record.ticket == word.ticket]
        for step in steps:
            step.words.append((now_us, word))
        said = f"{'signed' if word.yes else 'declined'} by {word.person}"
        return f"{said}; it stands once enough approvers have signed, and none declined" if steps else ""

    def holding(self, who: Who) -> Step | None:
        """The one in force; None: nothing was earned."""
        held: Step | None = None
        for number, step in enumerate(self.steps):
            raises = number > 0 and _height(step) >= (_height(held) if held else 0)
            if step.stands(who) and not (step.record.by == REVIEW and raises):
                held = step
        return held

    @property
    def taken_back(self) -> Step | None:
        """The newest step that a review took back, if no step that needs no signatures came after."""
        return next((step for step in reversed(self.steps) if step.record.by == REVIEW), None)

    def stage(self, who: Who) -> Stage:
        """Up to where acts happen by themselves."""
        step = self.holding(who)
        return step.record.to if step else "simulate"

    def waiting(self, who: Who, now_us: int) -> list[Step]:
        """What can still be signed."""
        after = [step for step in self.steps if now_us <= step.at_us + int(who.within_s * 1e6)]
        return [step for step in after if step.record.override and not step.is_copy(who) and not step.stands(who)]

    def refuses(self, wanted: Proposed) -> str:
        """Why this act, which nobody approved, is above what was earned; "" if it is not, or needn't be earned."""
        if not wanted.promotion_required or wanted.simulated or wanted.approvals:
            return ""
        stage = self.stage(Who(wanted.approvers, wanted.promotion_approvals, wanted.approval_s))
        if wanted.rung in earned(stage, wanted.cap == "proof"):
            return ""
        has = "nothing is earned yet" if stage == "simulate" else f"what is earned is {stage}"
        return f"{wanted.rung} by itself was not earned, {has}: `keywatch respond promotion` says what is missing"

    def again(self, who: Who, now_us: int, every_us: int) -> list[Promoted]:
        """What stands, once it was last said so long ago; not the newest alone, which a late word may still decline."""
        return [
            msgspec.structs.replace(step.record, again=True, at_us=step.at_us, words=step.counted(who))
            for step in self.steps
            if step.stands(who) and now_us >= step.said_us + every_us
        ]

    def _forget(self) -> None:
        kept: list[Step] = []
        for step in self.steps:
            highest = max(map(_height, kept), default=0)
            lowest = 0 if kept and kept[0].record.override else min(map(_height, kept), default=0)
            if step.record.by != REVIEW or not kept:
                kept = [*kept, step] if step.record.override else [step]
            elif _height(step) < lowest:
                kept = [step]
            elif _height(step) < highest:  # who may sign says what was in force
                kept = [*kept, step]
        while len(kept) > MOST_STEPS and (asked := [n for n, step in enumerate(kept) if n and step.record.override]):
            del kept[asked[0]]
        self.steps = kept


def _height(step: Step) -> int:
    return STAGES.index(step.record.to)
