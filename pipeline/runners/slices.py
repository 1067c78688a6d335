"""The transport: Faust's aiokafka consumer, made to yield one message for all records of a fetch (a slice).

What is overridden, and why (reference/mechanisms.md, section 2; every name is pinned in tests/contracts):
 - `getmany` cuts what one fetch brought of the request topic into slices (`batches.py`); others stay per message.
 - offsets: nothing is acked. `_new_offset` is what the last acknowledged manifest covers, `_add_gap` does nothing.
 - Faust loses slices at the end of a recovery and drops by its own read offset. So every slice says from where on the
   log before it is known to be empty; `Shell.handle` asks for a seek if that does not reach back to the state.
 - `on_buffer_full` does nothing, since the partition might never be fetched again.
 - `highwaters` tell Faust that there is no page to recover: pages are read in bulk by a consumer of their own.
 - a fetch that finds little is answered after FETCH_WAIT_MS; Faust's own wait cannot be set.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

import faust
import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from pipeline.config.tree import Config
from pipeline.faults import reach
from pipeline.records import Records
from pipeline.runners.batches import install, joined
from pipeline.runners.owned import Fetched

log = logging.getLogger(__name__)

TIMESTAMP_CREATE_TIME: Final = 0
FETCH_WAIT_MS: Final = 100
"""How long a broker may hold a fetch that finds less than FETCH_BYTES.

A fetch costs, with the slices that come of it, some 10 ms of processor time however little it brings: were it answered
at the first record, 1,000 events a second would fill a processor. The broker waits, not we: what a client holds back
is as old as its fetch, what a broker holds back comes whole. aiokafka has one fetch at a time on its way to a broker
and leaves out partitions whose records still wait here, so this is also what a partition at its end holds up others.
Measured at 25,000 events a second in four partitions: with 60 ms and 256 KB the core's thread was busy for 0.94 of the
time, with 100 ms and 1 MB for 0.54 of it, and 99 of 100 incidents came within 278 ms in the place of 516.
"""
FETCH_BYTES: Final = 1 << 20
"""A fetch that finds so much is answered at once: more waits already, or soon does."""
FETCH_MOST_BYTES: Final = 8 << 20
"""Of all partitions together in one answer of a broker, some 2 s of work; who is left out is asked for next.

A fetch is taken whole, unpacked (4 times as large where gateways compress) and joined. An answer of aiokafka's own
50 MB (25 partitions) took 456 MB, of each broker: a worker that its memory has killed comes back to such a backlog.
"""


def cut(
    topic: str, partition: int, records: Records, start: int | None, config: Config, breaks: int = 0
) -> Iterator[Fetched]:
    """Slices of at most slice_events records and about slice_bytes bytes; one record alone may be larger.

    `start`: the log holds nothing in [start, first record); None if that isn't known.
    """
    most, most_bytes = config.worker.slice_events, config.worker.slice_bytes
    after = int(records.offsets[0]) if start is None else start
    bytes_to = np.concatenate([[0], np.cumsum(records.sizes())])
    begin = 0
    while begin < len(records):
        fits = int(np.searchsorted(bytes_to, bytes_to[begin] + most_bytes, side="right")) - 1
        end = max(min(begin + most, fits), begin + 1)
        some = records.part(topic, partition, begin, end)
        yield Fetched(some, after, breaks, int(bytes_to[end] - bytes_to[begin]))
        after, begin = some.next, end


def in_turns(lines: Sequence[Iterator[ConsumerMessage]]) -> Iterator[ConsumerMessage]:
    """One of each line after the other: so that partitions can be worked on side by side."""
    for turn in zip_longest(*lines):
        yield from (message for message in turn if message is not None)


class Positions:
    """Up to where each partition was delivered without a break, as far as it is known; seeks break it.

    Told where fetches come back and positions are set, so that each fetch is wholly before or wholly behind a seek.
    """

    def __init__(self) -> None:
        self._next: dict[int, int | None] = {}
        self._breaks: defaultdict[int, int] = defaultdict(int)

    def delivered(self, partition: int, following: int) -> tuple[int | None, int]:
        """The start of what a fetch has just brought, None if that isn't known, and the count of breaks.

        `following`: its last offset + 1. To be told before anything else is awaited.
        """
        start = self._next.get(partition)
        self._next[partition] = following
        return start, self._breaks[partition]

    def breaks(self, partition: int) -> int:
        """How often the position was set: what was fetched at another count is from before the last seek."""
        return self._breaks[partition]

    def broken(self, partition: int, position: int | None = None) -> None:
        """The position has been set; None where it isn't known to where."""
        self._breaks[partition] += 1
        self._next[partition] = position


