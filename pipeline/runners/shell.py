"""What both runners do with a partition: load its state, hand slices in, carry effects out, checkpoint, let go.

A runner brings the records (`Fetched`), tells the group's generation, seeks where `handle` asks for it, and commits
what `cover` says. Everything that protects against lost and doubled effects is here, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Final

from pipeline.core import TICK_HEADER, Core, Sides
from pipeline.emit import Emitter
from pipeline.errors import Fatal, Retry
from pipeline.faults import reach
from pipeline.metrics import METRICS
from pipeline.partitioner import moved
from pipeline.rows import RowBuffer
from pipeline.runners import measure
from pipeline.runners.owned import Fetched, Owned
from pipeline.runners.published import Published, once
from pipeline.runners.start import Ready
from pipeline.runners.turns import Turns
from pipeline.state.recover import fill, load, writer_of

log = logging.getLogger(__name__)

Pages = dict[bytes, bytes]
"""The last value of every key of one partition of the pages topic; emptied as soon as what is valid was taken out."""
ReadPages = Callable[[list[int]], AsyncGenerator[tuple[int, Pages], None]]
"""Reads these partitions, one after the other."""


class Shell:
    """All partitions of one worker."""

    def __init__(
        self, ready: Ready, generation: Callable[[], int], still_ours: Callable[[int, int], Awaitable[bool]]
    ) -> None:
        """`still_ours(partition, offset)`: whether the group takes a commit of it from us, in this generation."""
        config = ready.config
        self.config = config
        self.owned: dict[int, Owned] = {}
        self.sides = ready.sides
        self.health = ready.health
        self.stopping = False
        self.generation = generation
        self.still_ours = still_ours
        self.progress_at = time.monotonic()
        self.rows = RowBuffer(ready.rows, config.clickhouse.insert_s, config.clickhouse.max_pending_rows)
        self.core_thread = ThreadPoolExecutor(1, "core")
        self.page_thread = ThreadPoolExecutor(1, "pages")
        self.turns = Turns()
        self.ends: dict[int, int] = {}  # end of each partition's log as the last fetch told it
        self._parts = ready.parts
        self._producer = ready.producer
        self._edges = ready.edges
        self._topic_epoch = ready.topic_epoch
        self._partitions = ready.partitions
        self._count_partitions = ready.count_partitions
        self._published = ready.published
        self._first = True
        self.settled = False  # what is assigned is loaded, be it nothing
        self.loading = 0, 0  # so many of so many partitions are loaded

    def unsettle(self) -> None:
        """A rebalance began."""
        if self.settled:
            self.settled, self.progress_at = False, time.monotonic()
        self.health.recovered(False)

    def lag(self) -> int:
        """Records that wait in the owned partitions, as the last fetches told it."""
        return sum(self._lag(number, owned) for number, owned in self.owned.items())

    def _lag(self, number: int, owned: Owned) -> int:
        return max(0, self.ends.get(number, 0) - max(owned.expected, owned.empty_to))

    def waiting(self, since_s: float) -> list[int]:
        """Partitions with records to do of which none came for so long, though nothing holds them up."""
        before = time.monotonic() - since_s
        if self.rows.full or any(owned.lock.locked() for owned in self.owned.values()):
            return []  # slices of all partitions share one core, and it has some
        return [
            number
            for number, owned in self.owned.items()
            if self._lag(number, owned) and owned.active_at < before and owned.generation == self.generation()
        ]

    def polled(self, ends: Mapping[int, int]) -> None:
        """A fetch came back, with the end of each assigned partition's log."""
        self.ends.update(ends)
        self.health.polled()
        self.health.lagging(self.lag())
        lags = {number: self._lag(number, owned) for number, owned in self.owned.items()}
        measure.fetched(self.config.topics.requests, lags, self.rows)

    # --- assignment

    def kept(self, partition: int) -> bool:
        """Whether the arrays may be used in this generation: whole, and nobody else can have owned them since."""
        owned = self.owned.get(partition)
        return owned is not None and owned.emitter.sound and self.generation() - owned.generation in (0, 1)

    def drop(self, partition: int) -> None:
        """Forget the arrays."""
        self.owned.pop(partition, None)

    async def take(self, partitions: Iterable[int], read: ReadPages, committed: Mapping[int, int | None]) -> bool:
        """The assignment of this generation, whole: what isn't loaded is read and loaded, one after the other.

        False if a rebalance came meanwhile: what is assigned then is taken as a whole. Raises Fatal.
        """
        numbers, generation = sorted(partitions), self.generation()
        measure.assigned(self.config.topics.requests, self.owned, numbers)
        if any(number >= self._partitions for number in numbers):
            await self._check_partitions()
        for number, owned in list(self.owned.items()):
            if number not in numbers or generation - owned.generation not in (0, 1):  # somebody else may have had it
                self.drop(number)
        fresh = [number for number in numbers if number not in self.owned]
        for owned in self.owned.values():
            owned.generation = generation
        starts, ends = await self._edges(fresh)
        if fresh:
            log.info("state of %d partitions is read, %d are kept", len(fresh), len(self.owned))
        self.loading = 0, len(fresh)
        published = None if self._published is None else once(self._published)
        async with aclosing(read(fresh)) as reading:
            async for number, pages in reading:
                reach("in_recovery")
                edges = starts[number], ends[number]
                await self._load(number, pages, committed.get(number), *edges, generation, published)
                if self.generation() != generation:
                    log.info("partition %d: a rebalance came while state was loaded", number)
                    return False
                self.loading, self.progress_at = (self.loading[0] + 1, len(fresh)), time.monotonic()
        self.health.recovered(True)
        self.settled, self.progress_at = True, time.monotonic()
        if self._first and numbers:
            self._first = False
            reach("after_recovery")
        return True

    async def _load(
        self, number: int, pages: Pages, committed: int | None, start: int, end: int, generation: int,
        published: Published | None,
    ) -> None:  # fmt: skip
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        sides = self.sides  # newer ones may come while it loads: `keep_adopting` sees to it
        records = len(pages)
        core, state, writer = await loop.run_in_executor(
            self.core_thread, self._restore, number, pages, committed, sides
        )
        if self.generation() != generation:
            return  # somebody else may have owned it since it was read
        expected = state.next_offset if state.next_offset >= 0 else max(start, committed or 0)
        if expected > end:
            raise Fatal(
                f"partition {number}: the log ends at {end}, state includes all before {expected}: log was cut off"
            )
        self.ends[number] = end

        async def still_ours(offset: int) -> bool:  # these arrays', not only this process'
            current = self.owned.get(number, owned) is owned and owned.generation == self.generation()
            taken = current and await self.still_ours(number, offset)
            measure.committed(taken)
            return taken

        emitter = Emitter(
            core,
            writer,
            topics=self.config.topics,
            publisher=self._producer,
            rows=self.rows,
            pages=self._producer,
            still_ours=still_ours,
            committed=committed or 0,
            core_thread=self.core_thread,
            compressor=self.page_thread,
        )
        owned = Owned(core, emitter, expected, generation, sides, judged_to=end)
        if not await self._adopt_loaded(number, owned, published):
            return  # the assignment that came meanwhile loads what it needs
        self.owned[number] = owned
        log.info(
            "partition %d: epoch %d, next offset %d of %d, %d records of state, %.2f s",
            number, writer.epoch, expected, end, records, time.monotonic() - began,
        )  # fmt: skip

    async def _adopt_loaded(self, number: int, owned: Owned, published: Published | None) -> bool:
        """The state, be it none, goes on with today's side inputs; False where a rebalance came. Raises Fatal."""
        emitter, sides = owned.emitter, owned.sides
        told = () if published is None or owned.core.adopted(sides) else await published()
        until = time.monotonic() + self.config.kafka.rebalance_timeout_s
        while not await emitter.adopt(sides, lambda: owned.generation, owned.lock, loading=True, published=told):
            if time.monotonic() > until:
                raise Fatal(f"partition {number}: the group has given it away while its state was loaded")
            if self.generation() != owned.generation:
                break
            await asyncio.sleep(ASK_AGAIN_S)  # nothing is committed while the group is joined anew
        return self.generation() == owned.generation

    def _restore(self, number: int, pages: Pages, committed: int | None, sides: Sides) -> tuple[Core, Any, Any]:
        state = load(number, pages, committed)
        pages.clear()  # half of it is older than the state, and a million keys have 1.6 GB
        if state.manifest is not None and state.manifest.topic_epoch != self._topic_epoch:
            topics = self.config.topics
            raise Fatal(
                f"partition {number}: topic {topics.requests} was made anew (id {self._topic_epoch!r}, state is of "
                f"{state.manifest.topic_epoch!r}): its offsets mean something else. Delete {topics.pages} to start "
                "from empty state, or set worker.topic_epoch to the old id if the log was carried over"
            )
        if state.manifest is not None and state.manifest.partitions not in (0, self._partitions):
            raise Fatal(moved(self.config.topics.requests, state.manifest.partitions, self._partitions))
        core = self._parts.open_core(number, self.config, sides, self._topic_epoch, self._partitions)
        fill(core, state)
        return core, state, writer_of(state, self._topic_epoch, os.urandom(6).hex(), self._partitions)

    async def _check_partitions(self) -> None:
        """Raises Fatal if the topic has other partitions than it had at the start."""
        if self._count_partitions is not None and (now := await self._count_partitions()) != self._partitions:
            raise Fatal(moved(self.config.topics.requests, self._partitions, now))

    # --- slices

    async def handle(self, fetched: Fetched, fresh: bool = True) -> int | None:
        """One slice, to its acknowledged incidents. Returns an offset to seek to if this was not the next slice.

        `fresh`: it was fetched after the last seek; one that wasn't and doesn't fit is dropped, as others follow it.
        The caller has checked the generation. Raises Fatal where the partition isn't loaded.
        """
        number = fetched.records.partition
        if self.stopping:
            return None
        owned = self.owned.get(number)
        if owned is None or owned.generation != self.generation():
            raise Fatal(f"partition {number}: a slice came before its state was loaded in this generation")
        async with self.rows.room(len(fetched.records.offsets)), owned.lock:
            if self.stopping or self.owned.get(number) is not owned or owned.generation != self.generation():
                return None  # waiting for room or the lock may take longer than a rebalance
            if not self.settled:
                return None  # let go: no checkpoint follows, and who owns it next may have other side inputs
            return await self._judge(owned, fetched, fresh)

    async def _judge(self, owned: Owned, fetched: Fetched, fresh: bool) -> int | None:
        records = fetched.records
        if records.next <= owned.expected or fetched.start > owned.expected:
            return owned.ask_back(records.first) if fresh else None
        if records.first > owned.expected:
            owned.holes += 1  # compaction, retention, a transaction's marker: nothing lies there
            if records.first - owned.expected > 1:  # a marker is one offset
                await self._tell_hole(records.partition, owned.expected, records.first)
        batch = records.since(owned.expected)
        owned.emitter.cut = True
        judging = asyncio.get_running_loop().run_in_executor(self.core_thread, measure.timed, owned.core, batch)
        effects, began_s, judged_s = await judging
        if any(reject.reason == "wrong_partition" for reject in effects.rejects):
            await self._check_partitions()  # before effects: nothing is rejected because partitions were added
        await owned.emitter.emit(effects)
        passed = measure.Passed(fetched.at_s, began_s, judged_s, time.time())
        measure.slice_done(self.config.topics.requests, batch, effects, passed)
        measure.state_of(batch.partition, owned.core)
        owned.emitter.cut = False
        owned.expected, owned.seeks, owned.nudges = batch.next, 0, 0
        owned.active_at = self.progress_at = time.monotonic()
        self.health.progressed(self.lag())
        return None

    async def _tell_hole(self, number: int, expected: int, first: int) -> None:
        """No record lies in [expected, first): of those before the log's start retention has deleted any there were."""
        starts, _ = await self._edges([number])
        if (lost := min(starts[number], first) - expected) > 0:
            topic = self.config.topics.requests
            METRICS.records_lost.inc(lost)
            log.error(
                "partition %d: %d records from offset %d on are LOST: %s deleted them before they were judged. Its "
                "retention.ms or retention.bytes is too small for how long no worker came there",
                number, lost, expected, topic,
            )  # fmt: skip
        else:
            log.warning("partition %d: no record lies in [%d, %d)", number, expected, first)

    # --- checkpoints

    def cover(self, partition: int) -> int | None:
        """The offset to commit."""
        owned = self.owned.get(partition)
        return None if owned is None or owned.generation != self.generation() else owned.emitter.cover

    def saved(self, why: str, took_s: float) -> bool:
        """Whether the last checkpoints include all that was judged; not where the group took no commit meanwhile."""
        if left := [number for number, owned in self.owned.items() if owned.unsaved]:
            log.warning("%s: partitions %s were judged beyond their last checkpoint, that is replayed", why, left)
            return False
        log.info("%s: checkpoint and commit in %.0f ms", why, 1000 * took_s)
        return True

    async def checkpoint_all(self) -> None:
        """A checkpoint of every partition that has something new."""
        await asyncio.gather(*[self._checkpoint(owned) for owned in list(self.owned.values())])

    async def _checkpoint(self, owned: Owned) -> None:
        before, began = owned.emitter.writer.bytes_written, time.monotonic()
        await owned.emitter.checkpoint(lambda: owned.generation, self.turns.then(owned.lock))
        if written := owned.emitter.writer.bytes_written - before:
            measure.checkpoint_done(time.monotonic() - began, written)

    async def keep_checkpointing(self) -> None:
        """Each partition every `checkpoint_s`, idle tails too, at times of their own.

        All at once they held up what came meanwhile: one event in six waited for 0.1 to 0.4 s.
        """
        while True:
            every_s, all_ = self.config.worker.checkpoint_s, list(self.owned.items())
            at_s = [every_s * (place + 1) / len(all_) for place in range(len(all_))]
            spread = [self._checkpoint_in(wait_s, *each) for wait_s, each in zip(at_s, all_, strict=True)]
            await asyncio.gather(asyncio.sleep(every_s), *spread)

    async def _checkpoint_in(self, wait_s: float, number: int, owned: Owned) -> None:
        await asyncio.sleep(wait_s)
        if self.owned.get(number) is owned:
            await self._checkpoint(owned)

    async def keep_ticking(self) -> None:
        """Write a tick record into partitions that were idle for a minute."""
        while self.config.worker.ticks:
            await asyncio.sleep(TICK_S / 4)
            now = time.monotonic()
            for number, owned in list(self.owned.items()):
                if now - owned.active_at >= TICK_S and owned.generation == self.generation():
                    owned.active_at = now
                    with contextlib.suppress(Retry):  # the next one will do as well
                        await self._producer.publish(
                            self.config.topics.requests, b"", b"", [(TICK_HEADER, b"1")], number
                        )

    async def keep_adopting(self) -> None:
        """Poll the side inputs; adopt what is new at a checkpoint of its own."""
        while True:
            await asyncio.sleep(SIDES_S)
            sides = await self._parts.read_sides(self.config)
            if sides.living() != self.sides.living():
                self.sides = sides
            for owned in list(self.owned.values()):
                if owned.sides is not self.sides:  # also one that was loaded while they changed
                    await self._adopt(owned)

    async def _adopt(self, owned: Owned) -> None:
        sides, read = self.sides, self._published if owned.expected < owned.judged_to else None
        told = await read() if read else []  # published, and perhaps not judged again yet
        if await owned.emitter.adopt(sides, lambda: owned.generation, owned.lock, published=told):
            owned.sides = sides

    async def drain(self) -> float:
        """Before a stop: let what already waits in the log be done, within a quarter of the time that a stop has.

        A rebalance that is under way as well: no checkpoint is taken before the next assignment. Returns how much of
        the time is left, in seconds.
        """
        until = time.monotonic() + self.config.worker.stop_s
        drained_at = until - 0.75 * self.config.worker.stop_s
        with contextlib.suppress(TimeoutError, Fatal):  # brokers that are silent now may take a checkpoint soon
            async with asyncio.timeout(self.config.worker.stop_s / 4):
                _, ends = await self._edges(list(self.owned))  # the last fetch may be older than the last record
                self.ends.update(ends)
        while time.monotonic() < drained_at and (self.lag() or not self.settled):  # noqa: ASYNC110  (threads tell)
            await asyncio.sleep(0.05)
        return max(0.0, until - time.monotonic())

    async def close(self) -> None:
        """After the last checkpoint."""
        self.core_thread.shutdown()
        self.page_thread.shutdown()


TICK_S: Final = 60.0
ASK_AGAIN_S: Final = 0.1
SIDES_S: Final = 10.0
