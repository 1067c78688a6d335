"""What a count of 10 min or 1 h says (spike's): bits by the key's mixture of laws, and what is kept of them.

Fields are spike's; arrays of mixtures have one row per window from the third on.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled
from detectors.count_laws import local_factor, mixture_bits
from detectors.crowds import CROWDS
from detectors.request_level import HOUR_US, level_of, peer_rate, peer_reach, profile_factor, youth
from detectors.rings import LENGTH_H, SUB_BINS, WINDOWS, earlier
from detectors.surprise import quantise

PENALTY: Final = (0.0, 0.0, 4.584962500721156, 2.0)
"""log2(4 windows x windows of this length in an hour); what a visit brings at most needs none."""


@compiled
def window_bits(state: Any, w: int, n: int, rate: float, reach: float, factor: float) -> float:
    """Bits of n earlier requests in window w, lowered to one visit's and rounded; not above 0: nothing odd."""
    window_h = LENGTH_H[w]
    bits = mixture_bits(state, w - CROWDS, n, rate * window_h, float(state.seen) + 0.5, reach * window_h, factor)
    return quantise(bits - PENALTY[w])


@compiled
def holds(state: Any, t_us: int) -> bool:
    """Whether `rate`, and what is known of the windows, are of this moment's hour."""
    return int(state.rate_known) == 1 and t_us // HOUR_US == int(state.last_us) // HOUR_US


@compiled
def bits_now(state: Any, shared: Any, config: Any, w: int, t_us: int, least: float) -> tuple[float, int, float, float]:
    """(bits, requests before this moment, rate, reach) of a window; no bits where there is nothing odd."""
    known = holds(state, t_us)
    m = w - CROWDS
    rate, reach, n = float(state.rate), float(state.reach), int(state.total[w])
    if n < least or (known and int(state.since[m]) == 0 and n <= int(state.until[m])):
        return 0.0, n, rate, reach  # time only takes requests out of a window
    n = earlier(state, w, int(state.last_us) * SUB_BINS // 10_000_000, t_us * SUB_BINS // 10_000_000)
    if n < least:
        return 0.0, n, rate, reach
    if known and int(state.since[m]) <= n <= int(state.until[m]):
        return float(state.bits[m]), n, rate, reach
    if not known:
        peer = peer_rate(shared, config)
        rate = level_of(state, peer, float(config.anchor_cap)) * profile_factor(state, t_us // HOUR_US)
        reach = youth(state) * peer_reach(shared, config, peer)
    return window_bits(state, w, n, rate, reach, local_factor(state, m)), n, rate, reach


@compiled
def look_ahead(state: Any, least: float) -> None:
    """Where a window's count has left what is known: the largest count of 0 bits, or the bits of this count +- 3 %.

    Bits are those of the least count, so that they are never too many. Where it has none, zero is looked for beyond, at
    a local level a tenth lower, so that it lasts.
    """
    for w in range(CROWDS, WINDOWS):
        n = int(state.total[w])
        m = w - CROWDS
        if n < least or int(state.since[m]) <= n <= int(state.until[m]):
            continue
        rate = float(state.rate)
        reach = float(state.reach)
        factor = local_factor(state, m)
        bits = max(0.0, window_bits(state, w, n - n // 32, rate, reach, factor))
        beyond = n + n // 4 + 4
        zero = bits <= 0.0 and window_bits(state, w, beyond, rate, reach, 0.9 * factor) <= 0.0
        state.since[m] = 0 if zero else n - n // 32
        state.until[m] = beyond if zero else n + n // 32
        state.bits[m] = bits
        state.known_factor[m] = 0.9 * factor
