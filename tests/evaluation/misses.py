"""Why keybench's attacks are missed: what each detector said at planted calls, and what the fusion fell short of.

Run: `python -m tests.evaluation.misses [--seed 31] [--keys 300] [--placements 60] [--show 5] SCENARIO ..` (development
half, the headline strength; about three minutes). Per scenario: how many are missed. First those of which nobody could
say enough: at a key's very first visit, or where the oracle itself stays below what is listed. Then by how far the
better of the two rules stayed below the score that is listed for such a key. Then the missed placements themselves, the
oracle's bits by part beside what the detectors said. Nothing is tuned by it: it says which kind of evidence was not
there. Events go through the compiled pass one by one, so that the readings of each can be looked at; incidents are the
pass's own.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from detectors import DETECTORS, calibration, fuse, fusion
from detectors.detector import READING
from detectors.generate import load_pass
from detectors.records import records
from pipeline.evaluation import oracle, run, work
from pipeline.evaluation.run import Job, Partition, Placement, Setting
from pipeline.evaluation.world import CLASSES, DAY_US, START_US, World, events_of
from tests.real_data import FOLDER

Array = np.ndarray[Any, Any]
BITS: Final = 40.0
YOUNG: Final = 10  # visits: fewer and nothing is rare for the key yet
FAMILIES: Final = np.array([1 << fuse.FAMILIES.index(each.family) for each in DETECTORS], np.int64)


@dataclass(frozen=True)
class Told:
    """One placement: whether it was caught, what its key was, and its nearest planted call."""

    scenario: str
    caught: bool
    volume: int
    visits: int
    planted: int
    short: float  # bits below the threshold of the better rule, at the nearest planted call
    said: str
    oracle: dict[str, float]  # its bits by part
    listed: float  # the score of the visit rule that is listed for such a key
    silent: bool  # the owner made no call in the placement's days

    @property
    def cause(self) -> str:
        """In which group a miss is counted."""
        if self.visits == 0:
            return "at the first visit"
        if sum(self.oracle.values()) < self.listed:
            return "of which the oracle says less than is listed"
        if self.visits < YOUNG:
            return f"fewer than {YOUNG} visits known"
        return (
            "within 2 bits" if self.short < 2 else "2 to 5 bits short" if self.short < 5 else "more than 5 bits short"
        )


def main() -> None:
    """Print the table and the misses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="+")
    for name, usual in (("seed", 31), ("keys", 300), ("placements", 60), ("show", 5)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    told = placements(args.seed, args.keys, args.placements, tuple(args.scenarios))
    for scenario in args.scenarios:
        mine = [each for each in told if each.scenario == scenario]
        missed = [each for each in mine if not each.caught]
        causes = ", ".join(f"{count} {cause}" for cause, count in Counter(each.cause for each in missed).most_common())
        say(f"{scenario}: {len(missed)} of {len(mine)} missed: {causes}")
        for each in missed[: args.show]:
            most = ", ".join(f"{part} {bits:.0f}" for part, bits in each.oracle.items() if bits >= 0.5)
            say(f"  {CLASSES[each.volume]} calls, {each.visits} visits, {each.planted} planted"
                f"{', the owner silent' if each.silent else ''}, {each.short:.1f} bits short of {each.listed:.1f}:"
                f" {each.said} (oracle: {most})")  # fmt: skip


def placements(seed: int, keys: int, count: int, scenarios: tuple[str, ...]) -> list[Told]:
    """All placements of these scenarios, judged in branches of untouched keys as keybench does."""
    world = work.make_world(FOLDER, "development", keys, 60, seed)
    job = Job(seed, 0, 1, count, (BITS,), BITS, scenarios, 0)
    lives = work.lives_of(job, world)
    partition = Partition(Setting(), len(lives.mine))
    whole = np.concatenate(lives.calls)
    owner = np.repeat(np.arange(keys), [len(each) for each in lives.calls])
    order = np.argsort(whole["ts_us"], kind="stable")
    whole, owner = whole[order], owner[order]
    by_day: dict[int, list[tuple[int, Placement]]] = defaultdict(list)
    for number, placement in enumerate(run.plan(job, world, lives.mine)):
        by_day[(placement.start_us - START_US) // DAY_US].append((number, placement))
    told = []
    for day in range(world.days):
        told += [judged(partition, job, world, lives, number, placement) for number, placement in by_day[day]]
        first, last = np.searchsorted(whole["ts_us"], [START_US + day * DAY_US, START_US + (day + 1) * DAY_US])
        partition.judge(events_of(whole[first:last], world.words, owner[first:last]))
    return told


def judged(
    partition: Partition, job: Job, world: World, lives: work.Lives, number: int, placement: Placement
) -> Told:  # fmt: skip
    """One placement, event by event."""
    slot = placement.key
    stage = run.stage_of(placement, world, lives.calls[slot], lives.known[slot], [job.seed, 11, job.part, number])
    calls = run.stage_calls(placement, stage)
    calls = calls[run.log_order(calls)]
    mine, owner_us = calls[calls["planted"] == 1], calls["ts_us"][calls["planted"] == 0]
    parts = oracle.parts(stage.key, stage.known, world, mine, owner_us)
    known = {part: float(bits[-1]) for part, bits in parts.items() if len(bits)}
    branch = partition.branch(np.array([slot]), fresh=placement.scenario in run.FRESH)
    visits = int(branch.keys[0]["visit"]["ordinal"])
    events = events_of(calls, world.words, np.zeros(len(calls), np.int64))
    caught, short, said = False, math.inf, ""
    for i in range(len(events)):
        opened, readings = step(branch, events[i : i + 1])
        caught = caught or (opened and run.planted_before(calls, i)[1])
        if not calls["planted"][i]:
            continue
        lacking = shortfall(branch, int(events["ts_us"][i]))
        if calls["planted"][i] == 1 and lacking < short:
            short, said = lacking, words(readings)
    key = records(branch.keys)[0]
    per_day = float(fusion.visits_per_day(key["visit"], int(events["ts_us"][-1])))
    listed = listed_from(records(branch.shared)[0]["calibration"], 0, per_day)
    silent = not len(owner_us)
    return Told(placement.scenario, caught, placement.volume, visits, len(mine), short, said, known, listed, silent)


def step(branch: Partition, event: Array) -> tuple[bool, Array]:
    """The pass over one event: whether an incident opened, and every detector's reading."""
    found, changed = np.zeros(len(DETECTORS) + 1, fuse.FOUND), np.zeros(4, fuse.CHANGED)
    readings = np.zeros(len(DETECTORS), READING)
    _, _, count = load_pass(DETECTORS).run(
        records(branch.keys), records(branch.shared), records(event), 0,
        tuple(records(each) for each in branch.configs), records(branch.settings), records(found), records(changed),
        records(readings), FAMILIES,
    )  # fmt: skip
    return bool((changed[: int(count)]["kind"] == fusion.OPENED).any()), readings


def shortfall(branch: Partition, ts_us: int) -> float:
    """Bits that the nearer of the two rules lacks for a listed incident; the key's visit as it stands."""
    key, known = records(branch.keys)[0], records(branch.shared)[0]["calibration"]
    state, visit = key["fusion"], key["visit"]
    per_day = float(fusion.visits_per_day(visit, ts_us))
    after = fusion.slow_step(state, int(visit["start_us"]), float(state["best_slow"]))
    scores = (float(state["best"]), float(fusion.slow_bits(after)))
    return min(listed_from(known, rule, per_day) - score for rule, score in enumerate(scores))


def listed_from(known: Any, rule: int, per_day: float) -> float:
    """The least score, in quarters of a bit, that is listed for a key of so many visits a day."""
    score = 0.0
    while score < 64 and calibration.return_days(known, rule, score, per_day) < fusion.Settings().listed_days:
        score += 0.25
    return score


def words(readings: Array) -> str:
    """The evidence of a stranger or holder by detector, where there is any."""
    most = np.maximum(readings["lr_stranger"], readings["lr_insider"])
    named = [f"{each.name} {bits:+.1f}" for each, bits in zip(DETECTORS, most, strict=True) if bits != 0]
    return ", ".join(named)


def say(text: str) -> None:
    """To the terminal, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
