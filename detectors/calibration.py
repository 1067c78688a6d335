"""From fused bits to a return period: how often chance alone brings this much, per visit, in days of the key's use.

Theory's 2^-n is wrong by factors (reference/evidence.md, section 4: 0.06 to 18 times), so the share of innocent
visits at or above a score is counted: a survival table with a generalised-Pareto tail above `TAIL_BITS`. What ships
is measured (`tests/evaluation/calibrate.py`, table `SHIPPED`); a partition's own visits move it slowly and within
rails: the shipped rate and mean excess weigh as much as `SHRINK` own exceedances, and the result stays within a
factor of `RAIL` of what ships, so that noise or an attacker's patience cannot switch the alarm off. A visit counts
once, at its end; a visit that began under an open incident, or in which nobody authenticated, is left out; a key
gives at most one exceedance per rule and month to the tail's shape (one key ringing daily moved the level by 4.8
bits, with the cap by 0.2: reference/forecasting.md, section 7). How often visits exceed is counted without that cap:
capped exceedances over all visits made the share 4 to 60 times too small (113,188 innocent visits of keybench).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled

RULES: Final = ("visit", "slow")
TAIL_BITS: Final = 6
"""Above this many bits the tail's law holds, below the table."""
BINS: Final = 48
"""One bit wide, from TAIL_BITS up; the last is open."""
SHRINK: Final = 30.0  # exceedances: reference/forecasting.md, section 7
RAIL: Final = 10.0
VISITS_KEPT: Final = 1_000_000.0  # beyond it all counts are halved: old visits fade
TABLE: Final = np.array(
    [
        # share of visits with a fused score >= 0, 1, ... 6 bits; row 0 the visit rule, row 1 the slow rule
        [0.139, 0.0974, 0.0714, 0.0513, 0.0366, 0.0260, 0.0177],
        [0.86, 0.066, 0.038, 0.025, 0.016, 0.0086, 0.0031],
    ]
)
"""Measured by tests/evaluation/calibrate.py on even keys: geometric mean of two innocent populations.

visit, 2026-11-26 with nine detectors: people (21,193 visits) .269 .167 .120 .0875 .0616 .0421 .0307, mean excess 3.15
bits; simulated services (35,494) .0717 .0568 .0425 .0301 .0218 .0161 .0102, 3.43 bits.
slow, 2026-11-24 with four detectors and once per key and month: people .892 .373 .179 .102 .0586 .0291 .0092, 1.77
bits; services .826 .0118 .0080 .0063 .0044 .0025 .0011, 6.31 bits, of which servers moved for good make most.
Held-out people: 174 incidents at 1,000 days (90 per 100,000 key-days, aim 100) and 2 at 10,000 (1, aim 10) in 193,773
key-days, with .0125 and 3.8 bits for the visit rule."""
MEAN_EXCESS_BITS: Final = np.array([3.3, 2.5])
SHAPE: Final = 0.1
"""xi of the tail; 1 / SHAPE is the whole number 10, so that the power below needs no `pow`."""

CALIBRATION: Final = np.dtype(
    [
        ("visits", "f8", (2,)),
        ("excess_bits", "f8", (2,)),  # sum over exceedances of score - TAIL_BITS
        ("body", "f8", (2, TAIL_BITS + 1)),  # visits by bits: below 0, 0 to 1, ...
        ("counts", "f8", (2, BINS)),  # exceedances by bits above TAIL_BITS
    ],
    align=True,
)
"""What a partition has counted of its own; per rule."""


@compiled
def pareto(excess_bits: float, mean_bits: float) -> float:
    """Share of exceedances that exceed by `excess_bits` or more: (1 + xi x / beta)^(-1 / xi), beta = (1 - xi) mean."""
    base = 1.0 + SHAPE * excess_bits / ((1.0 - SHAPE) * mean_bits)
    square = base * base
    fourth = square * square
    return 1.0 / (fourth * fourth * square)


@compiled
def shipped(rule: int, score_bits: float) -> float:
    """The shipped share of innocent visits with this score or more."""
    if score_bits >= TAIL_BITS:
        return TABLE[rule, TAIL_BITS] * pareto(score_bits - TAIL_BITS, MEAN_EXCESS_BITS[rule])
    if score_bits <= 0.0:
        return TABLE[rule, 0]
    low = int(score_bits)
    part = score_bits - low
    return TABLE[rule, low] * (1.0 - part) + TABLE[rule, low + 1] * part


@compiled
def survival(known: Any, rule: int, score_bits: float) -> float:
    """The share of innocent visits with this score or more: shipped and own, within the rails; 0 < share <= 1."""
    prior = shipped(rule, score_bits)
    seen = 0.0
    for j in range(BINS):
        seen += known.counts[rule, j]
    above = seen  # of the slow rule: its sum stays high for weeks, so only once per key and month
    if rule == 0:
        above = known.visits[rule]
        for j in range(TAIL_BITS + 1):
            above -= known.body[rule, j]
    start = TABLE[rule, TAIL_BITS]
    rate = (SHRINK + max(0.0, above)) / (SHRINK / start + known.visits[rule])
    if score_bits >= TAIL_BITS:
        mean = (SHRINK * MEAN_EXCESS_BITS[rule] + known.excess_bits[rule]) / (SHRINK + seen)
        share = rate * pareto(score_bits - TAIL_BITS, max(mean, 0.5))
    else:
        share = prior * rate / start
    return min(1.0, max(prior / RAIL, min(prior * RAIL, share)))


@compiled
def count(known: Any, rule: int, score_bits: float, may_exceed: bool) -> bool:
    """A visit has ended with this score. Returns whether it was counted as an exceedance."""
    known.visits[rule] += 1.0
    if known.visits[rule] > VISITS_KEPT:
        known.visits[rule] *= 0.5
        known.excess_bits[rule] *= 0.5
        for j in range(BINS):
            known.counts[rule, j] *= 0.5
        for j in range(TAIL_BITS + 1):
            known.body[rule, j] *= 0.5
    if score_bits < TAIL_BITS:
        known.body[rule, 0 if score_bits < 0.0 else int(score_bits) + 1] += 1.0
    if score_bits < TAIL_BITS or not may_exceed:
        return False
    known.excess_bits[rule] += min(score_bits - TAIL_BITS, float(BINS))
    known.counts[rule, min(BINS - 1, int(score_bits - TAIL_BITS))] += 1.0
    return True


@compiled
def seen_above(known: Any, rule: int, score_bits: float) -> float:
    """How many visits of other keys or months this partition has counted at this score or more (whole bits, fading)."""
    total = 0.0
    for j in range(max(0, int(score_bits) - TAIL_BITS), BINS):
        total += known.counts[rule, j]
    return total


@compiled
def return_days(known: Any, rule: int, score_bits: float, visits_per_day: float) -> float:
    """Days of this key's use between two such visits by chance; each of the two rules has half of the budget."""
    return 1.0 / (2.0 * survival(known, rule, score_bits) * visits_per_day)


def words(days: float) -> str:
    """A return period for people, e.g. "rarer than once in about 900 key-years"; two digits, never 2^-n."""
    if days < 2:
        return "nothing unusual"
    if days < 730:
        return f"rarer than once in about {_rounded(days)} key-days"
    return f"rarer than once in about {_rounded(days / 365.25)} key-years"


def _rounded(value: float) -> str:
    """Two significant digits with thousands separated."""
    digits = max(0, math.floor(math.log10(value)) - 1)
    return f"{round(value / 10**digits) * 10**digits:,}"
