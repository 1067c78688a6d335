"""Two responders, partitions that move between them at any moment, failing endpoints: nothing lost, nothing left over.

A message may be made twice only where partitions moved under it: while its attempt was in flight, before its incident
could be committed, or before the topic took the word that it is delivered. Whoever delivers it in the end, nothing
stays on the topic to be sent again by a restart.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.ports import Headers
from pipeline.respond.delivery.caller import Answer
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.delivery.mailbox import Mailbox
from pipeline.respond.delivery.notice import Notice, of_incident
from pipeline.respond.delivery.outbox import Outbox
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import HandedOver, Settled, decode
from schemas.incident import Incident
from tests.pipeline.respond.incidents import endpoint, incident
from tests.pipeline.respond.memory_log import MemoryLog, MemoryPublisher, MemoryReader
from tests.pipeline.respond.test_handle import DECISIONS

AT_ONCE_S = (0.0,) * 60
HANDOVER_TURNS = 12  # of the event loop: what is in flight may end before a partition is given up


@dataclass
class Attempt:
    """One message at the endpoint. `excused`: its partition moved while it was under way, or before that was known."""

    message_id: str
    ok: bool = False
    over: bool = False
    excused: bool = False


@dataclass
class World:
    """What outlives responders: the topic, incidents, commits, and what the endpoint got."""

    log: MemoryLog = field(default_factory=MemoryLog)
    incidents: dict[int, list[Incident]] = field(default_factory=lambda: {0: [], 1: []})
    committed: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    attempts: list[Attempt] = field(default_factory=list)
    failing: deque[int] = field(default_factory=deque)  # statuses of the next attempts
    turns: int = 3  # of the event loop that an attempt takes

    endpoint = endpoint("http://127.0.0.1:9/", "a")

    async def post(self, message_id: str, body: bytes) -> Answer:
        made = Attempt(message_id)
        self.attempts.append(made)
        status = self.failing.popleft() if self.failing else 200
        made.ok = status == 200
        for _ in range(self.turns):
            await asyncio.sleep(0)
        made.over = True
        return Answer(status)

    def moved(self, partition: int) -> None:
        """Excuse what the move cuts off."""
        open_ones = {of_incident(each).message_id for each in self.incidents[partition][self.committed[partition] :]}
        everything = {of_incident(each).message_id for each in self.incidents[partition]}
        unsettled = Outbox()
        for record in self.log.topics[DECISIONS]:
            unsettled.apply(decode(record.value))
        open_ones |= {message_id for _, message_id in unsettled.pending} & everything
        for made in self.attempts:
            made.excused |= made.message_id in open_ones or (made.message_id in everything and not made.over)


@dataclass
class HeldPublisher(MemoryPublisher):
    """Its writes reach the topic late while `held`."""

    held: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        await self.held.wait()
        return await super().publish(topic, key, value, headers, partition)


class Process:
    """One responder, as far as messages go."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.publisher = world, HeldPublisher(world.log)
        self.publisher.held.set()
        self.decisions = Decisions(self.publisher, MemoryReader(world.log, DECISIONS), DECISIONS, name)
        box = Mailbox(world, self.decisions.write, lambda: 0.0, AT_ONCE_S)
        self.deliveries = Deliveries([box], self.prepare)
        self.decisions.followers.append(lambda _, record: self.deliveries.follow(self.decisions.outbox, record))
        self.reading: dict[int, asyncio.Task[None]] = {}

    async def prepare(self, about: Incident, partition: int) -> Notice:
        for _ in range(4):
            await asyncio.sleep(0)
        return of_incident(about)

    async def start(self) -> None:
        await self.decisions.start()
        self.deliveries.start()

    async def assigned(self, partition: int) -> None:
        await self.decisions.catch_up()
        self.deliveries.own([partition])
        self.deliveries.resume(self.decisions.outbox.of([partition]))
        self.reading[partition] = asyncio.create_task(self.read(partition))

    async def read(self, partition: int) -> None:
        world, of_this = self.world, self.world.incidents[partition]
        while True:
            while world.committed[partition] == len(of_this):  # noqa: ASYNC110  turns of the loop are the clock here
                await asyncio.sleep(0)
            for released in await self.deliveries.send(of_this[world.committed[partition]], partition):
                await released.wait()
            world.committed[partition] += 1

    async def revoked(self, partition: int) -> None:
        await turns(HANDOVER_TURNS)
        self.reading[partition].cancel()
        await asyncio.gather(self.reading.pop(partition), return_exceptions=True)
        self.world.moved(partition)  # now: an attempt may have begun while the reader ended
        self.deliveries.forget([partition])

    async def close(self) -> None:
        self.publisher.held.set()
        for task in self.reading.values():
            task.cancel()
        await self.deliveries.close()
        await self.decisions.close()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Group:
    """Two responders and who owns which partition."""

    def __init__(self) -> None:
        self.world = World()
        self.processes = [Process(self.world, name) for name in "ab"]
        self.owner = {0: 0, 1: 1}
        self.numbers = iter(range(1_000_000))

    async def start(self) -> None:
        for process in self.processes:
            await process.start()
        for partition, owner in self.owner.items():
            await self.processes[owner].assigned(partition)

    def incident(self, partition: int) -> None:
        number = next(self.numbers)
        self.world.incidents[partition].append(incident(f"k{number % 3}-{partition}", 1 + number, change="opened"))

    async def move(self, partition: int) -> None:
        """To the other one; its writes come again only when something lets them."""
        old, new = self.owner[partition], 1 - self.owner[partition]
        self.processes[new].publisher.held.set()
        await self.processes[old].revoked(partition)
        self.owner[partition] = new
        await self.processes[new].assigned(partition)

    def hold(self, process: int) -> None:
        self.processes[process].publisher.held.clear()

    async def settle(self) -> None:
        """Everything heals, and all that is to be told is told."""
        for process in self.processes:
            process.publisher.held.set()
        self.world.failing.clear()
        async with asyncio.timeout(30):
            while any(self.world.committed[each] < len(self.world.incidents[each]) for each in self.owner):
                await turns(20)
            await turns(400)
            for process in self.processes:
                await process.decisions.catch_up()
                process.deliveries.check()

    def left_over(self) -> list[str]:
        return [message_id for _, message_id in self.processes[0].decisions.outbox.pending]

    def check(self) -> None:
        told = [each.message_id for each in self.world.attempts if each.ok]
        expected = {of_incident(each).message_id for of in self.world.incidents.values() for each in of}
        assert set(told) == expected
        assert self.left_over() == []
        for message_id in expected:
            good = [each for each in self.world.attempts if each.ok and each.message_id == message_id]
            assert all(each.excused for each in good[:-1]), message_id

    async def close(self) -> None:
        for process in self.processes:
            await process.close()


