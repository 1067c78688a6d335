"""The forecast of a count in one window: a Bayes mixture of seven laws around one mean (spike's model).

Laws 0 to 3: negative binomial, 1/size = 1/R + 1/(events behind the level), R in 1000, 30, 1, 0.1: Gamma-Poisson with
its own uncertainty and dispersion; R = 1000 says that no profile is right to better than 3 %. Law 4: heavy,
P(N >= n) = (1 + n/(2 (mean + 1)))^-3. Laws 5 and 6: negative binomial around the level of the last six windows,
R in 30 and 3. From reference/forecasting.md, section 3; what is different, and why:
 - no hurdle: it cost half of the time and of the state, and 0.005 to 0.03 bits per window are all that it was worth
   there (section 4); a dispersion of 1000 and 30 in place of none: between "exact" and "30 %" there was nothing for
   busy keys, and Poisson keys of 3,000 an hour rang 48 times too often at 13 bits;
 - tails in closed form: point x (Mills' ratio of the law - 1/2), within 0.2 bits of the exact one for R >= 1 and
   within 0.8 for 0.1 (against scipy, means .01 to 3,000); an incomplete beta function costs 20 times as much;
 - a step of the weights is measured against the best law, at most 10 down, instead of against the mixture;
 - a run of k empty windows is learned in closed form, the local level as where the run starts;
 - a young key's heavy law is stretched by `reach`, to what its busiest peers do, and starts with half of the weight.

A key's forecasts live in spike's record, one row per window: `weights` (i2, 1/1024) is what settled visits taught and
what is tested with; `next_weights` runs ahead until the visit has settled. Rows hold distances from the start
values, so that zeros are a key never seen.
"""

from __future__ import annotations

import math
from typing import Any, Final

from detectors.compile import compiled
from detectors.surprise import LN2, log_gamma

LAWS: Final = 7
HEAVY: Final = 4
LOCAL: Final = 5  # the first of two
SIZES: Final = (1000.0, 30.0, 1.0, 0.1, 1.0, 30.0, 3.0)  # by law; the heavy law has none
LOG_GAMMAS: Final = (0.0, 0.0, 0.0, 0.0, 0.0, 71.257038967168, 0.6931471805599472)
"""`log_gamma` of the local laws' sizes."""
FLOOR: Final = -23.0  # of a log weight below the best; -7 blinds steady keys (section 5), -20 a burst of 45 times
STEP_DOWN: Final = -10.0
MEMORY_H: Final = 7.0 * 24.0  # half-life of the weights; 4 to 60 days made no difference
LEAST_MEMORY: Final = 14.0  # windows
LOCAL_KEEP: Final = 0.8908987181403393  # 2^(-1/6): a memory of six windows
FEW: Final = 32  # requests, up to which a product is shorter than three ln gamma
FACTORIALS: Final = tuple(float(math.factorial(n)) for n in range(FEW + 1))
CLIP: Final = 10.0  # times the mean: the most that one window may teach
HEAVY_START: Final = 1.791759469228055  # ln 6: half of the first weights
WEIGHT_UNIT: Final = 1024.0


@compiled
def local_factor(state: Any, w: int) -> float:
    """The last six closed windows' rate over the key's usual one."""
    return (float(state.local_seen[w]) + 2.0) / (float(state.local_due[w]) + 2.0)


@compiled
def size_of(law: int, behind: float) -> float:
    """Size of a negative binomial law; behind: events behind the level, > 0."""
    size = SIZES[law]
    return size * behind / (size + behind) if law < HEAVY else size


@compiled
def log_heavy(n: int, mean: float, reach: float) -> float:
    """ln P(N = n) of the heavy law, n >= 0; reach stretches it."""
    scale = 2.0 * (mean + 1.0 + reach)
    x = scale / (scale + n)
    y = scale / (scale + n + 1.0)
    return math.log(x * x * x - y * y * y)


@compiled
def log_factorial(n: int) -> float:
    """ln n!, for `log_against_none`, which needs it above FEW only."""
    return log_gamma(n + 1.0) if n > FEW else 0.0


@compiled
def log_against_none(law: int, n: int, size: float, q: float, factorial: float) -> float:
    """ln of P(N = n) / P(N = 0) of a negative binomial with q = mean / (mean + size); n >= 1. factorial: of n, ln."""
    if n > FEW:
        behind = log_gamma(size) if law < HEAVY else LOG_GAMMAS[law]
        return n * math.log(q) + log_gamma(n + size) - behind - factorial
    above = 1.0
    for i in range(n):
        above *= (size + i) * q
    return math.log(above / FACTORIALS[int(n)])


