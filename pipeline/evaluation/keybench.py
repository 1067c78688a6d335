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
from pipeline.errors import ConfigError
from pipeline.evaluation import measures, ramp, real_logs, report
from pipeline.evaluation.attacks import ATTACKS
from pipeline.evaluation.innocents import INNOCENTS
from pipeline.evaluation.measures import LISTED
from pipeline.evaluation.run import Job, Outcome, Placement, Setting
from pipeline.evaluation.sources import split_table
from pipeline.evaluation.work import ablate, make_world, work
from pipeline.evaluation.world import CLASSES
from pipeline.progress import counted

CHECKOUT: Final = Path(__file__).parents[2]
SCENARIOS: Final = CHECKOUT / "tests" / "evaluation" / "scenarios.json"
SPLIT: Final = CHECKOUT / "tests" / "evaluation" / "split.json"

Found = TypeVar("Found")
Group = dict[str, list[Placement]]
"""scenario -> its placements."""


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
    scenarios: tuple[str, ...] = (*ATTACKS, *INNOCENTS)


def main(data: Path, size: Size, json_file: Path, page: Path | None) -> int:
    """Run, write, print."""
    declared = declarations(data)
    began = time.perf_counter()
    found = bench(data, size, declared)
    found["real_logs"] = {"apache": real_logs.apache(data), "invictus": real_logs.invictus(data)}
    found["ramp"] = ramp.measure(data, size.half)
    found["run"]["seconds"] = round(time.perf_counter() - began, 1)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(_plain(found), indent=2, sort_keys=True) + "\n")
    if page is not None:
        page.write_text(report.page(_plain(found), declared))
    sys.stdout.write(report.summary(found))
    return 0


def declarations(data: Path) -> dict[str, Any]:
    """The committed scenarios. Raises ConfigError where they or the split don't fit the code or the data."""
    if not SCENARIOS.exists():
        raise ConfigError("keybench runs from a checkout: tests/evaluation/scenarios.json is not there")
    declared: dict[str, Any] = json.loads(SCENARIOS.read_bytes())
    if set(declared["attacks"]) != set(ATTACKS) or set(declared["innocents"]) != set(INNOCENTS):
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
    found = figures(outcomes, declared)
    if size.wide:
        wide = outcomes_of(data, size, declared, replace(base, listed_days=100.0))
        add_wide(found, wide, declared)
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


def figures(outcomes: Sequence[Outcome], declared: dict[str, Any]) -> dict[str, Any]:
    """What the issue asks for, from the run with the shipped setting."""
    placements = [each for outcome in outcomes for each in outcome.placements]
    at_headline = measures.by_scenario(placements, float(declared["headline_bits"]))
    attacks = {name: mine for name, mine in at_headline.items() if name in declared["attacks"]}
    innocents = {name: mine for name, mine in at_headline.items() if name in declared["innocents"]}
    return {
        **_headline(outcomes, attacks, innocents, declared),
        **_of_attacks(outcomes, attacks, placements, declared),
        "acted_on_innocent": {n: sum(o.acted and o.planted for p in m for o in p.opened) for n, m in innocents.items()},
        "acts": {
            "untouched": measures.acts(o for each in outcomes for o in each.untouched),
            "attacks": measures.acts(o for m in attacks.values() for p in m for o in p.opened if o.planted),
            "innocents": measures.acts(o for m in innocents.values() for p in m for o in p.opened if o.planted),
        },
        "untouched_reasons": _tally([o.first_reason or "fusion only" for each in outcomes for o in each.untouched]),
        "calibration": measures.calibration(outcomes),
        "twins": {f"{a} / {b}": _twin(at_headline, a, b) for a, b in declared["twins"]},
        **_comparisons(outcomes, attacks, innocents),
    }


