"""Rows: bounded, coalesced, retried with the same bytes; and the order of effects seen from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline import emit, memory
from pipeline.config.tree import Config, Topics
from pipeline.core import Effects, Rows, Sides, Slice
from pipeline.emit import Emitter
from pipeline.errors import Fatal, Retry
from pipeline.ports import Columns, Headers, Outgoing
from pipeline.rows import RowBuffer
from pipeline.state.checkpoint import Checkpoint, Directory
from pipeline.state.manifest import read_key
from schemas.incident import Incident
from tests.pipeline.counting_core import EVERY, SIDES, CountingCore, NewerCatalogue

NEWER = Sides(NewerCatalogue(), None, "0")


class Outside:
    """Row sink, publisher and page log in one; remembers the order of everything acknowledged."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.fail: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.tried = asyncio.Event()

    async def write(self, table: str, rows: Columns) -> None:
        self.tried.set()
        self.seen.append(("try", {name: list(values) for name, values in rows.items()}))
        await self.gate.wait()
        if self.fail:
            raise self.fail.pop(0)
        self.seen.append(("rows", table))

    async def close(self) -> None:
        pass

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        self.seen.append(("publish", topic))
        return 0

    async def publish_all(self, topic: str, records: Sequence[Outgoing]) -> None:
        for record in records:
            await self.publish(topic, *record)

    async def send(self, partition: int, key: bytes, value: bytes | None) -> int:
        self.seen.append((read_key(key).kind, value is None))
        return len(self.seen)

    async def send_all(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> int:
        return max([await self.send(partition, key, value) for key, value in records], default=-1)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.seen if kind != "try"]


def emitter_of(outside: Outside, rows: RowBuffer, kind: type[CountingCore] = CountingCore) -> Emitter:
    core = kind(0, Config(), SIDES, "id")
    checkpoint = Checkpoint(0, "id", 1, "m", Directory())
    return Emitter(core, checkpoint, topics=Topics(), publisher=outside, rows=rows, pages=outside)


def some_slice(core: CountingCore | Any, count: int) -> Slice:
    first = max(core.next_offset, 0)
    offsets = range(first, first + count)
    return Slice("t", 0, offsets, [None] * count, [b"a 1"] * count, [0] * count)


async def test_incidents_come_first_then_rows_then_pages_then_the_manifest() -> None:
    outside = Outside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100))
    await emitter.emit(emitter.core.process(some_slice(emitter.core, EVERY)))
    assert outside.kinds() == ["publish"]
    assert await emitter.checkpoint(lambda: 1, asyncio.Lock()) == EVERY
    assert outside.kinds() == ["publish", "rows", "page", "piece", "directory", "manifest"]


async def test_incidents_go_out_while_the_row_sink_is_away_and_nothing_is_covered() -> None:
    outside = Outside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100))
    outside.gate.clear()
    await emitter.emit(emitter.core.process(some_slice(emitter.core, EVERY)))
    waiting = asyncio.create_task(emitter.checkpoint(lambda: 1, asyncio.Lock()))
    await emitter.emit(emitter.core.process(some_slice(emitter.core, EVERY)))
    assert outside.kinds() == ["publish", "publish"]
    assert emitter.cover is None
    outside.gate.set()
    assert await waiting == 2 * EVERY


async def test_slices_are_judged_while_an_adoption_waits_for_the_row_sink() -> None:
    outside, lock = Outside(), asyncio.Lock()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100))
    outside.gate.clear()
    await emitter.emit(emitter.core.process(some_slice(emitter.core, 3)))
    adopting = asyncio.create_task(emitter.adopt(NEWER, lambda: 1, lock))
    await outside.tried.wait()
    assert not lock.locked(), "ClickHouse is away: no slice would be judged until it is back"
    outside.gate.set()
    await adopting
    assert emitter.cover == 3


class OwingCore(CountingCore):
    """Whenever it is asked, a row is due."""

    def due_rows(self) -> Rows:
        return {"counts": {"key_id": ["k"], "count": [1], "version": [0]}}


