"""The same worker on plain aiokafka: `getmany` per partition, manual commit, a rebalance listener.

It runs the same shell, core, order of effects and pages as the Faust worker, and is its oracle in the tests and the way
out should Faust fail. State is read by a consumer of our own when partitions are assigned; arrays are always loaded
anew then, so there is no rule of generations to get wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from pipeline.config.tree import Config
from pipeline.errors import Fatal
from pipeline.faults import reach
from pipeline.records import of_records
from pipeline.runners.ending import end_process, guarded
from pipeline.runners.parts import Parts, production_parts
from pipeline.runners.shell import Shell
from pipeline.runners.slices import FETCH_BYTES, FETCH_MOST_BYTES, FETCH_WAIT_MS, Positions, cut
from pipeline.runners.start import Ready, exit_code, prepare, tasks_of
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.kafka import REQUESTS_FETCH_BYTES, client_settings, pages_in_turn
from pipeline.tasks import cancel_and_wait

log = logging.getLogger(__name__)

POLL_S = 0.5


class Listener(ConsumerRebalanceListener):
    """aiokafka awaits both before it goes on with the rebalance; an exception in them would only be logged."""

    def __init__(self, worker: PlainWorker) -> None:
        self._worker = worker

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Checkpoint and commit what we still own."""
        await guarded(self._worker.let_go(list(revoked)))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Load the state of everything assigned."""
        await guarded(self._worker.load({tp.partition for tp in assigned}))


class PlainWorker:
    """The loop around the shell."""

    def __init__(self, ready: Ready) -> None:
        self.config = ready.config
        self.shell = Shell(ready, lambda: self._assignments, self.still_ours)
        self._assignments = 0  # our own count of assignments: slices and manifests of a former one are told by it
        self._positions = Positions()
        self._committed: dict[int, int] = {}
        kafka = self.config.kafka
        self.consumer = AIOKafkaConsumer(
            **client_settings(kafka),
            group_id=kafka.group,
            group_instance_id=kafka.instance_id or None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(kafka.session_timeout_s * 1000),
            heartbeat_interval_ms=int(kafka.heartbeat_s * 1000),
            rebalance_timeout_ms=int(kafka.rebalance_timeout_s * 1000),
            max_poll_interval_ms=300_000,
            max_partition_fetch_bytes=REQUESTS_FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            fetch_min_bytes=FETCH_BYTES,
            fetch_max_bytes=FETCH_MOST_BYTES,
        )

    # --- rebalances

    async def let_go(self, revoked: list[TopicPartition]) -> None:
        """Before partitions go: checkpoint and commit within half the session timeout."""
        if revoked and self.shell.owned and not self.shell.stopping:
            reach("in_revoke")
            self.shell.unsettle()
            await self.save(self.config.kafka.session_timeout_s / 2, "partitions are revoked")
        self._assignments = -1
        self._committed.clear()
        for number in list(self.shell.owned):
            self.shell.drop(number)

    async def load(self, numbers: set[int]) -> None:
        """After an assignment: the pages of all of it, then positions at the state's offsets."""
        generation = self.consumer._coordinator.generation  # no public name; pinned in tests/contracts
        self._assignments = generation
        for number in list(self.shell.owned):
            self.shell.drop(number)
        kafka, topics = self.config.kafka, self.config.topics
        read = partial(pages_in_turn, kafka, topics.pages)
        if not await self.shell.take(numbers, read, await committed_offsets(kafka, topics.requests)):
            return
        for number in numbers:
            self._seek(number, self.shell.owned[number].expected)

    def _seek(self, number: int, offset: int) -> None:
        self.consumer.seek(TopicPartition(self.config.topics.requests, number), offset)
        self._positions.broken(number, offset)

    # --- slices

    async def work(self) -> None:
        """Fetch, judge, commit what is covered; ends when `stopping` is set."""
        while not self.shell.stopping:
            fetched = await self._fetch()
            self.shell.polled(self._ends())
            await asyncio.gather(*[self._records(tp.partition, *each) for tp, each in fetched.items()])
            if not fetched:
                await self._mark_empty()
            await self.commit()

    async def _fetch(self) -> dict[TopicPartition, tuple[list[Any], int | None, int]]:
        """Of each partition its records and where they start (`Positions.delivered`)."""
        try:
            fetched: dict[TopicPartition, list[Any]] = await self.consumer.getmany(timeout_ms=int(POLL_S * 1000))
        except KafkaError as error:  # e.g. a Faust member's session isn't over: its group protocol is another
            raise Fatal(f"group {self.config.kafka.group}: {type(error).__name__}: {error}") from error
        told = self._positions.delivered
        return {tp: (found, *told(tp.partition, found[-1].offset + 1)) for tp, found in fetched.items()}

    async def _records(self, number: int, records: list[Any], start: int | None, breaks: int) -> None:
        """Whatever assignment these records were fetched in: whether they go on from the state is told by offsets."""
        for fetched in cut(self.config.topics.requests, number, of_records(records), start, self.config, breaks):
            if number not in self.shell.owned:
                return  # not loaded yet: `load` sets the position after this
            seek = await self.shell.handle(fetched, breaks == self._positions.breaks(number))
            if seek is not None and number in self.shell.owned:
                self._seek(number, seek)

    async def _mark_empty(self) -> None:
        """Nothing came: what lies before the position holds no record (a transaction's marker, compaction)."""
        for number, owned in list(self.shell.owned.items()):
            with contextlib.suppress(IllegalStateError):
                owned.empty_to = await self.consumer.position(TopicPartition(self.config.topics.requests, number))

    def _ends(self) -> dict[int, int]:
        with contextlib.suppress(IllegalStateError):  # a rebalance took it away meanwhile
            ends = {tp.partition: self.consumer.highwater(tp) for tp in self.consumer.assignment()}
            return {number: end for number, end in ends.items() if end is not None}
        return {}

    # --- offsets

    async def commit(self) -> None:
        """Commit what the manifests cover, where it moved."""
        covered = {number: self.shell.cover(number) for number in self.shell.owned}
        moved = {n: offset for n, offset in covered.items() if offset is not None and offset != self._committed.get(n)}
        if not moved:
            return
        if await self._taken(moved):
            self._committed.update(moved)
            reach("after_commit")

    async def still_ours(self, number: int, offset: int) -> bool:
        """Commit again what is covered, to hear whether the group still knows us."""
        return self.consumer._coordinator.generation == self._assignments and await self._taken({number: offset})

    async def _taken(self, offsets: Mapping[int, int]) -> bool:
        """Commit these; False where the group has moved on. Raises Fatal."""
        group, topic = self.config.kafka.group, self.config.topics.requests
        try:
            await self.consumer.commit({TopicPartition(topic, number): offset for number, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("not committed, the group has moved on: %s", error)
            return False
        except KafkaError as error:  # a right that was taken away; what may pass aiokafka tries again by itself
            raise Fatal(f"group {group}: no commit on {topic}: {type(error).__name__}: {error}") from error
        return True

    async def save(self, within_s: float, why: str) -> bool:
        """Checkpoint everything and commit, in time or not at all."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                await self.shell.checkpoint_all()
                await self.commit()
        except TimeoutError:
            log.warning("%s: no checkpoint within %.1f s; what follows the last one is replayed", why, within_s)
            return False
        return self.shell.saved(why, time.monotonic() - began)


async def run(config: Config, parts: Parts) -> int:
    """Work until SIGTERM or SIGINT. Raises ConfigError and Fatal before the group is joined."""
    async with prepare(config, parts) as ready:
        worker = PlainWorker(ready)
        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        try:
            await worker.consumer.start()
        except (KafkaError, OSError) as error:
            raise Fatal(f"cannot join group {config.kafka.group}: {error}") from error
        worker.consumer.subscribe([config.topics.requests], listener=Listener(worker))
        return await _until_stopped(worker, stop)


async def _until_stopped(worker: PlainWorker, stop: asyncio.Event) -> int:
    tasks = [asyncio.create_task(guarded(work)) for work in tasks_of(worker.shell)]
    working = asyncio.create_task(guarded(worker.work()))
    await stop.wait()
    limit_s = worker.config.worker.stop_s
    asyncio.get_running_loop().call_later(limit_s + 15.0, end_process, Fatal("the consumer did not stop in time"))
    save_s = await worker.shell.drain()
    worker.shell.stopping = True
    worker.shell.health.stopping()
    if not await worker.save(save_s, "stop"):
        end_process(Fatal(f"not all is in a checkpoint within worker.stop_s ({limit_s} s)"))
    await working
    for task in tasks:
        await cancel_and_wait(task)
    await worker.consumer.stop()
    await worker.shell.close()
    return 0


def main(config: Config, parts: Parts | None = None) -> int:
    """Run the worker; returns the exit code, as the Faust worker does."""
    return exit_code(run(config, parts or production_parts()))
