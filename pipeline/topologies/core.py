"""The core of another topology: the same contract as the keys' core, with a judge of its own in it.

Records are taken one by one, and time passes after each, so where slices end can change nothing. The watermark is the
greatest min(what the record says, when it was written) less the lateness, as in `admit.py`; ticks move it as well.
What is no message of this topic is rejected, without payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from pipeline import columns, disown
from pipeline.config.tree import Config
from pipeline.core import Effects, Reject, Rows, Sides, Slice
from pipeline.secrets import keyed_hash
from pipeline.state.pages import Blobs, PagedArray
from pipeline.state.partition import CoreMeta
from pipeline.topologies.episodes import Episodes
from schemas.incident import Incident

MAX_MESSAGE_BYTES: Final = 262_144
_NO_MESSAGE: Final = (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError)


class Judge(Protocol):
    """What a topology knows and how it judges."""

    rules: frozenset[str]  # of its incidents
    episodes: Episodes
    arrays: tuple[PagedArray, ...]
    blobs: tuple[Blobs, ...]

    def take(self, value: bytes, key: bytes, offset: int, out: list[Incident]) -> int:
        """One record; returns its time in us. Raises msgspec's errors or ValueError for what is no message of it."""

    def pass_time(self, watermark_us: int, offset: int, out: list[Incident]) -> None:
        """What time brings about; `offset` of the record that moved it."""

    def adopt(self, sides: Sides) -> None:
        """Judge what follows with these."""

    def save(self) -> bytes:
        """Write what changed into arrays and blobs; what is in none of them."""

    def restore(self, extra: bytes) -> None:
        """Arrays and blobs are filled."""


class Meta(CoreMeta, kw_only=True):
    """What is in no array; `extra` is the judge's."""

    extra: bytes = b""


