from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pipeline.config.tree import Config, Worker
from pipeline.core import Slice
from pipeline.records import Record, of_records
from pipeline.runners.lanes import Lanes, Told, fitting, joined
from pipeline.runners.owned import Fetched


class Work:
    """Handles items when they are let go; says what began and what is done, in order."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.done: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.news = asyncio.Condition()

    async def handle(self, item: str) -> None:
        self.began.append(item)
        await self._tell()
        await self.gates.setdefault(item, asyncio.Event()).wait()
        self.done.append(item)
        await self._tell()

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()

    def let_go(self, item: str) -> None:
        self.gates.setdefault(item, asyncio.Event()).set()

    async def until(self, began: int = 0, done: int = 0) -> None:
        async with self.news:
            await asyncio.wait_for(
                self.news.wait_for(lambda: len(self.began) >= began and len(self.done) >= done), timeout=10
            )


async def _one_partition() -> Work:
    work = Work()
    lanes = Lanes(work.handle)
    await lanes.put(0, "a1")
    await lanes.put(0, "a2")
    await work.until(began=1)
    work.let_go("a2")
    work.let_go("a1")
    await work.until(done=2)
    await lanes.close()
    return work


def test_within_a_partition_the_next_begins_when_the_one_before_is_done() -> None:
    work = asyncio.run(_one_partition())
    assert work.began == work.done == ["a1", "a2"]


async def _two_partitions() -> Work:
    work = Work()
    lanes = Lanes(work.handle)
    for partition, item in ((0, "a1"), (1, "b1"), (0, "a2"), (1, "b2")):
        await lanes.put(partition, item)
    work.let_go("b1")
    await work.until(began=3, done=1)
    await lanes.close()
    return work


def test_a_partition_does_not_wait_for_another_ones_effects() -> None:
    work = asyncio.run(_two_partitions())
    assert work.began == ["a1", "b1", "b2"]
    assert work.done == ["b1"]


async def _full_line() -> None:
    work = Work()
    lanes = Lanes(work.handle)
    await lanes.put(0, "a1")
    await work.until(began=1)
    await lanes.put(0, "a2")
    try:
        async with asyncio.timeout(0.05):
            await lanes.put(0, "a3")
    finally:
        await lanes.close()


def test_a_line_holds_one_that_waits_and_no_more() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(_full_line())


async def _busy_line() -> Work:
    work = Work()
    lanes = Lanes(work.handle, lambda waiting, item: len(waiting) < 3, "+".join)
    await lanes.put(0, "a1")
    await work.until(began=1)
    for item in ("a2", "a3", "a4"):
        await lanes.put(0, item)
    late = asyncio.create_task(lanes.put(0, "a5"))  # the line is full
    await asyncio.sleep(0)
    assert not late.done()
    for item in ("a1", "a2+a3+a4", "a5"):
        work.let_go(item)
    await late
    await work.until(done=3)
    await lanes.close()
    return work


def test_what_came_while_a_line_was_busy_is_handled_together_up_to_its_room() -> None:
    assert asyncio.run(_busy_line()).done == ["a1", "a2+a3+a4", "a5"]


@dataclass
class One:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def one(offset: int) -> Record:
    tick = [("keywatch-tick", b"1")] if offset % 4 == 0 else []
    return One(offset, 10 * offset, b"k%d" % offset, b"v" * (offset % 5), tick)


def told(first: int, count: int, generation: int = 1, start: int | None = None, breaks: int = 0) -> Told:
    records = of_records([one(first + n) for n in range(count)]).part("t", 3, 0, count)
    return generation, Fetched(records, first if start is None else start, breaks, size_bytes=100 * count)


def plain(batch: Slice) -> tuple[object, ...]:
    return (
        batch.topic, batch.partition, list(batch.offsets), list(batch.keys), list(batch.values),
        list(batch.timestamps_ms), batch.ticks,
    )  # fmt: skip


def test_slices_that_follow_each_other_joined_are_the_slice_of_all_their_records() -> None:
    parts = [told(5, 3), told(8, 1), told(11, 6, start=9)]  # between 8 and 11 lies nothing, which is known
    generation, fetched = joined(parts)
    records = [one(n) for n in (5, 6, 7, 8, 11, 12, 13, 14, 15, 16)]
    assert plain(fetched.records) == plain(of_records(records).part("t", 3, 0, len(records)))
    assert (generation, fetched.start, fetched.breaks, fetched.size_bytes) == (1, 5, 0, 1_000)
    again = joined([(1, fetched), told(17, 2)])[1].records
    assert list(again.keys)[-3:] == [b"k16", b"k17", b"k18"]


def test_only_what_goes_on_in_one_generation_and_since_one_seek_is_joined_and_within_the_bounds_of_a_slice() -> None:
    fits = fitting(Config(worker=Worker(slice_events=10, slice_bytes=800)))
    waiting = [told(5, 3)]
    assert fits(waiting, told(8, 5))
    assert fits(waiting, told(9, 5, start=8)), "a hole that is known to be one"
    assert not fits(waiting, told(9, 5)), "nobody knows what lies at 8"
    assert not fits(waiting, told(7, 5)), "read again"
    assert not fits(waiting, told(8, 5, generation=2))
    assert not fits(waiting, told(8, 5, breaks=1))
    assert not fits(waiting, told(8, 6)), "900 bytes"
    roomy = fitting(Config(worker=Worker(slice_events=10)))
    assert roomy(waiting, told(8, 7))
    assert not roomy(waiting, told(8, 8)), "11 events"
