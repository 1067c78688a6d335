"""The night in memory: one page per case, in step with PagerDuty, killed anywhere, told by another channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from pipeline.config.night import Kind
from pipeline.config.tree import Endpoint, Respond, Secret
from pipeline.errors import Fatal
from pipeline.respond.brief import Usage
from pipeline.respond.delivery.caller import Answer
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.delivery.mailbox import Mailbox
from pipeline.respond.ladder import Others
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Promoted, Record, decode, encode
from pipeline.respond.night.cases import SPAN_US, SPANS_END_US, span_of
from pipeline.respond.night.night import Books, Night
from pipeline.respond.night.records import ActSeen, CaseSaid, CaseSeen, DrillStarted, Protection, RotationSeen, Told
from pipeline.respond.night.watch import Look
from pipeline.respond.promotion.earned import REVIEW
from schemas.incident import Incident
from schemas.key import Key
from tests.pipeline.respond.incidents import NOW_S, incident, key
from tests.pipeline.respond.ledger.test_ledger import finished, proposed
from tests.pipeline.respond.memory_log import Fuse, Killed, MemoryLog, MemoryPublisher, MemoryReader
from tests.pipeline.respond.notices import USAGE, full
from tests.pipeline.respond.people import ANN, BOTH

TOPIC = "api.decisions"


@dataclass
class Line:
    """A channel that remembers what came; `answers` are used up, then yes."""

    endpoint: Endpoint
    came: list[dict[str, object]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    async def post(self, message_id: str, body: bytes) -> Answer:
        self.ids.append(message_id)
        self.came.append(msgspec.json.decode(body))
        return self.answers.pop(0) if self.answers else Answer(200)


def line(name: str, kind: Kind) -> Line:
    return Line(Endpoint(name=name, kind=kind, secret=Secret("x"), allow_private=True))


@dataclass
class Catalogue:
    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        return key(key_id, owner="billing"), 100, ""

    async def others(self, about: Key) -> Others:
        return 0, 99


@dataclass
class Hanging:
    """A catalogue that never answers."""

    asked: int = 0

    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        self.asked += 1
        await asyncio.Event().wait()
        return None, 0, ""

    async def others(self, about: Key) -> Others:
        return None, None


@dataclass
class Numbers:
    async def read(self, about: Incident) -> Usage:
        return USAGE


@dataclass
class View:
    """What the workers do, as a test says it."""

    now: Look | None = field(default_factory=lambda: Look({0: 10}, {0: 10}, 1))

    async def look(self) -> Look:
        if self.now is None:
            raise Fatal("no broker")
        return self.now


@dataclass
class World:
    """What outlives processes."""

    log: MemoryLog = field(default_factory=MemoryLog)
    lines: list[Line] = field(default_factory=lambda: [line("pager", "pagerduty"), line("hook", "webhook")])
    now_s: float = NOW_S
    view: View = field(default_factory=View)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.log.now_us += int(seconds * 1e6)

    def records(self, kind: type[Record]) -> list[Record]:
        return [each for value in self.log.values(TOPIC) if isinstance(each := decode(value), kind)]

    def say(self, record: Record) -> None:
        self.log.append(TOPIC, b"", encode(record))


@asynccontextmanager
async def life(world: World, fuse: Fuse | None = None) -> AsyncIterator[Night]:
    """One process' life; its rounds are made by the test."""
    publisher = MemoryPublisher(world.log, fuse or Fuse())
    decisions = Decisions(publisher, MemoryReader(world.log, TOPIC), TOPIC, "a")
    books = Books()
    decisions.followers.append(books.apply)
    night = Night(Respond(approvers=BOTH), books, decisions, Catalogue(), Numbers(), lambda: world.now_s, world.view)
    boxes = [Mailbox(each, decisions.write, lambda: world.now_s) for each in world.lines]
    deliveries = night.deliveries = Deliveries(boxes, night.prepare)
    decisions.followers.append(lambda _, record: deliveries.follow(decisions.outbox, record))
    try:
        await decisions.start()
        deliveries.remember(decisions.outbox)
        deliveries.own([0])
        deliveries.resume(decisions.outbox.of([0]))
        deliveries.start()
        yield night
    finally:
        await night.close()
        await deliveries.close()
        await decisions.close()


async def rounds(night: Night, count: int = 4) -> None:
    """Rounds until all that each begins has ended."""
    for _ in range(count):
        await night.decisions.catch_up()
        await night.round()
        await asyncio.gather(*night._telling.values())
    night.deliveries.check()