class TopologyCore:
    """One partition: implements `pipeline.core.Core`."""

    def __init__(self, partition: int, config: Config, sides: Sides, topic_epoch: str, judge: Judge) -> None:
        self.partition = partition
        self.judge = judge
        self._lateness_us = round(config.worker.lateness_s * 1e6)
        self._topic = config.topics.requests
        self._epoch = topic_epoch
        self._meta = Meta()
        judge.episodes.spent = self._meta.spent
        self._saved = True  # nothing to be
        self._untold = True  # by what it judges: told with the next adoption, or else with the first slice
        self._take_sides(sides)

    @property
    def arrays(self) -> tuple[PagedArray, ...]:
        """Of the judge."""
        return self.judge.arrays

    @property
    def blobs(self) -> tuple[Blobs, ...]:
        """Of the judge."""
        return self.judge.blobs

    @property
    def next_offset(self) -> int:
        """First offset that the state does not include; -1 before any."""
        return self._meta.next_offset

    @property
    def watermark_us(self) -> int:
        """The partition's time."""
        return self._meta.watermark_us

    def process(self, batch: Slice) -> Effects:
        """Judge one slice that starts at or after `next_offset`."""
        effects = Effects()
        batch = batch.since(self.next_offset)
        if batch.offsets and self._untold:
            effects.rows = self._tell()
        for i in range(len(batch.offsets)):
            ts_us = batch.timestamps_ms[i] * 1000 if i in batch.ticks else self._take(batch, i, effects)
            self._meta.watermark_us = max(self._meta.watermark_us, ts_us - self._lateness_us)
            self.judge.pass_time(self._meta.watermark_us, batch.offsets[i], effects.incidents)
        if batch.offsets:
            self._meta.next_offset = batch.next
            self._saved = False
            self._forget_spent()
        effects.counts = {"records": len(batch.offsets), "rejects": len(effects.rejects)}
        self._write(effects)
        return effects

    def _take(self, batch: Slice, i: int, effects: Effects) -> int:
        """One record's time, as far as it may move the watermark; 0 where it is refused."""
        value, key, written_us = batch.values[i] or b"", batch.keys[i], batch.timestamps_ms[i] * 1000
        try:
            if len(value) > MAX_MESSAGE_BYTES or key is None:
                raise ValueError("no message")
            ts_us = self.judge.take(value, key, batch.offsets[i], effects.incidents)
        except _NO_MESSAGE:
            effects.rejects.append(_refused(batch, i, value, key))
            return 0
        return min(ts_us, written_us) if written_us > 0 else ts_us

    def _write(self, effects: Effects) -> None:
        """Rows of incidents, and of the findings that they rest on."""
        columns.extend(effects.rows, "incidents", columns.incidents(effects.incidents))
        last = {(x.incident_id, x.offset): x for x in effects.incidents if x.change != "closed"}
        told = list(last.values())  # one event may open and extend one: its findings' rows have one version
        columns.extend(effects.rows, "findings", columns.findings_of(told, self._epoch, self.partition))
        for incident in told:
            for finding in incident.findings:
                name = f"findings.{finding.detector}"
                effects.counts[name] = effects.counts.get(name, 0) + 1

    def rows_ahead(self, most: int) -> Rows:
        """None."""
        return {}

    def due_rows(self) -> Rows:
        """No rows wait; but a checkpoint comes, so what the judge knows goes into its arrays and blobs."""
        self._meta.extra, self._saved = self.judge.save(), True
        return {}

    def meta(self) -> bytes:
        """Offset, watermark, and what the judge has in no array; after `due_rows`, as `Emitter` calls them."""
        assert self._saved, "a checkpoint without what the judge has learned since the last one"
        self._meta.used = {array.name: array.used for array in self.arrays}
        return msgspec.msgpack.encode(self._meta)

    def restore(self, meta: bytes) -> None:
        """Arrays and blobs are filled."""
        self._meta = msgspec.msgpack.decode(meta, type=Meta)
        self.judge.episodes.spent = self._meta.spent
        self._untold = True
        for array in self.arrays:
            array.used = self._meta.used.get(array.name, 0)
        self.judge.restore(self._meta.extra)

    def adopted(self, sides: Sides) -> bool:
        """Whether it judges with these already."""
        return not self._meta.spent and self._meta.holds(_versions(sides))

    def disown(self, published: Sequence[Incident]) -> Effects:
        """Other side inputs follow a crash: incidents of this partition that they may not bring again are closed.

        `published`: the newest revision of each incident on the topic, of all topologies and partitions. Who closed one
        since the state's offset may have died before its row was written: it is written again.
        """
        effects = Effects()
        mine = [each for each in published if each.partition == self.partition and each.rule in self.judge.rules]
        effects.incidents = self.judge.episodes.disown(mine, self._meta.watermark_us, self.next_offset)
        unsure = [each for each in mine if each.state == "closed" and each.offset >= self.next_offset]
        self._saved = False
        columns.extend(effects.rows, "incidents", columns.incidents([*unsure, *effects.incidents]))
        return effects

    def _forget_spent(self) -> None:
        if self._meta.spent:
            disown.forget(self._meta)
            self.judge.episodes.spent = self._meta.spent

    def adopt(self, sides: Sides) -> Rows:
        """Judge what follows with these; rows say so as those of the keys do."""
        changed = self._take_sides(sides)
        return self._tell() if self._untold else self._adoptions(changed)

    def _take_sides(self, sides: Sides) -> list[str]:
        self.judge.adopt(sides)
        return self._meta.adopt(_versions(sides))

    def _tell(self) -> Rows:
        self._untold = False
        return self._adoptions(list(self._meta.adopted))

    def _adoptions(self, names: list[str]) -> Rows:
        rows: Rows = {}
        told = columns.adoptions(self._meta, names, self._topic, self._epoch, self.partition)
        columns.extend(rows, "adoptions", told)
        return rows


def _versions(sides: Sides) -> dict[str, str]:
    return {"geo": getattr(sides.geo, "build", "")}


def _refused(batch: Slice, i: int, value: bytes, key: bytes | None) -> Reject:
    reason = "unkeyed" if key is None else "too_large" if len(value) > MAX_MESSAGE_BYTES else "invalid"
    return Reject(
        reason=reason, partition=batch.partition, offset=batch.offsets[i], detail=f"no message of {batch.topic}",
        size_bytes=len(value), payload_hash=keyed_hash(value), payload=None,
    )  # fmt: skip
