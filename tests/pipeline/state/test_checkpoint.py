"""Checkpoints: atomic at every send, verified to the byte, migrated by name, fenced by epoch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import memory
from pipeline.config.tree import Config
from pipeline.core import Core, Effects, Rows, Sides, Slice
from pipeline.errors import Fatal
from pipeline.state.checkpoint import Checkpoint, Directory
from pipeline.state.manifest import CHUNK_BYTES, describe, key_bytes, read_key, restore_dtype
from pipeline.state.pages import Blobs, PagedArray
from pipeline.state.recover import fill, load, writer_of
from schemas.incident import Incident
from tests.pipeline.counting_core import COUNTS, SIDES, CountingCore, NewerCatalogue

Log = list[tuple[bytes, bytes | None]]
CONFIG = Config()
members = itertools.count()


def staged(log: Log) -> dict[bytes, bytes]:
    """The last value of every key, as compaction leaves it."""
    pages: dict[bytes, bytes] = {}
    for key, value in log:
        if value is None:
            pages.pop(key, None)
        else:
            pages[key] = value
    return pages


def new_core(block_rows: int = 8) -> CountingCore:
    return CountingCore(0, CONFIG, SIDES, "id", block_rows)


def first_writer() -> Checkpoint:
    return Checkpoint(0, "id", 1, f"m{next(members)}", Directory())


def count(core: CountingCore, keys: list[int]) -> None:
    """A slice with one record of each of these keys."""
    first = max(core.next_offset, 0)
    offsets = range(first, first + len(keys))
    core.process(Slice("t", 0, offsets, [None] * len(keys), [b"k%d x" % key for key in keys], [0] * len(keys)))


def sends(writer: Checkpoint, core: Core, generation: int = 1) -> tuple[Any, Log]:
    """What a checkpoint sends, in the order of emit.py."""
    draft = writer.draft(writer.plan(core, generation))
    return draft, [*((key, None) for key in writer.due), *draft.records()]


def checkpoint(writer: Checkpoint, core: Core, log: Log, generation: int = 1) -> None:
    draft, records = sends(writer, core, generation)
    log += records
    writer.accept(draft)


def recovered(log: Log, committed: int | None = None) -> tuple[CountingCore, Checkpoint]:
    core = new_core()
    state = load(0, staged(log), committed)
    fill(core, state)
    return core, writer_of(state, "id", f"m{next(members)}")


def test_what_was_put_into_the_arrays_is_held_no_longer() -> None:
    core, log = new_core(), list[tuple[bytes, bytes | None]]()
    count(core, [n % 23 for n in range(60)])
    checkpoint(first_writer(), core, log)
    state = load(0, staged(log), None)
    assert any(state.pages.values())
    again = new_core()
    fill(again, state)
    assert not any(state.pages.values())
    assert not state.pieces
    assert again.next_offset == core.next_offset
    for one, other in zip(again.arrays, core.arrays, strict=True):
        assert one.data[: one.used].tobytes() == other.data[: other.used].tobytes()


def test_memory_is_given_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []
    monkeypatch.setattr(memory, "_trim", trims.append)
    monkeypatch.setattr(memory, "_freed", 0)
    for _ in range(5):
        memory.freed(memory.EVERY_BYTES // 2)
    assert len(trims) == 2
    monkeypatch.setattr(memory, "_trim", None)
    memory.give_back()  # nothing where the C library cannot do it


steps = st.lists(
    st.tuples(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.none() | st.integers(0, 25)),
    min_size=1,
    max_size=12,
)


@given(steps)
@settings(max_examples=150)
def test_a_crash_between_any_two_sends_gives_the_last_good_checkpoint_exactly(
    script: list[tuple[list[int], int | None]],
) -> None:
    log: Log = []
    core, writer = new_core(), first_writer()
    good: dict[str, int] = {}
    good_next = -1
    for generation, (keys, crash_after) in enumerate(script):
        count(core, keys)
        draft, records = sends(writer, core, generation)
        if crash_after is None or crash_after >= len(records):
            log += records
            writer.accept(draft)
            good, good_next = core.counts(), core.next_offset
            continue
        log += records[:crash_after]
        core, writer = recovered(log, max(good_next, 0))
        assert core.counts() == good
        assert core.next_offset == good_next
    again, _ = recovered(log)
    assert again.counts() == good


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=4, max_size=12), st.integers(2, 3))
@settings(max_examples=50)
def test_what_older_writers_left_goes_after_the_second_good_checkpoint(slices: list[list[int]], lives: int) -> None:
    log: Log = []
    core, writer = new_core(), first_writer()
    for number, keys in enumerate(slices):
        if number % lives == lives - 1:
            core, writer = recovered(log)
        count(core, keys)
        checkpoint(writer, core, log)
    for _ in range(3):  # idle ones are enough to bring the tombstones out
        count(core, [0])
        checkpoint(writer, core, log)
    epochs = {read_key(raw).epoch for raw in staged(log) if read_key(raw).kind == "manifest"}
    assert epochs == {writer.epoch}
    assert recovered(log)[0].counts() == core.counts()
    named = len(staged(log)) - len(load(0, staged(log), None).garbage)
    assert len(staged(log)) <= 2 * named + 2  # pieces of the last two checkpoints are tombstoned with the next ones


def full_log() -> Log:
    log: Log = []
    core, writer = new_core(), Checkpoint(0, "id", 1, "me", Directory())
    for keys in ([1, 2, 3, 4, 5], [1, 9], [5, 5]):
        count(core, keys)
        checkpoint(writer, core, log)
    return log


@given(st.data())
@settings(max_examples=200)
def test_one_wrong_byte_in_anything_the_manifest_names_is_fatal(data: st.DataObject) -> None:
    log = full_log()
    state = load(0, staged(log), None)
    named = sorted(raw for raw in staged(log) if raw not in state.garbage)
    pages = staged(log)
    key = data.draw(st.sampled_from(named))
    at = data.draw(st.integers(0, len(pages[key]) - 1))
    value = bytearray(pages[key])
    value[at] ^= data.draw(st.integers(1, 255))
    pages[key] = bytes(value)
    with pytest.raises(Fatal):
        fill(new_core(), load(0, pages, None))


def test_any_missing_page_is_fatal() -> None:
    pages = staged(full_log())
    garbage = set(load(0, pages, None).garbage)
    newest = max((k for k in pages if read_key(k).kind == "manifest"), key=lambda k: read_key(k).version)
    for key in pages.keys() - garbage - {newest}:
        with pytest.raises(Fatal, match="missing"):
            load(0, {k: v for k, v in pages.items() if k != key}, None)


def test_a_commit_beyond_the_newest_manifest_is_fatal() -> None:
    log = full_log()
    assert recovered(log, 9)[0].next_offset == 9
    with pytest.raises(Fatal, match="committed 10"):
        load(0, staged(log), 10)


def test_a_commit_without_any_manifest_is_fatal_and_a_fresh_group_is_not() -> None:
    with pytest.raises(Fatal, match="no checkpoint"):
        load(0, {}, 5)
    assert load(0, {}, None).manifest is None
    assert load(0, {}, 0).next_offset == -1


def test_a_foreign_record_or_a_foreign_partition_is_fatal() -> None:
    with pytest.raises(Fatal, match="not Keywatch's"):
        load(0, {b"hello": b"world"}, None)
    with pytest.raises(Fatal, match="partition 0"):
        load(1, staged(full_log()), None)


def test_a_frozen_writer_of_an_older_epoch_cannot_hurt_the_new_owner() -> None:
    log: Log = []
    core, zombie = new_core(), first_writer()
    count(core, [1, 2])
    checkpoint(zombie, core, log)
    owner_core, owner = recovered(log)
    count(owner_core, [3])
    checkpoint(owner, owner_core, log, generation=2)
    count(core, [7, 7, 7])  # the frozen one wakes up, its commit is refused, its checkpoint is not
    checkpoint(zombie, core, log)
    assert recovered(log)[0].counts() == owner_core.counts() == {"k1": 1, "k2": 1, "k3": 1}


def test_of_two_writers_of_one_epoch_the_later_generation_wins() -> None:
    log: Log = []
    core, writer = new_core(), first_writer()
    count(core, [1])
    checkpoint(writer, core, log)
    (one, first), (two, second) = recovered(log), recovered(log)
    count(two, [2])
    checkpoint(second, two, log, generation=3)
    count(one, [3, 3])
    checkpoint(first, one, log, generation=2)
    assert recovered(log)[0].counts() == {"k1": 1, "k2": 1}


def test_a_checkpoint_without_changes_writes_a_manifest_at_most() -> None:
    log: Log = []
    core, writer = new_core(), first_writer()
    count(core, [1])
    checkpoint(writer, core, log)
    assert writer.nothing_new(writer.plan(core, 1))
    assert not writer.nothing_new(writer.plan(core, 2)), "a new generation is worth a manifest"


def test_side_inputs_that_change_no_page_are_worth_a_manifest() -> None:
    log: Log = []
    core, writer = new_core(), first_writer()
    count(core, [1])
    checkpoint(writer, core, log)
    core.adopt(Sides(NewerCatalogue(), None, "0"))
    assert not writer.nothing_new(writer.plan(core, 1))


class OneTable:
    """A core of one array, for layouts."""

    def __init__(self, dtype: np.dtype[Any], block_rows: int = 4) -> None:
        self.partition = 0
        self.array = PagedArray("t", dtype, block_rows)
        self.arrays: tuple[PagedArray, ...] = (self.array,)
        self.blobs: tuple[Blobs, ...] = ()
        self.next_offset = 5

    def meta(self) -> bytes:
        return b"meta"

    def restore(self, meta: bytes) -> None:
        assert meta == b"meta"

    def process(self, batch: Slice) -> Effects:
        raise NotImplementedError

    def rows_ahead(self, most: int) -> Rows:
        return {}

    def due_rows(self) -> Rows:
        return {}

    def adopted(self, sides: Sides) -> bool:
        return True

    def disown(self, published: Sequence[Incident]) -> Effects:
        return Effects()

    def adopt(self, sides: Sides) -> Rows:
        return {}


OLD = np.dtype([("a", "<i4"), ("inner", np.dtype([("x", "<f8"), ("gone", "u1")], align=True)), ("s", "<u2", (3,))])
NEW = np.dtype([("new", "<f8"), ("inner", np.dtype([("y", "<f8"), ("x", "<f8")])), ("s", "<u2", (3,)), ("a", "<i4")])


def test_a_changed_layout_takes_over_field_by_field_by_name_and_is_written_anew() -> None:
    old = OneTable(OLD)
    old.array.reserve(10)
    old.array.used = 10
    for row in range(10):
        old.array.data[row] = (row, (row / 2, 1), (row, row, 7))
    old.array.touch(np.arange(10))
    log: Log = []
    writer = first_writer()
    checkpoint(writer, old, log)
    new = OneTable(NEW, block_rows=3)
    state = load(0, staged(log), None)
    fill(new, state)
    assert new.array.data["a"][:10].tolist() == list(range(10))
    assert new.array.data["inner"]["x"][:10].tolist() == [row / 2 for row in range(10)]
    assert new.array.data["s"][4].tolist() == [4, 4, 7]
    assert not new.array.data["new"].any()
    checkpoint(writer_of(state, "id", "next"), new, log)
    again = OneTable(NEW, block_rows=3)
    fill(again, load(0, staged(log), None))
    assert again.array.data[:10].tobytes() == new.array.data[:10].tobytes()
    assert not again.array.dirty.any()


def test_a_changed_layout_of_a_pool_is_written_anew_to_its_last_block() -> None:
    """A pool's rows come and go: its `used` stays 0."""
    old = OneTable(OLD)
    old.array.reserve(10)
    old.array.data["a"][:10] = range(10)
    old.array.touch(np.arange(10))
    log: Log = []
    checkpoint(first_writer(), old, log)
    new = OneTable(NEW)
    state = load(0, staged(log), None)
    fill(new, state)
    checkpoint(writer_of(state, "id", "next"), new, log)
    again = OneTable(NEW)
    fill(again, load(0, staged(log), None))
    assert again.array.data["a"][:10].tolist() == list(range(10))


