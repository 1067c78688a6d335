"""A key's pulse: how long it usually is between its hours of use, and when its silence has become too long.

Compiled, since every key beats up to once an hour. The law of gaps is `detectors/log_sizes.py`'s Student part alone:
its scaleless part, right for a first large download, would say of no steady key within a month that it has stopped. In
its place the longest gap of the last weeks bounds from below: a key that was silent for so long is not silent yet.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.log_sizes import FREEDOM_MAX, LAW, learn_size, spread
from detectors.surprise import halved, student_tail

HOUR_US: Final = 3_600_000_000
PULSE: Final = np.dtype(
    [("last_us", "i8"), ("stopped_us", "i8"), ("law", LAW), ("longest_h", "f4"), ("gaps", "u4"), ("pad", "u4")],
    align=True,
)
"""stopped_us: when it was told that the key has stopped; 0 is never."""
LEAST_GAPS: Final = 48
LEAST_SILENCE_H: Final = 6.0
MOST_SILENCE_H: Final = 72.0
"""A key that may be silent for longer is not steady: it is not watched."""
LONGEST_TIMES: Final = 3.0
LONGEST_HALF_LIFE_H: Final = 28.0 * 24.0
LISTED_DAYS: Final = 1000.0
"""By chance a steady key would be told of once in so many days of its use."""
STEPS: Final = 24


@compiled
def beat(row: Any, ts_us: int) -> bool:
    """The key lives; False for what is not later than what is known."""
    if ts_us <= row.last_us:
        return False
    if row.last_us != 0 and row.stopped_us == 0:
        gap_h = (ts_us - row.last_us) / HOUR_US
        learn_size(row.law, gap_h)
        row.longest_h = max(gap_h, np.float64(row.longest_h) * halved(gap_h / LONGEST_HALF_LIFE_H))
        row.gaps = min(1_000_000, int(row.gaps) + 1)
    row.last_us = ts_us
    row.stopped_us = 0
    return True


@compiled
def tail(row: Any, gap_h: float) -> float:
    """P(the next gap is so long), by the Student part."""
    deviations = (math.log(gap_h) - np.float64(row.law.mean)) / spread(row.law)
    return student_tail(deviations, min(FREEDOM_MAX, np.float64(row.law.seen) + 2.0))


@compiled
def patience_h(row: Any) -> float:
    """The silence after which the key has stopped; 0: it is not steady, nothing can be said."""
    if row.gaps < LEAST_GAPS:
        return 0.0
    gaps_a_day = 24.0 / max(1.0, math.exp(np.float64(row.law.mean)))
    rare = 1.0 / (gaps_a_day * LISTED_DAYS)
    low = max(LEAST_SILENCE_H, LONGEST_TIMES * np.float64(row.longest_h))
    if low > MOST_SILENCE_H or tail(row, MOST_SILENCE_H) > rare:
        return 0.0
    if tail(row, low) <= rare:
        return low
    high = MOST_SILENCE_H
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if tail(row, middle) <= rare:
            high = middle
        else:
            low = middle
    return high


@compiled
def stopped_with(rows: Any, used: int, last_us: int, now_us: int, span_us: int, out: Any) -> tuple[int, int]:
    """Rows of the steady keys that were last used about then and are overdue: (how many, of how many steady keys).

    `out`: their numbers, as many as it holds. Overdue: silent for three of the key's usual gaps, and two hours.
    """
    n, steady = 0, 0
    for k in range(used):
        row = rows[k]
        if row.gaps < LEAST_GAPS:
            continue
        usual_h = math.exp(np.float64(row.law.mean))
        if usual_h > LEAST_SILENCE_H:
            continue
        steady += 1
        silent_us = now_us - row.last_us
        overdue = silent_us > max(2.0, 3.0 * usual_h) * HOUR_US
        if overdue and abs(row.last_us - last_us) <= span_us:
            if n < len(out):
                out[n] = k
            n += 1
    return n, steady
