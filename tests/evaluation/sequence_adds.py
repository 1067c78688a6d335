"""Does the order of operations add anything to the detectors? Both at one budget, in keybench's conditions.

`python -m tests.evaluation.sequence_adds --data ../shared/data [--keys 100 --placements 10 --seed 5]`
The model: a first-order Markov chain over what a request is (class of its operation, or refused, or missing; repeats of
one route collapsed; the visit's first request comes after BEGIN), the key's own transitions with its peers' as prior
(weight 4), against an attacker's, counted in the recorded attacks of the development half. A visit's score is the
largest running sum of log2 likelihood ratios (at most once per pair of classes, since a habit repeats, and never below
0), so read -> read -> credential -> delete adds up and a crawl does not. Needs 8 x 9 counts, 72 bytes of a key.
Compared as in `river_adds`: ours alone at the whole budget, the chain alone, and each at half of it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.detector import ERROR_401, ERROR_403, ERROR_404, OPERATIONS, VISIT_GAP_US, VISIT_MAX_US
from pipeline.evaluation import oracle, placing, run
from pipeline.evaluation.attacks import ATTACKS
from pipeline.evaluation.baselines import chance, threshold
from pipeline.evaluation.run import BURN_IN_DAYS, Job, Outcome, Partition, Placement, Setting
from pipeline.evaluation.sources import Payload, payloads
from pipeline.evaluation.work import lives_of, make_world
from pipeline.evaluation.world import DAY_US, START_US, World, events_of
from tests.bench.grown import print_json
from tests.evaluation.river_adds import BUDGETS, HEADLINE, ours, quiet_enough

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

CLASSES: Final = OPERATIONS + 1
REFUSED: Final = OPERATIONS  # refused or missing, whatever it was
BEGIN: Final = CLASSES
PEERS_WEIGHT: Final = 4.0
KEEP: Final = 0.98  # per visit
CLASS_OF_KIND: Final = (1, 2, 3, 4, 5)  # a payload's sensitivity as OPERATION_*
MOST_BITS: Final = 24.0


@dataclass
class Chain:
    """Transitions of one key, decayed by visit."""

    counts: Floats = field(default_factory=lambda: np.zeros((CLASSES + 1, CLASSES)))

    def score(self, steps: Array, peers: Floats, attackers: Floats) -> float:
        """The largest running sum of this visit; `steps`: distinct (from, to)."""
        own = self.counts[steps[:, 0], steps[:, 1]] + PEERS_WEIGHT * peers[steps[:, 0], steps[:, 1]]
        own /= self.counts[steps[:, 0]].sum(axis=1) + PEERS_WEIGHT
        total = most = 0.0
        for ratio in np.log2(attackers[steps[:, 0], steps[:, 1]] / own):
            total = max(0.0, total + float(ratio))
            most = max(most, total)
        return min(MOST_BITS, most)

    def learn(self, steps: Array) -> None:
        """The visit's transitions."""
        self.counts *= KEEP
        np.add.at(self.counts, (steps[:, 0], steps[:, 1]), 1.0)


def visits_of(events: Array) -> list[slice]:
    """The visits of one key's events, sorted by time, as `fuse.visit_ended` cuts them."""
    found, first, at = [], 0, events["ts_us"]
    for i in range(1, len(events) + 1):
        if i == len(events) or at[i] - at[i - 1] >= VISIT_GAP_US or at[i] - at[first] >= VISIT_MAX_US:
            found.append(slice(first, i))
            first = i
    return found if len(events) else []


