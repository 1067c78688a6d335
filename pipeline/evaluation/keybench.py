"""`keywatch evaluate keybench`: the whole benchmark, one setting, seeded, in pieces; JSON and a page.

For each seed: a world of its own from the held-out half of the sources, its keys in partitions of 500 at most, two at
least, each with its own shared knowledge, as in production. A partition is a piece (`chunks`), whatever `processes`
is, and makes its keys' lives once for all of its runs: the shipped setting, beside baselines and audit; the same with
`listed_days` 100, which gives the recall at 1,000 per 100,000 key-days; optionally one without each detector, on a
third of the keys and placements. The scenarios, their accepted reasons and the split are committed files
(tests/evaluation); they are compared with the data before the run.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from detectors import DETECTORS
from pipeline import private
from pipeline.errors import ConfigError
from pipeline.evaluation import chunks, figures, ramp, real_logs, report
from pipeline.evaluation.attacks import ATTACKS
from pipeline.evaluation.chunks import CHECKOUT, Piece
from pipeline.evaluation.innocents import INNOCENTS
from pipeline.evaluation.run import Job, Outcome
from pipeline.evaluation.sources import split_table
from pipeline.evaluation.variants import VARIANTS
from pipeline.evaluation.work import ablate, bare, lives_of, make_world, work

SCENARIOS: Final = CHECKOUT / "tests" / "evaluation" / "scenarios.json"
SPLIT: Final = CHECKOUT / "tests" / "evaluation" / "split.json"

PARTITION_KEYS: Final = 500
WIDE_DAYS: Final = 100.0


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

    @property
    def parts(self) -> int:
        """Partitions of each seed's keys; no multiple of 3, since key k is in partition k % parts and class k % 3."""
        parts = max(2, -(-self.keys // PARTITION_KEYS))
        return parts + (parts % 3 == 0)


@dataclass
class Partitioned:
    """What one partition found with each setting."""

    shipped: Outcome
    wide: Outcome | None = None
    without: dict[str, Outcome] = field(default_factory=dict)  # "": with all, on the same third


def main(
    data: Path, size: Size, json_file: Path, page: Path | None, folder: Path | None = None,
    fleets: Sequence[tuple[int, float]] = figures.FLEETS,
) -> int:  # fmt: skip
    """Run what the folder does not have yet, write, print. `fleets`: (keys, share of them attacked in a year)."""
    declared = declarations(data)
    began = time.perf_counter()
    found = bench(data, size, declared, folder, fleets)
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
    if split_table(data) != json.loads(SPLIT.read_bytes()):
        raise ConfigError("the data are not those of the committed split (tests/evaluation/split.json)")
    return declared


def bench(
    data: Path, size: Size, declared: dict[str, Any], folder: Path | None = None,
    fleets: Sequence[tuple[int, float]] = figures.FLEETS,
) -> dict[str, Any]:  # fmt: skip
    """All figures of all runs."""
    worlds = _partitions(data, size, declared)
    beside = [
        Piece("ramp", dict[str, Any], ramp.measure, (data, size.half)),
        Piece("real_logs", dict[str, Any], real_logs.both, (data,)),
    ]
    sizes = replace(size, seeds=(), processes=0)
    digest = chunks.code_digest(SCENARIOS.read_text(), SPLIT.read_text(), repr(sizes))
    made = chunks.gather([*beside, *worlds], size.processes, folder, digest)
    parts: list[Partitioned] = [made[each.name] for each in worlds]
    for number, part in enumerate(parts):
        for outcome in (part.shipped, part.wide, *part.without.values()):
            if outcome:
                _renumber(outcome, number // size.parts * size.keys)
    outcomes = [part.shipped for part in parts]
    found = figures.of(outcomes, declared, fleets)
    if size.wide:
        figures.add_wide(found, [part.wide for part in parts if part.wide], declared)
    if size.ablation:
        found["ablation"] |= figures.ablated([part.without for part in parts])
    found["real_logs"], found["ramp"] = made["real_logs"], made["ramp"]
    found["run"] = {
        "seeds": list(size.seeds), "keys": size.keys, "days": size.days, "placements": size.placements,
        "placebos": size.placebos, "partitions": size.parts, "half": size.half,
        "detectors": [each.name for each in DETECTORS],
        "events_untouched": sum(outcome.events for outcome in outcomes),
        "key_days": sum(outcome.key_days for outcome in outcomes),
    }  # fmt: skip
    return found


def _partitions(data: Path, size: Size, declared: dict[str, Any]) -> list[Piece]:
    strengths, headline = tuple(float(bits) for bits in declared["strengths_bits"]), float(declared["headline_bits"])
    return [
        Piece(f"{seed}-{part}", Partitioned, partition, (
            data, size, Job(seed, part, size.parts, size.placements, strengths, headline, size.scenarios, size.placebos)
        ))
        for seed in size.seeds for part in range(size.parts)
    ]  # fmt: skip


def partition(data: Path, size: Size, job: Job) -> Partitioned:
    """One partition with every setting; the pass is the compiled one, and what is left out of it weighs nothing."""
    world = make_world(data, size.half, size.keys, size.days, job.seed)
    lives = lives_of(job, world)
    found = Partitioned(work(job, world, lives))
    if size.wide:
        found.wide = bare(replace(job, setting=replace(job.setting, listed_days=WIDE_DAYS)), world, lives)
    if size.ablation:
        attacks = tuple(name for name in size.scenarios if name in ATTACKS)
        few = replace(job, placements=max(3, job.placements // 3), strengths=(job.headline,), scenarios=attacks)
        third = lives.some(max(3, len(lives.mine) // 3))
        found.without = ablate(replace(few, placebos=0), world, [each.name for each in DETECTORS], third)
    return found


def _renumber(outcome: Outcome, shift: int) -> None:
    """Keys are numbered through all seeds."""
    outcome.untouched = [replace(each, key=each.key + shift) for each in outcome.untouched]
    outcome.exceeded = {of: [(key + shift, most) for key, most in rows] for of, rows in outcome.exceeded.items()}
    for placement in outcome.placements:
        placement.key += shift


def _plain(value: Any) -> Any:
    """For JSON: no NaN, no infinity, figures to six digits."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
