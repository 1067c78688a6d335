"""Writes a partition's state so that a crash at any moment leaves the previous checkpoint whole.

Each page has two versions; a checkpoint writes the one that the last manifest does not name, all pages first, then rows
of the journal under keys of their own (`journal.py` chooses between the two), then directory pages, then the manifest,
which alone makes the new state valid. Keys carry the writer: its epoch (the
recovered one + 1) and a member id of its own, so that a writer that no longer owns the partition cannot touch what the
owner wrote. `recover.py` is the other way.

Pure: `plan` copies what changed, `batches` encode, the caller sends and then says `accept`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
from backports import zstd

from pipeline.core import Core
from pipeline.errors import Fatal
from pipeline.state import journal
from pipeline.state.manifest import (
    CHUNK_BYTES,
    ENTRIES_PER_PAGE,
    ENTRY,
    Key,
    Manifest,
    Piece,
    Place,
    TableState,
    describe,
    key_bytes,
    manifest_bytes,
    manifest_key,
)
from pipeline.state.pages import BlobTable

ZSTD_LEVEL: Final = -3
"""Of 1, -1, -3 and -5 a page of 8 keys takes 62, 46, 36 and 33 us and 3.7, 3.8, 4.1 and 4.8 KB; one of 32 books, mostly
hashes, 46, 16, 10 and 9 us and 3.7 to 3.9 KB. Packing is most of what a checkpoint costs."""
PAGES_AT_ONCE: Final = 64
"""Blocks that are compressed and in flight together: at most 4 MB."""
PIECES_AT_ONCE: Final = 4
Record = tuple[bytes, bytes]
"""Key and value as they are sent."""
Entries = np.ndarray[Any, np.dtype[Any]]


@dataclass(slots=True)
class Directory:
    """Where every block of every table is, as of the last good manifest."""

    blocks: dict[str, Entries] = field(default_factory=dict)  # table -> ENTRY by block number
    pages: dict[str, dict[int, Place]] = field(default_factory=dict)  # table -> directory page -> place
    writers: dict[int, tuple[int, str]] = field(default_factory=dict)
    number: int = 0  # of the checkpoint
    pieces: list[Piece] = field(default_factory=list)  # of the journal, oldest first
    since: dict[str, Entries] = field(default_factory=dict)  # table -> by block, checkpoint of its oldest row in there

    def copy(self, tables: Collection[str]) -> Directory:
        """Without the tables that the program no longer has."""
        return Directory(
            {table: entries.copy() for table, entries in self.blocks.items() if table in tables},
            {table: dict(pages) for table, pages in self.pages.items() if table in tables},
            dict(self.writers),
            self.number,
            list(self.pieces),
            {table: since.copy() for table, since in self.since.items() if table in tables},
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What one checkpoint will write: raw copies, taken between two slices."""

    generation: int
    next_offset: int
    meta: bytes
    raw: list[tuple[str, int, bytes]]  # table, block, bytes
    rows: list[list[journal.Rows]]  # pieces of the journal
    tables: dict[str, tuple[int, int, Any]]  # table -> block_rows, used, dtype as plain data

    @property
    def size_bytes(self) -> int:
        """Of the copies."""
        pages = sum(len(raw) for _, _, raw in self.raw)
        return pages + sum(len(raw) for piece in self.rows for _, _, raw in piece)


def blob_block(blobs: BlobTable, block: int) -> bytes:
    """One block of variable-size values, as msgpack of {row: bytes}."""
    start = block * blobs.block_rows
    rows = range(start, start + blobs.block_rows)
    return msgspec.msgpack.encode({row: value for row in rows if (value := blobs.get(row)) is not None})


def fingerprint(tables: dict[str, tuple[int, int, Any]]) -> str:
    """16 hex digits of the layout: block sizes and dtypes by table."""
    layout = sorted((name, rows, dtype) for name, (rows, _, dtype) in tables.items())
    return hashlib.blake2b(msgspec.json.encode(layout, order="deterministic"), digest_size=8).hexdigest()


def _blob_raw(blobs: BlobTable) -> list[tuple[str, int, bytes]]:
    raw = [(blobs.name, block, blob_block(blobs, block)) for block in sorted(blobs.dirty)]
    blobs.dirty.clear()
    return raw


