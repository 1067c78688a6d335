"""What is left of a rotation and its undo once the topic has forgotten how it came to be; who may still say what."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.respond import act_notices
from pipeline.respond.caps import DAY_US
from pipeline.respond.ledger.acts import kept
from pipeline.respond.ledger.entries import Extended, Finished, Kept, Record, Undo, Used, decode
from pipeline.respond.ledger.ledger import Ledger
from pipeline.respond.night.records import RotationOver, RotationSeen
from tests.pipeline.respond.incidents import NOW_S
from tests.pipeline.respond.lives import Lives, live
from tests.pipeline.respond.people import ANN, BOB, EVE
from tests.pipeline.respond.rotation.test_drain import before_each_write, look, process, read, row
from tests.pipeline.respond.test_caretaker import forget
from tests.pipeline.respond.test_rotation import extended, ours, undo, used

NOW_US = int(NOW_S * 1e6)
FAILED = Finished(act_id="rotate-k1", response_id="rotate-k1", result="failed", direction="undo")


async def days(about: Lives, number: int) -> None:
    """So many, each with a responder that starts, looks, and is gone; the topic keeps seven."""
    for _ in range(number):
        about.advance(86_400.0)
        assert await look(about, [])
        forget(about, days=7)


async def test_an_undo_that_failed_before_the_new_key_came_into_use_keeps_the_old_key_for_ever() -> None:
    """Nobody tries it again, so that only what is said again knows of it: at the deadline the old key was revoked."""
    about = ours(duration_s=12 * 86_400.0)
    about.say(undo())
    about.say(FAILED)
    about.say(used())
    await days(about, 16)
    assert not about.gateway.effects
    act = read(about).act_of("rotate-k1")
    assert act is not None
    assert (act.taken_back, act.undo and act.undo.asked.by) == (True, "ann")


@pytest.mark.parametrize("in_use", [True, False])
def test_of_an_undo_that_failed_nobody_is_told_to_delete_a_key_in_use_at_the_gateway(in_use: bool) -> None:
    ledger = read(ours())
    records: list[Record] = [undo(), FAILED, *([used()] if in_use else [])]
    for record in records:
        ledger.apply(ledger.next_offset, NOW_US, record)
    act = ledger.acts[False, "rotate-k1"]
    due = act_notices.due([act], NOW_US, lambda subject: frozenset({f"done:{act.offset}"}), {})
    (text,) = [act_notices.notice(each, NOW_US).text for each in due if each.step.startswith("undo_failed")]
    assert ("it is tried again. Undo it at the gateway" in text) != in_use
    assert ("k1-new is in use by now, so it is not tried again, and the old key lives on" in text) == in_use


async def test_a_forced_undo_that_fails_for_longer_than_the_topic_keeps_needs_no_new_signatures() -> None:
    about = ours(duration_s=30 * 86_400.0)
    about.say(used())
    about.say(undo(force=True))
    for person in (ANN, BOB):
        about.say(person.says(undo(force=True).ticket))
    about.gateway.mood = "fails"
    await days(about, 10)
    about.gateway.mood = "ok"
    await days(about, 1)
    assert [each.intent.direction for each in about.gateway.effects] == ["undo"]


async def test_whoever_is_no_approver_any_more_forces_nothing_though_the_rotation_names_him() -> None:
    about = ours(force_approvals=1, approvers=(EVE.approver,))
    about.say(used())
    about.say(undo(force=True))
    about.say(EVE.says(undo(force=True).ticket))
    assert await look(about, [])
    assert not about.gateway.effects
    (line,) = [line for line in about.lines() if line.stage == "failed"]
    assert "0 of our approvers" in line.outcome, line.outcome


@pytest.mark.parametrize("over", ["undone", "revoked"])
async def test_what_ended_while_it_was_said_again_does_not_come_back_though_its_new_key_was_in_use(over: str) -> None:
    """What said "it is undone" behind the repetition was refused as `new_key_in_use` by whoever had only that left."""
    about = ours(duration_s=5 * 86_400.0)
    about.say(used())
    about.advance(2 * 86_400.0)
    done = msgspec.structs.replace(FAILED, result="done")
    async with process(about) as made:
        said: list[int] = []

        def ends(record: Record) -> None:
            if isinstance(record, Kept) and record.proposal and not said:
                said.append(len(about.log.topics["api.decisions"]))
                if over == "revoked":
                    of = msgspec.structs.replace(record.proposal, rung="revoke", act_id="r", response_id="r")
                    about.say(of)
                    about.say(msgspec.structs.replace(done, act_id="r", response_id="r", direction="apply"))
                    return
                asked = undo(force=True, asked_us=about.log.now_us)
                for each in (asked, ANN.says(asked.ticket), BOB.says(asked.ticket), done):
                    about.say(each)

        before_each_write(made, ends)
        await made.care()
    records = about.log.topics["api.decisions"]
    start = next(n for n, each in enumerate(records) if isinstance(decode(each.value), Kept))
    later = Ledger()
    for each in records[start:]:
        later.apply(each.offset, each.timestamp_us, decode(each.value))
    act = later.act_of("rotate-k1")
    assert act is not None
    assert not act.stands


def test_a_signature_serves_one_forced_undo_and_a_no_is_not_written_over_by_copies() -> None:
    asked = undo(force=True)
    no = ANN.says(asked.ticket, yes=False)
    yes = [ANN.says(asked.ticket), BOB.says(asked.ticket)]
    about = ours()
    about.say(used())
    ledger = read(about)
    once: list[Record] = [asked, yes[0], no]
    for record in once:
        ledger.apply(ledger.next_offset, NOW_US, record)
    copies: list[Record] = [asked, *yes]
    for record in copies:
        assert not ledger.apply(ledger.next_offset, NOW_US, record).granted
    ledger = read(about)
    failed: list[Record] = [asked, *yes, FAILED]
    verdicts = [ledger.apply(ledger.next_offset, NOW_US, each).granted for each in failed]
    assert verdicts == [False, True, True, False]
    another = msgspec.structs.replace(asked, by="eve")
    assert "waits for 2" in ledger.apply(ledger.next_offset, NOW_US, another).reason, "signed for ann's"


def test_a_forced_undo_waits_as_long_as_approvals_may_and_serves_no_later() -> None:
    about = ours(approval_s=3 * 86_400.0)
    about.say(used())
    asked, ledger = undo(force=True), read(about)
    late_us = NOW_US + 2 * DAY_US
    ledger.apply(ledger.next_offset, NOW_US, asked)
    assert ledger.apply(ledger.next_offset, late_us, ANN.says(asked.ticket)).reason == "1 of 2 approved"
    assert ledger.apply(ledger.next_offset, late_us, BOB.says(asked.ticket, yes=False)).granted
    copies: list[Record] = [asked, ANN.says(asked.ticket), BOB.says(asked.ticket)]
    for record in copies:
        assert not ledger.apply(ledger.next_offset, NOW_US + 3 * DAY_US, record).granted
    assert "at another time" in ledger.apply(ledger.next_offset, NOW_US + 3 * DAY_US + 1, asked).reason


async def test_where_the_new_secret_keeps_the_keys_id_nothing_tells_that_it_is_in_use() -> None:
    about = ours(ends_old=False)
    rotated = [each for each in map(decode, about.log.values("api.decisions")) if isinstance(each, Finished)][-1]
    same = ours()
    same.log.topics["api.decisions"].clear()
    for each in map(decode, about.log.values("api.decisions")):
        if each is not None:
            same.say(msgspec.structs.replace(each, new_key_id="k1") if each == rotated else each)
    assert await look(same, [row(new="k1", quiet_days=0.1, state="draining")])
    assert not [each for each in map(decode, same.log.values("api.decisions")) if isinstance(each, Used)]


def test_a_rotation_whose_gateway_has_ended_the_old_key_is_not_said_again_for_ever() -> None:
    about = ours(ends_old=False)
    ledger = read(about)
    ledger.apply(ledger.next_offset, NOW_US + 3 * DAY_US, used())
    assert ledger.act_of("rotate-k1") is None
    assert read(ours(ends_old=False, duration_s=0.0)).act_of("rotate-k1") is not None


async def test_an_overlap_without_a_deadline_is_said_to_be_late_once_and_neither_put_off_nor_ended_by_it() -> None:
    """It was "put off to 1970" a quarter of a minute later, told anew five minutes later, and so on all night."""
    about = ours(duration_s=0.0)
    late = row(new="k1-new", quiet_days=0.1, state="overdue", deadline_us=NOW_US - DAY_US)
    assert await look(about, [late], looks=4)
    records = list(map(decode, about.log.values("api.decisions")))
    (seen,) = [each for each in records if isinstance(each, RotationSeen)]
    assert not [each for each in records if isinstance(each, RotationOver)]
    assert "once its traffic has moved" in seen.end
    assert "respond extend" not in seen.end
    assert not about.gateway.effects


async def test_a_use_of_days_ago_that_the_stream_was_not_read_for_is_seen_in_clickhouse() -> None:
    about = ours(duration_s=30 * 86_400.0)
    once: dict[str, Any] = {"state": "draining", "new_requests_24h": 0, "new_used_us": NOW_US - 2 * DAY_US}
    assert await look(about, [row(new="k1-new", quiet_days=0.1, deadline_us=NOW_US + 30 * DAY_US, **once)])
    (seen,) = [each for each in map(decode, about.log.values("api.decisions")) if isinstance(each, Used)]
    assert seen.at_us == NOW_US - 2 * DAY_US


@pytest.mark.parametrize(
    ("word", "switch"), [(extended(), "extend"), (undo(force=True), "force_undo"), (ANN, "sign_undo")]
)
async def test_what_people_say_of_one_rotation_is_in_its_keys_audit(word: Any, switch: str) -> None:
    about = ours()
    about.say(used())
    if word is ANN:
        about.say(undo(force=True))
        word = ANN.says(undo(force=True).ticket)
    about.say(word)
    assert await live(about)
    (line,) = [line for line in about.lines() if line.switch == switch]
    assert (line.key_id, line.key_version, line.rung, line.incident_id) == ("k1", 1, "observe", "")


SAID: list[Record] = [
    extended(), extended(NOW_US + DAY_US), used(), undo(), undo(force=True), FAILED, ANN.says(undo(force=True).ticket),
    BOB.says(undo(force=True).ticket), msgspec.structs.replace(FAILED, result="done"),
]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.sampled_from(SAID), max_size=8), st.lists(st.sampled_from(SAID), max_size=4))
def test_whoever_has_only_what_is_said_again_decides_as_who_has_read_all(
    before: list[Record], after: list[Record]
) -> None:
    """An undo under way is asked for once more, and what waited for signatures asks for them anew: no less is safe."""
    whole, fresh = read(ours()), Ledger()
    for record in before:
        whole.apply(whole.next_offset, NOW_US, record)
    act = whole.acts[False, "rotate-k1"]
    if not act.stands or whole.forces.waiting or (act.undo and act.undo.stage == "open"):
        return
    fresh.apply(whole.next_offset, NOW_US, again := kept(act, "a"))
    whole.apply(whole.next_offset, NOW_US, again)
    for record in after:
        offset = whole.next_offset
        granted = [each.apply(offset, NOW_US, record).granted for each in (whole, fresh)]
        if isinstance(record, Undo) and record.force:
            return  # whether its ticket was used up is forgotten with it, after longer than it is good for
        assert granted[0] == granted[1] or isinstance(record, Extended), record
    states = [
        (act.stands, act.taken_back, act.overlaps, bool(act.used_us), act.until_us, act.undo and act.undo.words)
        for act in (each.acts[False, "rotate-k1"] for each in (whole, fresh))
    ]
    assert states[0] == states[1]


def test_kept_says_of_an_undo_under_way_that_it_is_wanted() -> None:
    ledger = read(ours())
    ledger.apply(ledger.next_offset, NOW_US, undo())
    again, fresh = kept(ledger.acts[False, "rotate-k1"], "a"), Ledger()
    fresh.apply(0, NOW_US, again)
    act = fresh.acts[False, "rotate-k1"]
    assert act.undo is not None
    assert (act.taken_back, act.undo.stage, act.undo.asked) == (True, "failed", undo())
    assert isinstance(again.undo, Undo)
