"""Pages on their way to Kafka, as far as no broker is needed; tests/kafka/test_ports.py has the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import codec
from aiokafka.errors import UnknownError
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.config.tree import Kafka
from pipeline.errors import Fatal
from pipeline.sinks import kafka
from pipeline.sinks.kafka import BATCH_BYTES, batches, fetched_highwaters, uncompressed
from pipeline.sinks.packing import quick_lz4

LZ4, HEADER_BYTES = 3, 61  # of a batch, by Kafka's protocol
PAGE = b"packed already " * 1_000


def test_pages_are_not_compressed_a_second_time() -> None:
    """aiokafka's lz4 took 600 us for each, 40 times what building the batch takes."""
    ((batch, count),) = batches([(b"a", PAGE, ()), (b"b", None, ()), (b"c", PAGE, ())], uncompressed)
    assert count == 3
    assert bytes(batch._build()).count(PAGE) == 2


def test_what_is_published_is_packed_at_the_quick_level_of_lz4() -> None:
    """aiokafka packs at level 9, in the event loop: 400 us for 200 sightings where this takes 30."""
    quick_lz4()
    texts = [b'{"key_id":"pk_%d","kind":"used"}' % number for number in range(200)]
    ((batch, _),) = batches([(b"k", text, ()) for text in texts], lambda: BatchBuilder(BATCH_BYTES, LZ4))
    packed = bytes(batch._build())[HEADER_BYTES:]
    records = codec.lz4_decode(packed)
    assert all(text in records for text in texts)
    assert packed == codec.lz4_encode(records, 1) != codec.lz4_encode(records)


def test_batches_are_cut_at_their_size_and_a_page_larger_than_one_goes_alone() -> None:
    cut = list(batches([(b"%d" % n, PAGE, ()) for n in range(20)], uncompressed))
    assert [count for _, count in cut] == [8, 8, 4]
    assert all(len(batch._build()) <= BATCH_BYTES for batch, _ in cut)
    large = (b"large", bytes(2 * BATCH_BYTES), ())
    mixed = [(b"a", PAGE, ()), large, (b"b", PAGE, ()), large]
    assert [count for _, count in batches(mixed, uncompressed)] == [1, 1, 1, 1]


class Silent:
    """A consumer whose fetches never bring anything."""

    def assign(self, partitions: list[Any]) -> None:
        """Taken."""

    async def seek_to_beginning(self) -> None:
        """Done."""

    def highwater(self, partition: Any) -> None:
        """Not told yet."""

    async def getmany(self, timeout_ms: int) -> None:
        """Waits for ever."""
        await asyncio.get_running_loop().create_future()


async def test_ends_that_are_not_told_in_time_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended a worker with a traceback and "stopped: "."""

    @asynccontextmanager
    async def open_consumer(settings: Kafka, **more: Any) -> AsyncIterator[Silent]:
        yield Silent()

    monkeypatch.setattr(kafka, "side_consumer", open_consumer)
    monkeypatch.setattr(kafka, "HIGHWATER_WAIT_S", 0.01)
    with pytest.raises(Fatal, match=r"the ends of api\.requests were not told within"):
        await fetched_highwaters(Kafka(), "api.requests", [0])


class Idless:
    """A producer of a broker that gives out no ids: what aiokafka says of it, and then without."""

    said = logging.getLogger("aiokafka.producer.sender")

    def __init__(self, *, idempotent: bool) -> None:
        self.idempotent = idempotent

    async def start(self) -> None:
        """Fails as aiokafka's does."""
        if self.idempotent:
            self.said.error("Unexpected error during InitProducerIdRequest: %s", UnknownError)
            raise UnknownError
        self.said.error("another error")

    async def stop(self) -> None:
        """Done."""


async def test_a_broker_without_producer_ids_is_told_of_in_our_words_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, Idless.said.name)
    monkeypatch.setattr(kafka, "_producer", lambda _, idempotent: Idless(idempotent=idempotent))
    producer = kafka.Producer(Kafka())
    await producer.start()
    await producer.close()
    assert [record.getMessage() for record in caplog.records] == [
        "Kafka at localhost:9092 gives out no producer ids: sending without idempotence", "another error",
    ]  # fmt: skip