@pytest.mark.parametrize("dtype", [OLD, NEW, COUNTS, np.dtype([("o", "<i8"), ("p", "u1")], align=True)])
def test_a_described_dtype_comes_back_with_its_padding(dtype: np.dtype[Any]) -> None:
    assert restore_dtype(describe(dtype)) == dtype
    assert restore_dtype(describe(dtype)).itemsize == dtype.itemsize


def test_a_page_larger_than_a_record_may_be_is_cut_and_joined() -> None:
    wide = np.dtype([("noise", "u1", (50_000,))])
    core = OneTable(wide)
    core.array.used = 4
    core.array.data["noise"][:4] = np.random.default_rng(1).integers(0, 256, (4, 50_000))
    core.array.touch(np.arange(4))
    log: Log = []
    checkpoint(first_writer(), core, log)
    assert max(len(value or b"") for _, value in log) <= CHUNK_BYTES
    assert len(log) > 4
    again = OneTable(wide)
    fill(again, load(0, staged(log), None))
    assert (again.array.data[:4] == core.array.data[:4]).all()


def test_a_million_keys_need_a_small_manifest() -> None:
    dtype = np.dtype([("x", "u1", (2_000,))])
    core = OneTable(dtype, block_rows=32)
    core.array.reserve(200_000)
    core.array.used = 200_000
    core.array.dirty[:] = True
    draft = first_writer().draft(first_writer().plan(core, 1))
    pages = draft.pages(0, len(draft.plan.raw))
    directories, (_, manifest) = draft.directories(), draft.manifest()
    assert len(pages) >= 6_250
    assert len(directories) <= 8
    assert len(manifest) < 1_000


def test_two_checkpoints_of_one_epoch_and_generation_are_no_state_to_go_on_from() -> None:
    pages: dict[bytes, bytes] = {}
    for _ in range(2):
        core = new_core()
        count(core, [1, 2])
        pages |= staged(sends(first_writer(), core)[1])
    with pytest.raises(Fatal, match="two writers made a checkpoint of epoch 1 in one generation"):
        load(0, pages, None)


def test_a_manifest_under_another_checkpoints_key_is_refused() -> None:
    core = new_core()
    count(core, [1, 2])
    pages = staged(sends(first_writer(), core)[1])
    [raw] = [each for each in pages if read_key(each).kind == "manifest"]
    pages[key_bytes(read_key(raw)._replace(epoch=2))] = pages.pop(raw)
    with pytest.raises(Fatal, match="stands under another checkpoint's key"):
        load(0, pages, None)
