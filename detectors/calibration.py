"""From fused bits to a return period: how often chance alone brings this much, per visit, in days of the key's use.

Theory's 2^-n is wrong by factors (reference/evidence.md, section 4: 0.06 to 18 times), so it is `counted` how often
innocent keys reach a score, by rule and by stratum of visits a day: what comes twice a week and what comes each hour
differ in their tails. Counted are *runs*, as incidents open: the largest score of a key within the rule's own
cool-down (`counted.RUN_H`), over all its visits; a run that grows moves to its new bin. So a key that rings daily
counts as often as it would alert, and no parametric tail is laid through a mixture of keys: a generalised Pareto,
fitted at 6 bits, was wrong 8 times at the 15 to 30 bits at which the listed budget lay (keybench, 826 incidents for
100). A visit that began under an open incident, or in which nobody authenticated, is left out.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.counted import BINS, LN2, add_visit, bin_of, log_share, raise_peak
from detectors.shipped_counts import RETURNS

RULES: Final = ("visit", "slow")
STRATA: Final = 3
VISITS_A_DAY: Final = (1.5, 6.0)
"""Where the strata of visits a day part."""
CALIBRATION: Final = np.dtype(
    [("visits", "f8", (2, STRATA)), ("counts", "f8", (2, STRATA, BINS))],  # runs, by their largest score
    align=True,
)
"""What a partition has counted of its own; per rule and stratum."""


@compiled
def stratum_of(visits_per_day: float) -> int:
    """0: a key of few visits a day, 2: one that is used nearly every hour."""
    if visits_per_day < VISITS_A_DAY[0]:
        return 0
    return 1 if visits_per_day < VISITS_A_DAY[1] else 2


@compiled
def survival(known: Any, rule: int, stratum: int, score_bits: float) -> float:
    """The share of visits with this score or more, runs counted once; 0 < share <= 1."""
    counts, visits = known.counts[rule, stratum], known.visits[rule, stratum]
    return math.exp(LN2 * log_share(RETURNS[rule, stratum], counts, visits, score_bits))


@compiled
def count(known: Any, rule: int, stratum: int, score_bits: float, before: int) -> int:
    """A visit has ended with this score, in a run whose largest was in bin `before` (-1: it begins one).

    Returns the run's bin from now on.
    """
    add_visit(known.visits[rule], known.counts[rule], stratum)
    return int(raise_peak(known.counts[rule, stratum], bin_of(score_bits), before))


@compiled
def seen_above(known: Any, rule: int, score_bits: float) -> float:
    """How many runs of keys this partition has counted at this score or more (by bins, fading)."""
    total = 0.0
    for stratum in range(STRATA):
        for j in range(bin_of(score_bits), BINS):
            total += known.counts[rule, stratum, j]
    return total


@compiled
def return_days(known: Any, rule: int, score_bits: float, visits_per_day: float) -> float:
    """Days of this key's use between two such runs by chance; each of the two rules has half of the budget."""
    return 1.0 / (2.0 * survival(known, rule, stratum_of(visits_per_day), score_bits) * visits_per_day)


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
