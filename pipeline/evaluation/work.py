"""One partition of keybench: untouched keys through all days, placements branched off, baselines and audit beside."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.evaluation import baselines, oracle, placing, run
from pipeline.evaluation.baselines import HalfSpace, Memory
from pipeline.evaluation.exceedance import exceedance, of_all_parts
from pipeline.evaluation.new_routes import counted
from pipeline.evaluation.run import BURN_IN_DAYS, Job, Outcome, Partition, Placement
from pipeline.evaluation.sources import load
from pipeline.evaluation.world import DAY_US, START_US, World, events_of, keys_of, vocabulary

Array = npt.NDArray[Any]

SAMPLED_DAYS: Final = 4
"""Days of each key whose hours the baselines are measured on and half-space trees learn; the rest would cost hours."""
VISITS_JUDGED: Final = 4
"""Of each untouched key, by the oracle, to hold it against its bound."""


def make_world(data: Path, half: str, keys: int, days: int, seed: int) -> World:
    """Sources, vocabularies and keys: the same in every process."""
    sources = load(data, half)
    words = vocabulary(sources)
    return World(sources, words, keys_of(sources, words, keys, np.random.default_rng([seed, 3])), days)


@dataclass(frozen=True)
class Lives:
    """This partition's keys (numbers in the world), their untouched calls, and the objects that these ask for."""

    mine: list[int]
    calls: list[Array]
    known: list[oracle.Habits]
    objects: Array  # u4, sorted

    def some(self, count: int) -> Lives:
        """The first keys of these."""
        return Lives(self.mine[:count], self.calls[:count], self.known[:count], self.objects)

    def in_order(self) -> tuple[Array, Array]:
        """All calls by time, and of each whose it is: index into `mine`."""
        whole = np.concatenate(self.calls)
        owner = np.repeat(np.arange(len(self.calls)), [len(each) for each in self.calls])
        order = np.argsort(whole["ts_us"], kind="stable")
        return whole[order], owner[order]


def lives_of(job: Job, world: World) -> Lives:
    """Every key of this partition with its history."""
    mine = list(range(job.part, len(world.keys), job.parts))
    calls = run.histories(job, world, mine)
    objects = np.unique(np.concatenate([each["object"] for each in calls]))
    keys = [world.keys[k] for k in mine]
    new_routes = counted(keys, world, calls)
    known = [oracle.habits(key, world, each, new_routes) for key, each in zip(keys, calls, strict=True)]
    return Lives(mine, calls, known, objects)


def work(job: Job, world: World, lives: Lives | None = None) -> Outcome:
    """Everything of this partition's keys."""
    lives = lives or lives_of(job, world)
    outcome = _empty(job, world, lives)
    trees = _train(job, world, lives.calls, outcome)
    _judge(job, world, lives, outcome, trees, compare=True)
    keys = [world.keys[k] for k in lives.mine]
    exceeded = exceedance(keys, lives.known, world, lives.calls, VISITS_JUDGED, job.seed)
    outcome.exceeded = of_all_parts(exceeded)
    return outcome


def bare(job: Job, world: World, lives: Lives) -> Outcome:
    """Untouched keys and placements only: no baselines, no audit."""
    outcome = _empty(job, world, lives)
    _judge(job, world, lives, outcome, None, compare=False)
    return outcome


def ablate(job: Job, world: World, names: Sequence[str], lives: Lives | None = None) -> dict[str, Outcome]:
    """Without each of these detectors in turn, and "" with all: the same lives and placements, no comparisons."""
    lives, found = lives or lives_of(job, world), {}
    for name in ("", *names):
        setting = dataclasses.replace(job.setting, left_out=(name,) if name else ())
        found[name] = bare(dataclasses.replace(job, setting=setting), world, lives)
    return found


def _empty(job: Job, world: World, lives: Lives) -> Outcome:
    outcome = Outcome(placements=placing.plan(job, world, lives.mine, lives.calls), events=sum(map(len, lives.calls)))
    outcome.keys = len(lives.mine)
    outcome.key_days = float(len(lives.mine) * (world.days - BURN_IN_DAYS))
    return outcome


