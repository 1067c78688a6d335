"""One file with all that a worker group knows, key by key and by name: for repartition, backup and migration.

`MAGIC`, then frames: length and crc32 (4 bytes each, little endian) and a zstd-compressed msgpack message. The first is
a `Header`, then come for each partition a `Head` and its `Batch`es, and last an `End`, so that a file that was cut off
is told from a whole one. Arrays lie in it as raw rows of the dtypes that the header describes, so that a version with
another layout takes them over field by field. Slots mean nothing in it: a key's number is its place in its
partition's batches.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from backports import zstd

from pipeline import private
from pipeline.errors import ConfigError, Fatal

MAGIC: Final = b"keywatch-state\n"
FORMAT: Final = 1
BATCH_KEYS: Final = 1_024
FRAME_BYTES_MAX: Final = 1 << 30
ZSTD_LEVEL: Final = 3


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="header"):
    """Whose state it is and how its arrays are laid out."""

    format: int = FORMAT
    topic: str
    topic_id: str
    partitions: int
    partitioner: str
    group: str
    layout: str  # fingerprint of `tables`
    tables: dict[str, Any]  # table -> dtype as `manifest.describe` says it


class Head(msgspec.Struct, frozen=True, kw_only=True, tag="partition"):
    """One partition. `next_offset` is the first offset that its state does not include, -1 for none."""

    partition: int
    next_offset: int
    drained: bool  # no event lay in the log beyond it when this was written
    epoch: int
    meta: bytes  # pipeline.state.partition.Meta: watermark and the side inputs' versions
    shared: bytes  # one row of `shared`; keys are named by their number in this file
    keys: int


class Batch(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """Up to `BATCH_KEYS` keys: equally many ids, identities, rows of `keys` and of `book`."""

    partition: int
    first: int  # number of the first key within its partition
    ids: list[str]
    identities: list[bytes]  # msgpack of pipeline.state.partition.Identity
    keys: bytes
    book: bytes  # heads of chains are 0
    incidents: dict[int, bytes] = {}  # index in this batch -> msgpack of the open incident
    windows: dict[str, bytes] = {}  # minutes, hours, sources: open ones; `slot` is the index in this batch


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """Everything was written."""

    keys: int
    partitions: int


Frame = Header | Head | Batch | End
_out = msgspec.msgpack.Encoder()
_in: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def write(path: Path, frames: Iterable[Frame]) -> int:
    """Write a file that appears under its name only when it is whole and on disk; returns its size in bytes.

    Readable by its owner only: it tells which keys there are and how they are used. Raises ConfigError if it exists.
    """
    if path.exists():
        raise ConfigError(f"{path} exists: name another file, or move this one away")
    part = path.with_name(path.name + ".part")
    try:
        with os.fdopen(private.opened(part, os.O_WRONLY | os.O_TRUNC), "wb") as out:
            out.write(MAGIC)
            for frame in frames:
                _put(out, zstd.compress(_out.encode(frame), ZSTD_LEVEL))
            out.flush()
            os.fsync(out.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return path.stat().st_size


def _put(out: BinaryIO, value: bytes) -> None:
    out.write(len(value).to_bytes(4, "little") + zlib.crc32(value).to_bytes(4, "little") + value)


def read(path: Path) -> Iterator[Frame]:
    """All frames but the `End`, each verified. Raises ConfigError for no such file, Fatal for a damaged one."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"state file {path}: {error.strerror}") from error
    with file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ConfigError(f"{path} is no state file of Keywatch")
        keys = partitions = 0
        while not isinstance(frame := _get(file, path), End):
            if isinstance(frame, Header) and frame.format != FORMAT:
                raise ConfigError(f"{path} has format {frame.format}, this version of Keywatch reads {FORMAT}")
            keys += len(frame.ids) if isinstance(frame, Batch) else 0
            partitions += isinstance(frame, Head)
            yield frame
        if (frame.keys, frame.partitions) != (keys, partitions):
            raise Fatal(f"{path}: {keys} keys of {partitions} partitions, its end tells of {frame.keys}: damaged")


def _get(file: BinaryIO, path: Path) -> Frame:
    at, head = file.tell(), file.read(8)
    size = int.from_bytes(head[:4], "little")
    value = file.read(size) if len(head) == 8 and size <= FRAME_BYTES_MAX else b""
    if len(head) < 8 or len(value) < size:
        raise Fatal(f"{path} is cut off at byte {at}: take another copy")
    if zlib.crc32(value) != int.from_bytes(head[4:], "little"):
        raise Fatal(f"{path}: bad checksum at byte {at}: take another copy")
    try:
        return _in.decode(zstd.decompress(value))
    except (zstd.ZstdError, msgspec.MsgspecError) as error:
        raise Fatal(f"{path}: what stands at byte {at} cannot be read: {error}") from error


def header(path: Path) -> Header:
    """The first frame. Raises as `read`."""
    first = next(read(path), None)
    if not isinstance(first, Header):
        raise Fatal(f"{path} does not begin with a header: damaged")
    return first
