"""spike's rings: how many requests came in the 10 s, 60 s, 10 min and 1 h that end now, in six sub-bins each.

Fields are spike's: `ring` and `total` by window, the last event's time.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled

WINDOWS: Final = 4
HOUR: Final = 3
"""The longest window."""
SUB_BINS: Final = 6
LENGTH_S: Final = (10, 60, 600, 3600)
LENGTH_H: Final = (1.0 / 360.0, 1.0 / 60.0, 1.0 / 6.0, 1.0)
TICKS_H: Final = 2160
"""Time is counted in sub-bins of 10 s (5/3 s each), `ticks`: sub-bins of the longer windows hold 6, 60 and 360."""


@compiled
def sub_bin(w: int, tick: int) -> int:
    """Number of the window's sub-bin that a tick lies in."""
    if w < 2:
        return tick if w == 0 else tick // 6
    return tick // 60 if w == 2 else tick // 360


@compiled
def earlier(state: Any, w: int, last_tick: int, tick: int) -> int:
    """Requests in the six sub-bins that end with the one of `tick`, at or after the newest event's."""
    total = int(state.total[w])
    newest = sub_bin(w, last_tick)
    here = sub_bin(w, tick)
    if here - newest >= SUB_BINS:
        return 0
    for i in range(newest + 1, here + 1):
        total -= int(state.ring[w, i % SUB_BINS])
    return total


@compiled
def turn(state: Any, w: int, newest: int, here: int) -> None:
    """The ring goes on from its newest sub-bin to `here`; what falls out is gone."""
    if here - newest >= SUB_BINS:
        for i in range(SUB_BINS):
            state.ring[w, i] = 0
        state.total[w] = 0
        return
    for i in range(newest + 1, here + 1):
        state.total[w] = int(state.total[w]) - int(state.ring[w, i % SUB_BINS])
        state.ring[w, i % SUB_BINS] = 0


@compiled
def crowd_now(state: Any, w: int, t_us: int, least: float) -> int:
    """Requests of the short window that ends now, the present one included: as its visits' peaks are counted.

    0 where they are surely fewer than `least`: time only takes requests out of a window.
    """
    if 1 + int(state.total[w]) < least:
        return 0
    last_us = int(state.last_us)
    if last_us == 0:
        return 1
    return 1 + earlier(state, w, last_us * SUB_BINS // 10_000_000, t_us * SUB_BINS // 10_000_000)


@compiled
def count(state: Any, last_tick: int, tick: int, hour: int) -> None:
    """The event into its sub-bins, where the ring still has them, and into its hour."""
    for w in range(WINDOWS):
        here = sub_bin(w, tick)
        if here > sub_bin(w, last_tick) - SUB_BINS:
            state.ring[w, here % SUB_BINS] = int(state.ring[w, here % SUB_BINS]) + 1
            state.total[w] = int(state.total[w]) + 1
    second = 1 if int(state.under_way) == 0 or hour > int(state.hour) else 0
    state.pending[second] = int(state.pending[second]) + 1
