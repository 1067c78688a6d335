"""The journal: rows instead of pages, bounded, void where the page is newer, and state comes back to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import Effects, Rows, Sides, Slice
from pipeline.errors import Fatal
from pipeline.state import journal
from pipeline.state.checkpoint import Checkpoint, Directory
from pipeline.state.manifest import FORMAT, Manifest, key_bytes, manifest_bytes, manifest_key, read_key, read_manifest
from pipeline.state.pages import Blobs, PagedArray
from pipeline.state.recover import fill, load, writer_of
from schemas.incident import Incident
from tests.pipeline.state.test_checkpoint import Log, checkpoint, count, first_writer, new_core, recovered, staged

STATES = Path(__file__).parents[1] / "states"
ROW = np.dtype([("value", "<i8"), ("pad", "u1", (24,))])
WIDER = np.dtype([("new", "<f8"), ("value", "<i8"), ("pad", "u1", (40,))])


class Tables:
    """A core of two arrays and nothing else; each checkpoint is of a later offset."""

    def __init__(self, dtype: np.dtype[Any] = ROW, block_rows: int = 16) -> None:
        self.partition = 0
        self.first = PagedArray("first", dtype, block_rows)
        self.second = PagedArray("second", ROW, 4)
        self.arrays: tuple[PagedArray, ...] = (self.first, self.second)
        self.blobs: tuple[Blobs, ...] = ()
        self.next_offset = 0

    def put(self, rows: list[int], value: int) -> None:
        """Rows of the first table; row n // 8 of the second as well."""
        for array, numbers in ((self.first, rows), (self.second, [row // 8 for row in rows])):
            array.reserve(max(numbers) + 1)
            array.used = max(array.used, max(numbers) + 1)
            array.data["value"][numbers] = value
            array.touch(np.array(numbers))
        self.next_offset += len(rows)

    def adopted(self, sides: Sides) -> bool:
        """There are none."""
        return True

    def disown(self, published: Sequence[Incident]) -> Effects:
        """There are none."""
        return Effects()

    def values(self) -> tuple[list[int], list[int]]:
        """Of both tables, as far as they are used."""
        first, second = (array.data["value"][: array.used].tolist() for array in self.arrays)
        return first, second

    def meta(self) -> bytes:
        return b"%d" % self.next_offset

    def restore(self, meta: bytes) -> None:
        self.next_offset = int(meta)

    def process(self, batch: Slice) -> Effects:
        raise NotImplementedError

    def rows_ahead(self, most: int) -> Rows:
        return {}

    def due_rows(self) -> Rows:
        return {}

    def adopt(self, sides: Sides) -> Rows:
        return {}


def reloaded(log: Log, core: Tables | None = None) -> tuple[Tables, Checkpoint]:
    core = core or Tables()
    state = load(0, staged(log), None)
    fill(core, state)
    return core, writer_of(state, "id", f"m{len(log)}")


def newest(log: Log) -> Manifest:
    key, value = max(((k, v) for k, v in staged(log).items() if read_key(k).kind == "manifest"), key=lambda kv: kv[0])
    return read_manifest(read_key(key), value)


Script = list[tuple[list[int], bool]]
scripts = st.lists(
    st.tuples(st.lists(st.integers(0, 199), min_size=1, max_size=20), st.booleans()), min_size=1, max_size=40
)


@given(scripts)
@settings(max_examples=150)
def test_state_comes_back_to_the_byte_after_every_checkpoint_and_over_every_takeover(script: Script) -> None:
    log: Log = []
    core, writer = Tables(), first_writer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "FOLD_AFTER", 5)
        for value, (rows, takeover) in enumerate(script, 1):
            if takeover and value > 1:
                core, writer = reloaded(log)
            core.put(rows, value)
            checkpoint(writer, core, log, generation=1)
            assert reloaded(log)[0].values() == core.values()


@given(scripts)
@settings(max_examples=100)
def test_the_journal_is_bounded_in_age_and_in_rows_whatever_changes(script: Script) -> None:
    log: Log = []
    core, writer = Tables(), first_writer()
    core.put(list(range(200)), 0)
    checkpoint(writer, core, log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "FOLD_AFTER", 5)
        for value, (rows, takeover) in enumerate(script, 1):
            if takeover:
                core, writer = reloaded(log)
            core.put(rows, value)
            checkpoint(writer, core, log)
            manifest = newest(log)
            assert all(manifest.number - piece.number < 5 for piece in manifest.pieces)
            rows_before = sum(piece.rows for piece in manifest.pieces if piece.number < manifest.number)
            assert rows_before <= journal.most_rows(core.arrays)


def test_a_few_rows_of_many_blocks_are_written_as_rows_and_each_page_once_in_ten_minutes() -> None:
    core, writer, log = Tables(block_rows=32), first_writer(), Log()
    core.put(list(range(32 * 1_000)), 1)
    checkpoint(writer, core, log)
    folded: list[int] = []
    for number in range(journal.FOLD_AFTER):
        core.put([32 * block + number % 32 for block in range(0, 1_000, 10)], number)
        plan = writer.plan(core, 1)
        mine = [block for table, block, _ in plan.raw if table == "first"]
        assert sum(journal.count(piece) for piece in plan.rows) >= 100 - len(mine)
        assert len(mine) <= -(-1_024 // journal.FOLD_AFTER) + 1
        folded += mine
        writer.accept(_written(writer, plan))
    assert len(folded) >= 100
    assert max(folded.count(block) for block in folded) <= 12, "by turns: 100 blocks that change with each checkpoint"


def _written(writer: Checkpoint, plan: Any) -> Any:
    draft = writer.draft(plan)
    draft.records()
    return draft


def test_a_block_of_which_half_the_rows_changed_is_written_as_a_page() -> None:
    core = Tables()
    core.first.reserve(64)
    core.first.touch(np.arange(8))
    core.first.touch(np.arange(16, 23))
    blocks, rows = journal.choose(core.first, np.zeros(4, np.int64), -1)
    assert blocks.tolist() == [0]
    assert rows.tolist() == list(range(16, 23))


def test_pages_that_have_waited_longest_are_folded_first_and_those_beyond_their_time_all() -> None:
    array = PagedArray("t", ROW, 4, capacity=4 * 600)
    since = np.zeros(600, np.int64)
    since[[7, 3, 500, 501, 502, 20, 21]] = [9, 4, 5, 5, 5, 8, 7]
    assert journal.choose(array, since, 0)[0].tolist() == [3, 21, 500, 501, 502], (
        "five of 600 blocks in each checkpoint"
    )
    assert journal.choose(array, since, 8)[0].tolist() == [3, 20, 21, 500, 501, 502]
    assert journal.choose(array, since, -1)[0].tolist() == []


def test_rows_are_cut_into_pieces_of_a_bounded_size() -> None:
    array = PagedArray("t", np.dtype([("x", "u1", (2_000,))]), 32, capacity=2_000)
    array.data["x"] = np.random.default_rng(1).integers(0, 256, (len(array.data), 2_000))
    pieces = list(journal.pieces_of(journal.rows_of(array, np.arange(0, 2_000, 2))))
    assert len(pieces) == 2
    assert all(len(journal.encode(piece)) < journal.PIECE_BYTES + 8_000 for piece in pieces)
    back = [part for piece in pieces for part in journal.decode(journal.encode(piece))]
    assert np.concatenate([rows for _, rows, _ in back]).tolist() == list(range(0, 2_000, 2))
    assert b"".join(raw for _, _, raw in back) == array.data[0:2_000:2].tobytes()


def begun() -> tuple[Log, Tables, Checkpoint]:
    """200 rows and the checkpoint that has them."""
    log: Log = []
    core, writer = Tables(), first_writer()
    core.put(list(range(200)), 1)
    checkpoint(writer, core, log)
    return log, core, writer


def test_void_rows_of_a_layout_of_before_do_no_harm_while_another_tables_rows_still_count() -> None:
    log, core, writer = begun()
    core.put([5, 77], 2)
    checkpoint(writer, core, log)
    wide, writer = reloaded(log, Tables(WIDER, block_rows=8))
    assert wide.first.data["value"][[5, 77, 78]].tolist() == [2, 2, 1], "rows of the journal are migrated like pages"
    wide.first.data["new"][5] = 0.5
    checkpoint(writer, wide, log)
    assert newest(log).pieces, "the second table's row is in the same piece, and still counts"
    again, _ = reloaded(log, Tables(WIDER, block_rows=8))
    assert again.first.data[:200].tobytes() == wide.first.data[:200].tobytes()
    assert again.values()[1] == wide.values()[1]


def test_a_piece_that_is_missing_or_damaged_is_fatal() -> None:
    log, core, writer = begun()
    core.put([5], 2)
    checkpoint(writer, core, log)
    pages = staged(log)
    (piece,) = [key for key in pages if read_key(key).kind == "piece" and read_key(key).block == 2]
    with pytest.raises(Fatal, match="piece 0 of checkpoint 2 in the journal is named by the manifest but missing"):
        load(0, {key: value for key, value in pages.items() if key != piece}, None)
    with pytest.raises(Fatal, match="bad checksum"):
        load(0, pages | {piece: pages[piece][:-1] + b"?"}, None)


def test_a_zombies_piece_has_a_key_of_its_own() -> None:
    log, core, zombie = begun()
    owner_core, owner = reloaded(log)
    owner_core.put([9], 2)
    checkpoint(owner, owner_core, log, generation=2)
    core.put([9], 3)  # the frozen one wakes up: the same checkpoint number, the same piece, another writer
    checkpoint(zombie, core, log)
    assert reloaded(log)[0].values() == owner_core.values()


def test_an_idle_partition_writes_nothing_though_rows_wait_in_its_journal() -> None:
    log, core, writer = begun()
    core.put([5], 2)
    checkpoint(writer, core, log)
    assert writer.nothing_new(writer.plan(core, 1))


def test_state_of_format_1_is_read_written_anew_and_its_records_are_tombstoned() -> None:
    """`states/format1.msgpack`: the counting core's after 15 records, by the version that had no journal."""
    old = msgspec.msgpack.decode((STATES / "format1.msgpack").read_bytes(), type=list[tuple[bytes, bytes]])
    log: Log = list(old)
    core, writer = recovered(log, 15)
    assert core.counts() == {f"k{n}": {1: 2, 5: 3, 9: 2}.get(n, 1) for n in range(1, 12)}
    for _ in range(4):
        count(core, [3])
        checkpoint(writer, core, log)
    again, _ = recovered(log, 19)
    assert again.counts() == core.counts()
    assert newest(log).format == FORMAT == 3
    assert not staged(log).keys() & dict(old).keys(), "nothing of the old format is left"


def test_of_state_of_format_2_pages_stay_as_they_are() -> None:
    log, core, writer = begun()
    core.put([5], 2)
    checkpoint(writer, core, log)
    before = msgspec.structs.replace(newest(log), format=2)
    state = load(0, staged(log) | {key_bytes(manifest_key(before)): manifest_bytes(before)}, None)
    again = Tables()
    fill(again, state)
    assert again.values() == core.values()
    assert not any(array.dirty.any() or array.changed.any() for array in again.arrays)
    same = load(0, staged(log), None)
    fill(Tables(), same)
    assert state.garbage == same.garbage


def test_a_manifest_of_a_later_format_is_refused_in_words() -> None:
    log: Log = []
    core, writer = new_core(), first_writer()
    count(core, [1])
    checkpoint(writer, core, log)
    later = msgspec.structs.replace(newest(log), format=FORMAT + 1)
    with pytest.raises(Fatal, match="format 4, this program reads up to 3"):
        load(0, staged(log) | {key_bytes(manifest_key(later)): manifest_bytes(later)}, None)


def test_what_a_piece_says_of_a_page_that_is_newer_is_passed_over() -> None:
    written = np.array([3, 0, 7])
    rows = np.array([0, 5, 9, 40])
    assert journal.newer(rows, 3, written, 4).tolist() == [1, 3]
    assert journal.newer(rows, 8, written, 4).tolist() == [0, 1, 2, 3]


def test_a_new_owner_lets_the_pieces_of_the_one_before_it_go() -> None:
    log, core, writer = begun()
    core.put([5], 2)
    checkpoint(writer, core, log)
    core, writer = reloaded(log)
    assert isinstance(writer.directory, Directory)
    for value in range(4):
        core.put([5], 3 + value)
        checkpoint(writer, core, log)
    left = {(read_key(key).epoch, read_key(key).kind) for key in staged(log)}
    assert (1, "piece") not in left
    assert reloaded(log)[0].values() == core.values()
