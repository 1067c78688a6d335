"""Whether an MMDB file is whole, before the fast reader has it: it is in C, and damaged bytes may end the process.

Seen by fuzzing: one changed byte in a record, a type that is none, and maxminddb 3.2.0 dies of a segmentation fault.
So every record that the tree names is walked once, as the format's description says (MaxMind DB file format 2.0):
types, sizes, bounds, texts as keys of maps, pointers to what is no pointer. The shipped file (8 MB) takes 0.13 s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import maxminddb
import numba
import numpy as np

from detectors.compile import allocating, inlined

MARKER: Final = b"\xab\xcd\xefMaxMind.com"
MOST_METADATA: Final = 128 << 10
"""It lies in so many bytes at the end."""
BETWEEN: Final = 16
"""Zero bytes between tree and data."""
MOST_DEPTH: Final = 64
"""Maps and arrays in one another; databases have 4."""
INT: Any = np.int64
"""A byte as numba counts on with it: its own `int` of one has no sign, and with others it becomes a float."""
POINTER, TEXT, BYTES, MAP, ARRAY, EXTENDED = 1, 2, 4, 7, 11, 8
SIZES: Final = np.array(  # by type: least, most; of text and bytes any, of maps and arrays how many
    [(1, 0), (0, 0), (0, 1 << 30), (8, 8), (0, 1 << 30), (0, 2), (0, 4), (0, 1 << 30), (0, 4), (0, 8), (0, 16),
     (0, 1 << 30), (1, 0), (1, 0), (0, 1), (4, 4)], np.int64
)  # fmt: skip


def check(path: Path) -> None:
    """Raises maxminddb.InvalidDatabaseError, and what maxminddb's reader in Python raises over the metadata."""
    with maxminddb.open_database(str(path), maxminddb.MODE_MMAP) as reader:
        about: Any = reader.metadata()
    raw = np.fromfile(path, np.uint8)
    tree = int(about.node_count) * int(about.record_size) // 4
    before = max(len(raw) - MOST_METADATA, 0)
    end = before + raw[before:].tobytes().rfind(MARKER)
    if about.record_size not in (24, 28, 32) or tree + BETWEEN > end:
        raise maxminddb.InvalidDatabaseError("its tree is longer than the file")
    bad = damage(raw[:tree], raw[tree + BETWEEN : end], int(about.node_count), int(about.record_size), SIZES)
    if bad >= 0:
        raise maxminddb.InvalidDatabaseError(f"the record at {bad} of its data is none")


def reading_mode(path: Path) -> int:
    """How maxminddb is to read the file: in C once it is found whole; else what `check` raises.

    With NUMBA_DISABLE_JIT=1 that would take minutes: the reader in Python then reads it, which survives damage.
    """
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return int(maxminddb.MODE_MMAP)
    check(path)
    return int(maxminddb.MODE_AUTO)


@allocating
def damage(tree: Any, data: Any, node_count: int, record_size: int, sizes: Any) -> Any:
    """Offset in `data` (u1) of the first record that is none, -1 where all are. `tree`: u1, `sizes`: `SIZES`."""
    seen = np.zeros(len(data), np.uint8)
    todo = np.zeros(1024, np.int64)
    for node in range(node_count):
        for side in range(2):
            at = record(tree, node, side, record_size) - node_count
            if at <= 0:
                continue  # another node, or nothing
            at -= BETWEEN
            if at < 0 or at >= len(data):
                return max(at, 0)
            if seen[at]:
                continue
            seen[at], todo[0], top = 1, at, 1
            while top:
                start = todo[top - 1]
                todo, top = walk(data, start, todo, top - 1, seen, sizes)
                if top < 0:
                    return start
    return -1


@inlined
def record(tree: Any, node: int, side: int, record_size: int) -> Any:
    """One of the two records of a node."""
    at = node * (record_size // 4)
    if record_size == 28:
        middle = INT(tree[at + 3])
        high = middle >> 4 if side == 0 else middle & 15
        at += 4 * side
        return (high << 24) | (INT(tree[at]) << 16) | (INT(tree[at + 1]) << 8) | INT(tree[at + 2])
    size, value = record_size // 8, 0
    for i in range(size):
        value = (value << 8) | INT(tree[at + side * size + i])
    return value


@allocating
def walk(data: Any, at: Any, todo: Any, top: int, seen: Any, sizes: Any) -> tuple[Any, int]:
    """One record, whole; what it points to and nobody has seen goes onto `todo`. Returns it and its length, -1: bad."""
    left, named = np.zeros(MOST_DEPTH, np.int64), np.zeros(MOST_DEPTH, np.uint8)
    left[0], depth = 1, 0
    while depth >= 0:
        if left[depth] == 0:
            depth -= 1
            continue
        left[depth] -= 1
        is_key = named[depth] and left[depth] % 2 == 1
        kind, size, at = head(data, at)
        if at < 0 or (is_key and kind not in (TEXT, POINTER)):
            return todo, -1
        if kind == POINTER:
            if size >= len(data) or INT(data[size]) >> 5 == POINTER or (is_key and INT(data[size]) >> 5 != TEXT):
                return todo, -1
            if not seen[size]:
                seen[size] = 1
                if top == len(todo):
                    todo = np.concatenate((todo, np.zeros(len(todo), np.int64)))
                todo[top], top = size, top + 1
        elif kind > 15 or size < sizes[kind, 0] or size > sizes[kind, 1]:
            return todo, -1
        elif kind in (MAP, ARRAY):
            depth += 1
            if depth == MOST_DEPTH:
                return todo, -1
            left[depth], named[depth] = size * (2 if kind == MAP else 1), kind == MAP
        elif kind != 14:  # a boolean's size is its value
            at += size
    return todo, top if at <= len(data) else -1


@inlined
def head(data: Any, at: Any) -> Any:
    """Type, size (of a pointer: where to) and where the value begins; -1 there: it lies beyond the data."""
    end = len(data)
    if at >= end:
        return 0, 0, -1
    control = INT(data[at])
    at += 1
    kind, size = control >> 5, control & 31
    if kind == POINTER:
        count = (size >> 3) + 1
        value = size & 7 if count < 4 else 0
    else:
        if kind == 0:
            kind = MAP + INT(data[at]) if at < end else 0
            kind = kind if kind >= EXTENDED else 0
            at += 1
        count, value = max(size - 28, 0), 0
    if at + count > end:
        return 0, 0, -1
    for i in range(count):
        value = (value << 8) | INT(data[at + i])
    if kind == POINTER:
        base = 2048 if count == 2 else 526_336 if count == 3 else 0
        return kind, value + base, at + count
    base = size if count == 0 else 29 if count == 1 else 285 if count == 2 else 65_821
    return kind, value + base, at + count