def steps_of(events: Array) -> Array:
    """Distinct (class, next class) of a visit in order; repeats of one route are one request."""
    moved = np.ones(len(events), np.bool_)
    moved[1:] = events["route"][1:] != events["route"][:-1]
    error = events["error"][moved]
    kind = np.where(np.isin(error, (ERROR_401, ERROR_403, ERROR_404)), REFUSED, events["operation"][moved]).astype(int)
    pairs = np.stack([np.concatenate([[BEGIN], kind[:-1]]), kind], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    return pairs[np.sort(first)]


def attackers_of(recorded: list[Payload]) -> Floats:
    """How attackers go on, from recorded attacks, smoothed by one of each."""
    counts = np.ones((CLASSES + 1, CLASSES)) / CLASSES
    for payload in recorded:
        kinds = [
            REFUSED if no else CLASS_OF_KIND[int(k)] for k, no in zip(payload.sensitivity, payload.refused, strict=True)
        ]
        for step in zip([BEGIN, *kinds[:-1]], kinds, strict=True):
            counts[step] += 1.0
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def peers_of(lives: list[Array]) -> Floats:
    """How innocent keys go on, each key's visits alike."""
    counts = np.full((CLASSES + 1, CLASSES), 0.1)
    for events in lives:
        for visit in visits_of(events)[:200]:
            steps = steps_of(events[visit])
            np.add.at(counts, (steps[:, 0], steps[:, 1]), 1.0)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def untouched_scores(
    lives: list[Array], peers: Floats, attackers: Floats
) -> tuple[list[float], dict[int, list[Chain]]]:
    """Largest score of each key-day after the burn-in, and each key's chain at the start of each day."""
    days: dict[tuple[int, int], float] = {}
    kept: dict[int, list[Chain]] = {}
    for key, events in enumerate(lives):
        chain = Chain()
        snapshots: list[Chain] = []
        for visit in visits_of(events):
            day = int((events["ts_us"][visit.start] - START_US) // DAY_US)
            while len(snapshots) <= day:
                snapshots.append(Chain(chain.counts.copy()))
            steps = steps_of(events[visit])
            if day >= BURN_IN_DAYS:
                days[key, day] = max(days.get((key, day), 0.0), chain.score(steps, peers, attackers))
            chain.learn(steps)
        kept[key] = [*snapshots, chain]
    return list(days.values()), kept


def placed_score(calls: Array, world: World, chain: Chain, peers: Floats, attackers: Floats) -> float:
    """Largest score of a visit with planted calls."""
    calls = calls[np.argsort(calls["ts_us"], kind="stable")]
    events = events_of(calls, world.words, np.zeros(len(calls), np.int64))
    most = 0.0
    for visit in visits_of(events):
        steps = steps_of(events[visit])
        if (calls["planted"][visit] > 0).any():
            most = max(most, chain.score(steps, peers, attackers))
        else:
            chain.learn(steps)
    return most


def compare(outcome: Outcome, scores: list[float], days: float, budget: float) -> dict[str, Any]:
    """Mean recall over the attacks three ways, and the attacks where both beat ours."""
    untouched = np.concatenate([np.asarray(scores), np.zeros(max(0, int(days) - len(scores)))])
    limits = {share: threshold(untouched, days, budget * share) for share in (0.5, 1.0)}
    periods = {share: quiet_enough(outcome, budget * share) for share in (0.5, 1.0)}
    recall: dict[str, dict[str, float]] = defaultdict(dict)
    for name in ATTACKS:
        mine = [each for each in outcome.placements if each.scenario == name and each.scores]
        if mine:
            chain = np.array([each.scores["sequence"] for each in mine])
            whole = np.array([ours(each, periods[1.0]) for each in mine])
            half = np.array([ours(each, periods[0.5]) for each in mine])
            recall["ours"][name] = float(whole.mean())
            recall["sequence"][name] = float(chance(chain, limits[1.0]).mean())
            recall["both"][name] = float((1 - (1 - half) * (1 - chance(chain, limits[0.5]))).mean())
    macro = {way: round(float(np.mean(list(by.values()))), 3) for way, by in recall.items()}
    gains = {n: round(v - recall["ours"][n], 2) for n, v in recall["both"].items() if v != recall["ours"][n]}
    return macro | {"both_less_ours": gains, "sequence_by": {n: round(v, 2) for n, v in recall["sequence"].items()}}


def measure(data: Path, half: str, job: Job, keys: int, days: int) -> tuple[Outcome, list[float]]:
    """Our incidents on untouched keys and placements, and the chain's scores of both."""
    world = make_world(data, half, keys, days, job.seed)
    untouched = lives_of(job, world)
    calls, known = untouched.calls, untouched.known
    lives = [events_of(each, world.words, np.zeros(len(each), np.int64)) for each in calls]
    attackers, peers = attackers_of([p for p in payloads(data) if p.name in _development(data)]), peers_of(lives)
    scores, chains = untouched_scores(lives, peers, attackers)
    outcome = Outcome(
        keys=keys,
        key_days=float(keys * (days - BURN_IN_DAYS)),
        placements=placing.plan(job, world, list(range(keys)), calls),
    )
    partition = Partition(job.setting, keys)
    whole = np.concatenate(calls)
    whole = whole[np.argsort(whole["ts_us"], kind="stable")]
    found, changed = [], []
    for day in range(days):
        _place(partition, world, day, outcome.placements, calls, known, job, chains, peers, attackers)
        first, last = np.searchsorted(whole["ts_us"], [START_US + day * DAY_US, START_US + (day + 1) * DAY_US])
        told, grown = partition.judge(
            events_of(whole[first:last], world.words, whole["key"][first:last].astype(np.int64))
        )
        told["event"] += first
        grown["event"] += np.where(grown["event"] >= 0, first, 0)
        found.append(told)
        changed.append(grown)
    opened = run.incidents(partition, np.concatenate(found), np.concatenate(changed), whole, None)
    outcome.untouched = [each for each in opened if each.at_us >= START_US + BURN_IN_DAYS * DAY_US]
    return outcome, scores


def _development(data: Path) -> set[str]:
    from pipeline.evaluation.sources import half

    return {each.name for each in payloads(data) if half("technique", each.name) == "development"}


def _place(
    partition: Partition, world: World, day: int, placements: list[Placement], calls: list[Array],
    known: list[oracle.Habits], job: Job, chains: dict[int, list[Chain]], peers: Floats, attackers: Floats,
) -> None:  # fmt: skip
    today = [(i, p) for i, p in enumerate(placements) if (p.start_us - START_US) // DAY_US == day]
    for name in sorted({placement.scenario for _, placement in today} & set(ATTACKS)):
        chosen = [(i, placement) for i, placement in today if placement.scenario == name]
        stages = [run.stage_of(p, world, calls[p.key], known[p.key], [job.seed, 11, 0, i]) for i, p in chosen]
        slots = np.array([placement.key for _, placement in chosen])
        parts, opened = run.branch_out(partition, [placement for _, placement in chosen], stages, slots, world)
        for (_, placement), part, mine in zip(chosen, parts, opened, strict=True):
            placement.opened = mine
            chain = Chain(chains[placement.key][min(day, len(chains[placement.key]) - 1)].counts.copy())
            placement.scores = (
                {"sequence": placed_score(part, world, chain, peers, attackers)} if placement.calls else {}
            )


def main() -> None:
    """One process, one world."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--keys", type=int, default=100)
    options.add_argument("--placements", type=int, default=10)
    options.add_argument("--days", type=int, default=40)
    options.add_argument("--seed", type=int, default=5)
    options.add_argument("--half", default="held-out")
    chosen = options.parse_args()
    setting = Setting(listed_days=100.0, page_days=1_000.0)
    job = Job(chosen.seed, 0, 1, chosen.placements, (HEADLINE,), HEADLINE, tuple(ATTACKS), 0, setting)
    outcome, scores = measure(chosen.data, chosen.half, job, chosen.keys, chosen.days)
    for budget in BUDGETS:
        said = {"half": chosen.half, "budget": budget, "key_days": outcome.key_days}
        print_json("sequence_adds", said | compare(outcome, scores, outcome.key_days, budget))


if __name__ == "__main__":
    main()
