"""By what is judged, and when that last changed: the builds of the worker's incidents, and the responders' policy.

A build is a configuration with the version of the product (`config_version`) and a geo database. Each partition tells
of its own with its first incident after a deploy, so what is new is asked of all of them together:

- the first one ever is no change, nor is a partition that comes with what the others have;
- another one than the fleet's is a turn: a deploy, or the way back from it. It is the fleet's from then on;
- who follows within an hour of a turn is of the same roll-out, whose end counts; who follows later only had nothing to
  say before;
- two that take turns for ever (workers that disagree, partitions that go to and fro) count `MOST_TURNS` times, then no
  more until there was no turn for an hour, or a build comes that was not among them. Else nothing would ever act.

A policy is told by each responder that starts with another one, and is judged in the same way. Pure, by the broker's
clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pipeline.respond.ledger.entries import Build

ROLL_OUT_US: Final = 3600 * 1_000_000
MOST_TURNS: Final = 4

Named = tuple[str, ...]


@dataclass(slots=True)
class Turns:
    """Which one is in force everywhere, and when it last came to be so somewhere. Times in us; 0 is never."""

    current: Named | None = None
    changed_us: int = 0
    counted_us: int = 0  # the last turn that counted
    turned_us: int = 0  # the last one at all
    turns: int = 0
    among: set[Named] = field(default_factory=set)  # that took turns

    def hear(self, named: Named, now_us: int) -> None:
        """Somewhere it is this one from now on."""
        if self.current is None:
            self.current = named
        elif named != self.current:
            self._turn(self.current, named, now_us)
        elif self.turns and now_us - self.counted_us <= ROLL_OUT_US:
            self.changed_us = now_us

    def _turn(self, before: Named, named: Named, now_us: int) -> None:
        if now_us - self.turned_us > ROLL_OUT_US:
            self.turns, self.among = 0, {before}
        elif named not in self.among:
            self.turns = 0
        self.among.add(named)
        self.current, self.turned_us, self.turns = named, now_us, self.turns + 1
        if self.turns <= MOST_TURNS:
            self.changed_us = self.counted_us = now_us

    def recall(self, named: Named, changed_us: int) -> None:
        """So it was before what has been heard here."""
        self.changed_us = max(self.changed_us, changed_us)
        if any(named) and not self.turns:
            self.current = named


@dataclass(slots=True)
class Builds:
    """Equal records in equal order give equal times."""

    at: dict[int, tuple[str, str]] = field(default_factory=dict)  # by partition
    fleet: Turns = field(default_factory=Turns)
    policy: Turns = field(default_factory=Turns)
    said_us: int = 0  # when the oldest of all this was last said

    @property
    def changed_us(self) -> int:
        """When anything by which is judged last changed; 0 is never."""
        return max(self.fleet.changed_us, self.policy.changed_us)

    def apply(self, record: Build, now_us: int) -> None:
        """Take the next record, with the broker's time."""
        self.said_us = self.said_us or now_us
        if record.again:
            self._recall(record, now_us)
        elif record.policy_version:
            self.policy.hear((record.policy_version,), now_us)
        elif self.at.get(record.partition) != (now := (record.config_version, record.geo_build)):
            self.at[record.partition] = now
            self.fleet.hear(now, now_us)

    def again(self, now_us: int, every_us: int) -> Build | None:
        """All of it in one record, once some of it is so old."""
        if not self.said_us or now_us < self.said_us + every_us:
            return None
        config, geo = self.fleet.current or ("", "")
        (policy,) = self.policy.current or ("",)
        return Build(
            partition=-1, config_version=config, geo_build=geo, policy_version=policy, again=True,
            changed_us=self.fleet.changed_us, policy_changed_us=self.policy.changed_us,
            partitions=tuple((partition, *named) for partition, named in sorted(self.at.items())),
        )  # fmt: skip

    def _recall(self, record: Build, now_us: int) -> None:
        for partition, config, geo in record.partitions:
            self.at.setdefault(partition, (config, geo))
        self.fleet.recall((record.config_version, record.geo_build), record.changed_us)
        self.policy.recall((record.policy_version,), record.policy_changed_us)
        self.said_us = now_us