class Delivered(dict[TP, Any]):
    """What a fetch brought, and of the request topic's partitions where it starts (`Positions.delivered`)."""

    starts: Mapping[TP, tuple[int | None, int]]


class NoReadOffsets(defaultdict[TP, Any]):
    """In place of `Consumer._read_offset`: remembers nothing, since Faust silently drops what lies before it."""

    def __getitem__(self, tp: TP) -> None:
        return None


class PassThrough(faust.Schema[Any, Any]):
    """Faust's codecs never see a slice."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:
        """None: a slice has no key."""
        return None

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:
        """The `Fetched` itself."""
        return message.value


class PageTable(faust.Table[Any, Any]):
    """The topic of pages as Faust's table: what Faust assigns, but neither keeps nor reads.

    Its recovery costs 100 us a page and more, so the table always says that it has what `SliceConsumer.highwaters` says
    there is, and Faust goes straight to `on_recover`. The changelog's partitions stay paused.
    """

    assigned: Callable[[TP], None] = staticmethod(lambda tp: None)
    topic_name: str = ""

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Nothing: Faust reads none."""

    def persisted_offset(self, tp: TP) -> int:
        """All that Faust is told there is. Faust asks once for each partition of an assignment."""
        self.assigned(tp)
        return 0

    def _changelog_topic_name(self) -> str:
        return self.topic_name


@contextlib.contextmanager
def unless_revoked() -> Iterator[None]:
    """A position asked for or set while a rebalance takes the partition away: the next assignment sets it anew.

    aiokafka raises AssertionError where no partition at all is left.
    """
    try:
        yield
    except (IllegalStateError, AssertionError) as error:
        log.info("no position set, a rebalance came first: %s", error)


