"""Use at hours of the week at which this key is not used.

Detects: night and weekend use of a key that keeps hours: its declared business hours where the catalogue has them, else
  the rhythm of its own visits, filled up from eight archetypes of people; in its own time zone where that is known.
Misses: round-the-clock keys (it abstains at an entropy of 7.0 bits and more, and says so), an intruder who keeps the
  owner's hours, most of what a job does at another hour than its own (gap and phase would see that).
False alarms: holidays (2 to 8 times nominal), travel by two hours and more, a first late evening; so at most 10 bits,
  and alone it is a finding, not an incident. Late evenings come in runs: the evidence allows for it for three days.
Source: reference/evidence.md, section 2 (recursion, figures) and section 4 (e4).

The unit is the visit, not the event: the first counted event of a visit decides the hour, and every event of the
visit gives the same bits. The hour is learned when the visit has settled, or not at all if an incident was open.
A histogram of visits over 168 hours, decayed with 60 days once a week, a byte each in units of 1/8 visit, rounded by a
hash so that rounding neither feeds nor starves a bin. Local bins need no care for daylight saving; bins in UTC have a
kernel of one hour. If a key's zone becomes known, or unknown, its histogram is turned by the difference.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import allocating, compiled
from detectors.detector import NOTHING, Context, Detector, attested, known_words
from detectors.hour_profile import (
    HOURS,
    MIXED,
    ROOM,
    UNIT,
    forecast,
    hour_bits,
    is_flat,
    prior_weight,
    usual_hours,
)
from detectors.surprise import bits_of, halved, log2_of, quantise

WEEK_S: Final = 604_800
ODD_BITS: Final = 4.321928094887363  # p = .05: an odd hour
ODD_RUN_H: Final = 72

STATE: Final = np.dtype(
    [
        ("judged_s", "u4"),  # start of the visit that the fields below speak of; 0: none
        ("odd_h", "u4"),  # hour since the epoch of the last visit at an odd hour; 0: none
        ("week", "u4"),  # the histogram is decayed to this week
        ("weight", "f4", (3,)),  # of the three priors; all 0: equal
        ("chance", "f4", (3,)),  # of this visit's hour under each
        ("bits", "f4"),
        ("density", "f4"),  # of this visit's hour, mixed
        ("outside", "f4"),  # decayed visits outside the declared hours
        ("inside", "f4"),
        ("profile", "u1", (HOURS,)),
        ("hour", "u1"),  # of this visit, of the week
        ("low", "u1"),  # usual hours of the day
        ("median", "u1"),
        ("high", "u1"),
        ("kind", "u1"),  # of this visit: KIND_*
        ("zoned", "u1"),  # the histogram's bins are 0: nothing learned, 1: UTC, 2 + shift: local
    ],
    align=True,
)
ABSTAINED: Final = 1
LEARNED: Final = 2
INSIDE: Final = 3
OUTSIDE: Final = 4


class OffHours(msgspec.Struct, frozen=True, kw_only=True):
    """Knobs of the detector; sources in the module's text."""

    abstain_entropy_bits: float = 7.0  # power .25 above, false alarms 1.6 times nominal
    cap_bits: float = 10.0
    declared_prior_outside: float = 0.5  # visits: declared hours are kept 19 times in 20 [judged]
    declared_prior_inside: float = 9.5
    declared_share_outside: float = 0.7  # of the week: 50 business hours in 168
    odd_usual: float = 0.03  # w_h: chance that an owner's visit is at any hour at all
    odd_in_run: float = 0.25
    odd_at_new_place: float = 0.5


@compiled
def start_of(visit: Any, event: Any) -> int:
    """Second at which the running visit began: its name here."""
    start_us = int(visit.start_us)
    return (start_us if start_us > 0 else int(event.ts_us)) // 1_000_000


