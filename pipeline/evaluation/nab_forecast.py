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

from detectors.compile import compiled
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


@compiled
def upper_tail(t: float) -> float:
    """P(T > t) for Student's t of 4 degrees of freedom, t >= 0, exact and without cancellation."""
    q = 1.0 + 0.25 * t * t
    r = 0.5 * t / math.sqrt(q)
    rest = 1.0 / (q * (1.0 + r))  # 1 - r
    return 0.25 * rest * rest * (r + 2.0)


@compiled
def forecast_bits(values: Floats, hours: npt.NDArray[np.int64], levels: Floats) -> Floats:
    """Two-sided bits of each value by the mixture over `levels` (memories), day, week and the heavy law."""
    n_levels = len(levels)
    laws = n_levels + 3
    day, week, heavy = n_levels, n_levels + 1, n_levels + 2
    level = np.zeros(n_levels)
    square = np.zeros(laws)
    weight = np.zeros(laws)
    slot_mean = np.zeros(192)
    slot_seen = np.zeros(192)
    centre = np.zeros(laws)
    scale = np.zeros(laws)
    fit = np.zeros(laws)
    bits = np.zeros(len(values))
    low = values[0]
    high = values[0]
    for i in range(len(values)):
        value = values[i]
        slot_day = hours[i] % 24
        slot_week = 24 + (hours[i] + 72) % 168
        for k in range(n_levels):
            centre[k] = level[k]
        seen = slot_seen[slot_day]
        centre[day] = (slot_mean[slot_day] * seen + 2.0 * level[0]) / (seen + 2.0)
        seen = slot_seen[slot_week]
        centre[week] = (slot_mean[slot_week] * seen + 2.0 * centre[day]) / (seen + 2.0)
        centre[heavy] = level[0]
        grain = max(1e-9, SCALE_FLOOR * (high - low))
        up, down, total, best = 0.0, 0.0, 0.0, -1e300
        for k in range(laws):
            scale[k] = math.sqrt(max(square[k] * (1.0 + 2.0 / max(1.0, i)), grain * grain))
            if k == heavy:
                scale[k] = HEAVY * scale[0]
            t = (value - centre[k]) / scale[k]
            share = math.exp(weight[k])
            tail = upper_tail(abs(t))
            total += share
            up += share * (tail if t > 0.0 else 1.0 - tail)
            down += share * (1.0 - tail if t > 0.0 else tail)
            fit[k] = -2.5 * math.log(1.0 + 0.25 * t * t) - math.log(scale[k])
            best = max(best, fit[k])
        if i > 3:
            bits[i] = -math.log(min(1.0, max(1e-60, 2.0 * min(up, down) / total))) / math.log(2.0)
        learn_weights(weight, fit, best)
        gain = max(1.0 / LONG, 1.0 / (i + 1.0))
        for k in range(heavy):
            error = value - centre[k]
            if i >= 20:
                error = min(max(error, -CLIP * scale[k]), CLIP * scale[k])
            square[k] += gain * (error * error - square[k])
        for k in range(n_levels):
            level[k] += max(1.0 / levels[k], 1.0 / (i + 1.0)) * (value - level[k])
        for slot in (slot_day, slot_week):
            slot_seen[slot] = min(slot_seen[slot] + 1.0, SLOT_MEMORY)
            slot_mean[slot] += (value - slot_mean[slot]) / slot_seen[slot]
        low = min(low, value)
        high = max(high, value)
    return bits


@compiled
def learn_weights(weight: Floats, fit: Floats, best: float) -> None:
    """Log weights after a value: forgetting, a bounded step, the best at 0, a floor."""
    top = -1e300
    for k in range(len(weight)):
        weight[k] = FORGET * weight[k] + max(STEP_DOWN, fit[k] - best)
        top = max(top, weight[k])
    for k in range(len(weight)):
        weight[k] = max(FLOOR, weight[k] - top)


@compiled
def lasting(bits: Floats) -> Floats:
    """Sum of the last `SUM` values' bits, over the root of their number."""
    found = np.zeros(len(bits))
    total = 0.0
    for i in range(len(bits)):
        total += bits[i] - (bits[i - SUM] if i >= SUM else 0.0)
        found[i] = total / math.sqrt(SUM)
    return found


@compiled
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


@compiled
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
