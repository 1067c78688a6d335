"""A rotated key is revoked once its traffic has moved: by the way of any act, once, and never on what is not known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from pipeline.errors import Retry
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.rotations import Begun, Rotation, Source, drained
from pipeline.respond.act import act_id
from pipeline.respond.caps import ROTATION
from pipeline.respond.guard import refusals
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.entries import Kept, Proposed, Record, Simulating, Switched, Undo, decode
from pipeline.respond.ledger.ledger import Ledger
from pipeline.respond.night.night import Books
from pipeline.respond.night.notices import of_rotation
from pipeline.respond.night.records import Leftover, Protection, RotationSeen
from pipeline.respond.rotation.drain import Question, begun, judge
from schemas.key import Key
from tests.pipeline.respond.incidents import NOW_S, key
from tests.pipeline.respond.ledger.test_ledger import finished, proposed
from tests.pipeline.respond.lives import POLICY, WAS, Lives, Process
from tests.pipeline.respond.memory_log import Fuse, Killed, MemoryPublisher
from tests.pipeline.respond.test_caretaker import forget
from tests.pipeline.respond.test_handle import Catalogue as Declared

NOW_US = int(NOW_S * 1e6)
DAY_US = 86_400_000_000
SOURCE = Source(key_id="k1", prefix="192.0.2.0/24", country="DE", asn=64_500, client="curl", requests=9, last_us=NOW_US)
ON = Ladder(msgspec.structs.replace(POLICY, revoke_at_drain=True), ())


def row(old: str = "k1", quiet_days: float = 9.0, **changes: Any) -> Rotation:
    """A rotation of 20 days ago whose old key was used last so long ago."""
    drain = drained(NOW_US - int(quiet_days * DAY_US), NOW_US - 20 * DAY_US, NOW_US, 3_600.0, 86_400.0)
    values: dict[str, Any] = {
        "old": old, "new": "k9", "owner": f"owner-{old}", "state": "drained" if drain.drained else "overdue",
        "began_us": NOW_US - 20 * DAY_US, "deadline_us": NOW_US - 13 * DAY_US, "old_requests_24h": 0,
        "new_requests_24h": 40, "old_share": 0.0, "drain": drain, "sources": [SOURCE],
        "known_since_us": NOW_US - 90 * DAY_US, "new_used_us": NOW_US,
    }  # fmt: skip
    return Rotation(**(values | changes))


def question(**changes: Any) -> Question:
    values: dict[str, Any] = {
        "row": row(), "as_of_us": NOW_US, "ladder": ON, "key": key("k1"), "catalogue_error": "", "killed": "",
        "blind": "", "now_s": NOW_S,
    }  # fmt: skip
    return Question(**(values | changes))


def test_a_drained_key_passes_all_guards() -> None:
    assert refusals(judge(question())) == ()


@pytest.mark.parametrize(
    ("changes", "guard"),
    [
        ({"row": row(quiet_days=0.5)}, "drained"),
        ({"row": row(began_us=0)}, "drained"),
        ({"row": row(new_requests_24h=0)}, "successor"),
        ({"row": row(known_since_us=NOW_US - 30 * DAY_US, deadline_us=NOW_US + DAY_US)}, "history"),
        ({"row": row(known_since_us=0, deadline_us=0)}, "history"),
        ({"as_of_us": NOW_US - 601_000_000}, "freshness"),
        ({"as_of_us": 0}, "freshness"),
        ({"blind": "behind by 400 s"}, "sight"),
        ({"killed": "the file exists"}, "kill_switch"),
        ({"ladder": replace(ON, policy=msgspec.structs.replace(ON.policy, mode="off"))}, "mode"),
        ({"key": None}, "catalogued"),
        ({"key": None}, "protected"),
        ({"catalogue_error": "no broker"}, "catalogued"),
        ({"key": key("k1", protected=True)}, "protected"),
        ({"key": key("k1", decoy=True)}, "protected"),
        ({"key": key("k1", status="suspended")}, "status"),
        ({"key": key("k1", version=0)}, "key_version"),
    ],
)
def test_what_is_not_known_to_have_moved_is_not_revoked(changes: dict[str, Any], guard: str) -> None:
    assert guard in {each.guard for each in refusals(judge(question(**changes)))}


@dataclass
class Seen:
    """ClickHouse: these rotations."""

    rows: list[Rotation]
    as_of_us: int
    begun: list[tuple[Begun, ...]] = field(default_factory=list)
    error: Exception | None = None

    def look(self, catalogue: Catalogue, begun: tuple[Begun, ...]) -> tuple[int, list[Rotation]]:
        self.begun.append(begun)
        if self.error:
            raise self.error
        return self.as_of_us, self.rows


def world(**changes: Any) -> Lives:
    keys: dict[str, Key] = {f"k{i}": key(f"k{i}", owner=f"owner-k{i}") for i in range(9)} | changes
    return Lives(catalogue=Declared(keys), ladder=ON)


async def look(
    about: Lives,
    rows: list[Rotation],
    *,
    fuse: Fuse | None = None,
    looks: int = 2,
    error: Exception | None = None,
    blind: str = "",
    old_s: float = 0.0,
) -> bool:
    """One process' life with so many looks and all that is due then; False if it was killed."""
    process, books = Process(about, "a", frozenset({0, 1}), fuse or Fuse(), 0.0), Books()
    process.decisions.followers.append(books.apply)
    drain = process.drain
    drain.books, drain.rotations = books, Seen(rows, about.log.now_us - int(old_s * 1e6), error=error)
    drain.held, drain.blind = (lambda: held(about)), (lambda: blind)
    try:
        await process.decisions.start()
        await process.care()
        for _ in range(looks):
            await drain.end_overlaps()
            await drain.look()
        await process.care()
    except Killed:
        return False
    finally:
        await process.caretaker.close()
        await process.decisions.close()
    return True


