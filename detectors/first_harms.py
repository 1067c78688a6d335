"""Sensitive operations that a key never did before, in one visit after another: what they add up to within a day.

For novel_operation: a first deletion is too common to be told by itself, for what a key may do shows little by little.
Who abuses a key does several such things within hours, each in a visit of its own. A visit's first sensitive operation
(deletion, administration, credentials) that is new is worth b = log2(ATTACKERS / (how often this key's visits bring
one * the share of its class among such)), less LESS, added to a sum that halves in HALF_DAY_H hours. How often: this
key's own of the last month or two, with the peers' as prior. The sum is compared with what runs of visits of such keys
reach, as they are counted (`counted`).
Misses: one or two such calls; keys of few visits a day, of which every sixteenth brings something new; one call a day.
False alarms: an owner who begins another job; a key that moves to another program.
Source: keybench, calls alone, 600 keys of either half: at 10 in 100,000 key-days .45 to .53 of single destructive calls
(few, some, many calls a day: .04, .7, .7) and .013 of batches at most. Half lives of 3, 6, 18 and 24 hours, prior
weights of 2 and 4 and LESS of 1, 3 and 4 find fewer. Fields are novel_operation's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.counted import BINS, add_visit, begins_run, hour_of, log_share, raise_run
from detectors.detector import OPERATION_ADMIN, OPERATION_CREDENTIAL, OPERATION_DELETE
from detectors.fusion import visits_group, visits_per_day
from detectors.shipped_counts import FIRST_HARMS
from detectors.surprise import LN2, halved, log2_of, quantise
from detectors.teaching import teaches

GROUPS: Final = 2
"""Keys of few visits a day, and the others (`fusion.visits_group`)."""
CLASSES: Final = 3  # deletion, administration, credentials
YOUNG_US: Final = 14 * 86_400_000_000  # nothing is said of a key's first two weeks, in which everything is new
HALF_DAY_H: Final = 12.0
MEMORY_DAYS: Final = 30.0  # half-life of how often a key brings such things
ATTACKERS: Final = 0.2  # of their visits bring one of a class [judged]
LESS: Final = 2.0  # bits of each: what goes on innocently, adds up too
SUM_MOST: Final = 62.0  # bits; `counted` tells no more apart
SUM_UNIT: Final = 1_024.0
NEWS_UNIT: Final = 256.0
OWN_WEIGHT: Final = 1.0  # visits with news that the peers' rate weighs
SEVERAL_BITS: Final = 1.0  # the rarer of two: what this visit does, and this
PEERS: Final = np.array([0.061, 0.0023])  # of visits, by group: such news
PEERS_CLASSES: Final = np.array([0.56, 0.30, 0.23])  # of these, by class
PEERS_WEIGHT: Final = 20.0  # visits with news that these weigh
VISITS_KEPT: Final = 1_000_000.0
FIELDS: Final = [
    ("news_bits", "u2"),  # their sum until `news_h`, in 1/1024
    ("news", "u2"),  # visits with such until then, fading, in 1/256
    ("news_h", "u2"),  # hour of the last such visit; 0: none
    ("news_run_h", "u2"),  # hour at which the running run of visits began (`counted`)
    ("news_bin", "u1"),  # bin of its largest sum; 0: none
]
SHARED_FIELDS: Final = [
    ("asked", "f8", (GROUPS,)),  # visits of keys older than YOUNG_US
    ("brought", "f8", (GROUPS, CLASSES)),  # those with such news, by the gravest
    ("sum_visits", "f8", (GROUPS,)),
    ("sum_peaks", "f8", (GROUPS, BINS)),  # runs, by what the sum reached
]


@compiled
def class_of_harm(operation: int) -> int:
    """0 .. 2; -1 for what is not sensitive."""
    if operation == OPERATION_DELETE:
        return 0
    if operation == OPERATION_ADMIN:
        return 1
    return 2 if operation == OPERATION_CREDENTIAL else -1


@compiled
def hours_since(state: Any, visit: Any) -> float:
    """Hours from the last visit with news to this one; 0 where there is none."""
    return float((hour_of(visit) - int(state.news_h)) % 65_535) if int(state.news_h) > 0 else 0.0


@compiled
def news_so_far(state: Any, visit: Any) -> float:
    """Visits with such news that are remembered."""
    return int(state.news) / NEWS_UNIT * halved(hours_since(state, visit) / 24.0 / MEMORY_DAYS)


@compiled
def rate_of(state: Any, shared: Any, visit: Any, kind: int) -> float:
    """How often this key's visits bring sensitive news of this class."""
    group = visits_group(visit)
    peers, of_class = 0.0, shared.brought[group, kind]
    for k in range(CLASSES):
        peers += shared.brought[group, k]
    share = (of_class + PEERS_WEIGHT * PEERS_CLASSES[kind]) / (peers + PEERS_WEIGHT)
    peer = (peers + PEERS_WEIGHT) / (shared.asked[group] + PEERS_WEIGHT / PEERS[group])
    age_days = max(0, int(visit.start_us) - int(visit.first_seen_us)) / 86_400_000_000.0
    days = MEMORY_DAYS / LN2 * (1.0 - halved(age_days / MEMORY_DAYS))
    visits = visits_per_day(visit, int(visit.start_us)) * days
    return (news_so_far(state, visit) + OWN_WEIGHT) / (visits + OWN_WEIGHT / peer) * share


