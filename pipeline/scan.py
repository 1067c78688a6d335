"""Event v1 as it is usually written, read without a Python object per value: JSON to numbers and spans of text.

Strict and partial: what is taken here is what msgspec makes of the same bytes (tests/pipeline/test_scan.py holds it to
that). Whatever is less usual is left to msgspec, record by record: escapes, characters beyond ASCII, exponents, a
member twice, nested values, a number or text out of its bounds, a key id that is not its record's key.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled, inlined
from pipeline.spans import HIGHS, ONES, byte, head, word
from schemas.event import Event

Array = np.ndarray[Any, Any]

TEXTS: Final = (
    "key_id", "client_ip", "method", "route", "path", "outcome", "user_agent", "fingerprint", "environment", "scope",
    "request_id", "source", "position",
)  # fmt: skip
"""The event's texts; position = the row of the spans."""
WHOLE: Final = ("ts_us", "status", "bytes_in", "bytes_out", "v")
"""The event's integers; position = the row of the numbers."""
_NAMES: Final = (*TEXTS, *WHOLE, "latency_ms")
assert set(_NAMES) == set(Event.__struct_fields__)

_TYPES: Final = {each.name: each.type for each in msgspec.inspect.type_info(Event).fields}  # type: ignore[attr-defined]
_LONGEST: Final = np.array([_TYPES[name].max_length for name in TEXTS], np.int64)
_LEAST: Final = np.array([_TYPES[name].ge for name in WHOLE], np.int64)
_MOST: Final = np.array([_TYPES[n].lt - 1 if _TYPES[n].lt is not None else _TYPES[n].le for n in WHOLE], np.int64)
_MOST_LATENCY: Final = float(_TYPES["latency_ms"].le)
_N_TEXTS: Final = len(TEXTS)
_N_NAMES: Final = len(_NAMES)
_LATENCY: Final = _NAMES.index("latency_ms")
_KEY_ID: Final = TEXTS.index("key_id")
_NEEDED: Final = 1 << _KEY_ID | 1 << _NAMES.index("ts_us")
_UNKNOWN_NAME: Final = -2
_TENS: Final = np.array([10.0**k for k in range(17)])
_WHOLE_TENS: Final = np.array([10**k for k in range(17)], np.int64)
_MOST_DIGITS: Final = 15
"""Of a decimal number: so many are exact in 64 bits, and so is the power of ten that they are divided by."""
MOST_MEMBERS: Final = 64


def _heads(names: tuple[str, ...], last: bool) -> Array:
    """The first or last eight bytes of each name; of a shorter one all, zeros behind."""
    raw = [name.encode() for name in names]
    cut = [text[-8:] if last else text[:8] for text in raw]
    return np.array([int.from_bytes(text.ljust(8, b"\0"), "little") for text in cut], np.uint64)


assert max(map(len, _NAMES)) <= 16  # first and last eight bytes are all of it
_NAME_HEADS: Final = _heads(_NAMES, last=False)
_NAME_TAILS: Final = _heads(_NAMES, last=True)
_NAME_LENGTHS: Final = np.array([len(name) for name in _NAMES], np.int64)

_BLANKS: Final = np.uint64(0x2020202020202020)
_QUOTES: Final = np.uint64(0x2222222222222222)
_ESCAPES: Final = np.uint64(0x5C5C5C5C5C5C5C5C)
_PLACES: Final = np.uint64(0x0001020304050607)
_ZEROS: Final = np.uint64(0x3030303030303030)
_TO_HIGH: Final = np.uint64(0x7676767676767676)
"""Added to a byte of 10 to 127 it sets its high bit."""


@inlined
def _skip(data: Array, at: Any, end: int) -> Any:
    while at < end and byte(data, at) <= 32:
        blank = byte(data, at)
        if blank != 32 and blank != 10 and blank != 13 and blank != 9:
            break
        at += 1
    return at


