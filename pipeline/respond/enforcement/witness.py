"""Reads what the watched keys do: from `topics.requests`, and of that only the partitions on which they lie.

The log and not ClickHouse, whose copy may be sampled and whose inserts may be down in just that hour. No consumer
group: partitions are assigned by hand and read from the moment of the confirmation on, so that a restarted responder
sees all of it again. Right needed: Read on the topic. A record whose key is not watched is never decoded.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline.config.tree import Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.metrics import METRICS
from pipeline.partitioner import PARTITIONERS
from pipeline.respond.enforcement.proof import Enforcement, Verdict, Watch
from pipeline.sinks.kafka import fetched_highwaters, side_consumer
from pipeline.sinks.topics import partitions_of
from schemas.event import Event

log = logging.getLogger(__name__)

POLL_MS: Final = 250
DUE_S: Final = 5.0
RETRY_S: Final = 1.0
MAX_RECORDS: Final = 500  # unpacking these holds acts up for 5 ms or so; all of a busy partition held them up for 100

Tell = Callable[[Verdict], Awaitable[None]]
"""Writes a verdict where people and the audit see it, acknowledged; the same one may come again after a restart."""


class Consumer(Protocol):
    """What of aiokafka's consumer is used."""

    def assign(self, partitions: list[TopicPartition]) -> None:
        """These and no others."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from there."""

    async def position(self, partition: TopicPartition) -> int:
        """The next offset."""

    async def offsets_for_times(self, timestamps: dict[TopicPartition, int]) -> Mapping[TopicPartition, Any]:
        """The first offset whose record is not older; None where there is none."""

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Sequence[Any]]:
        """The next records."""


InForce = Callable[[], Iterable[Watch]]
"""The ledger's acts in force, real ones; asked at every round."""

Ends = Callable[[list[int]], Awaitable[Mapping[int, int]]]
"""Partitions to where the next record of each will be."""


class Witness:
    """Feeds `Enforcement`. `partition_of`: key to partition, as the topic's producers decide it."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        partition_of: Callable[[bytes], int],
        ends: Ends,
        enforcement: Enforcement,
        tell: Tell,
        now_s: Callable[[], float],
        in_force: InForce | None = None,
    ) -> None:
        self._consumer, self._topic, self._partition_of, self._ends = consumer, topic, partition_of, ends
        self._enforcement, self._tell, self._now_s, self._in_force = enforcement, tell, now_s, in_force
        self._placed: set[str] = set()  # response ids from whose confirmation on is read
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._due_at_s = 0.0
        self._asked: dict[TopicPartition, tuple[int, int]] = {}  # its end, and when that was asked for (us)
        self._read_us: dict[TopicPartition, int] = {}  # read at least up to this time

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. A broker that is away is waited for; what it has meanwhile is read then."""
        while not stop.is_set():
            try:
                await self.round()
            except (KafkaError, Retry, Fatal) as error:
                log.warning("cannot read %s, trying again: %s", self._topic, error)
                await asyncio.sleep(RETRY_S)

    async def round(self) -> None:
        """Read what is there, and tell what it says."""
        if self._in_force is not None:
            self._enforcement.follow(self._in_force(), int(self._now_s() * 1e6))
        await self._place()
        if self._assigned:
            for records in (await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)).values():
                for verdict in self._read(records):
                    await self._tell(verdict)
        else:
            await asyncio.sleep(POLL_MS / 1000)
        if self._now_s() >= self._due_at_s:
            self._due_at_s = self._now_s() + DUE_S
            await self._look_at_silence(int(self._now_s() * 1e6))

    async def _look_at_silence(self, now_us: int) -> None:
        """Told once the log is read to where its end was after the silence had lasted long enough."""
        partitions = {self._where(watch) for watch in self._enforcement.silent(now_us)} & self._assigned
        missing = [each.partition for each in partitions if each not in self._asked]
        ends = await self._ends(missing) if missing else {}
        self._asked |= {TopicPartition(self._topic, partition): (end, now_us) for partition, end in ends.items()}
        for where, (end, asked_us) in list(self._asked.items()):
            if where not in self._assigned:
                del self._asked[where]
            elif await self._consumer.position(where) >= end:
                self._read_us[where] = asked_us
                del self._asked[where]
        for verdict in self._enforcement.due(now_us, lambda watch: self._read_us.get(self._where(watch), 0)):
            await self._tell(verdict)

    def _read(self, records: Sequence[Any]) -> list[Verdict]:
        keys, found = self._enforcement.keys(), []
        for record in records:
            if record.key in keys and (event := _event(record.value)) is not None:
                record_us = record.timestamp * 1000 if record.timestamp >= 0 else -1
                found += self._enforcement.seen(event, record.offset, record_us)
        return found

    async def _place(self) -> None:
        """Assign the watched keys' partitions, and go back to the confirmation of each act that is new."""
        watches = self._enforcement.watched()
        METRICS.enforcement_watched.set(len(watches))
        new = [watch for watch in watches if watch.response_id not in self._placed]
        wanted = frozenset(self._where(watch) for watch in watches)
        if not new and wanted == self._assigned:
            return
        kept = {each: await self._consumer.position(each) for each in self._assigned & wanted}
        start = await self._starts(new)
        self._consumer.assign(sorted(wanted))
        for partition in wanted:
            known = [offsets[partition] for offsets in (kept, start) if partition in offsets]
            self._consumer.seek(partition, min(known))
        for moved in start:
            self._asked.pop(moved, None)
            self._read_us.pop(moved, None)
        self._assigned = wanted
        self._placed = {watch.response_id for watch in watches}

    async def _starts(self, new: list[Watch]) -> dict[TopicPartition, int]:
        """By partition: the first record that may say something of the new watches."""
        times: dict[TopicPartition, int] = {}
        for watch in new:
            where, from_ms = self._where(watch), (watch.confirmed_us - self._enforcement.skew_us) // 1000
            times[where] = min(times.get(where, from_ms), from_ms)
        if not times:
            return {}
        ends = await self._ends([each.partition for each in times])  # before: what comes between is not passed over
        found = await self._consumer.offsets_for_times(times)
        return {each: found[each].offset if found.get(each) is not None else ends[each.partition] for each in times}

    def _where(self, watch: Watch) -> TopicPartition:
        return TopicPartition(self._topic, self._partition_of(watch.key_id.encode()))


