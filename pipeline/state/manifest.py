"""What a checkpoint writes, as bytes: keys of pages, directory pages, manifests and the layout of state.

Four kinds of records lie in the pages topic, all under keys that name their writer:
 - a *page* is one block of one table, compressed and cut into chunks of at most CHUNK_BYTES;
 - a *piece* of the journal is rows that are newer than their pages (`journal.py`), compressed and cut in the same way;
 - a *directory page* says of ENTRIES_PER_PAGE blocks of a table who wrote the valid page, which version, what crc, and
   in which checkpoint;
 - the *manifest* names directory pages and pieces, the offset that the state includes and everything else.
So a checkpoint of a few changed rows of a table of a million keys writes a piece and a manifest of some KB.

Format 1 had no journal. It is read, and the first checkpoint then writes all of the state anew; a program that knows
format 1 only refuses a manifest of format 2.
"""

from __future__ import annotations

import zlib
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from pipeline.errors import Fatal

FORMAT: Final = 3
"""Of 3 a source's row names its texts by number: a version that doesn't know would write its counts again, under no
prefix, client and route."""
CHUNK_BYTES: Final = 65_536
"""A record's value is at most this long, far below every broker's default limit of 1 MB."""
ENTRIES_PER_PAGE: Final = 2_048
ENTRY: Final = np.dtype([("writer", "<u2"), ("version", "u1"), ("chunks", "<u2"), ("crc", "<u4"), ("number", "<u4")])
"""One block: chunks = 0 is "never written" (zeros); writer is a number that the manifest's `writers` explains; number
is that of the checkpoint."""
ENTRY_OF_FORMAT: Final = {
    1: np.dtype([(name, ENTRY[name]) for name in ("writer", "version", "chunks", "crc")]),
    2: ENTRY,
    FORMAT: ENTRY,
}

Kind = Literal["page", "piece", "directory", "manifest"]


class Key(NamedTuple):
    """Identity of one record. `version` is 0 or 1; of a manifest the generation, and table and block are empty.

    Of a piece of the journal block is the number of the checkpoint, version counts its pieces; such a key is used once.
    """

    kind: Kind
    partition: int
    table: str
    block: int
    epoch: int
    member: str
    version: int
    chunk: int


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a directory page is: as ENTRY, in a manifest."""

    writer: int
    version: int
    chunks: int
    crc: int


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """One piece of the journal, in a manifest. `number` is that of the checkpoint that wrote it."""

    number: int
    part: int
    writer: int
    chunks: int
    crc: int
    rows: int


class TableState(msgspec.Struct, frozen=True):
    """One table as the manifest names it. `dtype` is None for blobs."""

    block_rows: int
    used: int
    dtype: Any
    pages: dict[int, Place]  # number of the directory page -> where it is


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's checkpoint. `next_offset` is the first offset that the state does not include, -1 for none."""

    format: int = FORMAT
    partition: int
    topic_epoch: str
    epoch: int
    generation: int
    member: str
    next_offset: int
    meta: bytes
    writers: dict[int, tuple[int, str]]  # number -> (epoch, member)
    tables: dict[str, TableState]
    layout: str  # fingerprint of all tables' dtypes and block sizes
    partitions: int = 0  # of the requests topic when it was written; 0: by a version that did not say
    number: int = 0  # of this checkpoint in the life of the partition's state, over all writers
    pieces: tuple[Piece, ...] = ()  # rows newer than their pages, oldest first


_key_out = msgspec.msgpack.Encoder()
_key_in = msgspec.msgpack.Decoder(tuple[Kind, int, str, int, int, str, int, int])
_manifest_out = msgspec.msgpack.Encoder()
_manifest_in = msgspec.msgpack.Decoder(Manifest)


def key_bytes(key: Key) -> bytes:
    """A key as the bytes that Kafka compacts by."""
    return _key_out.encode(tuple(key))


def read_key(raw: bytes) -> Key:
    """The other way. Raises Fatal: a foreign record in the pages topic is no thing to skip."""
    try:
        return Key(*_key_in.decode(raw))
    except msgspec.MsgspecError as error:
        raise Fatal(f"the pages topic holds a record whose key is not Keywatch's ({raw[:40]!r}): {error}") from error


def manifest_bytes(manifest: Manifest) -> bytes:
    """Four bytes of crc, then msgpack."""
    body = _manifest_out.encode(manifest)
    return zlib.crc32(body).to_bytes(4, "little") + body


def read_manifest(key: Key, raw: bytes) -> Manifest:
    """The other way; verifies crc, format and that it stands under its own key. Raises Fatal."""
    where = f"manifest of partition {key.partition}, epoch {key.epoch}, generation {key.version}"
    if zlib.crc32(raw[4:]) != int.from_bytes(raw[:4], "little"):
        raise Fatal(f"{where}: bad checksum; the state is not usable and nothing older may be taken instead")
    try:
        manifest = _manifest_in.decode(raw[4:])
    except msgspec.MsgspecError as error:
        raise Fatal(f"{where}: {error}") from error
    if manifest.format not in ENTRY_OF_FORMAT:
        raise Fatal(f"{where}: format {manifest.format}, this program reads up to {FORMAT}: it is older than the state")
    if manifest_key(manifest) != key:
        raise Fatal(f"{where}: stands under another checkpoint's key")
    return manifest


def manifest_key(manifest: Manifest) -> Key:
    """Where a manifest is written."""
    return Key("manifest", manifest.partition, "", 0, manifest.epoch, manifest.member, manifest.generation, 0)


def describe(dtype: np.dtype[Any]) -> Any:
    """A dtype as plain data, with names, offsets and padding, nested records included."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": describe(base), "shape": list(shape)}
    if dtype.names is None or dtype.fields is None:
        return dtype.str
    fields = {name: [describe(dtype.fields[name][0]), dtype.fields[name][1]] for name in dtype.names}
    return {"fields": fields, "size": dtype.itemsize}


def restore_dtype(plain: Any) -> np.dtype[Any]:
    """The dtype that `describe` described."""
    if isinstance(plain, str):
        return np.dtype(plain)
    if "base" in plain:
        return np.dtype((restore_dtype(plain["base"]), tuple(plain["shape"])))
    names = list(plain["fields"])
    return np.dtype(
        {
            "names": names,
            "formats": [restore_dtype(plain["fields"][name][0]) for name in names],
            "offsets": [plain["fields"][name][1] for name in names],
            "itemsize": plain["size"],
        }
    )
