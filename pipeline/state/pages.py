"""State as paged arrays: a structured array in blocks of rows, with marks of what changed since the last checkpoint.

Everything a partition knows is in such arrays (and a few bytes of `meta`), so that a checkpoint is: write what changed,
rows into the journal or blocks as pages (`journal.py` chooses). Variable-size things (an open incident) are stored as
msgpack in a `BlobTable`, in blocks as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline import memory

TakeOver = Callable[["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"], None]


class PagedArray:
    """`data[:used]` rows of one dtype; grows by doubling, so views into `data` die at `reserve`.

    `changed` marks rows, `dirty` whole blocks (their page must be written, whatever rows changed). `take_over` fills
    empty rows from rows of another layout: by name, or as the table knows better.
    """

    def __init__(
        self, name: str, dtype: np.dtype[Any], block_rows: int, capacity: int = 0, take_over: TakeOver | None = None
    ) -> None:
        self.name = name
        self.dtype = dtype
        self.block_rows = block_rows
        self.take_over = take_over or migrate
        self.used = 0
        blocks = max(1, -(-capacity // block_rows))
        self.data = memory.zeros(blocks * block_rows, dtype)
        self.changed = np.zeros(blocks * block_rows, np.bool_)
        self.dirty = np.zeros(blocks, np.bool_)

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows in all; new rows are zeros."""
        if rows <= len(self.data):
            return
        blocks = max(-(-rows // self.block_rows), 2 * len(self.dirty))
        self.data = memory.moved(self.data, blocks * self.block_rows)
        self.changed = memory.moved(self.changed, blocks * self.block_rows)
        self.dirty = memory.moved(self.dirty, blocks)

    def touch(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """These row numbers changed."""
        self.changed[rows] = True

    def changed_per_block(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """How many rows of each block changed since `clean`."""
        return np.bincount(np.flatnonzero(self.changed) // self.block_rows, minlength=len(self.dirty))

    def clean(self) -> None:
        """A checkpoint has copied what changed."""
        self.changed[:] = False
        self.dirty[:] = False

    def row_bytes(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The same memory as raw bytes, row by row: numpy copies records field by field, 20 times slower."""
        return self.data.view(np.uint8).reshape(len(self.data), self.dtype.itemsize)

    def block_bytes(self, block: int) -> bytes:
        """The raw bytes of one block."""
        start = block * self.block_rows
        return self.data[start : start + self.block_rows].tobytes()

    def load_block(self, block: int, raw: bytes, dtype: np.dtype[Any] | None = None) -> None:
        """Put one block back; `dtype` is the layout it was written with, fields are taken over by name."""
        rows = np.frombuffer(raw, dtype or self.dtype)
        start = block * self.block_rows
        self.reserve(start + self.block_rows)
        target = self.data[start : start + self.block_rows]
        if dtype is None or dtype == self.dtype:
            target[:] = rows
        else:
            self.take_over(rows, target)


def migrate(old: np.ndarray[Any, Any], new: np.ndarray[Any, Any]) -> None:
    """Copy what both layouts have, field by field and by name, nested records too; what is new stays zero."""
    assert old.dtype.names is not None and new.dtype.names is not None
    for name in new.dtype.names:
        if name not in old.dtype.names:
            continue
        if new[name].dtype.names is not None and old[name].dtype.names is not None:
            migrate(old[name], new[name])
        elif old[name].shape == new[name].shape:
            new[name] = old[name]


class BlobTable(ABC):
    """Variable-size values by row number, in blocks like an array; how they are kept is the subclass'."""

    def __init__(self, name: str, block_rows: int) -> None:
        self.name = name
        self.block_rows = block_rows
        self.dirty: set[int] = set()

    @abstractmethod
    def get(self, row: int) -> bytes | None:
        """One row's value."""

    @abstractmethod
    def put(self, row: int, value: bytes | None) -> None:
        """Set or (None) remove one row's value."""

    @abstractmethod
    def clear(self) -> None:
        """Remove all of them."""

    def touch(self, row: int) -> None:
        """This row changed."""
        self.dirty.add(row // self.block_rows)


class Blobs(BlobTable):
    """Kept as they are written: row -> bytes."""

    def __init__(self, name: str, block_rows: int) -> None:
        super().__init__(name, block_rows)
        self.rows: dict[int, bytes] = {}

    def get(self, row: int) -> bytes | None:
        """One row's value."""
        return self.rows.get(row)

    def put(self, row: int, value: bytes | None) -> None:
        """Set or (None) remove one row's value."""
        if value is None:
            self.rows.pop(row, None)
        else:
            self.rows[row] = value
        self.touch(row)

    def clear(self) -> None:
        """Remove all of them."""
        self.rows.clear()