async def test_an_adoption_does_not_hold_slices_up_when_the_row_sink_goes_away_in_the_middle_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emit, "ADOPT_WAIT_S", 0.01)
    outside, lock = Outside(), asyncio.Lock()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100), OwingCore)
    emitter.core.process(some_slice(emitter.core, 3))
    outside.gate.clear()  # nothing waits before the lock is taken
    assert not await emitter.adopt(NEWER, lambda: 1, lock), "it would have waited under the lock until the sink is back"
    assert not lock.locked()
    assert emitter.sound
    assert emitter.core.adopt(SIDES) == {}, "the old ones are still the valid ones"
    outside.gate.set()
    assert await emitter.adopt(NEWER, lambda: 1, lock)
    assert emitter.cover == 3
    assert outside.kinds().index("rows") < outside.kinds().index("manifest"), "what was due is written first"


class SlowOutside(Outside):
    """It takes rows, but never at once."""

    async def write(self, table: str, rows: Columns) -> None:
        self.gate.clear()
        asyncio.get_running_loop().call_later(0.03, self.gate.set)
        await super().write(table, rows)


async def test_a_slow_row_sink_does_not_put_an_adoption_off_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit, "ADOPT_WAIT_S", 0.001)
    outside = SlowOutside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100), OwingCore)
    emitter.core.process(some_slice(emitter.core, 3))
    tries = [await emitter.adopt(NEWER, lambda: 1, asyncio.Lock()) for _ in range(12)]
    assert not tries[0], "slices don't wait longer than they must"
    assert any(tries)


async def test_a_partition_that_is_being_loaded_adopts_without_the_row_sink() -> None:
    outside = Outside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100))
    emitter.core.process(some_slice(emitter.core, 3))
    outside.gate.clear()
    await emitter.adopt(NEWER, lambda: 1, asyncio.Lock(), loading=True)
    assert emitter.cover == 3


class UndoneCore(CountingCore):
    """A crash has undone an incident."""

    def disown(self, published: Sequence[Incident]) -> Effects:
        return Effects(rows={"incidents": {"incident_id": [each.incident_id for each in published]}})


async def test_a_partition_that_is_being_loaded_does_not_wait_for_a_row_sink_that_hangs_with_what_a_crash_has_undone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    monkeypatch.setattr(emit, "ADOPT_WAIT_S", 0.01)
    outside = Outside()
    rows = RowBuffer(outside, 1.0, 100)
    emitter = emitter_of(outside, rows, UndoneCore)
    gone = emitter.core.process(some_slice(emitter.core, EVERY)).incidents
    outside.gate.clear()
    adopting = emitter.adopt(NEWER, lambda: 1, asyncio.Lock(), loading=True, published=gone)
    assert await asyncio.wait_for(adopting, 20)
    assert emitter.cover == EVERY
    assert "wait for ClickHouse" in caplog.text
    outside.gate.set()
    await rows.flush()
    assert ("rows", "incidents") in outside.seen


async def test_a_partition_without_any_state_writes_a_manifest_before_its_first_slice_and_commits_nothing() -> None:
    """What is published after it may be undone by a crash: who comes then must see by what it was judged."""
    outside = Outside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100))
    assert await emitter.adopt(SIDES, lambda: 1, asyncio.Lock(), loading=True)
    assert outside.kinds()[-1] == "manifest"
    assert emitter.cover is None
    assert await emitter.checkpoint(lambda: 1, asyncio.Lock()) is None
    assert outside.kinds().count("manifest") == 1, "nothing is new"


async def test_an_adoption_is_told_only_once_the_manifest_that_names_it_stands() -> None:
    """A row of one that a crash undid would say that events were judged with what they were not judged with."""
    outside = Outside()
    rows = RowBuffer(outside, 1.0, 100)
    emitter = emitter_of(outside, rows)
    emitter.core.process(some_slice(emitter.core, 3))
    await emitter.adopt(NEWER, lambda: 1, asyncio.Lock())
    await rows.flush()
    assert outside.seen[-1] == ("rows", "adoptions")
    assert outside.kinds().index("manifest") == len(outside.kinds()) - 2


