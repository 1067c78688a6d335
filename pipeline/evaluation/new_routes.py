"""How rarely innocent keys bring a route and status that they never had: what keybench's oracle goes by.

Whose lines a key was made of (its donors) nobody can know who sees requests: most of what an innocent key brings anew
are such lines, merely not asked for so far. So the oracle knows what a key HAS asked for, and how often untouched keys
of its class with as many visits bring a new route, by sensitivity and answer, and how often another one in a visit that
had one, or in the days after it. It is a likelihood ratio: tests/evaluation/test_new_routes.py holds it to its bound on
untouched visits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.world import CLASSES, DAY_US, VISIT_US, Key, World

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ANSWERED: Final = np.array([0.5, 0.25, 0.25])
"""Shares of an attack's new operations that work, are not there, are refused."""
KINDS: Final = 5
"""Sensitivities (`sources`)."""
VISITS: Final = np.array([3, 10, 30, 100, 300])
"""Edges of how many visits a key has had."""
LATELY_US: Final = 3 * DAY_US
"""After a new route others are likelier for so long."""
NEVER_US: Final = -(1 << 60)
POOLED: Final = 4.0
"""Calls at the rate of all numbers of visits: what few keys have done says little."""


@dataclass(frozen=True)
class NewRoutes:
    """Log2 ratios of a new route: (classes, bins of VISITS, `first_times`, sensitivity, ANSWERED)."""

    table: Floats

    def of(self, volume: int, visits: int) -> Floats:
        """(`first_times`, sensitivity, ANSWERED): of a key of this class with so many visits behind it."""
        return np.asarray(self.table[volume, np.digitize(visits, VISITS)])


def route(operation: npt.ArrayLike, status: npt.ArrayLike) -> Ints:
    """One number for an operation and its status."""
    return np.asarray(operation, np.int64) * 1_000 + np.asarray(status, np.int64)


def answer_kind(status: npt.ArrayLike) -> Ints:
    """Index into ANSWERED."""
    status = np.asarray(status)
    return np.where(np.isin(status, (401, 403)), 2, np.where(status == 404, 1, 0))


def kinds(world: World, calls: Array) -> tuple[Ints, Ints]:
    """Sensitivity and index into ANSWERED of each call."""
    return world.sources.sensitivity[calls["operation"].astype(np.int64)], answer_kind(calls["status"])


def first_times(calls: Array, last_us: int = NEVER_US) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Per call (sorted by time): whether its route and status come for the first time; and whether others came before:
    0 not lately, 1 lately, 2 in its visit. `last_us`: when one did before these calls.
    """
    at = calls["ts_us"].astype(np.int64)
    first = np.zeros(len(calls), np.bool_)
    first[np.unique(route(calls["operation"], calls["status"]), return_index=True)[1]] = True
    before_us = np.maximum.accumulate(np.append(last_us, np.where(first, at, NEVER_US)[:-1]))[: len(at)]
    lately: Ints = (at - before_us <= LATELY_US).astype(np.int64)
    return first, lately + (before_us // VISIT_US == at // VISIT_US)


def counted(keys: Sequence[Key], world: World, calls: Sequence[Array]) -> NewRoutes:
    """From untouched keys' calls."""
    shape = len(CLASSES), len(VISITS) + 1, 3
    asked, came = np.zeros(shape), np.zeros((*shape, KINDS, len(ANSWERED)))
    for key, mine in zip(keys, calls, strict=True):
        if not len(mine):
            continue
        first, had = first_times(mine)
        visits = np.unique(mine["ts_us"] // VISIT_US, return_inverse=True)[1]
        at = np.full(len(mine), key.volume), np.digitize(visits, VISITS), had
        np.add.at(asked, at, 1)
        np.add.at(came, tuple(each[first] for each in (*at, *kinds(world, mine))), 1)
    every = (came.sum(axis=1, keepdims=True) + 0.5) / (asked.sum(axis=1, keepdims=True) + 1.0)[..., None, None]
    rate = (came + POOLED * every) / (asked + POOLED)[..., None, None]
    return NewRoutes(np.maximum(0.0, np.log2(0.5 * ANSWERED / KINDS / rate)))
