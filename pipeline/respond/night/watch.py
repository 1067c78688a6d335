"""Is anybody watching? Workers' lag as Kafka knows it: end offsets of the requests against the group's commits.

The responder may not read requests (they hold addresses of callers), so how old the oldest unjudged one is, is known
from what the end offsets were at earlier looks: a record that was there at a look and is not yet committed is at least
as old as that look. That never calls something late that is not; after a restart of the responder it takes one
`blind_after_s` longer. A group without members is blind, too, even if nothing comes just now; and so are we if Kafka
doesn't answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from pipeline.config.tree import Kafka
from pipeline.respond.ledger.entries import Record
from pipeline.respond.night.records import Protection

MAX_LOOKS: Final = 6000  # of one partition: a day at four a minute


@dataclass(frozen=True, slots=True)
class Look:
    """What Kafka said: end offsets, commits (None: the group never committed there), members of the group."""

    ends: Mapping[int, int]
    commits: Mapping[int, int | None]
    members: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Since when nobody judges (0: not so), and why. `well` only if it is seen to be: a new watcher knows nothing."""

    since_s: float
    why: str
    well: bool


class Eyes(Protocol):
    """Looks at the requests topic and the workers' group."""

    async def look(self) -> Look:
        """Raises Fatal, Retry or OSError where Kafka doesn't answer."""


@dataclass(slots=True)
class Sight:
    """What was seen before; all times are Unix seconds."""

    blind_after_s: float
    looks: dict[int, deque[tuple[float, int]]] = field(default_factory=dict)  # partition -> (when, end), rising
    first: dict[int, int] = field(default_factory=dict)  # end offsets at the first look
    alone_since_s: float = 0.0
    silent_since_s: float = 0.0

    def take(self, look: Look | None, now_s: float) -> Seen:
        """What this look says. `look` is None if Kafka didn't answer."""
        if look is None:
            self.silent_since_s = self.silent_since_s or now_s
            return self._judged([(self.silent_since_s, "Kafka does not answer")], now_s, caught_up=False)
        self.silent_since_s = 0.0
        self.alone_since_s = 0.0 if look.members else self.alone_since_s or now_s
        reasons = [(self.alone_since_s, "no worker is running")] if self.alone_since_s else []
        caught_up = True
        for partition, end in look.ends.items():
            commit = look.commits.get(partition) or 0
            if end < self.first.setdefault(partition, end):  # a topic made anew
                self.first[partition] = end
                self.looks.pop(partition, None)
            caught_up &= commit >= self.first[partition]
            if since_s := self._waiting_since(partition, end, commit, now_s):
                reasons.append((since_s, f"partition {partition} of the requests waits to be judged"))
        return self._judged(reasons, now_s, caught_up)

    def _judged(self, reasons: list[tuple[float, str]], now_s: float, caught_up: bool) -> Seen:
        since_s, why = min(reasons, default=(now_s, ""))
        if now_s - since_s >= self.blind_after_s:
            return Seen(since_s, why, well=False)
        return Seen(0.0, "", well=caught_up and now_s - since_s <= self.blind_after_s / 2)

    def _waiting_since(self, partition: int, end: int, commit: int, now_s: float) -> float:
        looks = self.looks.setdefault(partition, deque(maxlen=MAX_LOOKS))
        if not looks or end > looks[-1][1]:
            looks.append((now_s, end))
        while looks and looks[0][1] <= commit:
            looks.popleft()
        return looks[0][0] if looks else 0.0


@dataclass(slots=True)
class ProtectionBook:
    """What the topic says: the newest word on whether Keywatch sees."""

    last: Protection | None = None

    def apply(self, record: Record | None) -> None:
        """Take the next record of the topic, in order."""
        if isinstance(record, Protection):
            self.last = record

    @property
    def lost(self) -> Protection | None:
        """The loss that goes on, if one does."""
        return self.last if self.last and self.last.lost else None

    def change(self, seen: Seen) -> Protection | None:
        """The record to write for what was just seen; None where it says nothing new."""
        lost = self.lost
        if seen.since_s and lost is None:
            return Protection(lost=True, since_us=int(seen.since_s * 1e6), why=seen.why)
        if seen.well and lost is not None:
            return Protection(lost=False, since_us=lost.since_us, why=lost.why)
        return None

    def due(self, told: frozenset[str]) -> str:
        """The step to tell, "" for none. An end is told only of what was told to have begun."""
        if self.last is None:
            return ""
        begun = f"lost:{self.last.since_us}"
        if self.last.lost:
            return "" if begun in told else begun
        over = f"restored:{self.last.since_us}"
        return over if begun in told and over not in told else ""


class KafkaEyes:
    """Asks the brokers; needs Describe on the topic and the group, and reads no record."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._kafka, self._topic = kafka, topic

    async def look(self) -> Look:
        """Clients of their own each time: a look is every 15 s."""
        from aiokafka import TopicPartition

        from pipeline.sinks.group import committed_offsets, group_members
        from pipeline.sinks.kafka import side_consumer
        from pipeline.sinks.topics import partitions_of

        commits = await committed_offsets(self._kafka, self._topic)
        members = await group_members(self._kafka)
        count = (await partitions_of(self._kafka, [self._topic])).get(self._topic, 0)
        wanted = [TopicPartition(self._topic, number) for number in range(count)]
        async with side_consumer(self._kafka) as consumer:
            ends = await consumer.end_offsets(wanted)
        return Look({tp.partition: int(end) for tp, end in ends.items()}, commits, members)