def held(about: Lives) -> Catalogue | None:
    keys = about.catalogue.keys
    return None if keys is None else Catalogue.of(keys.values())


@asynccontextmanager
async def process(about: Lives) -> AsyncIterator[Process]:
    """A process that has read the topic."""
    made = Process(about, "a", frozenset({0, 1}), Fuse(), 0.0)
    await made.decisions.start()
    yield made
    await made.caretaker.close()
    await made.decisions.close()


def before_each_write(made: Process, do: Callable[[Record], None]) -> None:
    """What others write right before this process' own records."""
    publish = made.decisions.publisher.publish

    async def second(topic: str, key: bytes, value: bytes, *rest: Any, **more: Any) -> int:
        record = decode(value) if topic == "api.decisions" else None
        if record is not None:
            do(record)
        return await publish(topic, key, value, *rest, **more)

    made.decisions.publisher.publish = second  # type: ignore[method-assign]


def rotated(about: Lives, key_id: str = "k1", ends_old: bool = True, **changes: Any) -> Proposed:
    """The responder has rotated this key, with an overlap of an hour."""
    values: dict[str, Any] = {
        "rung": "rotate", "duration_s": 3_600.0, "adapter": "keys", "owner": f"owner-{key_id}",
        "act_id": f"rotate-{key_id}", "response_id": f"rotate-{key_id}", "rule": "leaked",
    }  # fmt: skip
    of = proposed(key_id, **(values | changes))
    about.say(of)
    about.say(msgspec.structs.replace(finished(of), new_key_id=f"{key_id}-new", ends_old=ends_old, before=WAS))
    return of


def lines(about: Lives) -> list[tuple[str, str, str]]:
    return [(line.key_id, line.stage, line.verdict) for line in about.lines() if not line.switch]


async def test_it_is_revoked_once_with_every_stage_in_the_audit_however_often_one_looks() -> None:
    about = world()
    assert await look(about, [row()], looks=3)
    assert await look(about, [row()])
    assert list(about.gateway.set_on) == [("k1", "revoke")]
    assert lines(about) == [("k1", "decided", "allowed"), ("k1", "acting", "allowed"), ("k1", "done", "allowed")]
    decided = about.lines()[0]
    assert (decided.rule, decided.policy_version) == ("revoke_at_drain", ON.version)
    assert decided.reason.startswith("rotated to k9: quiet for 9 days")
    about.advance(2 * 86_400.0)  # the catalogue still says active
    assert await look(about, [row(began_us=NOW_US)])
    assert len(about.gateway.effects) == 1


