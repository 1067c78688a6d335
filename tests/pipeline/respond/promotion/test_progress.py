"""Promotion: two weeks and fifty reviewed acts without a wrong one, counted from the audit and people's words."""

from __future__ import annotations

import time

import msgspec
import pytest

from pipeline.config.policy import Policy, Rule
from pipeline.config.tree import ClickHouse
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.entries import Promoted
from pipeline.respond.promotion.earned import Promotions, Stage, Who
from pipeline.respond.promotion.progress import Tally, lines, progress, tallies, where
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.incident import Rung
from tests.pipeline.respond.people import ANN, BOTH
from tests.row_examples import rows_of

GOOD = Tally(stage="simulated", rungs=("fence",), days=15.0, acts=60, reviewed=50, wrong=0)


def simulated(**changes: object) -> Tally:
    return msgspec.structs.replace(GOOD, **changes)


def test_after_two_weeks_and_fifty_reviewed_without_a_wrong_one_it_may_go_on() -> None:
    told = progress("simulate", {"simulated": GOOD})
    assert (told.stage, told.next, told.missing) == ("simulate", "fence", ())
    assert "may go on to fence" in "\n".join(lines(told))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"days": 13.5}, "0.5 more days"),
        ({"reviewed": 49}, "1 more reviewed acts (11 wait)"),
        ({"wrong": 1}, "1 wrong acts"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, object], says: str) -> None:
    told = progress("simulate", {"simulated": simulated(**changes)})
    assert told.missing and says in told.missing[0]


def test_a_policy_that_never_decided_anything_has_everything_before_it() -> None:
    told = progress("simulate", {})
    assert len(told.missing) == 2


def test_simulated_acts_are_no_experience_with_real_ones() -> None:
    told = progress("fence", {"simulated": GOOD})
    assert (told.stage, told.next) == ("fence", "suspend")
    assert len(told.missing) == 2
    assert progress("fence", {"real": GOOD}).missing == ()


def test_the_last_stage_has_no_next_and_a_wrong_act_sends_back() -> None:
    told = progress("suspend", {"real": GOOD})
    assert (told.stage, told.next, told.missing) == ("suspend", "", ())
    assert progress("suspend", {"real": simulated(wrong=2)}).missing


def rules(*rungs: str, **policy: str) -> Ladder:
    made = Rule(name="a", rung=msgspec.convert(rungs[0], Rung), otherwise=msgspec.convert(rungs[1:], tuple[Rung, ...]))
    return Ladder(Policy(**({"mode": "enforce", "adapter": "keys"} | policy)), (made,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ladder", "stage", "by_rules"),
    [
        (rules("fence", "flag"), "fence", True),
        (rules("fence", "throttle"), "suspend", True),  # the owner feels it
        (rules("suspend"), "suspend", True),
        (rules("suspend", promotion="required"), "simulate", False),
        (rules("suspend", mode="simulate"), "simulate", False),
    ],
)
def test_where_nobody_took_a_step_the_stage_is_what_the_rules_do_unless_one_is_required(
    ladder: Ladder, stage: Stage, by_rules: bool
) -> None:
    at = where(ladder, Promotions(), Who.of(ladder.policy, BOTH))
    assert (at.stage, at.step, at.by_rules) == (stage, None, by_rules)


@pytest.mark.parametrize("promotion", ["advised", "required"])
def test_a_step_that_somebody_took_is_the_stage_whether_one_is_required_or_not(promotion: str) -> None:
    ladder, made = rules("suspend", promotion=promotion), Promotions()
    record = Promoted(to="fence", by="ann", reason="", asked_us=5)
    made.apply(record, 5)
    made.hear(ANN.says(record.ticket), 6)
    at = where(ladder, made, Who.of(ladder.policy, BOTH))
    assert (at.stage, at.since_us, at.by_rules) == ("fence", 5, False)


async def test_each_incident_counts_once_by_its_newest_feedback(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(clickhouse)
    now_us = int(time.time() * 1e6)
    day_us = 86_400_000_000
    await sink.write("responses", rows_of(
        "responses", 6, incident_id=["i1", "i1", "i2", "i3", "i4", "i5"], rung=["fence"] * 5 + ["observe"],
        stage=["decided"] * 4 + ["done", "decided"], verdict=["simulated"] * 3 + ["refused", "simulated", "simulated"],
        at=[now_us - 20 * day_us] + [now_us - day_us] * 5, offset=range(6), body=['{"policy_version": "p1"}'] * 6,
    ))  # fmt: skip
    await sink.write("controls", rows_of(
        "controls", 3, kind=["feedback"] * 3, incident_id=["i1", "i1", "i9"], control_id=["a", "b", "c"],
        verdict=["expected", "malicious", "expected"], seq=[1, 2, 3],
    ))  # fmt: skip
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    assert tallies(client, "p2") == {}  # the policy was changed: nothing was decided by this one
    (told,) = tallies(client, "p1").values()
    client.close()
    assert (told.stage, told.rungs, told.acts, told.reviewed, told.wrong) == ("simulated", ("fence",), 2, 1, 0)
    assert 19.9 < told.days < 20.1


async def test_what_came_before_the_step_or_ended_what_people_approved_and_the_drills_decoy_are_no_experience(
    clickhouse: ClickHouse,
) -> None:
    sink, now_us = ClickHouseSink(clickhouse), int(time.time() * 1e6)
    body = '{"policy_version": "p1", "approvals": [%s]}'
    undo = '{"policy_version": "p1", "direction": "undo"}'
    await sink.write("responses", rows_of(
        "responses", 5, incident_id=["old", "auto", "people", "drill", "old"], rung=["fence"] * 5,
        stage=["decided"] * 5, verdict=["allowed"] * 5, at=[now_us - 10_000_000] + [now_us] * 4,
        key_id=["k", "k", "k", "decoy", "k"], offset=range(5),
        body=[body % "", body % "", body % '"ann"', body % "", undo],
    ))  # fmt: skip
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    (told,) = tallies(client, "p1", now_us - 5_000_000, "decoy").values()
    (all_of_them,) = tallies(client, "p1").values()
    client.close()
    assert (told.acts, all_of_them.acts) == (1, 3)


def test_what_was_overridden_is_told_as_what_it_is() -> None:
    overridden = progress("revoke", {"real": GOOD})
    assert (overridden.stage, overridden.next) == ("revoke", "")
    assert lines(overridden)[0].startswith("stage revoke: every rung by itself, revoke too")
