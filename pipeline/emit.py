"""The order of effects. Everything that leaves a partition goes through here, in this order:

 1. incidents, rejects and what other topologies are told to Kafka, at once after the slice, acknowledged;
 2. rows to the row sink, every `insert_s`, coalesced, acknowledged;
 3. pages and rows, then directory pages, then the manifest, only when 1 and 2 cover its offset;
 4. commit of what the manifest covers (the runner's part: `Emitter.cover`).

A crash anywhere replays from the last manifest and repeats effects under the same ids; it never loses one. The row sink
being away does not stop 1; at the bound of waiting rows the runner stops handing in slices (`RowBuffer.room`).

Before 3 the group must take the last manifest's offset from us (`still_ours`). A worker that was thrown out without
knowing it (frozen, or cut off from the coordinator) may so write one checkpoint more, which harms nobody: it leaves
alone every page that the last manifest names. A second one would write pages that the new owner goes on from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

import msgspec

from pipeline import memory
from pipeline.column import count
from pipeline.config.tree import Topics
from pipeline.core import Core, Effects, Reject, Rows, Sides
from pipeline.errors import Retry
from pipeline.faults import reach
from pipeline.ports import BulkPublisher, Outgoing, PageLog
from pipeline.rows import RowBuffer
from pipeline.state.checkpoint import Checkpoint, Plan, Record
from schemas.incident import Incident

log = logging.getLogger(__name__)
T = TypeVar("T")

AHEAD_ROWS: Final = 500
"""Of each table in a piece: some 5 ms of the core's thread."""
ADOPT_WAIT_S: Final = 1.0
"""How long slices may wait for the row sink while side inputs are adopted; tried again with the next poll of them."""
ADOPT_MOST_WAIT_S: Final = 32.0
"""Each such try waits twice as long as the one before: a slow row sink must not put an adoption off for ever."""

_json = msgspec.json.Encoder()


