"""The responder in memory: killed at every effect, two at once, simulated, stopped; the clean run is the oracle."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from pipeline.config.policy import Approver
from pipeline.config.tree import Revocation
from pipeline.ports import Headers
from pipeline.respond.act import Actor, Note, NullActor, unkept
from pipeline.respond.adapters.adapter import Intent, Outcome
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.audit import Positioned
from pipeline.respond.carry import Carrier
from pipeline.respond.delivery.deliver import Deliveries
from pipeline.respond.fence import Networks, NoNetworks
from pipeline.respond.handle import Responder
from pipeline.respond.ladder import Ladder, revocation
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Switched, encode
from schemas.incident import Incident
from schemas.key import Key
from schemas.response import Response
from tests.pipeline.respond.incidents import NOW_S, finding, incident, key, policy
from tests.pipeline.respond.memory_log import Fuse, Killed, MemoryLog, MemoryPublisher, MemoryReader

DECISIONS, RESPONSES = "api.decisions", "api.responses"


@dataclass
class Target:
    """A key service that sets state: the same idempotency key twice is one revocation."""

    revoked: dict[str, set[str]] = field(default_factory=dict)  # key -> idempotency keys it was told
    messages: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class TargetActor:
    """Acts on the target within one process, by its fuse."""

    target: Target
    fuse: Fuse

    async def act(self, intent: Intent, note: Note = unkept) -> Outcome:
        self.fuse.before_effect()
        self.target.revoked.setdefault(intent.key_id, set()).add(intent.act_id)
        self.target.messages.add((intent.response_id, intent.granted_at))
        await asyncio.sleep(0)
        self.fuse.after_effect()
        return Outcome("done", "revoked", "done")


@dataclass
class Catalogue:
    """Declared keys; None is a catalogue that can't be read."""

    keys: dict[str, Key] | None
    active: int = 100

    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        if self.keys is None:
            return None, 0, "no broker"
        return self.keys.get(key_id), self.active, ""

    async def others(self, key: Key) -> tuple[int | None, int | None]:
        return 0, self.active - 1


@dataclass
class World:
    """What outlives processes: the topics, the target, how far incidents are committed."""

    log: MemoryLog = field(default_factory=MemoryLog)
    target: Target = field(default_factory=Target)
    catalogue: Catalogue = field(default_factory=lambda: Catalogue({f"k{i}": key(f"k{i}") for i in range(9)}))
    committed: int = 0
    now_s: float = NOW_S
    killed: str = ""
    networks: Networks = field(default_factory=NoNetworks)

    def lines(self) -> list[Response]:
        return [msgspec.json.decode(value, type=Response) for value in self.log.values(RESPONSES)]

    def stages(self) -> set[tuple[str, int, str, str]]:
        return {(line.key_id, line.revision, line.stage, line.verdict) for line in self.lines()}


def responder_of(world: World, carrier: Carrier, ladder: Ladder, approvers: tuple[Approver, ...] = ()) -> Responder:
    return Responder(
        ladder=ladder, approvers=approvers, matrices={"keys": MATRIX}, carrier=carrier, keys=world.catalogue,
        networks=world.networks, deliveries=Deliveries([]), killed=lambda: world.killed,
    )  # fmt: skip


async def process(
    world: World, incidents: Sequence[Incident], fuse: Fuse | None = None, rules: Revocation | None = None,
    actor: Actor | None = None, name: str = "a", lost: int = 0,
) -> None:  # fmt: skip
    """One process' life: from the committed incident to the end, or until it is killed."""
    fuse = fuse or Fuse()
    publisher = MemoryPublisher(world.log, fuse, lost)
    decisions = Decisions(publisher, MemoryReader(world.log, DECISIONS), DECISIONS, name)
    acting = actor or TargetActor(world.target, fuse)
    carrier = Carrier(RESPONSES, publisher, decisions, lambda: world.now_s, {"keys": acting}, {"keys": acting})
    responder = responder_of(world, carrier, revocation(rules or policy()))
    try:
        await decisions.start()
        for offset in range(world.committed, len(incidents)):
            value = msgspec.json.encode(incidents[offset])
            work = await responder.receive(Positioned(0, offset, world.log.now_us, b"", value))
            await work
            world.committed = offset + 1
    finally:
        await decisions.close()


