"""keybench's run: the compiled pass over all keys of one partition, with placements branched off day by day.

The very pass of the worker (`fuse.compile_pass`, the same dtypes, configuration and settings); only decoding and
enriching are done in bulk (`world.events_of`; tests/evaluation/test_keybench.py holds it against `KeyCore`). Untouched
keys run through from the first day to the last. Before a day on which placements start, their keys' records and what
the partition shares are copied; each scenario's placements of that day run on in the copy, with the owner's calls as
the scenario makes them. So every placement meets a key that has learned since the first day, and changes nothing
for anybody else.
"""

from __future__ import annotations

import dataclasses
import math
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors import DETECTORS, calibration, fuse, fusion
from detectors.detector import VISIT_GAP_US, VISIT_MAX_US, Detector, config_record
from detectors.records import records
from pipeline import admit
from pipeline.decide import behind
from pipeline.evaluation import attacks, innocents, oracle, variants
from pipeline.evaluation.attacks import Stage
from pipeline.evaluation.sources import Floats, Ints
from pipeline.evaluation.world import DAY_US, START_US, VISIT_US, World, events_of, history
from pipeline.given import best, strongest_pair
from pipeline.state.partition import BOOK

Array = npt.NDArray[Any]

BURN_IN_DAYS: Final = 14
"""Nothing is counted before."""
FRESH: Final = ("new_keys", "ci_runners")
"""Scenarios whose keys begin anew."""
PLANTED: Final = ChainMap(attacks.ATTACKS, variants.VARIANTS)
"""Whose planted calls the oracle counts."""
STRONG_BITS: Final = 10.0  # as in pipeline.decide


@dataclass(frozen=True, slots=True)
class Opened:
    """One incident: when, how rare at most, what it named first, and whether a key would have been acted on."""

    placement: int  # index; -1 on untouched traffic
    key: int
    at_us: int
    return_days: float
    planted: bool  # planted calls brought it: at one, within half an hour, or later (`brought_by`)
    first_reason: str
    acted: bool
    events: int  # planted calls up to the opening one
    acted_by_own: bool = False  # where each family's bits were its own, whatever the others explain
    after_us: int = -1  # since the last planted call; -1: there was none


@dataclass(slots=True)
class Placement:
    """One scenario in one key; what it looked like and what came of it."""

    scenario: str
    wanted_bits: float
    key: int
    volume: int
    start_us: int
    days: float
    bits: float = 0.0
    first_us: int = 0
    calls: int = 0
    visits_a_day: float = 1.0  # of the key
    opened: list[Opened] = field(default_factory=list)
    loudest: float = 0.0  # bits of any detector at a planted call
    scores: dict[str, float] = field(default_factory=dict)  # of the baselines
    fields: dict[str, float] = field(default_factory=dict)  # of the leak audit
    rarest_days: float = 0.0  # largest return period of a visit with planted calls, whether or not an incident opened


@dataclass(frozen=True)
class Setting:
    """The one setting of a run. `left_out`: detectors that weigh nothing, for ablations (nothing compiles anew)."""

    detectors: tuple[Detector, ...] = DETECTORS
    left_out: tuple[str, ...] = ()
    listed_days: float = 1_000.0
    page_days: float = 10_000.0


