"""The level of a key's requests (spike's model): level x rhythm, growth held back, and the rate of its peers.

Level: requests over profile-weighted awake hours, half-life 7 days of use. Profile: 24 hours x weekday or weekend,
smoothed over five hours and shrunk. Growth: the level counts for at most four times a 90-day anchor that is itself
fed at most 1.5 times itself, and grows by 10 % a day and twofold in 28 days of use at most (`hold_growth`).
Source: reference/forecasting.md section 3, evidence.md section 5. Fields are spike's.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.repetition import USUAL_LEAST
from detectors.teaching import teaches

SLOTS: Final = 48  # 24 hours of a weekday, 24 of a day of the weekend
DAILY_PRIOR: Final = 200.0 / 24.0  # usual hours per hour of the day
WEEKLY_PRIOR: Final = 800.0 / 168.0  # per hour of the week; 20 instead of 800 doubles the tail at 8 bits
SLOT_UNIT: Final = 64.0  # of a stored profile weight; one usual hour weighs 1
LEVEL_KEEP: Final = 0.9958825236200119  # 2^(-1/168): 7 days of awake hours
ANCHOR_KEEP: Final = 0.9996791457195462  # 2^(-1/2160): 90 days
HOUR_US: Final = 3_600_000_000
WEEK_H: Final = 7 * 24
MONTH_H: Final = 28 * 24
AWAKE_MOST: Final = 97 * MONTH_H - 1  # then 28 days back, so that periods go on and two bytes hold it
GROWTH_H: Final = 1.0039791636705225  # 1.1^(1/24)
ROOT_2: Final = 1.4142135623730951
YOUNG_H: Final = 24.0  # awake hours until a key is judged by itself alone
PEERS_LEAST: Final = 20.0  # awake key-days before the peers' rate replaces the shipped one
PEERS_MEMORY: Final = 2000.0  # key-days


@compiled
def slot_of(hour: int, shift: int) -> int:
    """Profile slot of an hour since the epoch, in the key's own time: weekday 0..23, weekend 24..47."""
    week_hour = (hour + 72 + shift) % 168  # the epoch was a Thursday, the week begins on Monday
    return week_hour % 24 + (24 if week_hour >= 120 else 0)


@compiled
def profile_factor(state: Any, hour: int) -> float:
    """How busy this hour of the week is, the mean hour being 1; shrunk weekly shape <- daily shape <- flat.

    The type of day counts by the hours that were seen of it, not as 5 or 2 of 7: else a key's first week teaches
    that weekends are empty, and the first weekend rings (measured: 48 times nominal at 13 bits for 3,000 an hour).
    """
    shift = int(state.zone_shift)
    total = int(state.profile_sum) / SLOT_UNIT
    both = 0.0
    own = 0.0
    for distance in range(-2, 3):
        slot = slot_of(hour + distance, shift)
        here = float(state.profile[slot]) / SLOT_UNIT
        other = float(state.profile[slot - 24 if slot >= 24 else slot + 24]) / SLOT_UNIT
        kernel = 0.40 if distance == 0 else (0.24 if abs(distance) == 1 else 0.06)
        both += kernel * (here + other)
        own += kernel * here
    daily = (both + DAILY_PRIOR) / (total / 24.0 + DAILY_PRIOR)
    weekend = 1 if slot_of(hour, shift) >= 24 else 0
    seen = 0.0 + float(state.hours_seen[0]) + float(state.hours_seen[1])  # 0.0: compiled, two f4 add in 32 bits
    share = float(state.hours_seen[weekend]) / seen if seen > 0.0 else 0.0
    prior = WEEKLY_PRIOR * (2.0 if weekend == 1 else 5.0)
    return max(0.02, (own + prior * daily) / (total * share / 24.0 + prior))


@compiled
def peer_rate(shared: Any, config: Any) -> float:
    """Requests an hour of the usual peer."""
    if float(shared.keys) < PEERS_LEAST:
        return float(config.peer_rate_h)
    return math.exp(min(14.0, max(-5.0, float(shared.log_rate))))


@compiled
def peer_reach(shared: Any, config: Any, peer: float) -> float:
    """Requests an hour of a very busy peer: two standard deviations above the usual one, whose rate is `peer`."""
    spread = float(config.peer_spread)
    if float(shared.keys) >= PEERS_LEAST:
        spread = max(1.0, math.sqrt(float(shared.spread)))
    return peer * math.exp(2.0 * min(4.0, spread))


@compiled
def youth(state: Any) -> float:
    """1 for a key never seen, 0 after its first 24 awake hours."""
    return max(0.0, 1.0 - int(state.awake_h) / YOUNG_H)


@compiled
def young_reach(state: Any, shared: Any, config: Any, peer: float) -> float:
    """Requests an hour of a very busy peer, as far as the key is young."""
    young = youth(state)
    return young * peer_reach(shared, config, peer) if young > 0.0 else 0.0


@compiled
def level_of(state: Any, peer: float, anchor_cap: float) -> float:
    """Requests in the key's mean awake hour, held below the cap on growth. peer: requests an hour of a usual peer."""
    level = (float(state.seen) + 0.5) / (float(state.exposed) + 0.5 / peer)
    if int(state.awake_h) < WEEK_H:
        return level
    return min(level, np.float64(state.held), max(1e-4, anchor_cap * float(state.anchor)))


@compiled
def free_level(state: Any) -> float:
    """The same without caps and without peers: requests an awake hour, over a week of use."""
    return float(state.seen) / max(1.0, float(state.exposed))


