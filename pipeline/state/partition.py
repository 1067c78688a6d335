"""All that a partition knows: the keys' records, their open windows, open incidents, and what its keys share.

Everything is in paged arrays and blobs, so that a checkpoint can write what changed. Indices (key id -> slot, source
-> row, free rows) are derived and rebuilt by `restore`; they are no state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from threading import Lock
from typing import Any, Final

import msgspec
import numpy as np

from detectors import DETECTORS
from detectors.fuse import key_dtype, shared_dtype
from detectors.fusion import SERIES_US
from detectors.records import records
from pipeline import aggregate
from pipeline.column import Coded, constant
from pipeline.control.controls import Controls, Said
from pipeline.source_texts import SourceTexts
from pipeline.state.marks import Marks
from pipeline.state.pages import Blobs, BlobTable, PagedArray
from pipeline.times import micros, rfc3339
from schemas.incident import Incident
from schemas.key import Key

Array = np.ndarray[Any, Any]

KEY: Final = key_dtype(DETECTORS)
SHARED: Final = shared_dtype(DETECTORS)

NEVER_US: Final = np.iinfo(np.int64).max
KEPT_US: Final = 2 * SERIES_US

REPEATS: Final = 32
"""Requests of a key within which the same one counts once: what intake or a gateway sends again after a failure."""
LATE_REPEATS: Final = 4
"""Places for the requests that came late: a mirror that writes a day's log again must not drive out the others."""

BOOK: Final = np.dtype(
    [
        ("first_us", "i8"),  # time of its holder's first event in the log
        ("last_us", "i8"),  # latest time of his events
        ("recent", "u4", (REPEATS + LATE_REPEATS,)),  # hashes: a ring of the last requests, then of some late ones
        ("recent_at", "u4"),
        ("head_1m", "i4"),  # row + 1 of the key's newest open window
        ("head_1h", "i4"),
        ("ties", "u4"),  # his events at last_us beside its first: logs in whole seconds have many
    ],
    align=True,
)
"""What every key has beside its detectors' records."""


KEYS_PER_PAGE: Final = 32
BOOKS_PER_PAGE: Final = 256
"""Rows of a block. Active keys lie scattered, so a checkpoint writes about one block for each: large ones are mostly
rows that did not change. Small ones are more records to read at recovery. Measured by tests/bench/checkpoints.py with a
million keys, 5 % active a minute, every 5 s: with 16 and 256 rows 302 MB were packed into 111 MB."""


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Whose record a slot is, and what the catalogue declared of the key when that was last adopted."""

    key_id: str
    declared: Key | None


class Identities(BlobTable):
    """Who has which slot, column by column: there are a million. Packed when a checkpoint asks."""

    def __init__(self) -> None:
        super().__init__("identities", block_rows=128)
        self.key_ids: list[str | None] = []  # None of a free slot
        self.declared: list[Key | None] = []

    @property
    def rows(self) -> dict[int, bytes]:
        """All of them, packed."""
        return {slot: raw for slot in range(len(self.key_ids)) if (raw := self.get(slot)) is not None}

    def get(self, row: int) -> bytes | None:
        """The msgpack of one."""
        key_id = self.key_ids[row] if row < len(self.key_ids) else None
        return None if key_id is None else msgspec.msgpack.encode(Identity(key_id, self.declared[row]))

    def put(self, row: int, value: bytes | None) -> None:
        """Set one by its msgpack or (None) remove it."""
        if value is None:
            self.set(row, None, None)
        else:
            identity = msgspec.msgpack.decode(value, type=Identity)
            self.set(row, identity.key_id, identity.declared)

    def set(self, slot: int, key_id: str | None, declared: Key | None) -> None:
        """Whose the slot is now."""
        self.reserve(slot + 1)
        self.key_ids[slot], self.declared[slot] = key_id, declared
        self.touch(slot)

    def reserve(self, slots: int) -> None:
        """So many there are at least; new ones are free."""
        more = [None] * (slots - len(self.key_ids))
        self.key_ids += more
        self.declared += more

    def clear(self) -> None:
        """Free all."""
        self.key_ids.clear()
        self.declared.clear()


_numbers: list[int] = []
_growing = Lock()  # two threads that grow it at once would make one number another, and two keys share a slot


def numbers(count: int) -> list[int]:
    """0, 1, 2 and so on, at least so many, as objects that all partitions share: those of a million slots are 30 MB."""
    if len(_numbers) < count:
        with _growing:
            _numbers.extend(range(len(_numbers), count))
    return _numbers


class CoreMeta(msgspec.Struct, kw_only=True):
    """What is in no array; part of the manifest. A side input's version is in the field of its name."""

    next_offset: int = -1
    watermark_us: int = 0
    used: dict[str, int] = {}
    geo: str = ""
    adopted: dict[str, int] = {}  # side input -> first offset that was judged with its version
    again: dict[str, int] = {}  # side input -> how many of its versions were adopted at that offset before
    spent: dict[str, tuple[int, int]] = {}  # incident -> revision, offset that other side inputs have published

    def holds(self, versions: Mapping[str, str]) -> bool:
        """Whether these are the versions that are judged with."""
        return all(getattr(self, name) == now for name, now in versions.items())

    def adopt(self, versions: Mapping[str, str]) -> list[str]:
        """Take these versions of side inputs from the next offset on; returns the names of those that are new."""
        changed = [name for name, now in versions.items() if getattr(self, name) != now]
        for name in changed:
            setattr(self, name, versions[name])
            at = max(self.next_offset, 0)
            self.again[name] = self.again.get(name, 0) + 1 if self.adopted.get(name) == at else 0
            self.adopted[name] = at
        return changed