async def story(*steps: Callable[[Group], object]) -> Group:
    """One life of the group, step by step, to its end."""
    group = Group()
    await group.start()
    try:
        for step in steps:
            result = step(group)
            if asyncio.iscoroutine(result):
                await result
        await group.settle()
        group.check()
    finally:
        await group.close()
    return group


def a_turn(group: Group) -> object:
    return turns(40)


async def test_what_is_handed_over_after_the_partition_went_away_is_not_sent_again_by_the_next_restart() -> None:
    """The write of a failed attempt reaches the topic late: the new owner has delivered the message already."""
    group = await story(
        lambda g: g.world.failing.append(500), lambda g: g.hold(0), lambda g: g.incident(0), a_turn,
        lambda g: g.move(0), a_turn, lambda g: g.processes[0].publisher.held.set(),
    )  # fmt: skip
    assert [each.ok for each in group.world.attempts] == [False, True]


async def test_what_was_being_looked_up_when_the_partition_went_away_is_told_by_its_new_owner_alone() -> None:
    """The brief takes longer than the hand-over."""

    def slow(group: Group) -> None:
        gate = asyncio.Event()

        async def prepare(about: Incident, partition: int) -> Notice:
            await gate.wait()
            return of_incident(about)

        group.processes[0].deliveries._prepare = prepare
        group.gate = gate  # type: ignore[attr-defined]

    group = await story(
        slow, lambda g: g.incident(0), a_turn, lambda g: g.move(0), a_turn,
        lambda g: g.gate.set(), a_turn,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert len(group.world.attempts) == 1


async def test_what_another_responder_settled_is_not_sent_when_its_time_comes() -> None:
    group = Group()
    box = group.processes[0].deliveries.mailboxes["a"]
    for number in (1, 2):
        box.resume(HandedOver(
            message_id=f"m{number}", endpoint="a", partition=0, attempts=1, next_at_us=int(3600e6), body="{}",
            thread="t",
        ))  # fmt: skip
    group.processes[0].deliveries.follow(Outbox(), Settled(message_id="m1", endpoint="a", delivered=True))
    assert list(box._parcels) == ["m2"]
    assert [each.message_id for each in box._queue] == ["m2"]  # the next of its thread


_steps = st.one_of(
    st.tuples(st.just("incident"), st.integers(0, 1)),
    st.tuples(st.just("move"), st.integers(0, 1)),
    st.tuples(st.just("hold"), st.integers(0, 1)),
    st.tuples(st.just("fail"), st.integers(1, 4)),
    st.tuples(st.just("slow"), st.integers(0, 40)),
    st.tuples(st.just("turns"), st.integers(0, 60)),
)


async def play(steps: list[tuple[str, int]]) -> None:
    group = Group()
    await group.start()
    try:
        for word, number in steps:
            match word:
                case "incident":
                    group.incident(number)
                case "move":
                    await group.move(number)
                case "hold":
                    group.hold(number)
                case "fail":
                    group.world.failing.extend([500] * number)
                case "slow":
                    group.world.turns = number
                case _:
                    await turns(number)
        await group.settle()
        group.check()
    finally:
        await group.close()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@example(steps=[("incident", 0), ("incident", 0), ("incident", 0), ("move", 1), ("move", 0)])
@example(steps=[("incident", 0), ("fail", 2), ("move", 0), ("hold", 1), ("move", 0)])
@given(steps=st.lists(_steps, max_size=25))
def test_however_partitions_move_every_message_is_told_and_none_is_left_over(steps: list[tuple[str, int]]) -> None:
    asyncio.run(play(steps))
