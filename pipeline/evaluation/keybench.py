"""`keywatch evaluate keybench`: the whole benchmark, one setting, two processes, seeded; JSON and a page.

For each seed: a world of its own from the held-out half of the sources, half of the keys per process (a partition
each, with its own shared knowledge, as in production). Runs: the shipped setting; the same with `listed_days` 100,
which gives the recall at 1,000 per 100,000 key-days; optionally one run without each detector. The scenarios, their
accepted reasons and the split are committed files (tests/evaluation); they are compared with the data before the run.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from detectors import DETECTORS
from pipeline import private
from pipeline.errors import ConfigError
from pipeline.evaluation import figures, measures, ramp, real_logs, report
from pipeline.evaluation.attacks import ATTACKS
from pipeline.evaluation.innocents import INNOCENTS
from pipeline.evaluation.measures import LISTED
from pipeline.evaluation.run import Job, Outcome, Setting
from pipeline.evaluation.sources import split_table
from pipeline.evaluation.variants import VARIANTS
from pipeline.evaluation.work import ablate, make_world, work
from pipeline.progress import counted

CHECKOUT: Final = Path(__file__).parents[2]
SCENARIOS: Final = CHECKOUT / "tests" / "evaluation" / "scenarios.json"
SPLIT: Final = CHECKOUT / "tests" / "evaluation" / "split.json"

Found = TypeVar("Found")


@dataclass(frozen=True)
class Size:
    """How much is run; the defaults are the issue's."""

    seeds: tuple[int, ...] = (1,)
    keys: int = 3_000
    days: int = 60
    placements: int = 300
    placebos: int = 1_500
    processes: int = 2
    half: str = "held-out"
    ablation: bool = False
    wide: bool = True  # the second run, for the recall at 1,000
    scenarios: tuple[str, ...] = (*ATTACKS, *VARIANTS, *INNOCENTS)


def main(data: Path, size: Size, json_file: Path, page: Path | None) -> int:
    """Run, write, print."""
    declared = declarations(data)
    began = time.perf_counter()
    found = bench(data, size, declared)
    found["real_logs"] = {"apache": real_logs.apache(data), "invictus": real_logs.invictus(data)}
    found["ramp"] = ramp.measure(data, size.half)
    found["run"]["seconds"] = round(time.perf_counter() - began, 1)
    private.folder(json_file.parent)
    private.write(json_file, (json.dumps(_plain(found), indent=2, sort_keys=True) + "\n").encode())
    if page is not None:
        private.write(page, report.page(_plain(found), declared).encode())
    sys.stdout.write(report.summary(found))
    return 0


def declarations(data: Path) -> dict[str, Any]:
    """The committed scenarios. Raises ConfigError where they or the split don't fit the code or the data."""
    if not SCENARIOS.exists():
        raise ConfigError("keybench runs from a checkout: tests/evaluation/scenarios.json is not there")
    declared: dict[str, Any] = json.loads(SCENARIOS.read_bytes())
    written = {"attacks": ATTACKS, "innocents": INNOCENTS, "variants": VARIANTS}
    if any(set(declared[kind]) != set(mine) for kind, mine in written.items()):
        raise ConfigError("tests/evaluation/scenarios.json names other scenarios than the code has")
    if not data.is_dir():
        raise ConfigError(f"the real logs are not at {data}; name their folder with --data")
    if split_table(data) != json.loads(SPLIT.read_bytes()):
        raise ConfigError("the data are not those of the committed split (tests/evaluation/split.json)")
    return declared


def bench(data: Path, size: Size, declared: dict[str, Any]) -> dict[str, Any]:
    """All figures of all runs."""
    base = Setting()
    outcomes = outcomes_of(data, size, declared, base)
    found = figures.of(outcomes, declared)
    if size.wide:
        wide = outcomes_of(data, size, declared, replace(base, listed_days=100.0))
        figures.add_wide(found, wide, declared)
    if size.ablation:
        found["ablation"] |= _ablations(data, size, declared, found)
    found["run"] = {
        "seeds": list(size.seeds), "keys": size.keys, "days": size.days, "placements": size.placements,
        "half": size.half, "detectors": [each.name for each in DETECTORS],
        "events_untouched": sum(outcome.events for outcome in outcomes),
        "key_days": sum(outcome.key_days for outcome in outcomes),
    }  # fmt: skip
    return found


def _ablations(data: Path, size: Size, declared: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Without each detector: recall of the attacks and untouched rate, on a third of the keys and placements.

    Everything but the pass is made once per process, and the pass is the compiled one: what is left out weighs nothing.
    """
    small = replace(size, keys=max(12, size.keys // 3), placements=max(3, size.placements // 3), placebos=0)
    small = replace(small, scenarios=tuple(name for name in size.scenarios if name in declared["attacks"]))
    jobs = _jobs(data, small, (float(declared["headline_bits"]),), declared, Setting())
    parts = _in_processes(_ablating, jobs, small.processes)
    return {
        f"without {name}" if name else "all, on a third": _ablated([part[name] for part in parts]) for name in parts[0]
    }


def _ablating(task: Task) -> dict[str, Outcome]:
    data, size, job = task
    return ablate(job, make_world(data, size.half, size.keys, size.days, job.seed), [each.name for each in DETECTORS])


def _ablated(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    placements = [each for outcome in outcomes for each in outcome.placements]
    recall = {name: measures.recall_of(m, LISTED)["mean"] for name, m in measures.by_scenario(placements).items()}
    return {
        "macro_recall": float(np.mean(list(recall.values()))),
        "incidents_per_100k_key_days": measures.untouched_rate(outcomes, LISTED)["mean"],
        "recall": recall,
    }


def outcomes_of(data: Path, size: Size, declared: dict[str, Any], setting: Setting) -> list[Outcome]:
    """One outcome per seed and process; keys are numbered through all seeds."""
    strengths = tuple(float(bits) for bits in declared["strengths_bits"])
    jobs = _jobs(data, size, strengths, declared, setting)
    outcomes = _in_processes(_process, jobs, size.processes)
    for number, outcome in enumerate(outcomes):
        shift = number // size.processes * size.keys
        outcome.untouched = [replace(each, key=each.key + shift) for each in outcome.untouched]
        outcome.exceeded = {of: (keys + shift, most) for of, (keys, most) in outcome.exceeded.items()}
        for placement in outcome.placements:
            placement.key += shift
    return outcomes


Task = tuple[Path, Size, Job]


def _jobs(
    data: Path, size: Size, strengths: tuple[float, ...], declared: dict[str, Any], setting: Setting
) -> list[Task]:
    """One per seed and process."""
    headline = float(declared["headline_bits"])
    return [
        (data, size, Job(seed, part, size.processes, size.placements, strengths, headline, size.scenarios,
                         size.placebos, setting))
        for seed in size.seeds for part in range(size.processes)
    ]  # fmt: skip


def _in_processes(work_of: Callable[[Task], Found], jobs: list[Task], processes: int) -> list[Found]:
    """What each job gives, in order."""
    if processes == 1:
        return [work_of(job) for job in counted(jobs, "worlds", len(jobs))]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return list(counted(pool.imap(work_of, jobs), "worlds", len(jobs)))


def _process(task: Task) -> Outcome:
    data, size, job = task
    return work(job, make_world(data, size.half, size.keys, size.days, job.seed))


def _plain(value: Any) -> Any:
    """For JSON: no NaN, no infinity, figures to six digits."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
