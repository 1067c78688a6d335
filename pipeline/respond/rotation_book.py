"""Which rotations were said to be near their deadline, or past it: each once in seven days."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pipeline.respond.entries import Record
from pipeline.respond.night_records import RotationSeen

TOLD_KEPT_US: Final = 7 * 86_400_000_000


@dataclass(slots=True)
class RotationBook:
    """Rotations near or past their deadline, as said within the last 7 days: told again after that, if still so."""

    seen: dict[tuple[str, int, str], tuple[int, RotationSeen]] = field(default_factory=dict)  # old, deadline, state

    def apply(self, at_us: int, record: Record | None) -> None:
        """Take the next record, with the broker's time. Forgotten before `Books` forgets that it was told."""
        if self.seen:
            self.seen = {name: each for name, each in self.seen.items() if at_us - each[0] <= TOLD_KEPT_US}
        if isinstance(record, RotationSeen):
            self.seen[record.old, record.deadline_us, record.state] = at_us, record

    def is_news(self, record: RotationSeen, now_us: int) -> bool:
        """Whether it is to be said."""
        last = self.seen.get((record.old, record.deadline_us, record.state))
        return last is None or now_us - last[0] > TOLD_KEPT_US