async def test_killed_at_any_effect_it_is_revoked_under_one_id() -> None:
    fuse, oracle = Fuse(), world()
    await look(oracle, [row()], fuse=fuse)
    assert 4 < fuse.count < 20
    for at in range(fuse.count):
        for after in (False, True):
            about = world()
            await look(about, [row()], fuse=Fuse(at, after))
            assert await look(about, [row()])
            assert about.gateway.set_on == oracle.gateway.set_on, (at, after)
            assert {each.intent.act_id for each in about.gateway.effects} == set(oracle.gateway.set_on.values())
            assert set(lines(about)) == set(lines(oracle)), (at, after)


async def test_it_does_nothing_unless_the_policy_says_so_and_only_simulates_by_default() -> None:
    off, simulated = world(), world()
    off.ladder = Ladder(POLICY, ())
    simulated.ladder = ON.simulated()
    assert await look(off, [row()])
    assert await look(simulated, [row()], looks=3)
    assert lines(off) == []
    assert lines(simulated) == [("k1", "decided", "simulated")]
    assert not off.gateway.effects
    assert not simulated.gateway.effects


async def test_its_cap_is_its_own_and_what_is_beyond_it_is_refused_and_no_emergency() -> None:
    about = world()
    for number in (5, 6, 7):
        about.say(proposed(f"k{number}", rung="suspend", max_per_hour=3))
    assert await look(about, [row(f"k{i}") for i in range(1, 5)], looks=5)
    assert sorted(name for name, rung in about.gateway.set_on if rung == "revoke") == ["k1", "k2", "k3"]
    assert [line.reason[:5] for line in about.lines() if line.verdict == "refused"] == ["caps:"]
    ledger = Ledger()
    for offset, value in enumerate(about.log.values("api.decisions")):
        ledger.apply(offset, about.log.now_us, decode(value))
    assert ledger.queue == {}


async def test_a_look_acts_on_one_key_so_that_the_next_is_looked_at_anew() -> None:
    about = world()
    assert await look(about, [row("k1"), row("k2")], looks=1)
    assert len(about.gateway.effects) == 1


async def test_what_failed_is_not_tried_again_before_a_day_is_over() -> None:
    about = world()
    about.gateway.mood = "fails"
    assert await look(about, [row()], looks=4)
    about.gateway.mood = "ok"
    assert await look(about, [row()], looks=4)
    assert about.gateway.set_on == {}
    about.advance(90_000.0)
    assert await look(about, [row()])
    assert list(about.gateway.set_on) == [("k1", "revoke")]


async def test_nothing_is_revoked_before_somebody_has_seen_that_requests_are_judged() -> None:
    about = world()
    assert await look(about, [row()], blind="this responder has not looked yet")
    assert not about.gateway.effects
    assert about.lines()[0].reason == "sight: this responder has not looked yet"


async def test_a_refusal_is_recorded_once_and_the_key_is_revoked_when_its_reason_is_gone() -> None:
    about = world()
    about.say(Switched(stop=True, by="ann", reason="a deploy"))
    assert await look(about, [row()], looks=3)
    assert lines(about) == [("k1", "decided", "refused")]
    about.say(Switched(stop=False, by="ann"))
    assert await look(about, [row()])
    assert list(about.gateway.set_on) == [("k1", "revoke")]


async def test_a_key_that_waits_to_be_deleted_is_not_revoked_anew_when_the_ledger_has_forgotten_it() -> None:
    about = world()
    about.say(Leftover(key_id="k1", key_version=1, adapter="keys", incident_id="i", since_us=NOW_US - 40 * DAY_US))
    assert await look(about, [row()])
    assert not about.gateway.effects
    assert lines(about) == []


@pytest.mark.parametrize("record", [Protection(lost=True, since_us=NOW_US, why="behind"), Switched(stop=True, by="a")])
async def test_nothing_is_revoked_while_keywatch_is_blind_or_stopped(record: Protection | Switched) -> None:
    about = world()
    about.say(record)
    assert await look(about, [row()])
    assert not about.gateway.effects


