"""Why keybench's attacks are missed: what each detector said at planted calls, and what the fusion fell short of.

Run: `python -m tests.evaluation.misses [--seed 31] [--keys 300] [--placements 60] [--show 5] [--table] [SCENARIO ..]`
(development half, the headline strength, all attacks where none is named; two processes). Per scenario: how many are
missed, grouped by `Told.cause`; then the missed placements themselves, the oracle's bits by part beside what the
detectors said, or with `--table` the Markdown table of deploy/docs/figures.md. Nothing is tuned by it: it says which
kind of evidence was not there. Whether a placement is caught is the pass's own word; a missed one goes through it
again, its planted calls one by one, so that the readings of each can be looked at. Each scenario's placements are the
same whichever others are asked for.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from detectors import DETECTORS, calibration, fuse, fusion
from detectors.detector import READING
from detectors.generate import load_pass
from detectors.records import records
from pipeline.evaluation import measures, oracle, placing, reached, run, work
from pipeline.evaluation.attacks import ATTACKS
from pipeline.evaluation.run import Job, Partition, Placement, Setting
from pipeline.evaluation.world import CLASSES, DAY_US, START_US, World, events_of
from tests.evaluation.tables import table as markdown
from tests.evaluation.tables import words
from tests.real_data import FOLDER

Array = np.ndarray[Any, Any]
BITS: Final = 40.0
YOUNG: Final = 10  # visits: fewer and nothing is rare for the key yet
CAUSES: Final = (
    "at the first visit", "out of an oracle's reach", f"fewer than {YOUNG} visits known",
    "within 2 bits", "2 to 5 bits short", "more than 5 bits short",
)  # fmt: skip
FAMILIES: Final = np.array([1 << fuse.FAMILIES.index(each.family) for each in DETECTORS], np.int64)


@dataclass(frozen=True)
class Told:
    """One placement: whether it was caught, what its key was, and its nearest planted call."""

    scenario: str
    caught: bool
    volume: int
    visits: int
    planted: int
    in_reach: bool  # of an oracle, at the listed budget
    short: float  # bits below the threshold of the better rule, at the nearest planted call
    said: str
    strongest: str  # detector
    listed: float  # the score of the visit rule that is listed for such a key
    oracle: dict[str, float] = field(default_factory=dict)  # its bits by part
    silent: bool = False  # the owner made no call in the placement's days
    bits: float = 0.0  # the oracle's, all parts together

    @property
    def reached(self) -> bool:
        """Whether the placement has the bits that were wanted."""
        return reached.has(self.bits, BITS)

    @property
    def cause(self) -> str:
        """In which group a miss is counted."""
        if self.visits == 0:
            return CAUSES[0]
        if not self.in_reach:
            return CAUSES[1]
        if self.visits < YOUNG:
            return CAUSES[2]
        return CAUSES[3] if self.short < 2 else CAUSES[4] if self.short < 5 else CAUSES[5]


def main() -> None:
    """Print the misses or the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--half", default="development")
    for name, usual in (("seed", 31), ("keys", 300), ("placements", 60), ("show", 5)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    names = args.scenarios or list(ATTACKS)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(placements, args.seed, args.keys, args.placements, tuple(names[i::2]), args.half)
                 for i in (0, 1)]  # fmt: skip
        told = [each for part in parts for each in part.result()]
    if args.table:
        say(table(names, told))
        return
    for scenario in names:
        mine = [each for each in told if each.scenario == scenario]
        missed = [each for each in mine if not each.caught]
        causes = ", ".join(f"{count} {cause}" for cause, count in Counter(each.cause for each in missed).most_common())
        strong = sum(each.reached for each in mine), sum(each.reached for each in missed)
        say(f"{scenario}: {len(missed)} of {len(mine)} missed,"
            f" {strong[1]} of {strong[0]} with {BITS:.0f} bits: {causes}")  # fmt: skip
        for each in missed[: args.show]:
            most = ", ".join(f"{part} {bits:.0f}" for part, bits in each.oracle.items() if bits >= 0.5)
            say(f"  {CLASSES[each.volume]} calls, {each.visits} visits, {each.planted} planted"
                f"{', the owner silent' if each.silent else ''}, {each.short:.1f} bits short of {each.listed:.1f}:"
                f" {each.said} (oracle {each.bits:.0f}: {most})")  # fmt: skip


def table(names: Sequence[str], told: Sequence[Told]) -> str:
    """Misses by cause; of placements that reach BITS; which detector said most at the nearest call, of how many misses.

    What is out of an oracle's reach has not even the bits that are listed (`measures.in_reach`, 11 to 16), so it never
    is among those that reach BITS.
    """
    rows = []
    for name in names:
        mine = [each for each in told if each.scenario == name]
        missed = [each for each in mine if not each.caught]
        causes = Counter(each.cause for each in missed)
        most = Counter(each.strongest or "nothing" for each in missed).most_common(3)
        strong = f"{sum(each.reached for each in missed)} of {sum(each.reached for each in mine)}"
        rows.append([words(name), f"{len(missed)} of {len(mine)}", strong, *(str(causes[each]) for each in CAUSES),
                     ", ".join(f"{words(detector)} {count}" for detector, count in most)])  # fmt: skip
    return markdown(("attack", "missed", f"missed of those with {BITS:.0f} bits", *CAUSES, "said most"), rows)


