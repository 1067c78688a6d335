"""Requests in 10 s, 60 s, 10 min and 1 h against the key's level, rhythm and growth.

Detects: bulk use of a key: a dump, a scan, a resold key; a steady key's lasting change; a new key's rush; one operation
  over and over for an hour or for hours (`repetition`), at a pace that no count tells from a launch.
Misses: +30 % for days; one more minute at a person's pace; a ramp that stays below three times its slow level;
  fewer than 14 requests in a minute or some hundreds in an hour; most bursts of keys that burst anyway.
  Volume alone proves nothing.
False alarms: a customer's launch, a backfill, a deploy that empties caches; the first day of a key unlike its peers
  (so there 100 requests in the window are the least). Strongly autocorrelated load is the weak spot: counting what
  visits reach (`window_peaks`) keeps it from ringing, and blinds the detector by as much for such keys.
Source: reference/forecasting.md (model and figures), evidence.md sections 4 and 5 (floors, caps, anchor).

How it works. Each window length has a ring of six sub-bins. For 10 min and 1 h an event is tested against the EARLIER
events of the sliding window that ends with it (including the event itself makes tails up to 30 times too frequent). The
forecast is `count_laws`' mixture around mean = level x profile x window; it learns from closed, aligned bins.
 - 10 s and 60 s, the crowd of a moment, are tested against what this key's visits bring at most in such a span
   (`crowds`): a mean per 10 s says nothing of keys that come in clumps. Bulk reads of two a second were told from load
   tests and batches by these spans alone (keybench, development half).
 - Learning lags: bins and hours of the running visit are pending until it has settled (an hour at most). A visit
   under an incident is dropped, and so are all bins and hours that began before it ended.
 - Bits of the long windows are lowered by log2(4 windows x windows of that length in an hour-long visit): 2.0 and 4.6
   bits, Bonferroni's correction to "one visit of this key". At 0 or below nothing is reported.
   Above, `window_peaks` counts what runs of visits of such keys reach, and their share, in bits, is the score.
 - One operation over and over on end is looked at beside the windows, by the same counting (`repetition`).
 - Counted are events whose caller held the key, or all where the format cannot tell. Others are not judged here.
 - An event out of order (up to the lateness) is judged at the key's newest time; it enters the sub-bin of its own time
   if the ring still has it, and the hour of its own time within the visit. Bins that are closed stay as they are.
 - Level: decayed with 7 days of awake hours, clipped per hour. What is believed of it grows by a tenth a day and two
   times in 28 days at most, and stays under four times a slow anchor (`request_level`); a free level far above it is
   told, however slow the way there was (`drift`). More than a day of silence neither decays nor teaches.
 - Empty windows of 10 min are learned for 30 min after the newest event, since tests come with events only.
 - `since` .. `until`: the counts for which a window's bits are known, so that most events need a comparison. They hold
   for the hour and while the local level is not below the one they were found with. In a steep burst the bits told
   are those of a count up to 3 % lower. A pause of 30 min ends the local level.
Cost: 0.2 us per event at 10,000 an hour and more, 0.7 at 1,000, 1.2 at 100, 1.7 at 3; 0.4 in a burst of 412 a minute.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.count_laws import (
    LAWS,
    LOCAL,
    forget_local,
    forget_weights,
    law_quantile,
    leading_law,
    local_factor,
    settle_weights,
)
from detectors.crowds import CROWD_FIELDS, CROWDS, crowd_bits, describe_crowd, learn_crowds
from detectors.detector import VISIT_GAP_US, Context, Detector, attested, known_words, usual_words
from detectors.drift import WEEK_S, describe_drift, drift_bits
from detectors.repetition import (
    REPETITION_FIELDS,
    count_same,
    describe_same,
    same_bits,
    same_words,
    settle_same,
    surplus_with,
)
from detectors.request_level import (
    HOUR_US,
    SLOTS,
    YOUNG_H,
    close_hours,
    renew_rate,
)
from detectors.rings import (
    HOUR,
    LENGTH_H,
    LENGTH_S,
    SUB_BINS,
    TICKS_H,
    WINDOWS,
    count,
    crowd_now,
    sub_bin,
    turn,
)
from detectors.surprise import evidence_of, log2_of, quantise
from detectors.window_bits import bits_now, close_bins, holds, look_ahead, look_now, rate_at
from detectors.window_peaks import COUNTED_BITS, PEAKS_FIELDS, count_visit, counted_bits, note_peak

MIXED: Final = WINDOWS - CROWDS
"""The windows from the third on have a mixture of laws, with one row each in the arrays of STATE."""
NEVER: Final = 1e9

STATE: Final = np.dtype(
    [
        ("last_us", "i8"),  # newest counted event; 0: none yet
        ("tainted_us", "i8"),  # bins and hours that began at or before are not learned
        ("seen", "f8"),  # S: decayed requests
        ("exposed", "f8"),  # E: decayed awake hours, each weighted by its profile
        ("rate", "f8"),  # requests an hour expected in the hour of the newest event
        ("reach", "f8"),  # the same of a very busy peer, as far as the key is young
        ("ring", "u4", (WINDOWS, SUB_BINS)),
        ("total", "u4", (WINDOWS,)),  # of the ring
        ("since", "u4", (MIXED,)),  # from this count ..
        ("until", "u4", (MIXED,)),  # .. to this one a window has `bits`; 0: nothing known
        ("bits", "f4", (MIXED,)),
        ("known_factor", "f4", (MIXED,)),  # least local factor that they hold for
        ("local_seen", "f4", (MIXED,)),
        ("local_due", "f4", (MIXED,)),
        ("next_weights", "f4", (MIXED, LAWS)),
        ("weights", "i2", (MIXED, LAWS)),
        ("crowd_mean", "f4", (CROWDS,)),  # of ln(what visits bring at most)
        ("crowd_variance", "f4", (CROWDS,)),
        ("profile", "u2", (SLOTS,)),
        ("profile_sum", "u4"),
        ("hours_seen", "f4", (2,)),  # decayed hours learned of weekdays and of weekends
        ("anchor", "f4"),  # requests an hour, slow
        ("held", "f4"),  # requests an hour: the level as far as its growth is believed
        ("base", "f4"),  # the same at the start of these 28 days of use
        ("hour", "i4"),  # the open hour, since the epoch
        ("hour_seen", "u4"),  # requests of settled visits in it
        ("pending", "u4", (2,)),  # requests of the running visit in `hour` and the next
        ("awake_h", "u2"),  # hours learned; from seven years on the last 28 days again and again
        ("rate_known", "u1"),  # 1: `rate` and `bits` hold in the newest event's hour
        ("under_way", "u1"),  # 1: a visit is pending, which began in `hour`
        ("zone_shift", "u1"),  # hours from UTC to the key's own time, of the week
        ("peak", "u1", (MIXED,)),  # whole bits + 1 of this visit; 0: none
        ("crowd_visits", "u1"),  # behind them
        ("crowd_base", "u1", (CROWDS,)),  # what was usual at most as these 28 days of use began; 0: to be taken
        ("most", "u2", (CROWDS,)),  # requests of this visit's fullest span
        ("run_h", "u2"),  # hour at which the running run of visits began (`counted`)
        ("run_bin", "u1", (WINDOWS,)),  # bin of its largest bits, by window; 0: none
        ("same", "u2"),  # surplus of the operation that leads, without a pause (`repetition`); 0: none leads
        ("same_mark", "u1"),  # that operation
        ("same_most", "u1"),  # the largest of this visit, stored
        ("usual_same", "u1"),  # the largest that is usual; while it is learned: a stage
        ("same_base", "u1"),  # the largest as these 28 days of use began, 0: to be taken; or of the stage
        ("same_share", "u1"),  # of a visit's calls, what it leads by on average, in 1/255; 0: not known
        ("same_bin", "u1"),  # as `run_bin`
    ],
    align=True,
)

SHARED: Final = np.dtype(
    [("keys", "f8"), ("log_rate", "f8"), ("spread", "f8"), *CROWD_FIELDS, *PEAKS_FIELDS, *REPETITION_FIELDS]
)
"""Peers: awake key-days counted, mean and variance of ln(requests an awake hour); what visits reach."""


class Spike(msgspec.Struct, frozen=True, kw_only=True):
    """Knobs of the detector; sources at their names above."""

    least: float = 5.0  # requests in 10 min or 1 h before it is judged
    crowd_least: float = 14.0  # requests in 10 s or 60 s; a dozen at once is a restart (make demo: 11 calls of 14 keys)
    first_day_least: float = 100.0  # the same within a key's first 24 awake hours
    anchor_cap: float = 4.0  # 9 innocent episodes in 100,000 key-days of people (evidence, section 5)
    clip: float = 10.0  # times the hour's mean: the most that an hour may teach; 4 hurts, none equals 10
    peer_rate_h: float = 10.0  # requests an hour of a usual key, until the partition knows its own
    peer_spread: float = 2.0  # standard deviation of its natural logarithm
    few: float = 100.0  # requests in 10 min or 1 h; fewer are what a deploy or a backlog brings
    few_bits: float = 4.0  # of evidence, the most that fewer are worth; and for each doubling of `few` as much again
    drift_found: float = 3.0  # times the anchor, over a week of use: 39 innocent episodes in 100,000 key-days of people
    drift_listed: float = 4.0  # 9 (evidence, section 5)
    floor_bits: float = 1.0  # a quiet visit speaks against a burst by this much
    cap_bits: float = 32.0


@compiled
def least_count(state: Any, config: Any) -> float:
    """Fewer requests in a window are never judged."""
    return float(config.first_day_least) if int(state.awake_h) < YOUNG_H else float(config.least)


@compiled
def crowd_least(state: Any, config: Any) -> float:
    """The same for the short windows, which judge nobody on his first day."""
    return NEVER if int(state.awake_h) < YOUNG_H else float(config.crowd_least)


@compiled
def most_evidence(config: Any, w: int, n: float) -> float:
    """The most that n requests in this window are worth: no cliff at `few`, where load tests rang."""
    if w < CROWDS:
        return float(config.cap_bits)
    few = max(1.0, float(config.few))
    doublings = log2_of(n / few) if n > few else 0.0
    return min(float(config.cap_bits), float(config.few_bits) * (1.0 + doublings))


@compiled
def prepare(state: Any, shared: Any, visit: Any, event: Any, config: Any) -> None:
    """Work out the windows' bits where they change: at the event that asks for them, so never for a visit's last."""
    if not attested(event):
        return
    t_us, least = max(int(event.ts_us), int(state.last_us)), least_count(state, config)
    if holds(state, t_us):
        look_ahead(state, least)
    else:
        look_now(state, shared, config, t_us, least)


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Bits of the most surprising window; see the module's text."""
    if not attested(event):
        return
    reading.covered = 1
    last_us = int(state.last_us)
    if last_us == 0:
        return
    t_us, least = max(int(event.ts_us), last_us), least_count(state, config)
    fewest = crowd_least(state, config)
    best, evidence, window = 0.0, -float(config.floor_bits), -1
    for w in range(WINDOWS):
        if w < CROWDS:
            n = crowd_now(state, w, t_us, fewest)
            bits = crowd_bits(state, shared, visit, w, float(n)) if n >= fewest else 0.0
        else:
            bits, n = bits_now(state, w, t_us, least)
        if bits <= 0.0:
            continue
        bits = quantise(counted_bits(state, shared, visit, w, bits))
        worth = bits - COUNTED_BITS if w < CROWDS else evidence_of(bits)
        evidence = max(evidence, min(most_evidence(config, w, float(n)), worth))
        if bits > best:
            best, window = bits, w
            reading.observed = float(n)
    surplus = surplus_with(state, event)
    same = same_bits(state, shared, visit, surplus)
    if same > COUNTED_BITS:
        evidence = max(evidence, min(float(config.cap_bits), same - COUNTED_BITS))
    drift = drift_bits(state, config)
    reading.lr_stranger = quantise(max(evidence, evidence_of(drift)))
    reading.lr_insider = reading.lr_stranger
    if drift > max(best, same):
        describe_drift(state, reading, drift)
    elif same > best:
        reading.bits = same
        describe_same(state, visit, reading, surplus)
    elif window >= 0:
        reading.bits = best
        if window < CROWDS:
            describe_crowd(state, shared, visit, reading, window)
        else:
            rate, reach = rate_at(state, shared, config, t_us)
            describe(state, reading, window, rate, reach)


