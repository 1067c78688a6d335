"""A checkpoint of all partitions lets slices in between its copies."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from pipeline.config.tree import Config, Topics
from pipeline.core import Effects, Rows, Slice
from pipeline.emit import Emitter
from pipeline.rows import RowBuffer
from pipeline.runners.turns import Turns
from pipeline.state.checkpoint import Checkpoint, Directory
from tests.pipeline.counting_core import SIDES, CountingCore
from tests.pipeline.test_emit import Outside, some_slice

PARTITIONS = 4


class Seen:
    """The order of what the core's thread did; the first copy waits for `go`."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.copying = threading.Event()
        self.go = threading.Event()


class TellingCore(CountingCore):
    """Tells of each slice and each copy."""

    def __init__(self, partition: int, seen: Seen) -> None:
        super().__init__(partition, Config(), SIDES, "id")
        self.seen = seen

    def process(self, batch: Slice) -> Effects:
        self.seen.order.append("slice")
        return super().process(batch)

    def due_rows(self) -> Rows:
        self.seen.order.append("copy")
        self.seen.copying.set()
        assert self.seen.go.wait(20.0)
        return super().due_rows()


def emitters(seen: Seen, thread: ThreadPoolExecutor) -> list[Emitter]:
    outside, made = Outside(), []
    rows = RowBuffer(outside, 1.0, 10_000)
    for number in range(PARTITIONS):
        core, writer = TellingCore(number, seen), Checkpoint(number, "id", 1, "m", Directory())
        made.append(
            Emitter(
                core, writer, topics=Topics(), publisher=outside, rows=rows, pages=outside, core_thread=thread,
            )
        )  # fmt: skip
        core.process(some_slice(core, 3))
    seen.order.clear()
    return made


async def test_a_slice_waits_for_one_copy_at_most() -> None:
    seen, turns, thread, loop = Seen(), Turns(), ThreadPoolExecutor(1), asyncio.get_running_loop()
    made = emitters(seen, thread)
    locks = [asyncio.Lock() for _ in made]
    pairs = zip(made, locks, strict=True)
    saving = asyncio.gather(*(each.checkpoint(lambda: 1, turns.then(lock)) for each, lock in pairs))
    assert await asyncio.to_thread(seen.copying.wait, 20.0)
    last = made[-1].core
    async with asyncio.timeout(20.0), locks[-1]:  # free: its partition waits for its turn without it
        judging = loop.run_in_executor(thread, last.process, some_slice(last, 2))
        seen.go.set()
        await judging
    assert seen.order[:2] == ["copy", "slice"]
    assert await saving == [3, 3, 3, 5]
    assert seen.order.count("copy") == PARTITIONS
    thread.shutdown()