async def arrive(night: Night, *incidents: Incident) -> None:
    for each in incidents:
        for released in await night.deliveries.send(each, 0):
            async with asyncio.timeout(20):
                await released.wait()


def pages(world: World) -> list[tuple[object, object]]:
    return [(each["event_action"], each["dedup_key"]) for each in world.lines[0].came]


BURST = (full(key_id="k1", incident_id="i1"), full(key_id="k2", incident_id="i2"), full(key_id="k3", incident_id="i3"))


async def test_three_incidents_of_one_source_are_three_messages_to_machines_and_one_page() -> None:
    world = World()
    async with life(world) as night:
        await arrive(night, *BURST)
        await rounds(night)
    assert [action for action, _ in pages(world)] == ["trigger"]
    hooks = world.lines[1].came
    assert len(hooks) == 3
    assert len({each["data"]["case_id"] for each in hooks}) == 1  # type: ignore[index]
    assert hooks[0]["data"]["brief"]["working"] == "yes"  # type: ignore[index]


async def test_pagerduty_is_told_of_the_acknowledgement_and_of_the_end_under_the_case_s_id() -> None:
    world = World()
    async with life(world) as night:
        await arrive(night, BURST[0])
        await rounds(night)
        (case_id,) = night.books.cases.cases
        world.say(CaseSaid(case_id=case_id, verb="ack", by="ada"))
        await rounds(night)
        await arrive(night, full(key_id="k1", incident_id="i1", revision=2, change="closed", state="closed"))
        await rounds(night)
    assert pages(world) == [("trigger", case_id), ("acknowledge", case_id), ("resolve", case_id)]


async def test_a_page_that_nobody_acknowledges_comes_again_and_an_acknowledged_one_does_not() -> None:
    world = World()
    async with life(world) as night:
        await arrive(night, BURST[0])
        await rounds(night)
        world.pass_time(901)
        await rounds(night)
        (case_id,) = night.books.cases.cases
        world.say(CaseSaid(case_id=case_id, verb="ack", by="ada"))
        world.pass_time(3 * 901)
        await rounds(night)
    assert [action for action, _ in pages(world)] == ["trigger", "trigger", "acknowledge"]
    assert len(set(world.lines[0].ids)) == 3


async def test_a_page_that_is_sent_again_says_what_was_done_meanwhile_and_how_it_is_undone() -> None:
    world = World(lines=[line("pager", "pagerduty"), line("chat", "slack")])
    of = msgspec.structs.replace(proposed("k1", incident_id="i1", rung="suspend", rule="live"), responder="r")
    async with life(world) as night:
        await arrive(night, BURST[0])
        await rounds(night)
        await night.decisions.write(of)
        await night.decisions.write(finished(of))
        world.pass_time(901)
        await rounds(night)
    payloads = [each["payload"] for each in world.lines[0].came]
    assert [each["class"] for each in payloads] == ["case.opened", "response.done", "case.escalated"]  # type: ignore[index]
    first, again = (each["custom_details"] for each in (payloads[0], payloads[2]))  # type: ignore[index]
    assert "In force" not in first and first["Do"] == "keywatch respond act i1 --rung fence"
    assert again["In force"].startswith("suspend is in force since 2026-")
    undo = f"keywatch respond undo {of.response_id[:12]} --reason TEXT"
    assert (again["Do"], again["Undo"]) == ("keywatch explain i1", undo)
    assert undo in str(world.lines[1].came[2]) and undo not in str(world.lines[1].came[0])


async def test_a_gateway_that_does_not_obey_pages_again_though_somebody_had_acknowledged_and_until_somebody_does() -> (
    None
):
    world = World()
    async with life(world) as night:
        await arrive(night, BURST[0])
        await rounds(night)
        (case_id,) = night.books.cases.cases
        world.say(CaseSaid(case_id=case_id, verb="ack", by="ada"))
        await rounds(night)
        world.say(ActSeen(
            response_id="r1", incident_id="i1", key_id="k1", verdict_id="v1", broken=True, partition=0,
            text="suspend is not enforced: a request went through",
        ))  # fmt: skip
        await rounds(night)
        world.pass_time(901)
        await rounds(night)
    assert pages(world) == [(action, case_id) for action in ("trigger", "acknowledge", "trigger", "trigger")]
    summaries = [str(each["payload"]["summary"]) for each in world.lines[0].came[2:]]  # type: ignore[index]
    assert summaries[0].startswith("critical, the gateway does not obey: suspend is not enforced")
    assert summaries[1].startswith("critical, nobody has acknowledged it: suspend is not enforced")


