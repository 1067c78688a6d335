"""From partitions' states to key records (`frames`), and from key records to the states of other partitions (`Target`).

What a key takes along: its record of all detectors and of fusion, its book (first and last use, the ring of repeats),
what the catalogue declared, its open incident. Its open windows (minute, hour, sources) go along only where partition
and topic stay the same: a row's `part` and `version` are offsets of one partition, so in another log the old row would
be counted twice or win over the new one. Elsewhere a window's life ends with the move: what it had counted stands in
ClickHouse (no manifest is written before), what comes later is another part of it, and readers sum over parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from pipeline.errors import Fatal
from pipeline.source_texts import IN_WORDS
from pipeline.state.keyfile import BATCH_KEYS, Batch, Head, Header
from pipeline.state.manifest import describe, restore_dtype
from pipeline.state.pages import TakeOver, migrate
from pipeline.state.partition import Meta, Pool, State
from pipeline.state.shares import Part, combine, named

Array = np.ndarray[Any, Any]
POOLS: Final = ("minutes", "hours", "sources")
HEADS: Final = {"minutes": "head_1m", "hours": "head_1h"}


class Holder:
    """A state as `recover.fill` and `Checkpoint.plan` want it: without a core that could judge."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.arrays, self.blobs = state.arrays, state.blobs
        self.meta, self.restore = state.meta_bytes, state.restore

    @property
    def next_offset(self) -> int:
        """First offset that the state does not include."""
        return self.state.meta.next_offset


def tables() -> dict[str, Any]:
    """The layout of key records: table -> dtype in plain data."""
    return {array.name: describe(array.dtype) for array in State().arrays} | {"sources": describe(IN_WORDS)}


def layout(plain: Mapping[str, Any]) -> str:
    """16 hex digits of it."""
    return hashlib.blake2b(msgspec.json.encode(plain, order="deterministic"), digest_size=8).hexdigest()


# -- out ----------------------------------------------------------------------------------------------------------


def frames(partition: int, state: State, epoch: int, drained: bool) -> Iterator[Head | Batch]:
    """One partition's state, keys in the order of their slots."""
    slots = [slot for slot, key_id in enumerate(state.identities.key_ids) if key_id is not None]
    numbers = {slot: number for number, slot in enumerate(slots)}
    yield Head(
        partition=partition, next_offset=state.meta.next_offset, drained=drained, epoch=epoch,
        meta=msgspec.msgpack.encode(state.meta), keys=len(slots),
        shared=named(state.shared.data[:1], numbers).tobytes(),
    )  # fmt: skip
    windows = {name: _live(getattr(state, name)) for name in POOLS}
    for first in range(0, len(slots), BATCH_KEYS):
        yield _batch(partition, state, first, slots[first : first + BATCH_KEYS], windows)


def _live(pool: Pool) -> Array:
    rows: Array = pool.rows[pool.rows["live"] == 1]
    in_order: Array = rows[np.lexsort((rows["first_offset"], rows["start_us"], rows["slot"]))]
    return in_order


def _batch(partition: int, state: State, first: int, slots: list[int], windows: dict[str, Array]) -> Batch:
    at = np.array(slots, np.int64)
    book = state.book.data[at]
    for head in HEADS.values():
        book[head] = 0
    index = {slot: i for i, slot in enumerate(slots)}
    return Batch(
        partition=partition, first=first, ids=[state.identities.key_ids[slot] or "" for slot in slots],
        identities=[state.identities.get(slot) or b"" for slot in slots],
        keys=state.keys.data[at].tobytes(), book=book.tobytes(),
        incidents={index[slot]: state.incidents.rows[slot] for slot in slots if slot in state.incidents.rows},
        windows={name: raw for name, rows in windows.items() if (raw := _windows_of(state, name, rows, at))},
    )  # fmt: skip


def _windows_of(state: State, name: str, rows: Array, slots: Array) -> bytes:
    begin, end = np.searchsorted(rows["slot"], [slots[0], slots[-1] + 1])
    mine = rows[begin:end].copy()
    mine["slot"] = np.searchsorted(slots, mine["slot"])
    if "next" in (mine.dtype.names or ()):
        mine["next"] = 0
    return (state.source_texts.in_words(mine) if name == "sources" else mine).tobytes()


# -- in -----------------------------------------------------------------------------------------------------------


class Layouts:
    """Rows of a file in the layouts of this program."""

    def __init__(self, header: Header) -> None:
        self._old = {name: restore_dtype(plain) for name, plain in header.tables.items()}

    def rows(self, table: str, raw: bytes, dtype: np.dtype[Any], take_over: TakeOver = migrate) -> Array:
        """Taken over where the layout differs, which that of sources always does."""
        if table not in self._old:
            raise Fatal(f"the file has {table} but does not say how it is laid out")
        old = np.frombuffer(raw, self._old[table])
        if old.dtype == dtype:
            return old
        new = np.zeros(len(old), dtype)
        take_over(old, new)
        return new


