"""Memory that was freed goes back to the system: glibc keeps it, though nobody may ask for so much again.

A partition's pages are tens of thousands of pieces of some 16 KB, each freed once it is in the arrays. They lie below
what was asked for later, so they stay the process' until they are trimmed; the arrays grow elsewhere (mmap).
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

EVERY_BYTES: Final = 64 << 20
"""Freed between two trims: one takes some milliseconds."""

_freed = 0


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


def _found() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None


_trim = _found()