async def test_without_clickhouse_nothing_is_done_and_nothing_falls() -> None:
    about = world()
    assert await look(about, [row()], error=Retry("away"))
    assert lines(about) == []


async def test_a_rotation_near_its_deadline_is_said_once() -> None:
    about = world()
    late = row(quiet_days=0.1, old_requests_24h=12)
    assert await look(about, [late], looks=3)
    assert await look(about, [late])
    said = [each for each in map(_record, about.log.values("api.decisions")) if isinstance(each, RotationSeen)]
    assert [(each.old, each.state, each.requests_24h) for each in said] == [("k1", "overdue", 12)]
    assert said[0].sources == ("curl from 192.0.2.0/24 (AS64500)",)


def test_a_rotation_by_the_ladder_is_one_too_until_it_is_undone() -> None:
    ledger = Ledger()
    rotated = proposed("k1", rung="rotate", simulated=False)
    ledger.apply(0, NOW_US, Kept(proposal=rotated, at_us=NOW_US, until_us=NOW_US + DAY_US, new_key_id="k1-new"))
    assert begun(ledger) == [Begun(old="k1", new="k1-new", began_us=NOW_US, deadline_us=NOW_US + DAY_US)]


def _record(value: bytes) -> object:
    return decode(value)


async def test_at_the_deadline_of_our_own_rotation_the_old_key_is_revoked_in_use_or_not_and_without_clickhouse() -> (
    None
):
    about = world()
    about.ladder = Ladder(POLICY, ())  # whatever revoke_at_drain says
    rotated(about)
    about.advance(3_590.0)
    assert await look(about, [])
    assert not about.gateway.effects
    about.advance(11.0)
    assert await look(about, [], error=Retry("away"), blind="nobody looks")
    assert await look(about, [], error=Retry("away"))
    (effect,) = about.gateway.effects
    assert (effect.intent.key_id, effect.intent.rung) == ("k1", "revoke")
    assert [(line.stage, line.rule) for line in about.lines()] == [
        ("decided", "leaked"), ("acting", "leaked"), ("done", "leaked"),
    ]  # fmt: skip
    assert "rotated to k1-new: its overlap was over at 2026-11-18 12:06 UTC" in about.lines()[0].reason


async def test_killed_at_any_effect_the_deadline_is_kept_once() -> None:
    async def over(fuse: Fuse) -> Lives:
        about = world()
        rotated(about)
        about.advance(3_601.0)
        await look(about, [], fuse=fuse)
        return about

    fuse = Fuse()
    oracle = await over(fuse)
    assert 4 < fuse.count < 20
    for at in range(fuse.count):
        for after in (False, True):
            about = await over(Fuse(at, after))
            assert await look(about, [])
            assert about.gateway.set_on == oracle.gateway.set_on == {("k1", "revoke"): act_id("k1", 1)}, (at, after)
            assert {each.intent.act_id for each in about.gateway.effects} == {act_id("k1", 1)}, (at, after)


async def test_an_undo_before_the_deadline_deletes_the_new_key_and_the_old_one_lives_on() -> None:
    for mood in ("ok", "fails"):  # one that fails is tried again, and what it wants is known
        about = world()
        of = rotated(about)
        about.gateway.mood = mood
        about.say(Undo(act_id=of.act_id, by="ann", reason="ours", responder=""))
        about.advance(3_601.0)
        assert await look(about, [])
        about.gateway.mood = "ok"
        assert await look(about, [])
        assert {each.intent.direction for each in about.gateway.effects} <= {"undo"}
        assert all(each.intent.before == WAS for each in about.gateway.effects)


def test_whoever_undoes_a_rotation_just_before_its_end_is_heard_and_a_proof_is_still_acted_on() -> None:
    ledger = Ledger()
    of = proposed("k1", rung="rotate", act_id="rotate", response_id="rotate")
    records: list[Record] = [of, finished(of), Undo(act_id="rotate", by="ann", reason="ours", responder="")]
    for offset, record in enumerate(records):
        ledger.apply(offset, NOW_US, record)
    refused = ledger.apply(3, NOW_US, proposed("k1", cap=ROTATION))
    assert (refused.granted, refused.guard) == (False, "undo")
    assert ledger.apply(4, NOW_US, proposed("k1", cap="proof")).granted


