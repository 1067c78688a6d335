"""Delivery: no endpoint stalls another, schedules survive a restart, 410 and 429 are obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from pipeline.respond import deliver
from pipeline.respond.deliver import Deliveries, Mailbox
from pipeline.respond.ledger import HandedOver, Settled, decode, encode
from pipeline.respond.outbox import Outbox
from pipeline.respond.webhook import Poster
from tests.pipeline.respond.incidents import endpoint, incident
from tests.pipeline.respond.receiver import Receiver, code, receiver

FAST_S = (0.0, 0.01, 0.02, 0.03)


@dataclass
class Journal:
    """The decisions topic as deliveries use it."""

    records: list[bytes] = field(default_factory=list)
    written: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, record: HandedOver | Settled) -> None:
        self.records.append(encode(record))
        self.written.set()

    def outbox(self) -> Outbox:
        outbox = Outbox()
        for value in self.records:
            outbox.apply(decode(value))
        return outbox


def clock() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def delivering(
    journal: Journal, *targets: Receiver, schedule_s: tuple[float, ...] = FAST_S
) -> AsyncIterator[Deliveries]:
    """Running mailboxes for these receivers, named a, b, ..."""
    posters = [Poster(endpoint(target.url, "abc"[i]), 1, 5) for i, target in enumerate(targets)]
    deliveries = Deliveries([Mailbox(poster, journal.write, clock, schedule_s) for poster in posters])
    deliveries.start()
    try:
        yield deliveries
        deliveries.check()
    finally:
        await deliveries.close()


async def released(events: list[asyncio.Event]) -> None:
    async with asyncio.timeout(20):
        for event in events:
            await event.wait()


async def settled(journal: Journal, count: int = 1) -> list[Settled]:
    """Wait until so many deliveries are settled on the journal."""
    async with asyncio.timeout(20):
        while True:
            records = [record for value in journal.records if isinstance(record := decode(value), Settled)]
            if len(records) >= count:
                return records
            journal.written.clear()
            await journal.written.wait()


async def test_what_is_delivered_at_once_leaves_nothing_on_the_journal() -> None:
    journal = Journal()
    async with receiver() as target, delivering(journal, target) as deliveries:
        await released(await deliveries.send(incident(), 0))
    assert [each.message_id for each in target.received] == ["msg_incident-k1_1"]
    assert journal.records == []


async def test_each_endpoint_gets_the_changes_it_asked_for() -> None:
    async with receiver() as target, delivering(Journal(), target) as deliveries:
        assert await deliveries.send(incident(revision=2, change="extended"), 0) == []
        await released(await deliveries.send(incident(revision=3, change="escalated"), 0))
    assert [each.message["type"] for each in target.received] == ["incident.escalated"]


async def test_a_failure_is_handed_over_at_once_and_tried_again_under_the_same_id() -> None:
    journal = Journal()
    async with receiver(code(500), code(301), code(404)) as target, delivering(journal, target) as deliveries:
        await released(await deliveries.send(incident(), 7))
        assert [each.partition for each in journal.outbox().pending.values()] in ([7], [])
        records = await settled(journal)
    assert records[0].delivered
    assert len({(each.message_id, each.body) for each in target.received}) == 1
    assert len(target.received) == 4
    assert journal.outbox().pending == {}


async def test_after_the_whole_schedule_a_message_is_given_up() -> None:
    journal = Journal()
    answers = [code(500) for _ in range(9)]
    async with receiver(*answers) as target, delivering(journal, target) as deliveries:
        await released(await deliveries.send(incident(), 0))
        records = await settled(journal)
    assert not records[0].delivered
    assert len(target.received) == len(FAST_S)


async def test_410_disables_the_endpoint() -> None:
    journal = Journal()
    async with receiver(code(410)) as target, delivering(journal, target) as deliveries:
        await released(await deliveries.send(incident(), 0))
        await released(await deliveries.send(incident("k2"), 0))
        assert deliveries.mailboxes["a"].disabled
    assert len(target.received) == 1


async def test_retry_after_is_obeyed_for_the_whole_endpoint() -> None:
    journal = Journal()
    async with receiver(code(429, Retry_After="3600")) as target, delivering(journal, target) as deliveries:
        await released(await deliveries.send(incident(), 0))
        await released(await deliveries.send(incident("k2"), 0))  # handed over: the endpoint rests
        due = [each.next_at_us / 1e6 - clock() for each in journal.outbox().pending.values()]
    assert len(target.received) == 1
    assert len(due) == 2
    assert min(due) > 3500


async def test_a_slow_endpoint_stalls_no_other() -> None:
    async with receiver(hold=True) as slow, receiver() as quick, delivering(Journal(), slow, quick) as deliveries:
        waiting = [await deliveries.send(incident(f"k{i}"), 0) for i in range(5)]
        await quick.until(5)
        assert len(slow.received) <= 1
        assert not waiting[0][0].is_set()
        slow.gate.set()
        for events in waiting:
            await released(events)
    assert [each.message_id for each in slow.received] == [f"msg_incident-k{i}_1" for i in range(5)]


async def test_a_long_queue_is_handed_over_instead_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "MAX_WAITING", 2)
    journal = Journal()
    async with receiver(hold=True) as slow, delivering(journal, slow) as deliveries:
        await deliveries.send(incident("k0"), 0)
        await slow.until(1)
        for name in ("k1", "k2"):
            await deliveries.send(incident(name), 0)
        await released(await deliveries.send(incident("k3"), 0))
        assert [each.message_id for each in journal.outbox().of([0])] == ["msg_incident-k3_1"]
        slow.gate.set()
        await settled(journal)
    assert len(slow.received) == 4


async def test_a_restart_goes_on_with_what_was_handed_over_and_only_the_owner_does() -> None:
    journal = Journal()
    async with receiver(code(500)) as target:
        async with delivering(journal, target, schedule_s=(0.0, 3600.0)) as deliveries:
            await released(await deliveries.send(incident(), 3))
        (pending,) = journal.outbox().pending.values()
        assert (pending.attempts, pending.partition) == (1, 3)
        overdue = HandedOver(
            message_id=pending.message_id, endpoint="a", partition=3, attempts=1, next_at_us=0, body=pending.body
        )
        async with delivering(journal, target) as deliveries:
            deliveries.resume(journal.outbox().of([1]))
            deliveries.resume([overdue, overdue])
            records = await settled(journal)
    assert records[0].delivered
    assert [each.message_id for each in target.received] == ["msg_incident-k1_1"] * 2
    assert target.received[0].body == target.received[1].body


async def test_what_is_on_its_way_is_not_queued_again_when_its_incident_is_read_again() -> None:
    """Killed between the hand-over and the commit of the incident: each copy would be tried for three days."""
    journal = Journal()
    async with receiver(code(500), code(500)) as target:
        async with delivering(journal, target, schedule_s=(0.0, 3600.0)) as deliveries:
            await released(await deliveries.send(incident(), 3))
        async with delivering(journal, target, schedule_s=(0.0, 3600.0, 3600.0)) as deliveries:
            deliveries.resume(journal.outbox().of([3]))
            await released(await deliveries.send(incident(), 3))
            await released(await deliveries.send(incident("k2"), 3))  # handed over, or sent after the first
        assert [each.attempts for each in journal.outbox().of([3]) if "k1" in each.message_id] == [1]
        assert [each.message_id for each in target.received].count("msg_incident-k1_1") == 1


async def test_partitions_that_went_away_are_forgotten() -> None:
    journal = Journal()
    async with receiver(code(500)) as target, delivering(journal, target, schedule_s=(0.0, 0.2)) as deliveries:
        await released(await deliveries.send(incident(), 3))
        deliveries.forget([3])
        await released(await deliveries.send(incident("k2"), 4))
        await settled(journal)
    assert [each.message_id for each in target.received] == ["msg_incident-k1_1", "msg_incident-k2_1"]


def test_an_update_keeps_the_body_and_an_update_of_nothing_is_dropped() -> None:
    outbox = Outbox()
    first = HandedOver(message_id="m", endpoint="a", partition=0, attempts=1, next_at_us=5, body="{}")
    outbox.apply(first)
    outbox.apply(HandedOver(message_id="m", endpoint="a", partition=0, attempts=2, next_at_us=9))
    outbox.apply(HandedOver(message_id="n", endpoint="a", partition=0, attempts=2, next_at_us=9))
    assert [(each.message_id, each.attempts, each.body) for each in outbox.of([0])] == [("m", 2, "{}")]


def test_the_schedule_is_the_one_of_standard_webhooks_and_fits_the_topic_s_retention() -> None:
    assert deliver.SCHEDULE_S[:4] == (0.0, 5.0, 300.0, 1800.0)
    assert sum(deliver.SCHEDULE_S) * (1 + deliver.JITTER) < 7 * 86_400
    assert all(0.9 * 100 <= deliver.jittered(100.0) <= 1.1 * 100 for _ in range(50))
