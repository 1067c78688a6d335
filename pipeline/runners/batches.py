"""What a fetch brought, batch by batch: aiokafka makes three objects of every record, 3 us each; here it is 0.2.

aiokafka's fetcher hands every fetched partition to `PartitionRecords`, an iterator of records. `Batches` takes its
place in the worker's process (`install`): of the request topic it yields whole batches, of all other topics what
aiokafka yields. What makes a batch count (its checksum, aborted transactions, control batches, the position behind it)
is as in aiokafka; its internals that are used are pinned in tests/contracts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from pipeline import spans
from pipeline.core import TICK_HEADER
from pipeline.fields import buffer
from pipeline.records import Bytes, Record, Records, of_records

Array = np.ndarray[Any, Any]

Batch = Any  # aiokafka's, in Python: its bytes can be asked for

_TICK: Array = np.frombuffer(bytearray(TICK_HEADER.encode()), np.uint8)
WITH_HEADERS_MAGIC = 2
"""Of the batches that brokers have written since 2017; older ones go aiokafka's way."""


@dataclass(frozen=True, slots=True)
class Whole:
    """One batch: what its records are, and the bytes that their spans mean."""

    payload: bytearray | Array
    records: Records

    @property
    def offset(self) -> int:
        """Of the last record."""
        return int(self.records.offsets[-1])


class Kept(_MemoryRecordsPy):
    """aiokafka's reader of a fetch, which can also give a batch with its bytes."""

    def magic(self) -> int:
        """Of the next batch."""
        assert self._next_slice is not None
        return int(self._next_slice[self.MAGIC_OFFSET])

    def next_whole(self) -> Batch:
        """The next batch."""
        found = self._next_slice
        assert found is not None
        self._cache_next()
        return _DefaultRecordBatchPy(found)


class Batches(fetcher.PartitionRecords):
    """Yields a `Whole` for each batch of the topics named, else records."""

    topics: ClassVar[set[str]] = set()
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Any]:
        records = self._records
        while self._tp.topic in self.topics and records.has_next() and records.magic() >= WITH_HEADERS_MAGIC:
            batch = records.next_whole()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if self._counts(batch):
                whole = unpacked(batch, self.next_fetch_offset)
                if len(whole.records):
                    self.next_fetch_offset = whole.offset + 1
                    yield whole
            self.next_fetch_offset = batch.next_offset
        yield from super()._unpack_records()

    def _counts(self, batch: Batch) -> bool:
        """Neither a control batch nor, where only what was committed is read, of an aborted transaction."""
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(iter(batch)):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return False
        return not batch.is_control_batch


def unpacked(batch: Batch, first: int) -> Whole:
    """The records of a batch from offset `first` on. Raises CorruptRecordException."""
    batch._maybe_uncompress()
    n = batch._num_records
    data, numbers = np.frombuffer(batch._buffer, np.uint8), np.empty((6, n), np.int64)
    offsets, times_ms, key_starts, key_lengths, value_starts, value_lengths = numbers
    ticks = np.zeros(n, np.uint8)
    appended_ms = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else -1
    sound = spans.unpack(
        data, batch._pos, batch.base_offset, batch.first_timestamp, appended_ms, _TICK,
        offsets, times_ms, key_starts, key_lengths, value_starts, value_lengths, ticks,
    )  # fmt: skip
    if not sound:
        raise CorruptRecordException(f"batch at {batch.base_offset}: its records don't fill it")
    wanted = slice(int(np.searchsorted(offsets, first)), n)
    keys, values = Bytes(data, key_starts, key_lengths), Bytes(data, value_starts, value_lengths)
    return Whole(batch._buffer, Records(offsets[wanted], times_ms[wanted], keys[wanted], values[wanted], ticks[wanted]))


def warm_up() -> None:
    """Compile what takes a batch apart, before there is a fetch."""
    builder = DefaultRecordBatchBuilder(
        magic=WITH_HEADERS_MAGIC, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1024,
    )  # fmt: skip
    builder.append(0, timestamp=1, key=b"k", value=b"v", headers=[])
    unpacked(_DefaultRecordBatchPy(bytearray(builder.build())), 0)


def joined(found: Sequence[Any]) -> Records:
    """All of a fetch as one, with one buffer."""
    wholes = [one if isinstance(one, Whole) else _alone(one) for one in found]
    data, ends = buffer([whole.payload for whole in wholes]), np.cumsum([len(whole.payload) for whole in wholes])
    parts = [whole.records for whole in wholes]
    shift = np.repeat(ends - [len(whole.payload) for whole in wholes], [len(part) for part in parts])
    return Records(
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.timestamps_ms for part in parts]),
        _spans(data, [part.keys for part in parts], shift),
        _spans(data, [part.values for part in parts], shift),
        np.concatenate([part.ticks for part in parts]),
    )


def _alone(record: Record) -> Whole:
    """A record of the old formats as a batch of its own."""
    records = of_records([record])
    return Whole(records.keys.data, records)


def _spans(data: Array, parts: Sequence[Bytes], shift: Array) -> Bytes:
    starts = np.concatenate([part.starts for part in parts]) + shift
    return Bytes(data, starts, np.concatenate([part.lengths for part in parts]))


def install(topic: str) -> None:
    """From now on aiokafka's consumers of this process give whole batches of this topic."""
    Batches.topics.add(topic)
    fetcher.MemoryRecords, fetcher.PartitionRecords = Kept, Batches
