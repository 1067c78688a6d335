"""What is known of each of many subjects, bounded: one struct each, kept as blobs, forgotten by last use."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

import msgspec

from pipeline.state.pages import Blobs


class Dated(Protocol):
    """What can be forgotten by age."""

    last_us: int


T = TypeVar("T", bound=Dated)


class Register(Generic[T]):
    """Subject -> T. A change counts once `touch` was called; `save` before a checkpoint, `restore` after its blobs."""

    def __init__(self, name: str, kind: type[T], most: int) -> None:
        self.blobs = Blobs(name, block_rows=16)
        self._most = most
        self._decoder = msgspec.msgpack.Decoder(tuple[str, kind])  # type: ignore[valid-type]
        self._known: dict[str, T] = {}
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self._changed: set[str] = set()

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def get(self, subject: str) -> T | None:
        """What is known of it."""
        return self._known.get(subject)

    def add(self, subject: str, value: T) -> T:
        """Begin to know it; where the register is full, the tenth that was used longest ago is forgotten."""
        if len(self._known) >= self._most:
            oldest = sorted(self._known, key=lambda each: (self._known[each].last_us, each))
            for gone in oldest[: max(1, self._most // 10)]:
                self.drop(gone)
        self._rows[subject] = heappop(self._free) if self._free else len(self._known)
        self._known[subject] = value
        self.touch(subject)
        return value

    def touch(self, subject: str) -> None:
        """It has changed."""
        self._changed.add(subject)

    def drop(self, subject: str) -> None:
        """Forget it."""
        del self._known[subject]
        row = self._rows.pop(subject)
        self._changed.discard(subject)
        self.blobs.put(row, None)
        heappush(self._free, row)

    def save(self) -> None:
        """Write what has changed into the blobs."""
        for subject in sorted(self._changed):
            self.blobs.put(self._rows[subject], msgspec.msgpack.encode((subject, self._known[subject])))
        self._changed.clear()

    def restore(self) -> None:
        """The blobs are filled."""
        self._known, self._rows, self._changed = {}, {}, set()
        for row, raw in sorted(self.blobs.rows.items()):
            subject, value = self._decoder.decode(raw)
            self._known[subject], self._rows[subject] = value, row
        top = max(self._rows.values(), default=-1) + 1
        self._free = sorted(set(range(top)) - set(self._rows.values()))
        heapify(self._free)
