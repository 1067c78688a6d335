"""A level that has left its slow anchor, however slowly it went there (spike's): the end of every patient ramp.

The anchor is a 90-day mean fed at most 1.5 times itself (`request_level`): traffic held just under three anchors has
reached 3.3 times its own after 28 days and 6 times after 180 (reference/evidence.md, section 5). A week's level above
three anchors is a finding, above four it is listed. Of people's key-days above 3: 39 episodes in 100,000, above 4: 9,
above 6: none; of services none above 1.5. Clipped learning alone never tells: what is compared is the free level.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.request_level import free_level

WEEK_S: Final = 604_800
DRIFT_H: Final = 28 * 24  # hours of use until an anchor says what was usual
DRIFT_BITS: Final = 8.0  # a finding; once in 2,600 key-days
DRIFT_LISTED_BITS: Final = 22.0  # worth 17.6 bits of evidence: listed; once in 11,000 key-days
HOUR_US: Final = 3_600_000_000


@compiled
def drift_bits(state: Any, config: Any) -> float:
    """Bits of a level that has left its slow anchor, however slowly it went; 0 where it has not."""
    if int(state.awake_h) < DRIFT_H:
        return 0.0
    times = free_level(state) / max(1e-3, np.float64(state.anchor))
    if times < float(config.drift_found):
        return 0.0
    return DRIFT_BITS if times < float(config.drift_listed) else DRIFT_LISTED_BITS


@compiled
def describe_drift(state: Any, reading: Any, bits: float) -> None:
    """A week's level against the anchor."""
    reading.bits = bits
    reading.observed = free_level(state)
    reading.low = np.float64(state.anchor)
    reading.median = np.float64(state.anchor)
    reading.high = np.float64(state.anchor)
    reading.a = float(WEEK_S)
    reading.b = -1.0
