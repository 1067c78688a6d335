"""Requests in 10 s, 60 s, 10 min and 1 h against the key's level, rhythm and growth.

Detects: bulk use of a key: a dump, a scan, a resold key; a constant key's smallest lasting change; a new key's rush.
Misses: +30 % for days; one more minute at a person's pace; a ramp that stays under the caps (four times a slow level);
  anything in fewer than five requests. Volume alone proves nothing.
False alarms: a customer's launch, a backfill, a deploy that empties caches; the first day of a key unlike its peers
  (so there 100 requests in the window are the least). Strongly autocorrelated load is the weak spot.
Source: reference/forecasting.md (model and figures), evidence.md sections 4 and 5 (floors, caps, anchor).

How it works. Each window length has a ring of six sub-bins; an event is tested against the EARLIER events of the
sliding window that ends with it (including the event itself makes tails up to 30 times too frequent). The forecast is
`count_laws`' mixture around mean = level x profile x window; it learns from closed, aligned bins.
 - Learning lags: bins and hours of the running visit are pending until it has settled (an hour at most). A visit
   under an incident is dropped, and so are all bins and hours that began before it ended.
 - Per window the bits are lowered by log2(4 windows x windows of that length in an hour-long visit): 2.0, 4.6, 7.9
   and 10.5 bits for 1 h .. 10 s. It is Bonferroni's correction to "one visit of this key", the unit that fused scores
   are calibrated in; the largest of the four is the score. At 0 or below nothing is reported.
 - Counted are events whose caller held the key, or all where the format cannot tell. Others are not judged here.
 - An event out of order (up to the lateness) is judged at the key's newest time; it enters the sub-bin of its own time
   if the ring still has it, and the hour of its own time within the visit. Bins that are closed stay as they are.
 - Level: decayed with 7 days of awake hours, clipped per hour, and never above four times a 90-day anchor which is
   itself fed at most 1.5 times itself (evidence, section 5). More than a day of silence neither decays nor teaches.
 - `crit`: the largest count known to give 0 bits; exact, since tails grow with the mean: it holds for the hour it was
   found in and while the local level is not below the one it was found with. A pause of 30 min ends the local level.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.count_laws import (
    LAWS,
    forget_local,
    forget_weights,
    law_quantile,
    leading_law,
    learn_empty,
    learn_window,
    local_factor,
    mixture_tail,
    settle_weights,
)
from detectors.detector import SEES_OUTCOME, VISIT_GAP_US, Context, Detector
from detectors.request_level import (
    SLOTS,
    YOUNG_H,
    learn_hour,
    level_of,
    peer_reach,
    profile_factor,
    youth,
)
from detectors.surprise import bits_of, quantise

WINDOWS: Final = 4
SUB_BINS: Final = 6
HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US

STATE: Final = np.dtype(
    [
        ("last_us", "i8"),  # newest counted event; 0: none yet
        ("tainted_us", "i8"),  # bins and hours that began at or before are not learned
        ("seen", "f8"),  # S: decayed requests
        ("exposed", "f8"),  # E: decayed awake hours, each weighted by its profile
        ("ring", "u4", (WINDOWS, SUB_BINS)),
        ("crit", "u4", (WINDOWS,)),
        ("crit_fails", "u4", (WINDOWS,)),  # a count above 0 bits; 0: none known
        ("crit_factor", "f4", (WINDOWS,)),
        ("local_seen", "f4", (WINDOWS,)),
        ("local_due", "f4", (WINDOWS,)),
        ("next_weights", "f4", (WINDOWS, LAWS)),
        ("next_hurdle", "f4", (WINDOWS, 5)),
        ("hurdle", "f4", (WINDOWS, 5)),
        ("weights", "i2", (WINDOWS, LAWS)),
        ("profile", "u2", (SLOTS,)),
        ("hours_seen", "f4", (2,)),  # decayed hours learned of weekdays and of weekends
        ("anchor", "f4"),  # requests an hour, slow
        ("rate", "f4"),  # requests an hour expected in `rate_hour`
        ("rate_hour", "i4"),
        ("hour", "i4"),  # the open hour, since the epoch
        ("hour_seen", "u4"),  # requests of settled visits in it
        ("pending", "u4", (2,)),  # requests of the running visit in `pending_hour` and the next
        ("pending_hour", "i4"),  # 0: nothing pending
        ("awake_h", "u4"),  # hours learned, ever
        ("zone_shift", "u1"),  # hours from UTC to the key's own time, of the week
        ("pad", "u1", (3,)),
    ],
    align=True,
)

SHARED: Final = np.dtype([("keys", "f8"), ("log_rate", "f8"), ("spread", "f8")])
"""Peers: awake key-days counted, mean and variance of ln(requests an awake hour)."""


class Spike(msgspec.Struct, frozen=True, kw_only=True):
    """Knobs of the detector; sources at their names above."""

    least: float = 5.0  # requests in a window before it is judged
    first_day_least: float = 100.0  # the same within a key's first 24 awake hours
    anchor_cap: float = 4.0  # 9 innocent episodes in 100,000 key-days of people (evidence, section 5)
    clip: float = 10.0  # times the hour's mean: the most that an hour may teach; 4 hurts, none equals 10
    peer_rate_h: float = 10.0  # requests an hour of a usual key, until the partition knows its own
    peer_spread: float = 2.0  # standard deviation of its natural logarithm
    floor_bits: float = 1.0  # a quiet visit speaks against a burst by this much
    cap_bits: float = 24.0


@compiled
def window_us(w: int) -> int:
    """Length of a window: 10 s, 60 s, 10 min, 1 h."""
    if w < 2:
        return 10_000_000 if w == 0 else 60_000_000
    return 600_000_000 if w == 2 else HOUR_US


@compiled
def penalty_bits(w: int) -> float:
    """log2(4 windows x windows of this length in an hour)."""
    if w < 2:
        return 10.491853096329675 if w == 0 else 7.906890595608519
    return 4.584962500721156 if w == 2 else 2.0


@compiled
def counted(event: Any) -> bool:
    """Whether the event's caller held the key, as far as the format can tell."""
    return int(event.authenticated) == 1 or int(event.sees) & SEES_OUTCOME == 0


