"""What Keywatch did to a key, could not do, or waits for, is told: once, to the night shift, and after kill -9 too."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pipeline.errors import Fatal
from pipeline.respond import act_notices
from pipeline.respond.caps import DAY_US
from pipeline.respond.ledger.acts import TIME, Act, Stage, Undoing
from pipeline.respond.ledger.entries import Proposed, Undo
from pipeline.respond.night.records import DrillStarted, Told
from pipeline.respond.render import alertmanager, pagerduty, slack
from tests.pipeline.respond.incidents import NOW_S
from tests.pipeline.respond.ledger.test_ledger import finished, proposed
from tests.pipeline.respond.memory_log import Fuse, Killed
from tests.pipeline.respond.night.test_night import World, arrive, life, line, rounds
from tests.pipeline.respond.notices import full
from tests.pipeline.respond.people import person

NOW_US = int(NOW_S * 1e6)
SECOND_US = 1_000_000


def wanted(key_id: str = "k1", **changes: Any) -> Proposed:
    values: dict[str, Any] = {"rung": "suspend", "rule": "live", "reason": f"{key_id} is odd", "incident_id": "i1"}
    return proposed(key_id, **(values | changes))


def act(stage: Stage = "done", ago_us: int = SECOND_US, **changes: Any) -> Act:
    made = Act(wanted(**changes), 5, NOW_US - ago_us, stage=stage, outcome="HTTP 403", ticket="act-1")
    made.done_us = made.ended_us = NOW_US - ago_us
    made.confirmed_us = made.done_us if stage in ("done", "undone") else 0
    made.until_us, made.ended_by = NOW_US + 3600 * SECOND_US, TIME
    return made


def due(*acts: Act, told: tuple[str, ...] = (), bulk: int = 1) -> list[str]:
    known = {subject: frozenset(told) for subject in ("response:bulk-1", "waiting:act-1", "waiting:bulk-1")}
    known |= {f"response:{each.proposal.response_id}": frozenset(told) for each in acts}
    found = act_notices.due(acts, NOW_US, lambda subject: known.get(subject, frozenset()), {"bulk-1": bulk})
    return [f"{said.event} {said.step} {len(said.acts)}" for said in found]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("open", []),
        ("done", ["response.done done:5 1"]),
        ("failed", ["response.failed failed:5 1"]),
        ("expired", ["response.failed failed:5 1"]),
        ("undone", ["response.done done:5 1"]),
        ("pending", ["response.waiting waiting 1"]),
    ],
)
def test_what_became_of_an_act_follows_from_the_ledger(stage: Stage, expected: list[str]) -> None:
    assert due(act(stage)) == expected
    assert due(act(stage, simulated=True)) == []


def test_each_step_comes_once_and_in_its_order() -> None:
    assert due(act("undone")) == ["response.done done:5 1"]
    assert due(act("undone"), told=("done:5", "answered")) == ["response.undone undone:5 1"]
    assert due(act("undone"), told=("done:5", "undone:5", "answered")) == []


def test_what_failed_as_far_as_is_known_is_never_told_as_done() -> None:
    given_up = act("undone")
    given_up.confirmed_us = 0  # it had expired, and was undone to be sure
    assert due(given_up, told=("failed:5", "answered")) == ["response.undone undone:5 1"]


def test_a_bulk_of_which_the_ledger_forgets_a_member_is_not_told_again() -> None:
    members = [act("done", key_id=f"k{n}", group="bulk-1", ago_us=DAY_US - 30 * SECOND_US) for n in range(3)]
    assert due(*members, told=("answered",), bulk=3) == [], "a day after its grant, whichever of them is left"
    for member in members:
        member.stage, member.ended_us = "undone", NOW_US - 3600 * SECOND_US
    members[2].ended_us, members[2].offset = NOW_US - 2 * DAY_US, 9
    assert due(*members, told=("undone:9", "answered"), bulk=3) == []


def test_only_a_call_that_was_made_is_answered() -> None:
    assert "response.waiting answered 1" not in due(act())
    assert "response.waiting answered 1" in due(act(), told=("waiting",))


def test_what_is_older_than_a_day_is_no_news() -> None:
    assert due(act(ago_us=DAY_US + SECOND_US)) == []
    assert due(act("undone", ago_us=DAY_US + SECOND_US)) == []


def test_an_undo_that_fails_is_told_for_its_owner_waits() -> None:
    stuck = act()
    stuck.undo = Undoing(Undo(act_id="a", by="ada", reason="ours", responder="r"), NOW_US, stage="failed")
    assert "response.failed undo_failed:5 1" in due(stuck, told=("done:5", "answered"))


def test_a_bulk_is_one_message_and_one_ticket_and_comes_when_all_of_it_has_ended() -> None:
    members = [act(key_id=f"k{n}", response_id=f"{n}" * 32, group="bulk-1") for n in range(4)]
    members[0].stage = "open"
    assert due(*members, bulk=4) == []
    members[0].stage = "failed"
    assert due(*members, bulk=4) == ["response.done done:5 3"]
    for each in members:
        each.stage = "pending"
    assert due(*members, bulk=4) == []  # whoever asks for it signs it now
    for each in members:
        each.at_us -= act_notices.SETTLES_US
    assert due(*members, bulk=4) == ["response.waiting waiting 4"]


def test_a_message_says_who_until_when_and_how_it_is_undone() -> None:
    (said,) = act_notices.due([act()], NOW_US, lambda _: frozenset(), {})
    told = act_notices.notice(said, NOW_US, "https://console.example/{incident_id}", "case-1")
    undo = f"keywatch respond undo {act().proposal.response_id[:12]} --reason TEXT"
    assert told.title == "done: suspend of k1 until 2026-11-18 12:06 UTC, by rule live alone"
    assert (told.about["undo"], told.about["by"]) == (undo, "rule live alone")
    assert told.link == "https://console.example/i1"
    assert undo in str(slack.message(told))
    assert pagerduty.event(told)["dedup_key"] == "case-1"  # a line of its case's alert, no page of its own
    assert (
        pagerduty.event(act_notices.notice(said, NOW_US))["event_action"] == "resolve"
    )  # there is nothing to call for
    (alert, *_) = alertmanager.alerts(told)
    assert (alert["labels"]["alertname"], alert["labels"]["severity"]) == ("KeywatchAct", "medium")


def test_a_message_says_where_the_targets_answer_proves_nothing() -> None:
    done = act()
    (said,) = act_notices.due([done], NOW_US, lambda _: frozenset(), {})
    assert "The target" not in act_notices.notice(said, NOW_US).text
    done.outcome = "answered 200 with an unknown status: unproven"
    assert "by rule live alone. The target answered 200 with an unknown status: unproven. For incident i1" in (
        act_notices.notice(said, NOW_US).text
    )


def test_what_alertmanager_holds_open_is_ended_when_the_act_is_undone() -> None:
    (begun,) = act_notices.due([act()], NOW_US, lambda _: frozenset(), {})
    (over,) = act_notices.due([act("undone")], NOW_US, lambda _: frozenset({"done:5", "answered"}), {})
    held = alertmanager.alerts(act_notices.notice(begun, NOW_US))[0]["labels"]
    assert held in [each["labels"] for each in alertmanager.alerts(act_notices.notice(over, NOW_US))]


def classes(world: World) -> list[list[object]]:
    """The events that each line got, without cases and incidents."""
    hooks = [str(each["type"]) for each in world.lines[1].came if str(each["type"]).startswith("response.")]
    pager = [each["payload"]["class"] for each in world.lines[0].came if "payload" in each]  # type: ignore[index]
    return [[each for each in pager if str(each).startswith("response.")], [*hooks]]


async def acted(world: World, fuse: Fuse | None = None) -> None:
    """One life in which a key is suspended by itself, and told."""
    async with life(world, fuse) as night:
        if not world.records(Proposed):
            await night.decisions.write(wanted())
        if night.decisions.ledger.act_of(wanted().act_id).stage == "open":  # type: ignore[union-attr]
            await night.decisions.write(finished(wanted()))
        await rounds(night)


async def test_an_act_by_itself_is_told_to_machines_and_people_once() -> None:
    world = World()
    async with life(world) as night:
        await arrive(night, full(key_id="k1", incident_id="i1"))
        await rounds(night)
    for _ in range(3):
        await acted(world)
    assert classes(world) == [["response.done"], ["response.done"]]
    async with life(world) as night:
        await night.decisions.write(Undo(act_id=wanted().act_id, by="ada", reason="ours", responder="r"))
        await night.decisions.write(msgspec.structs.replace(finished(wanted()), direction="undo"))
        await rounds(night)
    assert classes(world) == [["response.done"], ["response.done", "response.undone"]]


async def test_killed_at_any_write_it_is_told_all_the_same_and_under_one_id() -> None:
    fuse = Fuse()
    await acted(World(), fuse)
    assert fuse.count > 3
    for at in range(fuse.count):
        for after in (False, True):
            world = World()
            with pytest.raises((Killed, Fatal, TimeoutError)):
                async with asyncio.timeout(5):
                    await acted(world, Fuse(at, after))
                    raise Killed
            await acted(world)
            assert len(set(world.lines[1].ids)) == 1, (at, after)
            assert set(classes(world)[1]) == {"response.done"}, (at, after)


async def test_what_waits_calls_people_and_their_answer_ends_the_call() -> None:
    world, ada = World(), person("ada")
    of = wanted(approvals=1, approvers=(ada.approver,))
    async with life(world) as night:
        await night.decisions.write(of)
        await rounds(night)
        (waiting,) = night.decisions.ledger.acts.values()
        assert waiting.ticket in str(world.lines[0].came[0])
        await night.decisions.write(ada.says(waiting.ticket))
        await night.decisions.write(finished(of))
        await rounds(night)
    actions = [(each["event_action"], each["dedup_key"]) for each in world.lines[0].came]
    ticket = f"waiting:{waiting.ticket}"
    assert [action for action in actions if action[1] == ticket] == [("trigger", ticket), ("resolve", ticket)]
    assert sorted(map(str, classes(world)[1])) == ["response.done", "response.waiting", "response.waiting"]


async def test_the_answer_to_what_waited_is_told_though_another_act_took_its_place_at_once() -> None:
    world, ada = World(), person("ada")
    of = wanted(approvals=1, approvers=(ada.approver,), rung="revoke")
    async with life(world) as night:
        await night.decisions.write(of)
        await rounds(night)
        (waiting,) = night.decisions.ledger.acts.values()
        await night.decisions.write(ada.says(waiting.ticket, False))
        again = msgspec.structs.replace(of, incident_id="i2", response_id="2" * 32, approvals=0)
        assert (await night.decisions.write(again)).granted  # within the round: the same id, another act
        await night.decisions.write(finished(again))
        await rounds(night)
    told = [(each["event_action"], each["dedup_key"]) for each in world.lines[0].came]
    ticket = f"waiting:{waiting.ticket}"
    assert [action for action, key in told if key == ticket] == ["trigger", "resolve"]
    assert sorted(map(str, classes(world)[1])) == ["response.done", "response.waiting", "response.waiting"]


async def test_what_failed_is_told_though_it_was_tried_again_at_once_and_done() -> None:
    world, of = World(), wanted(rung="revoke")
    async with life(world) as night:
        await night.decisions.write(of)
        await night.decisions.write(finished(of, "failed"))
        await night.decisions.write(of)
        await night.decisions.write(finished(of))
        await rounds(night)
        await rounds(night)
    assert classes(world)[1] == ["response.failed", "response.done"]


def test_a_rotation_says_when_the_old_key_ends_and_by_whom() -> None:
    titles = []
    for ends_old, until_us in ((True, NOW_US + 3600 * SECOND_US), (True, 0), (False, NOW_US), (False, 0)):
        rotated = act(rung="rotate")
        rotated.ends_old, rotated.until_us = ends_old, until_us
        (said,) = act_notices.due([rotated], NOW_US, lambda _: frozenset(), {})
        titles.append(act_notices.notice(said, NOW_US).title)
    moved = "when its traffic has moved"
    ends = (
        f"the old key is revoked at 2026-11-18 12:06 UTC, or before that {moved}", f"the old key is revoked {moved}",
        "its gateway ends the old key at 2026-11-18 11:06 UTC", "its gateway ends the old key",
    )  # fmt: skip
    assert titles == [f"done: rotate of k1 ({each}), by rule live alone" for each in ends]


def test_whoever_signs_a_rotation_is_told_that_the_old_key_ends() -> None:
    texts = []
    for duration_s in (5400.0, 0.0):
        (said,) = act_notices.due(
            [act("pending", rung="rotate", duration_s=duration_s)], NOW_US, lambda _: frozenset(), {}
        )
        texts.append(act_notices.notice(said, NOW_US).text)
    assert "The old key ends 1.5 h later, in use or not." in texts[0]
    assert "The old key ends when its traffic has moved." in texts[1]


async def test_a_drill_s_act_is_told_by_the_drill_alone() -> None:
    world = World(lines=[line("pager", "pagerduty"), line("hook", "webhook")])
    async with life(world) as night:
        started = DrillStarted(drill_id="d1", key_id="k1", at_us=world.log.now_us, limit_s=60, act=True, by="ada")
        await night.decisions.write(started)
        await arrive(night, full(key_id="k1", incident_id="i1"))
        await night.decisions.write(wanted())
        await night.decisions.write(finished(wanted()))
        await rounds(night)
    assert classes(world) == [[], []]
    assert not [each for each in world.records(Told) if "response:" in msgspec.json.encode(each).decode()]
