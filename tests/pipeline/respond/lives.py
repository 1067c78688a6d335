"""Responders in memory, whole: incidents, caretaker, the real loop of acts, and a gateway whose state outlives them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.config.policy import Approver, Caps, Policy, Rule
from pipeline.errors import Retry
from pipeline.keys.catalogue import Catalogue as Declared
from pipeline.keys.rotations import Begun, Rotation
from pipeline.respond.act import Acting
from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, TryAgain
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.audit import Positioned
from pipeline.respond.caretaker import Caretaker, due
from pipeline.respond.carry import Carrier
from pipeline.respond.desk import Desk
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Noted, Record, decode, encode
from pipeline.respond.night.drills import DrillBook
from pipeline.respond.night.night import Books
from pipeline.respond.responder import Undoer
from pipeline.respond.rotation.drain import Drain
from schemas.incident import Incident
from tests.pipeline.respond.incidents import finding, incident
from tests.pipeline.respond.memory_log import Fuse, Killed, MemoryPublisher, MemoryReader
from tests.pipeline.respond.people import BOTH
from tests.pipeline.respond.test_handle import DECISIONS, RESPONSES, World, responder_of

NETWORKS = ("192.0.2.0/24",)
SUSPEND_S = 1800.0
WAS = "was open"
POLICY = Policy(
    mode="enforce", adapter="keys", caps=Caps(max_share_of_active=0.5), fence_caps=Caps(max_share_of_active=0.5),
    proof_caps=Caps(max_per_hour=2, max_share_of_active=0.5), settle_s=0.0, breaker_owners=4, max_per_owner=0,
)  # fmt: skip
RULES = (
    Rule(name="sure", rung="revoke", proof="only", min_severity="medium"),
    Rule(name="grave", rung="suspend", min_severity="critical", duration_s=SUSPEND_S),
    Rule(name="odd", rung="fence", otherwise=("suspend",), duration_s=3600.0),
    Rule(name="slight", rung="flag", min_severity="medium", approvals=2, duration_s=0.0),
)


@dataclass(frozen=True)
class Effect:
    """One thing that the gateway did."""

    at_us: int
    intent: Intent
    protected: bool
    stopped: bool
    noted: bool  # what was before stands on the topic


@dataclass
class Gateway:
    """Holds what is set on each key; `mood`: ok, fails, or deaf (does it and never answers)."""

    set_on: dict[tuple[str, str], str] = field(default_factory=dict)  # (key, rung) -> by which act
    effects: list[Effect] = field(default_factory=list)
    mood: str = "ok"


@dataclass
class Usual:
    """ClickHouse: every key was used from the same network."""

    async def usual(self, key_id: str, before_us: int) -> tuple[tuple[str, ...], str]:
        return NETWORKS, ""


class Nowhere:
    """ClickHouse: it is away."""

    def look(self, catalogue: Declared, begun: tuple[Begun, ...]) -> tuple[int, list[Rotation]]:
        raise Retry("away")


@dataclass
class Lives(World):
    """What outlives processes: topics, gateway, catalogue, how far each partition is committed."""

    gateway: Gateway = field(default_factory=Gateway)
    incidents: dict[int, list[Incident]] = field(default_factory=lambda: {0: [], 1: []})
    done: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    ladder: Ladder = field(default_factory=lambda: Ladder(POLICY, RULES))
    approvers: tuple[Approver, ...] = BOTH
    pages: list[Incident] = field(default_factory=list)

    def advance(self, seconds: float) -> None:
        self.log.now_us += int(seconds * 1e6)
        self.now_s += seconds

    def say(self, record: Record) -> None:
        self.log.append(DECISIONS, b"", encode(record))

    def noted(self, intent: Intent) -> bool:
        """Whether a record on the topic says what was before this act."""
        records = map(decode, self.log.values(DECISIONS))
        return any(isinstance(each, Noted) and each.response_id == intent.response_id for each in records)

    def open(self, key_id: str, revision: int = 1, **changes: Any) -> None:
        """An incident of this moment, on the key's partition."""
        ago_s = 1_795_000_000.0 - self.log.now_us / 1e6 + 5
        found = (finding("network", ago_s=ago_s), finding("outcome", ago_s=ago_s))
        values: dict[str, Any] = {"findings": found, "owner": f"owner-{key_id}"}
        made = incident(key_id, revision=revision, **(values | changes))
        self.incidents[int(key_id[-1]) % 2].append(made)