async def test_after_its_end_a_rotation_has_no_undo() -> None:
    about = world()
    of = rotated(about)
    about.advance(3_601.0)
    assert await look(about, [])
    ledger = read(about)
    act = ledger.act_of(of.act_id)
    assert act is not None
    assert "superseded, by a revocation" in ledger.why_no_undo(act)


@pytest.mark.parametrize(
    ("changes", "record", "guard"),
    [
        ({}, Switched(stop=True, by="ann"), "kill_switch"),
        ({}, Kept(offset=0, at_us=NOW_US, owners=("a", "b")), "breaker"),
        ({"k1": key("k1", protected=True)}, None, "protected"),
    ],
)
async def test_a_deadline_that_may_not_be_kept_is_refused_and_told_once(
    changes: dict[str, Key], record: Switched | Kept | None, guard: str
) -> None:
    about = world(**changes)
    rotated(about)
    if record:
        about.say(record)
    about.advance(3_601.0)
    assert await look(about, [])
    assert not [each for each in map(_record, about.log.values("api.decisions")) if isinstance(each, RotationSeen)]
    about.advance(300.0)
    about.log.topics["api.responses"].clear()  # another process says it again
    assert await look(about, [], looks=3)
    assert not about.gateway.effects
    (line,) = [each for each in about.lines() if not each.switch]
    assert (line.verdict, line.reason.partition(":")[0]) == ("refused", guard)
    (said,) = [each for each in map(_record, about.log.values("api.decisions")) if isinstance(each, RotationSeen)]
    assert said.state == "held"
    told = of_rotation(said, "held:1", NOW_US)
    assert told.severity == "high"
    assert "the old key is still valid" in told.title
    assert f"Keywatch did not end it: {guard}" in told.text


@pytest.mark.parametrize(("changes", "guard"), [({"version": 2}, "key_version"), ({"status": "revoked"}, "status")])
async def test_of_an_old_key_that_is_ended_or_has_another_secret_nothing_is_told(
    changes: dict[str, Any], guard: str
) -> None:
    about = world(k1=key("k1", **changes))
    rotated(about)
    about.advance(4_000.0)
    assert await look(about, [])
    assert not about.gateway.effects
    assert [line.reason.partition(":")[0] for line in about.lines() if not line.switch] == [guard]
    assert not [each for each in map(_record, about.log.values("api.decisions")) if isinstance(each, RotationSeen)]


async def test_the_topics_clock_goes_on_for_a_deadline_though_nothing_else_is_written() -> None:
    about = world()
    async with process(about) as made:
        of = rotated(about)
        await made.care()
        about.advance(3_601.0)
        await made.care()
        act = made.decisions.ledger.act_of(of.act_id)
        assert act is not None
        assert 0 < act.until_us <= made.decisions.ledger.now_us


async def test_by_the_simulate_switch_a_deadline_is_only_told_of() -> None:
    about = world()
    rotated(about)
    about.say(Simulating(on=True, by="ann"))
    about.advance(3_601.0)
    assert await look(about, [], looks=3)
    assert not about.gateway.effects
    assert [line.verdict for line in about.lines() if not line.switch] == ["simulated"]


async def test_deadlines_are_within_the_cap_of_rotations() -> None:
    about = world()
    for number in range(5):
        rotated(about, f"k{number}", max_per_hour=9)
    about.advance(3_601.0)
    assert await look(about, [], looks=9)
    assert len([spot for spot in about.gateway.set_on if spot[1] == "revoke"]) == 3
    asked = [each for each in map(_record, about.log.values("api.decisions")) if isinstance(each, Proposed)]
    assert [each.rung for each in asked].count("revoke") == 5
    about.advance(3_601.0)
    assert await look(about, [])
    assert len([spot for spot in about.gateway.set_on if spot[1] == "revoke"]) == 5


async def test_our_own_rotation_ends_when_its_traffic_has_moved_whatever_the_policy_says_of_others() -> None:
    about = world()
    about.ladder = Ladder(POLICY, ())
    rotated(about)
    assert await look(about, [row("k2"), row()])
    assert list(about.gateway.set_on) == [("k1", "revoke")]


