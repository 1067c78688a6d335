"""How often innocent traffic has the oracle's bits: a likelihood ratio reaches 2^b in at most one of 2^b visits.

Visits of untouched keys are judged as though planted, from their first call on: none is the owner's and none
due besides, and what the key has had before is no longer new. `STRETCHES`: a visit (until half an hour's pause, six
hours or 150 calls); its half hour and those at the same hour of the next six days; all of three days, 400 calls at
most. Intervals are over keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.measures import share
from pipeline.evaluation.oracle import PARTS, Habits, parts, settled
from pipeline.evaluation.world import CLASSES, DAY_US, HOUR_US, VISIT_US, Key, World

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

Found = dict[tuple[str, str, str], tuple[npt.NDArray[np.int64], Floats]]
"""(class, stretch, part or `sum`) -> (keys, most bits) of each visit."""
STRETCHES: Final = ("visit", "week", "days")
BITS: Final = tuple(range(2, 21, 2))


def exceedance(
    keys: Sequence[Key], known: Sequence[Habits], world: World, calls: Sequence[Array], visits: int, seed: int
) -> Found:
    """The most bits of `visits` visits of each key."""
    rng = np.random.default_rng([seed, 23])
    rows: dict[tuple[str, str], list[list[float]]] = {(name, each): [] for name in CLASSES for each in STRETCHES}
    for key, habits, mine in zip(keys, known, calls, strict=True):
        first = np.unique(mine["ts_us"] // VISIT_US, return_index=True)[1]
        for at in rng.choice(first, min(visits, len(first)), replace=False):
            who, known_by = settled(key, habits, mine[:0], int(mine["ts_us"][at]))
            for name in STRETCHES:
                said = parts(who, known_by, world, _stretch(mine[at:], name), np.zeros(0, np.int64))
                together = np.sum(list(said.values()), axis=0)
                most = [float(each.max()) for each in (*said.values(), together)]
                rows[CLASSES[key.volume], name].append([key.number, *most])
    return {
        (*group, part): (np.array(mine)[:, 0].astype(np.int64), np.array(mine)[:, column])
        for group, mine in rows.items() if mine for column, part in enumerate((*PARTS, "sum"), 1)
    }  # fmt: skip


def of_all_parts(found: Found) -> dict[str, list[tuple[int, float]]]:
    """ "class, stretch" -> (key, most bits of the sum) of each visit."""
    return {
        f"{volume}, {stretch}": list(zip(keys.tolist(), most.tolist(), strict=True))
        for (volume, stretch, part), (keys, most) in found.items() if part == "sum"
    }  # fmt: skip


def _stretch(rest: Array, name: str) -> Array:
    at = rest["ts_us"]
    if name == "visit":
        pause = np.flatnonzero(np.diff(at[:151]) > VISIT_US)
        end = int(pause[0]) + 1 if len(pause) else 150
        return rest[: min(end, int(np.searchsorted(at, at[0] + 6 * HOUR_US)))]
    if name == "days":
        return rest[: min(400, int(np.searchsorted(at, at[0] + 3 * DAY_US)))]
    week = rest[: np.searchsorted(at, at[0] + 7 * DAY_US)]
    same = (week["ts_us"] - at[0]) % DAY_US < VISIT_US
    return week[same][:400]


def table(found: Found) -> list[str]:
    """A line per class, stretch and part: log2 of the share of visits with at least BITS; `!`: surely more than due."""
    lines = [f"{'':23}visits" + "".join(f"{bits:>8}" for bits in BITS)]
    for (volume, stretch, part), (keys, most) in found.items():
        told = [share(keys.tolist(), (most >= bits).astype(np.float64)) for bits in BITS]
        cells = (
            (f"{np.log2(each['mean']):7.1f}" if each["mean"] else "      -") + "! "[each["low"] <= 2.0**-bits]
            for each, bits in zip(told, BITS, strict=True)
        )
        lines.append(f"{volume:6}{stretch:7}{part:8}{len(most):8} " + "".join(cells))
    return lines
