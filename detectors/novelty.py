"""Will the next visit bring a value the key has never used? The new-value mixture for open sets, in 12 experts or 4.

Source: reference/evidence.md, section 1. Expert j says q_j = (th_j + d_j D) / (th_j + n) after n visits with D
distinct values (both decayed, half-life 90 d); the mixture's weights learn which expert fits this key and slowly
forget. Log loss 0.417 bits a visit, against 0.656 for a fixed Dirichlet; at p <= .003 1.3 times nominal, against 3.5.
Four experts (th = .2) where bytes are short: 0.429, with the safest tails (1.00 times nominal at p <= .003).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled

EXPERTS: Final = 12
FEW_EXPERTS: Final = 4
THETA: Final = np.array([0.05, 0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 0.5, 3.0, 3.0, 3.0, 3.0, 0.2, 0.2, 0.2, 0.2])
DISCOUNT: Final = np.array([0.0, 0.3, 0.6, 0.9, 0.0, 0.3, 0.6, 0.9, 0.0, 0.3, 0.6, 0.9, 0.0, 0.3, 0.6, 0.9])
"""The 12 of MIXTURE, then the 4 of SMALL_MIXTURE."""
HALF_LIFE_US: Final = 90.0 * 86_400_000_000
KEEP: Final = 0.995  # of the weights per visit; the rest returns to uniform
LARGEST: Final = 0.9999
FLOOR: Final = 1e-5
"""No visit's new value is called rarer than this (evidence, section 4)."""
LN2: Final = 0.6931471805599453
FLEET_WEIGHT: Final = 3.0  # new values that the forecast itself weighs against the fleet's count
FLEET_LEAST: Final = 0.125
FLEET_KEPT: Final = 10_000.0
FLEET_LEVELS: Final = 8
FLEET_FIELDS: Final = [("due", "f8", (FLEET_LEVELS,)), ("seen", "f8", (FLEET_LEVELS,))]
"""Of SHARED: new values that forecasts promised and that came, by how rare they promised them to be.

A key of 20 visits a day brings a new network four times less often than its own record can promise (keybench: 1.5 in
10,000 visits, forecast 5 to 10). One factor for all failed (evidence, section 1): misfit goes by age, so it is counted
by what was promised. Downwards only: upwards it made the tails of people's keys worse."""

SHARE: Final = 65_535.0
MIXTURE: Final = np.dtype(
    [("visits", "f4"), ("distinct", "f4"), ("shares", "u2", (EXPERTS,)), ("at_us", "i8")], align=True
)
"""One open set of one key; shares are the experts' weights in 1/65,535, all 0: uniform. The rarest weight that KEEP
leaves is 27 of these, and a forecast differs by less than 1 % from one of 32 bits."""
SMALL_MIXTURE: Final = np.dtype(
    [("visits", "f4"), ("distinct", "f4"), ("shares", "u2", (FEW_EXPERTS,)), ("at_us", "i8")], align=True
)
"""The same with 4 experts."""


@compiled
def fade(dt_us: int) -> float:
    """What is left after this time."""
    return math.exp(-LN2 * max(0, dt_us) / HALF_LIFE_US)


@compiled
def expert(j: int, visits: float, distinct: float) -> float:
    """q_j: this expert's probability that the next value is new."""
    return min(LARGEST, (THETA[j] + DISCOUNT[j] * distinct) / (THETA[j] + visits))


@compiled
def first_expert(state: Any) -> int:
    """Index of the state's first expert in THETA."""
    return 0 if len(state.shares) == EXPERTS else EXPERTS


@compiled
def weight_of(state: Any, j: int, total: int) -> float:
    """An expert's weight; alike where nothing is known of them."""
    return int(state.shares[j]) / total if total > 0 else 1.0 / len(state.shares)


@compiled
def total_of(state: Any) -> int:
    """Sum of the shares."""
    total = 0
    for j in range(len(state.shares)):
        total += int(state.shares[j])
    return total


@compiled
def p_new(state: Any, ts_us: int) -> float:
    """Probability that this visit's value is new; 1 where nothing was learned."""
    if float(state.visits) <= 0.0:
        return 1.0
    kept = fade(ts_us - state.at_us)
    visits = float(state.visits) * kept
    distinct = float(state.distinct) * kept
    total, p = total_of(state), 0.0
    first = first_expert(state)
    for j in range(len(state.shares)):
        p += weight_of(state, j, total) * expert(first + j, visits, distinct)
    return max(FLOOR, p)


@compiled
def learn_visit(state: Any, ts_us: int, new: bool) -> None:
    """One visit's value was new or known."""
    experts = len(state.shares)
    if float(state.visits) <= 0.0:
        state.visits = 1.0
        state.distinct = 1.0
        state.at_us = ts_us
        return
    kept = fade(ts_us - state.at_us)
    visits = float(state.visits) * kept
    distinct = float(state.distinct) * kept
    first = first_expert(state)
    shares, total = total_of(state), 0.0
    for j in range(experts):
        q = expert(first + j, visits, distinct)
        total += weight_of(state, j, shares) * (q if new else 1.0 - q)
    for j in range(experts):
        q = expert(first + j, visits, distinct)
        fitted = weight_of(state, j, shares) * (q if new else 1.0 - q) / total
        # w^.995 * uniform^.005, to first order; keeps every expert alive
        state.shares[j] = int(SHARE * (KEEP * fitted + (1.0 - KEEP) / experts) + 0.5)
    state.visits = visits + 1.0
    state.distinct = distinct + (1.0 if new else 0.0)
    state.at_us = max(state.at_us, ts_us)


@compiled
def level_of(p: float) -> int:
    """Which promises are counted together: 2 bits wide."""
    return min(FLEET_LEVELS - 1, int(-0.5 * math.log(max(FLOOR, p)) / LN2))


@compiled
def tell_fleet(shared: Any, p: float, new: bool) -> None:
    """A known key's visit was due to bring a new value with chance `p`."""
    level = level_of(p)
    shared.due[level] += p
    shared.seen[level] += 1.0 if new else 0.0
    if shared.due[level] > FLEET_KEPT:
        shared.due[level] *= 0.5
        shared.seen[level] *= 0.5


@compiled
def fleet_p(shared: Any, p: float) -> float:
    """`p` < 1 as far as the fleet bears it out; a known value's 1 stays."""
    if p >= 1.0:
        return p
    level = level_of(p)
    factor = (shared.seen[level] + FLEET_WEIGHT) / (shared.due[level] + FLEET_WEIGHT)
    return max(FLOOR, p * min(1.0, max(FLEET_LEAST, factor)))
