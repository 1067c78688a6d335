"""Texts as spans of one buffer: told apart, hashed, searched and packed without a Python object for each.

A text is `data[start : start + length]`, UTF-8. `data` ends with `PADDING` bytes of nothing, so that words of eight
bytes can be read at any place. numba's cache does not see a change of `word` in other files that call it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from detectors.compile import brief

Array = np.ndarray[Any, Any]

PADDING: Final = 16


def buffer(texts: Iterable[Any]) -> Array:
    """These one behind the other (bytes, or arrays of them), and the padding."""
    return np.frombuffer(bytearray().join((*texts, bytes(PADDING))), np.uint8)


_MULTIPLY: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_SLASH: Final = 47
ONES: Final = np.uint64(0x0101010101010101)
HIGHS: Final = np.uint64(0x8080808080808080)
"""(word - ONES) & ~word & HIGHS is not 0 where one of the word's bytes is."""


@brief
def byte(data: Array, at: int) -> Any:
    """`data[at]`, of `at` >= 0: numba asks of an index with a sign whether it counts from the end."""
    return data[np.uint64(at)]


@brief
def word(data: Array, at: int) -> Any:
    """Eight bytes from `at` on, little-endian; LLVM makes one load of it, since the index has no sign."""
    i = np.uint64(at)
    low = np.uint64(data[i]) | np.uint64(data[i + np.uint64(1)]) << np.uint64(8)
    low |= np.uint64(data[i + np.uint64(2)]) << np.uint64(16) | np.uint64(data[i + np.uint64(3)]) << np.uint64(24)
    low |= np.uint64(data[i + np.uint64(4)]) << np.uint64(32) | np.uint64(data[i + np.uint64(5)]) << np.uint64(40)
    return low | np.uint64(data[i + np.uint64(6)]) << np.uint64(48) | np.uint64(data[i + np.uint64(7)]) << np.uint64(56)


@brief
def head(data: Array, at: int, length: int) -> Any:
    """The same where only `length` bytes are left: zeros behind them."""
    if length >= 8:
        return word(data, at)
    return word(data, at) & ((np.uint64(1) << np.uint64(8 * length)) - np.uint64(1))


@brief
def _finalise(mixed: Any) -> Any:
    """splitmix64's last steps."""
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


@brief
def mix64(data: Array, starts: Array, lengths: Array, seeds: Array, hashes: Array) -> None:
    """64 bits of each text (at most 8 x `seeds` bytes): splitmix64's finaliser on every word that is not 0, added up.

    The same in every process: rows and state hold it. No cryptography: who can choose a text can repeat it as well.
    """
    for i in range(len(starts)):
        start, length = starts[i], lengths[i]
        mixed = np.uint64(0)
        for k in range((length + 7) >> 3):
            part = head(data, start + 8 * k, length - 8 * k)
            if part != 0:
                mixed += _finalise(part ^ seeds[k])
        hashes[i] = _finalise(mixed + np.uint64(length))


@brief
def _varint(data: Array, at: int, end: int) -> tuple[Any, int]:
    """(zigzag number of at most 64 bits, where it ends or -1)"""
    raw = np.uint64(0)
    for k in range(10):
        if at >= end:
            return np.int64(0), -1
        part = np.uint64(byte(data, at))
        at += 1
        raw |= (part & np.uint64(127)) << np.uint64(7 * k)
        if part < 128:
            return np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1)), at
    return np.int64(0), -1


@brief
def _nullable(data: Array, at: int, end: int) -> tuple[Any, int, int]:
    """(length, -1 for null, where it begins, where it ends or -1)"""
    length, at = _varint(data, at, end)
    stop = at + max(length, 0)
    if at < 0 or length < -1 or stop > end:
        return np.int64(-1), at, -1
    return length, at, stop


@brief
def _is_tick(data: Array, start: int, length: int, tick: Array) -> bool:
    if length != len(tick):
        return False
    same = True
    for k in range(length):
        same = same and data[start + k] == tick[k]
    return same


@brief
def _headers(data: Array, at: int, end: int, tick: Array, ticks: Array, i: int) -> int:
    """Read over the headers of a record; ticks[i] = 1 where one is named `tick`. Returns where they end or -1."""
    count, at = _varint(data, at, end)
    if at < 0 or count < 0:
        return -1
    for _ in range(count):
        length, start, at = _nullable(data, at, end)
        if at < 0 or length < 0:
            return -1
        if _is_tick(data, start, length, tick):
            ticks[i] = 1
        _, _, at = _nullable(data, at, end)
        if at < 0:
            return -1
    return at