class Partition:
    """The pass and the state of some keys."""

    def __init__(self, setting: Setting, keys: int) -> None:
        self.setting = setting
        self.run = fuse.compile_pass(setting.detectors, setting.left_out)
        self.configs = fuse.configs(setting.detectors)
        self.settings = config_record(fusion.Settings(listed_days=setting.listed_days, page_days=setting.page_days))
        self.keys = np.zeros(keys, fuse.key_dtype(setting.detectors))
        self.shared = np.zeros(1, fuse.shared_dtype(setting.detectors))

    def branch(self, slots: Ints, *, fresh: bool) -> Partition:
        """A copy of these keys and of what is shared, to go on with by itself."""
        other = object.__new__(Partition)
        other.__dict__.update(self.__dict__)
        other.keys = np.zeros(len(slots), self.keys.dtype) if fresh else self.keys[slots].copy()
        other.shared = self.shared.copy()
        return other

    def judge(self, events: Array) -> tuple[Array, Array]:
        """All FOUND and CHANGED records of these events, in order."""
        found, changed = np.zeros(8192, fuse.FOUND), np.zeros(2048, fuse.CHANGED)
        finds, changes, start = [], [], 0
        while start < len(events):
            start, n_found, n_changed = self.run(
                self.keys, self.shared, events, start, self.configs, self.settings, found, changed
            )
            finds.append(found[:n_found].copy())
            changes.append(changed[:n_changed].copy())
        empty = (np.zeros(0, fuse.FOUND), np.zeros(0, fuse.CHANGED))
        return np.concatenate([empty[0], *finds]), np.concatenate([empty[1], *changes])


def incidents(
    partition: Partition, found: Array, changed: Array, calls: Array, first_planted: Ints | None
) -> list[Opened]:
    """The openings among `changed`; each with the rarest return period until it closed, acted on at any message."""
    names = [detector.name for detector in partition.setting.detectors]
    families = [detector.family for detector in partition.setting.detectors]
    silent = [names.index(name) for name in partition.setting.left_out]
    open_now: dict[int, Opened] = {}
    told: dict[int, dict[str, float]] = {}
    done: list[Opened] = []
    for row in changed:
        slot, i = int(row["slot"]), int(row["event"])
        mine = found[(found["event"] == i) & (found["bits"] > 0) & ~np.isin(found["detector"], silent)]
        if row["kind"] == fusion.OPENED:
            first = sorted(
                mine, key=lambda f: (behind(families[int(f["detector"])], float(f["bits"])), -float(f["bits"]))
            )
            before, after_us = planted_before(calls, i)
            open_now[slot] = Opened(
                slot if first_planted is not None else -1, slot, int(row["at_us"]), 0.0, is_lately(after_us),
                names[int(first[0]["detector"])] if first else "", False, before, after_us=after_us,
            )  # fmt: skip
            told[slot] = {}
        if slot not in open_now:
            continue
        told[slot] = best([*told[slot].items(), *((families[int(f["detector"])], float(f["bits"])) for f in mine)])
        known, pair = open_now[slot], strongest_pair(told[slot])
        open_now[slot] = dataclasses.replace(
            known, return_days=max(known.return_days, float(row["return_days"])),
            acted=known.acted or (pair is not None and pair.weaker > STRONG_BITS),
            acted_by_own=known.acted_by_own or sum(bits > STRONG_BITS for bits in told[slot].values()) >= 2,
        )  # fmt: skip
        if row["kind"] == fusion.CLOSED:
            done.append(open_now.pop(slot))
    return done + list(open_now.values())


def brought_by(placement: Placement, untouched_us: Sequence[int]) -> list[Opened]:
    """The placement's incidents, `planted` also where one opens up to a day after a planted call and is not the key's.

    What a sum over visits has of planted calls, the owner's next visit may tip, hours after the last of them. The key's
    own are those near which it has one untouched (`untouched_us`, when those open), a day before or after.
    """
    return [
        dataclasses.replace(
            each,
            planted=each.planted
            or (0 <= each.after_us <= DAY_US and not any(abs(at_us - each.at_us) <= DAY_US for at_us in untouched_us)),
        )
        for each in placement.opened
    ]


def planted_before(calls: Array, i: int) -> tuple[int, int]:
    """How many planted calls call `i`'s key has in the log until then, itself included; microseconds since the last.

    -1 where there is none.
    """
    mine = calls[: i + 1][calls["key"][: i + 1] == calls["key"][i]]
    planted_us = mine["ts_us"][mine["planted"] > 0]
    return len(planted_us), max(0, int(calls["ts_us"][i]) - int(planted_us.max())) if len(planted_us) else -1


def is_lately(after_us: int) -> bool:
    """Whether a call is a planted one or comes so lately after one that an owner's call may tip what that brought."""
    return 0 <= after_us <= VISIT_US