STORY = (
    incident("k1"),
    incident("k1", revision=2),
    incident("k2", severity="medium"),
    incident("k3"),
    incident("k1", revision=3, change="closed", state="closed"),
    incident("k4"),
    incident("k5"),
)
"""k1, k3 and k4 are acted on, k2 is too light, k5 is beyond the cap of three."""


async def told(*killed_at: tuple[int, bool]) -> World:
    world = World()
    for at, after in killed_at:
        with pytest.raises(Killed):
            await process(world, STORY, Fuse(at, after))
    await process(world, STORY)
    return world


async def test_a_clean_run_acts_within_the_cap_and_records_every_stage() -> None:
    world = await told()
    assert set(world.target.revoked) == {"k1", "k3", "k4"}
    for name in ("k1", "k3", "k4"):
        stages = [(line.stage, line.verdict) for line in world.lines() if line.key_id == name and line.revision == 1]
        assert stages == [("decided", "allowed"), ("acting", "allowed"), ("done", "allowed")]
    refused = {(line.key_id, line.revision): line.reason for line in world.lines() if line.verdict == "refused"}
    assert set(refused) == {("k1", 2), ("k2", 1), ("k5", 1)}
    assert refused["k1", 2].startswith("already_acted")
    assert refused["k2", 1].startswith("policy")
    assert refused["k5", 1].startswith("caps")


async def effects_of_a_clean_run() -> int:
    fuse = Fuse()
    await process(World(), STORY, fuse)
    return fuse.count


async def test_killed_at_any_effect_the_restart_ends_where_the_clean_run_ends() -> None:
    oracle = await told()
    effects = await effects_of_a_clean_run()
    assert effects > 20
    for at in range(effects):
        for after in (False, True):
            world = await told((at, after))
            assert world.target == oracle.target, (at, after)
            assert world.stages() == oracle.stages(), (at, after)


async def test_killed_again_and_again_no_act_is_repeated_under_another_id_or_forgotten() -> None:
    oracle = await told()
    effects = await effects_of_a_clean_run()
    for first in range(0, effects, 3):
        world = await told((first, True), (1, True), (2, False))
        assert world.target == oracle.target, first
        assert world.stages() == oracle.stages(), first


async def test_two_responders_together_stay_within_the_cap() -> None:
    log, target = MemoryLog(), Target()
    incidents = [[incident(f"k{i}") for i in range(start, 8, 2)] for start in (0, 1)]
    worlds = [World(log=log, target=target) for _ in incidents]
    await asyncio.gather(*(process(w, i, name=n) for w, i, n in zip(worlds, incidents, "ab", strict=True)))
    assert len(target.revoked) == 3
    verdicts = Counter(line.verdict for line in worlds[0].lines() if line.stage == "decided")
    assert verdicts == {"allowed": 3, "refused": 5}


async def test_two_responders_with_the_same_incident_tell_the_target_one_id() -> None:
    log, target = MemoryLog(), Target()
    worlds = [World(log=log, target=target) for _ in "ab"]
    await asyncio.gather(*(process(w, [incident("k1")], name=n) for w, n in zip(worlds, "ab", strict=True)))
    assert [len(ids) for ids in target.revoked.values()] == [1]
    assert len(target.messages) == 1


async def test_simulate_never_acts_and_records_what_it_would_have_done_under_the_same_caps() -> None:
    world = World()
    await process(world, STORY, rules=policy(mode="simulate"), actor=NullActor())
    assert world.target.revoked == {}
    simulated = [line.key_id for line in world.lines() if line.verdict == "simulated"]
    assert simulated == ["k1", "k3", "k4"]
    assert {line.stage for line in world.lines()} == {"decided"}


async def test_a_null_actor_leaves_a_failed_act_even_if_the_policy_enforces() -> None:
    world = World()
    await process(world, [incident("k1")], actor=NullActor())
    assert world.target.revoked == {}
    assert world.lines()[-1].stage == "failed"


async def test_an_open_act_older_than_its_life_is_never_carried_out() -> None:
    world = World()
    with pytest.raises(Killed):
        await process(world, [incident("k1")], Fuse(2, False))  # mark, proposal, then dead
    world.now_s += 901

    class Late:
        async def act(self, intent: Intent, note: Note = unkept) -> Outcome:
            assert world.now_s - intent.granted_at_s > 900
            return Outcome("expired", "granted too long ago", "expired")

    await process(world, [incident("k1")], actor=Late())
    assert world.target.revoked == {}
    assert world.lines()[-1].outcome == "granted too long ago"


