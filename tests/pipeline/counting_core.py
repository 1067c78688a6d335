"""A core whose truth is countable: it counts records per key, so any lost or doubled effect shows as a number.

A record's value is its key's text, a blank, and a number; `poison` in it is a reject. Every `EVERY`-th record of a key
opens a revision of an incident; each slice writes full counts of the keys it touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from pipeline.config.tree import Config
from pipeline.core import Effects, Reject, Rows, Sides, Slice
from pipeline.state.pages import Blobs, PagedArray
from schemas.incident import Incident, incident_id

COUNTS: Final = np.dtype([("count", "i8"), ("last", "i8"), ("fill", "u1", (48,))])
EVERY: Final = 7


class Meta(msgspec.Struct):
    """What is in no array."""

    next_offset: int
    ticks: int
    catalogue: str


class CountingCore:
    """See the module; implements pipeline.core.Core."""

    def __init__(self, partition: int, config: Config, sides: Sides, topic_epoch: str, block_rows: int = 8) -> None:
        self.partition = partition
        self._counts = PagedArray("counts", COUNTS, block_rows)
        self._names = Blobs("names", block_rows)
        self.arrays: tuple[PagedArray, ...] = (self._counts,)
        self.blobs: tuple[Blobs, ...] = (self._names,)
        self._meta = Meta(-1, 0, sides.catalogue.version)
        self._slots: dict[str, int] = {}

    @property
    def next_offset(self) -> int:
        """First offset that the state does not include."""
        return self._meta.next_offset

    def process(self, batch: Slice) -> Effects:
        """Count."""
        assert batch.first >= self._meta.next_offset, (batch.first, self._meta.next_offset)
        effects, touched = Effects(), set()
        for i, offset in enumerate(batch.offsets):
            if i in batch.ticks:
                self._meta.ticks += 1
                continue
            value = batch.values[i] or b""
            if b"poison" in value:
                effects.rejects.append(Reject("undecodable", self.partition, offset, "poison", len(value), "", None))
                continue
            touched.add(self._count(value.split(b" ")[0].decode(), offset, effects))
        self._meta.next_offset = batch.next
        effects.rows = self._rows(sorted(touched))
        return effects

    def _count(self, name: str, offset: int, effects: Effects) -> str:
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = len(self._slots)
            self._counts.reserve(slot + 1)
            self._counts.used = slot + 1
            self._names.put(slot, name.encode())
        row = self._counts.data[slot]
        row["count"] += 1
        row["last"] = offset
        row["fill"] = np.uint8(int(row["count"]) % 251)
        self._counts.touch(np.array([slot]))
        if int(row["count"]) % EVERY == 0:
            effects.incidents.append(self._incident(name, int(row["count"]), offset))
        return name

    def _incident(self, name: str, count: int, offset: int) -> Incident:
        return Incident(
            incident_id=incident_id(name, "visit", 0, ""),
            key_id=name,
            rule="visit",
            revision=count // EVERY,
            change="extended",
            state="open",
            severity="medium",
            rung="observe",
            opened_at="",
            last_at="",
            text=str(count),
            partition=self.partition,
            offset=offset,
        )

    def _rows(self, names: list[str]) -> Rows:
        if not names:
            return {}
        rows = [self._counts.data[self._slots[name]] for name in names]
        return {
            "counts": {
                "key_id": list(names),
                "count": [int(row["count"]) for row in rows],
                "version": [int(row["last"]) for row in rows],
            }
        }

    def rows_ahead(self, most: int) -> Rows:
        """None."""
        return {}

    def due_rows(self) -> Rows:
        """Rows are written at once."""
        return {}

    def meta(self) -> bytes:
        """All of Meta."""
        return msgspec.msgpack.encode(self._meta)

    def restore(self, meta: bytes) -> None:
        """Take it back and index the names."""
        self._meta = msgspec.msgpack.decode(meta, type=Meta)
        self._slots = {name.decode(): slot for slot, name in self._names.rows.items()}

    def adopted(self, sides: Sides) -> bool:
        """Whether the catalogue is this version."""
        return bool(sides.catalogue.version == self._meta.catalogue)

    def disown(self, published: Sequence[Incident]) -> Effects:
        """Nothing: what it counts depends on no side input."""
        return Effects()

    def adopt(self, sides: Sides) -> Rows:
        """A new catalogue is a row."""
        if sides.catalogue.version == self._meta.catalogue:
            return {}
        self._meta.catalogue, at = sides.catalogue.version, max(self.next_offset, 0)
        row = {
            "topic": "t", "epoch": "e", "partition": self.partition, "offset": at, "input": "catalogue",
            "version_id": sides.catalogue.version, "version": at,
        }  # fmt: skip
        return {"adoptions": {name: [value] for name, value in row.items()}}

    def counts(self) -> dict[str, int]:
        """The truth."""
        return {name: int(self._counts.data[slot]["count"]) for name, slot in self._slots.items()}


class StillCatalogue:
    """A catalogue of one version."""

    version = "still"

    def get(self, key_id: str) -> Any:
        """Nobody is in it."""
        return None


class NewerCatalogue(StillCatalogue):
    """Its next version."""

    version = "newer"


SIDES: Final = Sides(StillCatalogue(), None, "0")


def open_core(partition: int, config: Config, sides: Sides, topic_epoch: str, partitions: int = 0) -> CountingCore:
    """As pipeline.flow.open_core."""
    return CountingCore(partition, config, sides, topic_epoch)
