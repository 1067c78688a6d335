"""What goes on without an incident: approvals, timed ends and undos, whoever was killed in between."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config.policy import Rule
from pipeline.errors import ConfigError
from pipeline.metrics import REGISTRY
from pipeline.respond import approval, desk
from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, TryAgain
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.caps import DAY_US, Counts
from pipeline.respond.caretaker import KEEP_US
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.entries import (
    Finished,
    Joined,
    Kept,
    Promoted,
    Proposed,
    Raised,
    Record,
    Reset,
    Simulating,
    Switched,
    Undo,
    content_of,
    decode,
    encode,
    group_of,
)
from pipeline.respond.ledger.forgotten import BY
from pipeline.respond.ledger.ledger import Ledger
from pipeline.respond.night.drills import DrillBook
from pipeline.respond.night.records import DrillEnded, DrillStarted
from pipeline.respond.promotion.earned import Who
from pipeline.sinks.topics import DECISIONS_CONFIG
from schemas.response import Response
from tests.pipeline.respond.incidents import finding, key
from tests.pipeline.respond.ledger.test_ledger import finished, proposed
from tests.pipeline.respond.lives import (
    NETWORKS,
    POLICY,
    RULES,
    SUSPEND_S,
    Lives,
    Process,
    Usual,
    at_desk,
    live,
    standing,
)
from tests.pipeline.respond.memory_log import Fuse
from tests.pipeline.respond.people import ANN, BOB, BOTH, EVE
from tests.pipeline.respond.test_handle import DECISIONS, Catalogue


@pytest.fixture
def world() -> Lives:
    return Lives(catalogue=Catalogue({f"k{i}": key(f"k{i}", owner=f"owner-k{i}") for i in range(9)}))


def words(world: Lives, key_id: str) -> list[tuple[str, str, str, str]]:
    return [(x.rung, x.direction, x.stage, x.verdict) for x in world.lines() if x.key_id == key_id]


def last(world: Lives) -> Response:
    return world.lines()[-1]


async def test_a_suspension_ends_by_itself_and_restores_what_was(world: Lives) -> None:
    world.open("k1")
    assert await live(world)
    assert world.gateway.set_on.keys() == {("k1", "suspend")}
    world.advance(SUSPEND_S - 5)
    await live(world)
    assert ("k1", "suspend") in world.gateway.set_on
    world.advance(6)
    await live(world)
    assert world.gateway.set_on == {}
    undo = world.gateway.effects[-1].intent
    assert (undo.direction, undo.before) == ("undo", "was open")
    assert (last(world).direction, last(world).stage, last(world).by) == ("undo", "done", "time")
    assert last(world).before_hash
    assert last(world).until


async def test_a_fence_goes_on_from_the_networks_it_was_used_from(world: Lives) -> None:
    world.open("k1", severity="high")
    await live(world)
    (effect,) = world.gateway.effects
    assert (effect.intent.rung, effect.intent.networks) == ("fence", NETWORKS)


async def test_an_incident_that_becomes_graver_climbs_the_ladder_and_the_fence_still_ends(world: Lives) -> None:
    world.open("k1", severity="high")
    await live(world)
    world.open("k1", revision=2, change="escalated")
    await live(world)
    assert set(world.gateway.set_on) == {("k1", "fence"), ("k1", "suspend")}
    world.advance(7200)
    await live(world)
    assert world.gateway.set_on == {}


async def test_a_graver_revision_is_judged_though_an_earlier_ones_act_was_still_to_be_carried_out() -> None:
    odd = Rule(name="odd", rung="fence", approvals=1, duration_s=3600.0)
    world = Lives(ladder=Ladder(POLICY, (RULES[1], odd)))
    world.open("k1", severity="high")
    await live(world)
    ticket = next(line.ticket for line in world.lines() if line.ticket)
    world.say(ANN.says(ticket))  # granted now, while no responder runs
    world.open("k1", revision=2, change="escalated")
    await live(world)
    assert set(world.gateway.set_on) == {("k1", "fence"), ("k1", "suspend")}


async def test_an_act_by_hand_on_a_revision_does_not_decide_what_the_policy_makes_of_it(world: Lives) -> None:
    by_hand = proposed("k1", incident_id="incident-k1", rung="flag", act_id="by-hand", adapter="keys", partition=1,
        revision=1, approvals=1, approvers=(ANN.approver,))  # fmt: skip
    group = group_of([content_of(by_hand)], "flag", "n")
    world.say(desk.bulked([by_hand], group, "n", "ann"))
    world.say(msgspec.structs.replace(by_hand, group=group))
    world.say(ANN.says(group))
    world.open("k1")
    await live(world)
    assert set(world.gateway.set_on) == {("k1", "flag"), ("k1", "suspend")}


async def effects_until_the_end() -> tuple[Lives, int]:
    """A suspension and its end, in two lives; how many effects the second one has."""
    world = Lives()
    world.open("k1")
    await live(world)
    world.advance(SUSPEND_S + 1)
    fuse = Fuse()
    await live(world, fuse=fuse)
    return world, fuse.count


async def test_killed_at_any_effect_the_end_is_neither_forgotten_nor_told_under_another_id() -> None:
    oracle, effects = await effects_until_the_end()
    assert 5 < effects < 20
    killed = 0
    for at in range(effects):
        for after in (False, True):
            world = Lives()
            world.open("k1")
            await live(world)
            world.advance(SUSPEND_S + 1)
            killed += not await live(world, fuse=Fuse(at, after))
            assert await live(world, name="b")
            assert world.gateway.set_on == {}
            assert world.stages() == oracle.stages(), (at, after)
            ids = {each.intent.act_id for each in world.gateway.effects}
            assert ids == {each.intent.act_id for each in oracle.gateway.effects}
    assert killed > effects


async def test_a_responders_wrong_clock_neither_ends_it_early_nor_keeps_it(world: Lives) -> None:
    world.open("k1")
    await live(world)
    await live(world, skew_s=10 * SUSPEND_S)
    assert ("k1", "suspend") in world.gateway.set_on
    world.advance(SUSPEND_S + 1)
    await live(world, skew_s=-5 * SUSPEND_S)
    assert world.gateway.set_on == {}


async def test_what_the_gateway_did_without_answering_ends_in_time_too(world: Lives) -> None:
    world.gateway.mood = "deaf"
    world.open("k1")
    await live(world)
    assert (last(world).stage, last(world).outcome.split(",")[0]) == ("failed", "granted more than 900 s ago")
    assert ("k1", "suspend") in world.gateway.set_on
    world.gateway.mood = "ok"
    world.advance(SUSPEND_S + 1)
    await live(world)
    assert world.gateway.set_on == {}


async def test_a_failed_undo_is_tried_again_until_it_works(world: Lives) -> None:
    world.open("k1")
    await live(world)
    world.advance(SUSPEND_S + 1)
    world.gateway.mood = "fails"
    for _ in range(6):
        await live(world)
        world.advance(3601)
    world.gateway.mood = "ok"
    await live(world)
    assert world.gateway.set_on == {}


async def test_a_person_undoes_it_and_it_is_not_done_again_by_itself(world: Lives) -> None:
    world.open("k1", severity="high")
    await live(world)
    mine = await at_desk(world)
    (act,) = mine.in_force()
    (found,) = mine.undoable(act.proposal.response_id[:10])
    verdict = await mine.undo(found, "our own deploy")
    assert verdict.granted
    await mine.decisions.close()
    await live(world)
    world.open("k1", revision=2, change="extended", severity="high")
    await live(world)
    assert world.gateway.set_on == {}
    assert ("fence", "undo", "done", "allowed") in words(world, "k1")
    assert {x.by for x in world.lines() if x.direction == "undo"} == {"ann"}
    refused = [x.reason for x in world.lines() if x.verdict == "refused"]
    assert [reason for reason in refused if reason.startswith("undone: ann undid")]


async def test_the_kill_switch_stops_acts_and_no_undo(world: Lives) -> None:
    world.open("k1")
    await live(world)
    world.say(Switched(stop=True, by="ann", reason="drill"))
    world.open("k2")
    world.advance(SUSPEND_S + 1)
    await live(world)
    assert world.gateway.set_on == {}
    assert {each.intent.key_id for each in world.gateway.effects} == {"k1"}


async def test_under_the_simulate_switch_all_is_decided_and_nothing_is_done_in_any_life(world: Lives) -> None:
    world.open("k1")
    await live(world)
    world.say(Simulating(on=True, by="ann", reason="new rules"))
    world.open("k2")
    await live(world)
    world.advance(SUSPEND_S + 1)
    world.open("k4")
    await live(world, name="b")
    assert world.gateway.set_on == {}
    assert {each.intent.key_id for each in world.gateway.effects} == {"k1"}
    assert {(x.key_id, x.verdict) for x in world.lines() if x.key_id != "k1"} == {
        ("k2", "simulated"), ("k4", "simulated"), ("*", "allowed"),
    }  # fmt: skip
    world.say(Simulating(on=False, by="ann"))
    world.open("k6")
    await live(world)
    assert world.gateway.set_on.keys() == {("k6", "suspend")}


async def test_what_was_granted_before_the_simulate_switch_and_not_yet_sent_is_not_sent(world: Lives) -> None:
    protect(world, "k1")
    world.open("k1")
    await live(world)
    world.say(ANN.says(last(world).ticket))
    world.say(Simulating(on=True, by="ann", reason="new rules"))
    await live(world)
    assert world.gateway.effects == []
    assert "put to simulate by ann" in last(world).outcome


async def test_the_switches_are_said_again_before_the_topic_forgets_them(world: Lives) -> None:
    world.say(Switched(stop=True, by="ann", reason="drill"))
    world.say(Simulating(on=True, by="bea", reason="new rules"))
    world.advance(3 * 86_400 + 1)
    world.open("k1")  # something moves the broker's clock
    await live(world)
    await live(world)
    said = [decode(record.value) for record in world.log.topics[DECISIONS][2:]]
    assert [each for each in said if isinstance(each, Switched)] == [
        Switched(stop=True, by="ann", reason="drill", again=True)
    ]
    assert [each for each in said if isinstance(each, Simulating)] == [
        Simulating(on=True, by="bea", reason="new rules", again=True)
    ]
    assert [line.switch for line in world.lines() if line.switch] == ["stop", "simulate"], "said once"


async def test_what_people_say_to_all_responders_is_in_the_audit_for_ever(world: Lives) -> None:
    caps = Raised(
        cap="fence", max_per_hour=9, max_per_day=9, max_share_of_active=0.5, until_us=world.log.now_us, by="ann",
        reason="outbreak",
    )  # fmt: skip
    said = (
        Switched(stop=True, by="ann", reason="drill"), Switched(stop=False, by="bob"),
        Simulating(on=True, by="eve", reason="new"), Simulating(on=False, by="eve"), caps, ANN.says(caps.ticket),
        EVE.says(caps.ticket), Reset(by="bob", reason="known"),
    )  # fmt: skip
    for record in said:
        world.say(record)
    fuse = Fuse()
    assert await live(Lives(log=deepcopy(world.log), catalogue=world.catalogue), fuse=fuse)
    for at in range(fuse.count):  # killed anywhere, none is missing and none has another id
        again = Lives(log=deepcopy(world.log), catalogue=world.catalogue)
        await live(again, fuse=Fuse(at, True))
        assert await live(again)
        lines = {line.response_id: line for line in again.lines()}
        assert [(line.switch, line.by, line.verdict) for line in lines.values()] == [
            ("stop", "ann", "allowed"), ("go_on", "bob", "allowed"), ("simulate", "eve", "allowed"),
            ("enforce", "eve", "allowed"), ("raise_caps", "ann", "waiting"), ("sign_raise", "ann", "allowed"),
            ("sign_raise", "eve", "refused"), ("close_breaker", "bob", "allowed"),
        ]  # fmt: skip
        assert {(line.key_id, line.incident_id, line.rung) for line in lines.values()} == {("*", "", "observe")}
        before = len(again.lines())
        assert await live(again)
        assert len(again.lines()) == before
    reasons = [line.reason for line in lines.values()]
    assert reasons[:2] == ["ann stops all acts: drill", "bob lets acts go on: no reason"]
    assert "9 keys an hour" in reasons[4]


RETENTION_DAYS = int(DECISIONS_CONFIG["retention.ms"]) / 86_400_000


@pytest.mark.parametrize("absent_days", [5.0, RETENTION_DAYS - KEEP_US / DAY_US - 0.1])
async def test_what_stands_outlives_weeks_without_any_responder(world: Lives, absent_days: float) -> None:
    """Acts that were to end, those that end by themselves later, the kill switch, and a step that was signed."""
    fence = proposed("k1", rung="fence", act_id="f", response_id="f", adapter="keys", duration_s=5 * 86_400.0)
    flag = proposed("k2", rung="flag", act_id="g", response_id="g", adapter="keys")
    step = Promoted(to="fence", by="ann", reason="", asked_us=world.log.now_us)
    stop = Switched(stop=True, by="ann")
    for record in (fence, finished(fence), flag, finished(flag), step, ANN.says(step.ticket), stop):
        world.say(record)
    for _ in range(4):
        await live(world)
        world.advance(86_400)
    forget(world, RETENTION_DAYS)
    world.advance(absent_days * 86_400)
    forget(world, RETENTION_DAYS)
    assert await live(world)
    assert [(each.intent.key_id, each.intent.direction) for each in world.gateway.effects] == [("k1", "undo")]
    desk = await at_desk(world)
    assert [act.proposal.key_id for act in desk.in_force()] == ["k2"]
    assert desk.ledger.stopped is not None
    assert desk.ledger.promotions.stage(Who.of(POLICY, BOTH)) == "fence"
    await desk.decisions.close()


async def test_when_a_drill_last_passed_is_not_forgotten_either(world: Lives) -> None:
    began_us = world.log.now_us
    world.say(DrillStarted(drill_id="d1", key_id="k8", at_us=began_us, limit_s=60, act=False, by="ann"))
    world.say(DrillEnded(drill_id="d1", passed=True, words="seen after 1.4 s"))
    for _ in range(4):
        world.advance(3 * 86_400 + 60)
        await live(world)
        await live(world)
        forget(world, days=7)
    book = DrillBook()
    for entry in world.log.topics[DECISIONS]:
        book.apply(entry.timestamp_us, decode(entry.value))
    assert (book.drills, book.last_passed_us) == ({}, began_us)


SETTLING = msgspec.structs.replace(POLICY, settle_s=600.0)


def opened(world: Lives, key_id: str, build: str = "c1") -> None:
    world.open(key_id, config_version=build, geo_build="g1")


async def acted_on(world: Lives, key_id: str, build: str = "c1") -> bool:
    """What a new process does with an incident of this build on this key."""
    opened(world, key_id, build)
    await live(world)
    settled = [guard for guard in decided(world, key_id).guards if guard.guard == "settled"]
    assert [guard.passed for guard in settled] == [(key_id, "suspend") in world.gateway.set_on]
    return settled[0].passed


def decided(world: Lives, key_id: str) -> Response:
    return [line for line in world.lines() if line.key_id == key_id and line.stage == "decided"][-1]


async def test_nothing_is_done_just_after_another_build_of_any_partition_or_other_rules(world: Lives) -> None:
    world.ladder = Ladder(SETTLING, RULES)
    assert await acted_on(world, "k1"), "the first start ever is no change"
    assert not await acted_on(world, "k2", "c2"), "a partition of which nothing was heard"
    world.advance(601)
    assert await acted_on(world, "k4", "c2")
    world.ladder = Ladder(SETTLING, (RULES[1], *RULES))
    world.advance(10)
    await live(world)  # the responder starts with other rules
    world.advance(400)
    assert not await acted_on(world, "k6", "c2")
    world.advance(200)
    assert await acted_on(world, "k8", "c2"), "counted from the start, not from the next incident"


async def test_by_what_was_judged_is_not_forgotten_with_the_topics_past(world: Lives) -> None:
    world.ladder = Ladder(SETTLING, RULES)
    assert await acted_on(world, "k1")
    for _ in range(4):
        world.advance(3 * 86_400 + 60)
        await live(world)
        await live(world)
        forget(world, days=7)
    assert not await acted_on(world, "k3", "c2"), "another database after a quiet week is a change"
    world.advance(601)
    world.ladder = Ladder(SETTLING, (RULES[1], *RULES))
    assert not await acted_on(world, "k5", "c2"), "so are other rules"


def protect(world: Lives, *names: str) -> None:
    assert world.catalogue.keys is not None
    world.catalogue.keys |= {name: key(name, protected=True) for name in names}


async def test_a_protected_key_is_acted_on_only_after_people_approved(world: Lives) -> None:
    protect(world, "k1")
    world.open("k1")
    await live(world)
    assert world.gateway.effects == []
    waiting = last(world)
    assert (waiting.verdict, waiting.stage) == ("waiting", "decided")
    assert [no.guard for no in waiting.guards if not no.passed] == ["protected"]
    world.say(ANN.says(waiting.ticket))
    await live(world)
    assert ("k1", "suspend") in world.gateway.set_on
    assert last(world).approvals == ("ann",)


async def test_without_approvers_a_protected_key_is_refused(world: Lives) -> None:
    protect(world, "k1")
    world.approvers = ()
    world.open("k1")
    await live(world)
    assert (last(world).verdict, last(world).reason) == ("refused", "protected: declared protected")


async def test_a_rule_that_asks_for_two_waits_for_two_and_lapses_after_half_an_hour(world: Lives) -> None:
    for name in ("k1", "k2"):
        world.open(name, severity="medium")
    await live(world)
    tickets = {x.key_id: x.ticket for x in world.lines() if x.verdict == "waiting"}
    for person in (ANN, BOB):
        world.say(person.says(tickets["k1"]))
    world.say(ANN.says(tickets["k2"]))
    await live(world)
    assert set(world.gateway.set_on) == {("k1", "flag")}
    world.advance(1801)
    await live(world)
    world.say(BOB.says(tickets["k2"]))
    await live(world)
    assert set(world.gateway.set_on) == {("k1", "flag")}
    assert [x.reason for x in world.lines() if x.key_id == "k2"][-1] == "approvals: nobody approved within 30 min"


async def test_what_one_person_declines_is_recorded_and_never_done(world: Lives) -> None:
    world.open("k1", severity="medium")
    await live(world)
    ticket = last(world).ticket
    world.say(BOB.says(ticket, yes=False))
    world.say(ANN.says(ticket))
    await live(world)
    await live(world)
    assert world.gateway.effects == []
    assert [x.reason for x in world.lines()][-1] == "approvals: declined by bob"
    assert sum(x.reason == "approvals: declined by bob" for x in world.lines()) == 1


async def test_an_approved_act_on_a_key_that_was_replaced_since_is_not_carried_out(world: Lives) -> None:
    world.open("k1", severity="medium")
    await live(world)
    assert world.catalogue.keys is not None
    world.catalogue.keys["k1"] = key("k1", version=2)
    for person in (ANN, BOB):
        world.say(person.says(last(world).ticket))
    await live(world)
    assert world.gateway.effects == []
    assert "granted for version 1, now valid: 2" in last(world).reason


async def outbreak(world: Lives) -> None:
    for number in range(1, 8):
        world.open(f"k{number}", seen_days=30.0, bits=float(number))
    await live(world)


async def test_an_outbreak_opens_the_breaker_pages_once_and_leaves_a_ranked_queue(world: Lives) -> None:
    await outbreak(world)
    assert len({each.intent.key_id for each in world.gateway.effects}) == 3
    (page,) = world.pages
    assert (page.severity, page.rule, page.keys_total) == ("critical", "breaker", 4)
    await live(world)
    assert len(world.pages) == 1
    mine = await at_desk(world)
    ranked = [each.proposal.bits for each in mine.queue()]
    assert ranked == sorted(ranked, reverse=True)
    await mine.decisions.close()


async def test_killed_while_it_pages_the_next_one_pages(world: Lives) -> None:
    oracle, fuse = Lives(catalogue=world.catalogue), Fuse()
    for number in range(1, 8):
        oracle.open(f"k{number}", seen_days=30.0)
    await live(oracle, fuse=fuse)
    for at in range(fuse.count - 3, fuse.count):
        again = Lives(catalogue=world.catalogue)
        for number in range(1, 8):
            again.open(f"k{number}", seen_days=30.0)
        await live(again, fuse=Fuse(at, False))
        await live(again)
        assert len({message.incident_id for message in again.pages}) == 1


async def test_one_approval_acts_on_the_whole_queue_and_its_preview_on_nothing(world: Lives, tmp_path: Path) -> None:
    carl = approval.make("carl", tmp_path / "carl")
    world.approvers = (*world.approvers, carl)
    await outbreak(world)
    mine = await at_desk(world, "carl")
    chosen = await desk.choose(mine.queue(), "suspend", "n", world.ladder, world.approvers, {"keys": MATRIX}, Usual())
    assert len([each for each in chosen if each.proposal]) == 4
    before = len(world.gateway.effects)
    wanted = [each.proposal for each in chosen if each.proposal]
    verdict = await mine.bulk(wanted, wanted[0].group, "n", tmp_path / "carl")
    assert verdict.granted
    await mine.decisions.close()
    await live(world)
    assert len(world.gateway.effects) == before + 4
    assert {key_id for key_id, _ in world.gateway.set_on} == {f"k{n}" for n in range(1, 8)}
    names = {each.key_id for each in wanted}
    assert {x.approvals for x in world.lines() if x.key_id in names and x.stage == "done"} == {("carl",)}


async def test_a_bulk_leaves_out_what_the_adapter_cannot_do(world: Lives) -> None:
    await outbreak(world)
    mine = await at_desk(world)
    chosen = await desk.choose(mine.queue(), "fence", "n", world.ladder, world.approvers, {}, Usual())
    await mine.decisions.close()
    assert {each.why_not for each in chosen} == {"keys cannot fence"}
    with pytest.raises(ConfigError, match="a bulk can fence or suspend"):
        await desk.choose([], "revoke", "n", world.ladder, world.approvers, {}, Usual())


async def test_closing_the_breaker_lets_acts_go_on(world: Lives) -> None:
    await outbreak(world)
    world.advance(3601)
    world.say(Reset(by="ann", reason="an attack, dealt with"))
    world.open("k1", revision=2, change="escalated", seen_days=30.0)
    world.open("k8", seen_days=30.0)
    await live(world)
    assert ("k8", "suspend") in world.gateway.set_on


async def test_a_rule_of_observe_records_and_does_nothing(world: Lives) -> None:
    world.ladder = Ladder(POLICY, (Rule(name="watch", rung="observe", min_severity="medium"),))
    world.open("k1")
    await live(world)
    assert words(world, "k1") == [("observe", "apply", "decided", "allowed")]


async def test_long_holds_are_said_again_so_that_retention_does_not_forget_them(world: Lives) -> None:
    long = msgspec.structs.replace(RULES[1], duration_s=20 * 86_400.0)
    world.ladder = Ladder(POLICY, (long,))
    world.open("k1")
    await live(world)
    for _ in range(6):
        world.advance(3 * 86_400 + 60)
        await live(world)
        await live(world)
        forget(world, days=7)
    assert [act.proposal.key_id for act in await standing(world)] == ["k1"]
    world.advance(3 * 86_400)
    await live(world)
    await live(world)
    assert world.gateway.set_on == {}


async def test_what_was_done_to_a_revoked_key_is_neither_repeated_nor_undone_weeks_later(world: Lives) -> None:
    world.open("k1")
    await live(world)  # suspended
    prove(world, 1)
    await live(world)
    done = [(each.intent.rung, each.intent.direction) for each in world.gateway.effects]
    assert done == [("suspend", "apply"), ("revoke", "apply")]
    for week in (2, 3, 4):
        for _ in range(2):
            world.advance(3.5 * 86_400)
            await live(world)
            await live(world)
            forget(world, days=7)
        world.open("k1", revision=week, change="escalated")
        prove(world, week)
        await live(world)
    assert len(world.gateway.effects) == 2


def prove(world: Lives, revision: int) -> None:
    """An incident that is a proof."""
    found = finding("declared", ago_s=1_795_000_000.0 - world.log.now_us / 1e6 + 5)
    world.open("k1", revision, rule="proof", incident_id="proof-k1", findings=(found,))


async def test_an_undo_that_fails_for_longer_than_the_topic_keeps_is_not_forgotten(world: Lives) -> None:
    """Whoever restarts then knew neither the act nor that it is over, and the key stayed refused for ever."""
    world.open("k1")
    await live(world)
    world.gateway.mood = "fails"
    for _ in range(12):
        world.advance(86_400)
        await live(world)
        forget(world, days=7)
    assert ("k1", "suspend") in world.gateway.set_on
    world.gateway.mood = "ok"
    world.advance(7200)
    await live(world)
    assert world.gateway.set_on == {}


async def test_an_undo_right_behind_what_is_said_again_is_carried_out(world: Lives) -> None:
    """What was said again was followed by "it is undone", whoever wanted that meanwhile: the key stayed refused."""
    of = await rival(world, lambda of: [Undo(act_id=of.act_id, by="ann", reason="ours", responder="")])
    assert world.gateway.set_on == {}
    assert [act.proposal for act in await standing(world) if act.proposal.act_id == of.act_id] == []


async def test_what_is_said_again_is_one_record(world: Lives) -> None:
    await rival(world, lambda of: [])
    records = [decode(value) for value in world.log.values(DECISIONS)]
    assert len([each for each in records if isinstance(each, Kept)]) == 1
    assert not [each for each in records if isinstance(each, Finished) and each.direction == "undo"]


async def test_what_ended_while_it_was_said_again_does_not_come_back_when_the_rest_is_forgotten(world: Lives) -> None:
    def ended(of: Proposed) -> list[Record]:
        undo = Undo(act_id=of.act_id, by="ann", reason="ours", responder="")
        return [undo, Finished(act_id=of.act_id, response_id=of.response_id, result="done", direction="undo")]

    of = await rival(world, ended, before=True)
    records = world.log.topics[DECISIONS]
    start = next(each.offset for each in records if isinstance(decode(each.value), Kept))
    later = Ledger()
    for each in records[start:]:
        later.apply(each.offset, each.timestamp_us, decode(each.value))
    act = later.act_of(of.act_id)
    assert act is not None
    assert (act.stage, act.ended_by) == ("undone", "ann")


async def rival(world: Lives, says: Callable[[Proposed], list[Record]], *, before: bool = False) -> Proposed:
    """A long suspension is said again, and others say this right before or behind it."""
    world.ladder = Ladder(POLICY, (msgspec.structs.replace(RULES[1], duration_s=20 * 86_400.0),))
    world.open("k1")
    await live(world)
    (act,) = await standing(world)
    world.advance(3 * 86_400 + 60)
    process = Process(world, "a", frozenset({0, 1}), Fuse(), 0.0)
    await process.decisions.start()
    publish = process.decisions.publisher.publish

    async def told(topic: str, key: bytes, value: bytes, *rest: Any, **more: Any) -> int:
        kept = topic == DECISIONS and isinstance(decode(value), Kept)
        for record in says(act.proposal) if kept and before else []:
            world.say(record)
        offset = world.log.append(topic, key, value) if kept else await publish(topic, key, value, *rest, **more)
        for record in says(act.proposal) if kept and not before else []:
            world.say(record)
        return offset

    process.decisions.publisher.publish = told  # type: ignore[method-assign]
    await process.care()
    await process.caretaker.close()
    await process.decisions.close()
    return act.proposal


async def test_whoever_comes_late_with_what_he_notes_does_not_act_on_what_others_have_undone(world: Lives) -> None:
    """His write waited for the broker; meanwhile others had carried the act out, and a person had taken it back."""

    class Late(Process):
        async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
            answer = await super().attempt(intent)
            if isinstance(answer, NoteFirst):
                of = intent.act_id, intent.response_id
                world.say(Finished(act_id=of[0], response_id=of[1], result="done", before="was open"))
                world.say(Undo(act_id=of[0], by="ann", reason="ours", responder=""))
                if undone:
                    world.say(Finished(act_id=of[0], response_id=of[1], result="done", direction="undo"))
            return answer

    for undone in (True, False):
        world.open("k1", incident_id=f"i{undone}")
        await live(world, kind=Late)
        assert not [each for each in world.gateway.effects if each.intent.direction == "apply"]


def forget(world: Lives, days: float) -> None:
    """What the topic's retention does; offsets stay."""
    start_us = world.log.now_us - int(days * 86_400e6)
    records = world.log.topics[DECISIONS]
    for index, record in enumerate(records):
        if record.timestamp_us < start_us and record.value:
            records[index] = replace(record, value=encode(Joined(responder="", mark="")))


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"keywatch_{name}", labels) or 0.0


