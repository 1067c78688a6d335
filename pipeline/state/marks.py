"""What a key partition has told the other topologies, as state: 300 KB, whatever the number of keys.

Both tables are direct-mapped: what finds its cell taken takes it. So what was told may be told again, never less.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.state.pages import PagedArray

MARKS: Final = 1 << 16
COUNTERS: Final = 1 << 12
MARK: Final = np.dtype([("mark", "u4")])
COUNTER: Final = np.dtype([("source", "u4"), ("hour", "u4"), ("refusals", "u4")])


class Marks:
    """`marks`: what was told; `counters`: refusals of a source in an hour."""

    def __init__(self) -> None:
        self.marks = PagedArray("sighted", MARK, 256, MARKS)
        self.counters = PagedArray("refusals", COUNTER, 64, COUNTERS)
        self.arrays = (self.marks, self.counters)
