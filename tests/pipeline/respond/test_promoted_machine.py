"""No sequence of incidents, promotions, demotions, crashes and restarts makes an act by itself above what was earned.

The machine of `test_machine.py`, all of whose promises hold here as well, with a policy that asks for promotion.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from pipeline.respond import approval
from pipeline.respond.caretaker import KEEP_US
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.entries import Promoted, Proposed, Signed, decode
from pipeline.respond.promotion.earned import REVIEW, STAGES, Stage, earned
from pipeline.respond.promotion.review import Review, Wrong
from tests.pipeline.respond.incidents import key
from tests.pipeline.respond.lives import POLICY, RULES, Lives, Process, live
from tests.pipeline.respond.memory_log import Fuse
from tests.pipeline.respond.people import ANN, BOB, BOTH, EVE, Person
from tests.pipeline.respond.test_handle import DECISIONS, Catalogue
from tests.pipeline.respond.test_machine import Responders

REQUIRED = msgspec.structs.replace(POLICY, promotion="required", promotion_approvals=2)


class Promoting(Responders):
    """The same world; people take steps, with and without what they need."""

    def __init__(self) -> None:
        super().__init__()
        self.world.ladder = Ladder(REQUIRED, RULES)
        self.count = 0

    def take(self, to: Stage, override: bool = False, back: bool = False) -> Promoted:
        self.count += 1
        now_us, nonce = self.world.log.now_us, str(self.count)
        record = Promoted(to=to, by="ann", reason="", override=override, nonce=nonce, asked_us=0 if back else now_us)
        self.world.say(record)
        return record

    @initialize(to=st.sampled_from(STAGES), person=st.sampled_from([ANN, EVE, None]))
    def first(self, to: Stage, person: Person | None) -> None:
        self.a_step(to, person)

    @rule(to=st.sampled_from(STAGES), person=st.sampled_from([ANN, BOB, EVE, None]))
    def a_step(self, to: Stage, person: Person | None) -> None:
        record = self.take(to)
        if person:
            self.world.say(person.says(record.ticket))

    @rule(to=st.sampled_from(STAGES))
    def a_step_back(self, to: Stage) -> None:
        self.take(to, back=True)

    @rule(to=st.sampled_from(STAGES), people=st.lists(st.sampled_from([ANN, BOB, EVE]), max_size=3))
    def an_override(self, to: Stage, people: list[Any]) -> None:
        record = self.take(to, override=True)
        for person in people:
            self.world.say(person.says(record.ticket))

    @rule()
    def three_days_later(self) -> None:
        self.world.advance(KEEP_US / 1e6 + 60)
        self.one_responder(None)

    def allowed_at_each_proposal(self) -> dict[str, bool]:
        """Of each act that nobody approved: whether the stage of that place on the topic has its rung, ever."""
        steps, allowed = list[tuple[Promoted, set[str]]](), dict[str, bool]()
        for record in self.records():
            if isinstance(record, Promoted) and not record.again:
                steps.append((record, set()))
            elif isinstance(record, Signed) and approval.is_genuine(record, BOTH):
                for of, people in steps:
                    if of.ticket == record.ticket:
                        people.add(record.person)
            elif isinstance(record, Proposed) and not record.simulated and not record.approvals:
                may = record.rung in earned(self.held(steps), record.cap == "proof")
                allowed[record.act_id] = allowed.get(record.act_id, False) or may
        return allowed

    def held(self, steps: list[tuple[Promoted, set[str]]]) -> Stage:
        stage: Stage = "simulate"
        for of, people in steps:
            stands = of.asked_us and len(people) >= (2 if of.override else 1) and (of.override or of.to != "revoke")
            stage = of.to if stands or STAGES.index(of.to) < STAGES.index(stage) else stage
        return stage

    @invariant()
    def nothing_is_done_by_itself_above_what_was_earned(self) -> None:
        allowed, approved = self.allowed_at_each_proposal(), self.approvals()
        for effect in self.applied:
            assert approved[effect.intent.response_id] or allowed[effect.intent.act_id]


Promoting.TestCase.settings = settings(max_examples=25, stateful_step_count=20, suppress_health_check=list(HealthCheck))
TestPromoting = Promoting.TestCase


@pytest.fixture
def world() -> Lives:
    names = {f"k{i}": key(f"k{i}", owner=f"owner-k{i}") for i in range(9)}
    return Lives(catalogue=Catalogue(names), ladder=Ladder(REQUIRED, RULES))


def promote(world: Lives, to: Stage) -> None:
    """Earned, and signed by two."""
    record = Promoted(to=to, by="ann", reason="", asked_us=world.log.now_us)
    world.say(record)
    for person in (ANN, BOB):
        world.say(person.says(record.ticket))


def decided(world: Lives) -> list[tuple[str, str, str]]:
    return [
        (line.key_id, line.rung, line.verdict) for line in world.lines() if line.stage == "decided" and not line.switch
    ]


async def test_stage_by_stage_acts_begin(world: Lives) -> None:
    world.open("k1", severity="high")
    assert await live(world)
    assert world.gateway.set_on == {}
    (line,) = [line for line in world.lines() if line.verdict == "refused"]
    assert line.reason.startswith("not_promoted: fence by itself was not earned, nothing is earned yet")
    promote(world, "fence")
    world.open("k2", severity="high")
    world.open("k3")
    assert await live(world)
    assert set(world.gateway.set_on) == {("k2", "fence")}
    promote(world, "suspend")
    world.open("k4")
    assert await live(world)
    assert set(world.gateway.set_on) == {("k2", "fence"), ("k4", "suspend")}
    assert decided(world)[-1] == ("k4", "suspend", "allowed")


async def test_a_milder_rung_that_is_earned_is_taken_where_the_rule_allows_it(world: Lives) -> None:
    rule = msgspec.structs.replace(RULES[1], otherwise=("fence",))
    world.ladder = Ladder(REQUIRED, (rule,))
    promote(world, "fence")
    world.open("k1")
    assert await live(world)
    assert set(world.gateway.set_on) == {("k1", "fence")}


@pytest.mark.parametrize("effects", range(8))
async def test_what_was_granted_before_a_crash_is_not_done_once_it_is_not_earned_any_more(
    world: Lives, effects: int
) -> None:
    promote(world, "suspend")
    world.open("k1")
    survived = await live(world, fuse=Fuse(effects, False))
    before = len(world.gateway.effects)
    world.say(Promoted(to="simulate", by="ann", reason="wrong"))
    assert await live(world)
    assert len(world.gateway.effects) == before
    granted = [line for line in world.lines() if line.verdict == "allowed" and not line.switch]
    assert survived or before or not granted or granted[-1].stage == "failed"


@pytest.mark.parametrize("late_s", [0.0, 700.0], ids=["fresh", "stale"])
async def test_what_was_refused_is_judged_anew_after_a_kill_by_what_holds_then_and_only_on_fresh_evidence(
    late_s: float,
) -> None:
    done = set[tuple[bool, bool]]()
    for effects in range(12):
        world = Lives(catalogue=Catalogue({"k1": key("k1")}), ladder=Ladder(REQUIRED, RULES))
        world.open("k1")
        survived = await live(world, fuse=Fuse(effects, False))
        promote(world, "suspend")
        world.advance(late_s)
        assert await live(world)
        done.add((survived, bool(world.gateway.set_on)))
        assert len(world.gateway.effects) <= 1
    assert done == {(True, False), (False, not late_s)}


async def test_where_a_stage_is_advised_only_proposals_say_nothing_of_it_so_that_older_responders_name_them_the_same(
    world: Lives,
) -> None:
    world.ladder = Ladder(msgspec.structs.replace(REQUIRED, promotion="advised"), RULES)
    world.open("k1")
    assert await live(world)
    records = [decode(value) for value in world.log.values(DECISIONS)]
    (made,) = [record for record in records if isinstance(record, Proposed)]
    assert (made.promotion_required, made.promotion_approvals) == (False, 0)


async def test_a_revoke_stage_that_calls_itself_earned_is_no_step_and_the_audit_says_so(world: Lives) -> None:
    world.say(Promoted(to="revoke", by="mallory", reason=""))
    world.open("k1")
    assert await live(world)
    assert world.gateway.set_on == {}
    (line,) = [line for line in world.lines() if line.switch == "promote"]
    assert (line.verdict, "never earned" in line.reason) == ("refused", True)


class Said:
    """What people say of acts."""

    def __init__(self, *wrong: Wrong) -> None:
        self.wrong, self.asked = list(wrong), list[str]()

    def since(self, step: Any) -> list[Wrong]:
        self.asked.append(step.record.to)
        if not self.wrong:
            raise OSError("no ClickHouse")
        return self.wrong


WRONG = Wrong(incident_id="i1", rung="suspend", verdict="allowed")


async def looked(world: Lives, said: Said, times: int = 1) -> None:
    process = Process(world, "reviewer", frozenset({0, 1}), Fuse(), 0.0)
    await process.decisions.start()
    review = Review(process.responder.carrier, world.ladder, said)
    for _ in range(times):
        await review.look()
    await process.caretaker.close()
    await process.decisions.close()


async def test_a_wrong_act_takes_one_stage_back_each_time_it_is_found(world: Lives) -> None:
    promote(world, "suspend")
    said = Said(WRONG)
    await looked(world, said, times=4)
    assert said.asked == ["suspend", "fence"]
    world.open("k1", severity="high")
    world.log.moved = asyncio.Event()
    assert await live(world)
    assert world.gateway.set_on == {}
    backs = [line for line in world.lines() if line.switch == "promote" and line.by == REVIEW]
    assert len(backs) == 2
    assert "suspend for incident i1 was done by itself, and was expected" in backs[0].reason


async def test_while_nobody_can_say_whether_acts_were_wrong_the_stage_stays(world: Lives) -> None:
    promote(world, "suspend")
    await looked(world, Said(), times=2)
    world.open("k1")
    world.log.moved = asyncio.Event()
    assert await live(world)
    assert set(world.gateway.set_on) == {("k1", "suspend")}