@compiled
def mills_ratio(n: int, size: float, q: float) -> float:
    """P(N >= n) / P(N = n) of a negative binomial for n > mean: Gauss' tail in steps of the law's own ratio."""
    x = 1.0 - q * (n + size) / (n + 1.0)
    bend = q * (size - 1.0) / ((n + 1.0) * (n + 2.0))
    ratio = 4.0 / (3.0 * x + math.sqrt(max(0.0, x * x + 8.0 * bend)))
    return ratio if size >= 1.0 else min(ratio, 1.0 / (1.0 - q))


@compiled
def law_weight(state: Any, w: int, law: int) -> float:
    """Weight of one law in the settled mixture of window w, not normalised."""
    return math.exp(int(state.weights[w, law]) / WEIGHT_UNIT - (0.0 if law == HEAVY else HEAVY_START))


@compiled
def law_weights(state: Any, w: int) -> tuple[float, float, float, float, float, float, float]:
    """The same of all laws."""
    return (
        law_weight(state, w, 0), law_weight(state, w, 1), law_weight(state, w, 2), law_weight(state, w, 3),
        law_weight(state, w, HEAVY), law_weight(state, w, LOCAL), law_weight(state, w, LOCAL + 1),
    )  # fmt: skip


@compiled
def law_tail(law: int, n: int, here: float, behind: float, factorial: float) -> float:
    """About P(N >= n) of a negative binomial law around `here`, from there on; 1 below. factorial: of n, ln."""
    if n <= here:
        return 1.0
    size = size_of(law, behind)
    q = here / (here + size)
    log_point = size * math.log(1.0 - q) + log_against_none(law, n, size, q, factorial)
    return min(1.0, math.exp(log_point) * (mills_ratio(n, size, q) - 0.5))


@compiled
def mixture_bits(weights: Any, n: int, mean: float, behind: float, reach: float, f: float, tests: float) -> float:
    """-log2 of the mid-p tail of n >= 1 requests in a window by its mixture (`law_weights`); f: the local factor.

    0 where that is no rarer than once in so many tests: the heavy law and the local ones, or law 2, often show it.
    """
    total = 0.0
    for law in range(LAWS):
        total += weights[law]
    factorial = log_factorial(n)
    x = 1.0 + n / (2.0 * (mean + 1.0 + reach))
    heavy = weights[HEAVY] / (x * x * x)
    near = weights[LOCAL] * law_tail(LOCAL, n, mean * f, behind, factorial)
    wide = weights[LOCAL + 1] * law_tail(LOCAL + 1, n, mean * f, behind, factorial)
    if (heavy + near + wide) * tests >= total:
        return 0.0
    even = weights[2] * law_tail(2, n, mean, behind, factorial)
    if (heavy + near + wide + even) * tests >= total:
        return 0.0
    tail = weights[0] * law_tail(0, n, mean, behind, factorial) + weights[1] * law_tail(1, n, mean, behind, factorial)
    tail = tail + even + weights[3] * law_tail(3, n, mean, behind, factorial) + heavy + near + wide
    return 0.0 if tail * tests >= total else -math.log(max(1e-300, tail / total)) / LN2


@compiled
def log_none_and_point(
    law: int, n: int, mean: float, behind: float, reach: float, f: float, factorial: float
) -> tuple[float, float]:
    """ln P(N = 0) and ln P(N = n) of one law; of n < 0 twice the former."""
    if law == HEAVY:
        none = log_heavy(0, mean, reach)
        return none, log_heavy(n, mean, reach) if n > 0 else none
    size = size_of(law, behind)
    here = mean * f if law >= LOCAL else mean
    q = here / (here + size)
    none = size * math.log(1.0 - q)
    return none, none + (log_against_none(law, n, size, q, factorial) if n > 0 else 0.0)


@compiled
def next_weight(before: float, law: int, fits: float, none_fits: float, n: int, keep: float, memory: float) -> float:
    """Log weight of one law after the window and the empty ones, not yet held against the others'.

    fits, none_fits: ln of how likely the window's requests and none were, against the best law; keep: of k windows.
    """
    now = before - (0.0 if law == HEAVY else HEAVY_START)
    if n >= 0:
        now = (1.0 - 1.0 / memory) * now + max(STEP_DOWN, fits)
    return keep * now + memory * (1.0 - keep) * max(STEP_DOWN, none_fits)


