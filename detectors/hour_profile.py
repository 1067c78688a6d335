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
AROUND_H: Final = len(KERNEL) // 2
AROUND: Final = np.arange(-AROUND_H, HOURS + AROUND_H) % HOURS
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

MIXED: Final = 3
"""Row of a forecast: the chance of each hour of the week, mixed; rows 0 to 2: under each prior."""
OWN: Final = 4  # the rows from here on are what it is worked out from: the key's own visits under the kernel,
MIX: Final = 5  # what people with such a histogram do,
LOGS: Final = 6  # log posterior of archetype and shift,
ROOM: Final = 7  # weights of rows that are added, and then for whatever needs room
ROWS: Final = 8
"""One array holds them all: thirteen small ones took as long as the sums in them (measured)."""


@compiled
def add_rows(sums: Any, table: Any, starts: Any, weights: Any, count: int) -> None:
    """Add so many rows of a flat table, weighed, in their order: four at a time, so that sums wait in registers.

    Of `starts` and `weights` up to three more are overwritten, and weigh nothing; there is room, as all that is ever
    added comes in fours. Rows are slices: of `table[start + j]` numba asks at each step whether it is below 0, and
    takes six times as long (measured).
    """
    n = len(sums)
    for i in range(count, (count + 3) // 4 * 4):
        starts[i] = 0
        weights[i] = 0.0
    for i in range(0, count, 4):
        a, b = table[starts[i] : starts[i] + n], table[starts[i + 1] : starts[i + 1] + n]
        c, d = table[starts[i + 2] : starts[i + 2] + n], table[starts[i + 3] : starts[i + 3] + n]
        wa, wb, wc, wd = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for j in range(n):
            sums[j] = sums[j] + wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]


@compiled
def mix_kinds(mix: Any, logs: Any, shifts: Any, starts: Any, shares: Any) -> None:
    """Archetypes weighed by their (kinds x shifts) log posterior; what weighs below 1 % is left out."""
    kept, total, best = 0, 0.0, logs[0]
    for k in range(0, len(logs), 4):  # in fours: each maximum waits for the one before
        best = max(best, max(max(logs[k], logs[k + 1]), max(logs[k + 2], logs[k + 3])))
    for kind in range(KINDS):
        for j in range(len(shifts)):
            below = logs[kind * len(shifts) + j] - best
            if below > -9.0:
                starts[kept] = HOURS * (3 * kind + 1) - shifts[j]
                shares[kept] = math.exp(below)
                total += shares[kept]
                kept += 1
    for hour in range(HOURS):
        mix[hour] = 0.0
    add_rows(mix, WIDE_TABLE, starts, shares, kept)
    for hour in range(HOURS):
        mix[hour] /= total


@compiled
def used_hours(state: Any, hours: Any) -> int:
    """Fill in the histogram's hours that have visits, ascending; returns how many.

    Without a branch: which these are, no processor foresees.
    """
    used = 0
    for hour in range(HOURS):
        hours[used] = hour
        used += 1 if state.profile[hour] != 0 else 0
    return used


@compiled
def log_posterior(state: Any, used: Any, prior: Any, table: Any, logs: Any, starts: Any, weights: Any) -> None:
    """(kinds x shifts) log posterior of archetype and shift from the histogram's used hours, not normalised."""
    for k in range(len(logs)):
        logs[k] = prior[k]
    for i in range(len(used)):
        starts[i] = used[i] * len(logs)
        weights[i] = TEMPER * (int(state.profile[used[i]]) / UNIT)
    add_rows(logs, table, starts, weights, len(used))


@compiled
def archetype_mix(state: Any, used: Any, zoned: bool, rows: Any, starts: Any) -> None:
    """What people with such a histogram do: shifts of -2 .. 2 h in local bins, of 2 h round the day in UTC."""
    if zoned:
        logs = rows[LOGS][: len(LOCAL_PRIOR)]
        log_posterior(state, used, LOCAL_PRIOR, LOCAL_LOGS, logs, starts, rows[ROOM])
        mix_kinds(rows[MIX], logs, LOCAL_SHIFTS, starts, rows[ROOM])
    else:
        logs = rows[LOGS][: len(UTC_PRIOR)]
        log_posterior(state, used, UTC_PRIOR, UTC_LOGS, logs, starts, rows[ROOM])
        mix_kinds(rows[MIX], logs, UTC_SHIFTS, starts, rows[ROOM])