def _judge(
    job: Job, world: World, lives: Lives, outcome: Outcome, trees: HalfSpace | None, *, compare: bool
) -> None:  # fmt: skip
    """The pass over all days, placements branched off at the start of theirs."""
    placements = outcome.placements
    by_day: dict[int, dict[tuple[str, float], list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, placement in enumerate(placements):
        by_day[(placement.start_us - START_US) // DAY_US][placement.scenario, placement.wanted_bits].append(i)
    whole, owner = lives.in_order()
    partition = Partition(job.setting, len(lives.mine))
    found_all, changed_all, base = [], [], 0
    for day in range(world.days):
        for (_, _), chosen in sorted(by_day[day].items()):
            parts = _branch(job, world, partition, [placements[i] for i in chosen], chosen, lives)
            if compare:
                _beside(job, world, [placements[i] for i in chosen], parts, lives, trees)
        first, last = np.searchsorted(whole["ts_us"], [START_US + day * DAY_US, START_US + (day + 1) * DAY_US])
        events = events_of(whole[first:last], world.words, owner[first:last])
        events["request"] += np.uint64(base)
        found, changed = partition.judge(events)
        found["event"] += first
        changed["event"] += np.where(changed["event"] >= 0, first, 0)
        base += len(events)
        found_all.append(found)
        changed_all.append(changed)
    found_by_all = np.concatenate(found_all)
    opened = run.incidents(partition, found_by_all, np.concatenate(changed_all), whole, None)
    counted = [each for each in opened if each.at_us >= START_US + BURN_IN_DAYS * DAY_US]
    outcome.untouched = [dataclasses.replace(each, key=lives.mine[each.key]) for each in counted]
    for placement in placements:
        placement.opened = run.brought_by(placement, [e.at_us for e in outcome.untouched if e.key == placement.key])
    outcome.loudest = run.loudest_by_key_day(found_by_all, whole, owner)


def _train(job: Job, world: World, calls: list[Array], outcome: Outcome) -> HalfSpace | None:
    """Baselines' scores of sampled untouched key-days, largest per rule; the trees learn the earlier half of them."""
    try:
        trees: HalfSpace | None = HalfSpace(job.seed)
    except ImportError:
        trees = None  # river is a development dependency
    rng = np.random.default_rng([job.seed, 9, job.part])
    rows, scores = [], []
    for each in calls:
        for day in rng.integers(BURN_IN_DAYS, world.days, SAMPLED_DAYS):
            begin, end = np.searchsorted(each["ts_us"], [START_US + day * DAY_US, START_US + (day + 1) * DAY_US])
            memory = baselines.memory_of(each[:begin], world.words)
            by_rule, features, _ = baselines.hourly(each[begin:end], world.words, memory)
            rows.append(features)
            scores.append(by_rule)
    if trees:
        half = len(rows) // 2
        order = rng.permutation(len(rows))
        for i in order[:half]:
            trees.learn(rows[i])
        for i in order[half:]:
            scores[i][2] = trees.scores(rows[i])
    for rule, name in enumerate(baselines.RULES):
        kept = scores if name != "half_space" or not trees else [scores[i] for i in order[half:]]
        outcome.baselines[name] = [float(each[rule].max(initial=0.0)) for each in kept]
    return trees


def _branch(
    job: Job, world: World, partition: Partition, chosen: list[Placement], numbers: list[int], lives: Lives
) -> list[Array]:
    """Run these placements of one scenario and day; returns their calls."""
    slots = np.array([lives.mine.index(placement.key) for placement in chosen])
    stages = [
        run.stage_of(placement, world, lives.calls[slot], lives.known[slot], [job.seed, 11, job.part, number])
        for placement, slot, number in zip(chosen, slots, numbers, strict=True)
    ]
    parts, opened = run.branch_out(partition, chosen, stages, slots, world)
    for placement, incidents in zip(chosen, opened, strict=True):
        placement.opened = incidents
    return parts


def _beside(
    job: Job, world: World, chosen: list[Placement], parts: list[Array], lives: Lives, trees: HalfSpace | None
) -> None:
    """What the baselines and the leak audit say of these placements."""
    for placement, part in zip(chosen, parts, strict=True):
        calls = lives.calls[lives.mine.index(placement.key)]
        before = calls[: np.searchsorted(calls["ts_us"], placement.start_us)]
        if placement.scenario != "placebo" and placement.wanted_bits in (0.0, job.headline):
            _compare(placement, part, world, baselines.memory_of(before, world.words), trees)
            audit(placement, part, before, lives.objects, world)


def _compare(placement: Placement, part: Array, world: World, memory: Memory, trees: HalfSpace | None) -> None:
    """The baselines' largest scores in hours with planted calls."""
    scores, features, planted = baselines.hourly(part, world.words, memory)
    hit = planted > 0
    if not hit.any():
        return
    if trees:
        scores[2, hit] = trees.scores(features[hit])
    placement.scores = {name: float(scores[i, hit].max()) for i, name in enumerate(baselines.RULES)}


def audit(placement: Placement, part: Array, before: Array, objects: Array, world: World) -> None:
    """Single fields of one planted call and of one innocent call of the same key, for the leak audit.

    objects: what untouched calls ask for. Detectors see an object as a number; whether anybody asks for it is judged
    beside it, since values that never come innocently are each seen too rarely for a classifier of values.
    """
    marked = part[part["planted"] == 1]
    if not len(marked) or not len(before):
        return
    rng = np.random.default_rng(placement.start_us % 2**32 + placement.key)
    for prefix, calls in (("planted", marked), ("innocent", before)):
        call = calls[int(rng.integers(len(calls)))]
        at = int(call["ts_us"])
        values = {
            "client": int(call["client"]), "place": int(call["place"]) % world.words.siblings,
            "operation": int(call["operation"]), "status": int(call["status"]), "bytes_out": int(call["bytes_out"]),
            "second": at // 1_000_000 % 60, "microsecond": at % 1_000_000, "hour": at // 3_600_000_000 % 24,
            "object": int(call["object"]), "object_common": int(call["object"] in objects),
        }  # fmt: skip
        placement.fields |= {f"{prefix}.{name}": float(value) for name, value in values.items()}