async def test_a_key_that_became_protected_after_the_grant_is_left_alone() -> None:
    world = World()
    with pytest.raises(Killed):
        await process(world, [incident("k1")], Fuse(2, False))
    world.catalogue.keys = {"k1": key("k1", protected=True)}
    await process(world, [incident("k1")])
    assert world.target.revoked == {}
    assert world.lines()[-1].stage == "failed"


async def test_a_lost_acknowledgement_of_the_proposal_does_not_lose_the_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.respond.ledger.decisions.RETRY_S", 0.0)
    monkeypatch.setattr("pipeline.respond.carry.RETRY_S", 0.0)
    world = World()
    await process(world, [incident("k1")], lost=3)
    assert [len(ids) for ids in world.target.revoked.values()] == [1]
    assert ("k1", 1, "done", "allowed") in world.stages()


@pytest.mark.parametrize("changes", [{"killed": "the file exists"}, {"catalogue": Catalogue(None)},
                                     {"catalogue": Catalogue({"k1": key()}, active=0)}])  # fmt: skip
async def test_nothing_acts_when_stopped_or_when_the_catalogue_or_the_counts_are_unknown(
    changes: dict[str, Any],
) -> None:
    world = World(**changes)
    await process(world, [incident("k1")])
    assert world.target.revoked == {}
    assert world.stages() == {("k1", 1, "decided", "refused")}


async def test_the_kill_switch_on_the_topic_outlives_restarts() -> None:
    world = World()
    world.log.append(DECISIONS, b"", encode(Switched(stop=True, by="ann", reason="drill")))
    await process(world, [incident("k1")])
    assert world.target.revoked == {}
    world.log.append(DECISIONS, b"", encode(Switched(stop=False, by="ann")))
    await process(world, [incident("k1"), incident("k1", revision=2)])
    assert set(world.target.revoked) == {"k1"}


async def test_a_later_revision_with_better_evidence_acts_where_the_first_was_refused() -> None:
    world = World()
    weak = incident("k1", findings=(finding("volume"),))
    await process(world, [weak, incident("k1", revision=2, change="escalated")])
    assert set(world.target.revoked) == {"k1"}


async def test_what_is_no_incident_is_passed_over() -> None:
    world = World()
    decisions = Decisions(MemoryPublisher(world.log), MemoryReader(world.log, DECISIONS), DECISIONS, "a")
    carrier = Carrier(RESPONSES, MemoryPublisher(world.log), decisions, lambda: NOW_S, {})
    responder = responder_of(world, carrier, revocation(policy()))
    await (await responder.receive(Positioned(0, 0, 0, b"", b"{}")))
    assert world.lines() == []


class Both:
    """A broker that acknowledges a key's lines of the audit only once two are on their way."""

    def __init__(self, log: MemoryLog) -> None:
        self._publisher, self._waiting, self._two = MemoryPublisher(log, Fuse()), 0, asyncio.Event()

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        if topic == RESPONSES and not self._two.is_set():
            self._waiting += 1
            if self._waiting == 2:
                self._two.set()
            await self._two.wait()
        return await self._publisher.publish(topic, key, value, headers, partition)


async def test_the_decision_and_that_it_is_acted_on_go_out_together_and_both_before_the_act() -> None:
    world, stages = World(), list[str]()

    class Looks(NullActor):
        async def act(self, intent: Intent, note: Note = unkept) -> Outcome:
            stages.extend(line.stage for line in world.lines())
            return Outcome("done", "revoked", "done")

    publisher = Both(world.log)
    decisions = Decisions(publisher, MemoryReader(world.log, DECISIONS), DECISIONS, "a")
    carrier = Carrier(RESPONSES, publisher, decisions, lambda: world.now_s, {"keys": Looks()})
    responder = responder_of(world, carrier, revocation(policy()))
    await decisions.start()
    try:
        value = msgspec.json.encode(incident())
        async with asyncio.timeout(5):
            await (await responder.receive(Positioned(0, 0, world.log.now_us, b"", value)))
    finally:
        await decisions.close()
    assert sorted(stages) == ["acting", "decided"]
