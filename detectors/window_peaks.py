"""How rare the bits of a window are: runs of visits counted over the partition's keys, by window and kind of key.

For spike. A window's bits come from the mixture of one key (`count_laws`), whose far tail is too thin: 20 bits came in
7 % of the visits of keys that are used twice a week, and 35 bits in the hour's window of busy ones as often as 26 in
the minute's (keybench, development half). So each window is judged by what visits of such keys reach in it.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled
from detectors.count_laws import HEAVY, leading_law
from detectors.counted import BINS, add_visit, begins_run, hour_of, log_share, raise_run
from detectors.crowds import CROWDS, crowd_bits, crowd_spread
from detectors.fusion import visits_group
from detectors.repetition import begin_run
from detectors.shipped_counts import PEAKS
from detectors.surprise import log2_of
from detectors.teaching import teaches

WINDOWS: Final = 4
KINDS: Final = 4
SPARSE: Final = 0  # fewer than three visits a day
STEADY: Final = 1  # by the window's leading law: up to 30 % off its level and rhythm
UNEVEN: Final = 2
BURSTY: Final = 3
STEADY_SPREAD: Final = 0.35  # of ln(requests of a visit's fullest span)
UNEVEN_SPREAD: Final = 0.7
COUNTED_BITS: Final = 1.0
"""What the counted share of a crowd loses on its way into the fusion. It was counted over visits, so what it costs is
known, and the budget sets its worth: with the 4.4 bits that are due against any alternative at all
(`surprise.evidence_of`), what comes once in 36 years of a key's use was no incident. Egress keeps them: with one bit it
took 150 of the 100 incidents per 100,000 key-days (keybench, development half).
"""
CROWD_MANY: Final = 28.0
"""Requests of a moment that are worth what was counted; SIZE_BITS less for each time that they are half as many. Of
1,236 untouched visits with 14 or more in a minute, and four times the usual, a quarter came beyond 25 and 3 in 100
beyond 33, those of keys of few calls never beyond 20; half of bulk reads do beyond 31, of leaks abroad beyond 36
(keybench, development half, seed 31).
"""
SIZE_BITS: Final = 3.0
SEVERAL_BITS: Final = 1.0
"""The largest of four windows, which mostly ring together."""

PEAKS_FIELDS: Final = [("visits", "f8", (WINDOWS, KINDS)), ("peaks", "f8", (WINDOWS, KINDS, BINS))]
"""Of spike's SHARED: visits, and runs of them with bits in a window, by their largest."""


@compiled
def kind_of(state: Any, visit: Any, w: int) -> int:
    """The kind of key, in this window."""
    if visits_group(visit) == 0:
        return SPARSE
    if w < CROWDS:
        off = crowd_spread(state, w)
        return STEADY if off < STEADY_SPREAD else (UNEVEN if off < UNEVEN_SPREAD else BURSTY)
    law = leading_law(state, w - CROWDS)
    if law <= 1:
        return STEADY
    return BURSTY if law in (3, HEAVY) else UNEVEN


@compiled
def counted_bits(state: Any, shared: Any, visit: Any, w: int, bits: float) -> float:
    """-log2 of the share of visits of such keys that reach these bits in this window."""
    kind = kind_of(state, visit, w)
    return -log_share(PEAKS[w, kind], shared.peaks[w, kind], shared.visits[w, kind], bits) - SEVERAL_BITS


@compiled
def crowd_evidence(bits: float, n: float) -> float:
    """What counted bits of n requests of a moment are worth."""
    return bits - COUNTED_BITS - SIZE_BITS * log2_of(max(1.0, CROWD_MANY / n))


@compiled
def note_peak(state: Any, m: int, bits: float) -> None:
    """Remember the visit's largest bits in a window with a mixture: whole ones, rounded down, plus one."""
    if bits > 0.0:
        state.peak[m] = max(int(state.peak[m]), min(255, int(bits) + 1))


@compiled
def peak_of(state: Any, shared: Any, visit: Any, w: int, least: float) -> float:
    """The visit's largest bits in the window, -1 for none."""
    if w >= CROWDS:
        return float(int(state.peak[w - CROWDS]) - 1)
    n = float(int(state.most[w]))
    bits = crowd_bits(state, shared, visit, w, n) if n >= least else 0.0
    return bits if bits > 0.0 else -1.0


@compiled
def turn_run(state: Any, visit: Any) -> None:
    """Forget the run that ended before this visit."""
    hour = hour_of(visit)
    if begins_run(int(state.run_h), hour):
        state.run_h = hour
        for w in range(WINDOWS):
            state.run_bin[w] = 0
        begin_run(state)


@compiled
def count_visit(state: Any, shared: Any, visit: Any, weight: float, least: float) -> None:
    """The visit ended: count what it reached, unless it is not to be learned. least: requests for a crowd."""
    if weight > 0.0:
        turn_run(state, visit)
    for w in range(WINDOWS):
        if weight > 0.0 and teaches(visit):
            kind = kind_of(state, visit, w)
            add_visit(shared.visits[w], shared.peaks[w], kind)
            reached = peak_of(state, shared, visit, w, least)
            if reached >= 0.0:
                state.run_bin[w] = raise_run(shared.peaks[w, kind], reached, int(state.run_bin[w]))
        if w >= CROWDS:
            state.peak[w - CROWDS] = 0
