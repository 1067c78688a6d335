"""The consuming ends on Kafka: incidents with a bounded window in flight, the decisions topic, the audit's loader."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from pipeline.errors import Fatal, Retry
from pipeline.health import Health
from pipeline.metrics import METRICS
from pipeline.ports import RowSink
from pipeline.respond.audit import Positioned, rows
from pipeline.respond.caretaker import Caretaker
from pipeline.respond.handle import Responder
from pipeline.respond.progress import Progress
from pipeline.tasks import cancel_and_wait, raise_ended

log = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 500  # incidents; at the bound reading pauses
POLL_MS: Final = 200
COMMIT_S: Final = 1.0
HANDOVER_S: Final = 5.0  # what is in flight may end before a partition is given up; well within the session time-out
STOP_S: Final = 10.0
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
AUDIT_BATCH: Final = 1000
LOG_APPEND_TIME: Final = 1  # Kafka's protocol: the broker's clock, not the sender's


def positioned(record: Any) -> Positioned:
    """aiokafka's record as ours; its timestamp is in ms."""
    return Positioned(record.partition, record.offset, record.timestamp * 1000, record.key, record.value)


class TopicReader:
    """`LogReader` over a consumer that is assigned to the topic's partition and stands at its start."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._warned = False

    async def read(self) -> Sequence[Positioned]:
        """The next records. Raises `Retry`."""
        try:
            batches = await self._consumer.getmany(timeout_ms=1000)
        except KafkaError as error:
            raise Retry(f"{type(error).__name__}: {error}") from error
        records = [record for batch in batches.values() for record in batch]
        if not self._warned and any(record.timestamp_type != LOG_APPEND_TIME for record in records):
            self._warned = True
            log.warning("%s should have message.timestamp.type=LogAppendTime: caps rest on its clock", records[0].topic)
        return [positioned(record) for record in records]

    async def position(self, topic: str) -> int:
        """The next offset. Raises `Retry`."""
        try:
            return int(await self._consumer.position(TopicPartition(topic, 0)))
        except KafkaError as error:
            raise Retry(f"{type(error).__name__}: {error}") from error


class Incidents(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka asks for its own base
    """Reads incidents, lets the responder handle many side by side, commits what is finished, in order."""

    def __init__(
        self, consumer: AIOKafkaConsumer, topic: str, responder: Responder, caretaker: Caretaker, health: Health
    ) -> None:
        self._consumer, self._topic, self._responder, self._health = consumer, topic, responder, health
        self._caretaker = caretaker
        self._progress = Progress()
        self._tasks: dict[asyncio.Task[None], tuple[int, int]] = {}
        self._generation = 0
        self._committed_at_s = 0.0

    async def run(self, stop: asyncio.Event, check: Callable[[], None]) -> None:
        """Until `stop`; then finish what is in flight, up to `STOP_S`, and commit. `check` raises if a helper died."""
        self._consumer.subscribe([self._topic], listener=self)
        try:
            while not stop.is_set():
                self._raise_failures(check)
                await self._round()
            self._health.stopping()
            await asyncio.gather(self._settle(set(self._tasks), STOP_S), self._caretaker.give_up(STOP_S))
            await self._commit()
        finally:
            await self._settle(set(self._tasks), 0.0)

    async def _round(self) -> None:
        self._health.polled()
        full = self._progress.unfinished >= MAX_IN_FLIGHT
        self._pause(full)
        try:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_IN_FLIGHT)
        except KafkaError as error:
            log.warning("cannot read %s, trying again: %s", self._topic, error)
            await asyncio.sleep(RETRY_S)
            return
        generation = self._generation  # not before: an assignment may have come while we waited for its records
        for batch in batches.values():
            await self._begin(generation, batch)
        if asyncio.get_running_loop().time() - self._committed_at_s >= COMMIT_S:
            await self._commit()
            self._health.lagging(self._lag())

    async def _begin(self, generation: int, batch: Sequence[Any]) -> None:
        for record in batch:
            if generation != self._generation:
                return  # of a former assignment: whoever owns it now reads it from the commit on
            self._progress.begin(record.partition, record.offset)
            METRICS.events_consumed.labels(self._topic).inc()
            work = await self._responder.receive(positioned(record))
            task = asyncio.create_task(self._finish(work, record.partition, record.offset))
            self._tasks[task] = (record.partition, record.offset)

    async def _finish(self, work: Awaitable[None], partition: int, offset: int) -> None:
        await work
        self._progress.finish(partition, offset)
        self._health.progressed(self._progress.unfinished)

    def _raise_failures(self, check: Callable[[], None]) -> None:
        check()
        self._responder.decisions.check()  # aiokafka swallows what a rebalance callback raises
        self._responder.deliveries.check()
        self._caretaker.check()
        for task in [task for task in self._tasks if task.done()]:
            del self._tasks[task]
            if not task.cancelled() and (error := task.exception()):
                raise Fatal(f"an incident could not be handled: {error}") from error

    def _pause(self, full: bool) -> None:
        METRICS.paused.set(full)
        owned = self._consumer.assignment()
        if full and owned:
            self._consumer.pause(*owned)
        elif paused := self._consumer.paused():
            self._consumer.resume(*paused)

    def _lag(self) -> int:
        ends = {tp.partition: self._consumer.highwater(tp) for tp in self._consumer.assignment()}
        lags = {
            partition: max(0, (end or 0) - self._progress.next_of(partition, end or 0))
            for partition, end in ends.items()
        }
        for partition, lag in lags.items():
            METRICS.lag_records.labels(self._topic, partition).set(lag)
        return sum(lags.values())

    async def _commit(self) -> None:
        self._committed_at_s = asyncio.get_running_loop().time()
        points = self._progress.commit_points()
        if not points:
            return
        try:
            await self._consumer.commit({TopicPartition(self._topic, each): at for each, at in points.items()})
        except (CommitFailedError, IllegalStateError) as error:
            log.info("not committed, the partitions are moving: %s", error)
        except KafkaError as error:
            METRICS.commits.labels("failed").inc()
            log.warning("cannot commit, trying again: %s", error)
        else:
            METRICS.commits.labels("ok").inc()
            self._progress.committed(points)

    async def _settle(self, tasks: set[asyncio.Task[None]], wait_s: float) -> None:
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=wait_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let what is in flight end, commit, and forget: acts cut off here go on with the next owner."""
        partitions = {tp.partition for tp in revoked}
        self._generation += 1
        self._health.recovered(False)
        await asyncio.gather(
            self._settle({task for task, (each, _) in self._tasks.items() if each in partitions}, HANDOVER_S),
            self._caretaker.give_up(HANDOVER_S),
        )
        await self._commit()
        self._progress.forget(partitions)
        self._responder.deliveries.forget(partitions)
        METRICS.assigned_partitions.set(0)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Know all that the former owner wrote, then go on with its pending deliveries."""
        partitions = {tp.partition for tp in assigned}
        self._generation += 1
        decisions = self._responder.decisions
        await decisions.catch_up()
        self._responder.deliveries.own(partitions)
        self._responder.deliveries.resume(decisions.outbox.of(partitions))
        self._caretaker.partitions = frozenset(partitions)
        METRICS.rebalances.inc()
        METRICS.assigned_partitions.set(len(partitions))
        self._health.recovered(True)


class AuditLoader:
    """Copies `api.responses` into the table `responses`, by position; commits after the insert is acknowledged."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, sink: RowSink, health: Health) -> None:
        self._consumer, self._topic, self._sink, self._health = consumer, topic, sink, health
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._consumer.subscribe([self._topic])
        self._task = asyncio.create_task(self._run(), name="audit")

    async def close(self) -> None:
        """Stop; the rest is loaded at the next start."""
        await cancel_and_wait(self._task)

    def check(self) -> None:
        """Raise what ended it."""
        raise_ended(self._task, "the audit's loader ended")

    async def _run(self) -> None:
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=1000, max_records=AUDIT_BATCH)
            except KafkaError as error:
                log.warning("cannot read %s, trying again: %s", self._topic, error)
                await asyncio.sleep(RETRY_S)
                continue
            records = [positioned(record) for batch in batches.values() for record in batch]
            if records:
                await self._load(records)

    async def _load(self, records: Sequence[Positioned]) -> None:
        delay_s = RETRY_S
        while True:
            try:
                await self._sink.write("responses", rows(records))
            except (Retry, Fatal) as error:  # a missing table must not stop acts: said loudly, tried again
                self._health.clickhouse(False)
                log.warning("%d responses wait for ClickHouse: %s", len(records), error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, MAX_RETRY_S)
            else:
                break
        self._health.clickhouse(True)
        with contextlib.suppress(CommitFailedError, IllegalStateError):  # loaded again by whoever owns it now: harmless
            await self._consumer.commit()