def placements(
    seed: int, keys: int, count: int, scenarios: tuple[str, ...], half: str = "development"
) -> list[Told]:  # fmt: skip
    """All placements of these scenarios, judged in branches of untouched keys as keybench does."""
    if not scenarios:
        return []
    world = work.make_world(FOLDER, half, keys, 60, seed)
    jobs = [Job(seed, 0, 1, count, (BITS,), BITS, (name,), 0) for name in scenarios]
    lives = work.lives_of(jobs[0], world)
    partition = Partition(Setting(), len(lives.mine))
    whole, owner = lives.in_order()
    by_day: dict[int, list[tuple[Job, int, Placement]]] = defaultdict(list)
    for job in jobs:
        for number, placement in enumerate(placing.plan(job, world, lives.mine, lives.calls)):
            by_day[(placement.start_us - START_US) // DAY_US].append((job, number, placement))
    told = []
    for day in range(world.days):
        told += [judged(partition, job, world, lives, number, each) for job, number, each in by_day[day]]
        first, last = np.searchsorted(whole["ts_us"], [START_US + day * DAY_US, START_US + (day + 1) * DAY_US])
        partition.judge(events_of(whole[first:last], world.words, owner[first:last]))
    return told


def judged(
    partition: Partition, job: Job, world: World, lives: work.Lives, number: int, placement: Placement
) -> Told:  # fmt: skip
    """One placement; where it is missed, its planted calls one by one."""
    slot = placement.key
    stage = run.stage_of(placement, world, lives.calls[slot], lives.known[slot], [job.seed, 11, job.part, number])
    calls = run.stage_calls(placement, stage)
    calls = calls[run.log_order(calls)]
    fresh = placement.scenario in run.FRESH
    events = events_of(calls, world.words, np.zeros(len(calls), np.int64))
    _, changed = partition.branch(np.array([slot]), fresh=fresh).judge(events)
    opened = changed["event"][changed["kind"] == fusion.OPENED].tolist()
    caught = any(run.is_lately(run.planted_before(calls, i)[1]) for i in opened)
    branch = partition.branch(np.array([slot]), fresh=fresh)
    visits, marked = int(branch.keys[0]["visit"]["ordinal"]), np.flatnonzero(calls["planted"] == 1)
    short, nearest = math.inf, np.zeros(len(DETECTORS), READING)
    if not caught and len(marked):
        branch.judge(events[: marked[0]])
        for i in range(int(marked[0]), int(marked[-1]) + 1):
            readings = step(branch, events[i : i + 1])
            if calls["planted"][i] == 1 and (lacking := shortfall(branch, int(events["ts_us"][i]))) < short:
                short, nearest = lacking, readings
    evidence = evidence_of(nearest)
    per_day = float(fusion.visits_per_day(records(branch.keys)[0]["visit"], int(events["ts_us"][-1])))
    his = calls[calls["planted"] == 0]
    key, known = oracle.settled(stage.key, stage.known, his, stage.start_us)
    parts = oracle.parts(key, known, world, calls[marked], his["ts_us"])
    return Told(
        placement.scenario, caught, placement.volume, visits, len(marked),
        measures.in_reach(placement, measures.LISTED), short,
        ", ".join(f"{name} {bits:+.1f}" for name, bits in evidence.items()),
        max(evidence, key=lambda name: evidence[name], default=""),
        listed_from(records(branch.shared)[0]["calibration"], 0, per_day),
        {part: float(bits[-1]) for part, bits in parts.items() if len(bits)}, not len(his),
        placement.bits,
    )  # fmt: skip


def step(branch: Partition, event: Array) -> Array:
    """The pass over one event: every detector's reading."""
    found, changed = np.zeros(len(DETECTORS) + 1, fuse.FOUND), np.zeros(4, fuse.CHANGED)
    readings = np.zeros(len(DETECTORS), READING)
    load_pass(DETECTORS).run(
        records(branch.keys), records(branch.shared), records(event), 0,
        tuple(records(each) for each in branch.configs), records(branch.settings), records(found), records(changed),
        records(readings), FAMILIES,
    )  # fmt: skip
    return readings


def shortfall(branch: Partition, ts_us: int) -> float:
    """Bits that the nearer of the two rules lacks for a listed incident; the key's visit as it stands."""
    known = records(branch.shared)[0]["calibration"]
    per_day = float(fusion.visits_per_day(records(branch.keys)[0]["visit"], ts_us))
    return min(listed_from(known, rule, per_day) - score for rule, score in enumerate(run.scores(branch, 0)))


def listed_from(known: Any, rule: int, per_day: float) -> float:
    """The least score, in quarters of a bit, that is listed for a key of so many visits a day."""
    score = 0.0
    while score < 64 and calibration.return_days(known, rule, score, per_day) < fusion.Settings().listed_days:
        score += 0.25
    return score


def evidence_of(readings: Array) -> dict[str, float]:
    """The evidence of a stranger or holder by detector, where there is any, in bits."""
    most = np.maximum(readings["lr_stranger"], readings["lr_insider"])
    return {each.name: float(bits) for each, bits in zip(DETECTORS, most, strict=True) if bits != 0}


def say(text: str) -> None:
    """To the terminal, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
