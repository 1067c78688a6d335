"""Refused and missing routes within seconds of each other: how rare such visits are, by how long a key is known.

A key's own law is as unsure as twenty units make it, and least sure of a key that lately had one such error. But such
visits are rare, and come at 1/n of a key's nth visit: of 1,600 busy keys' visits (keybench, development half)
1 in 4,600 from the 10th to the 50th has two routes within five seconds that were wrong for the first time, 1 in 13,000
to the 100th, 1 in 36,000 to the 300th, 1 in 190,000 beyond; one visit had three. A scan has them a second apart. So
such visits are counted against the sum of 1/n, by how many come together, keys of few visits among themselves; what the
count bears out is evidence even where the own law says less. A key that was wrong lately has some three times as many:
half of those beyond the 100th visit. Each counts for the less, the more of them are expected of its key, so that what
one key does again and again makes it usual for none but that key. Only errors whose caller held the key count. There is
no rail: where all keys' programs ask in parallel, a release that takes routes away is no scan. Who has many keys of a
week and more takes this evidence away, and leaves the own law's. Fields are errors'.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.fusion import visits_group
from detectors.surprise import halved, log2_of

LEVELS: Final = 4  # none, two, three, four and more
STEP: Final = 16  # what a wrong route adds
SUMS: Final = 64  # `close` is level * SUMS + the fading sum
FADING_US: Final = 5_000_000.0  # in which half of the sum is gone; what is left is rounded down at each request
LEAST: Final = np.array([0, 24, 34, 44])
"""From which sum the level is reached: two within five seconds; three three seconds apart, four a second and a half."""
SCANS: Final = np.array([1.0, 0.8, 0.7, 0.6])  # of visits that scan, those with so many [judged]
PRIOR_DUE: Final = 20.0
PRIOR: Final = np.array([[1.0, 0.004, 0.0005, 0.00025], [1.0, 0.01, 0.001, 0.0005]])
"""How many visits reach a level for each that is due by 1/n, until they are counted, keys of few visits first: twice as
many as measured, since programs of keys elsewhere may ask in parallel [judged]."""
DUE_KEPT: Final = 10_000.0
HABIT: Final = 5.0  # how many times as often, for each error that the key's last 30 visits had
MOST_BITS: Final = 18.0
LONG: Final = 16.0  # requests; a third of those innocent visits have over twice as many
YOUNG: Final = 5  # visits, before which nothing is rare for a key
CLOSE_FIELDS: Final = [("close_visits", "f8", (2, LEVELS))]
"""Of errors' SHARED: visits that were due, and those that came to a level; keys of few visits first."""


@compiled
def sum_with(state: Any, visit: Any, event: Any, wrong: bool) -> int:
    """The fading sum of wrong routes with this request; what came out of order has faded by the newest one's time."""
    kept, after_us = int(state.close) % SUMS, int(event.ts_us) - int(visit.last_us)
    if kept > 0 and after_us > 0:
        kept = int(kept * halved(after_us / FADING_US))
    return min(SUMS - 1, kept + int(STEP * halved(max(0, -after_us) / FADING_US))) if wrong else kept


@compiled
def level_with(state: Any, total: int) -> int:
    """The highest level of this visit, where the sum is `total` now."""
    level = int(state.close) // SUMS
    for j in range(1, LEVELS):
        level = max(level, j) if total >= LEAST[j] else level
    return level


@compiled
def due(visit: Any) -> float:
    """What the key's nth visit adds to what is due, more where it is a long one."""
    return max(1.0, (int(visit.events) + 1.0) / LONG) / (int(visit.ordinal) + 1.0)


@compiled
def close_bits(shared: Any, visit: Any, level: int, lately: float) -> float:
    """log2 of the likelihood ratio of a visit of this level; lately: wrong routes of the key's last visits, decayed."""
    if level < 1 or int(visit.ordinal) < YOUNG:
        return 0.0
    group = visits_group(visit)
    counts = shared.close_visits[group]
    share = due(visit) * (counts[level] + PRIOR_DUE * PRIOR[group, level]) / (counts[0] + PRIOR_DUE)
    return min(MOST_BITS, max(0.0, log2_of(SCANS[level] / (share * (1.0 + HABIT * lately)))))


@compiled
def note_close(state: Any, visit: Any, event: Any, wrong: bool) -> None:
    """Take the request into the visit."""
    if wrong or int(state.close) % SUMS > 0:
        total = sum_with(state, visit, event, wrong)
        state.close = level_with(state, total) * SUMS + total


@compiled
def count_close(state: Any, shared: Any, visit: Any, lately: float) -> None:
    """The visit ended; `lately` as for `close_bits`, without this visit's."""
    if int(visit.ordinal) < YOUNG:
        return
    counts = shared.close_visits[visits_group(visit)]
    counts[0] += due(visit)
    for j in range(1, 1 + int(state.close) // SUMS):
        counts[j] += 1.0 / (1.0 + HABIT * lately)
    if counts[0] > DUE_KEPT:
        for j in range(LEVELS):
            counts[j] *= 0.5
