"""What was earned: up to which stage acts happen by themselves, where `respond.policy.promotion` is required. Pure.

    simulate   nothing
    fence      fence and flag: a wrong one is felt by nobody who behaves as before
    suspend    throttle, deny, suspend; after a proof rotate and revoke, too
    revoke     all; never earned, only overridden

A person takes a step by `keywatch respond promote`, which counts first (`promotion.py`); a wrong act that a review
finds takes one back (`review.py`). Both are records on the decisions topic: the last one that stands holds, for all
responders and over restarts. One that was not earned stands for a proposal once enough of the proposal's own approvers
have signed it, in the time that its approvals have. Where nothing is known, nothing was earned.
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
REVIEW: Final = "review"
"""Who takes back a step after a wrong act; no person."""


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

    def stands(self, who: Who) -> bool:
        """Whether it counts: earned, or signed by enough people and declined by none."""
        if not self.record.override:
            return True
        no = any(not word.yes and approval.is_genuine(word, who.approvers) for _, word in self.words)
        return not no and len(self.signed(who)) >= who.needs


@dataclass(slots=True)
class Promotions:
    """The steps that may still count, the oldest first."""

    steps: list[Step] = field(default_factory=list)

    @property
    def tickets(self) -> set[str]:
        """Of what may be signed."""
        return {step.record.ticket for step in self.steps if step.record.override}

    def apply(self, record: Promoted, now_us: int) -> None:
        """Take the next one. What is said again has its old place: it never comes after what superseded it."""
        if record.to == "revoke" and not record.override:
            return  # never earned
        at_us = record.at_us if record.again else now_us
        known = [step for step in self.steps if step.at_us == at_us and step.record.ticket == record.ticket]
        for step in known:
            step.said_us = now_us
        if not known:
            words = [(at_us, word) for word in record.words]
            first = msgspec.structs.replace(record, again=False, at_us=0, words=())
            insort(self.steps, Step(at_us, first, words, now_us))
        self._forget()

    def hear(self, word: Signed, now_us: int) -> str:
        """A person's word on what was not earned; what came of it, "" where it is about something else."""
        steps = [step for step in self.steps if step.record.override and step.record.ticket == word.ticket]
        for step in steps:
            step.words.append((now_us, word))
        return f"{len(steps[-1].words)} signed; it stands once enough approvers have" if steps else ""

    def holding(self, who: Who) -> Step | None:
        """The one in force; None: nothing was earned."""
        return next((step for step in reversed(self.steps) if step.stands(who)), None)

    @property
    def taken_back(self) -> Step | None:
        """The newest step, if a review found that it must be one back."""
        return self.steps[-1] if self.steps and self.steps[-1].record.by == REVIEW else None

    def stage(self, who: Who) -> Stage:
        """Up to where acts happen by themselves."""
        step = self.holding(who)
        return step.record.to if step else "simulate"

    def waiting(self, who: Who, now_us: int) -> list[Step]:
        """What can still be signed."""
        after = [step for step in self.steps if now_us <= step.at_us + int(who.within_s * 1e6)]
        return [step for step in after if step.record.override and not step.stands(who)]

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
            msgspec.structs.replace(step.record, again=True, at_us=step.at_us, words=tuple(w for _, w in step.words))
            for step in self.steps
            if step.stands(who) and now_us >= step.said_us + every_us
        ]

    def _forget(self) -> None:
        last = max((n for n, step in enumerate(self.steps) if not step.record.override), default=0)
        kept = self.steps[last:]
        self.steps = kept if len(kept) <= MOST_STEPS else [kept[0], *kept[1 - MOST_STEPS :]]
