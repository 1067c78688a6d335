"""A rotation's end can be put off, its undo deletes no key in use, and what was told of it is resolved once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Fatal
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.rotations import Rotation
from pipeline.respond import act_notices
from pipeline.respond.act import act_id
from pipeline.respond.caps import DAY_US, ROTATION
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.acts import kept
from pipeline.respond.ledger.entries import Extended, Finished, Kept, Proposed, Record, Undo, Used, decode
from pipeline.respond.night.records import RotationOver, RotationSeen
from pipeline.respond.rotation.book import RotationBook
from tests.pipeline.respond.incidents import NOW_S, key
from tests.pipeline.respond.ledger.test_ledger import proposed
from tests.pipeline.respond.lives import POLICY, Lives, live
from tests.pipeline.respond.memory_log import Fuse, Killed
from tests.pipeline.respond.night.test_night import World, life, rounds
from tests.pipeline.respond.people import ANN, BOB, BOTH, EVE, Person
from tests.pipeline.respond.rotation.test_drain import (
    before_each_write,
    look,
    process,
    read,
    rotated,
    row,
    world,
)
from tests.pipeline.respond.test_caretaker import forget

NOW_US = int(NOW_S * 1e6)
HOUR_US = 3_600_000_000
END_US = NOW_US + HOUR_US  # as `rotated` has it
LATER_US = NOW_US + 2 * HOUR_US


def ours(**changes: Any) -> Lives:
    """Only what the ladder rotated ends, whatever the policy says of others."""
    about = world()
    about.ladder = Ladder(POLICY, ())
    values: dict[str, Any] = {"max_overlap_s": 86_400.0, "force_approvals": 2, "approvers": BOTH}
    rotated(about, **(values | changes))
    return about


def extended(until_us: int = LATER_US, by: str = "ann", **changes: Any) -> Extended:
    values: dict[str, Any] = {"act_id": "rotate-k1", "response_id": "rotate-k1", "until_us": until_us, "by": by}
    return Extended(**(values | {"reason": "a batch job", "responder": "d"} | changes))


def used() -> Used:
    return Used(act_id="rotate-k1", response_id="rotate-k1", at_us=NOW_US)


def revoked(about: Lives) -> bool:
    return ("k1", "revoke") in about.gateway.set_on


# -- its end is put off ------------------------------------------------------------------------------------------------


async def over(fuse: Fuse) -> Lives:
    """Its first deadline passes by a process that may be killed."""
    about = ours()
    about.say(extended())
    about.advance(3_601.0)
    await look(about, [], fuse=fuse)
    return about


async def test_killed_at_any_effect_the_old_key_lives_to_its_new_end_and_ends_then_once() -> None:
    fuse = Fuse()
    await over(fuse)
    for at in range(fuse.count):
        for after in (False, True):
            about = await over(Fuse(at, after))
            assert await look(about, [])
            assert not about.gateway.effects, (at, after)
            about.advance(3_600.0)
            assert await look(about, [])
            assert await look(about, [])
            assert about.gateway.set_on == {("k1", "revoke"): act_id("k1", 1)}, (at, after)


async def test_put_off_while_its_end_is_being_decided_the_old_key_lives_on() -> None:
    about = ours()
    about.advance(3_601.0)
    async with process(about) as made:

        def put_off(record: Record) -> None:
            if isinstance(record, Proposed) and record.cap == ROTATION:
                about.say(extended())

        before_each_write(made, put_off)
        await made.care()
    assert not about.gateway.effects
    assert await look(about, [])
    assert not about.gateway.effects
    refused = [line.reason for line in about.lines() if line.verdict == "refused"]
    assert refused == ["undo: its end was put off: the old key lives on until then"]


async def test_a_new_end_outlives_what_the_topic_forgets_also_where_it_came_while_the_old_one_was_said_again() -> None:
    about = ours(duration_s=5 * 86_400.0, max_overlap_s=30 * 86_400.0)
    end_us = NOW_US + 20 * DAY_US
    about.advance(3 * 86_400.0 + 60)
    async with process(about) as made:

        def put_off(record: Record) -> None:
            if isinstance(record, Kept) and record.until_us != end_us:
                about.say(extended(end_us))

        before_each_write(made, put_off)
        await made.care()
    for _ in range(16):
        about.advance(86_400.0)
        assert await look(about, [])
        forget(about, days=7)
        assert not about.gateway.effects
    act = read(about).act_of("rotate-k1")
    assert act is not None
    assert act.until_us == end_us
    about.advance(86_400.0)
    assert await look(about, [])
    assert revoked(about)


async def test_what_has_drained_ends_though_its_end_was_put_off() -> None:
    about = ours()
    about.say(extended())
    assert await look(about, [row()])
    assert revoked(about)


@pytest.mark.parametrize(
    ("before", "until_us", "words"),
    [
        ([], END_US, "it can only be put off"),
        ([], NOW_US + DAY_US + 1, "max_overlap_s as it was when the key was rotated"),
        ([Undo(act_id="rotate-k1", by="bob", reason="", responder="")], LATER_US, "undone, or being so"),
        ([proposed("k1", cap="proof")], LATER_US, "the rotation is over: the old key is revoked, or is being so"),
    ],
)
def test_what_is_not_put_off_is_refused_with_words(before: list[Record], until_us: int, words: str) -> None:
    about = ours()
    for record in before:
        about.say(record)
    ledger = read(about)
    verdict = ledger.apply(ledger.next_offset, NOW_US, extended(until_us))
    assert (verdict.granted, verdict.guard) == (False, "extend")
    assert words in verdict.reason.replace("that can only", "it can only")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_overlap_s": 0.0}, "put off not at all"),
        ({"ends_old": False}, "keys ends the old key by itself"),
        ({"duration_s": 0.0}, "it has no deadline"),
    ],
)
def test_some_rotations_have_no_end_that_could_be_put_off(changes: dict[str, Any], words: str) -> None:
    ledger = read(ours(**changes))
    assert words in ledger.apply(ledger.next_offset, NOW_US, extended()).reason


def test_what_is_said_again_puts_no_end_off_further_than_the_policy_lets_anybody() -> None:
    ledger = read(ours())
    act = ledger.acts[False, "rotate-k1"]
    again = kept(act, "a")
    for until_us, end_us in ((NOW_US, END_US), (LATER_US, LATER_US), (NOW_US + 99 * DAY_US, NOW_US + DAY_US)):
        ledger.apply(ledger.next_offset, NOW_US, msgspec.structs.replace(again, until_us=until_us))
        assert act.until_us == end_us


def test_only_a_rotation_is_put_off_and_what_is_written_twice_counts_once() -> None:
    ledger = read(ours())
    fence = proposed("k2", rung="fence", act_id="f", response_id="f")
    assert ledger.apply(ledger.next_offset, NOW_US, fence).granted
    asked = extended(act_id="f", response_id="f")
    assert "only the end of a rotation" in ledger.apply(ledger.next_offset, NOW_US, asked).reason
    assert [ledger.apply(ledger.next_offset, NOW_US, extended()).granted for _ in range(2)] == [True, True]
    unknown = ledger.apply(ledger.next_offset, NOW_US, extended(response_id="another"))
    assert "no rotation of this id" in unknown.reason


async def test_that_it_was_put_off_is_in_the_audit_once_and_told_once() -> None:
    about = ours()
    about.say(extended())
    for _ in range(2):
        about.log.moved = asyncio.Event()
        assert await live(about)
    (line,) = [line for line in about.lines() if line.switch == "extend"]
    assert (line.by, line.verdict) == ("ann", "allowed")
    act = read(about).act_of("rotate-k1")
    assert act is not None
    (said,) = [
        said
        for said in act_notices.due([act], NOW_US, lambda subject: frozenset({f"done:{act.offset}"}), {})
        if said.step.startswith("extended:")
    ]
    told = act_notices.notice(said, NOW_US)
    assert told.title == "put off: the old key k1 ends 2026-11-18 13:06 UTC, by ann"
    assert "a batch job" in told.text
    assert not list(act_notices.due([act], NOW_US + 2 * DAY_US, lambda subject: frozenset(), {}))


OPS = st.lists(
    st.one_of(
        st.builds(extended, st.integers(NOW_US, NOW_US + 3 * DAY_US)), st.just(used()),
        st.builds(lambda force: undo(force), st.booleans()),
        st.sampled_from(["hour", "end by the deadline", "end by drain", "undo fails"]),
    ),
    max_size=15,
)  # fmt: skip


@given(OPS)
def test_in_no_order_does_the_old_key_end_before_its_deadline_nor_live_longer_than_the_policy_says(
    order: list[Any],
) -> None:
    ledger = read(ours())
    now_us, act = NOW_US, ledger.act_of("rotate-k1")
    assert act is not None
    known_end_us = act.until_us  # as a responder that decides had read it
    for each in order:
        before_us = act.until_us
        if isinstance(each, str):
            now_us += HOUR_US if each == "hour" else 0
            deadline_us = known_end_us if each == "end by the deadline" else 0
            if each == "end by the deadline" and now_us < known_end_us:
                continue
            record: Record = proposed("k1", cap=ROTATION, deadline_us=deadline_us)
            if each in ("hour", "undo fails"):
                result: Any = "failed"
                record = Finished(act_id="rotate-k1", response_id="rotate-k1", result=result, direction="undo")
        else:
            record = each
        verdict = ledger.apply(ledger.next_offset, now_us, record)
        assert before_us <= act.until_us <= act.at_us + DAY_US
        if isinstance(record, Proposed) and verdict.granted and record.deadline_us:
            assert now_us >= act.until_us
        if isinstance(record, Undo) and verdict.granted:
            assert not act.used_us, "nobody signed"


# -- its undo deletes no key in use ------------------------------------------------------------------------------------


def undo(force: bool = False, asked_us: int = NOW_US) -> Undo:
    return Undo(act_id="rotate-k1", by="ann", reason="ours", responder="", force=force, asked_us=asked_us)


async def test_undo_is_refused_once_the_new_key_is_in_use_and_says_what_to_do() -> None:
    about = ours()
    about.say(used())
    about.say(undo())
    assert await look(about, [])
    assert not about.gateway.effects
    ledger = read(about)
    why = ledger.why_no_undo(ledger.acts[False, "rotate-k1"])
    assert why.startswith("new_key_in_use: k1-new was used at 2026-11-18T11:06:40")
    assert "keywatch respond extend k1 --until WHEN --reason TEXT" in why
    assert "--force deletes it all the same, by 2 signed" in why


@pytest.mark.parametrize(
    ("people", "granted"), [([], False), ([ANN], False), ([ANN, ANN], False), ([ANN, EVE], False), ([ANN, BOB], True)]
)
async def test_forced_it_takes_the_policys_signatures(people: list[Person], granted: bool) -> None:
    about = ours()
    about.say(used())
    about.say(undo(force=True))
    for person in people:
        about.say(person.says(undo(force=True).ticket))
    assert await look(about, [])
    assert [each.intent.direction for each in about.gateway.effects] == (["undo"] if granted else [])
    switches = {line.switch for line in about.lines() if line.switch}
    assert switches == ({"force_undo", "sign_undo"} if people else {"force_undo"})


def test_what_people_signed_for_one_forced_undo_is_good_for_that_time_alone() -> None:
    about = ours()
    about.say(used())
    ledger = read(about)
    late = ledger.apply(ledger.next_offset, NOW_US + 3 * HOUR_US, undo(force=True))
    assert "asked for at another time" in late.reason
    now_us, asked = ledger.now_us, undo(force=True, asked_us=ledger.now_us)
    assert "waits for 2" in ledger.apply(ledger.next_offset, now_us, asked).reason
    assert ledger.apply(ledger.next_offset, now_us, ANN.says(asked.ticket)).reason == "1 of 2 approved"
    assert "lapsed" in ledger.apply(ledger.next_offset, now_us + HOUR_US, BOB.says(asked.ticket)).reason
    asked = undo(force=True, asked_us=ledger.now_us)
    ledger.apply(ledger.next_offset, ledger.now_us, asked)
    assert ledger.apply(ledger.next_offset, ledger.now_us, ANN.says(asked.ticket, yes=False)).granted
    assert "nothing waits" in ledger.apply(ledger.next_offset, ledger.now_us, BOB.says(asked.ticket)).reason


def test_force_before_the_new_key_is_used_is_no_signature_for_afterwards() -> None:
    ledger = read(ours())
    failed = Finished(act_id="rotate-k1", response_id="rotate-k1", result="failed", direction="undo")
    verdicts = [ledger.apply(ledger.next_offset, NOW_US, each) for each in (undo(True), failed, used(), undo(True))]
    assert [each.granted for each in verdicts] == [True, False, False, False]
    assert verdicts[-1].reason.startswith("waits for 2, ticket undo-")


async def test_a_forced_undo_that_fails_is_tried_again_without_new_signatures_and_an_unforced_one_is_not() -> None:
    for force in (True, False):
        about = ours(force_approvals=1)
        about.gateway.mood = "fails"
        if force:
            about.say(used())
        about.say(undo(force=force))
        if force:
            about.say(ANN.says(undo(force=True).ticket))
        assert await look(about, [])
        about.say(used())
        about.gateway.mood = "ok"
        records = len(about.log.values("api.decisions"))
        about.advance(61.0)
        assert await look(about, [])
        assert [each.intent.direction for each in about.gateway.effects] == (["undo"] if force else [])
        assert force or len(about.log.values("api.decisions")) < records + 5, "asked for again and again"


def test_where_nobody_uses_the_new_key_force_needs_nobody() -> None:
    ledger = read(ours())
    assert ledger.apply(ledger.next_offset, NOW_US, undo(force=True)).granted


async def test_that_it_is_in_use_is_seen_in_clickhouse_too_and_outlives_what_the_topic_forgets() -> None:
    about = ours(duration_s=30 * 86_400.0)
    busy: Rotation = row(new="k1-new", quiet_days=0.1, state="draining", deadline_us=NOW_US + 30 * DAY_US)
    assert await look(about, [busy], looks=3)
    assert [isinstance(decode(value), Used) for value in about.log.values("api.decisions")].count(True) == 1
    for _ in range(9):
        about.advance(86_400.0)
        assert await look(about, [])
        forget(about, days=7)
    ledger = read(about)
    assert "new_key_in_use" in ledger.apply(ledger.next_offset, ledger.now_us, undo()).reason


# -- what was told of it is resolved -----------------------------------------------------------------------------------


def seen(state: str = "overdue", deadline_us: int = END_US) -> RotationSeen:
    return RotationSeen(old="k1", new="k1-new", owner="o", deadline_us=deadline_us, state=state, requests_24h=3)


GONE = RotationOver(old="k1", new="k1-new", deadline_us=END_US, why="the old key is revoked")


async def test_what_was_told_is_resolved_once_under_its_own_subject_and_nothing_where_nothing_was_told() -> None:
    told, silent = World(), World()
    for about in (told, silent):
        if about is told:
            about.say(seen("due"))
            about.say(seen())
            async with life(about) as night:
                await rounds(night)
        about.say(GONE)
        for _ in range(3):
            async with life(about) as night:
                await rounds(night)
    subjects = [(each["data"]["subject"], each["data"]["action"]) for each in told.lines[1].came]  # type: ignore[index]
    assert subjects == [(f"rotation:k1:{END_US}", action) for action in ("trigger", "trigger", "resolve")]
    assert silent.lines[1].came == []


async def test_what_comes_back_is_told_and_resolved_anew() -> None:
    about = World()
    async with life(about) as night:
        for record in (seen(), GONE, seen(), GONE):
            about.say(record)
            about.pass_time(60)
            await rounds(night)
    actions = [each["data"]["action"] for each in about.lines[1].came]  # type: ignore[index]
    assert actions == ["trigger", "resolve"] * 2


async def test_killed_at_any_write_it_is_resolved_all_the_same_under_one_id() -> None:
    fuse = Fuse()
    async with told(fuse):
        pass
    assert fuse.count > 2
    for at in range(fuse.count):
        for after in (False, True):
            async with told(Fuse(at, after)) as about, life(about) as night:
                await rounds(night)
            resolved = [each for each in about.lines[1].came if each["data"]["action"] == "resolve"]  # type: ignore[index]
            assert resolved, (at, after)
            assert len({str(each) for each in resolved}) <= 2
            assert len({each for each in about.lines[1].ids if "-over-" in each}) == 1, (at, after)


class told:  # noqa: N801  (a context)
    """A world in which it was told, and the process that resolves it may be killed."""

    def __init__(self, fuse: Fuse) -> None:
        self.about, self.fuse = World(), fuse

    async def __aenter__(self) -> World:
        self.about.say(seen())
        async with life(self.about) as night:
            await rounds(night)
        self.about.say(GONE)
        try:
            async with life(self.about, self.fuse) as night, asyncio.timeout(5):
                await rounds(night)
        except (Killed, Fatal, TimeoutError):
            pass
        return self.about

    async def __aexit__(self, *_: object) -> None:
        return None


async def test_each_end_of_our_own_rotation_is_said_and_its_new_deadline_too() -> None:
    said: dict[str, Record | None] = {"old key is revoked": None, "ann undid it": undo(), "put off to 2026": extended()}
    for why, record in said.items():
        about = ours()
        about.say(seen())
        if record:
            about.say(record)
        else:
            about.advance(3_601.0)
        assert await look(about, [], looks=3)
        (over,) = [each for each in map(decode, about.log.values("api.decisions")) if isinstance(each, RotationOver)]
        assert (over.deadline_us, why in over.why) == (END_US, True), over.why


@pytest.mark.parametrize(
    ("declared", "rows", "state", "why"),
    [
        ([], None, "overdue", "the catalogue has the old key no more"),
        ([key("k1", status="revoked")], None, "overdue", "the old key is declared revoked"),
        ([key("k1")], None, "overdue", ""),
        ([key("k1")], {}, "overdue", "nobody declares it any more"),
        ([key("k1", status="suspended")], {}, "overdue", ""),
        ([key("k1")], {"k1": row(deadline_us=END_US)}, "overdue", "its traffic has moved: quiet for 9 days"),
        ([key("k1")], {"k1": row(deadline_us=END_US)}, "held", ""),
        ([key("k1")], {"k1": row(deadline_us=END_US, quiet_days=0.1)}, "overdue", ""),
        ([key("k1")], {"k1": row(deadline_us=LATER_US, quiet_days=0.1)}, "overdue", "its end is another one now"),
        (None, {}, "overdue", ""),
    ],
)  # fmt: skip
def test_a_declared_rotation_is_over_by_what_the_catalogue_and_its_traffic_say(
    declared: list[Any] | None, rows: dict[str, Rotation] | None, state: str, why: str
) -> None:
    book = RotationBook()
    book.apply(NOW_US, seen(state))
    catalogue = None if declared is None else Catalogue.of(declared)
    found = book.ended([], catalogue, rows)
    assert [each.why[: len(why)] for each in found] == ([why] if why else [])


async def test_requests_that_are_old_news_tell_of_nothing_that_its_traffic_has_moved() -> None:
    about = world()
    about.ladder = Ladder(POLICY, ())
    late, quiet = row(quiet_days=0.1), row()
    assert await look(about, [late])
    for old_s, over in ((601.0, 0), (0.0, 1)):
        assert await look(about, [quiet], old_s=old_s)
        assert [isinstance(decode(value), RotationOver) for value in about.log.values("api.decisions")].count(
            True
        ) == over
