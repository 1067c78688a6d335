"""95 % intervals by bootstrap over keys: whole keys are drawn, since incidents and placements cluster on keys.

A draw is how often each key is taken; what is measured is then weighted by that, so that a macro recall, a median or
an area under the curve costs one product of matrices for all draws. Thresholds of baselines are held as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DRAWS: Final = 400
ENDS: Final = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Valued:
    """What was measured and on which keys, row by row."""

    keys: Sequence[int]
    values: Sequence[float]

    def sums(self, names: Ints) -> tuple[Floats, Floats]:
        """(sum of values, count) per key of `names` (sorted)."""
        which, size = np.searchsorted(names, np.asarray(self.keys, np.int64)), len(names)
        total = np.bincount(which, np.asarray(self.values, np.float64), size).astype(np.float64)
        return total, np.bincount(which, minlength=size).astype(np.float64)


def macro(groups: Sequence[Valued]) -> dict[str, float]:
    """Mean over groups of each group's mean, with its interval; groups share the draws, since they share keys."""
    filled = [group for group in groups if len(group.keys)]
    if not filled:
        return {"mean": 0.0, "low": 0.0, "high": 1.0}
    return _told(float(np.mean([np.mean(group.values) for group in filled])), macro_draws(filled))


def macro_draws(filled: Sequence[Valued]) -> Floats:
    """The same of DRAWS sets of as many keys; no group is empty."""
    names = _names(filled)
    times, parts = _draws(len(names)), []
    for group in filled:
        total, count = group.sums(names)
        drawn = times @ count
        parts.append(np.divide(times @ total, drawn, out=np.full(DRAWS, np.nan), where=drawn > 0))
    means: Floats = np.nanmean(np.array(parts), axis=0)
    return means


def percentile(of: Valued, percent: float) -> dict[str, float | None]:
    """A percentile with its interval; None where there is nothing."""
    if not len(of.keys):
        return {"mean": None, "low": None, "high": None}
    values = np.asarray(of.values, np.float64)
    names, which = np.unique(np.asarray(of.keys), return_inverse=True)
    order = np.argsort(values, kind="stable")
    running = np.cumsum(_draws(len(names))[:, which[order]], axis=1)
    at = (running >= np.maximum(1e-9, running[:, -1:] * percent / 100)).argmax(axis=1)
    return {**_told(float(np.percentile(values, percent)), values[order][at])}


def area(positive: Valued, negative: Valued) -> dict[str, float]:
    """Area under the curve, ties by half, with its interval; .5 where a side is empty."""
    if not len(positive.keys) or not len(negative.keys):
        return {"mean": 0.5, "low": 0.0, "high": 1.0}
    names = _names([positive, negative])
    levels = np.unique(np.concatenate([positive.values, negative.values]))
    times = np.concatenate([np.ones((1, len(names))), _draws(len(names))])
    above, below = (times @ _by_level(side, names, levels) for side in (positive, negative))
    wins = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    areas = np.divide(wins, pairs, out=np.full(DRAWS + 1, np.nan), where=pairs > 0)
    return _told(float(areas[0]), areas[1:])


def _by_level(side: Valued, names: Ints, levels: Floats) -> Floats:
    """How many rows each key (row) has of each value (column)."""
    found = np.zeros((len(names), len(levels)))
    np.add.at(found, (np.searchsorted(names, np.asarray(side.keys)), np.searchsorted(levels, side.values)), 1.0)
    return found


def _names(groups: Sequence[Valued]) -> Ints:
    return np.unique(np.concatenate([np.asarray(group.keys, np.int64) for group in groups]))


def _draws(keys: int) -> Floats:
    """How often each key is taken, shape (DRAWS, keys)."""
    return np.random.default_rng(0).multinomial(keys, np.full(keys, 1.0 / keys), DRAWS).astype(np.float64)


def _told(mean: float, draws: Floats) -> dict[str, float]:
    low, high = np.nanpercentile(draws, ENDS)
    return {"mean": mean, "low": float(low), "high": float(high)}
