"""Memory that was freed goes back to the system: glibc keeps it, though nobody may ask for so much again.

A partition's pages are tens of thousands of pieces of some 16 KB, each freed once it is in the arrays. They lie below
what was asked for later, so they stay the process' until they are trimmed. What a checkpoint copies is alike.

Large arrays are the system's own (mmap). Of glibc they would come from what was freed, which is zeroed first: then
rows that nobody has used yet take memory too.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from pathlib import Path
from typing import Any, Final

import numpy as np

EVERY_BYTES: Final = 8 << 20
"""Freed between two trims: one takes some milliseconds."""

LARGE_BYTES: Final = 1 << 20
HUGE_BYTES: Final = 40 << 20
"""Of such arrays memory comes in pages of 2 MB, where the system has them; windows come and go in smaller ones."""
PIECE_BYTES: Final = 8 << 20
"""So much of an array that grows is there twice."""

M_ARENA_MAX: Final = -8
"""Of mallopt(3)."""

_freed = 0


def few_arenas() -> None:
    """Before threads are started: with an arena for each of them glibc keeps more that is free."""
    if _mallopt is not None:
        _mallopt(M_ARENA_MAX, 1)


def unmap_code(name: str) -> None:
    """A library's code that is not needed soon: what is called again is read from its file again.

    The compiler's is 50 MB of a worker that has compiled. Only code: what a library has written is in other pages.
    """
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        span, rights, *_, path = line.split()
        if rights == "r-xp" and Path(path).name == name:
            start, end = (int(each, 16) for each in span.split("-"))
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def zeros(length: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """As numpy's, of memory that counts from its first use and goes back with the array."""
    size = length * dtype.itemsize
    if size < LARGE_BYTES:
        return np.zeros(length, dtype)
    space = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):  # a key's record is elsewhere than the last one's
        with contextlib.suppress(OSError):
            space.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(space, dtype)


def moved(array: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    """A longer one with the same content, in pieces: where the old one is large it is empty afterwards."""
    longer = zeros(length, array.dtype)
    old, new = array.view(np.uint8), longer.view(np.uint8)  # numpy copies records field by field
    space = getattr(array.base, "obj", None)
    for start in range(0, len(old), PIECE_BYTES):
        end = min(start + PIECE_BYTES, len(old))
        new[start:end] = old[start:end]
        if isinstance(space, mmap.mmap):
            with contextlib.suppress(OSError):  # locked memory (mlock) stays where it is
                space.madvise(mmap.MADV_DONTNEED, start, end - start)
    return longer


def freed(size_bytes: int) -> None:
    """So much was let go; now and then it is given back."""
    global _freed
    _freed += size_bytes
    if _freed >= EVERY_BYTES:
        give_back()


def give_back() -> None:
    """What is free, now. Nothing happens where the C library cannot do it (musl, macOS)."""
    global _freed
    _freed = 0
    if _trim is not None:
        _trim(0)


def _found(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None


_trim, _mallopt = _found("malloc_trim"), _found("mallopt")