class Emitter:
    """Carries the effects of one partition out. One coroutine calls `emit`, one at a time calls `checkpoint`."""

    def __init__(
        self,
        core: Core,
        checkpoint: Checkpoint,
        *,
        topics: Topics,
        publisher: BulkPublisher,
        rows: RowBuffer,
        pages: PageLog,
        still_ours: Callable[[int], Awaitable[bool]] | None = None,
        committed: int = 0,
        core_thread: Executor | None = None,
        compressor: Executor | None = None,
    ) -> None:
        self.core = core
        self.writer = checkpoint
        self.cover: int | None = None  # offset to commit: next_offset of the last acknowledged manifest
        self._topics = topics
        self._publisher = publisher
        self._rows = rows
        self._pages = pages
        self._still_ours = still_ours
        self._committed = committed  # when the state was loaded
        self._core_thread = core_thread
        self._compressor = compressor
        self._busy = asyncio.Lock()
        self.cut = False  # set by the runner while a slice runs: state and effects don't agree
        self.torn = False  # a checkpoint was cut off: blocks are marked clean that were not written
        self._adopt_wait_s = ADOPT_WAIT_S
        self._adopted: Rows = {}  # told once the group has taken a commit after the manifest that names it

    async def emit(self, effects: Effects) -> None:
        """Step 1, acknowledged; step 2 is only begun."""
        if effects.incidents or effects.rejects or effects.messages:
            await self._publish_all(effects)
            reach("after_publish")
        if effects.rows:
            self._rows.add(effects.rows)

    async def checkpoint(self, generation: Callable[[], int], lock: AbstractAsyncContextManager[None]) -> int | None:
        """Steps 2 and 3; returns the offset to commit (step 4), None if no event was judged yet.

        `lock` is held while a slice runs; here only while changed blocks are copied, so that further slices are
        judged while pages are on their way. `generation` is asked for at that moment.
        """
        async with self._busy:
            await self._rows.flush()
            if not await self._may_write():
                return self.cover
            await self._write_ahead()
            async with lock:
                plan = await self._plan(generation())
            return await self._write(plan)

    async def _write_ahead(self) -> None:
        """Most rows that are due, piece by piece between slices: what is left for the lock is soon done.

        All at once it held up every slice behind it for 0.1 to 0.2 s, in 4 partitions one after the other.
        """
        if self.torn:
            return
        self.torn, full = True, True  # rows that are taken and not handed on are written by nobody
        while full:
            rows = await _in_thread(self._core_thread, self.core.rows_ahead, AHEAD_ROWS)
            self._rows.add(rows)
            full = any(count(columns) >= AHEAD_ROWS for columns in rows.values())
        self.torn = False

    async def adopt(
        self, sides: Sides, generation: Callable[[], int], lock: asyncio.Lock, *, loading: bool = False,
        published: Sequence[Incident] = (),
    ) -> bool:  # fmt: skip
        """Side inputs change: here, and no event is judged before the manifest that names them stands.

        Also of a partition without any state: the first manifest names the side inputs and includes nothing. Without it
        whoever comes after a crash could not know that what was published by then was judged with others.

        While ClickHouse is away a running partition stays with the old ones, else no slice would be judged: what came
        due since the flush is given ADOPT_WAIT_S under the lock, longer with each try. One that is `loading` has
        nothing to be written but the adoption's own row, so it waits for nobody. That row follows the manifest, and
        the group's answer that nobody else owned the partition when it was written: one before that would stay if we
        died in between or were thrown out, and tell of an adoption that never was; one that is lost is told again by
        the next start.
        `published`: incidents of a crashed life that the new ones may not bring again; they are closed, and the rows of
        that are written before that manifest. False: not adopted, the partition may be somebody else's by now.
        """
        async with self._busy:
            if not loading:
                await self._rows.flush()
            if not await self._may_write():
                return False
            if published and not await self._disown(published, generation, lock, loading):
                return False
            async with lock:
                if not loading and not await self._written_soon():
                    return False
                rows = self.core.adopt(sides)
                if (rows or loading) and (plan := await self._plan(generation())) is not None:
                    await self._write(plan, flush=False)
                    self._adopted = rows
            if self._adopted:
                await self._may_write()
        return True

    async def _disown(
        self, published: Sequence[Incident], generation: Callable[[], int], lock: asyncio.Lock, loading: bool
    ) -> bool:
        """Close what a crashed life has published; False if that must wait, or the partition may be somebody else's.

        First a manifest says which revisions that takes: should we die before the next one, and the former side inputs
        come back, then nothing is adopted anew, and what is judged again must go on above the closings all the same.
        No slice is judged between: what it opens again would be told before its closing.
        """
        async with lock:
            if not loading:
                if not await self._written_soon():
                    return False
                published = [each for each in published if each.offset >= self.core.next_offset]  # not judged again yet
            undone = await _in_thread(self._core_thread, self.core.disown, published)
            if not undone.rows:
                return True
            await self._write(await self._plan(generation()), flush=False)
            await self.emit(undone)
        if loading:
            await self._closings_written()
        else:
            await self._rows.flush()
        return await self._may_write()  # ClickHouse may have taken longer than a rebalance

    async def _closings_written(self) -> None:
        """While loading nothing is judged, so the row sink is given ADOPT_WAIT_S.

        Should we die before it has taken the rows: a state with `spent` revisions counts as not adopted, and whoever
        loads it writes them again.
        """
        try:
            async with asyncio.timeout(ADOPT_WAIT_S):
                await self._rows.flush()
        except TimeoutError:
            log.warning(
                "partition %d: closings of incidents that a crash has undone wait for ClickHouse, which has not taken "
                "them in %.0f s; judging goes on", self.writer.partition, ADOPT_WAIT_S,
            )  # fmt: skip

    async def _written_soon(self) -> bool:
        """Whether the row sink takes all that is due now without making slices wait; what it doesn't take stays due."""
        self._rows.add(await _in_thread(self._core_thread, self.core.due_rows))
        try:
            async with asyncio.timeout(self._adopt_wait_s):
                await self._rows.flush()
        except TimeoutError:
            log.info("partition %d: rows wait, new side inputs are adopted later", self.writer.partition)
            self._adopt_wait_s = min(2 * self._adopt_wait_s, ADOPT_MOST_WAIT_S)
            return False
        self._adopt_wait_s = ADOPT_WAIT_S
        return True

    async def _may_write(self) -> bool:
        """Whether the group's answer proves that whoever reads the state after us reads our last manifest.

        Also before the first: who was thrown out while loading has read the epoch of the one who owns the partition
        now, and would write a higher one. What was loaded is not committed before a manifest of ours stands: one of
        an earlier writer, still on its way, could replace it.
        """
        offset = self._committed if self.cover is None else self.cover
        if self._still_ours is None or await self._still_ours(offset):
            self._rows.add(self._adopted)
            self._adopted = {}
            return True
        log.info("partition %d: no checkpoint, the group has moved on", self.writer.partition)
        return False

    @property
    def sound(self) -> bool:
        """Whether arrays, log and effects agree; if not, the arrays must be thrown away and loaded anew."""
        return not (self.cut or self.torn)

    async def _plan(self, generation: int) -> Plan | None:
        """The caller holds the lock; due rows of many keys and copies take too long for the event loop."""
        if self.cut or self.torn:
            return None
        self.torn = True  # until all of it is written
        rows, plan = await _in_thread(self._core_thread, self._copy, generation)
        self._rows.add(rows)
        return plan

    def _copy(self, generation: int) -> tuple[Rows, Plan]:
        return self.core.due_rows(), self.writer.plan(self.core, generation)

    async def _write(self, plan: Plan | None, *, flush: bool = True) -> int | None:
        if plan is None:
            return self.cover
        if self.writer.nothing_new(plan):
            self.torn = False
            return self.cover
        if flush:
            await self._rows.flush()
        draft = self.writer.draft(plan)
        await self._tombstone(self.writer.due)
        for pack in draft.batches():
            await self._send(await _in_thread(self._compressor, pack))
            reach("between_pages")
        reach("before_manifest")
        await self._send([draft.manifest()])  # alone and last: end of log and manifest are the same record
        self.writer.accept(draft)
        self.cover = plan.next_offset if plan.next_offset >= 0 else None
        self.torn = False
        # Not awaited: whoever is cut off here has a whole checkpoint, and an adoption's rows yet to hand on.
        asyncio.get_running_loop().run_in_executor(self._compressor, memory.freed, plan.size_bytes)
        reach("after_manifest")
        return self.cover

    async def _send(self, records: Sequence[Record]) -> None:
        partition = self.writer.partition
        self.writer.pages_written += len(records)
        self.writer.bytes_written += sum(len(value) for _, value in records)
        await self._pages.send_all(partition, records)

    async def _tombstone(self, keys: Iterable[bytes]) -> None:
        await self._pages.send_all(self.writer.partition, [(key, None) for key in keys])

    async def _publish_all(self, effects: Effects) -> None:
        """Side by side by topic, the incidents' first; within a topic the order is kept."""
        by_topic = {self._topics.incidents: [_incident(incident) for incident in effects.incidents]}
        by_topic[self._topics.rejected] = [self._reject(reject) for reject in effects.rejects]
        for message in effects.messages:
            by_topic.setdefault(getattr(self._topics, message.lane), []).append((message.key, message.value, ()))
        await _all(self._publish(topic, records) for topic, records in by_topic.items() if records)

    def _reject(self, reject: Reject) -> Outgoing:
        key = f"{self._topics.requests}/{reject.partition}/{reject.offset}".encode()
        return key, _json.encode(reject), [("reason", reject.reason.encode())]

    async def _publish(self, topic: str, records: Sequence[Outgoing]) -> None:
        wait_s = 0.1
        while True:
            try:
                await self._publisher.publish_all(topic, records)
            except Retry as error:
                log.warning("not published to %s, again in %.1f s: %s", topic, wait_s, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, 5.0)
            else:
                return


def _incident(incident: Incident) -> Outgoing:
    headers = [("incident-id", incident.incident_id.encode()), ("revision", str(incident.revision).encode())]
    return incident.key_id.encode(), _json.encode(incident), headers


async def _in_thread(thread: Executor | None, function: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, function, *args)


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    """Await all; the first failure cancels the rest and is raised itself, not in a group."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