class Checkpoint:
    """The writer of one partition, for one life of its arrays."""

    def __init__(
        self, partition: int, topic_epoch: str, epoch: int, member: str, directory: Directory, partitions: int = 0
    ) -> None:
        self.partition = partition
        self.partitions = partitions  # of the requests topic
        self.topic_epoch = topic_epoch
        self.epoch = epoch
        self.member = member
        self.directory = directory
        self.written = 0  # good checkpoints of this writer
        self.bytes_written = 0
        self.pages_written = 0
        self.next_offset = -1  # of the last good manifest
        self.generation = -1  # of the last good manifest
        self.meta = b""  # of the last good manifest: side inputs change it where no page does
        self.garbage: list[bytes] = []  # records that no manifest from now on names
        self.due: list[bytes] = []  # those that the last two manifests don't name: to be tombstoned before the next
        self._number = _writer_number(directory, (epoch, member))

    def plan(self, core: Core, generation: int) -> Plan:
        """Copy what changed since the last plan and mark it clean. Call it between two slices, never during one."""
        tables: dict[str, tuple[int, int, Any]] = {}
        raw: list[tuple[str, int, bytes]] = []
        rows: list[journal.Rows] = []
        fold_to = self._fold_to(core)
        for array in core.arrays:
            tables[array.name] = (array.block_rows, array.used, describe(array.dtype))
            since = journal.padded(self.directory.since.get(array.name), len(array.dirty))
            blocks, changed = journal.choose(array, since, fold_to)
            raw += [(array.name, block, array.block_bytes(block)) for block in blocks.tolist()]
            rows += journal.rows_of(array, changed)
            array.clean()
        for blobs in core.blobs:
            tables[blobs.name] = (blobs.block_rows, 0, None)
            raw += _blob_raw(blobs)
        return Plan(generation, core.next_offset, core.meta(), raw, list(journal.pieces_of(rows)), tables)

    def _fold_to(self, core: Core) -> int:
        """Nothing where no event came: what is idle stays as it is."""
        if core.next_offset == self.next_offset:
            return -1
        return journal.fold_to(self.directory.pieces, self.directory.number + 1, journal.most_rows(core.arrays))

    def nothing_new(self, plan: Plan) -> bool:
        """True if the last good manifest already says all of it."""
        same = (plan.next_offset, plan.generation, plan.meta) == (self.next_offset, self.generation, self.meta)
        return self.written > 0 and not plan.raw and not plan.rows and same

    def draft(self, plan: Plan) -> Draft:
        """A checkpoint in the making; the directory is copied, so that a failed one leaves no trace."""
        return Draft(self, plan, self._number)

    def accept(self, draft: Draft) -> None:
        """The manifest is acknowledged."""
        plan = draft.plan
        previous = self.generation
        self.directory = draft.directory
        self.written += 1
        self.next_offset, self.generation, self.meta = plan.next_offset, plan.generation, plan.meta
        if self.written >= 2:
            self.due, self.garbage = self.garbage, []
        self.garbage += draft.replaced
        if previous not in (-1, plan.generation):
            self.garbage.append(key_bytes(Key("manifest", self.partition, "", 0, self.epoch, self.member, previous, 0)))


def _writer_number(directory: Directory, writer: tuple[int, str]) -> int:
    """The number of a writer in a directory, entered if it is new; numbers nobody uses any more are reused."""
    used = {
        int(n) for entries in directory.blocks.values() for n in np.unique(entries["writer"][entries["chunks"] > 0])
    }
    used |= {place.writer for pages in directory.pages.values() for place in pages.values()}
    used |= {piece.writer for piece in directory.pieces}
    directory.writers = {number: who for number, who in directory.writers.items() if number in used}
    number = next(n for n in range(65_536) if n not in directory.writers)
    directory.writers[number] = writer
    return number