def _headline(
    outcomes: Sequence[Outcome], attacks: Group, innocents: Group, declared: dict[str, Any]
) -> dict[str, Any]:
    """The keys that the issue names, and their intervals."""
    accepted = {name: each["reasons"] for name, each in declared["attacks"].items()}
    recall = {name: measures.recall_of(mine, LISTED) for name, mine in attacks.items()}
    listed = {name: measures.recall_of(mine, LISTED) for name, mine in innocents.items()}
    untouched, control = measures.untouched_rate(outcomes, LISTED), measures.placebo(outcomes, LISTED)
    joined = [each for mine in attacks.values() for each in mine]
    seconds, _ = measures.delays(joined)
    return {
        "macro_recall": float(np.mean([each["mean"] for each in recall.values()])) if recall else 0.0,
        "recall": {name: each["mean"] for name, each in recall.items()},
        "innocent_rate": {name: each["mean"] for name, each in listed.items()},
        "incidents_per_100k_key_days": untouched["mean"],
        "placebo_ratio": control["ratio"],
        "delay_p50_s": float(np.percentile(seconds, 50)) if seconds else None,
        "delay_p95_s": float(np.percentile(seconds, 95)) if seconds else None,
        "reason_hit_rate": measures.reason_hit(joined, accepted)["mean"],
        "intervals": {"recall": recall, "innocent_rate": listed, "incidents_per_100k_key_days": untouched},
        "placebo": control,
        "precision": precision(recall, outcomes),
    }


def _of_attacks(
    outcomes: Sequence[Outcome], attacks: Group, placements: Sequence[Placement], declared: dict[str, Any]
) -> dict[str, Any]:
    """By budget, strength and volume; delays, reasons, leaks."""
    accepted = {name: each["reasons"] for name, each in declared["attacks"].items()}
    names = {name: each["names"] for name, each in declared["attacks"].items()}
    return {
        "recall_at": {str(b): _means({n: measures.recall_of(m, b) for n, m in attacks.items()}) for b in (10, LISTED)},
        "untouched_at": {str(budget): measures.untouched_rate(outcomes, budget) for budget in (10, LISTED)},
        "recall_by_strength": _by_strength(placements, declared),
        "recall_by_volume": _by_volume(attacks),
        "oracle_bits": {n: float(np.median([each.bits for each in m])) for n, m in attacks.items()},
        "delay": {n: _delay(m) for n, m in attacks.items()},
        "reasons": {n: measures.reason_hit(m, accepted) for n, m in attacks.items()},
        "first_reasons": {n: _first_reasons(m) for n, m in attacks.items()},
        "leak_audit": measures.leak_audit(placements, names),
    }


def _comparisons(outcomes: Sequence[Outcome], attacks: Group, innocents: Group) -> dict[str, Any]:
    """Baselines at the listed budget, and at the rate that ours really has; the fusion against its loudest part."""
    ours = max(float(LISTED), measures.untouched_rate(outcomes, LISTED)["mean"])
    return {
        "baselines": measures.compare(outcomes, attacks, LISTED),
        "baselines_at_our_rate": measures.compare(outcomes, attacks, ours),
        "baselines_innocent": measures.compare(outcomes, innocents, LISTED),
        "ours_at_budget": at_budget(outcomes, attacks),
        "ours_at_budget_innocent": at_budget(outcomes, innocents),
        "ablation": {"fusion: loudest detector alone": _loudest(outcomes, attacks)},
    }


def at_budget(outcomes: Sequence[Outcome], attacks: Group) -> dict[str, Any]:
    """Our share caught with the threshold raised until untouched keys have 100 per 100,000 key-days, as baselines."""
    days = sum(outcome.key_days for outcome in outcomes)
    periods = np.sort([each.return_days for outcome in outcomes for each in outcome.untouched])[::-1]
    allowed = int(LISTED * days / 1e5)
    above = float(periods[allowed]) if allowed < len(periods) else 1_000.0
    budget = min(float(LISTED), 1e5 / (above * (1.0 + 1e-9)))
    recall = _means({name: measures.recall_of(mine, budget) for name, mine in attacks.items()})
    return {"return_days": above, "macro": float(np.mean(list(recall.values()))) if recall else 0.0, "recall": recall}


def _means(found: dict[str, dict[str, float]]) -> dict[str, float]:
    return {name: each["mean"] for name, each in found.items()}


