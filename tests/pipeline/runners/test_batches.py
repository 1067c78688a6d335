"""Whole batches hold what aiokafka's own reader makes of the same bytes, record by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from pipeline import spans
from pipeline.core import TICK_HEADER
from pipeline.runners.batches import Batches, Kept, Whole, joined, unpacked, warm_up

TOPIC = TopicPartition("batches", 0)
Headers = Sequence[tuple[str, bytes | None]]
Record = tuple[bytes | None, bytes | None, Headers]
RECORDS = st.tuples(
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=200),
    st.lists(
        st.tuples(st.sampled_from([TICK_HEADER, "x", "keywatch-tock"]), st.none() | st.binary(max_size=5)), max_size=2
    ),
)
NONE, GZIP, LZ4 = 0, 1, 3


@pytest.fixture(autouse=True)
def whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batches, "topics", {TOPIC.topic})


def written(
    records: Sequence[Record], first: int, compression: int = NONE, transactional: bool = False, producer: int = -1
) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, compression, int(transactional), producer, 0, 0, 1 << 20)
    for at, (key, value, headers) in enumerate(records):
        assert builder.append(at, 1_780_000_000_000 + 3 * at, key, value, headers) is not None
    raw: bytearray = builder.build()
    raw[0:8] = first.to_bytes(8, "big")  # what a broker does; outside of the checksum
    return raw


def read(
    kind: Any, raw: bytes, first: int, aborted: Any = None, level: int = READ_UNCOMMITTED
) -> tuple[list[Any], int]:
    memory = Kept(raw) if kind is Batches else MemoryRecords(raw)
    found = kind(TOPIC, memory, aborted, first, None, None, True, level)
    return list(found), found.next_fetch_offset


def told(records: Sequence[Any]) -> list[Any]:
    return [(r.offset, r.timestamp, r.key, r.value, any(name == TICK_HEADER for name, _ in r.headers)) for r in records]


def told_whole(found: Sequence[Any]) -> list[Any]:
    if not found:
        return []
    all_ = joined(found)
    columns = all_.offsets.tolist(), all_.timestamps_ms.tolist(), all_.keys, all_.values, map(bool, all_.ticks.tolist())
    return list(zip(*columns, strict=True))


@given(
    st.lists(st.lists(RECORDS, min_size=1, max_size=6), max_size=4), st.sampled_from([NONE, GZIP, LZ4]),
    st.integers(0, 20),
)  # fmt: skip
def test_the_records_the_position_and_the_ticks_are_aiokafkas(
    batches: list[list[Record]], compression: int, first: int
) -> None:
    raw, at = bytearray(), 0
    for records in batches:
        raw += written(records, at, compression)
        at += len(records) + 2  # compaction took two
    theirs, position = read(PartitionRecords, bytes(raw), first)
    ours, our_position = read(Batches, bytes(raw), first)
    assert all(isinstance(one, Whole) for one in ours)
    assert told_whole(ours) == told(theirs)
    assert our_position == position


def test_an_aborted_transaction_is_passed_over_where_only_what_was_committed_is_read() -> None:
    raw = bytes(
        written([(b"a", b"1", [])], 0, transactional=True, producer=7)
        + written([(b"b", b"2", [])], 1, transactional=True, producer=8)
    )
    for level in (READ_COMMITTED, READ_UNCOMMITTED):
        theirs, position = read(PartitionRecords, raw, 0, [(7, 0)], level)
        ours, our_position = read(Batches, raw, 0, [(7, 0)], level)
        assert told_whole(ours) == told(theirs)
        assert our_position == position == 2
    assert len(told_whole(read(Batches, raw, 0, [(7, 0)], READ_COMMITTED)[0])) == 1


@pytest.mark.parametrize("place", [30, 70, 80])
def test_a_byte_that_was_changed_on_the_way_is_refused_as_by_aiokafka(place: int) -> None:
    raw = written([(b"a", b"some value", []), (b"b", b"other", [])], 0)
    raw[place] ^= 1
    for kind in (PartitionRecords, Batches):
        with pytest.raises(CorruptRecordException):
            read(kind, bytes(raw), 0)


@given(st.data())
def test_a_payload_of_any_bytes_is_refused_and_never_read_beyond(data: st.DataObject) -> None:
    raw = written([(b"key", b"some value", [("x", b"y")]), (b"b", b"other", [])], 0)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(61, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = Batches(TOPIC, Kept(bytes(raw)), None, 0, None, None, False, READ_UNCOMMITTED)  # its checksum is not asked
    try:
        wholes = list(found)
    except CorruptRecordException:
        return
    for one in wholes:
        assert all(key is None or len(key) <= len(raw) for key in one.records.keys)


def test_batches_of_the_old_format_come_record_by_record() -> None:
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=1 << 20)
    builder.append(0, timestamp=5, key=b"k", value=b"v")
    ours, position = read(Batches, bytes(builder.build()), 0)
    assert [(offset, ms, key, value) for offset, ms, key, value, _ in told_whole(ours)] == [(0, 5, b"k", b"v")]
    assert position == 1


def test_other_topics_stay_per_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batches, "topics", set())
    ours, _ = read(Batches, bytes(written([(b"a", b"1", [])], 0)), 0)
    assert not isinstance(ours[0], Whole)


def test_old_and_new_batches_of_one_fetch_become_one_slice() -> None:
    new, _ = read(Batches, bytes(written([(b"a", b"1", [(TICK_HEADER, b"")]), (None, None, [])], 0)), 0)
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=1 << 20)
    builder.append(2, timestamp=5, key=b"k", value=b"v")
    old, _ = read(Batches, bytes(builder.build()), 0)
    assert [each[2:] for each in told_whole([*new, *old])] == [
        (b"a", b"1", True),
        (None, None, False),
        (b"k", b"v", False),
    ]


@pytest.mark.parametrize("compression", [NONE, GZIP, LZ4])
def test_what_is_warm_takes_every_batch_apart(compression: int) -> None:
    """Numba would compile anew for other kinds of arrays: 5 s in a loop that all partitions share."""
    warm_up()
    before = _signatures()
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 20)
    builder.append(0, timestamp=1, key=b"k", value=b"v" * 99, headers=[])
    assert len(unpacked(Kept(bytes(builder.build())).next_whole(), 0).records) == 1
    assert _signatures() == before


def _signatures() -> list[Any]:
    return list(getattr(spans.unpack, "signatures", ()))  # none where nothing is compiled