class Meta(CoreMeta, kw_only=True):
    """Of the keys' own topology."""

    catalogue: str = ""
    config: str = ""
    controls: str = ""
    heard: int = 0  # feedback before this place on the control topic is in the state
    heard_epoch: str = ""
    reject_run: int = 0  # records since one was good
    reject_recent: int = 0  # rejects among the last `record_recent`
    record_recent: int = 0

    def heard_of(self, epoch: str) -> int:
        """First place on the control topic whose feedback is not in the state; of a topic made anew all of it."""
        return self.heard if epoch == self.heard_epoch else 0

    def unheard(self, controls: Controls) -> list[Said]:
        """What was said that the state does not include; of each id the newest."""
        return [each for each in controls.holding.values() if each.seq >= self.heard_of(controls.epoch)]

    def hear(self, epoch: str, end: int) -> None:
        """All feedback before this place is in the state now; it never goes back."""
        self.heard, self.heard_epoch = max(self.heard_of(epoch), end), epoch


class Pool:
    """Rows of a paged array that come and go; `free[:n_free]` is a stack of free row numbers."""

    def __init__(self, array: PagedArray) -> None:
        self.array = array
        self.changed = np.zeros(len(array.data), np.bool_)  # since its rows were last written out
        self.free = np.zeros(0, np.int32)
        self.n_free = 0

    @property
    def rows(self) -> Array:
        """The records, live or free."""
        return self.array.data

    def reserve(self, more: int) -> bool:
        """Make sure that `more` rows are free; True if the array had to grow."""
        if self.n_free >= more:
            return False
        before = len(self.array.data)
        self.array.reserve(before + max(more, 1024))
        grown = np.zeros(len(self.array.data), np.bool_)
        grown[:before] = self.changed
        self.changed = grown
        self.rebuild()
        return True

    def rebuild(self) -> None:
        """Derive the free stack from the records; the lowest free row is taken first."""
        if len(self.changed) != len(self.array.data):
            self.changed = np.zeros(len(self.array.data), np.bool_)
        free = np.flatnonzero(self.rows["live"] == 0).astype(np.int32)[::-1]
        self.free, self.n_free = np.ascontiguousarray(free), len(free)

    def earliest_us(self) -> int:
        """When the first of its windows is final; NEVER_US where none is open."""
        live = self.rows["live"] == 1
        return int(self.rows["until_us"][live].min()) if live.any() else NEVER_US

    def touch(self, rows: Array) -> None:
        """These rows changed."""
        self.changed[rows] = True
        self.array.touch(rows)

    def take_changed(self, most: int | None = None) -> Array:
        """Row numbers that changed since they were last taken, all or the first `most`."""
        rows = np.flatnonzero(self.changed)[:most]
        self.changed[rows] = False
        return rows

    def release(self, rows: Array) -> None:
        """Give rows back; their records are zeroed."""
        self.rows[rows] = np.zeros((), self.array.dtype)
        self.array.touch(rows)
        self.changed[rows] = False
        stack = np.concatenate([self.free[: self.n_free], rows[::-1].astype(np.int32)])
        self.free, self.n_free = stack, len(stack)


