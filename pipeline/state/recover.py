"""Reads a partition's state back: the newest manifest, verified to the last byte, or the process ends.

Pages are put into the arrays first, then the rows of the journal that are newer than their page, oldest first. What
was put away is forgotten at once: beside a million keys' arrays there is no room for all that was read. So the largest
array is filled first, and the pieces of the journal that have rows of it alone, which most do, are gone by then.

Falling back to an older checkpoint is refused: what lies between the two was committed or may have been, so it would
be lost. Newest is the highest (epoch, generation).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from backports import zstd

from pipeline import memory
from pipeline.core import Core
from pipeline.errors import Fatal
from pipeline.state import journal
from pipeline.state.checkpoint import Checkpoint, Directory, piece_keys, place_keys
from pipeline.state.manifest import (
    ENTRIES_PER_PAGE,
    ENTRY,
    ENTRY_OF_FORMAT,
    Key,
    Manifest,
    Piece,
    Place,
    TableState,
    describe,
    read_key,
    read_manifest,
    restore_dtype,
)
from pipeline.state.pages import BlobTable, PagedArray

Array = np.ndarray[Any, Any]

_blob_in = msgspec.msgpack.Decoder(dict[int, bytes])


@dataclass(slots=True)
class LoadedState:
    """A verified checkpoint, or nothing (`manifest` None). Values are still compressed."""

    partition: int
    manifest: Manifest | None = None
    directory: Directory = field(default_factory=Directory)
    pages: dict[str, dict[int, bytes]] = field(default_factory=dict)  # table -> block -> compressed bytes
    pieces: list[tuple[int, bytes]] = field(default_factory=list)  # checkpoint and compressed rows, oldest first
    garbage: list[bytes] = field(default_factory=list)  # keys in the log that the manifest does not name

    @property
    def epoch(self) -> int:
        """Of the checkpoint, 0 if there is none. The next writer's is one more."""
        return 0 if self.manifest is None else self.manifest.epoch

    @property
    def next_offset(self) -> int:
        """First offset not included, -1 if none is."""
        return -1 if self.manifest is None else self.manifest.next_offset


def load(partition: int, pages: Mapping[bytes, bytes], committed: int | None) -> LoadedState:
    """Pick the newest manifest and verify everything that it names.

    `pages`: the last value of every key of this partition, tombstoned ones left out. `committed`: the group's offset,
    None if it has none. Raises Fatal if the newest checkpoint does not verify or the commit lies beyond it.
    """
    keys = {raw: read_key(raw) for raw in pages}
    stray = [key for key in keys.values() if key.partition != partition]
    if stray:
        raise Fatal(f"pages of partition {stray[0].partition} lie in partition {partition} of the pages topic")
    newest = _newest(partition, keys)
    if newest is None:
        if committed:
            raise Fatal(_no_state(partition, committed, len(pages)))
        return LoadedState(partition, garbage=list(pages))
    manifest = read_manifest(keys[newest], pages[newest])
    if committed and committed > manifest.next_offset:
        raise Fatal(
            f"partition {partition}: the group has committed {committed}, the newest state includes only what lies "
            f"before {manifest.next_offset}: events between them would be lost. Is the pages topic complete?"
        )
    directory = Directory(writers=dict(manifest.writers), number=manifest.number, pieces=list(manifest.pieces))
    state = LoadedState(partition, manifest, directory)
    named = {newest}
    for table in manifest.tables:
        _load_table(state, table, pages, named)
    state.pieces = [(piece.number, _piece(state, piece, pages, named)) for piece in manifest.pieces]
    state.garbage = [raw for raw in pages if raw not in named]
    return state


def _no_state(partition: int, committed: int, records: int) -> str:
    return (
        f"partition {partition}: the group has committed {committed} but the pages topic has no checkpoint of it "
        f"({records} records): was it deleted? To start from empty state, delete the group's offsets too"
    )


def _newest(partition: int, keys: Mapping[bytes, Key]) -> bytes | None:
    manifests = [(key.epoch, key.version, raw) for raw, key in keys.items() if key.kind == "manifest"]
    manifests.sort()
    if len(manifests) > 1 and manifests[-1][:2] == manifests[-2][:2]:
        raise Fatal(
            f"partition {partition}: two writers made a checkpoint of epoch {manifests[-1][0]} in one generation"
        )
    return manifests[-1][2] if manifests else None


