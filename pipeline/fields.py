"""Events by column: numbers as arrays, texts as spans of one buffer and as codes where the same ones recur.

What an event says is in here once; an `Event` is made of it only for those who ask for one (a finding, a reject).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pipeline import spans
from pipeline.column import Coded, Texts, constant
from pipeline.scan import TEXTS, WHOLE
from schemas.event import Event

Array = np.ndarray[Any, Any]

DEFAULTS: Final = {name: getattr(Event(key_id="-", ts_us=0), name) for name in (*TEXTS, *WHOLE)}
ORIGIN: Final = b"".join(DEFAULTS[name].encode() for name in TEXTS if name != "key_id")
"""What stands at the end of a buffer of records: the texts that a missing member means."""
AT: Final = {name: column for column, name in enumerate(TEXTS)}
"""Row of each text in the spans."""
_SEED: Final = np.uint64(int.from_bytes(os.urandom(8), "little"))


@dataclass(frozen=True, slots=True)
class Fields:
    """n events. starts, lengths: TEXTS x n, of `data`; whole: WHOLE x n.

    All arrays can be written, and each row is one piece: numba compiles anew, for seconds, for any other kind.
    """

    data: Array
    starts: Array
    lengths: Array
    whole: Array
    latency_ms: Array
    _codes: dict[str, Coded[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.latency_ms)

    def number(self, name: str) -> Array:
        """One of WHOLE."""
        row: Array = self.whole[WHOLE.index(name)]
        return row

    @property
    def ts_us(self) -> Array:
        """Times of the events."""
        return self.number("ts_us")

    def span(self, name: str) -> tuple[Array, Array, Array]:
        """(data, starts, lengths) of one of TEXTS, for `pipeline/spans.py`."""
        return self.data, self.starts[AT[name]], self.lengths[AT[name]]

    def coded(self, name: str) -> Coded[str]:
        """One of TEXTS, each different text made once."""
        known = self._codes.get(name)
        if known is None:
            known = self._codes[name] = coded(*self.span(name))
        return known

    def texts(self, name: str, chosen: Array | None = None) -> Texts:
        """One of TEXTS in the form of rows; of the events `chosen`, or of all."""
        data, starts, lengths = self.span(name)
        return packed(data, starts, lengths) if chosen is None else packed(data, starts[chosen], lengths[chosen])

    def text(self, name: str, i: int) -> str:
        """One text of event i."""
        start = int(self.starts[AT[name], i])
        return self.data[start : start + int(self.lengths[AT[name], i])].tobytes().decode()

    def event(self, i: int) -> Event:
        """Event i, as it was sent."""
        said: dict[str, Any] = dict(zip(WHOLE, self.whole[:, i].tolist(), strict=True))
        said |= {name: self.text(name, i) for name in TEXTS}
        return Event(latency_ms=float(self.latency_ms[i]), **said)

    def part(self, begin: int, end: int) -> Fields:
        """Of events begin to end."""
        if begin == 0 and end == len(self):
            return self
        few = slice(begin, end)
        codes = {name: Coded(known.codes[few], known.values) for name, known in self._codes.items()}
        spans_of = self.starts[:, few], self.lengths[:, few]
        return Fields(self.data, *spans_of, self.whole[:, few], self.latency_ms[few], codes)

    def take(self, chosen: Array) -> Fields:
        """Of these events; texts of the others are in no table of it."""
        codes = {name: known.take(chosen).distinct() for name, known in self._codes.items()}
        spans_of = self.starts.take(chosen, axis=1), self.lengths.take(chosen, axis=1)
        return Fields(self.data, *spans_of, self.whole.take(chosen, axis=1), self.latency_ms.take(chosen), codes)

    def joined(self, other: Fields, order: Array) -> Fields:
        """Events of both in this order; those of `other` count from where mine end."""

        def both(mine: Array, its: Array) -> Array:
            joined: Array = np.concatenate([mine, its], axis=-1).take(order, axis=-1)
            return joined

        codes = {name: _joined(known, other.coded(name), order) for name, known in self._codes.items()}
        spans_of = both(self.starts, other.starts + len(self.data)), both(self.lengths, other.lengths)
        whole, latency = both(self.whole, other.whole), both(self.latency_ms, other.latency_ms)
        return Fields(np.concatenate([self.data, other.data]), *spans_of, whole, latency, codes)


def _joined(mine: Coded[str], its: Coded[str], order: Array) -> Coded[str]:
    places = {text: code for code, text in enumerate(mine.values)}
    found = np.array([places.setdefault(text, len(places)) for text in its.values], np.int64)
    return Coded(np.concatenate([mine.codes, found.take(its.codes)]).take(order), list(places))


class Events:
    """Events that are made when they are asked for."""

    __slots__ = ("_fields", "_made")

    def __init__(self, told: Fields) -> None:
        self._fields = told
        self._made: dict[int, Event] = {}

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, i: int) -> Event:
        made = self._made.get(i)
        if made is None:
            made = self._made[i] = self._fields.event(i)
        return made

    def __iter__(self) -> Iterator[Event]:
        return map(self.__getitem__, range(len(self)))


def fields_of(events: Sequence[Event]) -> Fields:
    """Of events that are there already: what was not written as usual, and tests."""
    raw = [getattr(event, name).encode() for name in TEXTS for event in events]
    lengths = np.array([len(text) for text in raw], np.int64)
    starts = (np.cumsum(lengths) - lengths).reshape(len(TEXTS), len(events))
    whole = np.array([[getattr(event, name) for event in events] for name in WHOLE], np.int64)
    latency = np.array([event.latency_ms for event in events], np.float64)
    return Fields(spans.buffer(raw), starts, lengths.reshape(starts.shape), whole, latency)


def buffer(texts: Iterable[Any]) -> Array:
    """These one behind the other (bytes, or arrays of them), and ORIGIN."""
    return spans.buffer((*texts, ORIGIN))


def empty(data: Array, n: int) -> Fields:
    """n events that say nothing, of what `buffer` made: to be filled."""
    starts, lengths = np.zeros((len(TEXTS), n), np.int64), np.zeros((len(TEXTS), n), np.int64)
    begin = len(data) - spans.PADDING - len(ORIGIN)
    for name in TEXTS[1:]:
        starts[AT[name]], lengths[AT[name]] = begin, len(DEFAULTS[name])
        begin += len(DEFAULTS[name])
    whole = np.repeat(np.array([[DEFAULTS[name]] for name in WHOLE], np.int64), n, axis=1)
    return Fields(data, starts, lengths, whole, np.zeros(n))


def coded(data: Array, starts: Array, lengths: Array) -> Coded[str]:
    """Texts as codes, in the order of their first places."""
    n = len(starts)
    if not lengths.any():
        return constant("", n)
    codes, firsts = np.empty(n, np.int64), np.empty(n, np.int64)
    index = np.zeros(1 << max(1, (2 * n - 1).bit_length()), np.int32)
    firsts = firsts[: spans.distinct(data, starts, lengths, _SEED, index, codes, firsts)]
    return Coded(codes, _strings(data, starts[firsts], lengths[firsts]))


def _strings(data: Array, starts: Array, lengths: Array) -> list[str]:
    """Decoded all at once, and cut; one by one where characters are several bytes."""
    ends = np.cumsum(lengths)
    out = np.empty(int(ends[-1]) + spans.PADDING, np.uint8)
    spans.gather(data, starts, lengths, out)
    raw = out[: ends[-1]].tobytes()
    places = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    if not raw.isascii():
        return [raw[begin:end].decode() for begin, end in places]
    text = raw.decode("ascii")
    return [text[begin:end] for begin, end in places]


def packed(data: Array, starts: Array, lengths: Array) -> Texts:
    """Texts in the form of rows."""
    out = np.empty(int(lengths.sum()) + 5 * len(lengths) + spans.PADDING, np.uint8)
    return Texts(out[: spans.pack(data, starts, lengths, out)], len(lengths))


def numbered(prefix: str, numbers: Array) -> Texts:
    """`prefix` and a number (>= 0) in each row. Raises ValueError where that may be longer than 127 bytes."""
    raw = np.frombuffer(bytearray(prefix.encode()), np.uint8)
    if len(raw) > 127 - 19:
        raise ValueError(f"a prefix of {len(raw)} bytes is too long")
    out = np.empty((len(raw) + 20) * len(numbers), np.uint8)
    return Texts(out[: spans.number(raw, numbers.astype(np.int64), out)], len(numbers))
