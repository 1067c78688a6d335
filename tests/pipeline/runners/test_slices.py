"""Cutting a fetch into slices, what is known of the log before one, and Faust's codecs out of the way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import faust
import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tree import Config, Worker
from pipeline.core import TICK_HEADER
from pipeline.records import of_records
from pipeline.runners.slices import (
    Delivered,
    FetchThread,
    NoReadOffsets,
    PassThrough,
    Positions,
    SliceConsumer,
    cut,
    in_turns,
    transport_of,
)
from pipeline.runners.worker import App, settings
from pipeline.sinks.kafka import REQUESTS_FETCH_BYTES


@dataclass
class Record:
    offset: int
    value: bytes | None
    key: bytes | None = b"k"
    timestamp: int = 7
    headers: Sequence[tuple[str, bytes]] = ()


@given(
    st.lists(st.tuples(st.integers(1, 5), st.none() | st.binary(max_size=60)), min_size=1, max_size=60),
    st.integers(1, 10),
    st.integers(1, 100),
    st.none() | st.integers(0, 3),
)
def test_slices_hold_every_record_once_in_order_within_the_bounds(
    gaps: list[tuple[int, bytes | None]], most: int, most_bytes: int, before: int | None
) -> None:
    offset, records = 0, []
    for gap, value in gaps:
        offset += gap
        records.append(Record(offset, value))
    start = None if before is None else max(0, records[0].offset - before)
    config = Config(worker=Worker(slice_events=most, slice_bytes=most_bytes))
    slices = list(cut("t", 0, of_records(records), start, config))
    assert [o for fetched in slices for o in fetched.records.offsets] == [r.offset for r in records]
    assert [v for fetched in slices for v in fetched.records.values] == [r.value for r in records]
    assert slices[0].start == (records[0].offset if start is None else start)
    for one, following in itertools.pairwise(slices):
        assert following.start == one.records.next
    for fetched in slices:
        sizes = [len(v or b"") + 1 for v in fetched.records.values]
        assert len(sizes) <= most
        assert len(sizes) == 1 or sum(sizes) <= most_bytes


@given(st.lists(st.lists(st.integers(), max_size=5), max_size=4))
def test_partitions_take_turns_and_each_keeps_its_order(lines: list[list[int]]) -> None:
    tagged: Any = [[(number, at, value) for at, value in enumerate(line)] for number, line in enumerate(lines)]
    turns: Any = list(in_turns([iter(line) for line in tagged]))
    assert turns == sorted((each for line in tagged for each in line), key=lambda each: (each[1], each[0]))


def test_tick_records_are_told_by_their_header() -> None:
    records = [Record(0, b"a"), Record(1, b"", headers=((TICK_HEADER, b"1"),)), Record(2, b"b", headers=(("x", b""),))]
    (fetched,) = cut("t", 0, of_records(records), None, Config())
    assert fetched.records.ticks == frozenset({1})


def test_what_two_fetches_without_a_seek_between_them_leave_out_is_a_hole() -> None:
    positions = Positions()
    positions.broken(0, 100)
    assert positions.delivered(0, 110) == (100, 1)
    assert positions.delivered(0, 130) == (110, 1)


def test_a_fetch_behind_a_position_that_nobody_knows_claims_nothing_and_the_next_goes_on_from_it() -> None:
    positions = Positions()
    positions.broken(0)
    assert positions.delivered(0, 110) == (None, 1)
    assert positions.delivered(0, 120) == (110, 1)


class Waiting:
    """aiokafka's consumer of one partition: a fetch waits until something `comes`."""

    _closed = False

    def __init__(self) -> None:
        self._fetcher, self._subscriptions = self, self
        self.fetched: asyncio.Queue[list[Record]] = asyncio.Queue()
        self.position = 0

    def fetch_context(self) -> Any:
        return contextlib.nullcontext()

    def seek(self, tp: TP, offset: int) -> None:
        self.position = offset

    async def fetched_records(self, partitions: set[TP], **options: Any) -> dict[TP, list[Record]]:
        return dict.fromkeys(partitions, await self.fetched.get())


async def test_a_fetch_that_waited_through_a_seek_starts_where_that_has_set_the_position() -> None:
    """Retention had deleted what lay there: what was left was dropped as fetched before the seek, time and again."""
    tp, waiting = TP("api.requests", 0), Waiting()
    thread: Any = object.__new__(FetchThread)
    thread._consumer = waiting
    thread.consumer = SimpleNamespace(positions=Positions(), config=Config(), flow_active=True)
    positions = thread.consumer.positions
    fetch = asyncio.create_task(thread._fetch_records(waiting, {tp}, timeout=1.0))
    await asyncio.sleep(0)
    await thread.set_position(tp, 40)
    waiting.fetched.put_nowait([Record(90, b"x")])
    assert (await fetch).starts == {tp: (40, positions.breaks(0))}
    waiting.fetched.put_nowait([Record(95, b"x")])
    before = await thread._fetch_records(waiting, {tp}, timeout=1.0)
    await thread.set_position(tp, 40)
    assert before.starts[tp] == (91, positions.breaks(0) - 1), "what came before a seek is told by the count"


