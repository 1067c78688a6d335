"""Consuming: commits only what is finished, bounded in flight, gives partitions up cleanly; the audit waits too.

The consumer here is a fake of the few calls used; `tests/kafka/test_responder.py` shows the same with the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition

from pipeline.errors import Fatal, Retry
from pipeline.health import Health
from pipeline.ports import Columns
from pipeline.respond import consume
from pipeline.respond.audit import Positioned
from pipeline.respond.caretaker import Caretaker
from pipeline.respond.consume import AuditLoader, Incidents
from pipeline.respond.delivery.outbox import Outbox
from tests.pipeline.respond.test_audit import line

TOPIC = "api.incidents"


class FakeConsumer:
    """Partition 0 of one topic with so many records; `polled` is told of each poll."""

    def __init__(self, count: int, value: Callable[[int], bytes | None] = lambda offset: b"") -> None:
        self.count, self.value, self.next = count, value, 0
        self.commits: list[dict[TopicPartition, int] | None] = []
        self.committed = asyncio.Event()
        self.is_paused = False
        self.listener: Any = None

    def subscribe(self, topics: list[str], listener: Any = None) -> None:
        self.listener = listener

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(TOPIC, 0)}

    def paused(self) -> set[TopicPartition]:
        return self.assignment() if self.is_paused else set()

    def pause(self, *_: TopicPartition) -> None:
        self.is_paused = True

    def resume(self, *_: TopicPartition) -> None:
        self.is_paused = False

    def highwater(self, _: TopicPartition) -> int:
        return self.count

    async def getmany(self, timeout_ms: int = 0, max_records: int = 500) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        upto = self.next if self.is_paused else min(self.count, self.next + min(max_records, 3))
        offsets, self.next = range(self.next, upto), upto
        records = [
            SimpleNamespace(
                partition=0, offset=o, timestamp=0, key=b"", value=self.value(o), topic=TOPIC, timestamp_type=1
            )
            for o in offsets
        ]
        return {TopicPartition(TOPIC, 0): records} if records else {}

    async def commit(self, offsets: dict[TopicPartition, int] | None = None) -> None:
        self.commits.append(offsets)
        self.committed.set()


class FakeResponder:
    """Each incident waits for its gate."""

    def __init__(self, count: int) -> None:
        self.gates = [asyncio.Event() for _ in range(count)]
        self.begun: list[int] = []
        self.forgotten: list[set[int]] = []
        self.reached = asyncio.Event()
        self.reach_at = count
        self.endpoint = ""
        self.deliveries = SimpleNamespace(
            check=lambda: None, forget=self.forgotten.append, resume=lambda records: None, own=lambda partitions: None
        )  # fmt: skip
        self.decisions = SimpleNamespace(catch_up=self.nothing, outbox=Outbox(), check=lambda: None)

    async def nothing(self) -> None:
        return None

    async def receive(self, record: Positioned) -> Awaitable[None]:
        self.begun.append(record.offset)
        if len(self.begun) == self.reach_at:
            self.reached.set()
        return self.wait(record.offset)

    async def wait(self, offset: int) -> None:
        await self.gates[offset].wait()


def consuming(count: int) -> tuple[FakeConsumer, FakeResponder, Any, asyncio.Event]:
    consumer, responder = FakeConsumer(count), FakeResponder(count)
    untyped: Any = responder
    fake: Any = consumer
    nothing: Any = None
    idle = Caretaker(nothing, nothing, nothing)
    return consumer, responder, Incidents(fake, TOPIC, untyped, idle, Health()), asyncio.Event()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "COMMIT_S", 0.0)
    monkeypatch.setattr(consume, "STOP_S", 0.1)
    monkeypatch.setattr(consume, "HANDOVER_S", 0.0)
    monkeypatch.setattr(consume, "RETRY_S", 0.0)


def points(consumer: FakeConsumer) -> list[int]:
    return [at for offsets in consumer.commits if offsets for at in offsets.values()]


async def test_at_a_stop_the_oldest_unfinished_incident_is_where_the_next_start_begins() -> None:
    consumer, responder, incidents, stop = consuming(8)
    for offset in (0, 1, 2, 4, 5, 6, 7):
        responder.gates[offset].set()
    running = asyncio.create_task(incidents.run(stop, lambda: None))
    await responder.reached.wait()
    stop.set()
    await running
    assert points(consumer)[-1] == 3
    assert points(consumer) == sorted(points(consumer))


async def test_a_stop_waits_for_what_is_in_flight() -> None:
    consumer, responder, incidents, stop = consuming(3)
    running = asyncio.create_task(incidents.run(stop, lambda: None))
    await responder.reached.wait()
    stop.set()
    for gate in responder.gates:
        gate.set()
    await running
    assert points(consumer)[-1] == 3


async def test_reading_pauses_at_the_bound_and_goes_on_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "MAX_IN_FLIGHT", 4)
    consumer, responder, incidents, stop = consuming(20)
    responder.reach_at = 4
    running = asyncio.create_task(incidents.run(stop, lambda: None))
    await responder.reached.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(responder.begun) <= 4 + 3
    assert consumer.is_paused
    responder.reach_at = 20
    responder.reached.clear()
    for gate in responder.gates:
        gate.set()
    await responder.reached.wait()
    stop.set()
    await running
    assert points(consumer)[-1] == 20


async def test_an_incident_that_cannot_be_handled_ends_the_process_and_is_not_committed() -> None:
    consumer, responder, incidents, stop = consuming(2)

    async def broken(offset: int) -> None:
        raise Fatal("no right to write")

    responder.wait = broken  # type: ignore[method-assign]
    with pytest.raises(Fatal, match="no right to write"):
        await incidents.run(stop, lambda: None)
    assert points(consumer) == [0] or points(consumer) == []


async def test_a_partition_that_goes_away_is_committed_as_far_as_it_is_finished_and_forgotten() -> None:
    consumer, responder, incidents, stop = consuming(6)
    for offset in range(4):
        responder.gates[offset].set()
    running = asyncio.create_task(incidents.run(stop, lambda: None))
    await responder.reached.wait()
    await consumer.listener.on_partitions_revoked({TopicPartition(TOPIC, 0)})
    assert points(consumer)[-1] == 4
    assert responder.forgotten == [{0}]
    consumer.next = 4  # as after a new assignment: from the commit on
    responder.reach_at = 8
    responder.reached.clear()
    await consumer.listener.on_partitions_assigned({TopicPartition(TOPIC, 0)})
    for gate in responder.gates:
        gate.set()
    await responder.reached.wait()
    stop.set()
    await running
    assert responder.begun == [0, 1, 2, 3, 4, 5, 4, 5]
    assert points(consumer)[-1] == 6


class Sink:
    """Fails so many times, then takes rows."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures, self.written = failures, list[Columns]()

    async def write(self, table: str, rows: Columns) -> None:
        if self.failures:
            raise self.failures.pop(0)
        assert table == "responses"
        self.written.append(rows)

    async def close(self) -> None:
        """Nothing to release."""


async def test_the_audit_is_committed_only_after_its_rows_are_written() -> None:
    fake: Any = FakeConsumer(3, lambda offset: line(offset).value)
    sink = Sink([Retry("away"), Fatal("no such table"), Retry("away")])
    health = Health()
    loader = AuditLoader(fake, "api.responses", sink, health)
    loader.start()
    await fake.committed.wait()
    await loader.close()
    loader.check()
    assert [list(rows["offset"]) for rows in sink.written] == [[0, 1, 2]]
    assert fake.commits == [None]


async def test_an_audit_line_of_another_shape_is_left_out() -> None:
    fake: Any = FakeConsumer(2, lambda offset: msgspec.json.encode({"v": 9}) if offset else line(0).value)
    sink = Sink([])
    loader = AuditLoader(fake, "api.responses", sink, Health())
    loader.start()
    await fake.committed.wait()
    await loader.close()
    assert list(sink.written[0]["offset"]) == [0]
