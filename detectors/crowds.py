"""The crowd of a moment: the most requests that a visit of this key brings within 10 s, and within 60 s (spike's).

A key's visits are compared with each other: the logarithm of a visit's fullest span, forecast by Student's t with the
key's own mean and variance over a hundred visits' memory, begun with those of its peers (keys of few visits among
themselves). What comes of it in the far tail is counted over visits (`window_peaks`), as for spike's other windows.
A grown key's mean rises by .002 a visit at most, a tenth in a day at 48 visits, and what is usual at most twofold in 28
days of use, whatever comes (`growth`): nobody trains it quickly, nor patiently. Fields are spike's. Source: keybench,
development half; the law is reference/forecasting.md's, section 3, law 4.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.fusion import visits_group
from detectors.growth import GROWN, LOG_ROOT_2, held, reach
from detectors.surprise import bits_of, quantise, student_tail
from detectors.teaching import teaches

CROWDS: Final = 2
GROUPS: Final = 2
CROWD_FIELDS: Final = [("crowds", "f8", (GROUPS, CROWDS, 3))]
"""Of spike's SHARED, by group of keys and span: visits (fading), mean and variance of the logarithm."""
VISITS_LEAST: Final = 50.0  # of peers, before what they do replaces what ships
VISITS_MEMORY: Final = 20_000.0
FIRST_MEAN: Final = 0.7  # two requests at once
FIRST_VARIANCE: Final = 0.5
FIRST_SEEN: Final = 4.0  # visits that the peers' law is worth
MEMORY: Final = 100.0
LEAST_VARIANCE: Final = 0.05
FREEDOM: Final = 4.0
FREEDOM_MAX: Final = 30.0
ODD_SPREADS: Final = 2.0  # above the mean: below, nothing is odd and no tail is worked out
FOURFOLD: Final = 1.3862943611198906  # ln 4: a launch brings three times as much to a steady key, and is no dump
GROWTH: Final = 0.002
FREE_REACH: Final = 1.25  # ln 3.5: a fourth of the fewest requests that are judged; up to there growth is no matter
BASE_UNIT: Final = 16.0
LOW: Final = -1.65
HIGH: Final = 1.65


@compiled
def first_law(shared: Any, visit: Any, w: int) -> tuple[float, float]:
    """Mean and variance of the logarithm for a key that has no visits yet."""
    peers = shared.crowds[visits_group(visit), w]
    if peers[0] < VISITS_LEAST:
        return FIRST_MEAN, FIRST_VARIANCE
    return peers[1], peers[2]


@compiled
def law_of(state: Any, shared: Any, visit: Any, w: int) -> tuple[float, float, float]:
    """Mean and variance of the logarithm of the next visit's fullest span, and the visits behind them."""
    if int(state.crowd_visits) == 0:
        mean, variance = first_law(shared, visit, w)
        return mean, variance, FIRST_SEEN
    return np.float64(state.crowd_mean[w]), np.float64(state.crowd_variance[w]), float(int(state.crowd_visits))


@compiled
def deviation(variance: float, seen: float) -> float:
    """Standard deviation of the next one."""
    return math.sqrt(max(variance, LEAST_VARIANCE) * (1.0 + 1.0 / seen))


@compiled
def crowd_spread(state: Any, w: int) -> float:
    """How uneven the key's visits are."""
    return math.sqrt(max(0.0, np.float64(state.crowd_variance[w])))


@compiled
def crowd_bits(state: Any, shared: Any, visit: Any, w: int, n: float) -> float:
    """-log2 P(a visit's fullest span has n requests or more), to 1/64; 0 up to two deviations or four times above."""
    mean, variance, seen = law_of(state, shared, visit, w)
    beyond = math.log(n) - mean
    above = beyond / deviation(variance, seen)
    if above < ODD_SPREADS or beyond < FOURFOLD:
        return 0.0
    return quantise(bits_of(student_tail(above, min(FREEDOM_MAX, seen + FREEDOM))))


@compiled
def describe_crowd(state: Any, shared: Any, visit: Any, reading: Any, w: int) -> None:
    """Middle 90 % of the forecast and the span."""
    mean, variance, seen = law_of(state, shared, visit, w)
    off = deviation(variance, seen)
    reading.low = math.floor(math.exp(min(20.0, mean + LOW * off)) + 0.5)
    reading.median = math.floor(math.exp(min(20.0, mean)) + 0.5)
    reading.high = math.floor(math.exp(min(20.0, mean + HIGH * off)) + 0.5)
    reading.a = 10.0 if w == 0 else 60.0
    reading.b = -1.0


@compiled
def learn_crowds(state: Any, shared: Any, visit: Any, weight: float) -> None:
    """The visit's fullest spans into the key's law and the peers', or dropped."""
    for w in range(CROWDS):
        n = int(state.most[w])
        state.most[w] = 0
        if weight <= 0.0 or n == 0:
            continue
        mean, variance, behind = law_of(state, shared, visit, w)
        x = math.log(n)
        gain = 1.0 / (behind + 1.0)
        off = min(x - mean, 4.0 * deviation(variance, behind))
        step = gain * off
        after = mean + (min(step, GROWTH) if behind >= MEMORY and int(visit.anew) == 0 else step)
        width = variance + gain * (off * off * (1.0 - gain) - variance)
        before, beyond = reach(mean, variance, LEAST_VARIANCE), reach(after, width, LEAST_VARIANCE)
        most = most_reach(state, w, behind, int(visit.anew) != 0, before, beyond)
        mean, variance = held(mean, variance, after, width, LEAST_VARIANCE, most)
        state.crowd_mean[w] = mean
        state.crowd_variance[w] = variance
        if teaches(visit):
            tell_peers(shared.crowds[visits_group(visit), w], x)
        if w == CROWDS - 1:
            state.crowd_visits = int(min(behind + 1.0, MEMORY))


@compiled
def most_reach(state: Any, w: int, behind: float, anew: bool, before: float, after: float) -> float:
    """The largest reach that a visit may lead to, which would move it from `before` to `after` (`growth.limit`).

    `request_level` empties `crowd_base` when they begin, and all through the first week. anew: held by nothing.
    """
    free = behind < GROWN or anew
    base = int(min(255.0, max(1.0, math.floor((after if free else before) * BASE_UNIT))))
    if int(state.crowd_base[w]) == 0 or behind < GROWN or (anew and base > int(state.crowd_base[w])):
        state.crowd_base[w] = base
    if free:
        return max(before, after)
    return max(before, max(FREE_REACH, int(state.crowd_base[w]) / BASE_UNIT) + LOG_ROOT_2)


@compiled
def tell_peers(peers: Any, x: float) -> None:
    """One visit more."""
    peers[0] = min(VISITS_MEMORY, peers[0] + 1.0)
    gain = 1.0 / peers[0]
    off = x - peers[1]
    peers[1] += gain * off
    peers[2] = (1.0 - gain) * (peers[2] + gain * off * off)
