from __future__ import annotations

import asyncio

import pytest

from pipeline.runners.lanes import Lanes


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