def _load_table(state: LoadedState, table: str, pages: Mapping[bytes, bytes], named: set[bytes]) -> None:
    assert state.manifest is not None
    places = state.manifest.tables[table].pages
    count = (max(places) + 1) * ENTRIES_PER_PAGE if places else 0
    entries = np.zeros(count, ENTRY)
    for number, place in places.items():
        raw = _inflate(_value(state, "directory", table, number, place, pages, named), state.partition, table)
        part = np.frombuffer(raw, ENTRY_OF_FORMAT[state.manifest.format])
        for name in part.dtype.names or ():
            entries[name][number * ENTRIES_PER_PAGE : number * ENTRIES_PER_PAGE + len(part)] = part[name]
    state.directory.blocks[table] = entries
    state.directory.pages[table] = dict(places)
    state.pages[table] = {}
    written = np.flatnonzero(entries["chunks"])
    for block, entry in zip(written.tolist(), entries[written].tolist(), strict=True):
        state.pages[table][block] = _value(state, "page", table, block, Place(*entry[:4]), pages, named)


def _value(
    state: LoadedState, kind: str, table: str, block: int, place: Place, pages: Mapping[bytes, bytes], named: set[bytes]
) -> bytes:
    """The bytes of one page, verified."""
    where = f"partition {state.partition}: {kind} {block} of table {table}"
    _known_writer(state, place.writer, where)
    keys = place_keys(kind, state.partition, table, block, place, state.directory.writers)
    return _verified(keys, place.crc, pages, named, where)


def _piece(state: LoadedState, piece: Piece, pages: Mapping[bytes, bytes], named: set[bytes]) -> bytes:
    """The same of rows in the journal."""
    where = f"partition {state.partition}: piece {piece.part} of checkpoint {piece.number} in the journal"
    _known_writer(state, piece.writer, where)
    keys = piece_keys(state.partition, piece, state.directory.writers)
    return _verified(keys, piece.crc, pages, named, where)


def _known_writer(state: LoadedState, writer: int, where: str) -> None:
    if writer not in state.directory.writers:
        raise Fatal(f"{where} was written by somebody the manifest does not name")


def _verified(keys: list[bytes], crc: int, pages: Mapping[bytes, bytes], named: set[bytes], where: str) -> bytes:
    if any(key not in pages for key in keys):
        raise Fatal(f"{where} is named by the manifest but missing from the pages topic")
    value = pages[keys[0]] if len(keys) == 1 else b"".join(pages[key] for key in keys)
    if zlib.crc32(value) != crc:
        raise Fatal(f"{where}: bad checksum")
    named.update(keys)
    return value


def _inflate(value: bytes, partition: int, table: str) -> bytes:
    try:
        return zstd.decompress(value)
    except zstd.ZstdError as error:
        raise Fatal(f"partition {partition}: a page of table {table} cannot be decompressed: {error}") from error


def fill(core: Core, state: LoadedState) -> None:
    """Put a checkpoint's tables into an empty core and let it take its `meta`; tables it no longer has are left.

    Uses the state up: its pages and pieces are gone afterwards.
    """
    if state.manifest is None:
        return
    fillings = {a.name: _Filling.of(a, state) for a in core.arrays if a.name in state.manifest.tables}
    largest = max(fillings, key=lambda name: fillings[name].size_bytes, default="")
    for tables in ({largest} & fillings.keys(), fillings.keys() - {largest}):
        for name in sorted(tables):
            fillings[name].pages()
        _journal(state, {name: fillings[name] for name in tables}, fillings.keys() - tables - {largest})
    for filling in fillings.values():
        filling.finish()
    for blobs in core.blobs:
        if blobs.name in state.manifest.tables:
            _fill_blobs(blobs, state)
    core.restore(state.manifest.meta)
    memory.give_back()


def _journal(state: LoadedState, fillings: Mapping[str, _Filling], later: Collection[str]) -> None:
    """Rows of these tables, oldest first; pieces in which none is of a later one are let go."""
    pieces, state.pieces = deque(state.pieces), []
    while pieces:
        number, value = pieces.popleft()
        parts = _rows(state, value)
        for table, rows, raw in parts:
            if table in fillings:
                fillings[table].rows(number, rows, raw)
        if any(table in later for table, _, _ in parts):
            state.pieces.append((number, value))
        else:
            memory.freed(len(value))


def _rows(state: LoadedState, value: bytes) -> list[tuple[str, Array, bytes]]:
    try:
        return journal.decode(_inflate(value, state.partition, "the journal"))
    except msgspec.MsgspecError as error:
        raise Fatal(f"partition {state.partition}: rows of the journal cannot be decoded: {error}") from error


