"""The forecast of a visit's hour of the week (off_hours' model): own histogram over archetypes of people.

p_a(b) = (S_b + a q_b)/(S + a) for a in 1, 6, 40, mixed by learned weights; S: the key's smoothed visits, q: archetypes
under their posterior. Source and figures: reference/evidence.md, section 2. Fields are off_hours'.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.archetypes import ARCHETYPES, SHARES, SHIFT_SHARES
from detectors.compile import allocating, compiled
from detectors.surprise import LN2, bits_of, log2_of

HOURS: Final = 168
UNIT: Final = 8.0  # a visit in the histogram's bytes; 1 costs 0.05 bits a visit
KERNEL: Final = np.array([0.00013, 0.00443, 0.05399, 0.24197, 0.39894, 0.24197, 0.05399, 0.00443, 0.00013])
"""Gaussian of 1 h at -4 .. 4 h; sums to 1."""
AROUND: Final = np.arange(-4, HOURS + 4) % HOURS
"""Which bin lies 4 hours before index 0 and so on: `%` in the inner loop costs eight times the rest of it."""
PRIORS: Final = (1.0, 6.0, 40.0)  # weights of the archetypes in visits; one alone hides the sharpest keys
TEMPER: Final = 0.5  # visits of one day are not independent
TABLE: Final = np.array(ARCHETYPES) / np.sum(np.array(ARCHETYPES), axis=1, keepdims=True)
WIDE_TABLE: Final = np.concatenate((TABLE, TABLE, TABLE), axis=1).ravel()  # three weeks: no wrapping
KINDS: Final = len(ARCHETYPES)
LOG_SHARES: Final = np.log(np.array(SHARES))
LOG_SHIFTS: Final = np.log(np.array(SHIFT_SHARES))
LOCAL_SHIFTS: Final = np.arange(-2, 3)  # hours: local bins of people who rise early or late
UTC_SHIFTS: Final = np.arange(0, 24, 2)  # bins in UTC: round the day


def shifted_logs(shifts: Any) -> Any:
    """(168 x kinds x shifts) ln of the chance of each hour: one histogram bin's row lies in one piece of memory."""
    rows = [np.log(np.roll(row, shift)) for row in TABLE for shift in shifts]
    return np.array(rows).T.ravel()


LOCAL_LOGS: Final = shifted_logs(LOCAL_SHIFTS)
UTC_LOGS: Final = shifted_logs(UTC_SHIFTS)
DAYS: Final = HOURS // 24
UNIFORM_BITS: Final = math.log2(HOURS)
SURE: Final = 1e-9
"""Far more than what rounding does to a sum over the week."""
LOCAL_PRIOR: Final = np.add.outer(LOG_SHARES, LOG_SHIFTS).ravel()
UTC_PRIOR: Final = np.repeat(LOG_SHARES, len(UTC_SHIFTS))


@compiled
def add_rows(sums: Any, table: Any, starts: Any, weights: Any, count: int) -> None:
    """Add so many rows of a flat table, weighed, in their order: four at a time, so that sums wait in registers.

    `starts` and `weights` have room for three more, which weigh nothing. Rows are slices: of `table[start + j]` numba
    asks at each step whether it is below 0, and takes six times as long (measured).
    """
    n = len(sums)
    for i in range(0, count, 4):
        a, b = table[starts[i] : starts[i] + n], table[starts[i + 1] : starts[i + 1] + n]
        c, d = table[starts[i + 2] : starts[i + 2] + n], table[starts[i + 3] : starts[i + 3] + n]
        wa, wb, wc, wd = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for j in range(n):
            sums[j] = sums[j] + wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]