@compiled
def smooth(state: Any, used: Any, own: Any) -> float:
    """Visits by hour of the week under the kernel; returns their sum."""
    for hour in range(HOURS):
        own[hour] = 0.0
    for hour in used:
        visits = int(state.profile[hour]) / UNIT
        for d in range(len(KERNEL)):
            own[AROUND[hour + d]] += visits * KERNEL[d]
    first, behind = 0, HOURS
    if len(used) > 0 and used[0] >= AROUND_H and used[-1] < HOURS - AROUND_H:
        first, behind = used[0] - AROUND_H, used[-1] + AROUND_H + 1  # a young key's other hours add nothing
    total = 0.0
    for hour in range(first, behind):
        total += own[hour]
    return total


@compiled
def prior_weight(state: Any, i: int) -> float:
    """Weight of one prior; equal before anything was learned."""
    # 0.0: compiled, float() of an f4 stays in 32 bits and so would the sum
    total = 0.0 + float(state.weight[0]) + float(state.weight[1]) + float(state.weight[2])
    return float(state.weight[i]) / total if total > 0.0 else 1.0 / 3.0


@allocating
def forecast(state: Any, zoned: bool) -> Any:
    """(8, 168) chance of each hour of the week: under each prior, and MIXED; the rows behind it are used up."""
    rows, hours = np.empty((ROWS, HOURS)), np.empty((2, HOURS), np.int64)
    used = hours[0][: used_hours(state, hours[0])]
    total = smooth(state, used, rows[OWN])
    archetype_mix(state, used, zoned, rows, hours[1])
    mix_priors(state, total, rows)
    return rows


@compiled
def mix_priors(state: Any, total: float, rows: Any) -> None:
    """The forecast under each prior and MIXED, from the key's own visits, `total` of them, and what people do."""
    own, mix, mixed = rows[OWN], rows[MIX], rows[MIXED]
    for hour in range(HOURS):
        mixed[hour] = 0.0
    for i in range(3):
        weight, under = prior_weight(state, i), rows[i]
        for hour in range(HOURS):
            under[hour] = (own[hour] + PRIORS[i] * mix[hour]) / (total + PRIORS[i])
            mixed[hour] += weight * under[hour]


@compiled
def entropy_bits(row: Any) -> float:
    """Of a forecast over the week; 7.39 is uniform."""
    total = 0.0
    for hour in range(HOURS):
        total -= row[hour] * log2_of(row[hour])
    return total


@compiled
def is_flat(row: Any, limit_bits: float) -> bool:
    """Whether the forecast's entropy is at least so much.

    168 logarithms take longer than all the rest of a forecast, and two bounds mostly know without: entropy is at least
    -log2(sum of squares) (Renyi), and below uniform's by L1^2 / (2 ln 2) or more (Pinsker).
    """
    square, distance = 0.0, 0.0
    for hour in range(24):
        squares, apart = 0.0, 0.0  # by hour of the day: one sum over the week would wait for itself 168 times
        for weekday in range(DAYS):
            p = row[24 * weekday + hour]
            squares += p * p
            apart += abs(p - 1.0 / HOURS)
        square += squares
        distance += apart
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


@compiled
def usual_hours(row: Any, room: Any) -> tuple[int, int, int]:
    """(first, busiest, last) hour of the shortest run of the day's hours that holds 90 % of the forecast.

    `room` for 72 sums: the day twice, so that nothing wraps, and what a run holds, by its first hour.
    """
    day, held = room[:48], room[48:72]
    busiest = 0
    for hour in range(24):
        total = 0.0
        for weekday in range(DAYS):
            total += row[24 * weekday + hour]
        day[hour] = total
        day[24 + hour] = total
        held[hour] = 0.0
        busiest = hour if total > day[busiest] else busiest
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