@dataclass
class Process:
    """One responder's parts."""

    world: Lives
    name: str
    partitions: frozenset[int]
    fuse: Fuse
    skew_s: float

    def __post_init__(self) -> None:
        log = self.world.log
        publisher = MemoryPublisher(log, self.fuse)
        self.decisions = Decisions(publisher, MemoryReader(log, DECISIONS), DECISIONS, self.name)
        do, undo = Acting(self, self.killed, self.now_s, self.sleep), Acting(self, str, self.now_s, self.sleep)
        carrier = Carrier(RESPONSES, publisher, self.decisions, self.now_s, {"keys": do}, {"keys": Undoer(undo)},
            ladder=self.world.ladder, approvers=self.world.approvers)  # fmt: skip
        self.responder = responder_of(self.world, carrier, self.world.ladder, self.world.approvers)
        self.responder.networks = Usual()
        drills = DrillBook()
        self.decisions.followers.append(drills.apply)
        self.caretaker = Caretaker(carrier, self.world.catalogue, self.page, self.partitions, drills)
        self.drain = Drain(
            carrier, self.world.ladder, self.world.catalogue, Books(), Nowhere(), lambda: None, {"keys": MATRIX},
            lambda: self.world.killed, str,
        )  # fmt: skip

    matrix = MATRIX

    def now_s(self) -> float:
        return self.world.log.now_us / 1e6 + self.skew_s

    async def sleep(self, delay_s: float) -> None:
        self.skew_s += delay_s
        await asyncio.sleep(0)

    def killed(self) -> str:
        return self.world.killed or self.decisions.ledger.held

    async def page(self, message: Incident) -> None:
        self.fuse.before_effect()
        self.world.pages.append(message)
        self.fuse.after_effect()

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        """The gateway. It holds no mark of ours: what was there must be noted first."""
        gateway, spot = self.world.gateway, (intent.key_id, intent.rung)
        if gateway.mood == "fails":
            return Outcome("failed", "no", "failed")
        if intent.direction == "apply" and intent.rung != "revoke" and not intent.before:
            return NoteFirst(WAS)
        self.fuse.before_effect()
        declared = (self.world.catalogue.keys or {}).get(intent.key_id)
        protected = declared is None or declared.protected
        stopped, noted = bool(self.killed()), self.world.noted(intent)
        gateway.effects.append(Effect(self.world.log.now_us, intent, protected, stopped, noted))
        if intent.direction == "undo":
            gateway.set_on.pop(spot, None)
        else:
            gateway.set_on[spot] = intent.act_id
        await asyncio.sleep(0)
        self.fuse.after_effect()
        return TryAgain("gave no answer") if gateway.mood == "deaf" else Outcome(
            "done", "done", "done", intent.before, f"{intent.key_id}-new" if intent.rung == "rotate" else ""
        )  # fmt: skip

    async def check(self) -> list[str]:
        return []

    async def handle(self, partition: int) -> None:
        """The partition's incidents from the commit on, one after the other."""
        world = self.world
        while world.done[partition] < len(world.incidents[partition]):
            offset = world.done[partition]
            value = msgspec.json.encode(world.incidents[partition][offset])
            await (await self.responder.receive(Positioned(partition, offset, world.log.now_us, b"", value)))
            world.done[partition] = max(world.done[partition], offset + 1)

    async def care(self) -> None:
        """Rounds until nothing is due any more."""
        for _ in range(40):
            if 0 in self.partitions:
                await self.drain.end_overlaps()
            await self.caretaker.round()
            busy = list(self.caretaker._busy.values())
            if busy:
                await asyncio.wait(busy)
            self.caretaker._collect()
            if not list(due(self.decisions.ledger, self.partitions)):
                return
        await self.caretaker.round()  # raises what keeps it from an end


async def live(
    world: Lives, name: str = "a", partitions: Sequence[int] = (0, 1), fuse: Fuse | None = None, skew_s: float = 0.0,
    kind: type[Process] = Process,
) -> bool:  # fmt: skip
    """One process' life: all incidents, then all that is due. False if it was killed."""
    process = kind(world, name, frozenset(partitions), fuse or Fuse(), skew_s)
    survived = True
    try:
        await process.decisions.start()
        await process.responder.note_policy()
        async with asyncio.TaskGroup() as group:
            for partition in partitions:
                group.create_task(process.handle(partition))
        await process.care()
    except* Killed:
        survived = False
    finally:
        await process.caretaker.close()
        await process.decisions.close()
    return survived


async def at_desk(world: Lives, person: str = "ann") -> Desk:
    """A desk that has read the topic; close its decisions after use."""
    decisions = Decisions(MemoryPublisher(world.log), MemoryReader(world.log, DECISIONS), DECISIONS, f"{person}-desk")
    await decisions.start()
    return Desk(decisions, person)


async def standing(world: Lives) -> list[Act]:
    """What the topic says stands."""
    desk = await at_desk(world)
    acts = desk.in_force()
    await desk.decisions.close()
    return acts
