"""Does River's half-space forest add anything to the detectors? Both at one budget, in keybench's conditions.

`python -m tests.evaluation.river_adds --data ../shared/data [--keys 200 --placements 10 --seed 5]`
Compared at so many incidents per 100,000 key-days, each way with its threshold set on untouched traffic of the run:
 ours     the detectors alone, at the whole budget;
 forest   half-space trees over standardised features (`pipeline/evaluation/baselines.py`), at the whole budget;
 both     ours at half the budget, or the forest at the other half.
The forest adds something if *both* catches more attacks than *ours*. Thresholds see the traffic they are judged on,
which favours both sides alike. The forest has hours, of which two features say whether network and client are new: the
plug-in has minutes without those two. `--minutes` takes them from the forest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation import work as working
from pipeline.evaluation.attacks import ATTACKS
from pipeline.evaluation.baselines import Floats, HalfSpace, chance, threshold
from pipeline.evaluation.run import Job, Outcome, Placement, Setting
from tests.bench.grown import print_json

NOVELTY = np.array([False, True, True, False, False, False])
BUDGETS = (100.0, 1_000.0)
HEADLINE = 40.0


class WithoutNovelty(HalfSpace):
    """What the rows of minutes can tell: requests, operations, errors, bytes."""

    def _standard(self, row: Floats) -> dict[str, float]:
        return super()._standard(np.where(NOVELTY, 0.0, row))


def quiet_enough(outcome: Outcome, budget: float) -> float:
    """The return period from which the detectors' incidents on untouched keys are within the budget."""
    allowed = int(budget * outcome.key_days / 1e5)
    periods = sorted((each.return_days for each in outcome.untouched), reverse=True)
    return periods[allowed] if allowed < len(periods) else 0.0


def ours(placement: Placement, above_days: float) -> float:
    """Whether an incident rarer than that opened at a planted call."""
    return float(any(each.planted and each.return_days > above_days for each in placement.opened))


def compare(outcome: Outcome, budget: float) -> dict[str, Any]:
    """Mean recall over the attacks, three ways."""
    untouched = np.array(outcome.baselines["half_space"])
    days = float(len(untouched))
    limits = {share: threshold(untouched, days, budget * share) for share in (0.5, 1.0)}
    periods = {share: quiet_enough(outcome, budget * share) for share in (0.5, 1.0)}
    recall: dict[str, list[float]] = {"ours": [], "forest": [], "both": []}
    for name in ATTACKS:
        mine = [each for each in outcome.placements if each.scenario == name and each.scores]
        if not mine:
            continue
        scores = np.array([each.scores["half_space"] for each in mine])
        whole = np.array([ours(each, periods[1.0]) for each in mine])
        half = np.array([ours(each, periods[0.5]) for each in mine])
        recall["ours"].append(float(whole.mean()))
        recall["forest"].append(float(chance(scores, limits[1.0]).mean()))
        recall["both"].append(float((1 - (1 - half) * (1 - chance(scores, limits[0.5]))).mean()))
    return {name: round(float(np.mean(each)), 3) for name, each in recall.items()}


def main() -> None:
    """One process, one world."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--keys", type=int, default=200)
    options.add_argument("--placements", type=int, default=10)
    options.add_argument("--days", type=int, default=40)
    options.add_argument("--seed", type=int, default=5)
    options.add_argument("--minutes", action="store_true", help="only what rows of minutes can tell")
    chosen = options.parse_args()
    if chosen.minutes:
        setattr(working, "HalfSpace", WithoutNovelty)  # noqa: B010  (the process is this comparison's own)
    world = working.make_world(chosen.data, "held-out", chosen.keys, chosen.days, chosen.seed)
    setting = Setting(listed_days=100.0, page_days=1_000.0)
    job = Job(chosen.seed, 0, 1, chosen.placements, (HEADLINE,), HEADLINE, tuple(ATTACKS), 1, setting)
    outcome = working.work(job, world)
    for budget in BUDGETS:
        placed = sum(1 for each in outcome.placements if each.scores)
        said = {"minutes": chosen.minutes, "budget": budget, "key_days": outcome.key_days, "placements": placed}
        print_json("river_adds", said | compare(outcome, budget))


if __name__ == "__main__":
    main()