@allocating
def mixed(logs: Any, shifts: Any) -> Any:
    """(168,) archetypes weighed by their (kinds x shifts) log posterior; what weighs below 1 % is left out."""
    starts, shares, kept = np.zeros(len(logs) + 3, np.int64), np.zeros(len(logs) + 3), 0
    total, best = 0.0, np.max(logs)
    for k in range(len(logs)):
        if logs[k] - best > -9.0:
            starts[kept] = HOURS * (3 * (k // len(shifts)) + 1) - shifts[k % len(shifts)]
            shares[kept] = math.exp(logs[k] - best)
            total += shares[kept]
            kept += 1
    mix = np.zeros(HOURS)
    add_rows(mix, WIDE_TABLE, starts, shares, kept)
    for hour in range(HOURS):
        mix[hour] /= total
    return mix


@allocating
def used_hours(state: Any) -> Any:
    """The histogram's hours that have visits, ascending. Without a branch: which these are, no processor foresees."""
    hours, used = np.empty(HOURS, np.int64), 0
    for hour in range(HOURS):
        hours[used] = hour
        used += 1 if state.profile[hour] != 0 else 0
    return hours[:used]


@allocating
def log_posterior(state: Any, used: Any, prior: Any, table: Any) -> Any:
    """(kinds x shifts) log posterior of archetype and shift from the histogram, not normalised."""
    logs = prior.copy()
    starts, weights = np.zeros(len(used) + 3, np.int64), np.zeros(len(used) + 3)
    for i in range(len(used)):
        starts[i] = used[i] * len(logs)
        weights[i] = TEMPER * (int(state.profile[used[i]]) / UNIT)
    add_rows(logs, table, starts, weights, len(used))
    return logs


@allocating
def archetype_mix(state: Any, used: Any, zoned: bool) -> Any:
    """(168,) what people with such a histogram do: shifts of -2 .. 2 h in local bins, of 2 h round the day in UTC."""
    if zoned:
        return mixed(log_posterior(state, used, LOCAL_PRIOR, LOCAL_LOGS), LOCAL_SHIFTS)
    return mixed(log_posterior(state, used, UTC_PRIOR, UTC_LOGS), UTC_SHIFTS)


@allocating
def smoothed(state: Any, used: Any) -> Any:
    """(168,) visits by hour of the week under the kernel."""
    wide = np.zeros(HOURS)
    for hour in used:
        visits = int(state.profile[hour]) / UNIT
        for d in range(len(KERNEL)):
            wide[AROUND[hour + d]] += visits * KERNEL[d]
    return wide


@compiled
def prior_weight(state: Any, i: int) -> float:
    """Weight of one prior; equal before anything was learned."""
    # 0.0: compiled, float() of an f4 stays in 32 bits and so would the sum
    total = 0.0 + float(state.weight[0]) + float(state.weight[1]) + float(state.weight[2])
    return float(state.weight[i]) / total if total > 0.0 else 1.0 / 3.0


@allocating
def forecast(state: Any, zoned: bool) -> Any:
    """(4, 168) chance of each hour of the week: under each prior, and mixed (last row)."""
    used = used_hours(state)
    mix = archetype_mix(state, used, zoned)
    own = smoothed(state, used)
    total = 0.0
    for hour in range(HOURS):
        total += own[hour]
    rows = np.zeros((4, HOURS))
    for i in range(3):
        weight = prior_weight(state, i)
        for hour in range(HOURS):
            rows[i, hour] = (own[hour] + PRIORS[i] * mix[hour]) / (total + PRIORS[i])
            rows[3, hour] += weight * rows[i, hour]
    return rows


@compiled
def entropy_bits(row: Any) -> float:
    """Of a forecast over the week; 7.39 is uniform."""
    total = 0.0
    for hour in range(HOURS):
        total -= row[hour] * log2_of(row[hour])
    return total


@allocating
def is_flat(row: Any, limit_bits: float) -> bool:
    """Whether the forecast's entropy is at least so much.

    168 logarithms take longer than all the rest of a forecast, and two bounds mostly know without: entropy is at least
    -log2(sum of squares) (Renyi), and below uniform's by L1^2 / (2 ln 2) or more (Pinsker).
    """
    squares, apart = np.zeros(24), np.zeros(24)
    for day in range(DAYS):
        here = row[24 * day : 24 * day + 24]
        for hour in range(24):
            p = here[hour]
            squares[hour] += p * p
            apart[hour] += abs(p - 1.0 / HOURS)
    square, distance = 0.0, 0.0
    for hour in range(24):
        square += squares[hour]
        distance += apart[hour]
    if -log2_of(square) >= limit_bits + SURE:
        return True
    if UNIFORM_BITS - distance * distance / (2.0 * LN2) < limit_bits - SURE:
        return False
    return entropy_bits(row) >= limit_bits


@compiled
def hour_bits(row: Any, hour: int) -> float:
    """-log2 of the chance of an hour as rare as this one (mid-p)."""
    tail = 0.0
    for other in range(HOURS):
        if row[other] < row[hour]:
            tail += row[other]
        elif row[other] == row[hour]:
            tail += 0.5 * row[other]
    return bits_of(tail)


@allocating
def usual_hours(row: Any) -> tuple[int, int, int]:
    """(first, busiest, last) hour of the shortest run of the day's hours that holds 90 % of the forecast."""
    day = np.zeros(48)  # twice: no wrapping
    for weekday in range(DAYS):
        here = row[24 * weekday : 24 * weekday + 24]
        for hour in range(24):
            day[hour] += here[hour]
    busiest = 0
    for hour in range(24):
        day[24 + hour] = day[hour]
        busiest = hour if day[hour] > day[busiest] else busiest
    held = np.zeros(24)  # by the run's first hour
    for n in range(23):
        reached, ends = 0, day[n : n + 24]
        for first in range(24):
            held[first] += ends[first]
            reached += 1 if held[first] >= 0.9 else 0
        if reached > 0:
            for first in range(24):
                if held[first] >= 0.9:
                    return first, busiest, (first + n) % 24
    return 0, busiest, 23
