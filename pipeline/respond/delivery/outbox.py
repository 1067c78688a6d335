"""Messages that could not be delivered yet, as `api.decisions` tells of them: they outlive the process.

A delivery goes on that topic only once its first attempt has failed (or its endpoint takes none just now), with its
body; each further attempt adds a small record, the last one settles it. So the incident's own offset can be committed
as soon as every endpoint has either taken its message or handed it over here, a dead endpoint stalls nothing, and a
restart goes on with the schedule where it was. Who owns the incident's partition retries its deliveries. The
schedule's span (75 h) must fit into the topic's retention (28 days, `sinks/topics.py`).

What was given up is a dead letter for 7 days, and can be sent again; which endpoints are disabled
stands here, too, and is said again every few days (`restated`), since a restart must know it after a month as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pipeline.respond.ledger.entries import HandedOver, Record, Settled
from pipeline.respond.night.records import EndpointSwitched, Resent

MAX_DEAD: Final = 1000  # the newest; 20 kB each
RESTATE_US: Final = 86_400_000_000  # well within the topic's retention
DEAD_US: Final = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, with its body, why, and when (the broker's time)."""

    record: HandedOver
    why: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that gets nothing: since when, when that was said last, why."""

    since_us: int
    said_us: int
    why: str
    by: str


@dataclass(slots=True)
class Outbox:
    """All pending deliveries of all partitions: (endpoint, message id) -> the newest record, with its body."""

    pending: dict[tuple[str, str], HandedOver] = field(default_factory=dict)
    dead: dict[tuple[str, str], DeadLetter] = field(default_factory=dict)
    disabled: dict[str, Disabled] = field(default_factory=dict)

    def apply(self, record: Record | None, at_us: int = 0) -> None:
        """Take the next record of the topic, in order, with the broker's time."""
        while self.dead and (old := next(iter(self.dead))) and at_us - self.dead[old].at_us > DEAD_US:
            del self.dead[old]
        match record:
            case HandedOver():
                name = (record.endpoint, record.message_id)
                before = self.pending.get(name)
                body = record.body or (before.body if before else "")
                if body:  # an update whose first record retention has removed is nothing that could be sent
                    self.pending[name] = msgspec.structs.replace(record, body=body)
            case Settled():
                self._settle(record, at_us)
            case Resent():
                if letter := self.dead.pop((record.endpoint, record.message_id), None):
                    again = msgspec.structs.replace(letter.record, attempts=0, next_at_us=at_us)
                    self.pending[record.endpoint, record.message_id] = again
            case EndpointSwitched():
                self._switch(record, at_us)

    def _settle(self, record: Settled, at_us: int) -> None:
        name = (record.endpoint, record.message_id)
        last = self.pending.pop(name, None)
        if last and not record.delivered:
            self.dead[name] = DeadLetter(last, record.why, at_us)
            while len(self.dead) > MAX_DEAD:
                del self.dead[next(iter(self.dead))]

    def _switch(self, record: EndpointSwitched, at_us: int) -> None:
        if not record.disabled:
            self.disabled.pop(record.endpoint, None)
            return
        before = self.disabled.get(record.endpoint)
        since_us = before.since_us if before else at_us
        self.disabled[record.endpoint] = Disabled(since_us, at_us, record.why, record.by)

    def of(self, partitions: Iterable[int]) -> list[HandedOver]:
        """What is pending for incidents of these partitions, in the order in which it was handed over.

        What belongs to no partition (-1) is its owner's who has the first.
        """
        wanted = set(partitions)
        return [each for each in self.pending.values() if max(each.partition, 0) in wanted]

    def restated(self, now_us: int) -> list[EndpointSwitched]:
        """What must be said again, or retention would forget it."""
        return [
            EndpointSwitched(endpoint=name, disabled=True, by=each.by, why=each.why)
            for name, each in self.disabled.items()
            if now_us - each.said_us > RESTATE_US
        ]
