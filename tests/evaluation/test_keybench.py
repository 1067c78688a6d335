"""keybench: its honesty rules, its machinery against the worker's core, and a small run of the whole."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors import fuse, fusion
from pipeline.config.tree import Config
from pipeline.core import Sides, Slice
from pipeline.errors import ConfigError
from pipeline.evaluation import (
    baselines,
    commands,
    figures,
    keybench,
    measures,
    oracle,
    placing,
    reached,
    report,
    run,
    sources,
    work,
)  # fmt: skip
from pipeline.evaluation.attacks import ATTACKS, Plan, Stage
from pipeline.evaluation.innocents import INNOCENTS, delivered
from pipeline.evaluation.new_routes import NewRoutes, counted
from pipeline.evaluation.run import Opened, Outcome, Partition, Placement, Setting
from pipeline.evaluation.variants import VARIANTS
from pipeline.evaluation.world import (
    DAY_US,
    NO_ZONE,
    START_US,
    VISIT_US,
    World,
    events_of,
    history,
    keys_of,
)
from pipeline.flow import open_core
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from pipeline.times import rfc3339
from schemas.event import OUTCOMES, Event
from tests.evaluation import false_alarms
from tests.real_data import FOLDER, real

Array = np.ndarray[Any, Any]
DAYS = 36


@cache
def world() -> World:
    """Twelve keys of the development half."""
    real("weblog-elastic-apache")
    return work.make_world(FOLDER, "development", 12, DAYS, 5)


@cache
def calls_of(key: int) -> Array:
    return history(world().keys[key], world(), np.random.default_rng([5, 5, key]))


@cache
def new_routes() -> NewRoutes:
    return counted(world().keys, world(), [calls_of(key) for key in range(12)])


@cache
def known_of(key: int) -> oracle.Habits:
    return oracle.habits(world().keys[key], world(), calls_of(key), new_routes())


def placed(name: str, key: int, days: float = 3.0, day: int = 20) -> Placement:
    return Placement(name, 40.0, key, key % 3, START_US + day * DAY_US, days)


def stage(key: int, seed: int, days: float = 3.0, day: int = 20) -> Stage:
    placement = placed("any", key, days, day)
    return run.stage_of(placement, world(), calls_of(key), known_of(key), [seed])


# -- honesty


def test_the_committed_split_and_scenarios_are_those_of_data_and_code() -> None:
    real("rhythms")
    declared = keybench.declarations(FOLDER)
    assert len(declared["attacks"]) == len(declared["innocents"]) == 16
    split = json.loads(keybench.SPLIT.read_bytes())
    for kind, halves in split.items():
        sizes = [halves[which]["count"] for which in ("development", "held-out")]
        assert min(sizes) >= 5, kind


def test_the_halves_share_no_address_no_person_no_series_and_no_technique() -> None:
    first, second = (sources.load(real("rhythms").parent, which) for which in ("development", "held-out"))
    names: tuple[Callable[[sources.Sources], set[str]], ...] = (
        lambda s: {donor.address for donor in s.donors},
        lambda s: {rhythm.author for rhythm in s.rhythms},
        lambda s: set(s.series),
        lambda s: {payload.name for payload in s.payloads},
    )
    for of in names:
        assert len(of(first)) > 2
        assert len(of(second)) > 2
        assert not of(first) & of(second)


def test_of_an_attack_record_only_order_time_sensitivity_and_outcome_are_read() -> None:
    payload = sources.payloads(real("cloudtrail-stratus").parent)[0]
    assert set(payload.__slots__) == {"name", "gaps_s", "sensitivity", "refused"}
    assert (payload.gaps_s >= 0).all()


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_plants_calls_in_order_from_the_common_vocabulary(name: str) -> None:
    made = ATTACKS[name](stage(1, 3, placing.days_of(name), 5))
    words = world().words
    assert len(made.planted)
    assert (made.planted["planted"] > 0).all()
    counted = made.planted[made.planted["planted"] == 1]["ts_us"]
    assert (np.diff(counted) >= 0).all()
    assert made.planted["place"].max() < 2 * words.siblings
    assert made.planted["client"].max() < len(words.agents)
    assert made.planted["operation"].max() < len(words.operations)


@pytest.mark.parametrize("name", sorted(INNOCENTS))
def test_an_innocent_scenario_marks_what_it_changes(name: str) -> None:
    made = INNOCENTS[name](stage(2, 4, placing.days_of(name), 15))
    assert len(made.planted)
    assert not (made.owner["planted"] > 0).any()


@pytest.mark.parametrize(
    "name",
    ["retry_storm", "misconfigured_403", "holidays", "batch", "growth", "viral_spike", "load_test", "bulk_read",
     "poison_then_burst", "resource_abuse", "slow_exfiltration", "destructive_calls", "off_hours_own"],
)  # fmt: skip
def test_who_does_more_as_the_owner_is_where_the_owner_is_then_and_has_his_client(name: str) -> None:
    """He has moved and changed his client: the key's first ones beside them would be a second user's."""
    scene = stage(1, 3, placing.days_of(name), 15 if placing.days_of(name) < 20 else 5)
    moved = scene.base.copy()
    half = int(moved["ts_us"][len(moved) // 2])
    place, client = (int(scene.key.homes[0]) + 7) % world().words.siblings, (int(scene.key.clients[0]) + 1) % 3
    moved["place"] = np.where(moved["ts_us"] < half, scene.key.homes[0], place)
    moved["client"] = np.where(moved["ts_us"] < half, scene.key.clients[0], client)
    made = (ATTACKS | INNOCENTS)[name](replace(scene, base=moved)).planted
    last = np.searchsorted(moved["ts_us"], made["ts_us"], side="right") - 1
    if name in ("bulk_read", "resource_abuse"):  # one stretch, from where it begins
        last = np.full(len(made), last[0])
    if name == "poison_then_burst":
        made, last = made[made["planted"] == 2], last[made["planted"] == 2]
    late = last >= 0
    assert late.any()
    back = moved["ts_us"] >= scene.start_us + 5 * DAY_US if name == "holidays" else np.ones(len(moved), np.bool_)
    expected = np.where(back[last], moved["place"][last], moved["place"][back][0])
    assert (made["place"][late] == expected[late]).all()
    expected = np.where(back[last], moved["client"][last], moved["client"][back][0])
    assert (made["client"][late] == expected[late]).all()


def test_where_the_owner_is_elsewhere_a_place_that_he_has_is_no_evidence_to_the_oracle() -> None:
    scene = stage(1, 3)
    moved = scene.base.copy()
    moved["place"] = (int(scene.key.homes[0]) + 7) % world().words.siblings
    made = ATTACKS["destructive_calls"](replace(scene, base=moved))
    key, known = oracle.settled(scene.key, scene.known, made.owner, scene.start_us)
    said = oracle.parts(key, known, scene.world, made.planted, made.owner["ts_us"])
    assert said["context"].max() == 0.0


@pytest.mark.parametrize(("name", "field"), [("client_swap", "client"), ("impossible_travel", "place")])
def test_what_the_owner_had_before_the_placement_is_no_evidence_to_the_oracle_and_what_he_has_after_it_is(
    name: str, field: str
) -> None:
    """Both as he had it in one call, long before or after; the rest of his life is the same."""

    def placed_in(calls: Array) -> tuple[Placement, Array]:
        placement, known = placed(name, 1), oracle.habits(world().keys[1], world(), calls, new_routes())
        made = run.stage_calls(placement, run.stage_of(placement, world(), calls, known, [9]))
        return placement, made[made["planted"] == 1]

    never, his = calls_of(1), {"before": calls_of(1).copy(), "after": calls_of(1).copy()}
    placement, planted = placed_in(never)
    same = int(planted[field][0])
    if field == "client":  # another agent of that family is no less his
        family = world().words.clients["client"]
        same = max(np.flatnonzero(family == family[same]).tolist(), key=lambda each: each != same)
    his["before"][field][3], his["after"][field][-3] = same, same
    assert his["before"]["ts_us"][3] < placement.start_us - 10 * DAY_US
    assert his["after"]["ts_us"][-3] > placement.start_us + 4 * DAY_US
    before, calls = placed_in(his["before"])
    assert (calls[field] == planted[field][0]).all(), "the same attack"
    assert before.bits < placement.bits
    assert len(calls) >= len(planted)
    after, calls = placed_in(his["after"])
    assert (after.bits, len(calls)) == (placement.bits, len(planted))


def test_more_wanted_bits_keep_more_calls_and_never_fewer_bits() -> None:
    scene = stage(1, 7)
    made: Plan = ATTACKS["leaked_abroad"](scene)
    kept = [
        oracle.cut(scene.key, scene.known, scene.world, made.planted, made.owner["ts_us"], wanted)
        for wanted in (20.0, 40.0, 80.0)
    ]
    counts, bits = [len(calls) for calls, _ in kept], [after for _, after in kept]
    assert counts == sorted(counts)
    assert counts[0] < counts[2]
    assert all(after >= wanted for after, wanted in zip(bits, (20.0, 40.0, 80.0), strict=True))


def test_what_a_scenario_does_not_name_is_drawn_as_innocent_calls_are() -> None:
    names = {name: each["names"] for name, each in keybench.declarations(FOLDER)["attacks"].items()}
    many = replace(world(), keys=keys_of(world().sources, world().words, 100, np.random.default_rng(3)))
    lives = work.lives_of(run.Job(5, 0, 1, 1, (40.0,), 40.0, (), 0), many)
    marked = []
    for name in (name for name, about in names.items() if "route" not in about):
        for number in range(160):
            placement = placed(name, number % 100, placing.days_of(name), 5)
            calls = lives.calls[placement.key]
            scene = run.stage_of(placement, many, calls, lives.known[placement.key], [1, number])
            planted = ATTACKS[name](scene).planted
            before = calls[calls["ts_us"] < placement.start_us]
            placement.calls = len(planted)
            work.audit(placement, planted[planted["planted"] == 1][:20], before, lives.objects, many)
            marked.append(placement)
    audit = measures.leak_audit(marked, names)
    timeless = ("operation", "status", "bytes_out", "object", "object_common")
    told = {(n, f): v["low"] for n, by in audit.items() for f, v in by.items() if f in timeless}
    assert len(told) > 40
    assert {pair: low for pair, low in told.items() if low > measures.AUC_LIMIT} == {}


def test_a_swarm_is_placed_whole_and_its_strength_is_what_the_oracle_says() -> None:
    placement = placed("residential_swarm", 1)
    calls = run.stage_calls(placement, stage(1, 3))
    swarm = calls[calls["planted"] == 1]
    assert 20 <= len(np.unique(swarm["place"])) <= 500
    assert np.ptp(swarm["ts_us"]) <= 6 * 3600 * 1_000_000
    assert placement.bits > placement.wanted_bits


def test_a_roaming_key_has_another_address_each_visit_and_one_network() -> None:
    calls = run.stage_calls(placed("roaming", 2), stage(2, 4))
    events = events_of(calls, world().words, np.zeros(len(calls), np.int64))
    visits = len(np.unique(calls["ts_us"] // VISIT_US))
    assert visits > 20
    assert len(np.unique(events["address"])) >= visits
    assert set(events["asn"]) == set(world().words.network(np.unique(stage(2, 4).base["place"])))


def test_a_batch_comes_weekly_or_monthly() -> None:
    days = placing.days_of("batch")
    runs = {len(np.unique(INNOCENTS["batch"](stage(2, seed, days, 1)).planted["ts_us"] // DAY_US)) for seed in range(8)}
    assert runs == {2, 5}


# -- machinery


def test_the_judged_log_of_a_geo_update_is_late_repeated_and_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []

    def keep(partition: Partition, events: Array) -> tuple[Array, Array]:
        judged.append(events)
        return np.zeros(0, fuse.FOUND), np.zeros(0, fuse.CHANGED)

    monkeypatch.setattr(Partition, "judge", keep)
    placement = placed("geo_update", 2)
    run.branch_out(Partition(Setting(), 1), [placement], [stage(2, 1)], np.array([0]), world())
    events = np.concatenate(judged)
    asked = events["request"].tolist()
    later = events["ts_us"] >= placement.start_us + DAY_US
    assert not set(events["asn"][later]) & set(world().words.network(world().keys[2].homes)), "placed elsewhere"
    assert (np.diff(events["ts_us"]) < 0).sum() > 20
    assert (events["late"] == 1).sum() > 5
    assert len(asked) - len(set(asked)) > 20
    passed_over = [request for request, slot in zip(asked, events["slot"].tolist(), strict=True) if slot < 0]
    assert len(passed_over) > 20
    assert set(passed_over) <= {request for request in asked if asked.count(request) > 1}


def event_of(call: Any, number: int) -> Event:
    words = world().words
    method, route = words.operations[call["operation"]]
    return Event(
        key_id=f"key-{call['key']}", ts_us=int(call["ts_us"]), client_ip=words.addresses[call["place"]],
        method=method, route=route, status=int(call["status"]), outcome=OUTCOMES[call["outcome"]],
        bytes_out=int(call["bytes_out"]), user_agent=words.agents[call["client"]], request_id=f"r{number}",
    )  # fmt: skip


def test_the_bulk_way_opens_the_same_incidents_as_the_worker_s_core() -> None:
    rng, calls = np.random.default_rng(8), []
    for key in (0, 1, 3, 4, 6, 7):
        scene = stage(key, 8)
        stolen = ATTACKS["leaked_abroad"](scene).planted[:60]
        calls.append(delivered(np.concatenate([calls_of(key), stolen]), rng))
    joined = np.concatenate(calls)
    joined["zone_h"] = NO_ZONE
    joined = joined[run.log_order(joined)]
    _, slots = np.unique(joined["key"], return_inverse=True)
    keys = int(slots.max()) + 1
    events = run.admitted(events_of(joined, world().words, slots), keys)
    _, changed = Partition(Setting(), keys).judge(events)
    opened = changed[changed["kind"] == fusion.OPENED]
    bulk = sorted(rfc3339(int(at)) for at in opened["at_us"])

    core = open_core(0, Config(), Sides(Catalogue.empty(), open_geo(Config().geo), "test"), "test")
    core_opened: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for start in range(0, len(joined), 1000):
        effects = core.process(slice_of(joined[start : start + 1000], start))
        counts.update({name: effects.counts.get(name, 0) for name in ("duplicates", "late")})
        for incident in effects.incidents:
            core_opened.setdefault(incident.incident_id, incident.opened_at)
    assert len(bulk) >= 2
    assert sorted(core_opened.values()) == bulk
    assert counts["duplicates"] == (events["slot"] < 0).sum() > 50
    assert counts["late"] == ((events["late"] == 1) & (events["slot"] >= 0)).sum() > 20


def slice_of(calls: Array, start: int) -> Slice:
    """These calls as records, each after a tick of the same time, which moves the watermark with the log."""
    events = [event_of(call, int(call["request"])) for call in calls]
    values = [value for event in events for value in (None, msgspec.json.encode(event))]
    stamps = np.repeat((calls["ts_us"] + calls["behind_us"]) // 1000, 2).tolist()
    return Slice(
        "t", 0, range(2 * start, 2 * start + len(values)),
        [key for event in events for key in (None, event.key_id.encode())],
        values, stamps, frozenset(range(0, len(values), 2)),
    )  # fmt: skip


def test_a_placebo_branch_opens_just_what_the_untouched_key_opens() -> None:
    keys = [0, 1, 2, 4, 5]
    calls = [calls_of(key) for key in keys]
    start_us, end_us = START_US + 10 * DAY_US, START_US + 24 * DAY_US
    before = [each[each["ts_us"] < start_us] for each in calls]
    partition = Partition(Setting(listed_days=30.0), len(keys))
    joined = np.concatenate(before)
    owner = np.repeat(np.arange(len(keys)), [len(each) for each in before])
    order = np.argsort(joined["ts_us"], kind="stable")
    partition.judge(events_of(joined[order], world().words, owner[order]))
    placements = [Placement("placebo", 0.0, key, key % 3, start_us, 14.0) for key in keys]
    stages = [run.stage_of(p, world(), calls_of(p.key), known_of(p.key), [1]) for p in placements]
    _, opened = run.branch_out(partition, placements, stages, np.arange(len(keys)), world())
    rest = [each[(each["ts_us"] >= start_us) & (each["ts_us"] < end_us)] for each in calls]
    joined = np.concatenate(rest)
    owner = np.repeat(np.arange(len(keys)), [len(each) for each in rest])
    order = np.argsort(joined["ts_us"], kind="stable")
    found, changed = partition.judge(events_of(joined[order], world().words, owner[order]))
    straight = run.incidents(partition, found, changed, joined[order], None)
    assert sorted(o.at_us for each in opened for o in each) == sorted(o.at_us for o in straight)
    assert straight


@pytest.mark.parametrize("name", ["client_swap", "viral_spike", "bulk_read"])
def test_a_placement_s_rarest_score_is_that_of_every_call_of_its_planted_visits_and_stopping_changes_nothing(
    name: str,
) -> None:
    """Keys that called just before; each call by itself is the plain way."""
    keys = [1, 2, 4]
    stages = [stage(key, 6, placing.days_of(name)) for key in keys]
    partition = Partition(Setting(), len(keys))
    before = np.concatenate(
        [calls_of(key)[calls_of(key)["ts_us"] < each.start_us] for key, each in zip(keys, stages, strict=True)]
    )
    order = run.log_order(before)
    owner = np.searchsorted(keys, before["key"])
    partition.judge(events_of(before[order], world().words, owner[order]))
    parts = [
        run.stage_calls(placed(name, key, placing.days_of(name)), each) for key, each in zip(keys, stages, strict=True)
    ]
    calls = np.concatenate(parts)
    owner = np.repeat(np.arange(len(keys)), [len(each) for each in parts])
    order = run.log_order(calls)
    calls, owner = calls[order], owner[order]
    slots, events = np.arange(len(keys)), run.admitted(events_of(calls, world().words, owner), len(keys))
    found, changed, rarest = run.judged_by_visits(partition.branch(slots, fresh=False), events, calls["planted"] > 0)
    at_once = partition.branch(slots, fresh=False).judge(events)
    for mine, whole in zip((found, changed), at_once, strict=True):
        assert len(mine) == len(whole)
        assert all((mine[field] == whole[field]).all() for field in mine.dtype.names or ())

    one = partition.branch(slots, fresh=False)
    most, begun, counts = np.zeros(len(keys)), np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
    for i, slot in enumerate(owner.tolist()):
        one.judge(events[i : i + 1])
        if one.keys["visit"]["start_us"][slot] != begun[slot]:
            begun[slot], counts[slot] = one.keys["visit"]["start_us"][slot], False
        counts[slot] |= calls["planted"][i] > 0
        if counts[slot]:
            most[slot] = max(most[slot], run.return_days(one, slot, int(events["ts_us"][i])))
    assert (rarest > 0).all()
    assert (rarest <= most).all()
    assert rarest == pytest.approx(most, rel=0.2), "a visit's later calls make the key a little more busy"


def test_a_branch_changes_nothing_for_the_untouched() -> None:
    partition = Partition(Setting(), 1)
    calls = calls_of(2)
    partition.judge(events_of(calls[:500], world().words, np.zeros(500, np.int64)))
    keys, shared = partition.keys.tobytes(), partition.shared.tobytes()
    partition.branch(np.array([0]), fresh=False).judge(
        events_of(calls[500:900], world().words, np.zeros(400, np.int64))
    )
    assert (partition.keys.tobytes(), partition.shared.tobytes()) == (keys, shared)


# -- measures


def test_auc_is_1_for_apart_0_for_reversed_and_a_half_for_equal() -> None:
    assert measures.auc([3, 4], [1, 2]) == 1.0
    assert measures.auc([1, 2], [3, 4]) == 0.0
    assert measures.auc([1, 1], [1, 1]) == 0.5


def test_a_baseline_s_threshold_alerts_just_as_often_as_the_budget_allows() -> None:
    scores = np.concatenate([np.zeros(9_000), np.ones(1_000)])
    limit = baselines.threshold(scores, 10_000.0, 100.0)
    assert baselines.chance(scores, limit).sum() == pytest.approx(10.0)


def test_an_owner_s_call_opens_for_what_was_planted_within_half_an_hour_and_no_longer() -> None:
    calls: Array = np.zeros(4, calls_of(1).dtype)
    calls["key"] = (1, 2, 1, 1)
    calls["planted"][0] = 1
    calls["ts_us"] = START_US + np.array([0, 10, 20, 40]) * 60_000_000
    minute_us = 60_000_000
    told = [run.planted_before(calls, i) for i in range(4)]
    assert told == [(1, 0), (0, -1), (1, 20 * minute_us), (1, 40 * minute_us)]


def test_an_incident_that_opens_hours_after_a_planted_call_counts_where_the_key_untouched_has_none_near_it() -> None:
    hour_us = 3_600_000_000

    def opened(at_h: float, after_h: float) -> Opened:
        after_us = int(after_h * hour_us)
        return Opened(0, 1, int(at_h * hour_us), 2e3, False, "egress", False, 4, after_us=after_us)

    placement = Placement("slow_exfiltration", 40.0, 1, 0, 0, 14.0, first_us=2 * hour_us, calls=4)
    placement.opened = [replace(opened(1, 0), after_us=-1), opened(30, 7), opened(90, 25)]

    def counts(untouched_h: list[float]) -> list[bool]:
        return [each.planted for each in run.brought_by(placement, [int(at_h * hour_us) for at_h in untouched_h])]

    assert counts([]) == [False, True, False], "before the first planted call, and a day after the last, none is theirs"
    assert counts([1.0, 60.0]) == [False, True, False]
    assert counts([30.0]) == counts([7.0]) == counts([53.0]) == [False, False, False]


def test_recall_counts_an_incident_at_a_planted_call_and_no_other() -> None:
    hit = Opened(0, 1, 5, 2_000.0, True, "geography", False, 1)
    beside = Opened(0, 1, 5, 2_000.0, False, "geography", False, 0)
    placement = Placement("leaked_abroad", 40.0, 1, 0, 0, 3.0, calls=3, opened=[beside])
    assert not measures.caught(placement, 100)
    placement.opened = [beside, hit]
    assert measures.caught(placement, 100)
    assert not measures.caught(placement, 10)


def test_acts_are_counted_by_what_families_have_given_each_other_and_by_their_own() -> None:
    both = [Opened(0, 0, 0, 2_000.0, True, "spike", *of) for of in ((True, 1, True), (False, 1, True), (False, 1))]
    assert measures.acts(both) == {"incidents": 3, "given": 1, "by_own": 2}


def test_the_wide_run_adds_its_budget_to_every_strength() -> None:
    placements = [
        Placement("bulk_read", bits, 1, 0, 0, 3.0, calls=3, opened=[Opened(0, 1, 5, 200.0, True, "spike", False, 1)])
        for bits in (20.0, 40.0)
    ]
    declared = {"headline_bits": 40, "strengths_bits": [20, 40], "attacks": {"bulk_read": {}}}
    found: dict[str, Any] = {
        "recall": {"bulk_read": 0.0}, "recall_at": {}, "untouched_at": {},
        "recall_by_strength": figures.by_strength(placements, declared), "macro_by_strength": {"20": {}, "40": {}},
    }  # fmt: skip
    figures.add_wide(found, [Outcome(keys=1, key_days=10.0, placements=placements)], declared)
    at = found["recall_by_strength"]["20"]["bulk_read"]["at"]
    assert {budget: each["mean"] for budget, each in at.items()} == {"10": 0.0, "100": 0.0, "1000": 1.0}
    assert found["macro_by_strength"]["20"]["1000"]["mean"] == 1.0
    assert found["recall_at"]["1000"] == {"bulk_read": 1.0}


def test_a_leak_in_a_field_is_found_by_the_audit_and_chance_is_not() -> None:
    rng = np.random.default_rng(1)
    leaking = [Placement("client_swap", 40.0, k, 0, 0, 3.0, calls=1) for k in range(200)]
    for each in leaking:
        values = {name: float(rng.integers(5)) for name in measures.AUDITED}
        each.fields = {f"planted.{n}": v for n, v in values.items()}
        each.fields |= {f"innocent.{n}": float(rng.integers(5)) for n in measures.AUDITED}
        each.fields["planted.status"] = 418.0
    audit = measures.leak_audit(leaking, {"client_swap": ["client"]})["client_swap"]
    assert "client" not in audit
    assert audit["status"]["low"] > 0.9
    assert audit["operation"]["low"] < 0.6
    worst = measures.worst_leak({"client_swap": audit})
    assert (worst["pair"], worst["above"]) == ("client_swap.status", ["client_swap.status"])
    assert worst["auc"] == max(each["auc"] for each in audit.values())


def test_recall_relative_to_the_oracle_leaves_out_what_no_one_could_catch() -> None:
    hit = Opened(0, 1, 5, 2_000.0, True, "geography", False, 1)
    strong = [Placement("bulk_read", 40.0, k, 0, 0, 3.0, bits=40.0, calls=3, visits_a_day=8.0) for k in range(4)]
    strong[0].opened = [hit]
    weak = [Placement("bulk_read", 40.0, k, 0, 0, 3.0, bits=12.9, calls=3, visits_a_day=8.0) for k in range(4, 8)]
    assert [measures.in_reach(weak[0], budget) for budget in (10, 100, 1000)] == [False, False, True]
    told = measures.relative(strong + weak, 100)
    assert (told["oracle"]["mean"], told["ours"]["mean"]) == (0.5, 0.25)
    assert figures.relative_to_oracle({"bulk_read": strong + weak})["macro"]["mean"] == 0.25
    assert measures.recall_of(strong + weak, 100)["mean"] == 0.125


def of_bits(scenario: str, wanted: float, bits: float, caught: int, count: int) -> list[Placement]:
    """Placements that the oracle gives so many bits, the first of them caught; each on a key of its own."""
    made = [Placement(scenario, wanted, key, 0, 0, 3.0, bits=bits, calls=3) for key in range(count)]
    for each in made[:caught]:
        each.opened = [Opened(0, each.key, 5, 2_000.0, True, "geography", False, 1)]
    return made


def test_recall_of_what_reached_the_strength_leaves_out_what_has_fewer_bits_caught_or_missed() -> None:
    declared = {"strengths_bits": [20, 40], "attacks": {"bulk_read": {}, "client_swap": {}, "off_hours_own": {}},
                "finding_by_design": ["bulk_read"]}  # fmt: skip
    placements = [
        *of_bits("bulk_read", 40.0, 41.0, 10, 10), *of_bits("client_swap", 40.0, 40.0, 6, 12),
        *of_bits("client_swap", 40.0, 39.9, 1, 8), *of_bits("off_hours_own", 40.0, 12.0, 2, 20),
        *of_bits("off_hours_own", 40.0, 43.0, 9, 9), *of_bits("client_swap", 20.0, 20.0, 11, 11),
        *of_bits("deploy", 0.0, 0.0, 3, 20),
    ]  # fmt: skip
    told = reached.by_strength(placements, declared)
    counts = {name: (each["mean"], each["n"], each["of"]) for name, each in told["40"]["recall"].items()}
    assert counts == {"bulk_read": (1.0, 10, 10), "client_swap": (0.5, 12, 20), "off_hours_own": (1.0, 9, 29)}
    assert told["40"]["left_out"] == ["off_hours_own"], "nine tell nothing"
    assert told["40"]["macro"]["mean"] == 0.75
    assert told["40"]["macro"]["low"] <= 0.75 <= told["40"]["macro"]["high"]
    assert told["40"]["macro_apart"]["mean"] == 0.5
    assert told["20"]["recall"]["client_swap"] == {"mean": 1.0, "low": pytest.approx(1 - 3 / 11), "high": 1.0,
                                                   "n": 11, "of": 11}  # fmt: skip
    assert measures.recall_of(measures.by_scenario(placements, 40.0)["client_swap"], 100)["mean"] == 7 / 20


def test_a_placement_that_was_cut_to_its_strength_has_reached_it() -> None:
    """Whatever the sum is rounded to; one that has too few calls for it has not."""
    for wanted in (20.0, 40.0, 80.0):
        placement = replace(placed("leaked_abroad", 1), wanted_bits=wanted)
        run.stage_calls(placement, stage(1, 7))
        assert reached.has(placement.bits, wanted)
    weak = placed("off_hours_own", 1, placing.days_of("off_hours_own"))
    run.stage_calls(weak, stage(1, 7, weak.days))
    assert 0 <= weak.bits < 40
    assert not reached.has(weak.bits, weak.wanted_bits)


def test_twins_are_told_apart_by_their_scores_where_no_incident_opens_at_all() -> None:
    loud, quiet = ([Placement(name, 40.0, key, 0, 0, 3.0, calls=3, rarest_days=days) for key in range(30)]
                   for name, days in (("bulk_read", 900.0), ("growth", 90.0)))  # fmt: skip
    assert figures._twin({"bulk_read": loud, "growth": quiet}, "bulk_read", "growth")["mean"] == 1.0
    assert figures._twin({"bulk_read": quiet, "growth": quiet}, "bulk_read", "growth")["mean"] == 0.5
    hit = Opened(0, 1, 5, 2_000.0, True, "spike", False, 1)
    assert measures.rarest(replace(quiet[0], opened=[hit, replace(hit, planted=False, return_days=1e6)])) == 2_000.0


# -- the whole, small


@cache
def small() -> tuple[dict[str, Any], dict[str, Any]]:
    real("weblog-elastic-apache")
    declared = keybench.declarations(FOLDER)
    size = keybench.Size(keys=12, days=DAYS, placements=2, placebos=4, processes=1, half="development", wide=False)
    return keybench.bench(FOLDER, size, declared), declared


def test_a_small_run_gives_every_key_of_the_output() -> None:
    found, _ = small()
    for key in (
        "macro_recall", "recall", "innocent_rate", "incidents_per_100k_key_days", "placebo_ratio", "delay_p50_s",
        "delay_p95_s", "reason_hit_rate",
    ):  # fmt: skip
        assert key in found
    assert set(found["recall"]) == set(ATTACKS)
    assert set(found["innocent_rate"]) <= set(INNOCENTS)
    assert set(found["baselines"]) == {*baselines.RULES, "union"}
    assert all(0.0 <= value <= 1.0 for value in found["recall"].values())
    assert 0.0 < found["macro_recall"] < 1.0
    assert found["leak_audit_max"]["auc"] >= 0.5
    ranges = found["intervals"]
    for each in (
        ranges["macro_recall"], ranges["delay_p50_s"], ranges["reason_hit_rate"], *found["twin_intervals"].values(),
        *found["baseline_intervals"].values(), found["relative_to_oracle"]["macro"],
    ):  # fmt: skip
        assert each["low"] <= each["mean"] <= each["high"]
    assert set(found["recall_of_reached"]) == {"20", "40", "80"}
    for told in found["recall_of_reached"].values():
        assert set(told["recall"]) == set(ATTACKS)
        assert all(each["n"] <= each["of"] <= 2 for each in told["recall"].values())
        assert set(told["left_out"]) == set(ATTACKS), "of two placements each"
        assert told["macro"]["mean"] is None
    assert 0 < sum(each["n"] for each in found["recall_of_reached"]["40"]["recall"].values()) < 2 * len(ATTACKS)
    assert set(found["variants"]) == set(VARIANTS)
    assert set(found["relative_to_oracle"]["recall"]) == set(ATTACKS)
    crossed = found["recall_by_strength"]["20"]["leaked_abroad"]["at"]
    assert set(crossed) == {"10", "100"}
    assert set(found["lead_over_baselines"]) == set(found["baselines"])
    for rule, lead in found["lead_over_baselines"].items():
        apart = found["ours_at_budget"]["macro"] - found["baselines"][rule]["macro"]
        assert lead["mean"] == pytest.approx(apart)
    for row in found["precision"]:
        assert row["low"] <= row["precision"] <= row["high"]
        assert row["incidents_a_day_low"] <= row["incidents_a_day"] <= row["incidents_a_day_high"]
    others = [mean for name, mean in found["recall"].items() if name != "off_hours_own"]
    assert found["macro_recall_without_findings_by_design"]["mean"] == pytest.approx(np.mean(others))


def test_the_page_shows_every_scenario_and_needs_nothing_from_elsewhere() -> None:
    found, declared = small()
    page = report.page(keybench._plain(found), declared)
    assert all(name in page for name in (*ATTACKS, *found["innocent_rate"]))
    assert "http" not in page
    assert page.count("<svg") >= 3
    each = found["recall_of_reached"]["40"]["recall"]["client_swap"]
    assert f"{each['n']} of {each['of']}" in page
    assert "macro recall, of placements that reach 40 bits" in page
    assert "of placements that reach 40 bits" in report.summary(found)


def test_the_same_seed_gives_the_same_placements() -> None:
    first, again = (ATTACKS["residential_swarm"](stage(4, 9)).planted for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("keys", [12, 300, 501, 1_100, 1_500, 3_000, 10_000])
def test_each_partition_has_keys_of_every_volume_class(keys: int) -> None:
    parts = keybench.Size(keys=keys).parts
    assert keys / parts <= keybench.PARTITION_KEYS
    for part in range(parts):
        mine = Counter(key % 3 for key in range(part, keys, parts))
        assert len(mine) == 3
        assert max(mine.values()) - min(mine.values()) <= 1


@pytest.mark.parametrize(("text", "fleet"), [("5000:0.01", (5_000, 0.01)), ("1:1", (1, 1.0))])
def test_a_fleet_is_keys_and_the_share_attacked(text: str, fleet: tuple[int, float]) -> None:
    assert commands._fleet(text) == fleet


@pytest.mark.parametrize("text", ["5000", "0:0.1", "10:0", "10:1.5", "x:y", "10:nan"])
def test_another_fleet_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--fleet takes"):
        commands._fleet(text)


@pytest.mark.parametrize(("text", "seeds"), [("1-3", (1, 2, 3)), ("7", (7,))])
def test_seeds_are_a_range_or_one(text: str, seeds: tuple[int, ...]) -> None:
    assert commands._seeds(text) == seeds


def test_the_placebo_arm_is_held_against_the_same_keys_in_the_same_days() -> None:
    def incident(key: int, day: float) -> Opened:
        return Opened(-1, key, START_US + int(day * DAY_US), 2_000.0, True, "spike", False, 1)

    arm = Placement("placebo", 0.0, 3, 0, START_US + 20 * DAY_US, 14.0, opened=[incident(0, 21), incident(0, 30)])
    untouched = [incident(3, 21), incident(3, 30), incident(3, 35), incident(4, 22)]
    control = measures.placebo([Outcome(keys=10, key_days=1000.0, untouched=untouched, placements=[arm])], 100)
    assert (control["incidents"], control["untouched_incidents"], control["ratio"]) == (2, 2, 1.0)
    assert measures.placebo([Outcome(keys=10, key_days=1000.0, placements=[arm])], 100)["incidents"] == 2


def test_an_outcome_without_incidents_has_rate_0_and_an_interval() -> None:
    rate = measures.untouched_rate([Outcome(keys=10, key_days=1000.0)], 100)
    assert rate["mean"] == 0.0


def test_real_logs_are_judged_unmodified() -> None:
    from pipeline.evaluation import real_logs

    found = real_logs.apache(real("weblog-elastic-apache").parent)
    assert found["events"] == 9_999 or found["events"] == 10_000
    assert found["incidents"] <= 10
    windows = real_logs.invictus(real("cloudtrail-invictus").parent)
    assert windows["attacked_windows"] > 0
    assert windows["alarmed_of_them"] + windows["alarmed_innocent"] <= windows["incidents"]


@pytest.mark.parametrize("command", ["keybench", "ramp"])
@pytest.mark.parametrize("there", [(), ("data",), ("data", "data/weblog-elastic-apache")])
def test_a_folder_without_the_data_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, there: tuple[str, ...]
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit) as ended:
        commands.app([command, "--data", str(tmp_path / "data")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"keywatch: the real logs are not at {tmp_path / 'data'}: no ") and said.count("\n") == 1
    assert "name their folder with --data" in said and ("weblog" in said) == (len(there) < 2)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_recorded_times_are_utc_on_whatever_machine_they_are_read(
    zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Los Angeles' clocks skip an hour that night: in local time the hours between are one too few."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        (tmp_path / "azure-llm").mkdir()
        lines = [f"2024-03-10 {hour:02d}:30:00.5000000,1,1" for hour in (1, 2, 3, 5)]
        (tmp_path / "azure-llm" / "a.csv").write_text("\n".join(["TIMESTAMP,Context,Generated", *lines]))
        assert sources._gaps.__wrapped__(tmp_path).tolist() == [0.75, 0.75, 1.5]
        assert sources.seconds({"eventTime": "2024-01-01T00:00:00"}) == 1_704_067_200.0
        assert sources.seconds({"eventTime": "2024-01-01T00:00:00Z"}) == 1_704_067_200.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_ablation_leaves_one_detector_out_at_a_time_on_the_same_lives_and_placements() -> None:
    real("weblog-elastic-apache")
    scenarios = ("leaked_abroad", "privilege_probing")
    job = run.Job(5, 0, 1, 6, (40.0,), 40.0, scenarios, 0)
    found = work.ablate(job, world(), ["geography", "errors"])
    assert set(found) == {"", "geography", "errors"}
    starts = {name: [each.start_us for each in outcome.placements] for name, outcome in found.items()}
    assert starts[""] == starts["geography"] == starts["errors"]
    caught = {
        name: {
            s: sum(measures.caught(each, 100) for each in mine)
            for s, mine in measures.by_scenario(o.placements).items()
        }
        for name, o in found.items()
    }
    assert caught["errors"]["privilege_probing"] < caught[""]["privilege_probing"]
    assert caught["geography"]["privilege_probing"] >= caught[""]["privilege_probing"] - 1
    told = figures.ablated([found])
    assert told["all, on a third"]["lost"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    whole, without = (told[n]["macro_recall"] for n in ("all, on a third", "without errors"))
    assert told["without errors"]["lost"]["mean"] == pytest.approx(whole - without)
    named = {each.first_reason for p in found["errors"].placements for each in p.opened}
    assert "errors" not in named


def test_what_chance_brings_to_a_story_goes_by_the_days_in_which_an_incident_would_count() -> None:
    """All of a placebo's; of a load test's three days the half hours in which it runs and the next."""
    partition = Partition(Setting(), 12)
    for name, days, share in (("placebo", 14.0, 1.0), ("load_test", 3.0, 0.2)):
        placement = placed(name, 2, days)
        _, counted = false_alarms.branched(partition, placement, stage(2, 4, days), world())
        assert 0.0 < counted <= days * share
        assert name != "placebo" or counted == days
