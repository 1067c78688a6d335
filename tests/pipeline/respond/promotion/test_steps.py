"""`keywatch respond promote`: counted before it is written, signed, earned or not; and what takes it back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config.tree import ClickHouse, Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.respond import commands
from pipeline.respond.ladder import ladder_of
from pipeline.respond.ledger.entries import Promoted
from pipeline.respond.promotion import progress as promotion
from pipeline.respond.promotion.earned import REVIEW, Stage, Step
from pipeline.respond.promotion.progress import Progress, Tally, Where
from pipeline.respond.promotion.review import ClickHouseWrongs, Wrong
from pipeline.respond.promotion.steps import promote
from pipeline.sinks.clickhouse import ClickHouseSink
from tests.pipeline.respond.people import ANN
from tests.pipeline.respond.test_commands import Room, room, said
from tests.row_examples import rows_of

__all__ = ["room", "said"]


class Count:
    """What ClickHouse would count; and what was asked."""

    def __init__(self) -> None:
        self.missing: tuple[str, ...] = ()
        self.asked: list[tuple[int, str]] = []

    def __call__(self, config: Config, ladder: Any, at: Where) -> Progress:
        self.asked.append((at.since_us, at.stage))
        of = Tally(stage="real", rungs=("fence",), days=15.0, acts=60, reviewed=50)
        return Progress(stage=at.stage, next="", missing=self.missing, counted=of, by_rules=at.by_rules)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    made = Count()
    monkeypatch.setattr(promotion, "count", made)
    return made


@pytest.fixture
def required(room: Room) -> Room:
    return asking(room, 1)


@pytest.fixture
def two(room: Room) -> Room:
    """A room in which a step takes two."""
    return asking(room, 2)


def asking(room: Room, approvals: int) -> Room:
    policy = msgspec.structs.replace(room.config.respond.policy, promotion="required", promotion_approvals=approvals)
    respond = msgspec.structs.replace(room.config.respond, policy=policy)
    room.config = msgspec.structs.replace(room.config, respond=respond)
    return room


def test_a_step_is_taken_once_it_is_earned_one_at_a_time_and_signed(
    required: Room, count: Count, said: Callable[[], str]
) -> None:
    count.missing = ("3.0 more days", "9 more reviewed acts (1 wait)")
    key = required.file
    with pytest.raises(ConfigError, match="--key-file"):
        promote(required.config, "carl", "fence", "", False, None)
    assert promote(required.config, "carl", "fence", "", False, key) == 1
    assert "not promoted: 3.0 more days; 9 more reviewed acts" in said()
    count.missing = ()
    assert promote(required.config, "carl", "suspend", "", False, key) == 1
    assert "fence comes first" in said()
    assert promote(required.config, "carl", "fence", "", False, key) == 0
    assert "up to fence: 60 would-be acts in 15.0 days (fence), 50 reviewed, 0 wrong" in said()
    assert promote(required.config, "carl", "fence", "", False, key) == 1
    assert promote(required.config, "carl", "suspend", "", False, key) == 0
    assert [earned for _, earned in count.asked] == ["simulate", "simulate", "fence"]
    assert count.asked[0][0] == 0 < count.asked[-1][0]
    assert promote(required.config, "carl", "revoke", "", False, key) == 1
    assert "never earned" in said()
    required.live()
    assert [(line.switch, line.by, line.verdict) for line in required.world.lines()] == [
        ("promote", "carl", "waiting"), ("sign_promotion", "carl", "allowed"),
    ] * 2  # fmt: skip


def test_a_step_whose_signature_was_lost_waits_for_an_approvers(
    required: Room, count: Count, said: Callable[[], str]
) -> None:
    step = Promoted(to="fence", by="carl", reason="", asked_us=required.world.log.now_us)
    required.world.say(step)
    commands.pending(required.config, "carl", as_json=True)
    (row,) = json.loads(said())
    assert (row["ticket"], row["rung"], row["approvals"]) == (step.ticket, "promote to fence", 1)
    commands.sign(required.config, "carl", step.ticket, True, required.file, "")
    assert "by themselves up to fence" in said()


def test_what_one_person_calls_earned_waits_for_the_second_one_too(
    two: Room, count: Count, said: Callable[[], str]
) -> None:
    assert promote(two.config, "carl", "fence", "", False, two.file) == 0
    words = said()
    assert "2 are needed: keywatch respond approve promote-" in words
    two.world.say(ANN.says(words.split("approve ")[1].strip()))
    assert promotion.show(two.config, as_json=True) == 0
    assert json.loads(said())["stage"] == "fence"


def test_who_signs_a_step_that_has_lapsed_or_was_declined_is_told_so(
    two: Room, count: Count, said: Callable[[], str]
) -> None:
    for late_s, yes in ((0.0, True), (0.0, False), (90_000.0, True)):
        step = Promoted(to="fence", by="ann", reason="", nonce=f"{late_s}{yes}", asked_us=two.world.log.now_us)
        two.world.say(step)
        two.world.say(ANN.says(step.ticket, yes))
        two.world.advance(late_s)
        commands.sign(two.config, "carl", step.ticket, True, two.file, "")
        assert ("it waits no longer" in said()) == (late_s > 0 or not yes)


def taken(required: Room, to: Stage) -> None:
    """A step that ann signed."""
    step = Promoted(to=to, by="ann", reason="", asked_us=required.world.log.now_us)
    required.world.say(step)
    required.world.say(ANN.says(step.ticket))


def test_back_goes_at_any_time_and_unsigned(required: Room, count: Count, said: Callable[[], str]) -> None:
    promote(required.config, "carl", "fence", "", False, required.file)
    assert promote(required.config, "carl", "simulate", "it was our customer", False, None) == 0
    assert "up to simulate" in said()


def test_both_commands_speak_of_one_stage_also_where_none_is_required(
    room: Room, count: Count, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    """The rules suspend, and nobody has promoted them."""
    assert promotion.show(room.config, as_json=True) == 0
    assert json.loads(said())["stage"] == "suspend"
    assert promotion.show(room.config, as_json=False) == 0
    assert "nobody has promoted this policy, the stage is what its rules do" in said()
    for to in ("fence", "suspend"):
        assert promote(room.config, "carl", to, "", False, None) == 1
        assert "acts go up to suspend by the rules, which nobody promoted: --override" in said()
    assert promote(room.config, "carl", "fence", "as before", True, room.file) == 0
    said()
    assert promotion.show(room.config, as_json=True) == 0
    assert json.loads(said())["stage"] == "fence"
    assert promote(room.config, "carl", "suspend", "", False, room.file) == 0
    assert [stage for _, stage in count.asked] == ["suspend", "suspend", "suspend", "fence", "fence"]


def test_what_is_not_earned_takes_a_reason_and_two_people(two: Room, count: Count, said: Callable[[], str]) -> None:
    count.missing = ("14.0 more days",)
    with pytest.raises(ConfigError, match="--reason"):
        promote(two.config, "carl", "suspend", "", True, two.file)
    with pytest.raises(ConfigError, match="--key-file"):
        promote(two.config, "carl", "suspend", "since March", True, None)
    assert promote(two.config, "carl", "suspend", "since March", True, two.file) == 0
    words = said()
    assert "2 are needed: keywatch respond approve promote-" in words
    ticket = words.split("approve ")[1].strip()
    commands.pending(two.config, "carl", as_json=True)
    (row,) = json.loads(said())
    assert (row["ticket"], row["rung"], row["approved_by"]) == (ticket, "promote to suspend", ["carl"])
    commands.sign(two.config, "carl", ticket[:20], True, two.file, "")
    assert "by themselves up to simulate" in said()
    two.world.say(ANN.says(ticket))
    commands.pending(two.config, "carl", as_json=False)
    assert "nothing waits" in said()
    two.live()
    switches = [(line.switch, line.by, line.verdict) for line in two.world.lines()]
    assert switches == [
        ("override_promotion", "carl", "waiting"), ("sign_promotion", "carl", "allowed"),
        ("sign_promotion", "carl", "allowed"), ("sign_promotion", "ann", "allowed"),
    ]  # fmt: skip


def test_the_second_one_is_told_to_sign_what_was_asked_last(two: Room, count: Count, said: Callable[[], str]) -> None:
    tickets = set()
    for to in ("fence", "suspend", "revoke", "fence", "suspend", "revoke"):
        promote(two.config, "carl", to, "since March", True, two.file)
        tickets.add(said().split("approve ")[1].strip())
    assert len(tickets) == 6
    commands.sign(two.config, "carl", tickets.pop(), False, two.file, "no")
    assert said().startswith("declined by carl;")


def test_a_step_back_needs_no_signature_though_one_is_given(
    required: Room, count: Count, said: Callable[[], str]
) -> None:
    taken(required, "suspend")
    assert promote(required.config, "carl", "fence", "at once", True, required.file) == 0
    assert "up to fence" in said()


def test_what_was_counted_for_a_stage_that_is_gone_takes_no_step(
    monkeypatch: pytest.MonkeyPatch, required: Room, said: Callable[[], str]
) -> None:
    taken(required, "fence")

    def slow(config: Config, ladder: Any, at: Where) -> Progress:
        required.world.say(Promoted(to="simulate", by=REVIEW, reason="wrong"))
        return Progress(stage="", next="", missing=(), counted=Tally(stage="real"), policy="")

    monkeypatch.setattr(promotion, "count", slow)
    assert promote(required.config, "carl", "suspend", "", False, required.file) == 1
    assert "meanwhile review changed the stage" in said()


def test_nobody_is_called_like_the_review(required: Room, count: Count) -> None:
    with pytest.raises(ConfigError, match="--as"):
        promote(required.config, REVIEW, "fence", "", False, None)


def test_an_override_is_signed_though_the_policy_asks_for_nobody_and_advice_refuses_nothing(
    room: Room, count: Count, said: Callable[[], str]
) -> None:
    policy = msgspec.structs.replace(room.config.respond.policy, promotion_approvals=0)
    config = msgspec.structs.replace(room.config, respond=msgspec.structs.replace(room.config.respond, policy=policy))
    with pytest.raises(ConfigError, match="--key-file"):
        promote(config, "carl", "suspend", "since March", True, None)
    assert promote(config, "carl", "suspend", "since March", True, room.file) == 0
    assert 'is "advised": nothing is refused' in said()


def test_an_override_needs_no_figures_a_step_does(required: Room, said: Callable[[], str]) -> None:
    away = msgspec.structs.replace(required.config, clickhouse=ClickHouse(url="http://127.0.0.1:9"))
    with pytest.raises((Retry, Fatal)):
        promote(away, "carl", "fence", "", False, required.file)
    assert promote(away, "carl", "fence", "it is the night", True, required.file) == 0
    assert "up to fence: not known" in said()


def test_a_stage_that_does_not_exist_is_named(room: Room, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are simulate, fence, suspend, revoke"):
        promote(room.config, "carl", "throttle", "", False, None)


def test_where_acts_are_refused_none_can_be_counted_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, room: Room
) -> None:
    monkeypatch.setattr(promotion, "tallies", lambda *asked: {})
    monkeypatch.setattr(promotion, "connected", lambda config: nullcontext())
    told = promotion.count(room.config, ladder_of(room.config.respond), Where("simulate", None))
    assert told.missing[0].startswith('mode = "simulate" until then')


async def test_what_people_call_wrong_takes_back_what_was_done_and_what_was_counted(clickhouse: ClickHouse) -> None:
    sink, now_us = ClickHouseSink(clickhouse), int(time.time() * 1e6)
    since_us = now_us - 3_600_000_000
    rows = {  # incident -> (verdict, at, policy, approvals, direction, key, feedback, when)
        "done": ("allowed", now_us, "p2", "", "apply", "k", "expected", now_us),
        "right": ("allowed", now_us, "p2", "", "apply", "k", "malicious", now_us),
        "early": ("allowed", since_us - 1, "p1", "", "apply", "k", "expected", now_us),
        "before": ("allowed", since_us - 1, "p0", "", "apply", "k", "expected", now_us),
        "again": ("allowed", since_us - 1, "p1", "", "apply", "k", "expected", since_us - 5),
        "people": ("allowed", now_us, "p2", '"ann"', "apply", "k", "expected", now_us),
        "undo": ("allowed", now_us, "p2", "", "undo", "k", "expected", now_us),
        "drill": ("allowed", now_us, "p2", "", "apply", "decoy", "expected", now_us),
        "counted": ("simulated", since_us - 9, "p1", "", "apply", "k", "expected", now_us),
        "known": ("simulated", since_us - 9, "p1", "", "apply", "k", "expected", since_us - 5),
        "other": ("simulated", since_us - 9, "p0", "", "apply", "k", "expected", now_us),
        "later": ("simulated", now_us, "p1", "", "apply", "k", "expected", now_us),
    }
    values = list(rows.values())
    await sink.write("responses", rows_of(
        "responses", len(rows), incident_id=list(rows), rung=["fence"] * len(rows), stage=["decided"] * len(rows),
        verdict=[v[0] for v in values], at=[v[1] for v in values], offset=range(len(rows)),
        key_id=[v[5] for v in values],
        body=[f'{{"policy_version": "{v[2]}", "approvals": [{v[3]}], "direction": "{v[4]}"}}' for v in values],
    ))  # fmt: skip
    await sink.write("controls", rows_of(
        "controls", len(rows), kind=["feedback"] * len(rows), incident_id=list(rows), control_id=list(rows),
        verdict=[v[6] for v in values], at=[v[7] for v in values], seq=range(1, len(rows) + 1),
    ))  # fmt: skip
    await sink.write("controls", rows_of(
        "controls", 1, kind=["feedback"], incident_id=["again"], control_id=["again"], verdict=["expected"],
        at=[now_us], seq=[len(rows) + 1],
    ))  # fmt: skip
    await sink.close()
    config = Config(clickhouse=clickhouse)
    drill = msgspec.structs.replace(config.respond.drill, key_id="decoy")
    config = msgspec.structs.replace(config, respond=msgspec.structs.replace(config.respond, drill=drill))
    step = Step(since_us, Promoted(to="fence", by="ann", reason="", policy="p1"))
    assert ClickHouseWrongs(config).since(step) == [
        Wrong(incident_id="counted", rung="fence", verdict="simulated", early=True),
        Wrong(incident_id="done", rung="fence", verdict="allowed"),
        Wrong(incident_id="early", rung="fence", verdict="allowed", early=True),
    ]
    step = Step(since_us, Promoted(to="fence", by="ann", reason="", policy="p1", override=True))
    assert [wrong.incident_id for wrong in ClickHouseWrongs(config).since(step)] == ["done"]
