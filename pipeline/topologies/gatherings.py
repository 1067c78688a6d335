"""How many come together where one has come? The law of the other keys in a window of a source.

A window begins with a key that is new to the source. How many more follow is geometric around a mean that is the
source's own where it is known, its network's where it is not, and the partition's where that is unknown as well: so an
exit that many use is used to many, and a first address of a build service is judged by the build service's others.
Sums fade by half in 28 days; what is under an incident is not learned, and no window teaches more than `CLIP` means.
Means and weights before anything is learned: our judgement, no log at hand has sources with many owners' keys.
"""

from __future__ import annotations

from typing import Final

import msgspec

from detectors.surprise import bits_of, halved, log2_of, negative_binomial_tail, quantise

DAY_US: Final = 24 * 3_600_000_000
HALF_LIFE_DAYS: Final = 28.0
SHIPPED_WEIGHT: Final = 20.0  # windows
NETWORK_WEIGHT: Final = 5.0
OWN_WEIGHT: Final = 3.0
CLIP: Final = 4.0


class Law(msgspec.Struct):
    """Windows that ended, and how many more keys than the first they had."""

    windows: float = 0.0
    extra: float = 0.0
    last_us: int = 0

    def learn(self, extra: float, mean: float, ts_us: int) -> None:
        """One window ended; `mean`: what was expected of it."""
        if self.last_us:
            kept = halved(max(0, ts_us - self.last_us) / DAY_US / HALF_LIFE_DAYS)
            self.windows, self.extra = self.windows * kept, self.extra * kept
        self.windows += 1.0
        self.extra += min(extra, CLIP * mean + 2.0)
        self.last_us = max(self.last_us, ts_us)

    def mean(self, behind: float, weight: float) -> float:
        """Expected extra keys, with `weight` windows' worth of what stands behind."""
        return (self.extra + weight * behind) / (self.windows + weight)


def surprise_bits(extra: int, mean: float) -> float:
    """-log2 P(as many more or above), to 1/64: geometric, whose tail is heavier than Poisson's."""
    return quantise(bits_of(negative_binomial_tail(extra, mean, 1.0))) if extra > 0 else 0.0


def upper(mean: float) -> float:
    """The 95 % point of keys in a window, the first one included."""
    return 1.0 + log2_of(0.05) / log2_of(mean / (1.0 + mean)) if mean > 0.0 else 1.0
