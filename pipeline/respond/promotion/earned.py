"""What was earned: up to which stage acts happen by themselves, where `respond.policy.promotion` is required. Pure.

    simulate   nothing
    fence      fence and flag: a wrong one is felt by nobody who behaves as before
    suspend    throttle, deny, suspend; after a proof rotate and revoke, too
    revoke     all; never earned, only overridden

A person takes a step up by `keywatch respond promote`, which counts first (`progress.py`), and signs it, with as many
others as the policy says (one at least): that it was earned is the word of who counted, and no reader counts again.
Whoever may write the topic without an approver's key can only lower: what nobody signed counts where it is below what
holds, which is how a person goes back and how a review takes a step back after a wrong act (`review.py`). All are
records on the decisions topic; the stage follows from their order, for all responders and over restarts. Where nothing
is known, nothing was earned. A signature is good in the time that approvals have after it was asked for: the copy of an
old step raises nothing.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Self

import msgspec

from pipeline.config.policy import Approver, Policy
from pipeline.respond import approval
from pipeline.respond.ladder import LADDER, NOT_PROMOTED, SURE
from pipeline.respond.ledger.entries import Promoted, Proposed, Signed

__all__ = ["NOT_PROMOTED", "STAGES", "WORDS", "Promotions", "Stage", "Step", "Who", "below", "earned", "height"]

Stage = Literal["simulate", "fence", "suspend", "revoke"]
WORDS: Final[dict[Stage, str]] = {
    "simulate": "nothing acts; review what would have been done: keywatch feedback ID expected|malicious",
    "fence": 'mode = "enforce" with rules whose rung is fence (or flag), all else observe',
    "suspend": "rules may suspend; revoke stays for proofs and people",
    "revoke": "every rung by itself, revoke too: overridden, it can't be earned",
}
"""In order, and what each one means."""
STAGES: Final[tuple[Stage, ...]] = tuple(WORDS)
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


def height(stage: Stage) -> int:
    """Its place: 0 is simulate."""
    return STAGES.index(stage)


def below(stage: Stage) -> Stage:
    """One stage back."""
    return STAGES[max(height(stage) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Who:
    """By whose signatures, how many, within how long, a step up stands."""

    approvers: tuple[Approver, ...]
    needs: int
    within_s: float

    @classmethod
    def of(cls, policy: Policy, approvers: tuple[Approver, ...]) -> Self:
        """As this policy says."""
        return cls(approvers, max(1, policy.promotion_approvals), policy.approval_s)


@dataclass(slots=True, order=True)
class Step:
    """One record, when it was first said (broker's time, us), and who signed it when."""

    at_us: int
    record: Promoted = field(compare=False)
    words: list[tuple[int, Signed]] = field(default_factory=list, compare=False)
    said_us: int = field(default=0, compare=False)  # when last
    closed: bool = field(default=False, compare=False)  # nobody's word counts for it any more: it only lowers

    def signed(self, who: Who) -> tuple[str, ...]:
        """Who of them did, in time."""
        ends_us = self.at_us + int(who.within_s * 1e6)
        return approval.people((word for at_us, word in self.words if at_us <= ends_us), who.approvers)

    def counted(self, who: Who) -> tuple[Signed, ...]:
        """The words that make it stand, one of each person: what came too late must not count when it is said again."""
        ends_us = self.at_us + int(who.within_s * 1e6)
        words = [word for at_us, word in self.words if at_us <= ends_us and word.yes]
        return tuple({word.person: word for word in words if approval.is_genuine(word, who.approvers)}.values())

    def needs(self, who: Who) -> int:
        """How many must sign it; 0: nobody can, it only lowers."""
        return who.needs if self.record.asked_us else 0

    def is_copy(self, who: Who) -> bool:
        """Whether an old step was written again: its signatures were for then."""
        return abs(self.at_us - self.record.asked_us) > who.within_s * 1e6

    def raises(self, who: Who) -> bool:
        """Whether it counts though it is above what holds: signed by enough people and declined by none."""
        needs = self.needs(who)
        if self.closed or not needs or self.is_copy(who):
            return False
        return not self.is_declined(who) and len(self.signed(who)) >= needs

    def is_declined(self, who: Who) -> bool:
        """Whether one of them said no, at any time: that is final."""
        return any(not word.yes and approval.is_genuine(word, who.approvers) for _, word in self.words)


@dataclass(slots=True)
class Promotions:
    """The steps that may still count, the oldest first."""

    steps: list[Step] = field(default_factory=list)
    _heard: dict[str, None] = field(default_factory=dict)  # tickets: what is written twice by a retry counts once

    @property
    def tickets(self) -> set[str]:
        """Of what may be signed."""
        return {step.record.ticket for step in self.steps if step.record.asked_us and not step.closed}

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
        """A person's word on a step up; what came of it, "" where it is about something else."""
        steps = [step for step in self.steps if step.record.ticket == word.ticket and word.ticket in self.tickets]
        for step in steps:
            step.words.append((now_us, word))
        said = f"{'signed' if word.yes else 'declined'} by {word.person}"
        return f"{said}; it stands once enough approvers have signed, and none declined" if steps else ""

    def holding(self, who: Who) -> Step | None:
        """The one in force; None: nothing was earned."""
        return next(reversed(self._held(who)), None)

    def _held(self, who: Who) -> list[Step]:
        """Those that came into force, one after the other."""
        held: list[Step] = []
        for step in self.steps:
            if step.raises(who) or _height(step) < (_height(held[-1]) if held else 1):
                held.append(step)
        return held

    def stage(self, who: Who) -> Stage:
        """Up to where acts happen by themselves."""
        step = self.holding(who)
        return step.record.to if step else "simulate"

    def waiting(self, who: Who, now_us: int) -> list[Step]:
        """What can still be signed."""
        after = [step for step in self.steps if now_us <= step.at_us + int(who.within_s * 1e6) and not step.closed]
        able = [step for step in after if step.needs(who) and not step.is_copy(who) and not step.is_declined(who)]
        return [step for step in able if not step.raises(who)]

    def refuses(self, wanted: Proposed) -> str:
        """Why this act, which nobody approved, is above what was earned; "" if it is not, or needn't be earned."""
        if not wanted.promotion_required or wanted.simulated or wanted.approvals:
            return ""
        stage = self.stage(Who(wanted.approvers, max(1, wanted.promotion_approvals), wanted.approval_s))
        if wanted.rung in earned(stage, wanted.cap == "proof"):
            return ""
        has = "nothing is earned yet" if stage == "simulate" else f"what is earned is {stage}"
        return f"{wanted.rung} by itself was not earned, {has}: `keywatch respond promotion` says what is missing"

    def again(self, who: Who, now_us: int, every_us: int) -> list[Promoted]:
        """What came into force, once it was last said so long ago; not the newest alone, which may still be declined.

        What lowers to simulate is said for ever: nothing older, whoever signed it, can then be brought back.
        """
        return [
            msgspec.structs.replace(step.record, again=True, at_us=step.at_us, words=step.counted(who))
            for step in self._held(who)
            if now_us >= step.said_us + every_us
        ]

    def _forget(self) -> None:
        """Nothing before a step to simulate counts. Of too many the oldest lose their words, which never raises."""
        zero = max((number for number, step in enumerate(self.steps) if _height(step) == 0), default=0)
        self.steps = self.steps[zero:]
        while len(self.steps) > MOST_STEPS:
            loud = sorted((step for step in self.steps if not step.closed), key=lambda step: bool(step.words))
            for step in loud[: len(self.steps) - MOST_STEPS]:
                step.closed = True
            self.steps = _merged(self.steps)


def _merged(steps: list[Step]) -> list[Step]:
    """Steps side by side that only lower are one: as low as the lowest, as late as the last."""
    kept: list[Step] = []
    for step in steps:
        if kept and kept[-1].closed and step.closed:
            lowest = min(step, kept[-1], key=_height)
            kept[-1] = replace(lowest, at_us=step.at_us, said_us=min(step.said_us, kept[-1].said_us))
        else:
            kept.append(step)
    return kept


def _height(step: Step) -> int:
    return height(step.record.to)
