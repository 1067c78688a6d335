"""What a key partition has told the other topologies, as state: 300 KB, whatever the number of keys.

Both tables are direct-mapped: what finds its cell taken takes it. So what was told may be told again, never less.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

import numpy as np

from pipeline.pages import PagedArray

MARKS: Final = 1 << 16
COUNTERS: Final = 1 << 12
MARK: Final = np.dtype([("mark", "u4")])
COUNTER: Final = np.dtype([("source", "u4"), ("hour", "u4"), ("refusals", "u4")])


MOST_NAMES: Final = 1 << 18


class Names(dict[str, int]):
    """Key id -> 32 bits of it, worked out once; bounded."""

    def __missing__(self, key_id: str) -> int:
        if len(self) >= MOST_NAMES:
            self.clear()
        self[key_id] = number = crc32(key_id.encode())
        return number


class Marks:
    """`marks`: what was told; `counters`: refusals of a source in an hour."""

    def __init__(self) -> None:
        self.names = Names()
        self.marks = PagedArray("sighted", MARK, 256, MARKS)
        self.counters = PagedArray("refusals", COUNTER, 64, COUNTERS)
        self.arrays = (self.marks, self.counters)
