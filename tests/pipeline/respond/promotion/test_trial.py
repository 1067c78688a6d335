"""A policy on history: what would have been done, in the incidents' own time, against the real caps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.config.policy import Caps, Policy, Rule
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.ladder import Ladder
from pipeline.respond.promotion.earned import Stage
from pipeline.respond.promotion.trial import Past, summary, tried
from schemas.incident import Incident
from tests.pipeline.respond.incidents import at, finding, incident, key
from tests.pipeline.respond.lives import RULES
from tests.pipeline.respond.people import BOTH

HOUR_S = 3600.0
WIDE = Caps(max_share_of_active=0.5)


def past(**changes: Any) -> Past:
    policy = Policy(mode="off", adapter="keys", caps=WIDE, fence_caps=WIDE, max_per_owner=0)
    values: dict[str, Any] = {
        "ladder": Ladder(policy, RULES), "approvers": BOTH, "keys": {f"k{i}": key(f"k{i}") for i in range(20)},
        "matrices": {"keys": MATRIX}, "networks": lambda key_id, before_us: ("192.0.2.0/24",),
    }  # fmt: skip
    return Past(**(values | changes))


def once(key_id: str, ago_s: float, **changes: Any) -> Incident:
    found = (finding("network", ago_s=ago_s), finding("outcome", ago_s=ago_s))
    values: dict[str, Any] = {"findings": found, "last_at": at(ago_s), "state": "closed", "change": "closed"}
    return incident(key_id, **(values | changes))


def test_incidents_of_last_week_are_judged_at_their_own_time_against_the_caps() -> None:
    history = [once(f"k{i}", 7 * 86_400 - i) for i in range(5)] + [once("k9", 5 * 86_400)]
    results = tried(history, past())
    assert [each.word for each in results] == ["done"] * 3 + ["refused"] * 2 + ["done"]
    assert [(each.hour, each.day) for each in results[:3]] == [(1, 1), (2, 2), (3, 3)]
    assert results[3].guard == "caps"
    assert summary(results)[0] == ("done", "suspend", 4)


@pytest.mark.parametrize("promotion", ["required", "advised"])
def test_a_policy_is_tried_at_each_stage_whether_it_must_be_earned_yet_or_not(promotion: str) -> None:
    history = [once("k1", 50), once("k2", 40, severity="high"), once("k3", 30, rule="proof")]
    policy = msgspec.structs.replace(past().ladder.policy, promotion=promotion, promotion_approvals=2, proof_caps=WIDE)

    def words(stage: Stage) -> list[tuple[str, str]]:
        return [(each.word, each.guard) for each in tried(history, past(ladder=Ladder(policy, RULES), stage=stage))]

    refused, done = ("refused", "not_promoted"), ("done", "caps")
    assert words("simulate") == [refused] * 3
    assert words("fence") == [refused, done, refused]
    assert words("suspend") == words("revoke") == [done] * 3


def test_what_ended_in_its_time_may_be_done_again() -> None:
    twice = [once("k1", 10 * HOUR_S, incident_id="a" * 32), once("k1", 9.8 * HOUR_S, incident_id="b" * 32),
             once("k1", 8 * HOUR_S, incident_id="c" * 32)]  # fmt: skip
    assert [each.word for each in tried(twice, past())] == ["done", "refused", "done"]


def test_each_rule_and_each_reason_is_told() -> None:
    protected = {"k1": key("k1", protected=True), "k2": key("k2"), "k3": key("k3"), "k4": key("k4")}
    history = [once("k1", 50), once("k2", 40, severity="high"), once("k3", 30, severity="medium"),
               once("k4", 20, environment="", findings=(finding("volume", ago_s=20),)), once("k5", 10)]  # fmt: skip
    results = tried(history, past(keys=protected))
    assert [(each.word, each.rung) for each in results] == [
        ("waiting", "suspend"), ("done", "fence"), ("waiting", "flag"), ("refused", "suspend"), ("refused", "suspend"),
    ]  # fmt: skip
    assert results[3].guard == "evidence"
    assert results[4].guard in ("catalogued", "status")


def test_no_rule_and_observe_do_nothing() -> None:
    ladder = Ladder(past().ladder.policy, (Rule(name="watch", rung="observe", environments=("test",)),))
    results = tried([once("k1", 50), once("k2", 40, environment="test")],
                    past(ladder=ladder, keys={"k1": key("k1"), "k2": key("k2", environment="test")}))  # fmt: skip
    assert [each.word for each in results] == ["refused", "observed"]
