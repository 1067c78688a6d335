"""How often chance alone brings so many bits: counted, with what ships as the first guess.

Bits from a model are wrong in the far tail by factors up to 70,000 (spike's 20 bits on keys of few visits), so what
judges them is a count: in how many visits a key first came to that many or more. Counted are *runs*: what a key's
visits reach within a week counts once, at its largest, since a key that has changed rings for days (109 visits of some
five keys had 16 bits of egress and more, and hid what comes to others once in years). At each edge of a bin the share
that ships weighs as much as `SHRINK` own exceedances, and the result stays within a factor of `RAIL` of it, so that
neither noise nor an attacker's patience can switch an alarm off. Between edges it is read along a straight line in
bits; above the last edge nothing more is claimed than at it.
"""

from __future__ import annotations

import math
from typing import Any, Final

from detectors.compile import compiled

BIN_BITS: Final = 2.0
BINS: Final = 33
"""Of a row of counts. 0: below 0 bits; j: from 2 (j - 1) to 2 j bits; the last is open."""
TOP_BITS: Final = BIN_BITS * (BINS - 2)
NODE_BITS: Final = 4.0
NODES: Final = 17
"""Of a row of what ships: log2 of the share at 0, 4, .. 64 bits."""
SHRINK: Final = 10.0  # exceedances: within a factor of two in nine of ten cases (reference/evidence.md, section 6)
RAIL: Final = 10.0
VISITS_KEPT: Final = 1_000_000.0  # beyond it all counts of a row are halved: old visits fade
HOUR_US: Final = 3_600_000_000
RUN_H: Final = 168
"""Hours of a run: a week, as fusion tells the same once."""
LN2: Final = 0.6931471805599453


@compiled
def hour_of(visit: Any) -> int:
    """The visit's hour since the epoch, modulo 65,535, from 1 on: 0 is none."""
    return int(visit.start_us) // HOUR_US % 65_535 + 1


@compiled
def begins_run(begun: int, hour: int) -> bool:
    """Whether a visit of this hour belongs to no run that began at hour `begun`."""
    return begun == 0 or (hour - begun) % 65_535 >= RUN_H


@compiled
def raise_peak(counts: Any, here: int, before: int) -> int:
    """A run has come to bin `here`; `before`: its largest so far, -1: none. Returns its largest from now on."""
    if here <= before:
        return before
    if before >= 0:
        counts[before] = max(0.0, counts[before] - 1.0)
    counts[here] += 1.0
    return here


@compiled
def raise_run(counts: Any, bits: float, before: int) -> int:
    """The run has come to these bits. `before`: its largest bin as it is kept, 0 for none; returns that from now on."""
    return raise_peak(counts, bin_of(bits), before if before > 0 else -1)


@compiled
def bin_of(bits: float) -> int:
    """Where a score is counted."""
    return 0 if bits < 0.0 else min(BINS - 1, int(bits / BIN_BITS) + 1)


@compiled
def shipped(nodes: Any, bits: float) -> float:
    """log2 of the shipped share with these bits or more."""
    place = min(max(0.0, bits), TOP_BITS) / NODE_BITS
    low = int(place)
    return nodes[low] + (nodes[low + 1] - nodes[low]) * (place - low)


@compiled
def at_edge(nodes: Any, edge: int, above: float, visits: float) -> float:
    """log2 of the share at the edge of a bin, of which `above` were counted in `visits`."""
    prior = shipped(nodes, edge * BIN_BITS)
    share = (SHRINK + above) / (SHRINK * math.exp(-LN2 * prior) + visits)
    rail = math.log(RAIL) / LN2
    return max(prior - rail, min(prior + rail, math.log(share) / LN2))


@compiled
def log_share(nodes: Any, counts: Any, visits: float, bits: float) -> float:
    """log2 of the share of visits with these bits or more, at most 0."""
    place = min(max(0.0, bits), TOP_BITS) / BIN_BITS
    low = int(place)
    beyond = 0.0
    for j in range(low + 2, BINS):
        beyond += counts[j]
    here = at_edge(nodes, low, beyond + counts[low + 1], visits)
    if place > low:
        here += (at_edge(nodes, low + 1, beyond, visits) - here) * (place - low)
    return min(0.0, here)


@compiled
def add_visit(visits: Any, counts: Any, kind: int) -> None:
    """One visit more of this kind."""
    visits[kind] += 1.0
    if visits[kind] > VISITS_KEPT:
        visits[kind] *= 0.5
        fade(counts[kind])


@compiled
def fade(counts: Any) -> None:
    """Half of a row: what is old counts less."""
    for j in range(BINS):
        counts[j] *= 0.5
