"""What a checkpoint writes of a table: the rows that changed, one after the other, or whole pages.

Active keys lie scattered: a page for each writes 32 times what changed. So changed rows go into the *journal*, in
pieces of about 1 MB, and each checkpoint also writes ("folds") the pages that have waited longest for it, one in
`FOLD_AFTER`. So a page waits for at most so many checkpoints, and what the journal says of it is void from then on:
every page says in which checkpoint it was written, a row of an older piece is passed over. A piece in which no page
has a row that counts is named by no manifest any more.

Ten minutes of rows beside the pages is what recovery reads and applies in addition; a block of which half the rows
changed is written as a page at once. (A log beside pages, cleaned by age: Rosenblum and Ousterhout, The design and
implementation of a log-structured file system, 1992.)

Pure: arrays and numbers in, choices out. `checkpoint.py` writes what is chosen, `recover.py` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from pipeline.state.manifest import Piece
from pipeline.state.pages import PagedArray

FOLD_AFTER: Final = 120
"""Checkpoints that a page may wait: ten minutes, within which most active keys were active several times. Half as many
fold twice as often; twice as many make recovery read a second state's worth of rows."""
PIECE_BYTES: Final = 1 << 20
"""Rows are packed together up to this size (a row more): larger ones pack no better and must wait in memory."""

Array = np.ndarray[Any, Any]
Rows = tuple[str, bytes, bytes]
"""Table, row numbers as little-endian i4, and the rows one after the other."""

_out = msgspec.msgpack.Encoder()
_in = msgspec.msgpack.Decoder(list[Rows])


def choose(array: PagedArray, since: Array, fold_to: int) -> tuple[Array, Array]:
    """Blocks to be written as pages, and row numbers for the journal; both sorted, and no row is in both.

    `since`: of each block the checkpoint of its oldest row in the journal, 0 for none; those up to `fold_to` are
    folded. A negative `fold_to` folds nothing.
    """
    whole = array.dirty | (2 * array.changed_per_block() >= array.block_rows)
    if fold_to >= 0:
        whole[_oldest(since)] = True
        whole[np.flatnonzero((since > 0) & (since <= fold_to))] = True
    rows = np.flatnonzero(array.changed)
    return np.flatnonzero(whole), rows[~whole[rows // array.block_rows]]


def _oldest(since: Array) -> Array:
    """The share of a checkpoint: so a table's pages take turns instead of coming due together."""
    waiting = np.flatnonzero(since)
    share = -(-(int(waiting.max(initial=-1)) + 1) // FOLD_AFTER)  # an array that has grown is half empty
    return waiting[np.argsort(since[waiting], kind="stable")[:share]]


def fold_to(pieces: Sequence[Piece], number: int, most_rows: int) -> int:
    """Up to which checkpoint's rows must be folded now, in checkpoint `number`: by age, and so that few remain."""
    due, left = max(0, number - FOLD_AFTER), sum(piece.rows for piece in pieces)
    for piece in pieces:
        if left <= most_rows:
            break
        due, left = max(due, piece.number), left - piece.rows
    return due


def most_rows(arrays: Iterable[PagedArray]) -> int:
    """Rows that the journal may have: it shall never take longer to read than the state itself."""
    return sum(len(array.data) for array in arrays)


def padded(since: Array | None, blocks: int) -> Array:
    """`since` of a table that has grown."""
    longer = np.zeros(max(blocks, 0 if since is None else len(since)), np.int64)
    if since is not None:
        longer[: len(since)] = since
    return longer


def noted(since: Array | None, blocks: Array, number: int) -> Array:
    """`since` after checkpoint `number` has put rows of these blocks into the journal."""
    since = padded(since, int(blocks.max(initial=-1)) + 1)
    blocks = blocks[since[blocks] == 0]
    since[blocks] = number
    return since


def rows_of(array: PagedArray, rows: Array) -> Iterator[Rows]:
    """These rows in parts of at most about PIECE_BYTES."""
    step = max(1, PIECE_BYTES // array.dtype.itemsize)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        yield array.name, some.astype("<i4").tobytes(), array.row_bytes()[some].tobytes()


def pieces_of(parts: Iterable[Rows]) -> Iterator[list[Rows]]:
    """Parts gathered to pieces."""
    piece: list[Rows] = []
    size = 0
    for part in parts:
        if piece and size + len(part[2]) > PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(part)
        size += len(part[2])
    if piece:
        yield piece


def count(piece: list[Rows]) -> int:
    """Rows in a piece."""
    return sum(len(rows) // 4 for _, rows, _ in piece)


def encode(piece: list[Rows]) -> bytes:
    """A piece before it is compressed."""
    return _out.encode(piece)


def decode(raw: bytes) -> list[tuple[str, Array, bytes]]:
    """The other way: table, row numbers, and the rows in the layout that the manifest says. Raises MsgspecError."""
    return [(table, np.frombuffer(rows, "<i4").astype(np.int64), data) for table, rows, data in _in.decode(raw)]


def newer(rows: Array, number: int, written: Array, block_rows: int) -> Array:
    """Which of these rows of piece `number` are newer than their page; `written`: by block, in which checkpoint."""
    blocks = rows // block_rows
    known = blocks < len(written)
    at = np.zeros(len(rows), np.int64)
    at[known] = written[blocks[known]]
    return np.flatnonzero(number > at)
