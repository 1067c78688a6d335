"""Reads a partition's state back: the newest manifest, verified to the last byte, or the process ends.

Falling back to an older checkpoint is refused: what lies between the two was committed or may have been, so it would
be lost. Newest is the highest (epoch, generation).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from backports import zstd

from pipeline.checkpoint import Checkpoint, Directory, place_keys
from pipeline.core import Core
from pipeline.errors import Fatal
from pipeline.manifest import (
    ENTRIES_PER_PAGE,
    ENTRY,
    Key,
    Manifest,
    Place,
    describe,
    read_key,
    read_manifest,
    restore_dtype,
)
from pipeline.pages import Blobs, PagedArray, migrate

_blob_in = msgspec.msgpack.Decoder(dict[int, bytes])


@dataclass(slots=True)
class LoadedState:
    """A verified checkpoint, or nothing (`manifest` None). Values are still compressed."""

    partition: int
    manifest: Manifest | None = None
    directory: Directory = field(default_factory=Directory)
    pages: dict[str, dict[int, bytes]] = field(default_factory=dict)  # table -> block -> compressed bytes
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
    if committed is not None and committed > manifest.next_offset:
        raise Fatal(
            f"partition {partition}: the group has committed {committed}, the newest state includes only what lies "
            f"before {manifest.next_offset}: events between them would be lost. Is the pages topic complete?"
        )
    state = LoadedState(partition, manifest, Directory(writers=dict(manifest.writers)))
    named = {newest}
    for table in manifest.tables:
        _load_table(state, table, pages, named)
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
        part = np.frombuffer(raw, ENTRY)
        entries[number * ENTRIES_PER_PAGE : number * ENTRIES_PER_PAGE + len(part)] = part
    state.directory.blocks[table] = entries
    state.directory.pages[table] = dict(places)
    state.pages[table] = {}
    written = np.flatnonzero(entries["chunks"])
    for block, entry in zip(written.tolist(), entries[written].tolist(), strict=True):
        state.pages[table][block] = _value(state, "page", table, block, Place(*entry), pages, named)


def _value(
    state: LoadedState, kind: str, table: str, block: int, place: Place, pages: Mapping[bytes, bytes], named: set[bytes]
) -> bytes:
    """The bytes of one page, verified."""
    where = f"partition {state.partition}: {kind} {block} of table {table}"
    if place.writer not in state.directory.writers:
        raise Fatal(f"{where} was written by somebody the manifest does not name")
    keys = place_keys(kind, state.partition, table, block, place, state.directory.writers)
    if any(key not in pages for key in keys):
        raise Fatal(f"{where} is named by the manifest but missing from the pages topic")
    value = b"".join(pages[key] for key in keys)
    if zlib.crc32(value) != place.crc:
        raise Fatal(f"{where}: bad checksum")
    named.update(keys)
    return value


def _inflate(value: bytes, partition: int, table: str) -> bytes:
    try:
        return zstd.decompress(value)
    except zstd.ZstdError as error:
        raise Fatal(f"partition {partition}: a page of table {table} cannot be decompressed: {error}") from error


def fill(core: Core, state: LoadedState) -> None:
    """Put a checkpoint's tables into an empty core and let it take its `meta`; tables it no longer has are left."""
    if state.manifest is None:
        return
    for array in core.arrays:
        if array.name in state.manifest.tables:
            _fill_array(array, state)
    for blobs in core.blobs:
        if blobs.name in state.manifest.tables:
            _fill_blobs(blobs, state)
    core.restore(state.manifest.meta)


def _fill_array(array: PagedArray, state: LoadedState) -> None:
    assert state.manifest is not None
    table = state.manifest.tables[array.name]
    same = table.block_rows == array.block_rows and table.dtype == describe(array.dtype)
    dtype = array.dtype if same else restore_dtype(table.dtype)
    array.reserve(table.used)
    rows_written = table.used  # of a pool it is 0
    for block, value in state.pages[array.name].items():
        rows = np.frombuffer(_inflate(value, state.partition, array.name), dtype)
        start = block * table.block_rows
        array.reserve(start + len(rows))
        rows_written = max(rows_written, start + len(rows))
        target = array.data[start : start + len(rows)]
        if same:
            target.view(np.uint8)[:] = rows.view(np.uint8)  # numpy copies records field by field
        else:
            migrate(rows, target)
    array.used = table.used
    array.clean()
    if not same:
        _write_anew(state, array.name)
        array.dirty[: -(-max(rows_written, 1) // array.block_rows)] = True


def _fill_blobs(blobs: Blobs, state: LoadedState) -> None:
    assert state.manifest is not None
    blobs.rows.clear()
    for value in state.pages[blobs.name].values():
        blobs.rows.update(_blob_in.decode(_inflate(value, state.partition, blobs.name)))
    blobs.dirty.clear()
    if state.manifest.tables[blobs.name].block_rows != blobs.block_rows:
        _write_anew(state, blobs.name)
        blobs.dirty.update(row // blobs.block_rows for row in blobs.rows)


def _write_anew(state: LoadedState, table: str) -> None:
    """A table of another layout: none of its pages stays valid; they go once two good checkpoints stand."""
    directory = state.directory
    for block in np.flatnonzero(directory.blocks[table]["chunks"]):
        entry = directory.blocks[table][block]
        place = Place(int(entry["writer"]), int(entry["version"]), int(entry["chunks"]), int(entry["crc"]))
        state.garbage += place_keys("page", state.partition, table, int(block), place, directory.writers)
    for number, place in directory.pages[table].items():
        state.garbage += place_keys("directory", state.partition, table, number, place, directory.writers)
    del directory.blocks[table], directory.pages[table]


def writer_of(state: LoadedState, topic_epoch: str, member: str, partitions: int = 0) -> Checkpoint:
    """The writer that goes on from a loaded state, after `fill`; `partitions` of the requests topic."""
    checkpoint = Checkpoint(state.partition, topic_epoch, state.epoch + 1, member, state.directory, partitions)
    checkpoint.garbage = list(state.garbage)
    if state.manifest is not None:
        checkpoint.garbage.append(_own_key(state.manifest))
    return checkpoint


def _own_key(manifest: Manifest) -> bytes:
    from pipeline.manifest import key_bytes, manifest_key

    return key_bytes(manifest_key(manifest))
