"""How many different keys were acted on within an hour and a day, and whether one more may be.

Proofs, fences and flags are counted by themselves; what people approved is counted apart and fills nobody's cap. A
failed act counts: whether the target did it is not known. Unknown numbers are no room at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pipeline.config.policy import Approver, Caps
from pipeline.respond import approval
from pipeline.respond.ledger.entries import Proposed, Raised, Signed

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
APPROVED: Final = "approved"
ROTATION: Final = "rotation"
"""Of keys whose traffic has moved: a quarter's rotations leave room for a leaked key."""
TWO: Final = 2  # people, to raise a cap
MAX_RAISE_US: Final = DAY_US


@dataclass(frozen=True, slots=True)
class Granted:
    """One grant."""

    at_us: int
    simulated: bool
    key_id: str
    cap: str
    owner: str


@dataclass(slots=True)
class Raise:
    """A raise on the topic and who signed it."""

    raised: Raised
    at_us: int
    words: list[Signed] = field(default_factory=list)

    def hear(self, word: Signed) -> str:
        """Take what a person said; what that means, whose word it is is seen later."""
        self.words.append(word)
        return "signed; it takes two approvers" if word.yes else "an approver's no ends it"

    @property
    def until_us(self) -> int:
        """When it is over."""
        return min(self.raised.until_us, self.at_us + MAX_RAISE_US)

    def signed(self, approvers: tuple[Approver, ...]) -> tuple[str, ...]:
        """Who of them said yes."""
        return approval.people(self.words, approvers)

    def declined(self, approvers: tuple[Approver, ...]) -> bool:
        """Whether one of them said no: that ends it, granted or not."""
        return any(not word.yes and approval.is_genuine(word, approvers) for word in self.words)

    def waits(self, approvers: tuple[Approver, ...], now_us: int) -> bool:
        """For one more of them."""
        open_ = now_us < self.until_us and not self.declined(approvers)
        return open_ and len(self.signed(approvers)) < TWO

    def caps(self, wanted: Proposed, now_us: int) -> Caps | None:
        """What it allows to this proposal, if two of its approvers signed, none declined and its time is not over."""
        if self.raised.cap != wanted.cap or now_us >= self.until_us or self.declined(wanted.approvers):
            return None
        if len(self.signed(wanted.approvers)) < TWO:
            return None
        raised = self.raised
        return Caps(
            max_per_hour=raised.max_per_hour, max_per_day=raised.max_per_day,
            max_share_of_active=raised.max_share_of_active,
        )  # fmt: skip


@dataclass(slots=True)
class Counts:
    """What was granted within the last day, oldest first."""

    granted: list[Granted] = field(default_factory=list)
    limits: dict[tuple[bool, str], tuple[int, int]] = field(default_factory=dict)  # (simulated, cap): an hour, a day

    def add(self, wanted: Proposed, now_us: int, cap: str) -> None:
        """One more."""
        self.granted.append(Granted(now_us, wanted.simulated, wanted.key_id, cap, wanted.owner))

    def forget(self, now_us: int) -> None:
        """What is older than a day."""
        while self.granted and self.granted[0].at_us <= now_us - DAY_US:
            self.granted.pop(0)

    def keys(self, now_us: int, span_us: int, simulated: bool, cap: str) -> set[str]:
        """Different keys within the span."""
        return {each.key_id for each in self._within(now_us, span_us, simulated, cap)}

    def over(self, wanted: Proposed, now_us: int, raises: Iterable[Caps]) -> str:
        """Why this one is too many; "" if it is not."""
        caps = _widest(wanted, raises)
        share = share_of(wanted.active_keys, caps.max_share_of_active)
        limits = min(caps.max_per_hour, share), min(caps.max_per_day, share)
        self.limits[wanted.simulated, wanted.cap] = limits
        for span_us, cap, word in ((HOUR_US, caps.max_per_hour, "hour"), (DAY_US, caps.max_per_day, "day")):
            keys = self.keys(now_us, span_us, wanted.simulated, wanted.cap)
            limit = min(cap, share)
            if wanted.key_id not in keys and len(keys) >= limit:
                return _reason(len(keys), limit, word, cap, share, wanted)
        return self._over_owner(wanted, now_us)

    def ratios(self, now_us: int, simulated: bool) -> Iterator[tuple[str, str, float]]:
        """(cap, hour or day, keys used over keys allowed) of each cap that was asked; 1 where nothing is allowed."""
        for (kind, cap), limits in self.limits.items():
            for limit, span_us, word in zip(limits, (HOUR_US, DAY_US), ("hour", "day"), strict=True):
                if kind == simulated:
                    yield cap, word, len(self.keys(now_us, span_us, simulated, cap)) / limit if limit else 1.0

    def _over_owner(self, wanted: Proposed, now_us: int) -> str:
        recent = self._within(now_us, HOUR_US, wanted.simulated, wanted.cap)
        keys = {each.key_id for each in recent if each.owner == wanted.owner}
        if not wanted.max_per_owner or wanted.key_id in keys or len(keys) < wanted.max_per_owner:
            return ""
        return (
            f"{len(keys)} keys of owner {wanted.owner or 'not known'} within the hour, at most {wanted.max_per_owner}"
        )

    def _within(self, now_us: int, span_us: int, simulated: bool, cap: str) -> Iterator[Granted]:
        start = now_us - span_us
        return (g for g in self.granted if g.at_us > start and g.simulated == simulated and g.cap == cap)


def share_of(active_keys: int, share: float) -> int:
    """Whole keys in a share of the active ones, rounded down; 0 where either is not known or nonsense."""
    return int(active_keys * share + 1e-9) if active_keys > 0 and 0.0 < share <= 1.0 else 0


def _widest(wanted: Proposed, raises: Iterable[Caps]) -> Caps:
    own = Caps(
        max_per_hour=wanted.max_per_hour, max_per_day=wanted.max_per_day,
        max_share_of_active=wanted.max_share_of_active,
    )  # fmt: skip
    all_of_them = [own, *raises]
    return Caps(
        max_per_hour=max(each.max_per_hour for each in all_of_them),
        max_per_day=max(each.max_per_day for each in all_of_them),
        max_share_of_active=max(each.max_share_of_active for each in all_of_them),
    )


def _reason(used: int, limit: int, word: str, cap: int, share: int, wanted: Proposed) -> str:
    active = wanted.active_keys
    known = f"{share} by share of {active} active keys" if active > 0 else "0, as the active keys are not known"
    of = "" if wanted.cap == "usual" else f" ({wanted.cap})"
    return f"{used} keys acted on within the {word}{of}, at most {limit} ({cap} by number, {known})"