async def clean_effects() -> int:
    fuse = Fuse()
    world = World()
    async with life(world, fuse) as night:
        await arrive(night, BURST[0])
        await rounds(night)
    return fuse.count


async def test_killed_at_any_write_a_restart_pages_all_the_same_and_never_under_another_id() -> None:
    expected = {("trigger", case) for _, case in await pages_of_a_clean_run()}
    effects = await clean_effects()
    assert effects > 5
    for at in range(effects):
        for after in (False, True):
            world = World()
            with pytest.raises((Killed, Fatal, TimeoutError)):
                async with life(world, Fuse(at, after)) as night, asyncio.timeout(5):
                    await arrive_or_die(night, BURST[0])
                    await rounds(night)
                    raise Killed
            async with life(world) as night:
                await arrive(night, BURST[0])  # it was not committed: it is read again
                await rounds(night)
            assert set(pages(world)) == expected, (at, after)
            assert len(set(world.lines[0].ids)) == 1, (at, after)


async def pages_of_a_clean_run() -> list[tuple[object, object]]:
    world = World()
    async with life(world) as night:
        await arrive(night, BURST[0])
        await rounds(night)
    return pages(world)


async def arrive_or_die(night: Night, about: Incident) -> None:
    waiting = await night.deliveries.send(about, 0)
    lanes = list(night.deliveries._lanes.values())
    for task in asyncio.as_completed(lanes):
        await task
    for released in waiting:
        await released.wait()


async def test_whichever_revision_opens_a_case_by_the_topic_s_clock_has_what_its_page_says() -> None:
    world = World()
    async with life(world) as night:
        await arrive(night, full(key_id="k1", incident_id="i1"))
        # a span is over, and nobody here knows it yet
        world.log.now_us = (span_of(world.log.now_us) + 1) * SPAN_US + SPANS_END_US + 1
        await arrive(night, full(key_id="k1", incident_id="i1", revision=2))
        await rounds(night)
        assert len(night.books.cases.cases) == 2
    assert all(each.body for each in world.records(CaseSeen) if isinstance(each, CaseSeen))
    assert len(pages(world)) == 2


async def test_what_was_told_before_a_restart_is_not_told_again() -> None:
    world = World()
    for _ in range(3):
        async with life(world) as night:
            await arrive(night, BURST[0])
            await rounds(night)
    assert [action for action, _ in pages(world)] == ["trigger"]


async def test_a_catalogue_that_hangs_holds_no_message_up_and_is_not_asked_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.respond.night.night.KEY_WITHIN_S", 0.05)
    monkeypatch.setattr("pipeline.respond.night.night.MAX_ASKING", 2)
    world = World()
    async with life(world) as night:
        night.keys = hanging = Hanging()
        await arrive(night, *BURST, full(key_id="k4", incident_id="i4"))
        assert hanging.asked == 2
    told = [each["data"]["brief"] for each in world.lines[1].came]  # type: ignore[index]
    assert len(told) == 4
    assert all("did not answer in time" in each["act_words"] for each in told)


async def test_only_the_owner_of_a_case_s_partition_tells_it() -> None:
    world = World()
    async with life(world) as night:
        await arrive(night, BURST[0])
        night.deliveries.forget([0])
        await rounds(night)
    assert pages(world) == []


async def test_a_disabled_endpoint_is_told_by_another_channel_once() -> None:
    world = World()
    world.lines[1].answers = [Answer(410)]
    for _ in range(2):
        async with life(world) as night:
            await arrive(night, incident(severity="medium", incident_id="i9"))
            await rounds(night)
    (told,) = world.lines[0].came
    assert "the endpoint hook gets no messages any more" in told["payload"]["summary"]  # type: ignore[index]
    assert len(world.lines[1].came) == 1


async def test_blindness_is_told_once_by_itself_and_so_is_its_end() -> None:
    world = World(view=View(Look({0: 10}, {0: 10}, 0)))
    async with life(world) as night:
        for _ in range(30):
            world.pass_time(15)
            await night.look()
            await rounds(night, 1)
        assert [each["payload"]["class"] for each in world.lines[0].came] == ["protection.lost"]  # type: ignore[index]
        assert "UNPROTECTED since" in str(world.lines[0].came[0])
    async with life(world) as night:  # another responder takes over, and sees that all is well
        world.view.now = Look({0: 12}, {0: 12}, 1)
        await night.look()
        await rounds(night)
    assert pages(world) == [("trigger", "protection"), ("resolve", "protection")]