async def test_where_the_gateway_ends_the_old_key_or_an_older_release_rotated_nothing_is_revoked() -> None:
    about = world()
    about.ladder = Ladder(POLICY, ())
    rotated(about, ends_old=False)
    about.advance(3_601.0)
    assert await look(about, [row()])
    assert not about.gateway.effects


async def test_a_deadline_outlives_what_the_topic_forgets() -> None:
    about = world()
    long = proposed("k1", rung="rotate", adapter="keys", act_id="rotate-k1", response_id="rotate-k1", rule="leaked")
    about.say(Kept(proposal=long, at_us=NOW_US - DAY_US, until_us=NOW_US + DAY_US, new_key_id="n", ends_old=True))
    assert await look(about, [])
    assert not about.gateway.effects
    about.advance(86_401.0)
    assert await look(about, [])
    assert list(about.gateway.set_on) == [("k1", "revoke")]


async def test_that_it_will_be_revoked_is_said_before_the_deadline_with_the_command_that_prevents_it() -> None:
    about = world()
    rotated(about)
    assert await look(about, [row(quiet_days=0.1, state="due", deadline_us=NOW_US + DAY_US)])
    (said,) = [each for each in map(_record, about.log.values("api.decisions")) if isinstance(each, RotationSeen)]
    told = of_rotation(said, "due:1", NOW_US)
    assert "Keywatch revokes the old key then, also if it is in use" in told.text
    assert "keywatch respond undo rotate-k1 --reason TEXT" in told.text


async def test_where_it_is_only_simulated_the_words_before_the_deadline_say_so_and_what_the_undo_does() -> None:
    about = world()
    rotated(about)
    about.say(Simulating(on=True, by="ann", reason="a deploy"))
    assert await look(about, [row(quiet_days=0.1, state="due", deadline_us=NOW_US + DAY_US)])
    (said,) = rotations_said(about)
    assert "put to simulate by ann: a deploy" in said.end
    assert "deletes the new key" in said.end


@pytest.mark.parametrize("mode", ["switch", "policy"])
async def test_a_deadline_that_is_only_simulated_is_told_as_not_kept(mode: str) -> None:
    about = world()
    rotated(about)
    if mode == "policy":
        about.ladder = ON.simulated()
    else:
        about.say(Simulating(on=True, by="ann"))
    about.advance(3_610.0)
    assert await look(about, [])
    assert rotations_said(about) == []
    about.advance(300.0)
    assert await look(about, [], looks=3)
    assert [(each.state, "simulate" in each.end) for each in rotations_said(about)] == [("held", True)]


@pytest.mark.parametrize(("approval_s", "stage"), [(700.0, "lapsed"), (7_000.0, "pending")])
async def test_a_deadline_that_another_revocation_which_nobody_approved_stands_before_is_told_as_not_kept(
    approval_s: float, stage: str
) -> None:
    about = world()
    rotated(about)
    about.advance(3_000.0)
    about.say(proposed("k1", approvals=1, approval_s=approval_s))
    about.advance(800.0)
    assert await look(about, [])
    about.advance(110.0)
    assert await look(about, [])
    assert not about.gateway.effects
    assert [(each.state, f"is {stage}" in each.end) for each in rotations_said(about)] == [("held", True)]


async def test_a_deadline_that_is_not_kept_is_told_once_and_not_as_overdue_too() -> None:
    about = world()
    rotated(about)
    about.say(Switched(stop=True, by="ann"))
    about.advance(3_910.0)
    late = row(quiet_days=0.1, state="overdue", deadline_us=NOW_US + 3_600_000_000)
    assert await look(about, [late], looks=3)
    assert [each.state for each in rotations_said(about)] == ["held"]


async def test_a_write_whose_acknowledgement_was_lost_neither_refuses_the_end_nor_tells_that_it_is_held() -> None:
    about = world()
    rotated(about)
    about.advance(4_000.0)
    async with process(about) as made:
        publisher = made.decisions.publisher
        assert isinstance(publisher, MemoryPublisher)
        publisher.lost = 1
        await made.drain.end_overlaps()
        await made.care()
    assert list(about.gateway.set_on) == [("k1", "revoke")]
    assert {line.verdict for line in about.lines() if not line.switch} == {"allowed"}
    assert rotations_said(about) == []