@dataclass(frozen=True)
class Job:
    """What one process does: its keys (numbers in the world) and how many placements of what strengths."""

    seed: int
    part: int
    parts: int
    placements: int
    strengths: tuple[float, ...]
    headline: float
    scenarios: tuple[str, ...]
    placebos: int
    setting: Setting = Setting()


@dataclass
class Outcome:
    """What one process found on untouched traffic and in its placements."""

    keys: int = 0
    key_days: float = 0.0
    events: int = 0
    untouched: list[Opened] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    loudest: list[float] = field(default_factory=list)  # bits, per untouched key-day with a finding
    baselines: dict[str, list[float]] = field(default_factory=dict)  # scores of untouched key-days
    exceeded: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # exceedance.of_all_parts


def stage_of(placement: Placement, world: World, calls: Array, known: oracle.Habits, seed: list[int]) -> Stage:
    """The placement's key with its calls from then on."""
    end_us = placement.start_us + int(placement.days * DAY_US)
    first, last = np.searchsorted(calls["ts_us"], [placement.start_us, end_us])
    rng = np.random.default_rng(seed)
    return Stage(world.keys[placement.key], world, known, calls[first:last], placement.start_us, placement.days, rng)


def stage_calls(placement: Placement, stage: Stage) -> Array:
    """The placement's traffic in order, `planted` where the scenario is; fills in strength and first time."""
    name = placement.scenario
    if name in PLANTED:
        made = PLANTED[name](stage)
        strong = made.planted[made.planted["planted"] == 1]
        before = made.planted[made.planted["planted"] == 2]
        owner_us = made.owner["ts_us"]
        wanted = math.inf if name in attacks.WHOLE else placement.wanted_bits
        key, known = oracle.settled(stage.key, stage.known, made.owner, stage.start_us)
        kept, placement.bits = oracle.cut(key, known, stage.world, strong, owner_us, wanted)
        planted = np.concatenate([before, kept])
    else:
        made = innocents.placebo(stage) if name == "placebo" else innocents.INNOCENTS[name](stage)
        planted = made.planted
    calls = np.concatenate([made.owner, planted])
    marked = calls["planted"] > 0
    placement.visits_a_day = stage.known.visits_a_day
    placement.calls = int(marked.sum())
    counted = calls["ts_us"][calls["planted"] == 1]
    placement.first_us = int(counted.min()) if len(counted) else 0
    return calls


def histories(job: Job, world: World, keys: Sequence[int]) -> list[Array]:
    """Every key's untouched calls; each key has its own random stream."""
    return [history(world.keys[k], world, np.random.default_rng([job.seed, 5, k])) for k in keys]


def branch_out(
    partition: Partition, chosen: list[Placement], stages: list[Stage], slots: Ints, world: World
) -> tuple[list[Array], list[list[Opened]]]:
    """Run one scenario's placements of one day together; returns their calls and their incidents."""
    parts = [stage_calls(placement, stage) for placement, stage in zip(chosen, stages, strict=True)]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    calls = np.concatenate(parts)
    order = log_order(calls)
    calls, owner = calls[order], owner[order]
    calls["key"] = owner
    branch = partition.branch(slots, fresh=chosen[0].scenario in FRESH)
    events = admitted(events_of(calls, world.words, owner), len(parts))
    found, changed, rarest = judged_by_visits(branch, events, calls["planted"] > 0)
    opened: list[list[Opened]] = [[] for _ in parts]
    told = found[calls["planted"][found["event"]] > 0]
    for number, most in enumerate(_largest(owner[told["event"]], told["bits"], len(parts))):
        chosen[number].loudest, chosen[number].rarest_days = float(most), float(rarest[number])
    for incident in incidents(branch, found, changed, calls, slots):
        opened[incident.placement].append(incident)
    return parts, opened


