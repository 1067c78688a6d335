"""The forecast of a count in one window: a Bayes mixture of eight laws around one mean (spike's model).

Laws 0 to 2: negative binomial, 1/size = 1/R + 1/(events behind the level), R in infinity, 1, 0.05: Gamma-Poisson with
its own uncertainty and dispersion. Law 3: hurdle, none or a log-Student size. Law 4: heavy, (1 + n/(mean + 1))^-2.
Laws 5 to 7: negative binomial around the level of the last six windows, R in 30, 4, 0.5.
Recursions, constants and what they were measured against: reference/forecasting.md, section 3. Deviations:
 - a run of k empty windows is learned in closed form, each step held at ln p >= -6 and not measured
   against the mixture (a constant is common to all weights and drops out), the local level as where the run starts;
 - the odds of the hurdle are scaled, so that its p does not jump at one half (section 8, untested there);
 - a young key's heavy law is stretched by `reach`, to what its busiest peers do, and starts with half of the weight:
   with equal weights the first day of synthetic keys was 28 times too sure at 13 bits (section 4).

A key's forecasts live in spike's record, one row per window: `weights` (i2, 1/1024) and `hurdle` are what settled
visits taught and what is tested with; `next_weights` and `next_hurdle` run ahead until the visit has settled. Rows
hold distances from the start values, so that zeros are a key never seen.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.surprise import log_negative_binomial, negative_binomial_tail, student_density, student_tail

LAWS: Final = 8
HURDLE: Final = 3
HEAVY: Final = 4
LOCAL: Final = 5  # the first of three
FLOOR: Final = -20.0  # of a log weight below the best; -7 blinds steady keys (section 5)
STEP_DOWN: Final = -6.0
STEP_UP: Final = 4.0
MEMORY_H: Final = 7.0 * 24.0  # half-life of the weights; 4 to 60 days made no difference
LEAST_MEMORY: Final = 14.0  # windows
LOCAL_KEEP: Final = 0.8908987181403393  # 2^(-1/6): a memory of six windows
CLIP: Final = 10.0  # times the mean: the most that one window may teach
HEAVY_START: Final = 1.9459101490553132  # ln 7: half of the first weights
WEIGHT_UNIT: Final = 1024.0


@compiled
def start_weight(law: int) -> float:
    """Log weight of a law before anything was seen, the best being 0."""
    return 0.0 if law == HEAVY else -HEAVY_START


@compiled
def size_of(law: int, behind: float) -> float:
    """The size of a negative binomial law; `behind`: events behind the level, > 0."""
    if law == 0:
        return behind
    if law == 1:
        return 1.0 / (1.0 + 1.0 / behind)
    if law == 2:
        return 1.0 / (20.0 + 1.0 / behind)
    if law == LOCAL:
        return 30.0
    return 4.0 if law == LOCAL + 1 else 0.5


@compiled
def local_factor(state: Any, w: int) -> float:
    """The last six closed windows' rate over the key's usual one."""
    return (float(state.local_seen[w]) + 2.0) / (float(state.local_due[w]) + 2.0)


@compiled
def chance_of_any(hurdle: Any, mean: float, usual: float) -> float:
    """The hurdle's P(N >= 1): learned odds, scaled by how busy this hour is against the usual one."""
    p = min(0.99, max(1e-5, (float(hurdle[3]) + 0.2) / (float(hurdle[4]) + 0.4)))
    odds = p / (1.0 - p) * busy(mean, usual)
    return min(0.99, max(1e-5, odds / (1.0 + odds)))


@compiled
def busy(mean: float, usual: float) -> float:
    """How busy the hour is against the key's mean hour, within 0.1 and 10."""
    return min(10.0, max(0.1, mean / usual))


@compiled
def hurdle_size(hurdle: Any, n: float) -> tuple[float, float, float]:
    """(t, scale, degrees of freedom) of ln n under the hurdle's log-Student size. Row: see `learn_hurdle`."""
    seen = float(hurdle[2]) + 2.0
    scale = math.sqrt(max(float(hurdle[1]) + 1.0, 0.05) * (1.0 + 1.0 / seen))
    return (math.log(n) - float(hurdle[0]) - 0.7) / scale, scale, min(seen + 2.0, 30.0)


@compiled
def hurdle_tail(hurdle: Any, n: int, mean: float, usual: float) -> float:
    """P(N >= n), n >= 1."""
    p = chance_of_any(hurdle, mean, usual)
    if n <= 1:
        return p
    t, _, freedom = hurdle_size(hurdle, n - 0.5)
    return p * student_tail(t, freedom)