@compiled
def adjusted_bits(state: Any, w: int, n: int, rate: float, level: float, reach_h: float, factor: float) -> float:
    """Bits of n earlier requests in window w, lowered to one visit's; not yet rounded; may be below 0."""
    window_h = window_us(w) / HOUR_US
    mean = rate * window_h
    if n <= 0.5 * mean:
        return -penalty_bits(w)
    behind = float(state.seen) + 0.5
    tail = mixture_tail(state, w, n, mean, level * window_h, behind, reach_h * window_h, factor)
    return bits_of(tail) - penalty_bits(w)


@compiled
def earlier(state: Any, w: int, t_us: int) -> int:
    """Requests in the six sub-bins that end with the one of t_us."""
    newest = int(state.last_us) * SUB_BINS // window_us(w)
    first = max(t_us * SUB_BINS // window_us(w), newest) - SUB_BINS + 1
    total = 0
    for sub_bin in range(first, newest + 1):
        total += int(state.ring[w, sub_bin % SUB_BINS])
    return total


@compiled
def least_count(state: Any, config: Any) -> float:
    """Fewer requests in a window are never judged."""
    return float(config.first_day_least) if int(state.awake_h) < YOUNG_H else float(config.least)


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Bits of the most surprising window; see the module's text."""
    if not counted(event):
        return
    reading.covered = 1
    if int(state.last_us) == 0:
        return
    t_us = max(int(event.ts_us), int(state.last_us))
    hour = t_us // HOUR_US
    best = 0.0
    window = -1
    for w in range(WINDOWS):
        n = earlier(state, w, t_us)
        if n < least_count(state, config) or (hour == int(state.rate_hour) and n <= int(state.crit[w])):
            continue
        level = level_of(state, shared, config)
        rate = level * profile_factor(state, hour)
        bits = adjusted_bits(
            state, w, n, rate, level, youth(state) * peer_reach(shared, config), local_factor(state, w)
        )
        if bits > best:
            best = bits
            window = w
    evidence = min(float(config.cap_bits), max(-float(config.floor_bits), 0.5 * quantise(best) - 1.0))
    reading.lr_stranger = evidence
    reading.lr_insider = evidence
    reading.lr_stranger_slow = evidence
    if window >= 0:
        reading.bits = quantise(best)
        describe(state, shared, config, reading, window, t_us)


@compiled
def describe(state: Any, shared: Any, config: Any, reading: Any, w: int, t_us: int) -> None:
    """Observed count, middle 90 % of the leading law, window and leading law of the leading window."""
    law = leading_law(state, w)
    window_h = window_us(w) / HOUR_US
    level = level_of(state, shared, config)
    mean = level * profile_factor(state, t_us // HOUR_US) * window_h
    reach = youth(state) * peer_reach(shared, config) * window_h
    reading.observed = float(earlier(state, w, t_us))
    reading.low = law_quantile(state, w, law, mean, level * window_h, reach, 0.05)
    reading.median = law_quantile(state, w, law, mean, level * window_h, reach, 0.5)
    reading.high = law_quantile(state, w, law, mean, level * window_h, reach, 0.95)
    reading.a = window_us(w) / 1e6
    reading.b = float(law)


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Close the bins that ended before the event, count it, and look ahead for the critical counts."""
    if not counted(event):
        return
    ts_us = int(event.ts_us)
    if weight <= 0.0:
        state.tainted_us = max(int(state.tainted_us), ts_us)
    if int(event.local_hour) >= 0:
        state.zone_shift = (int(event.local_hour) - int(event.utc_hour)) % 168
    if ts_us > int(state.last_us):
        advance(state, shared, config, ts_us)
    count(state, ts_us)
    look_ahead(state, shared, config)


@compiled
def advance(state: Any, shared: Any, config: Any, ts_us: int) -> None:
    """Time goes on to ts_us: hours before the visit close, bins close, the ring turns."""
    last_us = int(state.last_us)
    if int(state.pending_hour) == 0:
        if last_us > 0:
            close_hours(state, shared, config, ts_us // HOUR_US)
        state.hour = ts_us // HOUR_US
        state.pending_hour = ts_us // HOUR_US
    for w in range(WINDOWS):
        if last_us > 0 and ts_us // window_us(w) > last_us // window_us(w):
            close_bins(state, shared, config, w, ts_us)
        turn_ring(state, w, last_us * SUB_BINS // window_us(w), ts_us * SUB_BINS // window_us(w))
    if ts_us - last_us >= VISIT_GAP_US:
        forget_local(state)
    state.last_us = ts_us
    if ts_us // HOUR_US != int(state.rate_hour):
        renew_rate(state, shared, config, ts_us // HOUR_US)


@compiled
def renew_rate(state: Any, shared: Any, config: Any, hour: int) -> None:
    """The forecast of another hour, or a newly learned one: critical counts begin anew."""
    state.rate = level_of(state, shared, config) * profile_factor(state, hour)
    state.rate_hour = hour
    for w in range(WINDOWS):
        state.crit[w] = 0
        state.crit_fails[w] = 0


@compiled
def turn_ring(state: Any, w: int, newest: int, sub_bin: int) -> None:
    """Empty the sub-bins between the newest and the new one."""
    for i in range(max(newest + 1, sub_bin - SUB_BINS + 1), sub_bin + 1):
        state.ring[w, i % SUB_BINS] = 0


@compiled
def count(state: Any, ts_us: int) -> None:
    """The event into its sub-bins, where the ring still has them, and into its hour."""
    for w in range(WINDOWS):
        sub_bin = ts_us * SUB_BINS // window_us(w)
        if sub_bin > int(state.last_us) * SUB_BINS // window_us(w) - SUB_BINS:
            state.ring[w, sub_bin % SUB_BINS] = int(state.ring[w, sub_bin % SUB_BINS]) + 1
    second = min(1, max(0, ts_us // HOUR_US - int(state.pending_hour)))
    state.pending[second] = int(state.pending[second]) + 1


@compiled
def close_bins(state: Any, shared: Any, config: Any, w: int, ts_us: int) -> None:
    """The bin of the key's last event closes, and after it the empty ones of one day at most."""
    size_us = window_us(w)
    first = int(state.last_us) // size_us
    level = level_of(state, shared, config)
    rate = level * profile_factor(state, first * size_us // HOUR_US)
    if first * size_us > int(state.tainted_us):
        n = 0
        for sub_bin in range(first * SUB_BINS, int(state.last_us) * SUB_BINS // size_us + 1):
            n += int(state.ring[w, sub_bin % SUB_BINS])
        teach(state, shared, config, w, n, 1, rate, level)
    last = min(ts_us // size_us - 1, (int(state.last_us) + DAY_US) // size_us)
    here = max(first, int(state.tainted_us) // size_us) + 1
    while here <= last:
        hour = here * size_us // HOUR_US
        until = min(last, ((hour + 1) * HOUR_US - 1) // size_us, here + (SUB_BINS if here == first + 1 else 1000))
        rate = level * profile_factor(state, hour)
        teach(state, shared, config, w, 0, until - here + 1, rate, level)
        here = until + 1
    if local_factor(state, w) < float(state.crit_factor[w]):
        state.crit[w] = 0
    state.crit_fails[w] = 0


@compiled
def teach(state: Any, shared: Any, config: Any, w: int, n: int, k: int, rate: float, level: float) -> None:
    """One bin of n requests, or k empty ones, into the running forecast of window w."""
    window_h = window_us(w) / HOUR_US
    behind = float(state.seen) + 0.5
    reach = youth(state) * peer_reach(shared, config) * window_h
    if n == 0:
        learn_empty(state, w, k, window_h, rate * window_h, level * window_h, behind, reach)
    else:
        learn_window(state, w, n, window_h, rate * window_h, level * window_h, behind, reach)


@compiled
def look_ahead(state: Any, shared: Any, config: Any) -> None:
    """Raise the critical counts, at a local level a tenth lower, so that they last."""
    t_us = int(state.last_us)
    if t_us // HOUR_US != int(state.rate_hour):
        return
    for w in range(WINDOWS):
        n = earlier(state, w, t_us)
        fails = int(state.crit_fails[w])
        if n < least_count(state, config) or n <= int(state.crit[w]) or (fails > 0 and n >= fails):
            continue
        level = level_of(state, shared, config)
        reach = youth(state) * peer_reach(shared, config)
        rate = level * profile_factor(state, t_us // HOUR_US)
        factor = 0.9 * local_factor(state, w)
        ahead = n + n // 4 + 4 if fails == 0 else (n + fails) // 2
        if adjusted_bits(state, w, ahead, rate, level, reach, factor) <= 0.0:
            state.crit[w] = ahead
            state.crit_factor[w] = factor
        else:
            state.crit_fails[w] = ahead


@compiled
def close_hours(state: Any, shared: Any, config: Any, until: int) -> None:
    """Close the open hour and the empty ones after it, before hour `until`, of one day at most."""
    last = min(until - 1, (int(state.last_us) + DAY_US) // HOUR_US)
    for hour in range(int(state.hour), last + 1):
        if hour * HOUR_US > int(state.tainted_us):
            learn_hour(state, shared, config, hour, float(state.hour_seen) if hour == int(state.hour) else 0.0)
    if until > int(state.hour):
        state.hour_seen = 0
        state.rate_hour = 0


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit ended: what it taught holds from now on, or is dropped with every bin and hour it touched."""
    if int(state.pending_hour) == 0:
        return
    if weight > 0.0:
        settle_weights(state)
        settle_hours(state, shared, config)
    else:
        forget_weights(state)
        state.tainted_us = max(int(state.tainted_us), int(state.last_us))
    state.pending[0] = 0
    state.pending[1] = 0
    state.pending_hour = 0
    state.rate_hour = 0


@compiled
def settle_hours(state: Any, shared: Any, config: Any) -> None:
    """The visit's requests into the open hour; if it ran into the next, the first one closes."""
    state.hour_seen = min(4_000_000_000, int(state.hour_seen) + int(state.pending[0]))
    after = int(state.last_us) // HOUR_US
    if after > int(state.pending_hour):
        close_hours(state, shared, config, after)
        state.hour = after
        state.hour_seen = int(state.pending[1])


def explain(reading: Any, context: Context) -> str:
    """Such as "412 requests in 60 s where 9 [3-21] are usual"; a young key is said to be one."""
    seconds = int(reading.a)
    span = f"{seconds} s" if seconds <= 60 else f"{seconds // 60} min"
    words = (
        f"{reading.observed:.0f} requests in {span} where {reading.median:.0f} "
        f"[{reading.low:.0f}-{reading.high:.0f}] are usual"
    )
    if context.seen_days < 1.0:
        return f"{words} (known for {24 * context.seen_days:.0f} h, judged by its peers)"
    return words


DETECTOR: Final = Detector(
    name="spike",
    family="volume",
    unit="requests",
    state=STATE,
    shared=SHARED,
    config=Spike(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