def add_wide(found: dict[str, Any], outcomes: Sequence[Outcome], declared: dict[str, Any]) -> None:
    """The recall at 1,000 per 100,000 key-days and the rate there, from the run with the lower threshold."""
    placements = [each for outcome in outcomes for each in outcome.placements]
    mine = measures.by_scenario(placements, float(declared["headline_bits"]))
    found["recall_at"]["1000"] = {n: measures.recall_of(mine[n], 1000)["mean"] for n in found["recall"]}
    found["untouched_at"]["1000"] = measures.untouched_rate(outcomes, 1000)


def _by_strength(placements: Sequence[Placement], declared: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Recall at the listed budget, and how many of the wanted bits the scenario reached."""
    found: dict[str, dict[str, Any]] = {}
    for bits in declared["strengths_bits"]:
        mine = measures.by_scenario(placements, float(bits))
        found[str(bits)] = {name: _strength(mine[name]) for name in declared["attacks"] if name in mine}
    return found


def _strength(placements: Sequence[Placement]) -> dict[str, float]:
    reached = {name: float(np.median([getattr(each, name) for each in placements])) for name in ("bits", "calls")}
    return measures.recall_of(placements, LISTED) | reached


def _by_volume(attacks: Group) -> dict[str, dict[str, float]]:
    found = {}
    for number, name in enumerate(CLASSES):
        mine = {n: [each for each in m if each.volume == number] for n, m in attacks.items()}
        found[name] = _means({n: measures.recall_of(m, LISTED) for n, m in mine.items()})
    return found


def _delay(placements: Sequence[Placement]) -> dict[str, Any]:
    seconds, events = measures.delays(placements)
    if not seconds:
        return {"caught": 0}
    quick = [s <= 10.0 or e <= 5 for s, e in zip(seconds, events, strict=True)]
    return {"caught": len(seconds), "p50_s": float(np.median(seconds)), "p50_events": float(np.median(events)),
            "within_5_events_or_10_s": float(np.mean(quick))}  # fmt: skip


def _first_reasons(placements: Sequence[Placement]) -> dict[str, int]:
    return _tally([hit.first_reason or "fusion only" for each in placements if (hit := measures.first_hit(each))])


def _tally(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _twin(mine: dict[str, list[Placement]], attack: str, innocent: str) -> float:
    return measures.auc(
        [measures.rarest(each) for each in mine.get(attack, [])],
        [measures.rarest(each) for each in mine.get(innocent, [])],
    )


def _loudest(outcomes: Sequence[Outcome], attacks: Group) -> dict[str, float]:
    """Instead of the fusion: the largest bits of any detector on a key-day, at the budget on untouched traffic."""
    untouched = np.concatenate([np.asarray(outcome.loudest) for outcome in outcomes])
    days = sum(outcome.key_days for outcome in outcomes)
    at = np.sort(untouched)[::-1][min(len(untouched) - 1, int(LISTED * days / 1e5))] if len(untouched) else math.inf
    recall = [float(np.mean([each.loudest > at for each in m])) for m in attacks.values()]
    return {"macro_recall": float(np.mean(recall)) if recall else 0.0, "threshold_bits": float(at)}


def precision(recall: dict[str, dict[str, float]], outcomes: Sequence[Outcome]) -> list[dict[str, float]]:
    """Incidents a day and the share of them that are true, for N keys of which a share P is attacked in a year."""
    rate = measures.untouched_rate(outcomes, LISTED)
    caught = float(np.mean([each["mean"] for each in recall.values()])) if recall else 0.0
    rows = []
    for keys in (1_000, 50_000):
        for prior in (0.001, 0.01, 0.1):
            true = keys * prior / 365 * caught
            false = {end: keys * rate[end] / 1e5 for end in ("mean", "low", "high")}
            rows.append({
                "keys": keys, "attacked_a_year": prior, "incidents_a_day": true + false["mean"],
                "precision": true / max(1e-12, true + false["mean"]), "low": true / max(1e-12, true + false["high"]),
                "high": true / max(1e-12, true + false["low"]),
            })  # fmt: skip
    return rows


def _plain(value: Any) -> Any:
    """For JSON: no NaN, no infinity, figures to six digits."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