@compiled
def log_hurdle(hurdle: Any, n: int, mean: float, usual: float) -> float:
    """ln P(N = n); by two tails for n <= 3, by the density beyond."""
    if n == 0:
        return math.log(1.0 - chance_of_any(hurdle, mean, usual))
    if n <= 3:
        return math.log(max(1e-30, hurdle_tail(hurdle, n, mean, usual) - hurdle_tail(hurdle, n + 1, mean, usual)))
    t, scale, freedom = hurdle_size(hurdle, float(n))
    return math.log(max(1e-30, chance_of_any(hurdle, mean, usual) * student_density(t, freedom) / (scale * n)))


@compiled
def law_tail(law: int, hurdle: Any, n: int, mean: float, usual: float, behind: float, reach: float, f: float) -> float:
    """P(N >= n), n >= 1, of one law. reach: stretches the heavy law, 0 for a grown key; f: the local factor."""
    if law == HURDLE:
        return hurdle_tail(hurdle, n, mean, usual)
    if law == HEAVY:
        x = 1.0 + n / (mean + 1.0 + reach)
        return 1.0 / (x * x)
    return negative_binomial_tail(n, mean * f if law >= LOCAL else mean, size_of(law, behind))


@compiled
def log_point(law: int, hurdle: Any, n: int, mean: float, usual: float, behind: float, reach: float, f: float) -> float:
    """ln P(N = n) of one law, n >= 0; arguments as in `law_tail`."""
    if law == HURDLE:
        return log_hurdle(hurdle, n, mean, usual)
    if law == HEAVY:
        scale = mean + 1.0 + reach
        x = scale / (scale + n)
        y = scale / (scale + n + 1.0)
        return math.log(x * x - y * y)
    return log_negative_binomial(n, mean * f if law >= LOCAL else mean, size_of(law, behind))


@compiled
def weight_of(state: Any, w: int, law: int) -> float:
    """Settled weight of a law, the best being about 1; not normalised."""
    return math.exp(int(state.weights[w, law]) / WEIGHT_UNIT + start_weight(law))


@compiled
def mixture_tail(state: Any, w: int, n: int, mean: float, usual: float, behind: float, reach: float, f: float) -> float:
    """Mid-p tail of n >= 1 requests in window w by the settled mixture: P(N >= n) - P(N = n)/2."""
    total = 0.0
    tail = 0.0
    hurdle = state.hurdle[w]
    for law in range(LAWS):
        weight = weight_of(state, w, law)
        here = law_tail(law, hurdle, n, mean, usual, behind, reach, f)
        point = math.exp(log_point(law, hurdle, n, mean, usual, behind, reach, f))
        total += weight
        tail += weight * max(0.0, here - 0.5 * min(point, here))
    return tail / total


@compiled
def leading_law(state: Any, w: int) -> int:
    """Which law the settled weights favour: the class of predictability (section 3)."""
    best = 0
    for law in range(1, LAWS):
        if weight_of(state, w, law) > weight_of(state, w, best):
            best = law
    return best


@compiled
def law_quantile(state: Any, w: int, law: int, mean: float, usual: float, reach: float, below: float) -> float:
    """About the count that a law stays below with this chance (.05, .5 or .95), for words only: a tail costs 3 us."""
    z = 0.0 if below == 0.5 else (1.645 if below > 0.5 else -1.645)
    if law == HEAVY:
        return math.floor((mean + 1.0 + reach) * (1.0 / math.sqrt(1.0 - below) - 1.0))
    if law == HURDLE:
        if 1.0 - chance_of_any(state.hurdle[w], mean, usual) >= below:
            return 0.0
        _, scale, _ = hurdle_size(state.hurdle[w], 1.0)
        return math.floor(math.exp(float(state.hurdle[w, 0]) + 0.7 + z * scale) + 0.5)
    if law >= LOCAL:
        mean *= local_factor(state, w)
    shape = mean / (1.0 + mean / size_of(law, float(state.seen) + 0.5))  # of the gamma with the same two moments
    if shape < 0.2:
        return math.floor(mean * (3.84 if below > 0.5 else 0.0))  # far from normal: the mean's own chi-square
    root = 1.0 - 1.0 / (9.0 * shape) + z / (3.0 * math.sqrt(shape))  # Wilson-Hilferty
    return math.floor(mean * max(0.0, root * root * root) + 0.5)


@compiled
def next_weight(state: Any, w: int, law: int) -> float:
    """Running log weight of a law."""
    return float(state.next_weights[w, law]) + start_weight(law)


@compiled
def store_weights(state: Any, w: int, logs: Any) -> None:
    """Keep eight log weights, the best at 0 and none below the floor."""
    top = logs[0]
    for law in range(1, LAWS):
        top = max(top, logs[law])
    for law in range(LAWS):
        state.next_weights[w, law] = max(FLOOR, logs[law] - top) - start_weight(law)


@compiled
def memory_of(window_h: float) -> float:
    """Windows that the weights remember."""
    return max(LEAST_MEMORY, MEMORY_H / (window_h * 0.6931471805599453))


