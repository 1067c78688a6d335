"""What an observer knows of a planted call's route: who sees the traffic only, and knows how often innocent keys err.

keybench's oracle knows each line that a key may ever ask for, since it knows whose lines the key was made of. Nobody
who sees requests can: most of what an innocent key brings anew are such lines, merely not asked for so far. The
observer knows what the key has asked for, and how often untouched keys of its class with as many visits bring a route
and status that they never had, by sensitivity and answer, and how often another one in a visit that had one. All else
it knows as the oracle does, and which calls are planted, so its reach is still more than a detector's. What it says of
routes is a likelihood ratio, too: tests/evaluation/test_observer.py holds it to its bound on untouched visits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.attacks import Stage
from pipeline.evaluation.oracle import ANSWERED, Habits, answer_kind, parts, perhaps, route, settled
from pipeline.evaluation.run import BURN_IN_DAYS
from pipeline.evaluation.world import CLASSES, DAY_US, START_US, VISIT_US, Key, World

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

KINDS: Final = 5
"""Sensitivities (`sources`)."""
VISITS: Final = np.array([3, 10, 30, 100, 300])
"""Edges of how many visits a key has had."""
POOLED: Final = 4.0
"""Calls at the rate of all numbers of visits: what few keys have done says little."""


@dataclass(frozen=True)
class Observer:
    """Log2 ratios of a new route: (classes, bins of VISITS, had one in this visit, sensitivity, ANSWERED)."""

    new: Floats

    def bits(self, stage: Stage, owner: Array, planted: Array, life: Array) -> float:
        """After the last planted call; `owner`: his calls in these days, `life`: all that he makes untouched."""
        visits = len(np.unique(life["ts_us"][life["ts_us"] < stage.start_us] // VISIT_US))
        key, known = settled(stage.key, seen(stage.known), owner, stage.start_us)
        said = parts(key, known, stage.world, planted, owner["ts_us"])
        said["routes"] = perhaps(self.routes(key, known, stage.world, planted, visits))
        return float(sum(each[-1] for each in said.values()))

    def routes(self, key: Key, known: Habits, world: World, planted: Array, visits: int) -> Floats:
        """Bits after each planted call; `known`: settled, but for donors' lines; `visits`: of the key before."""
        first, had = news(planted)
        kinds = world.sources.sensitivity[planted["operation"].astype(np.int64)]
        bits = self.new[key.volume, np.digitize(visits, VISITS), had.astype(np.int64), kinds,
                        answer_kind(planted["status"])]  # fmt: skip
        own = np.isin(route(planted["operation"], planted["status"]), known.own)
        return np.asarray(np.cumsum(np.where(own, -1.0, np.where(first, bits, 0.0))))


def seen(known: Habits) -> Habits:
    """Without what only the oracle knows."""
    return replace(known, own=np.zeros(0, np.int64))


def news(calls: Array) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Per call (sorted by time): its route and status for the first time; one such earlier in its half hour."""
    first = np.zeros(len(calls), np.bool_)
    first[np.unique(route(calls["operation"], calls["status"]), return_index=True)[1]] = True
    before: npt.NDArray[np.int64] = np.cumsum(first) - first
    _, begins, which = np.unique(calls["ts_us"] // VISIT_US, return_index=True, return_inverse=True)
    return first, before > before[begins][which]


def observer_of(keys: Sequence[Key], world: World, calls: Sequence[Array]) -> Observer:
    """From untouched keys' calls after the burn-in."""
    shape = len(CLASSES), len(VISITS) + 1, 2
    asked, came = np.zeros(shape), np.zeros((*shape, KINDS, len(ANSWERED)))
    for key, mine in zip(keys, calls, strict=True):
        if not len(mine):
            continue
        first, had = news(mine)
        visits = np.unique(mine["ts_us"] // VISIT_US, return_inverse=True)[1]
        counted = mine["ts_us"] >= START_US + BURN_IN_DAYS * DAY_US
        at = np.full(len(mine), key.volume), np.digitize(visits, VISITS), had.astype(np.int64)
        np.add.at(asked, tuple(each[counted] for each in at), 1)
        kinds = world.sources.sensitivity[mine["operation"].astype(np.int64)]
        told = *at, kinds, answer_kind(mine["status"])
        np.add.at(came, tuple(each[counted & first] for each in told), 1)
    every = (came.sum(axis=1, keepdims=True) + 0.5) / (asked.sum(axis=1, keepdims=True) + 1.0)[..., None, None]
    rate = (came + POOLED * every) / (asked + POOLED)[..., None, None]
    return Observer(np.maximum(0.0, np.log2(0.5 * ANSWERED / KINDS / rate)))
