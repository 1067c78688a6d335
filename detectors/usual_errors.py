"""Errors that a key's earlier visits had on the same route: its habit. A filter of (route, class), for errors."""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled

USUAL_BITS: Final = 192
USUAL_MOST: Final = 112  # of them set: above, half of what is new would pass for usual, and it begins anew


@compiled
def usual_bit(route: int, kind: int) -> int:
    """Where (route, class) lies among the usual errors."""
    mixed = (int(route) ^ ((kind + 2) * 0x9E3779B1)) & 0xFFFFFFFF
    return ((mixed * 0xC2B2AE35 & 0xFFFFFFFF) >> 12) % USUAL_BITS


@compiled
def is_usual(state: Any, route: int, kind: int) -> bool:
    """Whether an earlier visit had this error on this route: such a unit counts like a success."""
    bit = usual_bit(route, kind)
    return (int(state.usual[bit >> 3]) >> (bit & 7)) & 1 == 1


@compiled
def keep_usual(state: Any, weight: float) -> None:
    """The visit's errors become usual ones, unless they are not to be learned."""
    if int(state.usual_set) > USUAL_MOST:
        state.usual_set = 0
        for j in range(USUAL_BITS // 8):
            state.usual[j] = 0
    for j in range(USUAL_BITS // 8):
        fresh = int(state.wrong_now[j]) & (255 - int(state.usual[j]))
        if weight > 0.0 and fresh != 0:
            state.usual[j] = int(state.usual[j]) | fresh
            for k in range(8):
                state.usual_set += (fresh >> k) & 1
        state.wrong_now[j] = 0
