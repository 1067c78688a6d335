"""Drills: a decoy of our own is abused through the real gateway, and what should follow must follow in time.

Nothing else tests the whole way at once: gateway log, broker, worker, responder. A drill is a record on the decisions
topic before its first request; what the responders then see of that key decides it (pure, from the ordered topic).
Absent detection, or act where one is asked for, pages; so does a drill that never came (the metric's age, by rule):
when the newest one passed is said again before the topic forgets it, or the rule would take it for "none was ever run".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from pipeline.respond.ledger.entries import Finished, Promoted, Proposed, Record, Signed
from pipeline.respond.night.records import CaseSeen, DrillEnded, DrillStarted
from pipeline.respond.promotion.earned import Promotions

MAX_DRILLS: Final = 100
SKEW_US: Final = 5_000_000  # an event's time is the gateway's, the drill's is the broker's


@dataclass(slots=True)
class Drill:
    """One drill; times are the broker's, in us, 0 is not yet."""

    started: DrillStarted
    started_us: int
    seen_us: int = 0
    acted_us: int = 0
    ended: DrillEnded | None = None

    @property
    def needs(self) -> str:
        """What is still missing, "" for nothing."""
        if not self.seen_us:
            return "detection"
        return "an act" if self.started.act and not self.acted_us else ""

    @property
    def took_s(self) -> float:
        """From its start to the last thing that it needed."""
        return (max(self.seen_us, self.acted_us if self.started.act else 0) - self.started_us) / 1e6

    def verdict(self, now_us: int) -> DrillEnded | None:
        """How it ends now; None while it goes on or after it has ended."""
        if self.ended:
            return None
        limit_s = self.started.limit_s
        if not self.needs and self.took_s <= limit_s:
            words = f"seen after {(self.seen_us - self.started_us) / 1e6:.1f} s"
            words += f", acted on after {(self.acted_us - self.started_us) / 1e6:.1f} s" if self.acted_us else ""
            return DrillEnded(drill_id=self.started.drill_id, passed=True, words=words)
        if now_us - self.started_us > limit_s * 1e6:
            missing = self.needs or "speed"
            words = f"{missing} is missing: the decoy {self.started.key_id} was used {limit_s:.0f} s ago"
            return DrillEnded(drill_id=self.started.drill_id, passed=False, words=words)
        return None


@dataclass(slots=True)
class DrillBook:
    """The last drills, the oldest first."""

    drills: dict[str, Drill] = field(default_factory=dict)
    last_passed_us: int = 0  # when the newest drill that passed began; 0 for none
    _passed: DrillEnded | None = None
    _said_us: int = 0  # when that was last said
    _acts: dict[str, str] = field(default_factory=dict)  # act id -> key, of keys under drill
    _promotions: Promotions = field(default_factory=Promotions)  # where a stage must be earned: which one is

    def apply(self, at_us: int, record: Record | None) -> None:
        """Take the next record of the topic, in order, with the broker's time."""
        match record:
            case DrillStarted():
                self.drills.setdefault(record.drill_id, Drill(record, at_us))
                while len(self.drills) > MAX_DRILLS:
                    del self.drills[next(iter(self.drills))]
            case DrillEnded():
                self._end(at_us, record)
            case CaseSeen():
                for drill in self._of(record.key_id):
                    if not drill.seen_us and not record.closed and record.at_us >= drill.started_us - SKEW_US:
                        drill.seen_us = at_us
            case Promoted():
                self._promotions.apply(record, at_us)
            case Signed():
                self._promotions.hear(record, at_us)
            case Proposed():
                for drill in self._of(record.key_id):
                    self._acts[record.act_id] = record.key_id
                    if record.simulated or self._promotions.refuses(record):  # as much as there can be
                        drill.acted_us = drill.acted_us or at_us
            case Finished():
                if record.result == "done":
                    for drill in self._of(self._acts.pop(record.act_id, "")):
                        drill.acted_us = drill.acted_us or at_us

    def _of(self, key_id: str) -> list[Drill]:
        return [drill for drill in self.drills.values() if drill.started.key_id == key_id and not drill.ended]

    def again(self, now_us: int, every_us: int) -> DrillEnded | None:
        """The newest one that passed, once it was last said so long ago."""
        if self._passed is None or now_us < self._said_us + every_us:
            return None
        return msgspec.structs.replace(self._passed, began_us=self.last_passed_us)

    def _end(self, at_us: int, record: DrillEnded) -> None:
        drill, began_us = self.drills.get(record.drill_id), record.began_us
        if drill and not drill.ended and not began_us:
            drill.ended, began_us = record, drill.started_us
        if record.passed and began_us >= max(self.last_passed_us, 1):
            self.last_passed_us, self._passed, self._said_us = began_us, record, at_us
