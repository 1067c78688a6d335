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

from pipeline.evaluation.sources import Floats, Ints
from pipeline.evaluation.world import CLASSES, DAY_US, VISIT_US, Key, World

Array = npt.NDArray[Any]

ANSWERED: Final = np.array([0.5, 0.25, 0.25])
"""Shares of an attack's new operations that work, are not there, are refused."""
KINDS: Final = 5
"""Sensitivities (`sources`)."""
VISITS: Final = np.array([3, 10, 30, 100, 300])
"""Edges of how many visits a key has had."""
LATELY_US: Final = 3 * DAY_US
"""After a new route others are likelier for so long."""
LEVELS: Final = np.array([1, 2, 4])
"""Edges of how many came."""
POOLED: Final = 1.0
"""New routes at the rate of all numbers of visits: what few keys have done says little."""


@dataclass(frozen=True)
class NewRoutes:
    """Log2 ratios of a new route: (classes, bins of VISITS, `states`, `cells`)."""

    table: Floats

    def of(self, volume: int, visits: int) -> Floats:
        """(`states`, `cells`): of a key of this class with so many visits behind it."""
        return np.asarray(self.table[volume, np.digitize(visits, VISITS)])


def route(operation: npt.ArrayLike, status: npt.ArrayLike) -> Ints:
    """One number for an operation and its status."""
    return np.asarray(operation, np.int64) * 1_000 + np.asarray(status, np.int64)


def answer_kind(status: npt.ArrayLike) -> Ints:
    """Index into ANSWERED."""
    status = np.asarray(status)
    return np.where(np.isin(status, (401, 403)), 2, np.where(status == 404, 1, 0))


def cells(world: World, routes: Ints) -> Ints:
    """Sensitivity and index into ANSWERED of each route, as one number."""
    return world.sources.sensitivity[routes // 1_000] * len(ANSWERED) + answer_kind(routes % 1_000)


def first_times(routes: Ints) -> npt.NDArray[np.bool_]:
    """Which of these routes, in order of time, come for the first time."""
    first = np.zeros(len(routes), np.bool_)
    first[np.unique(routes, return_index=True)[1]] = True
    return first


def states(at_us: Ints, came_us: Ints) -> Ints:
    """How many of `came_us` (new routes, sorted) came lately at these times: 0 none; 1, 2, 3 by LEVELS, and 3 more
    where one of them was in the same half hour.
    """
    so_far = np.searchsorted(came_us, at_us)
    lately = so_far - np.searchsorted(came_us, at_us - LATELY_US)
    in_visit = so_far > np.searchsorted(came_us, at_us // VISIT_US * VISIT_US)
    return np.asarray(np.digitize(lately, LEVELS) + len(LEVELS) * in_visit, np.int64)


def counted(keys: Sequence[Key], world: World, calls: Sequence[Array]) -> NewRoutes:
    """From untouched keys' calls."""
    shape = len(CLASSES), len(VISITS) + 1, 2 * len(LEVELS) + 1
    asked, came = np.zeros((*shape, 1)), np.zeros((*shape, KINDS * len(ANSWERED)))
    for key, mine in zip(keys, calls, strict=True):
        at = mine["ts_us"].astype(np.int64)
        routes = route(mine["operation"], mine["status"])
        first = first_times(routes)
        bins = np.digitize(np.unique(at // VISIT_US, return_inverse=True)[1], VISITS)
        state = states(at, at[first])
        np.add.at(asked[key.volume, ..., 0], (bins, state), 1)
        np.add.at(came[key.volume], (bins[first], state[first], cells(world, routes[first])), 1)
    every = (came.sum(axis=1, keepdims=True) + 0.5) / (asked.sum(axis=1, keepdims=True) + 1.0)
    rate = (came + POOLED) / (asked + POOLED / every)
    return NewRoutes(np.log2(0.5 * np.tile(ANSWERED, KINDS) / KINDS / rate))
