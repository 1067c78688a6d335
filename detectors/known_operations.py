"""The operations that a key has done: two filters of bits, and the few that wait to get in. Fields: novel_operation's.

512 bits, two per operation: at 40 operations 2 % of new ones pass for known, which errs towards silence; what deletes,
administers or handles credentials has a filter of its own of 128 bits. A filter forgets nothing. So what a visit brings
waits until it is settled, and then is HELD, known already, until a later visit has been learned or the key was silent
for more than an hour: what the hour before an incident's visit brought is dropped with it. At most PENDING wait.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.compile import compiled

FILTER_BYTES: Final = 64
FILTER_BITS: Final = 8 * FILTER_BYTES
PENDING: Final = 4
HELD: Final = 16
"""Bits of `harms` from which on they say which of `waiting` an earlier visit brought: it was learned, and is known, but
may yet be taken back. Reads and writes give way to what is new, and are kept for good; the others don't, or a thief's
list of new routes would keep what he did before: what finds no room is not learned in this visit."""
HELD_US: Final = 3_600_000_000
SENSITIVE_BYTES: Final = 16
SENSITIVE_BITS: Final = 8 * SENSITIVE_BYTES
FULL: Final = 0.85  # share of bits set from which a filter says nothing: 7 of 10 new ones would pass for known


@compiled
def first_bit(route: int) -> int:
    """Where an operation lies in the filter."""
    return int((np.uint64(route) * np.uint64(0x9E3779B1) & np.uint64(0xFFFFFFFF)) >> np.uint64(23))


@compiled
def second_bit(route: int) -> int:
    """The other place."""
    mixed = np.uint64(route) ^ (np.uint64(route) >> np.uint64(15))
    return int((mixed * np.uint64(0x85EBCA6B) & np.uint64(0xFFFFFFFF)) >> np.uint64(23))


@compiled
def is_set(bits: Any, bit: int) -> bool:
    """One bit of a filter."""
    return (int(bits[bit >> 3]) >> (bit & 7)) & 1 == 1


@compiled
def put(bits: Any, bit: int) -> int:
    """Set one bit; returns how many that changed."""
    if is_set(bits, bit):
        return 0
    bits[bit >> 3] = int(bits[bit >> 3]) | (1 << (bit & 7))
    return 1


@compiled
def is_full(state: Any, sensitive: bool) -> bool:
    """Whether the filter of such operations has seen too many to say what is new."""
    if sensitive:
        return int(state.sensitive_set) > FULL * SENSITIVE_BITS
    return int(state.set_bits) > FULL * FILTER_BITS


@compiled
def is_held(state: Any, j: int) -> bool:
    """Whether a waiting operation is an earlier visit's."""
    return (int(state.harms) // HELD >> j) & 1 == 1


@compiled
def is_sensitive(state: Any, j: int) -> bool:
    """Whether a waiting operation deletes, administers or handles credentials."""
    return (int(state.harms) >> j) & 1 == 1


@compiled
def is_known(state: Any, route: int, sensitive: bool) -> bool:
    """Whether the filter of such operations has this one."""
    first, second = first_bit(route), second_bit(route)
    for j in range(PENDING):
        if is_held(state, j) and int(state.waiting[j]) == route:
            return True
    if sensitive:
        return is_set(state.sensitive, first % SENSITIVE_BITS) and is_set(state.sensitive, second % SENSITIVE_BITS)
    return is_set(state.known, first) and is_set(state.known, second)


@compiled
def keep(state: Any, route: int, sensitive: bool) -> None:
    """The operation is known from now on."""
    first, second = first_bit(route), second_bit(route)
    if sensitive:
        state.sensitive_set += put(state.sensitive, first % SENSITIVE_BITS)
        state.sensitive_set += put(state.sensitive, second % SENSITIVE_BITS)
    else:
        state.set_bits += put(state.known, first)
        state.set_bits += put(state.known, second)


@compiled
def free(state: Any, j: int) -> None:
    """Nothing waits in this place."""
    state.waiting[j] = 0
    state.harms = int(state.harms) & (255 - (1 << j) - (HELD << j))


@compiled
def keep_waiting(state: Any, j: int) -> None:
    """A waiting operation is known for good; its place is free."""
    keep(state, int(state.waiting[j]), is_sensitive(state, j))
    free(state, j)


@compiled
def keep_held(state: Any) -> None:
    """What earlier visits brought is known for good."""
    for j in range(PENDING):
        if is_held(state, j):
            keep_waiting(state, j)


@compiled
def has_room(state: Any) -> bool:
    """Whether another operation can wait."""
    for j in range(PENDING):  # noqa: SIM110
        if int(state.waiting[j]) == 0:
            return True
    return False


@compiled
def put_waiting(state: Any, route: int, sensitive: bool) -> None:
    """Let an operation of this visit wait, if there is room."""
    for j in range(PENDING):
        if int(state.waiting[j]) == route:
            return
    for j in range(PENDING):
        if is_held(state, j) and not is_sensitive(state, j) and not has_room(state):
            keep_waiting(state, j)
        if int(state.waiting[j]) == 0:
            state.waiting[j] = route
            state.harms = int(state.harms) | (int(sensitive) << j)
            return


@compiled
def settle_waiting(state: Any, learned: bool, tainted: bool, own: bool) -> None:
    """Under an incident all is dropped, what was held with it; else what was held is kept, what is new held.

    own: what is new is kept at once.
    """
    for j in range(PENDING):
        if int(state.waiting[j]) == 0:
            continue
        if tainted or not (learned or is_held(state, j)):
            free(state, j)
        elif own or is_held(state, j):
            keep_waiting(state, j)
        else:
            state.harms = int(state.harms) | (HELD << j)