@allocating
def judge(state: Any, event: Any, config: Any) -> tuple[int, int, float, float, float, float, float, int, int, int]:
    """The visit's hour by its first event: (kind, hour, bits, density, three chances, low, median, high)."""
    zoned = int(event.local_hour) >= 0
    hour = int(event.local_hour) if zoned else int(event.utc_hour)
    if int(event.in_hours) >= 0:
        outside = declared_outside(state, config)
        if int(event.in_hours) == 1:
            return INSIDE, hour, 0.0, 1.0 - outside, 0.0, 0.0, 0.0, 0, 0, 0
        return OUTSIDE, hour, bits_of(0.5 * outside), outside, 0.0, 0.0, 0.0, 0, 0, 0
    if zone_changed(state, event):  # its bins mean something else: turned when this visit is learned
        return ABSTAINED, hour, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0
    rows = forecast(state, zoned)
    mixed = rows[MIXED]
    kind = ABSTAINED if is_flat(mixed, float(config.abstain_entropy_bits)) else LEARNED
    low, median, high = usual_hours(mixed, rows[ROOM])
    bits = hour_bits(mixed, hour) if kind == LEARNED else 0.0
    return kind, hour, bits, mixed[hour], rows[0, hour], rows[1, hour], rows[2, hour], low, median, high


@compiled
def declared_outside(state: Any, config: Any) -> float:
    """Chance that a visit of this key is outside its declared hours: Beta-Binomial."""
    outside = float(state.outside) + float(config.declared_prior_outside)
    return outside / (outside + float(state.inside) + float(config.declared_prior_inside))


@compiled
def owner_at_any_hour(state: Any, visit: Any, event: Any, config: Any) -> float:
    """w_h of the evidence: how ready the owner is to come at any hour."""
    if int(visit.new_place) == 1:
        return float(config.odd_at_new_place)
    since_h = int(event.ts_us) // 3_600_000_000 - int(state.odd_h)
    return float(config.odd_in_run) if since_h <= ODD_RUN_H else float(config.odd_usual)


@compiled
def evidence_bits(kind: int, density: float, w: float, config: Any) -> float:
    """e4: log2 likelihood ratio of "70 % at any hour" against the owner's hours."""
    at_random = 1.0 / HOURS
    if kind >= INSIDE:
        outside = float(config.declared_share_outside)
        at_random = outside if kind == OUTSIDE else 1.0 - outside
    return log2_of((0.3 * density + 0.7 * at_random) / ((1.0 - w) * density + w * at_random))


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """The visit's bits, as `prepare` worked them out at its first counted event."""
    kind, hour = int(state.kind), int(state.hour)
    if not attested(event) or int(state.judged_s) != start_of(visit, event) or kind == ABSTAINED:
        return
    reading.covered = 1
    reading.bits = quantise(min(float(state.bits), float(config.cap_bits)))
    w = owner_at_any_hour(state, visit, event, config)
    evidence = evidence_bits(kind, float(state.density), w, config)
    reading.lr_stranger = evidence
    reading.lr_insider = evidence
    reading.observed = float(hour % 24)
    reading.low = float(int(state.low))
    reading.median = float(int(state.median))
    reading.high = float(int(state.high))
    reading.a = float(hour)
    reading.b = 1.0 if kind >= INSIDE else 0.0


@compiled
def prepare(state: Any, shared: Any, visit: Any, event: Any, config: Any) -> None:
    """Remember the judgement of the visit's first counted event: with a forecast of the week it is dear."""
    if not attested(event) or int(state.judged_s) == start_of(visit, event):
        return
    kind, hour, bits, density, c0, c1, c2, low, median, high = judge(state, event, config)
    state.judged_s = start_of(visit, event)
    state.kind = kind
    state.hour = hour
    state.bits = bits
    state.density = density
    state.chance[0] = c0
    state.chance[1] = c1
    state.chance[2] = c2
    state.low = low
    state.median = median
    state.high = high
    follow_zone(state, event)


@compiled
def zone_of(event: Any) -> int:
    """What kind of bins the event speaks of: 1 UTC, 2 + hours from UTC for local ones."""
    if int(event.local_hour) < 0:
        return 1
    return 2 + (int(event.local_hour) - int(event.utc_hour) + HOURS) % HOURS


@compiled
def zone_changed(state: Any, event: Any) -> bool:
    """Whether the key's zone became known or unknown since the last visit; daylight saving is no change."""
    before = int(state.zoned)
    return before > 0 and (before == 1) != (zone_of(event) == 1)


