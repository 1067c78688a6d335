"""What the detector `enumeration` adds to the others, in keybench's conditions, and what it costs.

`python -m tests.evaluation.enumeration_adds --data ../shared/data [--half development --keys 200 --placements 30]`
keybench has no scenario of object after object, so two are added here: `ids_walked` (the owner's place, client and
route, a person's pace, each request another object) and `lookups` (nine of ten of them not there), beside keybench's
own that read or probe. Recall with and without the detector, each with its threshold set so that untouched keys have
100 incidents per 100,000 key-days; and the untouched keys' incidents at the shipped threshold. Objects of innocent
keys are the paths of the Apache log.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation import measures
from pipeline.evaluation.attacks import ATTACKS, Plan, Stage, _own_burst, own_lines
from pipeline.evaluation.figures import at_budget
from pipeline.evaluation.run import Job, Outcome
from pipeline.evaluation.sources import Ints
from pipeline.evaluation.work import ablate, make_world
from pipeline.evaluation.world import US
from tests.bench.grown import print_json

HEADLINE = 40.0
LIKE_IT = ("bulk_read", "slow_exfiltration", "endpoint_scan", "privilege_probing")


def fresh_objects(stage: Stage, count: int) -> Ints:
    """Objects that the key has not asked for, each another."""
    return (np.arange(1, count + 1) * 2_654_435_761 + stage.start_us // US) % 2**32


def ids_walked(stage: Stage) -> Plan:
    """From the owner's place, by its client and on one of its routes: another object each time, at a person's pace."""
    lines = own_lines(stage, 60)
    lines["operation"], lines["object"] = lines["operation"][0], fresh_objects(stage, 60)
    lines["status"], lines["outcome"] = 200, lines["outcome"][lines["status"] < 400].max(initial=1)
    return _own_burst(stage, stage.active_time(), 60, 30.0, lines)


def lookups(stage: Stage) -> Plan:
    """The same where nine of ten objects are not there."""
    made = ids_walked(stage)
    missing = stage.rng.random(len(made.planted)) < 0.9
    made.planted["status"] = np.where(missing, 404, 200)
    return made


def figures(outcome: Outcome) -> dict[str, Any]:
    """Recall at the budget, and the untouched keys' incidents as shipped."""
    by_scenario = measures.by_scenario(outcome.placements, HEADLINE)
    return {
        "untouched": len(outcome.untouched),
        "key_days": outcome.key_days,
        "at_budget": at_budget([outcome], by_scenario),
        "shipped": {name: measures.recall_of(mine, 100)["mean"] for name, mine in by_scenario.items()},
        "first_reasons": {
            name: [each.opened[0].first_reason for each in mine if each.opened] for name, mine in by_scenario.items()
            if name in ("ids_walked", "lookups")
        },
    }  # fmt: skip


def main() -> None:
    """One process, one world."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--half", default="development")
    options.add_argument("--keys", type=int, default=200)
    options.add_argument("--placements", type=int, default=30)
    options.add_argument("--days", type=int, default=50)
    options.add_argument("--seed", type=int, default=5)
    chosen = options.parse_args()
    ATTACKS.update({"ids_walked": ids_walked, "lookups": lookups})  # the process is this comparison's own
    world = make_world(chosen.data, chosen.half, chosen.keys, chosen.days, chosen.seed)
    scenarios = ("ids_walked", "lookups", *LIKE_IT)
    job = Job(chosen.seed, 0, 1, chosen.placements, (HEADLINE,), HEADLINE, scenarios, 0)
    for without, outcome in ablate(job, world, ["enumeration"]).items():
        print_json("enumeration_adds", {"without": without, "half": chosen.half} | figures(outcome))


if __name__ == "__main__":
    main()
