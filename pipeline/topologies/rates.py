"""How often is a thing done here at all? A share that is learned from every occasion, with a shipped one before it."""

from __future__ import annotations

from typing import Final

import msgspec

from detectors.surprise import bits_of, halved, quantise

DAY_US: Final = 24 * 3_600_000_000
HALF_LIFE_DAYS: Final = 90.0
SHIPPED_WEIGHT: Final = 10.0  # occasions


class Rate(msgspec.Struct):
    """Occasions, and those that showed it; fading by half in 90 days."""

    occasions: float = 0.0
    shown: float = 0.0
    last_us: int = 0

    def bits(self, shipped: float) -> float:
        """-log2 of the share, to 1/64."""
        share = (self.shown + SHIPPED_WEIGHT * shipped) / (self.occasions + SHIPPED_WEIGHT)
        return quantise(bits_of(min(1.0, share)))

    def learn(self, shown: bool, ts_us: int) -> None:
        """One occasion."""
        if self.last_us:
            kept = halved(max(0, ts_us - self.last_us) / DAY_US / HALF_LIFE_DAYS)
            self.occasions, self.shown = self.occasions * kept, self.shown * kept
        self.occasions += 1.0
        self.shown += 1.0 if shown else 0.0
        self.last_us = max(self.last_us, ts_us)

    def doubt(self) -> None:
        """What was learned last helped to open an incident: it teaches a quarter of what an innocent occasion does."""
        self.occasions = max(0.0, self.occasions - 0.75)
        self.shown = max(0.0, self.shown - 0.75)