class Target:
    """One partition of the new number, filled batch by batch; `room`: how many keys will come."""

    def __init__(self, partition: int, layouts: Layouts, room: int) -> None:
        self.partition = partition
        self.state = State()
        self._layouts = layouts
        self._numbers: dict[tuple[int, int], int] = {}  # (source, number in its file) -> slot
        self.state.keys.reserve(room)
        self.state.book.reserve(room)

    def take(self, batch: Batch, chosen: list[int], *, windows: bool) -> None:
        """The keys at these indices of a batch; with their open windows where these may go on."""
        if not chosen:
            return
        state, at = self.state, np.array(chosen, np.int64)
        slots = [state.adopt_key(batch.ids[i], batch.identities[i]) for i in chosen]
        rows = np.array(slots, np.int64)
        state.keys.data[rows] = self._layouts.rows("keys", batch.keys, state.keys.dtype)[at]
        state.book.data[rows] = self._layouts.rows("book", batch.book, state.book.dtype)[at]
        state.keys.touch(rows)
        state.book.touch(rows)
        for i, slot in zip(chosen, slots, strict=True):
            self._numbers[batch.partition, batch.first + i] = slot
            if i in batch.incidents:
                state.incidents.put(slot, batch.incidents[i])
        if windows:
            for name, raw in batch.windows.items():
                self._put_windows(name, raw, dict(zip(chosen, slots, strict=True)))

    def _put_windows(self, name: str, raw: bytes, slots: dict[int, int]) -> None:
        pool: Pool = getattr(self.state, name)
        rows = self._layouts.rows(name, raw, pool.array.dtype, pool.array.take_over)
        rows = rows[np.isin(rows["slot"], list(slots))].copy()
        rows["slot"] = [slots[i] for i in rows["slot"].tolist()]
        pool.reserve(len(rows))
        at = pool.free[pool.n_free - len(rows) : pool.n_free][::-1].astype(np.int64)
        pool.n_free -= len(rows)
        if name in HEADS:
            heads = self.state.book.data[HEADS[name]]
            for n, (row, slot) in enumerate(zip(at.tolist(), rows["slot"].tolist(), strict=True)):
                rows["next"][n], heads[slot] = heads[slot], row + 1
        pool.rows[at] = rows
        pool.array.touch(at)

    def find(self, source: int, number: int) -> int:
        """The slot of a key by its number in the file, -1 if it is not here."""
        return self._numbers.get((source, number), -1)

    def share(self, parts: list[Part]) -> None:
        """After all keys: what they bring of what their partitions knew together."""
        combine(parts, self.find, self.state.shared.data[:1])
        self.state.shared.used = 1
        self.state.shared.dirty[0] = True

    def finish(self, meta: Meta) -> Holder:
        """The state as a checkpoint writes it."""
        self.state.meta = meta
        return Holder(self.state)


def shared_of(head: Head, layouts: Layouts) -> Any:
    """The shared record of one source."""
    return layouts.rows("shared", head.shared, State().shared.dtype)[0]


def meta_of(heads: list[Head], next_offset: int) -> Meta:
    """For a partition that others' keys come to: their latest watermark, so that no key's time goes back.

    Versions of side inputs are left empty: the worker adopts them, and writes the adoption down, when it loads.
    Counts of rejects begin anew.
    """
    metas = [msgspec.msgpack.decode(head.meta, type=Meta) for head in heads]
    watermark_us = max((meta.watermark_us for meta in metas), default=0)
    epochs = {meta.heard_epoch for meta in metas}
    if len(epochs) != 1:  # feedback is heard again, which changes only what is still open
        return Meta(next_offset=next_offset, watermark_us=watermark_us)
    heard = min(meta.heard for meta in metas)
    return Meta(next_offset=next_offset, watermark_us=watermark_us, heard=heard, heard_epoch=epochs.pop())


def same_meta(head: Head) -> Meta:
    """For a partition that is restored as it was."""
    return msgspec.msgpack.decode(head.meta, type=Meta)


Home = Callable[[bytes, int], int]


def homes(batch: Batch, home: Home, partitions: int) -> dict[int, list[int]]:
    """Target partition -> indices of a batch's keys that belong there."""
    found: dict[int, list[int]] = {}
    for i, key_id in enumerate(batch.ids):
        found.setdefault(home(key_id.encode(), partitions), []).append(i)
    return found
