"""Arrays that grow keep what they hold, and what nobody has used takes no memory."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from pipeline import memory
from pipeline.state.pages import PagedArray

ROW = np.dtype([("at", "i8"), ("what", "u1", (3,))], align=True)
MIB = 1 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def filled(length: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rows = memory.zeros(length, ROW)
    rows["at"] = np.arange(length)
    return rows


@pytest.mark.parametrize("length", [0, 1, 1_000, memory.LARGE_BYTES // ROW.itemsize, 1_700_001])
@pytest.mark.parametrize("more", [1, 70_000, 2_000_000])
def test_an_array_that_grows_keeps_its_rows_and_new_ones_are_zeros(length: int, more: int) -> None:
    longer = memory.moved(filled(length), length + more)
    assert len(longer) == length + more
    assert (longer["at"][:length] == np.arange(length)).all()
    assert not longer[length:].view(np.uint8).any()
    assert longer.flags.writeable
    assert longer.flags.aligned


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells what is resident")
def test_rows_that_nobody_has_used_take_no_memory_and_growing_needs_no_second_copy() -> None:
    before = resident_bytes()
    array = PagedArray("t", ROW, 64, 256 * MIB // ROW.itemsize)
    assert resident_bytes() - before < 32 * MIB
    array.data["at"] = 1
    old, full = array.data, resident_bytes()
    assert full - before > 224 * MIB
    array.reserve(len(array.data) + 1)
    assert resident_bytes() - full < 64 * MIB
    assert not old["at"].any(), "what has moved is given back, though somebody still holds the old array"
    assert (array.data["at"][: len(old)] == 1).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux refuses to empty locked memory")
def test_an_array_in_locked_memory_grows_too() -> None:
    old = filled(2 * memory.LARGE_BYTES // ROW.itemsize)
    assert ctypes.CDLL(None).mlock(ctypes.c_void_p(old.ctypes.data), ctypes.c_size_t(1)) == 0
    longer = memory.moved(old, 2 * len(old))
    assert (longer["at"][: len(old)] == np.arange(len(old))).all()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is resident")
def test_code_that_was_let_go_is_there_again_when_it_is_called() -> None:
    import numba

    numba.njit(lambda x: x + 1)(1)
    before = resident_code("libllvmlite.so")
    memory.unmap_code("libllvmlite.so")
    assert resident_code("libllvmlite.so") < before // 2
    assert numba.njit(lambda x: x * 3)(2) == 6


def resident_code(name: str) -> int:
    """KiB of a library's code in memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(
        next(int(following.split()[1]) for following in lines if following.startswith("Rss:"))
        for line in lines
        if " r-xp " in line and line.endswith(f"/{name}")
    )