class Draft:
    """One checkpoint while it is written. `batches` may be packed in another thread, one after the other."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan, number: int) -> None:
        self.plan = plan
        self.replaced: list[bytes] = []
        self.directory = checkpoint.directory.copy(plan.tables)
        self.directory.number += 1
        self._checkpoint = checkpoint
        self._number = number
        self._touched: dict[str, set[int]] = {}
        self._packer = zstd.ZstdCompressor(level=ZSTD_LEVEL)  # a new one for each page costs a tenth more

    def batches(self) -> Iterator[Callable[[], list[Record]]]:
        """Everything but the manifest in the order in which it may be sent; each call packs a few MB."""
        for start in range(0, len(self.plan.raw), PAGES_AT_ONCE):
            yield partial(self.pages, start, start + PAGES_AT_ONCE)
        for start in range(0, len(self.plan.rows), PIECES_AT_ONCE):
            yield partial(self.pieces, start, start + PIECES_AT_ONCE)
        yield self.directories

    def pages(self, start: int, stop: int) -> list[Record]:
        """Records of the plan's blocks [start, stop): compressed, in chunks."""
        records: list[Record] = []
        for table, block, raw in self.plan.raw[start:stop]:
            records += self._page(table, block, self._pack(raw))
        return records

    def _pack(self, raw: bytes) -> bytes:
        return self._packer.compress(raw, zstd.ZstdCompressor.FLUSH_FRAME)

    def pieces(self, start: int, stop: int) -> list[Record]:
        """Records of the journal's pieces [start, stop)."""
        records: list[Record] = []
        for part, rows in enumerate(self.plan.rows[start:stop], start):
            value = self._pack(journal.encode(rows))
            chunks = _chunks(value, f"piece {part} of the journal")
            number = self.directory.number
            piece = Piece(number, part, self._number, len(chunks), zlib.crc32(value), journal.count(rows))
            self.directory.pieces.append(piece)
            records += zip(self._piece_keys(piece), chunks, strict=True)
            for table, numbers, _ in rows:
                self._wait(table, np.frombuffer(numbers, "<i4"))
        return records

    def _piece_keys(self, piece: Piece) -> list[bytes]:
        return piece_keys(self._checkpoint.partition, piece, self.directory.writers)

    def _wait(self, table: str, rows: Entries) -> None:
        """Rows of these blocks are in the journal now."""
        self.directory.since[table] = journal.noted(
            self.directory.since.get(table), rows // self.plan.tables[table][0], self.directory.number
        )

    def directories(self) -> list[Record]:
        """Records of the directory pages that changed; after all pages and pieces."""
        self._let_go()
        records: list[Record] = []
        for table, numbers in self._touched.items():
            for number in sorted(numbers):
                start = number * ENTRIES_PER_PAGE
                raw = self.directory.blocks[table][start : start + ENTRIES_PER_PAGE].tobytes()
                records += self._directory_page(table, number, self._pack(raw))
        return records

    def _let_go(self) -> None:
        """Pieces of which every row has a newer page."""
        waiting = [int(since[since > 0].min()) for since in self.directory.since.values() if since.any()]
        oldest = min(waiting, default=self.directory.number + 1)
        for piece in self.directory.pieces:
            if piece.number < oldest:
                self.replaced += self._piece_keys(piece)
        self.directory.pieces = [piece for piece in self.directory.pieces if piece.number >= oldest]

    def manifest(self) -> Record:
        """The record that makes this checkpoint the valid one; after all others are acknowledged."""
        checkpoint, plan = self._checkpoint, self.plan
        manifest = Manifest(
            partition=checkpoint.partition,
            topic_epoch=checkpoint.topic_epoch,
            epoch=checkpoint.epoch,
            generation=plan.generation,
            member=checkpoint.member,
            next_offset=plan.next_offset,
            meta=plan.meta,
            writers=self.directory.writers,
            tables={
                name: TableState(rows, used, dtype, self.directory.pages.get(name, {}))
                for name, (rows, used, dtype) in plan.tables.items()
            },
            layout=fingerprint(plan.tables),
            partitions=checkpoint.partitions,
            number=self.directory.number,
            pieces=tuple(self.directory.pieces),
        )
        return key_bytes(manifest_key(manifest)), manifest_bytes(manifest)

    def records(self) -> list[Record]:
        """All records in the order in which they may be sent, the manifest last."""
        return [*(record for pack in self.batches() for record in pack()), self.manifest()]

    def _page(self, table: str, block: int, value: bytes) -> Iterator[Record]:
        entries = self._entries(table, block)
        before = Place(*entries[block].item()[:4])
        place, records = self._write("page", table, block, value, before)
        entries[block] = (place.writer, place.version, place.chunks, place.crc, self.directory.number)
        if (since := self.directory.since.get(table)) is not None and block < len(since):
            since[block] = 0
        self._touched.setdefault(table, set()).add(block // ENTRIES_PER_PAGE)
        return iter(records)

    def _directory_page(self, table: str, number: int, value: bytes) -> list[Record]:
        places = self.directory.pages.setdefault(table, {})
        places[number], records = self._write("directory", table, number, value, places.get(number))
        return records

    def _write(
        self, kind: Any, table: str, block: int, value: bytes, before: Place | None
    ) -> tuple[Place, list[Record]]:
        checkpoint = self._checkpoint
        own = before is not None and before.chunks > 0 and before.writer == self._number
        version = 1 - before.version if own and before is not None else 0
        if before is not None and before.chunks > 0 and not own:
            self.replaced += place_keys(kind, checkpoint.partition, table, block, before, self.directory.writers)
        chunks = _chunks(value, f"block {block} of table {table}")
        place = Place(self._number, version, len(chunks), zlib.crc32(value))
        keys = place_keys(kind, checkpoint.partition, table, block, place, self.directory.writers)
        return place, list(zip(keys, chunks, strict=True))

    def _entries(self, table: str, block: int) -> Entries:
        entries = self.directory.blocks.get(table)
        if entries is None or len(entries) <= block:
            larger = np.zeros(max(block + 1, 0 if entries is None else 2 * len(entries)), ENTRY)
            if entries is not None:
                larger[: len(entries)] = entries
            entries = self.directory.blocks[table] = larger
        return entries


def _chunks(value: bytes, what: str) -> list[bytes]:
    chunks = [value[at : at + CHUNK_BYTES] for at in range(0, len(value), CHUNK_BYTES)]
    if len(chunks) > 65_535:
        raise Fatal(f"{what} is {len(value)} bytes long: too large for a checkpoint")
    return chunks


def piece_keys(partition: int, piece: Piece, writers: Mapping[int, tuple[int, str]]) -> list[bytes]:
    """The keys of all chunks of a piece of the journal."""
    epoch, member = writers[piece.writer]
    return [
        key_bytes(Key("piece", partition, "", piece.number, epoch, member, piece.part, chunk))
        for chunk in range(piece.chunks)
    ]


def place_keys(
    kind: Any, partition: int, table: str, block: int, place: Place, writers: dict[int, tuple[int, str]]
) -> list[bytes]:
    """The keys of all chunks of a page or directory page."""
    epoch, member = writers[place.writer]
    return [
        key_bytes(Key(kind, partition, table, block, epoch, member, place.version, chunk))
        for chunk in range(place.chunks)
    ]