def _event(value: bytes | None) -> Event | None:
    try:
        return _decoder.decode(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


_decoder: Final = msgspec.json.Decoder(Event)


@asynccontextmanager
async def witnessing(
    config: Config, enforcement: Enforcement, tell: Tell, in_force: InForce | None = None
) -> AsyncIterator[Callable[[], None]]:
    """A running witness until the block ends; yields what raises its failure. Raises `Fatal` without a broker."""
    kafka, topic = config.kafka, config.topics.requests
    count = (await partitions_of(kafka, [topic])).get(topic)
    if not count:
        raise ConfigError(f"{topic} does not exist: acts can't be watched (respond.enforcement.watch = false for none)")
    partition_of = functools.partial(_partition, config.worker.partitioner, count)
    stop = asyncio.Event()
    async with side_consumer(kafka) as consumer:
        ends = functools.partial(fetched_highwaters, kafka, topic)
        witness = Witness(consumer, topic, partition_of, ends, enforcement, tell, time.time, in_force)
        task = asyncio.create_task(witness.run(stop))
        try:
            yield functools.partial(_raise_failure, task)
        finally:
            stop.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _partition(partitioner: str, count: int, key: bytes) -> int:
    return PARTITIONERS[partitioner](key, count)


def _raise_failure(task: asyncio.Task[None]) -> None:
    if task.done() and not task.cancelled():
        task.result()


def acted(event_s: float | None, incident_s: float, decided_s: float, confirmed_s: float) -> None:
    """Measure the legs of one response up to its act; all in Unix time, the first by the gateway's clock, if known.

    `decided_s` is the broker's time of the grant, `confirmed_s` when the target had answered: what is written
    afterwards to close the act is no part of any leg.
    """
    legs = {"incident_to_decision": decided_s - incident_s, "decision_to_act": confirmed_s - decided_s}
    if event_s is not None:
        legs["event_to_incident"] = incident_s - event_s
    for leg, length_s in legs.items():
        METRICS.response_seconds.labels(leg).observe(max(0.0, length_s))
