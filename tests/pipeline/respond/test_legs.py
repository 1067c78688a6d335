"""How long a response takes, leg by leg: each by the moments that it is between, and by nothing that comes after."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from pipeline.metrics import REGISTRY
from pipeline.ports import Headers
from pipeline.respond.act import Note, unkept
from pipeline.respond.adapters.adapter import Intent, Outcome
from pipeline.respond.audit import Positioned
from pipeline.respond.carry import Carrier
from pipeline.respond.ladder import revocation
from pipeline.respond.ledger.decisions import Decisions
from tests.pipeline.respond.enforcement.test_proof import request, watch
from tests.pipeline.respond.enforcement.test_verdicts import a_world
from tests.pipeline.respond.incidents import incident, policy
from tests.pipeline.respond.memory_log import MemoryPublisher, MemoryReader
from tests.pipeline.respond.test_handle import DECISIONS, RESPONSES, World, responder_of

EVENT_TO_INCIDENT_S, WRITE_S, ANSWER_S = 7.0, 0.5, 3.0


@dataclass
class SlowWorld(World):
    """Each write of the responder's takes its time, as does the target."""

    def pass_by(self, seconds: float) -> None:
        self.now_s += seconds
        self.log.now_us += int(seconds * 1e6)

    async def act(self, intent: Intent, note: Note = unkept) -> Outcome:
        self.pass_by(ANSWER_S)
        return Outcome("done", "revoked", "done")


@dataclass
class SlowPublisher(MemoryPublisher):
    """Its records stand on the topic before they are acknowledged."""

    world: SlowWorld | None = None

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        assert self.world
        self.world.pass_by(WRITE_S)
        return await super().publish(topic, key, value, headers, partition)


def lasted() -> dict[str, float]:
    legs = ("event_to_incident", "incident_to_decision", "decision_to_act", "act_to_effect")
    sums = {leg: REGISTRY.get_sample_value("keywatch_response_seconds_sum", {"leg": leg}) for leg in legs}
    return {leg: length_s or 0.0 for leg, length_s in sums.items()} | {"whole": whole()}


def whole() -> float:
    return REGISTRY.get_sample_value("keywatch_end_to_end_seconds_sum", {"to": "act"}) or 0.0


async def test_each_leg_of_a_response_is_as_long_as_it_took() -> None:
    before, world = lasted(), SlowWorld()
    world.pass_by(EVENT_TO_INCIDENT_S - 5)  # the newest evidence is from 5 s before the start
    decisions = Decisions(SlowPublisher(world.log, world=world), MemoryReader(world.log, DECISIONS), DECISIONS, "a")
    carrier = Carrier(RESPONSES, decisions.publisher, decisions, lambda: world.now_s, {"keys": world})
    responder = responder_of(world, carrier, revocation(policy()))
    told = Positioned(0, 0, world.log.now_us, b"", msgspec.json.encode(incident()))
    await decisions.start()
    await (await responder.receive(told))
    await decisions.close()
    async with a_world() as shown, shown.verdicts() as verdicts:
        await shown.show(verdicts, request(60.0, 403), of=watch())
    after = lasted()
    took = {leg: after[leg] - before[leg] for leg in after}
    starting, proposing, saying, beginning = (WRITE_S,) * 4  # then the target; closing it is two more
    assert took == pytest.approx({
        "event_to_incident": EVENT_TO_INCIDENT_S,
        "incident_to_decision": starting + proposing,
        "decision_to_act": saying + beginning + ANSWER_S,
        "act_to_effect": 60.0,
        "whole": EVENT_TO_INCIDENT_S + starting + proposing + saying + beginning + ANSWER_S,
    }, abs=0.01)  # fmt: skip