@inlined
def _text_end(data: Array, at: Any, end: int) -> int:
    """Where the quote behind a plain text is; -1 where there is none, or the text is not plain.

    Eight bytes at once: `odd` has the high bit of the first byte that is a quote, an escape, a control or beyond ASCII;
    behind that it may have others. The product puts that byte's number into the highest eight bits.
    """
    while at < end:
        part = word(data, at)
        quote, escape = part ^ _QUOTES, part ^ _ESCAPES
        odd = ((part - _BLANKS) & ~part | (quote - ONES) & ~quote | (escape - ONES) & ~escape | part) & HIGHS
        if odd != 0:
            lowest = (odd & (~odd + np.uint64(1))) >> np.uint64(7)
            at += np.int64((lowest * _PLACES) >> np.uint64(56))
            return at if at < end and byte(data, at) == 34 else -1
        at += 8
    return -1


@inlined
def _is_named(data: Array, at: Any, length: int, name: int) -> bool:
    if _NAME_LENGTHS[name] != length or _NAME_HEADS[name] != head(data, at, length):
        return False
    return length <= 8 or _NAME_TAILS[name] == word(data, at + length - 8)


@inlined
def _name(data: Array, at: Any, length: int) -> int:
    """The member's index in `_NAMES`, or `_UNKNOWN_NAME`."""
    for name in range(_N_NAMES):
        if _is_named(data, at, length, name):
            return name
    return _UNKNOWN_NAME