@compiled
def learn_hour(
    state: Any, hour: int, n: float, level: float, factor: float, peer: float, clip: float, anew: int
) -> None:
    """One closed hour of n requests, where level x factor were forecast, into level, profile and anchor.

    anew: VISIT's; what was adopted is held by nothing, not by the anchor either.
    """
    room = clip * (level * factor + 1.0) * (1.0 + 24.0 / (float(state.exposed) + 1.0))
    x = min(n, room)
    state.seen = LEVEL_KEEP * float(state.seen) + x
    state.exposed = LEVEL_KEEP * float(state.exposed) + factor
    slot = slot_of(hour, int(state.zone_shift))
    if x > 0.0:
        room_left = 65535 - int(state.profile[slot])
        grown = min(room_left, math.floor(min(24.0, x / level) * SLOT_UNIT + 0.5))
        state.profile[slot] = int(state.profile[slot]) + grown
        state.profile_sum = int(state.profile_sum) + grown
    weekend = 1 if slot >= 24 else 0
    state.hours_seen[weekend] = float(state.hours_seen[weekend]) + 1.0
    state.awake_h = int(state.awake_h) + (1 if int(state.awake_h) < AWAKE_MOST else 1 - MONTH_H)
    if int(state.awake_h) % 168 == 0:
        fade_profile(state)
    move_anchor(state, peer, anew != 0)
    hold_growth(state, peer, anew != 0)


@compiled
def fade_profile(state: Any) -> None:
    """A quarter of 28 days has passed: 2^(-7/28); a week at a time, since two bytes hold no smaller step."""
    total = 0
    for slot in range(SLOTS):
        faded = math.floor(float(state.profile[slot]) * 0.8408964152537145 + 0.5)
        state.profile[slot] = faded
        total += faded
    state.profile_sum = total
    for weekend in range(2):
        state.hours_seen[weekend] = float(state.hours_seen[weekend]) * 0.8408964152537145


@compiled
def move_anchor(state: Any, peer: float, anew: bool) -> None:
    """The slow level: a plain mean in the first week, then 90 days, fed at most 1.5 times itself."""
    level = (float(state.seen) + 0.5) / (float(state.exposed) + 0.5 / peer)
    anchor = float(state.anchor)
    if int(state.awake_h) <= 7 * 24 or (anew and level > anchor):
        state.anchor = level
        return
    gain = max(1.0 - ANCHOR_KEEP, 1.0 / (1.0 + int(state.awake_h)))
    state.anchor = anchor + gain * (min(level, 1.5 * anchor) - anchor)


@compiled
def hold_growth(state: Any, peer: float, anew: bool) -> None:
    """The level that is believed follows downwards at once, upwards by GROWTH_H an hour and root 2 in 28 days of use.

    So that it is never above twice what was believed within the 28 days before the last 28; to come back from a low is
    no growth. Nor is one request an hour more: what is said of the level holds for level + 1.
    """
    level = (float(state.seen) + 0.5) / (float(state.exposed) + 0.5 / peer)
    if int(state.awake_h) <= WEEK_H:
        state.held = level
        state.base = level
        begin_period(state)
        return
    daily = (np.float64(state.held) + 1.0) * GROWTH_H - 1.0
    monthly = (np.float64(state.base) + 1.0) * ROOT_2 - 1.0
    state.held = level if anew else min(level, daily, monthly)
    if anew:
        state.base = max(level, np.float64(state.base))
    if int(state.awake_h) % MONTH_H == 0:
        state.base = np.float64(state.held)
        begin_period(state)


@compiled
def begin_period(state: Any) -> None:
    """28 days of use begin: crowds and repetitions take what is usual now for their base."""
    for w in range(state.crowd_base.shape[0]):
        state.crowd_base[w] = 0
    if int(state.usual_same) >= USUAL_LEAST:
        state.same_base = 0


@compiled
def tell_peers(state: Any, shared: Any, level: float) -> None:
    """One awake key-day: mean and variance of the logarithm of the level."""
    x = math.log(max(1e-3, level))
    shared.keys = min(PEERS_MEMORY, float(shared.keys) + 1.0)
    gain = 1.0 / float(shared.keys)
    off = x - float(shared.log_rate)
    shared.log_rate = float(shared.log_rate) + gain * off
    shared.spread = (1.0 - gain) * (float(shared.spread) + gain * off * off)


@compiled
def close_hours(state: Any, shared: Any, visit: Any, config: Any, last_hour: int, until: int) -> tuple[int, float]:
    """Close the open hour and the empty ones after it, before hour `until`, to a day after the newest event's at most.

    Returns how many whole hours after `last_hour`, the newest event's, were empty, and their mean forecast.
    """
    peer = peer_rate(shared, config)
    empty = 0
    due = 0.0
    for hour in range(int(state.hour), min(until - 1, last_hour + 24) + 1):
        level = level_of(state, peer, float(config.anchor_cap))
        factor = profile_factor(state, hour)
        if hour > last_hour:
            empty += 1
            due += level * factor
        if hour * HOUR_US > int(state.tainted_us):
            n = float(state.hour_seen) if hour == int(state.hour) else 0.0
            learn_hour(state, hour, n, level, factor, peer, float(config.clip), int(visit.anew))
            if hour % 24 == 0 and int(state.awake_h) >= YOUNG_H and teaches(visit):
                tell_peers(state, shared, level)
    if until > int(state.hour):
        state.hour_seen = 0
        state.rate_known = 0
    return empty, due / max(1, empty)


@compiled
def renew_rate(state: Any, shared: Any, config: Any, hour: int) -> None:
    """The forecast of another hour, or a newly learned one: what is known of the windows begins anew."""
    peer = peer_rate(shared, config)
    state.rate = level_of(state, peer, float(config.anchor_cap)) * profile_factor(state, hour)
    state.reach = young_reach(state, shared, config, peer)
    state.rate_known = 1
    for w in range(state.until.shape[0]):
        state.until[w] = 0