@allocating
def follow_zone(state: Any, event: Any) -> None:
    """Turn the histogram where its bins change their meaning."""
    if zone_changed(state, event):
        before = int(state.zoned)
        ahead = zone_of(event) - 2 if before == 1 else HOURS - (before - 2)
        old = np.empty(HOURS, np.uint8)
        for hour in range(HOURS):
            old[hour] = state.profile[hour]
        for hour in range(HOURS):
            state.profile[(hour + ahead) % HOURS] = old[hour]
    state.zoned = zone_of(event)


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Nothing: a visit has one hour."""


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit's hour into the histogram and the weights, or forget it."""
    if int(state.judged_s) == 0:
        return
    if weight > 0.0:
        fade(state, int(state.judged_s) // WEEK_S, int(visit.first_seen_us) // 1_000_000)
        if int(state.kind) == OUTSIDE:
            state.outside = float(state.outside) + 1.0
        elif int(state.kind) == INSIDE:
            state.inside = float(state.inside) + 1.0
        else:
            learn_weights(state)
        state.profile[state.hour] = min(255, int(state.profile[state.hour]) + int(UNIT))
        if float(state.bits) >= ODD_BITS:
            state.odd_h = int(state.judged_s) // 3600
    state.judged_s = 0


@compiled
def learn_weights(state: Any) -> None:
    """w_a <- w_a^.98 p_a(b), normalised, then .97 w_a + .01: which weight of the archetypes forecasts this key."""
    w0 = math.exp(0.98 * math.log(prior_weight(state, 0))) * float(state.chance[0])
    w1 = math.exp(0.98 * math.log(prior_weight(state, 1))) * float(state.chance[1])
    w2 = math.exp(0.98 * math.log(prior_weight(state, 2))) * float(state.chance[2])
    total = w0 + w1 + w2
    if total > 0.0:
        state.weight[0] = 0.97 * w0 / total + 0.01
        state.weight[1] = 0.97 * w1 / total + 0.01
        state.weight[2] = 0.97 * w2 / total + 0.01


@compiled
def fade(state: Any, week: int, salt: int) -> None:
    """60 days' half-life in steps of a week; a byte's remainder is rounded up with its own chance."""
    before = int(state.week)
    state.week = max(before, week)
    if before == 0 or week <= before:
        return
    keep = halved((week - before) * 7.0 / 60.0)
    state.outside = float(state.outside) * keep
    state.inside = float(state.inside) * keep
    for hour in range(HOURS):
        state.profile[hour] = int(int(state.profile[hour]) * keep + draw(salt, hour, week))


@compiled
def draw(salt: int, hour: int, week: int) -> float:
    """A number in 0 .. 1 that only key, bin and week decide."""
    x = (salt ^ (hour * 40_503) ^ (week * 97_423)) & 0x7FFFFFFF
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & 0x7FFFFFFF
    x = ((x ^ (x >> 12)) * 0x297A2D39) & 0x7FFFFFFF
    return float(x ^ (x >> 15)) / 2147483648.0


YOUNG_DAYS: Final = 7.0  # a key's own week has been seen once
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def explain(reading: Any, context: Context) -> str:
    """Such as "used on Tue at 03 h, usually 08-18 h (Europe/Berlin)"."""
    hour = int(reading.a)
    when = f"used on {DAYS[hour // 24]} at {hour % 24:02d} h"
    zone = context.time_zone or "UTC"
    if reading.b == 1.0:
        return f"{when} ({zone}), outside its declared business hours"
    if (hour % 24 - reading.low) % 24 <= (reading.high - reading.low) % 24:  # rare between its usual hours
        return f"{when} ({zone}), an hour in which {_who(context)} rarely used"
    return f"{when}, usually {reading.low:02.0f}-{reading.high:02.0f} h ({zone})"


def _who(context: Context) -> str:
    """Of a key that is known for hours nothing is known of its week."""
    young = context.seen_days < YOUNG_DAYS
    return f"keys like it (known for {known_words(context.seen_days)}) are" if young else "it is"


DETECTOR: Final = Detector(
    name="off_hours",
    family="time",
    unit="hour of day",
    state=STATE,
    shared=NOTHING,
    config=OffHours(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
    prepare=prepare,
)
