"""A broker in memory: topics of one partition, a clock of its own, and a fuse that kills the process at any write.

`test_log_contract.py` holds it to what the Kafka producer and reader do.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import Retry
from pipeline.ports import Headers
from pipeline.respond.audit import Positioned
from tests.pipeline.respond.incidents import NOW_S


class Killed(Exception):
    """The process is gone: kill -9."""


@dataclass
class Fuse:
    """Kills the process at its n-th effect, before it takes place or right after; then nothing works any more."""

    at: int = -1
    after: bool = False
    count: int = 0  # effects that began; several may be under way together
    ended: int = 0
    burnt: bool = False

    def before_effect(self) -> None:
        if self.burnt or (self.count == self.at and not self.after):
            self.burnt = True
            raise Killed
        self.count += 1

    def after_effect(self) -> None:
        self.burnt = self.burnt or (self.ended == self.at and self.after)
        self.ended += 1
        if self.burnt:
            raise Killed


@dataclass
class MemoryLog:
    """What outlives processes."""

    topics: dict[str, list[Positioned]] = field(default_factory=lambda: defaultdict(list))
    now_us: int = int(NOW_S * 1e6)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, topic: str, key: bytes, value: bytes) -> int:
        records = self.topics[topic]
        records.append(Positioned(0, len(records), self.now_us, key, value))
        self.moved.set()
        return len(records) - 1

    def values(self, topic: str) -> list[bytes]:
        return [record.value or b"" for record in self.topics[topic]]


@dataclass
class MemoryPublisher:
    """One process' `Publisher`. `lost` acknowledgements: so many writes take place and raise `Retry` all the same."""

    log: MemoryLog
    fuse: Fuse = field(default_factory=Fuse)
    lost: int = 0

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        self.fuse.before_effect()
        offset = self.log.append(topic, key, value)
        await asyncio.sleep(0)
        self.fuse.after_effect()
        if self.lost:
            self.lost -= 1
            raise Retry("the acknowledgement was lost")
        return offset


@dataclass
class MemoryReader:
    """One process' `LogReader`, from the start."""

    log: MemoryLog
    topic: str
    at: int = 0

    async def read(self) -> Sequence[Positioned]:
        while self.at >= len(self.log.topics[self.topic]):
            self.log.moved.clear()
            await self.log.moved.wait()
        records = self.log.topics[self.topic][self.at :]
        self.at += len(records)
        return records
