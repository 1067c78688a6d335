"""What a visit's only error is worth: how many visits of such keys end with one error and no more (errors').

A key's own law is sure too soon: after twenty routes without one it takes a first 404 for once in 1,500 visits. New
routes come by the day, not by the visit, so that of keys of few visits far more of them bring one, and now and then it
isn't there (keybench, development half, untouched: in one visit of 110 of keys of few, in one of 3,000 of others).
Counted are visits by class of error, keys of few visits among themselves, and errors whose caller held the key: who
knows key ids alone would else make single refusals usual for all, or two errors of an owner's one. Two errors are
another matter: who looks for what is there meets them in a row. An attacker who has keys of his own can make single
errors usual, and so hides one, which is worth 6 bits at most. Fields are errors'.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled
from detectors.counted import VISITS_KEPT
from detectors.fusion import visits_group
from detectors.surprise import log2_of

CLASSES: Final = 4
GROUPS: Final = 2
RETRY_BITS: Final = 10.6  # one route, retried or not, never says more
LONE_BITS: Final = 10.0
"""As a finding, a visit's only error is told with this at most: an automatic act takes more of each of two families.

It was told with up to 10.6, so a new network beside it and it were two strong families: a move and a missing page
(keybench, development half, 3 seeds: 11 incidents of 14,400 innocent placements had such an error over 10 bits). Visits
of busy keys end with one in 3,000 times, a new network beside it or not; two wrong routes count as before.
"""
PRIOR_VISITS: Final = 1_000.0
PRIOR_SHARE: Final = 2.0**-RETRY_BITS
NO_LIMIT: Final = 1e9
LONE_FIELDS: Final = [("visits", "f8", (GROUPS,)), ("lone", "f8", (GROUPS, CLASSES))]
"""Of errors' SHARED: visits, and those with a single error, by its class."""


@compiled
def alone(wrong: int, bits: float) -> float:
    """One route, however often: as much as its retries can give, though peers that are never refused promise more."""
    return min(RETRY_BITS, bits) if wrong <= 1 else bits


@compiled
def only_class(wrong: Any, more: int) -> int:
    """The class of a visit's only error, where `more` is that of one to come (-1: none); -1 for none or several."""
    total, found = 0, -1
    for k in range(CLASSES):
        count = int(wrong[k]) + (1 if k == more else 0)
        total += count
        if count > 0:
            found = k
    return found if total == 1 else -1


@compiled
def lone_bits(state: Any, shared: Any, visit: Any, more: int) -> float:
    """-log2 of the share of such visits, where this one has a single error as yet; no limit otherwise."""
    only = only_class(state.held_wrong, more)
    if only < 0:
        return NO_LIMIT
    group = visits_group(visit)
    share = (shared.lone[group, only] + PRIOR_VISITS * PRIOR_SHARE) / (shared.visits[group] + PRIOR_VISITS)
    return -log2_of(share)


@compiled
def count_lone(state: Any, shared: Any, visit: Any) -> None:
    """The visit ended."""
    group, only = visits_group(visit), only_class(state.held_wrong, -1)
    shared.visits[group] += 1.0
    if only >= 0:
        shared.lone[group, only] += 1.0
    if shared.visits[group] > VISITS_KEPT:
        shared.visits[group] *= 0.5
        for k in range(CLASSES):
            shared.lone[group, k] *= 0.5