class State:
    """One partition's knowledge. Slots are row numbers of `keys` and `book`."""

    def __init__(self) -> None:
        self.keys = PagedArray("keys", KEY, block_rows=KEYS_PER_PAGE)
        self.book = PagedArray("book", BOOK, block_rows=BOOKS_PER_PAGE)
        self.minutes = Pool(PagedArray("minutes", aggregate.WINDOW, block_rows=128))
        self.hours = Pool(PagedArray("hours", aggregate.WINDOW, block_rows=128))
        self.source_texts = SourceTexts()
        sources = PagedArray("sources", aggregate.SOURCE, block_rows=128, take_over=self.source_texts.take_over)
        self.sources = Pool(sources)
        self.shared = PagedArray("shared", SHARED, block_rows=1)
        self.marks = Marks()
        self.identities = Identities()
        self.incidents = Blobs("incidents", block_rows=16)
        own = (self.keys, self.book, self.minutes.array, self.hours.array, self.sources.array, self.shared)
        self.arrays: tuple[PagedArray, ...] = (*own, *self.marks.arrays)
        self.blobs: tuple[BlobTable, ...] = (self.identities, self.incidents, self.source_texts)
        self.meta = Meta()
        self._derive()

    def _derive(self) -> None:
        self.slots: dict[str, int] = {}
        self.free_slots: list[int] = []  # a heap: the lowest is taken first, after a restart as before it
        self.open: dict[int, Incident] = {}
        self.closed: dict[int, Incident] = {}  # the last one of a key whose way may yet be adopted
        for pool in (self.minutes, self.hours, self.sources):
            pool.rebuild()
        self.source_texts.rebuild()
        self.reindex_sources()  # never smaller than twice the rows: a full index would be probed for ever

    def restore(self, meta: bytes) -> None:
        """Arrays and blobs are filled: take the meta and derive the indices."""
        self.meta = msgspec.msgpack.decode(meta, type=Meta)
        for array in self.arrays:
            array.used = self.meta.used.get(array.name, 0)
        self._derive()
        self.identities.reserve(self.keys.used)
        shared = zip(self.identities.key_ids, numbers(self.keys.used), strict=False)
        self.slots = {key_id: slot for key_id, slot in shared if key_id is not None}
        self.free_slots = [slot for slot in range(self.keys.used) if self.identities.key_ids[slot] is None]
        for slot, raw in self.incidents.rows.items():
            incident = msgspec.msgpack.decode(raw, type=Incident)
            (self.open if incident.state == "open" else self.closed)[slot] = incident

    def meta_bytes(self) -> bytes:
        """The meta as it goes into the manifest."""
        self.meta.used = {array.name: array.used for array in self.arrays}
        return msgspec.msgpack.encode(self.meta)

    def reindex_sources(self) -> None:
        """Rebuild the source index at a size of at least twice the rows."""
        size = 1 << (2 * len(self.sources.rows)).bit_length()
        self.source_index = np.zeros(size, np.int32)
        aggregate.rebuild_index(records(self.sources.rows), len(self.sources.rows), self.source_index)

    def add_key(self, key_id: str, declared: Key | None) -> int:
        """A slot with zeroed records for a key that has none."""
        slot = heappop(self.free_slots) if self.free_slots else self.keys.used
        slot = numbers(slot + 1)[slot]
        if slot == self.keys.used:
            self.keys.used = self.book.used = slot + 1
            self.keys.reserve(slot + 1)
            self.book.reserve(slot + 1)
        self.slots[key_id] = slot
        self.identities.set(slot, key_id, declared)
        return slot

    def adopt_key(self, key_id: str, identity: bytes) -> int:
        """A slot for a key that comes from another partition with the bytes of its `Identity`."""
        slot = self.keys.used
        self.keys.used = self.book.used = slot + 1
        self.keys.reserve(slot + 1)
        self.book.reserve(slot + 1)
        self.slots[key_id] = slot
        self.identities.put(slot, identity)
        return slot

    def declared_of(self, slots: Array) -> Coded[Key | None]:
        """What the catalogue said of the keys in these slots; None of -1."""
        used, codes = np.unique(slots, return_inverse=True)
        declared = [self.identities.declared[slot] if slot >= 0 else None for slot in used.tolist()]
        return Coded(codes, declared) if any(declared) else constant(None, len(slots))

    def declare_anew(self, get: Callable[[str], Key | None]) -> None:
        """Another catalogue: copy what has changed in it of the keys that are known."""
        for key_id, slot in self.slots.items():
            if self.identities.declared[slot] != (key := get(key_id)):
                self.identities.set(slot, key_id, key)

    def drop_key(self, slot: int) -> None:
        """Forget a key; the caller has written out its windows."""
        key_id = self.identities.key_ids[slot]
        assert key_id is not None
        del self.slots[key_id]
        self.identities.set(slot, None, None)
        if slot in self.incidents.rows:
            self.set_incident(slot, None)
        rows = np.array([slot])
        self.keys.data[slot] = np.zeros((), self.keys.dtype)
        self.book.data[slot] = np.zeros((), self.book.dtype)
        self.keys.touch(rows)
        self.book.touch(rows)
        heappush(self.free_slots, slot)

    def set_incident(self, slot: int, incident: Incident | None) -> None:
        """Keep or (None) drop the open incident of a key; a closed one that was kept goes either way."""
        self.closed.pop(slot, None)
        if incident is None:
            self.open.pop(slot, None)
            self.incidents.put(slot, None)
        else:
            self.open[slot] = incident
            self.incidents.put(slot, msgspec.msgpack.encode(incident))

    def keep_closed(self, slot: int, incident: Incident) -> None:
        """Until its way is adopted; after 14 days none is silently: `fusion.rule_that_opens` tells it anew.

        So there are no more than 14 days bring, and which are dropped follows from the log alone.
        """
        before = rfc3339(micros(incident.closed_at) - KEPT_US)
        for old in [old for old, each in self.closed.items() if each.closed_at < before]:
            self.set_incident(old, None)
        self.closed[slot] = incident
        self.incidents.put(slot, msgspec.msgpack.encode(incident))

    @property
    def size_bytes(self) -> int:
        """Bytes of all arrays' live part and blobs: what a key costs is this over `len(slots)`."""
        arrays = sum(array.used * array.dtype.itemsize for array in (self.keys, self.book))
        return arrays + sum(len(raw) for raw in self.identities.rows.values())