@inlined
def _eight_digits(data: Array, at: Any) -> tuple[Any, Any]:
    """(number of the digits that stand here, at most eight; how many there are)

    A digit's byte is 0x30 to 0x39. `odd` has the high bit of the first that is none, as in `_text_end`; it and what
    follows are moved out. Then pairs, fours and eights are made of the digits, all at once.
    """
    part = word(data, at) ^ _ZEROS
    odd = (part + _TO_HIGH | part) & HIGHS
    count = np.int64(8)
    if odd != 0:
        lowest = (odd & (~odd + np.uint64(1))) >> np.uint64(7)
        count = np.int64((lowest * _PLACES) >> np.uint64(56))
        if count == 0:
            return np.int64(0), count
        part <<= np.uint64(64 - 8 * count)
    part = (part * np.uint64(10) + (part >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    part = (part * np.uint64(100) + (part >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    part = (part * np.uint64(10_000) + (part >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
    return np.int64(part), count


@inlined
def _digits(data: Array, at: Any, end: int) -> tuple[Any, Any]:
    """(number, where its digits end): of at most 16. They may go on behind `end`: then the record has no end."""
    value, count = _eight_digits(data, at)
    if count == 8 and at + 8 < end:
        more, few = _eight_digits(data, at + 8)
        return value * _WHOLE_TENS[few] + more, at + 8 + few
    return value, at + count


@inlined
def _whole(data: Array, at: Any, end: int) -> tuple[Any, Any]:
    """(number >= 0, where it ends or -1); what is no end of a number is seen by who reads on."""
    value, stop = _digits(data, at, end)
    if stop == at or (stop > at + 1 and byte(data, at) == 48):
        return np.int64(0), np.int64(-1)
    return value, stop


@inlined
def _decimal(data: Array, at: Any, end: int) -> tuple[Any, Any]:
    """(number >= 0 of at most 15 digits, where it ends or -1); exact, since only one division rounds."""
    value, stop = _whole(data, at, end)
    before, after = stop - at, np.int64(0)
    if 0 <= stop < end and byte(data, stop) == 46:
        part, last = _digits(data, stop + 1, end)
        after = last - stop - 1
        if after == 0:
            return 0.0, np.int64(-1)
        value, stop = value * _WHOLE_TENS[min(after, 8)] * _WHOLE_TENS[max(after - 8, 0)] + part, last
    if before + after > _MOST_DIGITS:
        return 0.0, np.int64(-1)
    return value / _TENS[after], stop


@inlined
def _member(
    data: Array, at: Any, end: int, name: int, i: int, starts: Array, lengths: Array, whole: Array, latency: Array
) -> Any:
    """Read the value of a member of record i; returns where it ends or -1."""
    if at >= end:
        return -1
    if name < _N_TEXTS:
        if byte(data, at) != 34:
            if name != _UNKNOWN_NAME:
                return -1
            _, stop = _whole(data, at, end)
            return stop
        stop = _text_end(data, at + 1, end)
        if stop < 0:
            return -1
        if name != _UNKNOWN_NAME:
            starts[name, i], lengths[name, i] = at + 1, stop - at - 1
            if lengths[name, i] > _LONGEST[name]:
                return -1
        return stop + 1
    if name == _LATENCY:
        value, stop = _decimal(data, at, end)
        latency[i] = value
        return stop if value <= _MOST_LATENCY else -1
    number, stop = _whole(data, at, end)
    whole[name - _N_TEXTS, i] = number
    return stop if _LEAST[name - _N_TEXTS] <= number <= _MOST[name - _N_TEXTS] else -1


@compiled
def _record(
    data: Array, at: int, end: int, order: Array, i: int, starts: Array, lengths: Array, whole: Array, latency: Array
) -> bool:
    """Whether it is an event of the usual kind; order[k]: the member that came k-th before, as a guess."""
    seen = 0
    at = _skip(data, at, end)
    if at >= end or byte(data, at) != 123:
        return False
    for k in range(MOST_MEMBERS):
        at = _skip(data, at + 1, end)
        if at >= end or byte(data, at) != 34:
            return False
        name = order[k]
        stop = at + 1 + _NAME_LENGTHS[name]
        if byte(data, stop) != 34 or not _is_named(data, at + 1, stop - at - 1, name):
            stop = _text_end(data, at + 1, end)
            if stop < 0:
                return False
            name = _name(data, at + 1, stop - at - 1)
        if name >= 0:
            if seen >> name & 1:
                return False
            seen |= 1 << name
            order[k] = name
        at = _skip(data, stop + 1, end)
        if at >= end or byte(data, at) != 58:
            return False
        at = _member(data, _skip(data, at + 1, end), end, name, i, starts, lengths, whole, latency)
        if at < 0:
            return False
        at = _skip(data, at, end)
        if at >= end or byte(data, at) != 44:
            break
    if at >= end or byte(data, at) != 125 or _skip(data, at + 1, end) != end:
        return False
    return seen & _NEEDED == _NEEDED


@compiled
def _is_key(data: Array, start: int, length: int, keys: Array, key_start: int, key_length: int) -> bool:
    """Printable, without blanks, and the record's key."""
    if length != key_length or length == 0:
        return False
    for k in range(length):
        found = byte(data, start + k)
        if found != byte(keys, key_start + k) or found < 33 or found > 126:
            return False
    return True


@compiled
def scan(
    data: Array, begins: Array, ends: Array, keys: Array, key_begins: Array, key_lengths: Array, latest_us: Array,
    starts: Array, lengths: Array, whole: Array, latency: Array, good: Array, order: Array,
) -> None:  # fmt: skip
    """Record i is `data[begins[i] : ends[i]]`, its key `keys[key_begins[i] :]` with that length.

    starts, lengths: TEXTS x records, whole: WHOLE x records, filled with what a missing member means; latency: zeros.
    latest_us: what an event's time may be at most. good[i] = 1 where record i was read; else its row means nothing.
    order: MOST_MEMBERS zeros, for guesses.
    """
    for i in range(len(ends)):
        good[i] = (
            _record(data, begins[i], ends[i], order, i, starts, lengths, whole, latency)
            and whole[0, i] <= latest_us[i]
            and _is_key(data, starts[_KEY_ID, i], lengths[_KEY_ID, i], keys, key_begins[i], key_lengths[i])
        )
