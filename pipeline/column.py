"""Columns between the steps of the core and on their way to a sink, without an object per value where that can be.

Numbers are numpy arrays. Texts of few distinct values are `Coded`: one number per event, and a table of the texts.
Texts that are new in every row are `Texts`. Everything else is a list or tuple. `plain` makes a list of any of them,
for those who read values one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Generic, TypeAlias, TypeVar

import numpy as np

MANY: Final = 4096

T = TypeVar("T")
U = TypeVar("U")
Array = np.ndarray[Any, np.dtype[Any]]


class Coded(Generic[T]):
    """Value i is `values[codes[i]]`. `values` may hold more than occur, and may be appended to later, never changed."""

    __slots__ = ("codes", "values")

    def __init__(self, codes: Array, values: Sequence[T]) -> None:
        self.codes = codes
        self.values = values

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, i: int) -> T:
        return self.values[int(self.codes[i])]

    def __iter__(self) -> Iterator[T]:
        return map(self.values.__getitem__, self.codes.tolist())

    def take(self, at: Array) -> Coded[T]:
        """The values at these positions."""
        return Coded(self.codes.take(at), self.values)

    def distinct(self) -> Coded[T]:
        """The same with only those values that occur, each once."""
        n = len(self.values)
        if n > MANY + 8 * len(self.codes):
            used, codes = np.unique(self.codes, return_inverse=True)
        else:  # a table over all values is cheaper than to sort
            used = np.flatnonzero(np.bincount(self.codes, minlength=n))
            place = np.empty(n, np.intp)
            place[used] = np.arange(len(used))
            codes = place[self.codes]
        return Coded(codes.reshape(-1), list(map(self.values.__getitem__, used.tolist())))

    def map(self, function: Callable[[T], U]) -> Coded[U]:
        """`function` of each value; it is asked once per entry of the table: of many entries take `distinct` first."""
        return Coded(self.codes, [function(value) for value in self.values])


class Texts:
    """Texts that differ from row to row, as ClickHouse takes them: each behind its length as LEB128."""

    __slots__ = ("count", "raw")

    def __init__(self, raw: Array, count: int) -> None:
        self.raw = raw
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        raw, at = self.raw.tobytes(), 0
        for _ in range(self.count):
            size = shift = 0
            while raw[at] > 127:
                size |= (raw[at] & 127) << shift
                shift, at = shift + 7, at + 1
            begin = at + 1
            at = begin + (size | raw[at] << shift)
            yield raw[begin:at].decode()


Column: TypeAlias = "Sequence[Any] | Array | Coded[Any] | Texts"
Columns: TypeAlias = Mapping[str, Column]
"""One table's rows by column, all of equal length."""

_NOTHING: Final = np.zeros(0, np.intp)


def coded(values: Collection[T]) -> Coded[T]:
    """The values as codes: a look-up for each, of a table made for them."""
    table = dict.fromkeys(values)
    index = dict(zip(table, range(len(table)), strict=True))
    return Coded(np.fromiter(map(index.__getitem__, values), np.intp, len(values)), list(table))


def joint(columns: Sequence[Coded[Any]]) -> Coded[tuple[Any, ...]]:
    """Columns of equal length as one of tuples, only of those that occur."""
    n = len(columns[0])
    firsts, codes = np.zeros(min(n, 1), np.intp), np.zeros(n, np.intp)
    for column in columns:
        if len(column.values) > 1:
            firsts, codes = _numbered(
                codes * len(column.values) + column.codes, max(len(firsts), 1) * len(column.values)
            )
    return Coded(codes, list(zip(*(column.take(firsts) for column in columns), strict=True)))


def _numbered(codes: Array, most: int) -> tuple[Array, Array]:
    """(where each different number comes first, ascending by number; the codes anew), of numbers below `most`."""
    if most > MANY + 8 * len(codes):
        _, firsts, anew = np.unique(codes, return_index=True, return_inverse=True)
        return firsts, anew.reshape(-1)
    first = np.full(most, -1, np.intp)  # a table is cheaper than to sort
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    used = np.flatnonzero(first >= 0)
    place = np.empty(most, np.intp)
    place[used] = np.arange(len(used))
    return first[used], place[codes]


def constant(value: T, n: int) -> Coded[T]:
    """`n` times the same."""
    return Coded(np.zeros(n, np.intp), [value])


def joined(parts: Sequence[Column]) -> Column:
    """One column after the other, as a new one where there are several."""
    if len(parts) == 1:
        return parts[0]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays)
    few = [part for part in parts if isinstance(part, Coded)]
    if len(few) == len(parts):
        return _join_coded(few)
    texts = [part for part in parts if isinstance(part, Texts)]
    if len(texts) == len(parts):
        return Texts(np.concatenate([part.raw for part in texts]), sum(map(len, texts)))
    return list(chain.from_iterable(plain(part) for part in parts))


def _join_coded(parts: Sequence[Coded[Any]]) -> Coded[Any]:
    if all(part.values is parts[0].values for part in parts):
        return Coded(np.concatenate([part.codes for part in parts]), parts[0].values)
    tables, codes_of = dict[int, Sequence[Any]](), dict[int, list[Array]]()
    for part in parts:
        tables[id(part.values)] = part.values
        codes_of.setdefault(id(part.values), []).append(part.codes)
    used = {which: _occurring(codes) for which, codes in codes_of.items()}
    values = coded([tables[which][code] for which, codes in used.items() for code in codes.tolist()])
    anew, begin = dict[int, Array](), 0
    for which, codes in used.items():
        anew[which] = np.zeros(codes.max(initial=-1) + 1, np.intp)
        anew[which][codes] = values.codes[begin : begin + len(codes)]
        begin += len(codes)
    return Coded(np.concatenate([_NOTHING, *(anew[id(part.values)][part.codes] for part in parts)]), values.values)


def _occurring(parts: Sequence[Array]) -> Array:
    """The codes that occur, ascending."""
    seen = np.zeros(max(int(codes.max(initial=-1)) for codes in parts) + 1, np.bool_)
    for codes in parts:
        seen[codes] = True
    return np.flatnonzero(seen)


def join_rows(parts: Sequence[Columns]) -> Columns:
    """The same table's rows, one after the other; all have the same columns."""
    if len(parts) == 1:
        return parts[0]
    return {name: joined([part[name] for part in parts]) for name in parts[0]}


def count(columns: Columns) -> int:
    """Rows."""
    return len(next(iter(columns.values()), ()))


def plain(column: Column) -> Sequence[Any]:
    """The values as Python's own objects."""
    return column.tolist() if isinstance(column, np.ndarray) else column if isinstance(column, list) else list(column)
