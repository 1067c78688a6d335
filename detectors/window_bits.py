"""What a count of 10 min or 1 h says (spike's): bits by the key's mixture of laws, and what is kept of them.

Fields are spike's; arrays of mixtures have one row per window from the third on.
"""

from __future__ import annotations

import math
from typing import Any, Final

from detectors.compile import compiled
from detectors.count_laws import law_weights, local_factor, mixture_bits, teach
from detectors.crowds import CROWDS
from detectors.request_level import HOUR_US, level_of, peer_rate, profile_factor, young_reach
from detectors.rings import HOUR, LENGTH_H, LENGTH_S, SUB_BINS, WINDOWS, earlier
from detectors.surprise import quantise

TESTS: Final = (1.0, 1.0, 24.0, 4.0)
"""4 windows x windows of this length in an hour; what a visit brings at most needs none."""
PENALTY: Final = tuple(math.log2(tests) for tests in TESTS)
"""What the largest of so many costs, in bits."""


@compiled
def window_bits(state: Any, weights: Any, w: int, n: int, rate: float, reach: float, factor: float) -> float:
    """Bits of n earlier requests in window w, lowered to one visit's and rounded; 0: nothing odd.

    weights: `law_weights` of the window.
    """
    mean, behind, stretch = rate * LENGTH_H[w], float(state.seen) + 0.5, reach * LENGTH_H[w]
    return max(0.0, quantise(mixture_bits(weights, n, mean, behind, stretch, factor, TESTS[w]) - PENALTY[w]))


@compiled
def holds(state: Any, t_us: int) -> bool:
    """Whether `rate`, and what is known of the windows, are of this moment's hour."""
    return int(state.rate_known) == 1 and t_us // HOUR_US == int(state.last_us) // HOUR_US


@compiled
def rate_at(state: Any, shared: Any, config: Any, t_us: int) -> tuple[float, float]:
    """(rate, reach) of this moment: what is known, or worked out anew."""
    if holds(state, t_us):
        return float(state.rate), float(state.reach)
    peer = peer_rate(shared, config)
    rate = level_of(state, peer, float(config.anchor_cap)) * profile_factor(state, t_us // HOUR_US)
    return rate, young_reach(state, shared, config, peer)


@compiled
def earlier_now(state: Any, w: int, t_us: int) -> int:
    """Requests before this moment in a window that ends with it."""
    return earlier(state, w, int(state.last_us) * SUB_BINS // 10_000_000, t_us * SUB_BINS // 10_000_000)


@compiled
def bits_now(state: Any, w: int, t_us: int, least: float) -> tuple[float, int]:
    """(bits, requests before this moment) of a window, behind `prepare`; no bits where there is nothing odd."""
    n = int(state.total[w])
    if n < least:
        return 0.0, n  # time only takes requests out of a window
    known, m = holds(state, t_us), w - CROWDS
    if known and int(state.since[m]) == 0 and n <= int(state.until[m]):
        return 0.0, n
    n = earlier_now(state, w, t_us)
    if n < least:
        return 0.0, n
    if not known or int(state.since[m]) <= n <= int(state.until[m]):
        return float(state.bits[m]), n
    weights = law_weights(state, m)
    return window_bits(state, weights, w, n, float(state.rate), float(state.reach), local_factor(state, m)), n


@compiled
def look_now(state: Any, shared: Any, config: Any, t_us: int, least: float) -> None:
    """Each window's bits of this event alone: where no rate is known of its hour, `learn` renews it at the event."""
    rate, reach = 0.0, 0.0
    for w in range(CROWDS, WINDOWS):
        n = earlier_now(state, w, t_us) if int(state.total[w]) >= least else 0
        if n < least:
            continue
        if rate == 0.0:
            rate, reach = rate_at(state, shared, config, t_us)
        m = w - CROWDS
        state.bits[m] = window_bits(state, law_weights(state, m), w, n, rate, reach, local_factor(state, m))


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
        weights = law_weights(state, m)
        bits = window_bits(state, weights, w, n - n // 32, rate, reach, factor)
        beyond = n + n // 4 + 4
        zero = bits <= 0.0 and window_bits(state, weights, w, beyond, rate, reach, 0.9 * factor) <= 0.0
        state.since[m] = 0 if zero else n - n // 32
        state.until[m] = beyond if zero else n + n // 32
        state.bits[m] = bits
        state.known_factor[m] = 0.9 * factor


@compiled
def close_bins(
    state: Any, w: int, newest: int, k: int, mean: float, empty_mean: float, behind: float, reach: float
) -> None:
    """The bin of the key's last event (sub-bin `newest`) closes, and after it k empty ones."""
    n = 0
    first = newest // SUB_BINS * SUB_BINS
    for i in range(first, newest + 1):
        n += int(state.ring[w, i % SUB_BINS])
    clean = first * LENGTH_S[w] * 1_000_000 // SUB_BINS > int(state.tainted_us)
    n = n if clean else -1
    if w != HOUR:
        empty_mean = mean
    apart = w == HOUR and k > 0 and n >= 0
    for part in range(2 if apart else 1):
        here = -1 if part == 1 else n
        many = 0 if apart and part == 0 else k
        teach(state, w - CROWDS, here, many, LENGTH_H[w], mean if many == 0 else empty_mean, behind, reach)
    m = w - CROWDS
    if int(state.since[m]) > 0 or local_factor(state, m) < float(state.known_factor[m]):
        state.until[m] = 0
