"""Delivery: no endpoint stalls another, schedules survive a restart, 410 and 429 are obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest
from aiohttp import web

from pipeline.errors import Fatal
from pipeline.respond.delivery import mailbox
from pipeline.respond.delivery.caller import Answer
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.delivery.mailbox import Mailbox
from pipeline.respond.delivery.notice import Notice, of_incident
from pipeline.respond.delivery.outbox import Outbox
from pipeline.respond.delivery.webhook import Poster
from pipeline.respond.ledger.entries import HandedOver, Settled, decode, encode
from pipeline.respond.night.records import EndpointSwitched, Resent
from schemas.incident import Incident
from tests.pipeline.respond.incidents import endpoint, incident
from tests.pipeline.respond.receiver import Receiver, code, receiver

FAST_S = (0.0, 0.01, 0.02, 0.03)


@dataclass
class Journal:
    """The decisions topic as deliveries use it."""

    records: list[bytes] = field(default_factory=list)
    written: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, record: HandedOver | Settled | EndpointSwitched) -> None:
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


async def until(journal: Journal, happened: Callable[[], bool]) -> None:
    """Wait until what is written makes it so."""
    async with asyncio.timeout(20):
        while not happened():
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
    assert [(letter.why, bool(letter.record.body)) for letter in journal.outbox().dead.values()] == [
        ("the endpoint is disabled", True)
    ] * 2


async def test_a_disabled_endpoint_is_still_disabled_after_a_restart_until_somebody_lifts_it() -> None:
    journal = Journal()
    async with receiver(code(410)) as target:
        async with delivering(journal, target) as deliveries:
            await released(await deliveries.send(incident(), 0))
        async with delivering(journal, target) as deliveries:
            deliveries.remember(journal.outbox())
            await released(await deliveries.send(incident("k2"), 0))
            assert len(target.received) == 1
            await journal.write(EndpointSwitched(endpoint="a", disabled=False, by="me"))
            deliveries.follow(journal.outbox(), EndpointSwitched(endpoint="a", disabled=False, by="me"))
            await released(await deliveries.send(incident("k3"), 0))
    assert [each.message_id for each in target.received] == ["msg_incident-k1_1", "msg_incident-k3_1"]
    assert journal.outbox().disabled == {}


async def test_no_success_for_a_whole_schedule_disables_the_endpoint() -> None:
    journal = Journal()
    async with receiver(*[code(500) for _ in range(len(FAST_S))]) as target, delivering(journal, target) as deliveries:
        await released(await deliveries.send(incident(), 0))
        await settled(journal)
        assert deliveries.mailboxes["a"].disabled
    assert "nothing was delivered in 4 attempts" in journal.outbox().disabled["a"].why


async def test_one_message_that_nobody_wants_disables_nothing_while_others_are_taken() -> None:
    journal = Journal()
    refused = {"msg_incident-k1_1"}

    class Picky:
        endpoint = endpoint("http://127.0.0.1/", "a")

        async def post(self, message_id: str, body: bytes) -> Answer:
            return Answer(400 if message_id in refused else 200)

    deliveries = Deliveries([Mailbox(Picky(), journal.write, clock, FAST_S)])
    deliveries.start()
    await released(await deliveries.send(incident(), 0))
    for number in range(len(FAST_S)):
        await released(await deliveries.send(incident(f"other{number}"), 0))
    await until(journal, lambda: bool(journal.outbox().dead) and not journal.outbox().pending)
    await deliveries.close()
    outbox = journal.outbox()
    assert not deliveries.mailboxes["a"].disabled
    assert [name for _, name in outbox.dead] == ["msg_incident-k1_1"]
    assert outbox.pending == {}


async def test_a_dead_letter_is_sent_again_from_the_schedule_s_start_under_its_own_id() -> None:
    journal = Journal()
    async with receiver(code(410)) as target, delivering(journal, target) as deliveries:
        deliveries.own([0])
        await released(await deliveries.send(incident(), 0))
        for record in (
            EndpointSwitched(endpoint="a", disabled=False, by="me"),
            Resent(message_id="msg_incident-k1_1", endpoint="a", by="me"),
        ):
            journal.records.append(encode(record))
            deliveries.follow(journal.outbox(), record)
        assert (await settled(journal, 2))[1].delivered
    assert len({(each.message_id, each.body) for each in target.received}) == 1
    assert len(target.received) == 2
    assert journal.outbox().dead == {}


async def test_revisions_of_one_incident_arrive_in_order_though_the_first_is_retried() -> None:
    journal = Journal()
    async with receiver(code(500), code(500)) as target, delivering(journal, target) as deliveries:
        for revision in (1, 2, 3):
            change = "opened" if revision == 1 else "escalated"
            await released(await deliveries.send(incident(revision=revision, change=change), 0))
        await settled(journal, 3)
    arrived = [each.message["data"]["revision"] for each in target.received]
    assert arrived == [1, 1, 1, 2, 3]


async def test_another_incident_does_not_wait_for_one_that_is_retried() -> None:
    journal = Journal()
    others = {"msg_incident-k2_1", "msg_incident-k3_1"}
    taken: list[str] = []
    overtaken = asyncio.Event()

    class Picky:
        endpoint = endpoint("http://127.0.0.1/", "a")

        async def post(self, message_id: str, body: bytes) -> Answer:
            taken.append(message_id)
            if others <= set(taken):
                overtaken.set()
            return Answer(200 if message_id in others else 400)

    deliveries = Deliveries([Mailbox(Picky(), journal.write, clock, (0.0, 0.01, 3600.0))])
    deliveries.start()
    await released(await deliveries.send(incident(), 0))
    await released(await deliveries.send(incident(revision=2, change="escalated"), 0))
    for name in ("k2", "k3"):
        await deliveries.send(incident(name), 0)
    await released([overtaken])
    await deliveries.close()
    assert "msg_incident-k1_2" not in taken
    waiting = [each.message_id for each in journal.outbox().of([0]) if "k1" in each.message_id]
    assert waiting == ["msg_incident-k1_1", "msg_incident-k1_2"]


async def test_order_holds_over_a_restart() -> None:
    journal = Journal()
    async with receiver(code(500)) as target:
        async with delivering(journal, target, schedule_s=(0.0, 3600.0)) as deliveries:
            for revision in (1, 2):
                change = "opened" if revision == 1 else "closed"
                await released(await deliveries.send(incident(revision=revision, change=change), 3))
        overdue = [msgspec.structs.replace(each, next_at_us=0) for each in journal.outbox().of([3])]
        async with delivering(journal, target) as deliveries:
            deliveries.resume(overdue)
            await settled(journal, 2)
    assert [each.message["data"]["revision"] for each in target.received] == [1, 1, 2]


async def test_a_receiver_that_took_it_and_did_not_say_so_gets_the_same_message_again() -> None:
    """Its answer is lost: it must be able to see by the id that it knows the message already."""
    journal = Journal()
    seen: list[str] = []

    async def hang_up(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request.headers["webhook-id"])
        if len(seen) == 1 and request.transport:
            request.transport.abort()
        return web.Response()

    runner = web.AppRunner(app := web.Application(), access_log=None)
    app.router.add_post("/hook", hang_up)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target = endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", "a")
    deliveries = Deliveries([Mailbox(Poster(target, 1, 5), journal.write, clock, FAST_S)])
    deliveries.start()
    await released(await deliveries.send(incident(), 0))
    assert (await settled(journal))[0].delivered
    await deliveries.close()
    await runner.cleanup()
    assert seen == ["msg_incident-k1_1"] * 2


async def test_what_is_looked_up_first_keeps_the_order_of_one_key_and_stalls_no_other() -> None:
    gates = {"k1": asyncio.Event(), "k2": asyncio.Event()}
    gates["k2"].set()

    async def prepare(about: Incident, partition: int) -> Notice:
        await gates[about.key_id].wait()
        return of_incident(about, case_id=f"of {about.key_id}")

    async with receiver() as target:
        mailbox = Mailbox(Poster(endpoint(target.url, "a"), 1, 5), Journal().write, clock, FAST_S)
        deliveries = Deliveries([mailbox], prepare)
        deliveries.start()
        waiting = [
            *await deliveries.send(incident(), 0),
            *await deliveries.send(incident(revision=2, change="closed"), 0),
        ]
        await released(await deliveries.send(incident("k2"), 0))
        assert not any(event.is_set() for event in waiting)
        gates["k1"].set()
        await released(waiting)
        deliveries.check()
        await deliveries.close()
    assert [each.message_id for each in target.received] == [
        "msg_incident-k2_1", "msg_incident-k1_1", "msg_incident-k1_2"
    ]  # fmt: skip
    assert target.received[0].message["data"]["case_id"] == "of k2"


async def test_what_ends_the_looking_up_is_raised_and_not_swallowed() -> None:
    async def prepare(about: Incident, partition: int) -> Notice:
        raise Fatal("the topic is gone")

    deliveries = Deliveries([], prepare)
    await deliveries.send(incident(), 0)
    await asyncio.gather(*list(deliveries._lanes.values()), return_exceptions=True)
    await asyncio.sleep(0)  # what is done when a task ends
    with pytest.raises(Fatal):
        deliveries.check()


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
    monkeypatch.setattr(mailbox, "MAX_WAITING", 2)
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


def test_what_is_disabled_is_said_again_before_retention_forgets_it() -> None:
    outbox, day_us = Outbox(), 86_400_000_000
    outbox.apply(EndpointSwitched(endpoint="a", disabled=True, by="keywatch", why="410"), day_us)
    assert outbox.restated(2 * day_us) == []
    (again,) = outbox.restated(5 * day_us)
    outbox.apply(again, 5 * day_us)
    assert (outbox.disabled["a"].since_us, outbox.disabled["a"].said_us) == (day_us, 5 * day_us)
    assert outbox.restated(5 * day_us) == []


def test_a_dead_letter_is_kept_for_a_week_though_the_topic_keeps_its_record_for_longer() -> None:
    outbox, day_us = Outbox(), 86_400_000_000
    outbox.apply(HandedOver(message_id="a", endpoint="x", partition=0, attempts=9, next_at_us=0, body="{}"), day_us)
    outbox.apply(Settled(message_id="a", endpoint="x", delivered=False, why="no"), day_us)
    outbox.apply(None, 8 * day_us)
    assert len(outbox.dead) == 1
    outbox.apply(None, 8 * day_us + 1)
    assert outbox.dead == {}


def test_dead_letters_are_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.respond.delivery.outbox.MAX_DEAD", 2)
    outbox = Outbox()
    for name in ("a", "b", "c"):
        outbox.apply(HandedOver(message_id=name, endpoint="x", partition=0, attempts=9, next_at_us=0, body="{}"))
        outbox.apply(Settled(message_id=name, endpoint="x", delivered=False, why="no"))
    assert [name for _, name in outbox.dead] == ["b", "c"]


def test_an_update_keeps_the_body_and_an_update_of_nothing_is_dropped() -> None:
    outbox = Outbox()
    first = HandedOver(message_id="m", endpoint="a", partition=0, attempts=1, next_at_us=5, body="{}")
    outbox.apply(first)
    outbox.apply(HandedOver(message_id="m", endpoint="a", partition=0, attempts=2, next_at_us=9))
    outbox.apply(HandedOver(message_id="n", endpoint="a", partition=0, attempts=2, next_at_us=9))
    assert [(each.message_id, each.attempts, each.body) for each in outbox.of([0])] == [("m", 2, "{}")]


def test_the_schedule_is_the_one_of_standard_webhooks_and_fits_the_topic_s_retention() -> None:
    assert mailbox.SCHEDULE_S[:4] == (0.0, 5.0, 300.0, 1800.0)
    assert sum(mailbox.SCHEDULE_S) * (1 + mailbox.JITTER) < 7 * 86_400
    assert all(0.9 * 100 <= mailbox.jittered(100.0) <= 1.1 * 100 for _ in range(50))


def test_what_belongs_to_no_partition_is_its_owners_who_has_the_first() -> None:
    outbox = Outbox()
    of = HandedOver(message_id="enf_1", endpoint="e", partition=-1, attempts=1, next_at_us=1, body="{}", thread="t")
    outbox.apply(of, 1)
    assert outbox.of([0]) == [of]
    assert outbox.of([1]) == []
