"""Egress: more bytes go out to a key than to any visit of it before, or a little more every day.

Detects: bulk export (the bytes of one visit against the key's own law of that), and low-and-slow: days that stay above
the key's usual day, summed up (CUSUM) until the sum is as rare as once in 2^bits days.
Misses: theft within the key's usual volume; keys whose volume jumps about anyway; formats without response sizes.
False alarms: a first full export, a monthly report, growth: so the slow sum is a finding and never evidence, and volume
alone proves nothing (family "volume").
Source: reference/detections.md, no. 7; the law is `log_sizes`; CUSUM's run length: Siegmund (1985), ARL = (e^(2kb) -
2kb - 1) / (2k^2), b = S + 1.166, k = .25 (reference/evidence.md, section 5: drift .25, one false alarm in 10,000 days).
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.detector import NOTHING, SEES_BYTES, SEES_OUTCOME, Context, Detector
from detectors.log_sizes import LAW, evidence_of, learn_size, size_bits, spread, usual
from detectors.surprise import log2_of, quantise

DAY_US: Final = 86_400_000_000
DRIFT: Final = 0.25
FAR: Final = 3.0  # standard deviations: the most that one day adds
LEAST_DAYS: Final = 14.0  # learned before days are summed up
VISIT: Final = 1
DAYS: Final = 2


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.egress]"""

    least_bytes: float = 1_000_000.0  # of a visit before it is judged (Panther's floor)
    cap_bits: float = 10.0  # of the log likelihood ratio
    floor_bits: float = 0.5
    slow_finding_bits: float = 13.3  # one false alarm in 10,000 days


STATE: Final = np.dtype(
    [
        ("visit_bytes", "f8"),
        ("day_bytes", "f8"),  # settled, of `day`
        ("visits", LAW),
        ("days", LAW),
        ("loud", "f4"),  # bytes below which a visit is nothing odd
        ("sum", "f4"),  # CUSUM of days, in standard deviations
        ("day", "i4"),  # since the epoch; 0: none
    ],
    align=True,
)


@compiled
def counted(event: Any) -> bool:
    """Whether the event's caller held the key, as far as the format can tell."""
    return int(event.authenticated) == 1 or int(event.sees) & SEES_OUTCOME == 0


@compiled
def slow_bits(total: float) -> float:
    """log2 of the days in which chance alone brings the sum that high once."""
    x = 2.0 * DRIFT * (total + 1.166)
    return quantise(log2_of((math.exp(x) - x - 1.0) / (2.0 * DRIFT * DRIFT))) if total > 0.0 else 0.0


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = VISIT or DAYS; observed and band in MB of a visit or a day."""
    if int(event.sees) & SEES_BYTES == 0 or not counted(event):
        return
    reading.covered = 1
    if float(state.visits.seen) <= 0.0:
        return
    size = float(state.visit_bytes) + float(event.bytes_out)
    floor = -float(config.floor_bits)
    reading.lr_stranger = floor
    reading.lr_insider = floor
    slow = slow_bits(float(state.sum))
    if size >= float(config.least_bytes) and size >= float(state.loud):
        reading.bits = size_bits(state.visits, size)
        evidence = evidence_of(reading.bits, float(config.floor_bits), float(config.cap_bits))
        reading.lr_stranger = evidence
        reading.lr_insider = evidence
    if slow >= float(config.slow_finding_bits) and slow > reading.bits:
        reading.bits = slow
        reading.a = float(DAYS)
        describe(state.days, float(state.day_bytes) + size, reading)
    elif reading.bits > 0.0:
        reading.a = float(VISIT)
        describe(state.visits, size, reading)


@compiled
def describe(law: Any, size: float, reading: Any) -> None:
    """In MB."""
    reading.observed = size / 1e6
    reading.low = usual(law, -1.65) / 1e6
    reading.median = usual(law, 0.0) / 1e6
    reading.high = usual(law, 1.65) / 1e6


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Add the event's bytes to the visit; settle decides what is kept of it."""
    if int(event.sees) & SEES_BYTES != 0 and counted(event):
        state.visit_bytes = float(state.visit_bytes) + float(event.bytes_out)


@compiled
def end_day(state: Any) -> None:
    """The day's bytes into the sum, then into the law: it is tested before it is learned."""
    size = float(state.day_bytes)
    if size > 0.0:
        if float(state.days.seen) >= LEAST_DAYS:
            far = (math.log(size) - float(state.days.mean)) / spread(state.days)
            state.sum = max(0.0, float(state.sum) + min(FAR, far) - DRIFT)
        learn_size(state.days, size)
    state.day_bytes = 0.0


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit's bytes into its law and its day."""
    if weight > 0.0 and float(state.visit_bytes) > 0.0:
        day = int(visit.last_us) // DAY_US
        if day > int(state.day):
            end_day(state)
            state.day = day
        state.day_bytes = float(state.day_bytes) + float(state.visit_bytes)
        learn_size(state.visits, float(state.visit_bytes))
        state.loud = usual(state.visits, 1.0)
    state.visit_bytes = 0.0


def explain(reading: Any, context: Context) -> str:
    """In words: "412 MB out in one visit, where 9 [3-21] are usual"."""
    band = f"{_mb(reading.median)} [{_mb(reading.low)}-{_mb(reading.high)}]"
    if reading.a == DAYS:
        return f"more bytes out than usual day after day ({_mb(reading.observed)} MB today, where {band} are usual)"
    return f"{_mb(reading.observed)} MB out in one visit, where {band} are usual"


def _mb(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


EGRESS: Final = Detector(
    name="egress",
    family="volume",
    unit="MB out",
    state=STATE,
    shared=NOTHING,
    config=Egress(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
