"""Errors that a key's earlier visits had on the same route: its habit. A filter of (route, class), for errors."""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled
from detectors.known_operations import is_set

USUAL_BITS: Final = 192
USUAL_MOST: Final = 112  # of them set: above, half of what is new would pass for usual, and it begins anew


@compiled
def mixed(route: int, kind: int) -> int:
    """(route, class) in 32 bits."""
    return (int(route) ^ ((kind + 2) * 0x9E3779B1)) & 0xFFFFFFFF


@compiled
def usual_bit(route: int, kind: int) -> int:
    """Where (route, class) lies among the usual errors."""
    return ((mixed(route, kind) * 0xC2B2AE35 & 0xFFFFFFFF) >> 12) % USUAL_BITS


@compiled
def is_usual(state: Any, route: int, kind: int) -> bool:
    """Whether an earlier visit had this error on this route: such a unit counts like a success."""
    return bool(is_set(state.usual, usual_bit(route, kind)))


@compiled
def keep_usual(state: Any, weight: float) -> None:
    """The visit's errors become usual ones, unless they are not to be learned."""
    for j in range(USUAL_BITS // 8):
        if weight > 0.0:
            state.usual[j] = int(state.usual[j]) | int(state.wrong_now[j])
        state.wrong_now[j] = 0
    if bits_set(state.usual) > USUAL_MOST:
        for j in range(USUAL_BITS // 8):
            state.usual[j] = 0


@compiled
def bits_set(bits: Any) -> int:
    """How many bits of a filter are set."""
    total = 0
    for j in range(len(bits)):
        for k in range(8):
            total += (int(bits[j]) >> k) & 1
    return total
