"""A key's errors as distinct (route, class) of a visit, and how surprising so many of them are (errors').

Fields are errors'. Source: reference/evidence.md, section 3: prior 2 units at the peers' rate, a + b <= 20, mid-p.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.detector import ERROR_5XX, ERROR_401, ERROR_403, ERROR_404, ERROR_429, SEES_DENIED, SEES_STATUS
from detectors.known_operations import is_set
from detectors.lone_errors import CLASSES
from detectors.surprise import beta_binomial_tail, log2_of
from detectors.usual_errors import mixed

DENIED: Final = 0
MISSING: Final = 1
THROTTLED: Final = 2
FAILED: Final = 3
PROBED: Final = 4  # refused and missing together: who looks for what is there meets both
PRIOR_UNITS: Final = 2.0
UNITS_MAX: Final = 18.0  # of the key's own decayed units, so that a + b <= 20
TRIALS_MAX: Final = 64  # units of one visit in the tail; above, shares are kept
PEER_RATE: Final = 0.01  # shipped, with the weight of PEER_UNITS
PEER_UNITS: Final = 200.0
PEER_UNITS_KEPT: Final = 100_000.0
SETS_BITS: Final = 256
STRANGE_BITS: Final = 64
"""Of these, for callers who did not hold the key: they may fill them, and hide nothing of who does."""


@compiled
def class_of(error: int) -> int:
    """Index of the class, -1 for no error or one that is not watched."""
    if error in (ERROR_401, ERROR_403):
        return DENIED
    if error == ERROR_404:
        return MISSING
    if error == ERROR_429:
        return THROTTLED
    return FAILED if error == ERROR_5XX else -1


@compiled
def is_seen(sees: int, kind: int) -> bool:
    """Whether the format can show this class."""
    if kind in (DENIED, THROTTLED):
        return sees & SEES_DENIED != 0
    return sees & SEES_STATUS != 0


@compiled
def bit_of(route: int, kind: int, held: bool) -> int:
    """Where (route, class) lies in the visit's set; held: the caller held the key."""
    place = (mixed(route, kind) * 0x85EBCA6B & 0xFFFFFFFF) >> 16
    return STRANGE_BITS + place % (SETS_BITS - STRANGE_BITS) if held else place % STRANGE_BITS


@compiled
def is_new_unit(state: Any, route: int, kind: int, held: bool) -> bool:
    """Whether this visit has not had this (route, class), by callers who held the key, or by the others."""
    return not is_set(state.seen, bit_of(route, kind, held))


@compiled
def peer_rate(shared: Any, kind: int) -> float:
    """Errors of this class per unit over all keys of the partition, from the shipped rate on."""
    return (shared.wrong[kind] + PEER_RATE * PEER_UNITS) / (shared.units + PEER_UNITS)


@compiled
def total_of(wrong: Any, kind: int) -> float:
    """Of counts by class: one class's, or those of what a probe meets."""
    return np.float64(wrong[DENIED]) + np.float64(wrong[MISSING]) if kind == PROBED else np.float64(wrong[kind])


@compiled
def beliefs(state: Any, shared: Any, kind: int) -> tuple[float, float]:
    """(a, b) of the Beta law of this key's share of units that are errors of this class."""
    scale = min(1.0, UNITS_MAX / max(UNITS_MAX, float(state.units)))
    probed = kind == PROBED
    peers = min(0.5, peer_rate(shared, DENIED) + peer_rate(shared, MISSING) if probed else peer_rate(shared, kind))
    wrong = total_of(state.wrong, kind) * scale
    units = float(state.units) * scale
    return PRIOR_UNITS * peers + wrong, PRIOR_UNITS * (1.0 - peers) + max(0.0, units - wrong)


@compiled
def tail_bits(wrong: int, units: int, a: float, b: float) -> float:
    """-log2 of the mid-p of `wrong` or more of `units`; above TRIALS_MAX units the share is kept."""
    if units > TRIALS_MAX:
        wrong = (wrong * TRIALS_MAX + units - 1) // units
        units = TRIALS_MAX
    at_least = beta_binomial_tail(wrong, units, a, b)
    more = beta_binomial_tail(wrong + 1, units, a, b) if wrong < units else 0.0
    return -log2_of(max(1e-30, 0.5 * (at_least + more)))


@compiled
def tell_peers(state: Any, shared: Any, units: float, scale: float) -> None:
    """The visit's units into the peers' rate."""
    shared.units += units
    for k in range(CLASSES):
        shared.wrong[k] += int(state.visit_wrong[k]) * scale
    if shared.units > PEER_UNITS_KEPT:
        shared.units *= 0.5
        for k in range(CLASSES):
            shared.wrong[k] *= 0.5
