"""What a runner gives to the core of a partition and what it gets back. No I/O, no clock, no asyncio here.

A runner (Faust worker, plain aiokafka, replay) owns one `Core` per partition. It hands slices in by offset order and
carries the effects out in the order that `emit.py` numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from pipeline.column import Columns
from pipeline.control.controls import NO_CONTROLS, Controls
from pipeline.state.pages import BlobTable, PagedArray
from schemas.incident import Incident

TICK_HEADER: Final = "keywatch-tick"


@dataclass(frozen=True, slots=True)
class Slice:
    """All records that one fetch brought of one partition. The four sequences are of equal length, offsets ascend."""

    topic: str
    partition: int
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    ticks: frozenset[int] = frozenset()  # indices of records that carry the header `keywatch-tick`

    @property
    def first(self) -> int:
        """Offset of the first record."""
        return self.offsets[0]

    @property
    def next(self) -> int:
        """The offset after the last record."""
        return self.offsets[-1] + 1

    def since(self, offset: int) -> Slice:
        """The part from `offset` on (all of it, or fewer records)."""
        start = next((i for i, o in enumerate(self.offsets) if o >= offset), len(self.offsets))
        if start == 0:
            return self
        return Slice(
            self.topic, self.partition, self.offsets[start:], self.keys[start:], self.values[start:],
            self.timestamps_ms[start:], frozenset(i - start for i in self.ticks if i >= start),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no event: a value, not an exception. `payload` is None where it holds or may hold a secret."""

    reason: str  # one of schemas.reasons.REASONS
    partition: int
    offset: int
    detail: str  # in words, without any part of the payload
    size_bytes: int
    payload_hash: str  # keyed
    payload: bytes | None


Rows = dict[str, Columns]
"""table -> column -> values; tables and columns as in schemas/rows.py, kinds of columns as in pipeline/column.py."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a core tells another topology. To read it twice changes nothing."""

    lane: Literal["sightings", "key_events"]
    key: bytes
    value: bytes


@dataclass(slots=True)
class Effects:
    """What one slice brought about."""

    incidents: list[Incident] = field(default_factory=list)  # in order; published one by one, key = key_id
    rejects: list[Reject] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)  # in order
    rows: Rows = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # events, late, duplicates, findings.<detector>, ...

    def count(self, **more: int) -> None:
        """Add to the counts."""
        for name, n in more.items():
            self.counts[name] = self.counts.get(name, 0) + n


class Core(Protocol):
    """One partition's state and judgement. Raises `Fatal` when more was rejected than the limits allow."""

    @property
    def arrays(self) -> tuple[PagedArray, ...]:
        """All state of fixed size."""

    @property
    def blobs(self) -> Sequence[BlobTable]:
        """All state of variable size."""

    @property
    def next_offset(self) -> int:
        """First offset that the state does not include; -1 for a state that has seen nothing."""

    def process(self, batch: Slice) -> Effects:
        """Judge a slice that starts at or after `next_offset`. Pure but for the state."""

    def rows_ahead(self, most: int) -> Rows:
        """Of what `due_rows` would bring, up to `most` rows a table: may be called before it, between slices."""

    def due_rows(self) -> Rows:
        """Full values of all windows that changed since the last call: written before a checkpoint."""

    def meta(self) -> bytes:
        """Everything that is in no array: offset, watermark, versions. Part of the manifest."""

    def restore(self, meta: bytes) -> None:
        """After arrays and blobs are filled: take `meta` and rebuild the indices."""

    def adopted(self, sides: Sides) -> bool:
        """Whether it judges with these versions already, and nothing that a crash has undone may still be untold."""

    def disown(self, published: Sequence[Incident]) -> Effects:
        """Other side inputs are about to be adopted after a crash: close what only the former ones have brought about.

        `published`: the newest revision of each incident on the topic, of all partitions.
        """

    def adopt(self, sides: Sides) -> Rows:
        """Take new side inputs; only at a checkpoint (the caller writes the manifest before the next event)."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Side inputs that may change a result, each with the version that the manifest names."""

    catalogue: Any  # pipeline.keys.catalogue.Catalogue: .version: str, .get(key_id) -> schemas.key.Key | None
    geo: Any  # pipeline.geo.provider.Geo: .build: str, .look_up(address: str) -> Place
    config_version: str
    controls: Controls = NO_CONTROLS

    def versions(self) -> dict[str, str]:
        """Each input's, as adoptions name them."""
        return {
            "catalogue": self.catalogue.version, "geo": self.geo.build, "config": self.config_version,
            "controls": self.controls.version,
        }  # fmt: skip

    def living(self) -> tuple[str, str]:
        """Versions of what may change while a worker runs."""
        return self.catalogue.version, self.controls.version