def judged_by_visits(branch: Partition, events: Array, planted: Array) -> tuple[Array, Array, Floats]:
    """`Partition.judge`, and per key the largest return period in days of any visit with planted calls.

    The pass tells a score only of incidents; the key's record has a visit's largest until its next visit begins, so
    the pass is stopped at each such visit's last event, which changes nothing.
    """
    rarest, finds, changes, start = np.zeros(len(branch.keys)), [], [], 0
    for end in [*_visits_end(branch, events, planted), len(events)]:
        if start:
            slot = int(events["slot"][start - 1])
            rarest[slot] = max(rarest[slot], return_days(branch, slot, int(events["ts_us"][start - 1])))
        found, changed = branch.judge(events[start:end])
        found["event"] += start
        changed["event"] += np.where(changed["event"] >= 0, start, 0)
        finds.append(found)
        changes.append(changed)
        start = end
    return np.concatenate(finds), np.concatenate(changes), rarest


def _visits_end(branch: Partition, events: Array, planted: Array) -> list[int]:
    """Where the visits with planted calls end (index of the event after the last), as `fuse.visit_ended` has it."""
    ends = []
    judged = np.flatnonzero((events["slot"] >= 0) & (events["late"] == 0))
    for slot in range(len(branch.keys)):
        mine = judged[events["slot"][judged] == slot]
        at, visit, first = np.maximum.accumulate(events["ts_us"][mine]), branch.keys["visit"][slot], 0
        pauses = np.append(np.flatnonzero(np.diff(at) >= VISIT_GAP_US) + 1, len(at))
        goes_on = len(at) > 0 and at[0] - visit["last_us"] < VISIT_GAP_US
        begun_us = int(visit["start_us"]) if goes_on else int(at[0]) if len(at) else 0
        while first < len(at):
            full = int(np.searchsorted(at, begun_us + VISIT_MAX_US))
            end = min(full, int(pauses[np.searchsorted(pauses, first, side="right")]))
            if planted[mine[first:end]].any():
                ends.append(int(mine[end - 1]) + 1)
            first = end
            begun_us = int(at[first]) if first < len(at) else 0
    return sorted(ends)


def scores(branch: Partition, slot: int) -> tuple[float, float]:
    """What the visit rule and the slow rule have, in bits, of the key's visit as it stands."""
    key = records(branch.keys)[slot]
    after = fusion.slow_step(key["fusion"], int(key["visit"]["start_us"]), float(key["fusion"]["best_slow"]))
    return float(key["fusion"]["best"]), float(fusion.slow_bits(after))


def return_days(branch: Partition, slot: int, ts_us: int) -> float:
    """The rarer rule's return period of the key's visit as it stands, in days of its use."""
    known = records(branch.shared)[0]["calibration"]
    per_day = float(fusion.visits_per_day(records(branch.keys)[slot]["visit"], ts_us))
    return max(calibration.return_days(known, rule, of, per_day) for rule, of in enumerate(scores(branch, slot)))


def log_order(calls: Array) -> Ints:
    """Where each of these calls stands in the log: by when they come, which is not always when they happened."""
    order: Ints = np.argsort(calls["ts_us"] + calls["behind_us"], kind="stable")
    return order


def admitted(events: Array, keys: int) -> Array:
    """The events, repeated requests passed over (slot -1): by the worker's own code, with a book that is empty yet."""
    keep, first_us = np.ones(len(events), np.uint8), np.zeros(len(events), np.int64)
    admit.first_time(records(events), records(np.zeros(keys, BOOK)), keep, first_us)
    return events


def _largest(group: Ints, bits: Array, groups: int) -> Array:
    """The largest of each group, 0 where there is none."""
    most = np.zeros(groups)
    np.maximum.at(most, group, bits)
    return most


def loudest_by_key_day(found: Array, calls: Array, slots: Ints) -> list[float]:
    """Largest bits of any detector per key and day after the burn-in, where there was a finding."""
    day = (calls["ts_us"][found["event"]] - START_US) // DAY_US
    kept = day >= BURN_IN_DAYS
    _, which = np.unique(slots[found["event"][kept]] * 100_000 + day[kept], return_inverse=True)
    return [float(bits) for bits in _largest(which, found["bits"][kept], int(which.max(initial=-1)) + 1)]