async def test_which_cap_is_used_up_is_shown_and_what_it_refuses_is_counted_by_cap(world: Lives) -> None:
    refused = metric("cap_refusals_total", cap="usual")
    for number in range(1, 4):
        world.open(f"k{number}")
    world.open("k4", severity="high")
    await live(world)
    assert metric("cap_used_ratio", cap="usual", window="hour") == 1.0
    assert metric("cap_used_ratio", cap="fence", window="hour") == 1 / 3
    assert metric("cap_refusals_total", cap="usual") == refused
    world.open("k5")
    await live(world)
    assert metric("cap_refusals_total", cap="usual") == refused + 1
    world.advance(3700)
    await live(world)
    assert metric("cap_used_ratio", cap="usual", window="hour") == 0.0
    assert metric("cap_used_ratio", cap="usual", window="day") == 0.3


async def test_who_stopped_all_acts_is_shown(world: Lives) -> None:
    for by, shown in ((BY, (1.0, 0.0)), ("ann", (0.0, 1.0))):
        world.say(Switched(stop=True, by=by))
        await live(world)
        assert (metric("acts_stopped", by="keywatch"), metric("acts_stopped", by="person")) == shown
    world.say(Switched(stop=False, by="ann"))
    await live(world)
    assert (metric("acts_stopped", by="keywatch"), metric("acts_stopped", by="person")) == (0.0, 0.0)


def test_a_share_of_less_than_one_key_shows_as_a_cap_without_room() -> None:
    counts = Counts()
    assert counts.over(proposed(cap="proof", active_keys=999, max_share_of_active=0.001), 1, ())
    assert list(counts.ratios(1, simulated=False)) == [("proof", "hour", 1.0), ("proof", "day", 1.0)]
