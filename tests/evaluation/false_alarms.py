"""Which evidence opened the incidents of keybench's innocent stories, and how often chance alone would have.

Run: `python -m tests.evaluation.false_alarms [--seeds 31] [--keys 300] [--placements 60] [SCENARIO ..]` (development
half; all stories if none is named, attacks may be; half a minute of one core a seed, code compiled before). Per story:
how many are listed; how many of these the same key has in the same days untouched (so the story did not bring them);
how many chance brings, by the incident rate of untouched keys over the days in which an incident counts; then each
listed one with the detectors' evidence at the call that opened it. Nothing is tuned by it. Its counterpart for attacks
is `misses`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from detectors import DETECTORS, fusion
from detectors.records import records
from pipeline.evaluation import innocents, placing, run, work
from pipeline.evaluation.run import BURN_IN_DAYS, Job, Partition, Placement, Setting
from pipeline.evaluation.world import CLASSES, DAY_US, START_US, VISIT_US, World, events_of
from tests.evaluation.misses import listed_from, say
from tests.real_data import FOLDER

Array = np.ndarray[Any, Any]
LISTED_DAYS: Final = 1_000.0


@dataclass(frozen=True)
class Alarm:
    """One listed incident of a placement, or of an untouched key (`scenario` "")."""

    scenario: str
    key: int
    volume: int
    visits: int
    at_us: int
    into_days: float  # since the placement began
    rule: str
    score: float
    listed: float  # the least score that is listed for such a key
    families: tuple[str, ...]
    said: str


@dataclass
class Count:
    """What came of a seed's placements of one scenario."""

    alarms: list[Alarm]
    placements: int = 0
    listed: int = 0  # placements
    anyway: int = 0  # of these: the key has an incident in the same days untouched
    days: float = 0.0  # in which an incident would count


def main() -> None:
    """Print per story what opened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(innocents.INNOCENTS))
    parser.add_argument("--seeds", default="31")
    parser.add_argument("--half", default="development")
    for name, usual in (("keys", 300), ("placements", 60)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    for seed in map(int, args.seeds.split(",")):
        counts, untouched, key_days = stories(seed, args.keys, args.placements, tuple(args.scenarios), args.half)
        rate = len(untouched) / key_days
        say(f"seed {seed}: untouched keys {1e5 * rate:.0f} incidents per 100,000 key-days ({len(untouched)})")
        for alarm in untouched:
            say(f"  {words(alarm)}")
        for name, count in counts.items():
            chance = rate * count.days / max(1, count.placements)
            say(f"{name}: {count.listed} of {count.placements} listed, {count.anyway} of them untouched, too;"
                f" {chance:.3f} by chance")  # fmt: skip
            for alarm in count.alarms:
                say(f"  {words(alarm)}")


def words(alarm: Alarm) -> str:
    """One line."""
    return (
        f"key {alarm.key}, {CLASSES[alarm.volume]} calls, {alarm.visits} visits, day {alarm.into_days:.1f}:"
        f" {alarm.rule} rule {alarm.score:.1f} of {alarm.listed:.1f}: {alarm.said}"
    )


def stories(
    seed: int, keys: int, count: int, scenarios: tuple[str, ...], half: str
) -> tuple[dict[str, Count], list[Alarm], float]:  # fmt: skip
    """Per story what was listed; the incidents of untouched keys and their key-days."""
    world = work.make_world(FOLDER, half, keys, 60, seed)
    job = Job(seed, 0, 1, count, (40.0,), 40.0, scenarios, 0)
    lives = work.lives_of(job, world)
    partition = Partition(Setting(), len(lives.mine))
    whole, owner = lives.in_order()
    by_day: dict[int, list[tuple[int, Placement]]] = defaultdict(list)
    for number, placement in enumerate(placing.plan(job, world, lives.mine, lives.calls)):
        by_day[(placement.start_us - START_US) // DAY_US].append((number, placement))
    found_in: list[tuple[Placement, list[Alarm], float]] = []
    untouched: list[Alarm] = []
    for day in range(world.days):
        for number, placement in by_day[day]:
            slot = placement.key
            stage = run.stage_of(placement, world, lives.calls[slot], lives.known[slot], [job.seed, 11, 0, number])
            found_in.append((placement, *branched(partition, placement, stage, world)))
        first, last = np.searchsorted(whole["ts_us"], [START_US + day * DAY_US, START_US + (day + 1) * DAY_US])
        if day < BURN_IN_DAYS:
            partition.judge(events_of(whole[first:last], world.words, owner[first:last]))
            continue
        calls = whole[first:last]
        alarms = alarms_of(partition, calls, events_of(calls, world.words, owner[first:last]), None)
        untouched += [named(each, world) for each in alarms]
    counts: dict[str, Count] = {name: Count([]) for name in scenarios}
    for placement, alarms, days in found_in:
        mine = counts[placement.scenario]
        end_us = placement.start_us + placement.days * DAY_US
        mine.placements += 1
        mine.days += days
        mine.listed += bool(alarms)
        mine.anyway += bool(alarms) and any(
            each.key == placement.key and placement.start_us <= each.at_us < end_us for each in untouched
        )
        mine.alarms += [named(each, world) for each in alarms]
    return counts, untouched, float(keys * (world.days - BURN_IN_DAYS))


def named(alarm: Alarm, world: World) -> Alarm:
    """With its key's class of volume."""
    return Alarm(**(vars(alarm) | {"volume": world.keys[alarm.key].volume}))


