"""Rotations that were said to be near their deadline, or past it (each once in six days), and that they are over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.keys.catalogue import Catalogue
from pipeline.keys.rotations import Rotation
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.entries import Record
from pipeline.respond.night.records import RotationOver, RotationSeen
from pipeline.times import rfc3339

TOLD_KEPT_US: Final = 7 * 86_400_000_000
AGAIN_US: Final = 6 * 86_400_000_000  # before it is forgotten: what is not known to be told is never told to be over


@dataclass(frozen=True, slots=True)
class Over:
    """The end of what was told in `steps`, as said on the topic at `at_us`."""

    at_us: int
    record: RotationOver
    steps: frozenset[str]

    @property
    def step(self) -> str:
        """Of its message."""
        return f"over:{self.at_us}"


@dataclass(slots=True)
class RotationBook:
    """As said within the last 7 days."""

    seen: dict[tuple[str, int, str], tuple[int, RotationSeen]] = field(default_factory=dict)  # old, deadline, state
    over: dict[tuple[str, int], Over] = field(default_factory=dict)  # old, deadline

    def apply(self, at_us: int, record: Record | None) -> None:
        """Take the next record, with the broker's time. Forgotten before `Books` forgets that it was told."""
        if self.seen:
            self.seen = {name: each for name, each in self.seen.items() if at_us - each[0] <= TOLD_KEPT_US}
        if self.over:
            self.over = {name: each for name, each in self.over.items() if at_us - each.at_us <= TOLD_KEPT_US}
        if isinstance(record, RotationSeen):
            self.over.pop((record.old, record.deadline_us), None)  # it is so again
            self.seen[record.old, record.deadline_us, record.state] = at_us, record
        elif isinstance(record, RotationOver):
            ended = [name for name in self.seen if name[:2] == (record.old, record.deadline_us)]
            steps = frozenset(step_of(*self.seen.pop(name)) for name in ended)
            if steps:
                self.over[record.old, record.deadline_us] = Over(at_us, record, steps)

    def is_news(self, record: RotationSeen, now_us: int) -> bool:
        """Whether it is to be said."""
        last = self.seen.get((record.old, record.deadline_us, record.state))
        return last is None or now_us - last[0] > AGAIN_US

    def ended(
        self, acts: Iterable[Act], catalogue: Catalogue | None, rows: Mapping[str, Rotation] | None = None
    ) -> list[RotationOver]:
        """What of it is over, as far as is known: None is not known. `rows`: all rotations as ClickHouse has them."""
        real, found = [act for act in acts if not act.proposal.simulated], dict[tuple[str, int], RotationOver]()
        for at_us, seen in self.seen.values():
            ours = any(act.overlaps and act.proposal.key_id == seen.old for act in real)
            why = _by_acts(seen, at_us, real)
            if not why and catalogue is not None:
                why = _by_rows(seen, catalogue, None if ours else rows)  # ours ends by what we do
            if why:
                over = RotationOver(old=seen.old, new=seen.new, deadline_us=seen.deadline_us, why=why)
                found.setdefault((seen.old, seen.deadline_us), over)
        return list(found.values())


def step_of(at_us: int, seen: RotationSeen) -> str:
    """Of its message."""
    return f"{seen.state}:{at_us}"


def _by_acts(seen: RotationSeen, at_us: int, acts: list[Act]) -> str:
    """What Keywatch itself did since it was said."""
    for act in acts:
        of = act.proposal
        if of.key_id != seen.old:
            continue
        if act.revoked and max(act.at_us, act.done_us) >= at_us:
            return "the old key is revoked"
        if of.rung == "rotate" and act.new_key_id == seen.new:
            if act.stage == "undone":
                return f"{act.ended_by} undid it, and the old key lives on"
            if act.overlaps and act.until_us not in (0, seen.deadline_us):  # 0: it has none of its own
                by = f" by {act.extended.by}: {act.extended.reason}" if act.extended else ""
                return f"its end was put off to {rfc3339(act.until_us)}{by}"
    return ""


def _by_rows(seen: RotationSeen, catalogue: Catalogue, rows: Mapping[str, Rotation] | None) -> str:
    """What the catalogue and the requests say."""
    key = catalogue.get(seen.old)
    if key is None:
        return "the catalogue has the old key no more"
    if key.status not in ("active", "suspended"):
        return f"the old key is declared {key.status}"
    if rows is None:
        return ""
    row = rows.get(seen.old)
    if row is None:
        return "" if key.status == "suspended" else "nobody declares it any more"
    if row.deadline_us != seen.deadline_us:
        return f"its end is another one now: {rfc3339(row.deadline_us)}" if row.deadline_us else ""
    return f"its traffic has moved: {row.drain.reason}" if row.state == "drained" and seen.state != "held" else ""
