"""Rows as one block of ClickHouse's Native format, column by column (`pipeline/column.py`).

clickhouse-connect's own writer asks Python about every value: 6 us for a row of `requests` and its windows.
Here numbers are copied as they lie in memory, texts of few values go as the numbers that they are
already, and other texts as one string into which the lengths are put. What is rare goes the client's way.

The format, of a block: number of columns, number of rows, then for each column name, type and data. Integers before
data are LEB128, all else is little-endian. LowCardinality: version, flags, dictionary, one index per row.
Source: ClickHouse, src/Formats/NativeWriter.cpp, src/DataTypes/Serializations/SerializationLowCardinality.cpp.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from socket import AF_INET, inet_pton
from typing import Any, Final

import numpy as np
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext

from pipeline import spans
from pipeline.column import Array, Coded, Column, Texts, coded, plain

MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96
ADDRESS: Final = "FixedString(16)"
"""In which IPv6 columns travel: the server casts it byte for byte, and it has no text form to be parsed."""

_LOW_CARDINALITY_VERSION: Final = 1
_OWN_DICTIONARY: Final = 1 << 9 | 1 << 10  # additional keys, and a new dictionary for each block
_INDEX_TYPES: Final = ("<u1", "<u2", "<u4", "<u8")  # by the number in the flags


def block(names: Sequence[str], kinds: Sequence[str], columns: Sequence[Column]) -> bytes:
    """All rows. Raises TypeError, ValueError or OverflowError where a value is none of its column's kind."""
    parts = [leb128(len(names)), leb128(len(columns[0]))]
    for name, kind, column in zip(names, kinds, columns, strict=True):
        travels = ADDRESS if kind == "IPv6" else kind
        parts += [_text(name), _text(travels), _WRITERS.get(kind, _by_client)(kind, column)]
    return b"".join(parts)


@lru_cache(maxsize=1024)
def leb128(number: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(text: str) -> bytes:
    raw = text.encode()
    return leb128(len(raw)) + raw


def _number(kind: str, column: Column) -> bytes:
    dtype, code = _NUMBERS[kind]
    if isinstance(column, np.ndarray):
        return _cast(column, np.dtype(dtype)).tobytes()
    return array(code, plain(column)).tobytes()


def _cast(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """As `astype`, but a number that does not fit is an error, not another number."""
    if dtype.kind in "iu" and not np.can_cast(numbers.dtype, dtype) and len(numbers):
        bounds = np.iinfo(dtype)
        if numbers.dtype.kind not in "iu" or int(numbers.min()) < bounds.min or int(numbers.max()) > bounds.max:
            raise OverflowError(f"a number does not fit {dtype.name}")
    return numbers.astype(dtype)


def _string(kind: str, column: Column) -> bytes:
    if isinstance(column, Texts):
        return bytes(column.raw.tobytes())
    if isinstance(column, Coded):
        few = column.distinct()
        return _gathered([_text(value) for value in few.values], few.codes)
    return texts(plain(column))


def _gathered(raw: Sequence[bytes], codes: Array) -> bytes:
    lengths = np.array([len(text) for text in raw], np.int64)
    starts, lengths = (np.cumsum(lengths) - lengths).take(codes), lengths.take(codes)
    out = np.empty(int(lengths.sum()) + spans.PADDING, np.uint8)
    spans.gather(spans.buffer(raw), starts, lengths, out)
    return bytes(out[: -spans.PADDING].tobytes())


def texts(values: Sequence[str]) -> bytes:
    """Each text behind its length. Most columns have short ones, whose length is one byte."""
    raw = "".join(values).encode()
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    if len(raw) != lengths.sum() or lengths.max(initial=0) > 127:  # characters that are several bytes, or long texts
        return b"".join(map(_text, values))
    starts = np.cumsum(lengths) - lengths
    return np.insert(np.frombuffer(raw, np.uint8), starts, lengths.astype(np.uint8)).tobytes()


def _low_cardinality(kind: str, column: Column) -> bytes:
    few = column.distinct() if isinstance(column, Coded) else coded(plain(column))
    width = 0 if len(few.values) <= 1 << 8 else 1 if len(few.values) <= 1 << 16 else 2
    head = np.array([_LOW_CARDINALITY_VERSION, _OWN_DICTIONARY | width, len(few.values)], "<u8").tobytes()
    rows = np.array([len(few)], "<u8").tobytes()
    return head + texts(few.values) + rows + few.codes.astype(_INDEX_TYPES[width]).tobytes()


def _addresses(kind: str, column: Column) -> bytes:
    few = column.distinct() if isinstance(column, Coded) else coded(plain(column))
    raw = np.frombuffer(b"".join(map(address, few.values)), np.uint8).reshape(-1, 16)
    return bytes(raw.take(few.codes, axis=0).tobytes())


@lru_cache(maxsize=65_536)  # addresses repeat
def address(text: str) -> bytes:
    """16 bytes; "" is ::, an IPv4 address is mapped (::ffff:a.b.c.d)."""
    if not text:
        return bytes(16)
    try:
        return MAPPED + inet_pton(AF_INET, text)  # 0.6 us where `ip_address` takes 10
    except OSError:
        parsed = ip_address(text)
    return parsed.packed if isinstance(parsed, IPv6Address) else MAPPED + parsed.packed


def _counts(kind: str, column: Column) -> bytes:
    """Array(UInt32), of equal length where it comes as a table: the end of each row, then all numbers."""
    if not isinstance(column, np.ndarray):
        return _by_client(kind, column)
    rows, width = column.shape
    ends: Array = np.arange(1, rows + 1, dtype="<u8") * width
    return ends.tobytes() + _cast(column, np.dtype("<u4")).tobytes()


def _by_client(kind: str, column: Column) -> bytes:
    """Few rows, or a rare type."""
    out, values = bytearray(), plain(column)
    kept: Any = get_from_name(kind)
    kept.write_column(values, out, InsertContext("", [kind], [kept]))
    return bytes(out)


_NUMBERS: Final = {  # numpy's and `array`'s name
    "UInt8": ("<u1", "B"), "UInt16": ("<u2", "H"), "UInt32": ("<u4", "I"), "UInt64": ("<u8", "Q"),
    "Int64": ("<i8", "q"), "Float32": ("<f4", "f"), "Float64": ("<f8", "d"),
    "DateTime('UTC')": ("<u4", "I"), "DateTime64(6, 'UTC')": ("<i8", "q"),
}  # fmt: skip
_WRITERS: Final[dict[str, Callable[[str, Column], bytes]]] = {
    **dict.fromkeys(_NUMBERS, _number),
    "String": _string,
    "LowCardinality(String)": _low_cardinality,
    "IPv6": _addresses,
    "Array(UInt32)": _counts,
}