@compiled
def describe(state: Any, reading: Any, w: int, rate: float, reach: float) -> None:
    """Middle 90 % of the leading law, window and leading law of the leading window."""
    law = leading_law(state, w - CROWDS)
    mean = rate * LENGTH_H[w] * (local_factor(state, w - CROWDS) if law >= LOCAL else 1.0)
    behind = float(state.seen) + 0.5
    stretch = reach * LENGTH_H[w]
    reading.low = law_quantile(law, mean, behind, stretch, 0.05)
    reading.median = law_quantile(law, mean, behind, stretch, 0.5)
    reading.high = law_quantile(law, mean, behind, stretch, 0.95)
    reading.a = float(LENGTH_S[w])
    reading.b = float(law)


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Close the bins that ended before the event, and count it."""
    if not attested(event):
        return
    ts_us = int(event.ts_us)
    last_us = int(state.last_us)
    if weight <= 0.0:
        state.tainted_us = max(int(state.tainted_us), ts_us)
    if int(event.local_hour) >= 0:
        state.zone_shift = (int(event.local_hour) - int(event.utc_hour)) % 168
    note_peaks(state, config, ts_us)
    tick = ts_us * SUB_BINS // 10_000_000
    last_tick = last_us * SUB_BINS // 10_000_000
    if tick > last_tick or (int(state.under_way) == 0 and ts_us >= last_us):
        advance(state, shared, visit, config, ts_us, last_tick, tick)
        last_tick = tick
    state.last_us = max(last_us, ts_us)
    count(state, last_tick, tick, ts_us // HOUR_US)
    count_same(state, event)


@compiled
def note_peaks(state: Any, config: Any, ts_us: int) -> None:
    """What `score` found in each window, for the count of visits."""
    t_us = max(ts_us, int(state.last_us))
    least = least_count(state, config)
    for w in range(CROWDS):
        most = int(state.most[w])
        state.most[w] = max(most, min(65_535, crowd_now(state, w, t_us, most + 1.0)))
    if int(state.last_us) > 0:
        for w in range(CROWDS, WINDOWS):
            note_peak(state, w - CROWDS, bits_now(state, w, t_us, least)[0])


@compiled
def advance(state: Any, shared: Any, visit: Any, config: Any, ts_us: int, last_tick: int, tick: int) -> None:
    """Time goes on to ts_us: hours before the visit close, bins close, the rings turn."""
    last_us = int(state.last_us)
    hour = tick // TICKS_H
    behind = float(state.seen) + 0.5
    rate = float(state.rate)
    reach = float(state.reach)
    empty_hours = 0
    empty_mean = 0.0
    if int(state.under_way) == 0:
        if last_us > 0:
            empty_hours, empty_mean = close_hours(state, shared, visit, config, last_us // HOUR_US, hour)
        state.hour = hour
        state.under_way = 1
    until_tick = min(tick, last_tick + TICKS_H // 2)
    for w in range(WINDOWS):
        newest = sub_bin(w, last_tick)
        here = sub_bin(w, tick)
        if last_us > 0 and w >= CROWDS and here // SUB_BINS > newest // SUB_BINS:
            k = empty_hours if w == HOUR else sub_bin(w, until_tick) // SUB_BINS - newest // SUB_BINS - 1
            mean = empty_mean if w == HOUR else rate * LENGTH_H[w]
            close_bins(state, w, newest, k, rate * LENGTH_H[w], mean, behind, reach * LENGTH_H[w])
        turn(state, w, newest, here)
    if ts_us - last_us >= VISIT_GAP_US:
        forget_local(state)
        state.same = 0
    if int(state.rate_known) == 0 or hour != last_us // HOUR_US:
        renew_rate(state, shared, config, hour)


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit ended: what it taught holds from now on, or is dropped with every bin and hour it touched."""
    used = weight if int(state.under_way) != 0 else 0.0
    count_visit(state, shared, visit, used, crowd_least(state, config))
    settle_same(state, shared, visit, used)
    learn_crowds(state, shared, visit, used)
    if int(state.under_way) == 0:
        return
    if weight > 0.0:
        settle_weights(state)
        state.hour_seen = min(4_000_000_000, int(state.hour_seen) + int(state.pending[0]))
        after = int(state.last_us) // HOUR_US
        if after > int(state.hour):  # the visit ran into the next hour: the first one closes
            close_hours(state, shared, visit, config, after, after)
            state.hour = after
            state.hour_seen = int(state.pending[1])
    else:
        forget_weights(state)
        state.tainted_us = max(int(state.tainted_us), int(state.last_us))
    state.pending[0] = 0
    state.pending[1] = 0
    state.under_way = 0
    state.rate_known = 0


def explain(reading: Any, context: Context) -> str:
    """Such as "412 requests in 60 s where 9 [3-21] are usual"; a young key is said to be one."""
    seconds = int(reading.a)
    if seconds < 0:
        return same_words(reading, context)
    if seconds == WEEK_S:
        times = f"{reading.observed / max(1e-3, reading.median):.1f} times"
        return f"{reading.observed:.3g} requests an hour in a week of use, {times} the {reading.median:.3g} of 90 days"
    span = f"{seconds} s" if seconds <= 60 else f"{seconds // 60} min"
    words = f"{reading.observed:.0f} requests in {span} where {usual_words(reading.low, reading.median, reading.high)}"
    if context.seen_days < 1.0:
        return f"{words} (known for {known_words(context.seen_days)}, judged by its peers)"
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
    prepare=prepare,
)