async def test_an_adoption_of_one_who_was_thrown_out_meanwhile_is_told_only_if_the_partition_stays_his() -> None:
    """His manifest may have come after the next owner read the state: then nobody judges by it, and no row says so."""
    outside, answers = Outside(), [True, False, False, True]
    rows = RowBuffer(outside, 1.0, 100)
    emitter = emitter_of(outside, rows)

    async def still_ours(offset: int) -> bool:
        return answers.pop(0)

    emitter._still_ours = still_ours
    emitter.core.process(some_slice(emitter.core, 3))
    await emitter.adopt(NEWER, lambda: 1, asyncio.Lock())
    await emitter.checkpoint(lambda: 1, asyncio.Lock())
    assert "manifest" in outside.kinds()
    assert ("rows", "adoptions") not in outside.seen
    emitter.core.process(some_slice(emitter.core, 3))
    await emitter.checkpoint(lambda: 1, asyncio.Lock())
    newest = max(at for at, (kind, _) in enumerate(outside.seen) if kind == "manifest")
    assert outside.seen.index(("rows", "adoptions")) < newest


class PiecesCore(CountingCore):
    """Rows wait in two full pieces and a small one; `asked` tells whether a slice could have come at each of them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.left = [emit.AHEAD_ROWS, emit.AHEAD_ROWS, 1]
        self.lock = asyncio.Lock()
        self.asked: list[tuple[str, bool]] = []

    def rows_ahead(self, most: int) -> Rows:
        self.asked.append(("ahead", self.lock.locked()))
        n = self.left.pop(0)
        assert n <= most
        return {"counts": {"key_id": [f"k{len(self.left)}"] * n, "count": [1] * n, "version": list(range(n))}}

    def due_rows(self) -> Rows:
        self.asked.append(("due", self.lock.locked()))
        return {}


async def test_most_rows_of_a_checkpoint_are_made_between_slices_and_written_before_its_pages() -> None:
    outside = Outside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100), PiecesCore)
    core = emitter.core
    assert isinstance(core, PiecesCore)
    core.process(some_slice(core, EVERY))
    assert await emitter.checkpoint(lambda: 1, core.lock) == EVERY
    assert core.asked == [("ahead", False), ("ahead", False), ("ahead", False), ("due", True)]
    assert emitter.sound
    kinds = outside.kinds()
    assert "rows" in kinds[: kinds.index("page")]


async def test_a_checkpoint_cut_off_while_rows_are_made_ahead_makes_the_arrays_unsound() -> None:
    outside = Outside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100), PiecesCore)
    emitter.core.process(some_slice(emitter.core, 3))
    emitter.core.left[1:] = []  # type: ignore[attr-defined]
    with pytest.raises(IndexError):
        await emitter.checkpoint(lambda: 1, asyncio.Lock())
    assert not emitter.sound, "rows were taken that nobody may have written"


async def test_a_checkpoint_that_is_cut_off_makes_the_arrays_unsound() -> None:
    outside = Outside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100))
    emitter.core.process(some_slice(emitter.core, 3))

    async def away(partition: int, key: bytes, value: bytes | None) -> int:
        raise Fatal("gone")

    outside.send = away  # type: ignore[method-assign]
    with pytest.raises(Fatal):
        await emitter.checkpoint(lambda: 1, asyncio.Lock())
    assert not emitter.sound
    assert await emitter.checkpoint(lambda: 1, asyncio.Lock()) is None, "no further checkpoint from these arrays"


async def test_a_checkpoint_that_is_cut_off_behind_its_manifest_is_whole() -> None:
    """Its memory is given back in a thread: who waits for that may be cancelled there."""
    outside = Outside()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100))
    emitter.core.process(some_slice(emitter.core, 3))

    class Cut(ThreadPoolExecutor):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            if function is memory.freed:
                writing.cancel()
            return super().submit(function, *args, **kwargs)

    with Cut(1) as emitter._compressor:
        writing = asyncio.create_task(emitter.checkpoint(lambda: 1, asyncio.Lock()))
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert outside.kinds()[-1] == "manifest"
    assert emitter.sound
    assert emitter.cover == 3


async def test_who_was_thrown_out_of_the_group_adopts_nothing_and_writes_no_further_checkpoint() -> None:
    outside, asked = Outside(), list[int]()
    emitter = emitter_of(outside, RowBuffer(outside, 1.0, 100))

    async def taken_once(offset: int) -> bool:
        asked.append(offset)
        return len(asked) == 1

    emitter._still_ours = taken_once
    emitter.core.process(some_slice(emitter.core, 3))
    assert await emitter.checkpoint(lambda: 1, asyncio.Lock()) == 3
    written = len(outside.seen)
    emitter.core.process(some_slice(emitter.core, 2))
    assert await emitter.checkpoint(lambda: 1, asyncio.Lock()) == 3
    assert not await emitter.adopt(NEWER, lambda: 1, asyncio.Lock())
    assert asked == [0, 3, 3]
    assert len(outside.seen) == written
    assert emitter.sound


async def test_rows_are_written_again_with_the_same_content_after_a_retry() -> None:
    outside = Outside()
    outside.fail = [Retry("busy"), Retry("busy")]
    rows = RowBuffer(outside, 1.0, 100)
    rows.add({"t": {"a": [1, 2]}})
    flushing = asyncio.create_task(rows.flush())
    await outside.tried.wait()
    rows.add({"t": {"a": [3]}})
    await flushing
    tries = [content for kind, content in outside.seen if kind == "try"]
    assert tries == [{"a": [1, 2]}] * 3
    await rows.flush()
    assert rows.pending_rows == 0
    assert rows.rows_written == 3


async def test_at_the_bound_there_is_no_room_until_rows_are_written() -> None:
    outside = Outside()
    rows = RowBuffer(outside, 1.0, 3)
    rows.add({"t": {"a": [1, 2, 3, 4]}})
    assert rows.full
    waiting = asyncio.create_task(rows.room(1).__aenter__())
    await asyncio.sleep(0)
    assert not waiting.done()
    await rows.flush()
    await waiting
    assert not rows.full


async def test_rows_added_before_a_flush_are_all_acknowledged_by_it() -> None:
    outside = Outside()
    rows = RowBuffer(outside, 1.0, 100)
    rows.add({"t": {"a": [1]}, "u": {"b": [1], "c": [2]}})
    first = asyncio.create_task(rows.flush())
    await asyncio.sleep(0)
    rows.add({"t": {"a": [2]}})
    await asyncio.gather(first, rows.flush())
    assert outside.kinds() == ["rows", "rows", "rows"]
    assert rows.pending_rows == 0


def test_rows_are_appended_column_by_column_without_changing_what_was_handed_in() -> None:
    from pipeline.rows import append_rows, count_rows

    target: dict[str, Columns] = {}
    more: dict[str, dict[str, list[int]]] = {"t": {"a": [1], "b": [2]}}
    append_rows(target, more)
    append_rows(target, more)
    assert target == {"t": {"a": [1, 1], "b": [2, 2]}}
    assert count_rows(target) == 2
    assert more == {"t": {"a": [1], "b": [2]}}, "what was handed in is not changed"


async def test_slices_of_many_partitions_at_once_do_not_pass_the_bound_together() -> None:
    """Each is asked while the core has others: 64 partitions had 512,000 rows on top of a bound of 500,000."""
    outside = Outside()
    outside.gate.clear()
    rows, most, judged = RowBuffer(outside, 1.0, 50), 0, 0

    async def partition() -> None:
        nonlocal most, judged
        async with rows.room(10):
            await asyncio.sleep(0)  # the core and the publisher have it
            rows.add({"t": {"a": [1] * 10}})
            most, judged = max(most, rows.pending_rows), judged + 1

    slices = [asyncio.create_task(partition()) for _ in range(64)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert (rows.pending_rows, judged) == (50, 5)
    outside.gate.set()
    while judged < len(slices):
        await rows.flush()
        await asyncio.sleep(0)
    await asyncio.gather(*slices)
    await rows.flush()
    assert (most, rows.rows_written, rows.pending_rows) == (50, 640, 0)


async def test_a_large_slice_is_not_passed_by_small_ones_for_ever() -> None:
    rows, done = RowBuffer(Outside(), 1.0, 10), list[int]()

    async def slice_of(events: int) -> None:
        async with rows.room(events):
            await asyncio.sleep(0)
            done.append(events)

    await asyncio.gather(*(slice_of(events) for events in (1, 10, 1, 1, 1)))
    assert done == [1, 10, 1, 1, 1]


async def test_a_slice_that_is_larger_than_the_bound_goes_alone() -> None:
    rows = RowBuffer(Outside(), 1.0, 3)
    async with rows.room(10):
        other = asyncio.create_task(rows.room(1).__aenter__())
        await asyncio.sleep(0)
        assert not other.done()
    await other