@brief
def unpack(
    data: Array, at: int, base_offset: int, first_ms: int, appended_ms: int, tick: Array, offsets: Array,
    times_ms: Array, key_starts: Array, key_lengths: Array, value_starts: Array, value_lengths: Array, ticks: Array,
) -> bool:  # fmt: skip
    """The records of one of Kafka's batches (v2) from `at` to the end of `data`; False where they don't fill it.

    Source: Kafka, clients/.../record/DefaultRecord.java. appended_ms: time of all of them, -1: each has its own.
    """
    for i in range(len(offsets)):
        length, at = _varint(data, at, len(data))
        end = at + length
        if at < 0 or length < 1 or end > len(data):
            return False
        delta_ms, at = _varint(data, at + 1, end)  # behind the attributes
        if at < 0:
            return False
        delta, at = _varint(data, at, end)
        if at < 0:
            return False
        times_ms[i] = appended_ms if appended_ms >= 0 else first_ms + delta_ms
        offsets[i] = base_offset + delta
        key_lengths[i], key_starts[i], at = _nullable(data, at, end)
        if at < 0:
            return False
        value_lengths[i], value_starts[i], at = _nullable(data, at, end)
        if at < 0 or _headers(data, at, end, tick, ticks, i) != end:
            return False
        at = end
    return at == len(data)


@brief
def _hash(data: Array, start: int, length: int, seed: Any) -> Any:
    mixed = seed ^ np.uint64(length)
    for k in range((length + 7) >> 3):
        mixed = (mixed ^ head(data, start + 8 * k, length - 8 * k)) * _MULTIPLY
        mixed ^= mixed >> np.uint64(29)
    return _finalise(mixed)


@brief
def _same(data: Array, one: int, other: int, length: int) -> bool:
    for k in range((length + 7) >> 3):
        if head(data, one + 8 * k, length - 8 * k) != head(data, other + 8 * k, length - 8 * k):
            return False
    return True


@brief
def distinct(data: Array, starts: Array, lengths: Array, seed: Any, index: Array, codes: Array, firsts: Array) -> int:
    """Number the different texts in the order of their first places; returns how many there are.

    index: zeroed int32, a power of two, at least twice as long as `starts`. codes: of each text. firsts: by code.
    seed: what nobody outside knows, or texts could be chosen that make this slow; codes do not depend on it.
    """
    mask = np.uint64(len(index) - 1)
    n = 0
    for i in range(len(starts)):
        start, length = starts[i], lengths[i]
        before = firsts[codes[i - 1]] if i else 0
        if i and lengths[before] == length and _same(data, start, starts[before], length):  # most columns vary little
            codes[i] = codes[i - 1]
            continue
        spot = _hash(data, start, length, seed) & mask
        while index[spot] != 0:
            first = firsts[index[spot] - 1]
            if lengths[first] == length and _same(data, start, starts[first], length):
                break
            spot = (spot + np.uint64(1)) & mask
        if index[spot] == 0:
            firsts[n] = i
            n += 1
            index[spot] = n
        codes[i] = index[spot] - 1
    return n


@brief
def shaped(data: Array, starts: Array, lengths: Array, shapes: Array, run: int, found: Array) -> bool:
    """found[i] = 1: text i holds a byte of shape 2, or `run` of shape 1 in a row; shapes are 0, 1 and 2.

    Returns whether any does.
    """
    some = False
    for i in range(len(starts)):
        found[i] = 0
        so_far = 0
        if lengths[i] < run:  # as most are: there is nothing to be counted
            seen = np.uint8(0)
            for at in range(starts[i], starts[i] + lengths[i]):
                seen |= shapes[byte(data, at)]
            found[i] = seen >> 1
            some = some or found[i] == 1
            continue
        for at in range(starts[i], starts[i] + lengths[i]):
            shape = shapes[byte(data, at)]
            so_far = so_far + 1 if shape == 1 else 0
            if shape == 2 or so_far == run:
                found[i] = 1
                some = True
                break
    return some