@dataclass(frozen=True, slots=True)
class _Filling:
    """One array of a core on its way out of a checkpoint."""

    array: PagedArray
    state: LoadedState
    table: TableState
    dtype: np.dtype[Any]  # of the rows as they were written
    same: bool  # as the program has them
    old_format: bool

    @classmethod
    def of(cls, array: PagedArray, state: LoadedState) -> _Filling:
        """What the manifest says of the array's table."""
        assert state.manifest is not None
        table = state.manifest.tables[array.name]
        same = bool(table.block_rows == array.block_rows and table.dtype == describe(array.dtype))
        dtype = array.dtype if same else restore_dtype(table.dtype)
        return cls(array, state, table, dtype, same, _old_entries(state.manifest))

    @property
    def size_bytes(self) -> int:
        """Of the rows as they were written."""
        return self.table.used * self.dtype.itemsize

    def pages(self) -> None:
        """Pages first, each where it belongs."""
        array, block_rows = self.array, self.table.block_rows
        pages = self.state.pages[array.name]
        array.reserve(max(self.table.used, (max(pages, default=-1) + 1) * block_rows))
        while pages:
            block, value = pages.popitem()
            raw = _inflate(value, self.state.partition, array.name)
            self._put(slice(block * block_rows, (block + 1) * block_rows), np.frombuffer(raw, np.uint8))
            memory.freed(len(value))

    def rows(self, number: int, rows: Array, raw: bytes) -> None:
        """Rows of checkpoint `number` whose page is older. One that is void may have a layout of before."""
        name, block_rows, directory = self.array.name, self.table.block_rows, self.state.directory
        chosen = journal.newer(rows, number, directory.blocks[name]["number"], block_rows)
        if not len(chosen):
            return
        records, rows = np.frombuffer(raw, np.uint8).reshape(len(rows), -1)[chosen], rows[chosen]
        self.array.reserve(int(rows.max()) + 1)
        self._put(rows, records)
        directory.since[name] = journal.noted(directory.since.get(name), rows // block_rows, number)

    def _put(self, rows: Any, raw: Array) -> None:
        records = raw.reshape(-1, self.dtype.itemsize)
        if self.same:
            self.array.row_bytes()[rows] = records  # numpy copies records field by field
            return
        new = np.zeros(len(records), self.array.dtype)
        self.array.take_over(np.ascontiguousarray(records).view(self.dtype)[:, 0], new)
        self.array.data[rows] = new

    def finish(self) -> None:
        """All is clean, or, of another layout or format, to be written anew up to the last row there is."""
        array, state = self.array, self.state
        since = state.directory.since.get(array.name, np.zeros(0, np.int64))
        written = np.flatnonzero(state.directory.blocks[array.name]["chunks"])
        last = max(int(written.max(initial=-1)), int(np.flatnonzero(since).max(initial=-1)))
        array.used = self.table.used
        array.clean()
        if self.old_format or not self.same:
            _write_anew(state, array.name)
            array.dirty[: -(-max(array.used, (last + 1) * self.table.block_rows, 1) // array.block_rows)] = True


def _old_entries(manifest: Manifest) -> bool:
    """Whether its directory is to be written anew: of a format without the number of the checkpoint."""
    return ENTRY_OF_FORMAT[manifest.format] != ENTRY


def _fill_blobs(blobs: BlobTable, state: LoadedState) -> None:
    assert state.manifest is not None
    blobs.clear()
    pages = state.pages[blobs.name]
    while pages:
        _, value = pages.popitem()
        for row, raw in _blob_in.decode(_inflate(value, state.partition, blobs.name)).items():
            blobs.put(row, raw)
    if _old_entries(state.manifest) or state.manifest.tables[blobs.name].block_rows != blobs.block_rows:
        _write_anew(state, blobs.name)
    else:
        blobs.dirty.clear()


def _write_anew(state: LoadedState, table: str) -> None:
    """None of this table's pages and rows stays valid; they go once two good checkpoints stand."""
    directory = state.directory
    for block in np.flatnonzero(directory.blocks[table]["chunks"]):
        place = Place(*directory.blocks[table][block].item()[:4])
        state.garbage += place_keys("page", state.partition, table, int(block), place, directory.writers)
    for number, place in directory.pages[table].items():
        state.garbage += place_keys("directory", state.partition, table, number, place, directory.writers)
    del directory.blocks[table], directory.pages[table]
    directory.since.pop(table, None)


def writer_of(state: LoadedState, topic_epoch: str, member: str, partitions: int = 0) -> Checkpoint:
    """The writer that goes on from a loaded state, after `fill`; `partitions` of the requests topic."""
    checkpoint = Checkpoint(state.partition, topic_epoch, state.epoch + 1, member, state.directory, partitions)
    checkpoint.garbage = list(state.garbage)
    if state.manifest is not None:
        checkpoint.garbage.append(_own_key(state.manifest))
    return checkpoint


def _own_key(manifest: Manifest) -> bytes:
    from pipeline.state.manifest import key_bytes, manifest_key

    return key_bytes(manifest_key(manifest))
