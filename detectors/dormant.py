"""Dormant: a key that has been silent far longer than it ever is, is used again.

Detects: an old, forgotten key that somebody found: the first visit after a silence of a week and more that is long for
this key. Alone it is a finding; with a new place or client it weighs as evidence.
Misses: a key that was never used before (the catalogue's audit lists those); silences that the key is used to; a thief
who comes within a week.
False alarms: holidays, a seasonal job's second season, a service switched on again. So at most 4 bits of evidence.
Source: reference/detections.md, no. 11 (30 days or ten times the key's p99); the law of gaps is `log_sizes`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.detector import NOTHING, Context, Detector, attested
from detectors.log_sizes import LAW, evidence_of, learn_size, size_bits, usual

HOUR_US: Final = 3_600_000_000.0
LEAST_VISITS: Final = 8


class Dormant(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.dormant]"""

    least_days: float = 7.0  # shorter silences are nobody's business
    cap_bits: float = 4.0  # of the log likelihood ratio


STATE: Final = np.dtype([("gaps", LAW), ("gap_h", "f4"), ("bits", "f4")], align=True)
"""Law of the hours between visits; the silence before the running visit (0: none) and its bits.

Between visits gap_h is less than 0 where nobody who held the key came in the last one: so long was the silence by then.
"""


@compiled
def silence_h(visit: Any, event: Any) -> float:
    """Hours of silence before this event if it begins a visit, else 0."""
    if int(visit.events) > 0 or int(visit.last_us) == 0:
        return 0.0
    return max(0.0, (int(event.ts_us) - int(visit.last_us)) / HOUR_US)


@compiled
def gap_with(state: Any, visit: Any, event: Any) -> float:
    """Hours of silence before the running visit, as of this event; refused requests in the key's name end none."""
    kept = float(state.gap_h)
    return kept if kept > 0.0 else np.float64(np.float32(silence_h(visit, event) - kept))


@compiled
def gap_bits(state: Any, visit: Any, gap_h: float, config: Any) -> float:
    """Bits of a silence; 0 where it is short or the key has made too few visits to know."""
    if gap_h < float(config.least_days) * 24.0 or int(visit.ordinal) < LEAST_VISITS:
        return 0.0
    return size_bits(state.gaps, gap_h)


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """The same bits at every event of the visit; observed and band in days."""
    if not attested(event):
        return
    reading.covered = 1
    gap_h, bits = gap_with(state, visit, event), float(state.bits)
    if float(state.gap_h) <= 0.0:
        bits = gap_bits(state, visit, gap_h, config)
    if bits <= 0.0:
        return
    reading.bits = bits
    evidence = max(0.0, evidence_of(bits, 0.0, float(config.cap_bits)))
    reading.lr_stranger = evidence
    reading.lr_insider = evidence
    reading.observed = gap_h / 24.0
    reading.low = usual(state.gaps, -1.65) / 24.0
    reading.median = usual(state.gaps, 0.0) / 24.0
    reading.high = usual(state.gaps, 1.65) / 24.0


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Remember the silence before the visit, whoever ended it."""
    if float(state.gap_h) <= 0.0:
        gap_h = gap_with(state, visit, event)
        if gap_h > 0.0:
            state.bits = gap_bits(state, visit, gap_h, config)
            state.gap_h = gap_h


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The silence into the law; it goes on where nobody who held the key came."""
    gap_h, goes_on = float(state.gap_h), int(visit.confirmed) == 0
    if weight > 0.0 and gap_h > 0.0:
        learn_size(state.gaps, np.float64(state.gap_h))  # a logarithm of 32 bits would differ from Python's
    lasted_h = (int(visit.last_us) - int(visit.start_us)) / HOUR_US
    state.gap_h = -(abs(gap_h) + lasted_h) if goes_on and gap_h != 0.0 else 0.0
    state.bits = 0.0


def explain(reading: Any, context: Context) -> str:
    """In words: "used again after 43 days of silence, where 0.5 [0.1-2.1] days are usual"."""
    band = f"{_days(reading.median)} [{_days(reading.low)}-{_days(reading.high)}]"
    return f"used again after {_days(reading.observed)} days of silence, where {band} days are usual"


def _days(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


DORMANT: Final = Detector(
    name="dormant",
    family="time",
    unit="days of silence",
    state=STATE,
    shared=NOTHING,
    config=Dormant(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