def test_faust_forgets_what_it_has_read() -> None:
    offsets = NoReadOffsets(None)
    offsets[TP("t", 0)] = 500
    assert offsets[TP("t", 0)] is None


async def test_faust_hands_a_slice_through_untouched() -> None:
    app: Any = faust.App("contract", broker="kafka://localhost:1", web_enabled=False)
    value = object()
    message: Any = SimpleNamespace(key=b"k", value=value, headers=[])
    schema = PassThrough()
    assert schema.loads_value(app, message) is value
    event = await schema.compile(app)(message)
    assert event.value is value


def consumer_without(error: Exception, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A consumer whose flow is stopped and whose partition goes away, with `error`, while its position is set."""
    tp = TP("api.requests", 0)
    consumer: Any = object.__new__(SliceConsumer)
    consumer.config, consumer._seeking = Config(), asyncio.Lock()
    consumer.flow_active, consumer._read_offset = False, NoReadOffsets(None)
    monkeypatch.setattr(consumer, "app", SimpleNamespace(consumer_generation_id=1), raising=False)
    monkeypatch.setattr(SliceConsumer, "should_stop", False)
    monkeypatch.setattr(consumer, "assignment", lambda: {tp})
    taken = AsyncMock(side_effect=error)
    monkeypatch.setattr(consumer, "_thread", SimpleNamespace(call_thread=taken, set_position=None), raising=False)
    monkeypatch.setattr(consumer, "seek_to_committed", taken)
    monkeypatch.setattr(consumer, "_wait_next_records", AsyncMock(return_value=({tp: [Record(5, b"x")]}, {tp})))
    return consumer


@pytest.mark.parametrize("error", [IllegalStateError("No current assignment"), AssertionError("none assigned")])
async def test_a_partition_taken_away_while_its_position_is_set_does_not_end_the_worker(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, tp = consumer_without(error, monkeypatch), TP("api.requests", 0)
    assert [message async for message in consumer.getmany(1.0)] == []
    await consumer.seek_back(tp, 40)
    assert consumer._thread.call_thread.await_count == 2, "each of them tried"


async def test_a_fetch_is_not_kept_while_its_slices_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """All partitions of a fetch are joined before the second slice of any is taken: there were two copies of all."""
    consumer = consumer_without(ConnectionError("no seek"), monkeypatch)
    consumer.flow_active, consumer.polled = True, lambda ends: None
    consumer.config = Config(worker=Worker(slice_events=1))
    monkeypatch.setattr(consumer, "highwater", lambda tp: None)
    monkeypatch.setattr(consumer, "_slice_message", lambda tp, fetched: SimpleNamespace(tp=tp, value=fetched))
    tps = [TP("api.requests", number) for number in range(3)]
    monkeypatch.setattr(consumer, "assignment", lambda: set(tps))
    fetch = Delivered({tp: [Record(5, b"x"), Record(6, b"y")] for tp in tps})
    fetch.starts = dict.fromkeys(tps, (5, 0))
    monkeypatch.setattr(consumer, "_wait_next_records", AsyncMock(return_value=(fetch, set(tps))))
    seen = [(list(map(len, fetch.values())), tp.partition) async for tp, _ in consumer.getmany(1.0)]
    assert [number for _, number in seen] == [0, 1, 2, 0, 1, 2]
    assert seen[3][0] == [0, 0, 0]


async def test_an_answer_of_a_broker_is_a_few_partitions_worth_however_many_a_worker_has() -> None:
    config = Config()
    app: Any = App("contract", **settings(config))
    app.transport = transport_of(app, config, lambda number: None, lambda ends: None)
    thread = app.consumer._thread
    made = thread._create_consumer(asyncio.get_running_loop())
    assert made._max_partition_fetch_bytes == REQUESTS_FETCH_BYTES
    assert REQUESTS_FETCH_BYTES < made._fetch_max_bytes <= 8 * REQUESTS_FETCH_BYTES
    await made.stop()
    thread.thread_loop.close()


async def test_any_other_failure_of_a_seek_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = consumer_without(ConnectionError("gone"), monkeypatch)
    with pytest.raises(ConnectionError):
        await consumer.seek_back(TP("api.requests", 0), 40)
