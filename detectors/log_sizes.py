"""How large is the next one? A key's own law of a positive size (bytes, objects, hours of silence): log-Student-t.

Mean and variance of the logarithm are learned with 100 values' memory; the tail is Student's t, so that few values
promise little. One part in 33 is a law without a scale, P(size >= k times the mean) = 1/k, since a tail that is too
thin ruins every rule that rests on it (reference/evidence.md, section 4); recursion: forecasting.md, section 3, law 4.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.growth import held, limit, reach
from detectors.surprise import bits_of, quantise, student_tail

LAW: Final = np.dtype([("mean", "f4"), ("variance", "f4"), ("seen", "u1"), ("period", "u1"), ("base", "u2")])
"""Of natural logarithms; zeros: nothing learned. seen: values, at most MEMORY; period and base: `growth`'s."""
MEMORY: Final = 100.0
LEAST_VARIANCE: Final = 0.05
FIRST_VARIANCE: Final = 1.0
FIRST_SEEN: Final = 2
SCALELESS: Final = 0.03
FREEDOM_MAX: Final = 30.0


@compiled
def spread(law: Any) -> float:
    """Standard deviation of the next logarithm."""
    return math.sqrt(max(float(law.variance), LEAST_VARIANCE) * (1.0 + 1.0 / max(1.0, float(law.seen))))


@compiled
def size_bits(law: Any, size: float) -> float:
    """-log2 P(the next is this large or larger), to 1/64; 0 below the mean or where nothing is learned."""
    if float(law.seen) <= 0.0 or size <= 0.0:
        return 0.0
    above = math.log(size) - float(law.mean)
    if above <= 0.0:
        return 0.0
    freedom = min(FREEDOM_MAX, float(law.seen) + 2.0)
    tail = student_tail(above / spread(law), freedom)
    return quantise(bits_of((1.0 - SCALELESS) * tail + SCALELESS * math.exp(-above)))


@compiled
def usual(law: Any, deviations: float) -> float:
    """The size so many standard deviations from the mean: -1.65, 0 and 1.65 are the band."""
    return math.exp(min(60.0, float(law.mean) + deviations * spread(law))) if float(law.seen) > 0.0 else 0.0


@compiled
def moved(law: Any, size: float) -> tuple[float, float]:
    """Mean and variance with one more; far out it teaches as four standard deviations do."""
    if float(law.seen) <= 0.0:
        return math.log(size), FIRST_VARIANCE
    g = 1.0 / (float(law.seen) + 1.0)
    y = min(math.log(size) - float(law.mean), 4.0 * spread(law))
    return float(law.mean) + g * y, float(law.variance) + g * (y * y * (1.0 - g) - float(law.variance))


@compiled
def take(law: Any, mean: float, variance: float) -> None:
    """The law from now on, of one value more."""
    law.mean = mean
    law.variance = variance
    law.seen = int(min(float(law.seen) + 1.0, MEMORY)) if float(law.seen) > 0.0 else FIRST_SEEN


@compiled
def learn_size(law: Any, size: float) -> None:
    """One more, however large."""
    if size > 0.0:
        mean, variance = moved(law, size)
        take(law, mean, variance)


@compiled
def learn_held(law: Any, visit: Any, size: float, floor: float) -> None:
    """One more, unless it lifts what is usual at most over twice what it was 28 days before.

    floor: logarithm of a size; up to there sizes judge nothing, and may grow freely.
    """
    if size <= 0.0:
        return
    mean, variance = moved(law, size)
    was, width = np.float64(law.mean), np.float64(law.variance)
    before, after = reach(was, width, LEAST_VARIANCE), reach(mean, variance, LEAST_VARIANCE)
    most = limit(law, visit, before, after, floor)
    mean, variance = held(was, width, mean, variance, LEAST_VARIANCE, most)
    take(law, mean, variance)


@compiled
def evidence_of(bits: float, floor: float, cap: float) -> float:
    """log2 likelihood ratio by the calibrator p^-1/2 / 2 of a p-value (Vovk and Wang, 2021), within floor and cap."""
    return quantise(min(cap, max(-floor, 0.5 * bits - 1.0)))