@brief
def holds(data: Array, starts: Array, lengths: Array, sought: int, heads: Array, found: Array) -> bool:
    """found[i] = 1: text i holds the byte (not 0), or begins with one of `heads` (three bytes each).

    Returns whether any does.
    """
    some = False
    every = np.uint64(sought) * ONES
    for i in range(len(starts)):
        found[i] = 0
        for k in range(0, lengths[i], 8):
            other = head(data, starts[i] + k, lengths[i] - k) ^ every
            if (other - ONES) & ~other & HIGHS != 0:
                found[i] = 1
        if lengths[i] >= 3:
            first = word(data, starts[i]) & np.uint64(0xFFFFFF)
            same = False
            for known in heads:
                same |= known == first
            found[i] |= same
        some = some or found[i] == 1
    return some


@brief
def _copy(data: Array, start: int, length: int, out: Array, to: int) -> None:
    """By words: up to seven bytes behind the text change in `out`."""
    for k in range(0, length, 8):
        part, i = word(data, start + k), np.uint64(to + k)
        for shift in range(8):  # LLVM makes one store of it
            out[i + np.uint64(shift)] = np.uint8(part >> np.uint64(8 * shift) & np.uint64(255))


@brief
def gather(data: Array, starts: Array, lengths: Array, out: Array) -> None:
    """The texts one behind the other. `out`: their lengths, and the padding."""
    to = int(np.int64(0))  # as a literal 0 it would have `_copy` compiled twice
    for i in range(len(starts)):
        _copy(data, starts[i], lengths[i], out, to)
        to += lengths[i]


@brief
def pack(data: Array, starts: Array, lengths: Array, out: Array) -> int:
    """Each text behind its length as LEB128, one after the other; returns the bytes.

    out: their lengths, 5 for each, and the padding.
    """
    at = 0
    for i in range(len(starts)):
        left = lengths[i]
        while left > 127:
            out[at] = left & 127 | 128
            left >>= 7
            at += 1
        out[at] = left
        at += 1
        _copy(data, starts[i], lengths[i], out, at)
        at += lengths[i]
    return at


@brief
def number(prefix: Array, numbers: Array, out: Array) -> int:
    """As `pack`, of texts that are a prefix and a number >= 0; the whole has at most 127 bytes. Returns the bytes."""
    at = 0
    for value in numbers:
        digits = 1
        left = value
        while left > 9:
            left //= 10
            digits += 1
        out[at] = len(prefix) + digits
        at += 1
        for each in prefix:
            out[at] = each
            at += 1
        for k in range(digits):
            out[at + digits - 1 - k] = 48 + value % 10
            value //= 10
        at += digits
    return at


@brief
def _digits_end(data: Array, at: int, end: int) -> int:
    while at < end and 48 <= byte(data, at) <= 57:
        at += 1
    return at


@brief
def _is_uuid(data: Array, at: int) -> bool:
    for k in range(36):
        found = byte(data, at + k)
        if k == 8 or k == 13 or k == 18 or k == 23:
            if found != 45:
                return False
        elif not (48 <= found <= 57 or 65 <= found <= 70 or 97 <= found <= 102):
            return False
    return True


@brief
def shorten(data: Array, starts: Array, lengths: Array, out: Array, begins: Array, sizes: Array) -> int:
    """Paths with `{id}` for a segment of digits and `{uuid}` for a UUID; returns the bytes written.

    Such segments are new with nearly every event; what else a template leaves out, `routes.template` finds.
    out: three times the bytes, six for each text, and the padding.
    """
    to = 0
    for i in range(len(starts)):
        begins[i] = to
        at, end = starts[i], starts[i] + lengths[i]
        while at < end:
            found = byte(data, at)
            out[np.uint64(to)] = found
            to += 1
            at += 1
            if found != _SLASH:
                continue
            stop = _digits_end(data, at, end)
            if stop > at and (stop == end or byte(data, stop) == _SLASH):
                out[to], out[to + 1], out[to + 2], out[to + 3] = 123, 105, 100, 125
                to += 4
                at = stop
            elif at + 36 <= end and (at + 36 == end or byte(data, at + 36) == _SLASH) and _is_uuid(data, at):
                out[to], out[to + 1], out[to + 2] = 123, 117, 117
                out[to + 3], out[to + 4], out[to + 5] = 105, 100, 125
                to += 6
                at += 36
        sizes[i] = to - begins[i]
    return to
