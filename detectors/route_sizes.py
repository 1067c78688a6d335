"""How large are the answers of a route? The partition's own table, for egress: mean and variance of ln(bytes).

A route is known when several keys in turn have taught it: the same key teaches once until another one has, so that
nobody trains the law that he is judged by. And what is usual at most grows twofold in 28 days (`growth`), unless many
keys say so: each step of root 2 beyond that needs larger answers to MANY of them, or to one that was adopted. Who has
fewer of the keys that use a route can't move it faster. 512 slots, four places for a route; what finds none wears down
the least known of the four, so popular routes stay.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.growth import GROWN, PERIOD_US, ceiling, held, reach, rebased, stored

SLOTS: Final = 512
PLACES: Final = 4
KNOWN: Final = 8.0  # lessons until a route's law is used
MEMORY: Final = 200.0  # lessons: a route that has changed is relearned in a day or two
LEAST_VARIANCE: Final = 0.0225  # 15 %: a static file is no more exact than that
FIRST_VARIANCE: Final = 1.0
WORN: Final = 0.25
MANY: Final = 8  # keys
NO_FLOOR: Final = -8.0
FAR: Final = 4.0
"""Standard deviations: the most that one response is worth,"""
HUGE: Final = 2.77
"""but for one that is over sixteen times as large (this is its logarithm) as usual: one more for each nat beyond,"""
FARTHEST: Final = 8.0
"""and no more than so many."""

TABLE: Final = np.dtype(
    [
        ("route", "u4", (SLOTS,)),  # 0: free
        ("teacher", "i4", (SLOTS,)),  # slot + 1 of the key that taught last
        ("seen", "f4", (SLOTS,)),
        ("mean", "f4", (SLOTS,)),
        ("variance", "f4", (SLOTS,)),
        ("higher", "u4", (SLOTS,)),  # keys that would lift it beyond what it may grow by, one bit each (slot modulo 32)
        ("base", "u2", (SLOTS,)),  # `growth`'s, as `period`: 28 days since the epoch, modulo 255, + 1
        ("period", "u1", (SLOTS,)),
    ]
)


@compiled
def first_place(route: int) -> int:
    """Where the route's places begin."""
    return ((int(route) * 0x9E3779B1 & 0xFFFFFFFF) >> 20) % SLOTS


@compiled
def find(table: Any, route: int) -> int:
    """Slot of the route, -1 for none."""
    first = first_place(route)
    for i in range(PLACES):
        slot = (first + i) % SLOTS
        if int(table.route[slot]) == int(route):
            return slot
    return -1


@compiled
def bounded(nats: float, spread: float) -> float:
    """Standard deviations that a response counts for, which is `nats` larger (in logarithms) than usual."""
    most = min(FARTHEST, FAR + max(0.0, nats - HUGE))
    return max(-FAR, min(most, nats / spread))


@compiled
def off_by(table: Any, route: int, log_bytes: float) -> tuple[bool, float]:
    """Whether the route is known, and how many standard deviations this answer is above its usual size."""
    slot = find(table, route) if route != 0 else -1
    if slot < 0 or float(table.seen[slot]) < KNOWN:
        return False, 0.0
    seen = np.float64(table.seen[slot])
    spread = math.sqrt(max(LEAST_VARIANCE, np.float64(table.variance[slot])) * (1.0 + 1.0 / seen))
    return True, bounded(log_bytes - np.float64(table.mean[slot]), spread)


@compiled
def place_for(table: Any, route: int) -> int:
    """The route's slot, a free one for it, or -1 where the least known of its places has been worn down instead."""
    first = first_place(route)
    least = first
    for i in range(PLACES):
        slot = (first + i) % SLOTS
        if int(table.route[slot]) == int(route):
            return slot
        if float(table.seen[slot]) < float(table.seen[least]):
            least = slot
    if int(table.route[least]) != 0 and float(table.seen[least]) > 0.0:
        table.seen[least] = (np.float64(table.seen[least])) - WORN
        return -1
    table.route[least] = route
    table.teacher[least] = 0
    table.seen[least] = 0.0
    table.higher[least] = 0
    table.base[least] = 0
    return least


@compiled
def teach(table: Any, route: int, key_slot: int, log_bytes: float, ts_us: int, anew: bool) -> None:
    """One answer of this route, unless the same key was the last to teach it. anew: of a key that was adopted."""
    slot = place_for(table, route) if route != 0 else -1
    if slot < 0 or int(table.teacher[slot]) == int(key_slot) + 1:
        return
    table.teacher[slot] = int(key_slot) + 1
    seen = np.float64(table.seen[slot])
    if seen <= 0.0:
        table.mean[slot] = log_bytes
        table.variance[slot] = FIRST_VARIANCE
        table.seen[slot] = 1.0
        return
    mean = np.float64(table.mean[slot])
    variance = np.float64(table.variance[slot])
    gain = 1.0 / (min(seen, MEMORY) + 1.0)
    off = log_bytes - mean
    after, width = mean + gain * off, variance + gain * (off * off * (1.0 - gain) - variance)
    most = most_reach(table, slot, key_slot, ts_us, anew, reach(mean, variance, LEAST_VARIANCE),
                      reach(after, width, LEAST_VARIANCE))  # fmt: skip
    table.mean[slot], table.variance[slot] = held(mean, variance, after, width, LEAST_VARIANCE, most)
    table.seen[slot] = min(seen + 1.0, MEMORY)


@compiled
def most_reach(table: Any, slot: int, key_slot: int, ts_us: int, anew: bool, before: float, after: float) -> float:
    """The largest reach that this key's answer may lead to; counts the keys that would go beyond."""
    period = ts_us // PERIOD_US % 255 + 1
    same = int(table.period[slot]) == period
    free = float(table.seen[slot]) < GROWN or int(table.base[slot]) == 0
    base = rebased(int(table.base[slot]), same, free, False, before, after)
    higher = int(table.higher[slot]) if same else 0
    if after > ceiling(base, free, before, after, NO_FLOOR):
        higher |= 1 << (int(key_slot) % 32)
        if anew or bits_set(higher) >= MANY:
            base, free, higher = max(base, stored(after)), True, 0
    table.higher[slot] = higher
    table.base[slot] = base
    table.period[slot] = period
    return ceiling(base, free, before, after, NO_FLOOR)


@compiled
def bits_set(word: int) -> int:
    """How many."""
    count = 0
    while word != 0:
        word &= word - 1
        count += 1
    return count