async def test_what_another_responder_has_ended_in_the_meantime_is_neither_repeated_nor_refused() -> None:
    about = world()
    rotated(about)
    about.advance(4_000.0)
    async with process(about) as made:

        def second(record: Record) -> None:
            if isinstance(record, Proposed):
                about.say(msgspec.structs.replace(record, responder="b"))
                about.say(finished(record))

        before_each_write(made, second)
        await made.care()
    assert not about.gateway.effects
    assert [line.verdict for line in about.lines() if not line.switch] == []
    assert rotations_said(about) == []


async def test_two_rotations_of_one_key_are_each_refused_once_and_not_in_turns() -> None:
    about = world(k1=key("k1", owner="owner-k1", version=2))
    for version in (1, 2):
        of = proposed("k1", rung="rotate", duration_s=3_600.0, adapter="keys", act_id=f"r{version}",
            response_id=f"r{version}", key_version=version)  # fmt: skip
        about.say(of)
        about.say(msgspec.structs.replace(finished(of), new_key_id=f"new-{version}", ends_old=True))
    about.say(Switched(stop=True, by="ann"))
    about.advance(3_601.0)
    assert await look(about, [], looks=5)
    assert len([line for line in about.lines() if not line.switch]) == 2


async def test_a_deadline_is_told_as_not_kept_while_the_catalogue_can_t_be_read_and_not_of_a_key_it_has_no_more() -> (
    None
):
    gone, deleted = world(), world()
    for about in (gone, deleted):
        rotated(about)
        about.advance(3_910.0)
    gone.catalogue.keys = None
    assert deleted.catalogue.keys is not None
    del deleted.catalogue.keys["k1"]
    for about in (gone, deleted):
        assert await look(about, [])
        assert not about.gateway.effects
    (said,) = rotations_said(gone)
    assert "the old key is still valid" in of_rotation(said, "held:1", NOW_US).title
    assert "catalogued: " in said.end
    assert rotations_said(deleted) == []


async def test_a_clock_that_jumps_back_does_not_put_off_the_next_try() -> None:
    about = world()
    for number in range(4):
        rotated(about, f"k{number}", max_per_hour=9)
    about.advance(3_601.0)
    async with process(about) as made:
        await made.drain.end_overlaps()
        about.advance(3_601.0)
        made.skew_s = -86_400.0
        await made.care()
    assert len([spot for spot in about.gateway.set_on if spot[1] == "revoke"]) == 4


@pytest.mark.parametrize("days", [7.0, 30.0])
async def test_an_overlap_that_is_longer_than_the_topic_keeps_ends_at_its_deadline_by_a_responder_that_starts_then(
    days: float,
) -> None:
    """Nothing but what is said again is left of the rotation; what its undo would need, too."""
    about = world()
    of = proposed("k1", rung="rotate", duration_s=days * 86_400.0, adapter="keys", act_id="r", response_id="r")
    about.say(of)
    about.say(msgspec.structs.replace(finished(of), new_key_id="n", ends_old=True, before=WAS))
    for _ in range(int(days) - 1):
        about.advance(86_400.0)
        assert await look(about, [])
        forget(about, days=7)
    left = read(about).act_of("r")
    assert left is not None
    assert (left.overlaps, left.before, left.new_key_id) == (True, WAS, "n")
    assert not about.gateway.effects
    about.advance(86_401.0)
    assert await look(about, [])
    assert list(about.gateway.set_on) == [("k1", "revoke")]
    for _ in range(12):  # and once, though the catalogue goes on calling it active
        about.advance(86_400.0)
        assert await look(about, [])
        forget(about, days=7)
    assert len(about.gateway.effects) == 1


def rotations_said(about: Lives) -> list[RotationSeen]:
    return [each for each in map(_record, about.log.values("api.decisions")) if isinstance(each, RotationSeen)]


def read(about: Lives) -> Ledger:
    ledger = Ledger()
    for each in about.log.topics["api.decisions"]:
        ledger.apply(each.offset, each.timestamp_us, decode(each.value))
    return ledger
