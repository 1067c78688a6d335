"""How far what is usual may grow: twofold in 28 days, whatever comes (sizes of answers, objects of a visit, crowds).

What a key is believed to bring at most is its mean and two deviations, of logarithms (`reach`). In each 28 days of its
life it rises by ln(root 2) at most above what it was when they began; so in any 28 days it doubles at most. A value
that would lift it beyond that teaches nothing; lower ones go on teaching. A law of few values or of a key's
first week is held by nothing, and neither is one after an adoption or a person's `expected` (`fusion.begins_anew`): a
key that has grown for good is held from there on. `request_level.hold_growth` has the same for requests an hour, and
`route_sizes` for what all keys teach of a route.
"""

from __future__ import annotations

import math
from typing import Any, Final

from detectors.compile import compiled

LOG_ROOT_2: Final = 0.34657359027997264
EDGE: Final = 2.0  # deviations
PERIOD_US: Final = 28 * 86_400_000_000
WEEK_US: Final = 7 * 86_400_000_000
GROWN: Final = 30.0  # values behind a law until it is held
UNIT: Final = 1_024.0  # of a stored reach
BELOW: Final = 8.0  # stored from here on


@compiled
def reach(mean: float, variance: float, least: float) -> float:
    """The logarithm that is usual at most; `least` variance is always allowed for."""
    return mean + EDGE * math.sqrt(max(variance, least))


@compiled
def period_of(visit: Any) -> int:
    """Which 28 days of the key's life the visit began in, from 1 on; modulo 255."""
    return max(0, int(visit.start_us) - int(visit.first_seen_us)) // PERIOD_US % 255 + 1


@compiled
def stored(value: float) -> int:
    """A reach in two bytes, rounded down; 0 is none."""
    return int(min(65_535.0, max(1.0, math.floor((value + BELOW) * UNIT))))


@compiled
def rebased(base: int, same: bool, free: bool, anew: bool, before: float, after: float) -> int:
    """The stored reach with which the running 28 days began; same: it is of these, free: nothing is held yet."""
    if free:
        return stored(after)
    begun = base if same else stored(before)
    return max(begun, stored(after)) if anew else begun


@compiled
def ceiling(base: int, free: bool, before: float, after: float, floor: float) -> float:
    """The largest reach that a value may lead to."""
    if free:
        return max(before, after)
    return max(before, max(floor, base / UNIT - BELOW) + LOG_ROOT_2)


@compiled
def limit(law: Any, visit: Any, before: float, after: float, floor: float) -> float:
    """The largest reach that a value may lead to, which would move it from `before` to `after`.

    Keeps `base` and `period` of `law`. floor: up to there a reach judges nothing, and may grow freely.
    """
    period = period_of(visit)
    young = int(visit.start_us) - int(visit.first_seen_us) < WEEK_US or int(law.seen) < GROWN
    free, anew = young or int(law.base) == 0, int(visit.anew) != 0
    law.base = rebased(int(law.base), int(law.period) == period, free, anew, before, after)
    law.period = period
    return ceiling(int(law.base), free or anew, before, after, floor)


@compiled
def held(
    mean: float, variance: float, next_mean: float, next_variance: float, least: float, most: float
) -> tuple[float, float]:
    """Mean and variance after a value that moves them so, with a reach of `most` at most.

    A value above the mean that goes too far teaches nothing; one below it lowers the mean all the same.
    """
    if reach(next_mean, next_variance, least) <= most:
        return next_mean, next_variance
    if next_mean >= mean:
        return mean, variance
    width = max(0.0, most - next_mean) / EDGE
    return next_mean, min(next_variance, width * width)