class FetchThread(driver.AIOKafkaConsumerThread):
    """Faust's fetching thread; what is overridden here is pinned in tests/contracts.

    A commit on its way while the group is joined anew waits behind that request at the coordinator and then names a
    former generation. aiokafka forgets the new one over it and joins once more, which moves all other members: two
    workers whose checkpoints fall into it never come to rest. So there is none while `joining`.
    """

    joining = False
    between = False
    consumer: Any

    def let_go(self) -> None:
        """Partitions were revoked: until the next ones are known and loaded there is no commit."""
        self.joining = self.between = True

    def loaded(self) -> None:
        """An assignment is loaded; where another rebalance has overtaken that, it is the one before."""
        self.joining = self.between

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """The group is joined."""
        self.between = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def set_position(self, tp: TP, offset: int) -> None:
        """To where the state ends."""
        self._ensure_consumer().seek(tp, offset)
        self.consumer.positions.broken(tp.partition, offset)

    async def to_committed(self) -> Mapping[TP, int]:
        """Of everything assigned."""
        self._forget_positions()
        committed: Mapping[TP, int] = await self._ensure_consumer().seek_to_committed()
        self._forget_positions()
        return committed

    def _forget_positions(self) -> None:
        for tp in self.assignment():
            if tp.topic == self.consumer.config.topics.requests:
                self.consumer.positions.broken(tp.partition)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Called by Faust."""
        committed: Mapping[TP, int] = await self.call_thread(self.to_committed)
        return committed

    async def _fetch_records(self, *args: Any, **options: Any) -> Delivered:
        found = Delivered(await super()._fetch_records(*args, **options))
        positions, requests = self.consumer.positions, self.consumer.config.topics.requests
        found.starts = {
            tp: positions.delivered(tp.partition, batch[-1].offset + 1)
            for tp, batch in found.items()
            if tp.topic == requests and batch
        }
        return found

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return not self.joining and await super()._commit(offsets)

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms, consumer._fetch_min_bytes = FETCH_WAIT_MS, FETCH_BYTES
        consumer._fetch_max_bytes = FETCH_MOST_BYTES
        return consumer


class SliceConsumer(driver.Consumer):
    """See the module. `config` and `cover` are set by `transport_of`."""

    config: Config
    cover: Callable[[int], int | None]
    polled: Callable[[Mapping[int, int]], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = NoReadOffsets(None)
        self.positions = Positions()
        self._seeking = asyncio.Lock()

    def _new_consumer_thread(self) -> FetchThread:
        return FetchThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(  # its signature is Faust's
        self,
        timeout: float,  # noqa: ASYNC109
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """One message per slice of the request topic, one per record of others."""
        generation = self.app.consumer_generation_id
        records: Any  # `Delivered`, or empty
        records, active = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            with unless_revoked():
                await self.perform_seek()
            return
        assigned = self.assignment()
        self.polled(self._ends(assigned))
        wanted = {tp: batch for tp, batch in records.items() if batch and tp in assigned}
        for message in in_turns([self._messages(tp, batch, records.starts.get(tp)) for tp, batch in wanted.items()]):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or message.tp in active or message.tp in self._buffered_partitions:
                yield message.tp, message

    def _ends(self, assigned: Iterable[TP]) -> dict[int, int]:
        requests = (tp for tp in assigned if tp.topic == self.config.topics.requests)
        return {tp.partition: end for tp in requests if (end := self.highwater(tp)) is not None}

    def _messages(self, tp: TP, batch: list[Any], at: tuple[int | None, int] | None) -> Iterator[ConsumerMessage]:
        if at is None:
            yield from (self._to_message(tp, record) for record in batch)
            return
        start, breaks = at
        records = joined(batch)
        batch.clear()  # a copy of it is enough while slices wait
        for fetched in cut(tp.topic, tp.partition, records, start, self.config, breaks):
            yield self._slice_message(tp, fetched)

    def _slice_message(self, tp: TP, fetched: Fetched) -> ConsumerMessage:
        value: Any = fetched  # Faust's type says bytes, but only codecs would mind
        return ConsumerMessage(
            tp.topic, tp.partition, fetched.records.first, fetched.records.timestamps_ms[-1] / 1000.0,
            TIMESTAMP_CREATE_TIME, [], None, value, None, 0, 0, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def seek_back(self, tp: TP, offset: int) -> None:
        """Set the position; slices fetched before claim nothing about the log before them."""
        async with self._seeking:
            if tp in self.assignment():
                thread: Any = self._thread
                with unless_revoked():
                    await thread.call_thread(thread.set_position, tp, offset)

    async def perform_seek(self) -> None:
        """Faust's seek to the committed offsets."""
        async with self._seeking:
            await super().perform_seek()

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Asked only of the pages topic, before a recovery: one record, which `PageTable` says it has."""
        return dict.fromkeys(partitions, 1)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Faust's, with the moment after it named."""
        done: bool = await super().commit(topics, start_new_transaction)
        if done:
            reach("after_commit")
        return done

    def joining(self, joining: bool) -> None:
        """Whether partitions were let go and those of the next generation are not known yet."""
        thread: Any = self._thread
        if joining:
            thread.let_go()
        else:
            thread.loaded()

    async def still_ours(self, tp: TP, offset: int) -> bool:
        """Commit again what is covered, to hear whether the group still knows us.

        A member that was thrown out has no generation, and an empty group would take an offset from it; one that has
        joined again has another, in which somebody else may have owned the partition, before Faust is told.
        """
        joined = self._thread._ensure_consumer()._coordinator.generation
        known = joined >= 0 and joined == self.app.consumer_generation_id
        return known and tp in self.assignment() and await self._commit({tp: offset})

    def _new_offset(self, tp: TP) -> int | None:
        return self.cover(tp.partition) if tp.topic == self.config.topics.requests else None

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self.assignment() if self._new_offset(tp) is not None)

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: Faust would stop fetching the partition until a callback comes that a cleared queue forgets.

        A full queue holds the fetcher anyway, and what one fetch brings is bounded.
        """

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: holes are the shell's business."""


def transport_of(
    app: Any, config: Config, cover: Callable[[int], int | None], polled: Callable[[Mapping[int, int]], None]
) -> driver.Transport:
    """Faust's aiokafka transport with our consumer."""

    class Consumer(SliceConsumer):
        pass

    class Transport(driver.Transport):
        pass

    install(config.topics.requests)
    Consumer.config, Consumer.cover, Consumer.polled = config, staticmethod(cover), staticmethod(polled)
    Transport.Consumer = Consumer
    return Transport(app.conf.broker, app)
