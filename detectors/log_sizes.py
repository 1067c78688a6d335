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
from detectors.surprise import bits_of, quantise, student_tail

LAW: Final = np.dtype([("mean", "f4"), ("variance", "f4"), ("seen", "f4")])
"""Of natural logarithms; zeros: nothing learned."""
MEMORY: Final = 100.0
LEAST_VARIANCE: Final = 0.05
FIRST_VARIANCE: Final = 1.0
FIRST_SEEN: Final = 2.0
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
def learn_size(law: Any, size: float) -> None:
    """One more; far out it teaches as four standard deviations do."""
    if size <= 0.0:
        return
    if float(law.seen) <= 0.0:
        law.mean = math.log(size)
        law.variance = FIRST_VARIANCE
        law.seen = FIRST_SEEN
        return
    seen = float(law.seen)
    g = 1.0 / (seen + 1.0)
    y = min(math.log(size) - float(law.mean), 4.0 * spread(law))
    law.mean = float(law.mean) + g * y
    law.variance = float(law.variance) + g * (y * y * (1.0 - g) - float(law.variance))
    law.seen = min(seen + 1.0, MEMORY)


@compiled
def evidence_of(bits: float, floor: float, cap: float) -> float:
    """log2 likelihood ratio by the calibrator p^-1/2 / 2 of a p-value (Vovk and Wang, 2021), within floor and cap."""
    return quantise(min(cap, max(-floor, 0.5 * bits - 1.0)))