async def test_without_a_broker_blindness_is_told_before_it_can_be_written() -> None:
    world = World(view=View(None))
    async with life(world) as night:
        await night.look()
        world.pass_time(301)
        await night.look()
        await rounds(night)
    assert [action for action, _ in pages(world)] == ["trigger"]
    assert len(world.records(Protection)) == 1
    assert len(world.records(Told)) == 1


async def test_a_drill_that_is_not_seen_pages_and_one_that_is_seen_does_not() -> None:
    world = World()
    started = DrillStarted(drill_id="d1", key_id="k1", at_us=world.log.now_us, limit_s=60, act=False, by="ada")
    async with life(world) as night:
        world.say(started)
        await arrive(night, full(key_id="k1", incident_id="i1"))
        await rounds(night)
        assert night.books.drills.drills["d1"].ended is not None
        world.pass_time(3600)
        world.say(msgspec.structs.replace(started, drill_id="d2", at_us=world.log.now_us, key_id="k7"))
        await night.decisions.catch_up()
        world.pass_time(61)
        await rounds(night)
    (told,) = world.lines[0].came
    assert told["payload"]["summary"].startswith("the drill failed: detection is missing")  # type: ignore[index]


async def test_that_a_wrong_act_took_a_stage_back_is_told_once_and_not_what_people_do() -> None:
    world = World()
    back = Promoted(to="fence", by=REVIEW, reason="suspend for incident i1 was done by itself, and was expected")
    async with life(world) as night:
        first = Promoted(to="suspend", by="ann", reason="", asked_us=world.log.now_us)
        world.say(first)
        world.say(ANN.says(first.ticket))
        await rounds(night)
        assert world.lines[0].came == []
        world.say(back)
        await rounds(night)
    async with life(world) as night:
        await rounds(night)
    for line_ in world.lines:
        assert len(line_.came) == 1
    told = world.lines[0].came[0]["payload"]
    assert told["summary"].startswith("what acts by itself goes back to fence: suspend for incident i1")  # type: ignore[index]


async def test_a_rotation_near_its_deadline_is_one_message_in_a_week_and_gets_nobody_up() -> None:
    world = World()
    seen = RotationSeen(
        old="k1", new="k2", owner="billing", deadline_us=world.log.now_us, state="overdue", requests_24h=12,
        reason="quiet for 2 h", sources=("curl from 192.0.2.0/24 (AS64500)",),
    )  # fmt: skip
    world.say(seen)
    for _ in range(3):
        async with life(world) as night:
            await rounds(night)
            assert not night.books.rotations.is_news(seen, world.log.now_us)
    (told,) = world.lines[1].came
    assert told["type"] == "rotation.due"
    assert "12 requests in the last 24 h, by curl from 192.0.2.0/24" in str(told["data"]["text"])  # type: ignore[index]
    assert pages(world) == []
    world.pass_time(8 * 86_400)
    world.say(Told(subject="another", step="1"))
    async with life(world) as night:
        await night.decisions.catch_up()
        await rounds(night)
        assert night.books.rotations.is_news(seen, world.log.now_us)
    assert len(world.lines[1].came) == 1, "an old word is not told again: its key may be gone by now"


async def test_that_requests_are_judged_is_known_from_a_look_of_this_owner_only() -> None:
    world = World()
    async with life(world) as night:
        assert "has not looked" in night.blind()
        await night.look()
        assert night.blind() == ""
        world.view.now = Look({0: 20}, {0: 10}, 1)
        world.pass_time(200)
        await night.look()
        world.pass_time(200)
        await night.look()
        assert "wait to be judged" in night.blind()
        world.view.now = Look({0: 20}, {0: 20}, 1)
        await night.look()
        assert night.blind() == ""
        world.pass_time(3_600)
        assert "no more" in night.blind()
        await night.look()
        night.let_go({0})
        assert "has not looked" in night.blind()
    async with life(world) as night:
        world.view.now = Look({0: 20}, {0: 10}, 1)  # days behind, perhaps: a new watcher cannot know how long
        await night.look()
        assert "wait to be judged" in night.blind()


async def test_what_ends_the_night_s_task_is_raised() -> None:
    async with life(World()) as night:

        async def broken() -> None:
            raise OSError("no")

        night._tasks.append(asyncio.create_task(night._run(broken, 1)))
        await asyncio.gather(*night._tasks, return_exceptions=True)
        with pytest.raises(Fatal):
            night.check()
