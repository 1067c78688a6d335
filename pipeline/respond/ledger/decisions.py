"""The topic `api.decisions` as every responder keeps it: read from its start, written to, and read back.

Nothing is believed of a write before it is read back through the ledger, in the topic's order. "Read everything" is
known without asking for end offsets (some brokers answer them wrongly): we write a mark and read until it comes. Who
only reads asks where the topic ends, once (`sinks/kafka.fetched_highwaters`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pipeline.errors import Fatal, Retry
from pipeline.ports import Headers, Publisher
from pipeline.respond.audit import Positioned
from pipeline.respond.delivery.outbox import Outbox
from pipeline.respond.ledger import ledger
from pipeline.respond.ledger.entries import Joined, Record, decode, encode, unread
from pipeline.respond.ledger.ledger import Ledger, Verdict
from pipeline.tasks import cancel_all

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
POLL_S: Final = 0.05
SAME_S: Final = 5.0
"""How often the broker is asked whether the topic is still the one that was read from its start."""
AT_NEXT: Final = "At the next start it is read from its start"

Follower = Callable[[int, Record | None], None]
"""Told of every record in order, with the broker's time in us."""


class LogReader(Protocol):
    """A topic's only partition from its start on."""

    async def read(self) -> Sequence[Positioned]:
        """The next records in order, without an end: waits for some, may return none. Raises `Retry` or `Fatal`."""


class ReadsOnly:
    """The publisher of who does not write."""

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        """Raises `Fatal`."""
        raise Fatal(f"this desk only reads {topic}")


@dataclass
class Decisions:
    """Ledger and outbox, kept up with the topic. `start` before use, `close` after."""

    publisher: Publisher
    reader: LogReader
    topic: str
    responder: str
    ledger: Ledger = field(default_factory=Ledger)
    outbox: Outbox = field(default_factory=Outbox)
    followers: list[Follower] = field(default_factory=list)
    all_read: Callable[[], Awaitable[bool]] | None = None  # of who only reads: whether all that was there has come
    same: Callable[[], Awaitable[bool]] | None = None  # whether the topic is still the one that was read
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)
    _verdicts: dict[int, Verdict] = field(default_factory=dict)
    _marks: set[str] = field(default_factory=set)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _error: BaseException | None = None

    async def start(self) -> None:
        """Read the topic up to now; then go on reading. Raises `Fatal`."""
        both = self._follow, self._watch
        self._tasks = [asyncio.create_task(self._ending(work), name="decisions") for work in both]
        await self.catch_up()

    async def close(self) -> None:
        """Stop reading."""
        await cancel_all(self._tasks)

    async def catch_up(self) -> None:
        """Return once everything written before this call (who only reads: before the start) has been applied."""
        if self.all_read is not None:
            while not await self.all_read():
                await self.moved(POLL_S)
            self.ledger.now_us = max(self.ledger.now_us, int(time.time() * 1e6))  # no mark tells the broker's
            return
        mark = uuid.uuid4().hex
        await self._publish(Joined(responder=self.responder, mark=mark))
        await self._until(lambda: mark in self._marks)
        self._marks.discard(mark)

    async def moved(self, timeout_s: float) -> None:
        """Return when something new was read, or after so long. Raises `Fatal` once reading has ended."""
        async with self._moved:
            self.check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._moved.wait()

    async def write(self, record: Record) -> Verdict:
        """Write, read it back, and say what the order says of it (IGNORED where there is nothing to judge)."""
        offset = await self._publish(record)
        await self._until(lambda: self.ledger.next_offset > offset)
        return self._verdicts.pop(offset, ledger.IGNORED)

    async def _publish(self, record: Record) -> int:
        value, read_to = encode(record), self.ledger.next_offset
        while True:
            try:
                offset = await self.publisher.publish(self.topic, b"", value, partition=0)
            except Retry as error:  # perhaps written all the same: a second copy changes nothing in the ledger
                log.warning("cannot write to %s, trying again: %s", self.topic, error)
                self.check()
                await asyncio.sleep(RETRY_S)
            else:
                self._check_forward(offset, read_to)
                return offset

    def _check_forward(self, offset: int, read_to: int) -> None:
        """Raises Fatal where a record lies before what was read: all that is said there, a stop, an act or an undo,
        would be taken for read.
        """
        if offset < read_to:
            raise Fatal(
                f"{self.topic} goes on at offset {offset} where {read_to} was to come: it was deleted and made anew, "
                f"or its brokers have lost its end. {AT_NEXT}"
            )

    async def _until(self, happened: Callable[[], bool]) -> None:
        async with self._moved:
            while not happened():
                self.check()
                await self._moved.wait()

    def check(self) -> None:
        """Raise what ended the reading: without it no verdict comes any more."""
        if self._error is not None:
            raise Fatal(f"reading {self.topic} ended: {self._error}") from self._error

    async def _ending(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BaseException as error:
            self._error = self._error or error
            await self._wake()
            raise

    async def _follow(self) -> None:
        while True:
            await self._step()

    async def _watch(self) -> None:
        """A topic made anew that has outgrown the former one's end goes on at the very offset that was to come."""
        while self.same is not None:
            await asyncio.sleep(SAME_S)
            if not await self.same():
                raise Fatal(f"{self.topic} was deleted and made anew. {AT_NEXT}")

    async def _step(self) -> None:
        try:
            records = await self.reader.read()
        except Retry as error:
            log.warning("cannot read %s, trying again: %s", self.topic, error)
            await asyncio.sleep(RETRY_S)
            return
        for record in records:
            self._apply(record)
        if records:
            await self._wake()

    def _apply(self, entry: Positioned) -> None:
        self._check_forward(entry.offset, self.ledger.next_offset)
        record = decode(entry.value)
        if record is None:
            log.error(
                "offset %d of %s can't be read: %s. No act for a day from then on, or until a release that can read it "
                "is started: renew all responders together", entry.offset, self.topic, unread(entry.value),
            )  # fmt: skip
        verdict = self.ledger.apply(entry.offset, entry.timestamp_us, record)
        self.outbox.apply(record, entry.timestamp_us)
        for follow in self.followers:
            follow(self.ledger.now_us, record)
        if isinstance(record, Joined) and record.responder == self.responder:
            self._marks.add(record.mark)
        elif verdict is not ledger.IGNORED and getattr(record, "responder", "") == self.responder:
            self._verdicts[entry.offset] = verdict

    async def _wake(self) -> None:
        async with self._moved:
            self._moved.notify_all()
