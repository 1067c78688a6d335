"""Records by column: a slice of the log without a Python object per record.

Keys and values are spans of one buffer (`pipeline/spans.py`), made to `bytes` for those who ask for one of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np

from pipeline.core import TICK_HEADER, Slice
from pipeline.fields import buffer

Array = np.ndarray[Any, Any]


class Record(Protocol):
    """What of aiokafka's ConsumerRecord is used."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Bytes(Sequence[bytes | None]):
    """Text i is `data[starts[i] : starts[i] + lengths[i]]`, None where its length is -1."""

    __slots__ = ("data", "lengths", "starts")

    def __init__(self, data: Array, starts: Array, lengths: Array) -> None:
        self.data = data
        self.starts = starts
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Bytes(self.data, self.starts[i], self.lengths[i])
        start, length = int(self.starts[i]), int(self.lengths[i])
        return None if length < 0 else self.data[start : start + length].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        return map(self.__getitem__, range(len(self)))


def flat(texts: Sequence[bytes | None]) -> Bytes:
    """The same as spans of one buffer."""
    if isinstance(texts, Bytes):
        return texts
    lengths = np.array([-1 if text is None else len(text) for text in texts], np.int64)
    sizes = np.maximum(lengths, 0)
    return Bytes(buffer([text or b"" for text in texts]), np.cumsum(sizes) - sizes, lengths)


@dataclass(frozen=True, slots=True)
class Records:
    """All of equal length; ticks: 1 where a record carries the header of one."""

    offsets: Array
    timestamps_ms: Array
    keys: Bytes
    values: Bytes
    ticks: Array

    def __len__(self) -> int:
        return len(self.offsets)

    def sizes(self) -> Array:
        """Bytes of each: key and value."""
        sizes: Array = np.maximum(self.keys.lengths, 0) + np.maximum(self.values.lengths, 0)
        return sizes

    def part(self, topic: str, partition: int, begin: int, end: int) -> Slice:
        """Records begin to end as a slice."""
        few = slice(begin, end)
        keys, values = _alone(self.keys[few], self.values[few])
        return Slice(
            topic, partition, _numbers(self.offsets[few]), keys, values,
            _numbers(self.timestamps_ms[few]), frozenset(np.flatnonzero(self.ticks[few]).tolist()),
        )  # fmt: skip


def _numbers(numbers: Array) -> array[int]:
    """Python's own numbers to those who ask for one of them, and memory to numpy: no object for each."""
    return array("q", numbers.tobytes())


def _one(parts: Sequence[Sequence[int]]) -> array[int]:
    return _numbers(np.concatenate([np.asarray(part, np.int64) for part in parts]))


def _alone(*texts: Bytes) -> list[Bytes]:
    """The same with a buffer of their own: a slice that waits keeps no fetch, nor does an odd record copy one."""
    low = min(int(each.starts.min()) for each in texts)
    high = max(int((each.starts + np.maximum(each.lengths, 0)).max()) for each in texts)
    data = buffer([texts[0].data[low:high]])
    return [Bytes(data, each.starts - low, each.lengths) for each in texts]


def following(slices: Sequence[Slice]) -> Slice:
    """Slices of one partition that follow each other as one, with one buffer."""
    texts = [(flat(each.keys), flat(each.values)) for each in slices]
    data = buffer([part.data for pair in texts for part in _once(pair)])
    keys, values, begin = list[Bytes](), list[Bytes](), 0
    for pair in texts:
        shifts = [begin, begin if len(_once(pair)) == 1 else begin + len(pair[0].data)]
        for out, part, shift in zip((keys, values), pair, shifts, strict=True):
            out.append(Bytes(data, part.starts + shift, part.lengths))
        begin += sum(len(part.data) for part in _once(pair))
    firsts = np.cumsum([0, *(len(each.offsets) for each in slices)]).tolist()
    return Slice(
        slices[0].topic, slices[0].partition, _one([each.offsets for each in slices]),
        _run(data, keys), _run(data, values), _one([each.timestamps_ms for each in slices]),
        frozenset(first + tick for first, each in zip(firsts, slices, strict=False) for tick in each.ticks),
    )  # fmt: skip


def _once(pair: tuple[Bytes, Bytes]) -> tuple[Bytes, ...]:
    """Keys and values mostly share one buffer."""
    return pair[:1] if pair[0].data is pair[1].data else pair


def _run(data: Array, parts: Sequence[Bytes]) -> Bytes:
    return Bytes(
        data, np.concatenate([each.starts for each in parts]), np.concatenate([each.lengths for each in parts])
    )


def of_records(records: Sequence[Record]) -> Records:
    """Of aiokafka's records."""
    ticks = [bool(r.headers) and any(name == TICK_HEADER for name, _ in r.headers) for r in records]
    both = flat(list(chain([r.key for r in records], [r.value for r in records])))
    n = len(records)
    return Records(
        np.array([r.offset for r in records], np.int64), np.array([r.timestamp for r in records], np.int64),
        both[:n], both[n:], np.array(ticks, np.uint8),
    )  # fmt: skip