@compiled
def sum_with(state: Any, shared: Any, visit: Any, kind: int) -> float:
    """The sum with this visit, whose gravest news is of this class, in bits to 1/64; 0 of a young key."""
    if kind < 0 or int(visit.start_us) - int(visit.first_seen_us) < YOUNG_US:
        return 0.0
    bits = log2_of(ATTACKERS / min(ATTACKERS, rate_of(state, shared, visit, kind))) - LESS
    kept = int(state.news_bits) / SUM_UNIT * halved(hours_since(state, visit) / HALF_DAY_H)
    return quantise(min(SUM_MOST, kept + max(0.0, bits)))


@compiled
def sum_bits(state: Any, shared: Any, visit: Any, kind: int) -> float:
    """-log2 of the share of such keys' visits that come to this sum, to 1/64; 0 where nothing was before."""
    total = sum_with(state, shared, visit, kind) if int(state.news_bits) > 0 else 0.0
    if total <= 0.0:
        return 0.0
    group = visits_group(visit)
    share = log_share(FIRST_HARMS[group], shared.sum_peaks[group], shared.sum_visits[group], total)
    return quantise(max(0.0, -share - SEVERAL_BITS))


@compiled
def settle_sum(state: Any, shared: Any, visit: Any, kind: int) -> None:
    """A visit that is learned has ended; its gravest sensitive news are of this class, -1: none."""
    if int(visit.start_us) - int(visit.first_seen_us) < YOUNG_US:
        return
    total = sum_with(state, shared, visit, kind)
    if teaches(visit):
        count(state, shared, visit, kind, total)
    if kind < 0:
        return
    news = news_so_far(state, visit) + 1.0
    state.news_bits = int(SUM_UNIT * total)
    state.news = min(65_535, int(NEWS_UNIT * news + 0.5))
    state.news_h = hour_of(visit)


@compiled
def count(state: Any, shared: Any, visit: Any, kind: int, total: float) -> None:
    """Among peers: one visit more, whether it brought such news, and what its run has come to."""
    group = visits_group(visit)
    add_visit(shared.sum_visits, shared.sum_peaks, group)
    shared.asked[group] += 1.0
    if kind >= 0:
        shared.brought[group, kind] += 1.0
    if shared.asked[group] > VISITS_KEPT:
        shared.asked[group] *= 0.5
        for k in range(CLASSES):
            shared.brought[group, k] *= 0.5
    if total <= 0.0:
        return
    hour = hour_of(visit)
    if begins_run(int(state.news_run_h), hour):
        state.news_run_h = hour
        state.news_bin = 0
    state.news_bin = raise_run(shared.sum_peaks[group], total, int(state.news_bin))


@compiled
def forget_sum(state: Any) -> None:
    """What an incident has told is used up."""
    state.news_bits = 0