@compiled
def learn_window(
    state: Any, w: int, n: int, window_h: float, mean: float, usual: float, behind: float, reach: float
) -> None:
    """One closed window of n requests into the running forecast: weights first, then the laws' own figures."""
    f = local_factor(state, w)
    hurdle = state.next_hurdle[w]
    points = np.empty(LAWS)
    for law in range(LAWS):
        points[law] = log_point(law, hurdle, n, mean, usual, behind, reach, f)
    mixed = mixed_point(state, w, points)
    keep = 1.0 - 1.0 / memory_of(window_h)
    for law in range(LAWS):
        points[law] = keep * next_weight(state, w, law) + min(STEP_UP, max(STEP_DOWN, points[law] - mixed))
    store_weights(state, w, points)
    learn_hurdle(hurdle, n, keep, busy(mean, usual))
    learn_local(state, w, n, mean, f)


@compiled
def mixed_point(state: Any, w: int, points: Any) -> float:
    """ln of the running mixture's probability of a count, from the laws' ln p."""
    top = points[0]
    for law in range(1, LAWS):
        top = max(top, points[law])
    total = 0.0
    mixed = 0.0
    for law in range(LAWS):
        weight = math.exp(next_weight(state, w, law))
        total += weight
        mixed += weight * math.exp(points[law] - top)
    return top + math.log(max(mixed / total, 1e-300))


@compiled
def learn_hurdle(row: Any, n: int, keep: float, how_busy: float) -> None:
    """Row: mean of ln n less 0.7, its variance less 1, non-empty windows seen, decayed hits, decayed trials."""
    row[3] = keep * float(row[3]) + (1.0 / how_busy if n > 0 else 0.0)
    row[4] = keep * float(row[4]) + 1.0
    if n == 0:
        return
    seen = float(row[2]) + 2.0
    spread = float(row[1]) + 1.0
    gain = 1.0 / (min(seen, 100.0) + 1.0)
    y = min(math.log(n) - float(row[0]) - 0.7, 4.0 * math.sqrt(max(spread, 0.05)))
    row[0] = float(row[0]) + gain * y
    row[1] = float(row[1]) + gain * (y * y * (1.0 - gain) - spread)
    row[2] = min(98.0, float(row[2]) + 1.0)


@compiled
def learn_local(state: Any, w: int, n: int, mean: float, f: float) -> None:
    """The last six windows' seen and due."""
    state.local_seen[w] = LOCAL_KEEP * float(state.local_seen[w]) + min(float(n), CLIP * (mean * f + 1.0))
    state.local_due[w] = LOCAL_KEEP * float(state.local_due[w]) + mean


@compiled
def learn_empty(
    state: Any, w: int, k: int, window_h: float, mean: float, usual: float, behind: float, reach: float
) -> None:
    """k >= 1 empty windows of one mean, in closed form."""
    f = local_factor(state, w)
    hurdle = state.next_hurdle[w]
    step = 1.0 - 1.0 / memory_of(window_h)
    keep = math.exp(k * math.log(step))
    sums = (1.0 - keep) / (1.0 - step)
    logs = np.empty(LAWS)
    for law in range(LAWS):
        gain = max(STEP_DOWN, log_point(law, hurdle, 0, mean, usual, behind, reach, f))
        logs[law] = keep * next_weight(state, w, law) + sums * gain
    store_weights(state, w, logs)
    hurdle[3] = keep * float(hurdle[3])
    hurdle[4] = keep * float(hurdle[4]) + sums
    local = math.exp(k * math.log(LOCAL_KEEP))
    state.local_seen[w] = local * float(state.local_seen[w])
    state.local_due[w] = local * float(state.local_due[w]) + mean * (1.0 - local) / (1.0 - LOCAL_KEEP)


@compiled
def settle_weights(state: Any) -> None:
    """What the visit taught becomes what is tested with."""
    for w in range(state.weights.shape[0]):
        for law in range(LAWS):
            state.weights[w, law] = math.floor(float(state.next_weights[w, law]) * WEIGHT_UNIT + 0.5)
        for i in range(5):
            state.hurdle[w, i] = state.next_hurdle[w, i]


@compiled
def forget_weights(state: Any) -> None:
    """What the visit taught is dropped, and with it the level of the last six windows."""
    for w in range(state.weights.shape[0]):
        for law in range(LAWS):
            state.next_weights[w, law] = int(state.weights[w, law]) / WEIGHT_UNIT
        for i in range(5):
            state.next_hurdle[w, i] = state.hurdle[w, i]
    forget_local(state)


@compiled
def forget_local(state: Any) -> None:
    """After a pause there is no level of the last six windows: a night's silence would make every morning ring
    (measured: 25 bits on the second Monday of an office key)."""
    for w in range(state.weights.shape[0]):
        state.local_seen[w] = 0.0
        state.local_due[w] = 0.0
        state.crit[w] = 0
        state.crit_fails[w] = 0