def branched(
    partition: Partition, placement: Placement, stage: Any, world: World
) -> tuple[list[Alarm], float]:  # fmt: skip
    """One placement's listed alarms and in how many days one would count."""
    calls = run.stage_calls(placement, stage)
    calls = calls[run.log_order(calls)]
    branch = partition.branch(np.array([placement.key]), fresh=placement.scenario in run.FRESH)
    calls["key"] = 0
    events = run.admitted(events_of(calls, world.words, np.zeros(len(calls), np.int64)), 1)
    alarms = alarms_of(branch, calls, events, placement)
    half_hours = np.unique(calls["ts_us"] // VISIT_US)
    planted = np.unique(calls["ts_us"][calls["planted"] > 0] // VISIT_US)
    counted = np.isin(half_hours, planted) | np.isin(half_hours - 1, planted)
    return alarms, placement.days * float(counted.mean()) if len(counted) else 0.0


def alarms_of(branch: Partition, calls: Array, events: Array, placement: Placement | None) -> list[Alarm]:
    """Listed incidents that open here; those of a placement only beside planted calls."""
    found, changed = branch.judge(events)
    return [
        alarm_at(branch, found, row, placement)
        for row in changed
        if row["kind"] == fusion.OPENED
        and float(row["return_days"]) >= LISTED_DAYS
        and (placement is None or run.is_lately(run.planted_before(calls, int(row["event"]))[1]))
    ]


def alarm_at(branch: Partition, found: Array, row: Any, placement: Placement | None) -> Alarm:
    """The alarm with what each detector said."""
    slot, rule = int(row["slot"]), int(row["rule"])
    visit = records(branch.keys)[slot]["visit"]
    listed = 0.0
    if rule != fusion.RULE_PROOF:
        known = records(branch.shared)[0]["calibration"]
        listed = listed_from(known, rule - 1, float(fusion.visits_per_day(visit, int(row["at_us"]))))
    told = found[(found["event"] == row["event"]) & (found["bits"] > 0)]
    said = ", ".join(
        f"{DETECTORS[each['detector']].name} {each['bits']:.1f} bits,"
        f" {each['lr_stranger']:+.1f}/{each['lr_insider']:+.1f}"
        f" ({each['observed']:.0f} of {each['low']:.0f}-{each['high']:.0f}, {each['a']:.0f})"
        for each in told
    )
    key = slot if placement is None else placement.key
    start_us = START_US if placement is None else placement.start_us
    return Alarm(
        placement.scenario if placement else "", key, 0, int(visit["ordinal"]), int(row["at_us"]),
        (int(row["at_us"]) - start_us) / DAY_US, fusion.RULES[rule], float(row["score"]), listed,
        tuple(DETECTORS[each["detector"]].family for each in told), said,
    )  # fmt: skip


if __name__ == "__main__":
    main()