@compiled
def teach(state: Any, w: int, n: int, k: int, window_h: float, mean: float, behind: float, reach: float) -> None:
    """A closed window of n requests (-1: none such) and k empty ones after it, into weights and local level."""
    f = local_factor(state, w)
    memory = max(LEAST_MEMORY, MEMORY_H / (window_h * LN2))
    keep = math.exp(-k / memory) if k > 0 else 1.0
    factorial = log_factorial(n)
    logs = (
        log_none_and_point(0, n, mean, behind, reach, f, factorial),
        log_none_and_point(1, n, mean, behind, reach, f, factorial),
        log_none_and_point(2, n, mean, behind, reach, f, factorial),
        log_none_and_point(3, n, mean, behind, reach, f, factorial),
        log_none_and_point(HEAVY, n, mean, behind, reach, f, factorial),
        log_none_and_point(LOCAL, n, mean, behind, reach, f, factorial),
        log_none_and_point(LOCAL + 1, n, mean, behind, reach, f, factorial),
    )
    best_none, best = logs[0]
    for law in range(1, LAWS):
        best_none, best = max(best_none, logs[law][0]), max(best, logs[law][1])
    top = -1e300
    for law in range(LAWS):
        none, point = logs[law]
        after = next_weight(float(state.next_weights[w, law]), law, point - best, none - best_none, n, keep, memory)
        top = max(top, after)
    for law in range(LAWS):
        none, point = logs[law]
        after = next_weight(float(state.next_weights[w, law]), law, point - best, none - best_none, n, keep, memory)
        state.next_weights[w, law] = max(FLOOR, after - top) + (0.0 if law == HEAVY else HEAVY_START)
    learn_local(state, w, n, k, mean, f)


@compiled
def learn_local(state: Any, w: int, n: int, k: int, mean: float, f: float) -> None:
    """The last six windows' requests seen and due; arguments as in `teach`."""
    seen = float(state.local_seen[w])
    due = float(state.local_due[w])
    if n >= 0:
        seen = LOCAL_KEEP * seen + min(float(n), CLIP * (mean * f + 1.0))
        due = LOCAL_KEEP * due + mean
    if k > 0:
        keep = math.exp(-k * LN2 / 6.0)
        seen *= keep
        due = keep * due + mean * (1.0 - keep) / (1.0 - LOCAL_KEEP)
    state.local_seen[w] = seen
    state.local_due[w] = due


@compiled
def leading_law(state: Any, w: int) -> int:
    """Which law the settled weights favour: the class of predictability (section 3)."""
    best = HEAVY
    for law in range(LAWS):
        lead = int(state.weights[w, law]) - int(state.weights[w, best])
        if law != HEAVY and lead > (HEAVY_START * WEIGHT_UNIT if best == HEAVY else 0.0):
            best = law
    return best


@compiled
def law_quantile(law: int, mean: float, behind: float, reach: float, below: float) -> float:
    """About the count that a law stays below with this chance (.05, .5 or .95); for words only."""
    if law == HEAVY:
        y = math.exp(-math.log(1.0 - below) / 3.0)
        return math.floor(2.0 * (mean + 1.0 + reach) * (y - 1.0))
    z = 0.0 if below == 0.5 else (1.645 if below > 0.5 else -1.645)
    size = size_of(law, behind)
    shape = mean * size / (size + mean)  # of the gamma with the same two moments
    if shape < 0.2:
        return math.floor(mean * (3.84 if below > 0.5 else 0.0))  # far from normal: the mean's own chi-square
    root = 1.0 - 1.0 / (9.0 * shape) + z / (3.0 * math.sqrt(shape))  # Wilson-Hilferty
    return math.floor(mean * max(0.0, root * root * root) + 0.5)


@compiled
def settle_weights(state: Any) -> None:
    """What the visit taught becomes what is tested with."""
    for w in range(state.weights.shape[0]):
        for law in range(LAWS):
            state.weights[w, law] = math.floor(float(state.next_weights[w, law]) * WEIGHT_UNIT + 0.5)


@compiled
def forget_weights(state: Any) -> None:
    """What the visit taught is dropped, and with it the level of the last six windows."""
    for w in range(state.weights.shape[0]):
        for law in range(LAWS):
            state.next_weights[w, law] = int(state.weights[w, law]) / WEIGHT_UNIT
    forget_local(state)


@compiled
def forget_local(state: Any) -> None:
    """After a pause there is no level of the last six windows: a night's silence would make every morning ring
    (measured: 25 bits on the second Monday of an office key)."""
    for w in range(state.weights.shape[0]):
        state.local_seen[w] = 0.0
        state.local_due[w] = 0.0
        state.until[w] = 0
