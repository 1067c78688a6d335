"""The judge of `api.sightings`: what one source does to many keys (spray), what befalls many (silence, outbreak)."""

from __future__ import annotations

from typing import Final

import msgspec

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.state.pages import Blobs, PagedArray
from pipeline.topologies.core import TopologyCore
from pipeline.topologies.episodes import Episodes
from pipeline.topologies.outbreak import Outbreak
from pipeline.topologies.silence import Silence
from pipeline.topologies.spray import Shared, Spray
from schemas.incident import Incident
from schemas.sighting import FLEET, Beats, Break, Sighting, source_of

_decode: Final = msgspec.json.Decoder(Sighting | Beats | Break).decode


class Extra(msgspec.Struct):
    """What is in no array or blob."""

    shared: Shared
    silence: bytes


class SourcesJudge:
    """Implements `pipeline.topologies.core.Judge`."""

    rules = frozenset({"spray", "guessing", "outbreak", "silence"})

    def __init__(self, partition: int) -> None:
        self.episodes = Episodes()
        self.spray = Spray(self.episodes, partition)
        self.silence = Silence(self.episodes, partition)
        self.outbreak = Outbreak(self.episodes, partition)
        self.arrays: tuple[PagedArray, ...] = (self.silence.pulses,)
        self.blobs: tuple[Blobs, ...] = (
            self.episodes.register.blobs, self.spray.register.blobs, self.outbreak.causes.blobs,
            self.silence.names,
        )  # fmt: skip

    def take(self, value: bytes, key: bytes, offset: int, out: list[Incident]) -> int:
        """One record; returns its time in us. Raises msgspec's errors, ValueError where its key is another's."""
        told = _decode(value)
        expected = source_of(told.asn, told.prefix) if isinstance(told, Sighting) else FLEET
        if key != expected.encode():
            raise ValueError("the record's key is not the sighting's source")
        if isinstance(told, Sighting):
            self.spray.see(told, offset, out)
            return told.ts_us
        if isinstance(told, Break):
            self.outbreak.see(told, offset, out)
            return told.ts_us
        for beat in told.beats:
            self.silence.see(beat, out)
        return max((beat.ts_us for beat in told.beats), default=0)

    def pass_time(self, watermark_us: int, offset: int, out: list[Incident]) -> None:
        """Silences that have become too long, incidents that are over."""
        self.silence.pass_time(watermark_us, offset, out)
        self.episodes.pass_time(watermark_us, out)

    def adopt(self, sides: Sides) -> None:
        """Nothing here depends on side inputs: what sightings say was looked up by who wrote them."""

    def save(self) -> bytes:
        """Blobs and the rest."""
        self.episodes.register.save()
        self.spray.register.save()
        self.outbreak.causes.save()
        return msgspec.msgpack.encode(Extra(self.spray.shared, self.silence.save()))

    def restore(self, extra: bytes) -> None:
        """Arrays and blobs are filled."""
        self.episodes.register.restore()
        self.episodes.restored()
        self.spray.register.restore()
        self.outbreak.causes.restore()
        kept = msgspec.msgpack.decode(extra, type=Extra)
        self.spray.shared = kept.shared
        self.silence.restore(kept.silence)


def open_core(partition: int, config: Config, sides: Sides, topic_epoch: str, partitions: int = 0) -> TopologyCore:
    """An empty core of one partition of `api.sightings`."""
    return TopologyCore(partition, config, sides, topic_epoch, SourcesJudge(partition))
