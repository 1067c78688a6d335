"""The level of a key's requests (spike's model): level x rhythm, growth held back, and the rate of its peers.

Level: requests over profile-weighted awake hours, half-life 7 days of use. Profile: 24 hours x weekday or weekend,
smoothed over five hours and shrunk. Growth: the level counts for at most four times a 90-day anchor that is itself
fed at most 1.5 times itself. Source: reference/forecasting.md section 3, evidence.md section 5. Fields are spike's.
"""

from __future__ import annotations

import math
from typing import Any, Final

from detectors.compile import compiled

SLOTS: Final = 48  # 24 hours of a weekday, 24 of a day of the weekend
DAILY_PRIOR: Final = 200.0 / 24.0  # usual hours per hour of the day
WEEKLY_PRIOR: Final = 800.0 / 168.0  # per hour of the week; 20 instead of 800 doubles the tail at 8 bits
SLOT_UNIT: Final = 64.0  # of a stored profile weight; one usual hour weighs 1
LEVEL_KEEP: Final = 0.9958825236200119  # 2^(-1/168): 7 days of awake hours
ANCHOR_KEEP: Final = 0.9996791457195462  # 2^(-1/2160): 90 days
YOUNG_H: Final = 24.0  # awake hours until a key is judged by itself alone
PEERS_LEAST: Final = 20.0  # awake key-days before the peers' rate replaces the shipped one
PEERS_MEMORY: Final = 2000.0  # key-days


@compiled
def slot_of(hour: int, shift: int) -> int:
    """Profile slot of an hour since the epoch, in the key's own time: weekday 0..23, weekend 24..47."""
    week_hour = (hour + 72 + shift) % 168  # the epoch was a Thursday, the week begins on Monday
    return week_hour % 24 + (24 if week_hour >= 120 else 0)


@compiled
def kernel(distance: int) -> float:
    """The profile's smoothing over hours."""
    if distance == 0:
        return 0.40
    return 0.24 if abs(distance) == 1 else 0.06


@compiled
def profile_factor(state: Any, hour: int) -> float:
    """How busy this hour of the week is, the mean hour being 1; shrunk weekly shape <- daily shape <- flat.

    The type of day counts by the hours that were seen of it, not as 5 or 2 of 7: else a key's first week teaches
    that weekends are empty, and the first weekend rings (measured: 48 times nominal at 13 bits for 3,000 an hour).
    """
    shift = int(state.zone_shift)
    total = 0.0
    for slot in range(SLOTS):
        total += float(state.profile[slot])
    total /= SLOT_UNIT
    both = 0.0
    own = 0.0
    for distance in range(-2, 3):
        slot = slot_of(hour + distance, shift)
        here = float(state.profile[slot]) / SLOT_UNIT
        other = float(state.profile[(slot + 24) % SLOTS]) / SLOT_UNIT
        both += kernel(distance) * (here + other)
        own += kernel(distance) * here
    daily = (both + DAILY_PRIOR) / (total / 24.0 + DAILY_PRIOR)
    weekend = 1 if slot_of(hour, shift) >= 24 else 0
    seen = float(state.hours_seen[0]) + float(state.hours_seen[1])
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
def peer_reach(shared: Any, config: Any) -> float:
    """Requests an hour of a very busy peer: two standard deviations above the usual one."""
    spread = float(config.peer_spread)
    if float(shared.keys) >= PEERS_LEAST:
        spread = max(1.0, math.sqrt(float(shared.spread)))
    return peer_rate(shared, config) * math.exp(2.0 * min(4.0, spread))


@compiled
def youth(state: Any) -> float:
    """1 for a key never seen, 0 after its first 24 awake hours."""
    return max(0.0, 1.0 - int(state.awake_h) / YOUNG_H)


@compiled
def level_of(state: Any, shared: Any, config: Any) -> float:
    """Requests in the key's mean awake hour, held below the cap on growth."""
    level = (float(state.seen) + 0.5) / (float(state.exposed) + 0.5 / peer_rate(shared, config))
    if int(state.awake_h) < 7 * 24:
        return level
    return min(level, max(1e-4, float(config.anchor_cap) * float(state.anchor)))


@compiled
def learn_hour(state: Any, shared: Any, config: Any, hour: int, n: float) -> None:
    """One closed hour into level, profile, anchor and, once a day, into the peers' rate."""
    level = level_of(state, shared, config)
    factor = profile_factor(state, hour)
    room = float(config.clip) * (level * factor + 1.0) * (1.0 + 24.0 / (float(state.exposed) + 1.0))
    x = min(n, room)
    state.seen = LEVEL_KEEP * float(state.seen) + x
    state.exposed = LEVEL_KEEP * float(state.exposed) + factor
    slot = slot_of(hour, int(state.zone_shift))
    grown = float(state.profile[slot]) + min(24.0, x / level) * SLOT_UNIT
    state.profile[slot] = int(min(65535.0, grown + 0.5))
    weekend = 1 if slot >= 24 else 0
    state.hours_seen[weekend] = float(state.hours_seen[weekend]) + 1.0
    state.awake_h = int(state.awake_h) + 1
    if int(state.awake_h) % 168 == 0:
        fade_profile(state)
    move_anchor(state, shared, config)
    if hour % 24 == 0 and int(state.awake_h) >= 24:
        tell_peers(state, shared, config)


@compiled
def fade_profile(state: Any) -> None:
    """A quarter of 28 days has passed: 2^(-7/28); a week at a time, since two bytes hold no smaller step."""
    for slot in range(SLOTS):
        state.profile[slot] = int(float(state.profile[slot]) * 0.8408964152537145 + 0.5)
    for weekend in range(2):
        state.hours_seen[weekend] = float(state.hours_seen[weekend]) * 0.8408964152537145


@compiled
def move_anchor(state: Any, shared: Any, config: Any) -> None:
    """The slow level: a plain mean in the first week, then 90 days, fed at most 1.5 times itself."""
    level = (float(state.seen) + 0.5) / (float(state.exposed) + 0.5 / peer_rate(shared, config))
    anchor = float(state.anchor)
    if int(state.awake_h) <= 7 * 24:
        state.anchor = level
        return
    gain = max(1.0 - ANCHOR_KEEP, 1.0 / (1.0 + int(state.awake_h)))
    state.anchor = anchor + gain * (min(level, 1.5 * anchor) - anchor)


@compiled
def tell_peers(state: Any, shared: Any, config: Any) -> None:
    """One awake key-day: mean and variance of the logarithm of the level."""
    x = math.log(max(1e-3, level_of(state, shared, config)))
    shared.keys = min(PEERS_MEMORY, float(shared.keys) + 1.0)
    gain = 1.0 / float(shared.keys)
    off = x - float(shared.log_rate)
    shared.log_rate = float(shared.log_rate) + gain * off
    shared.spread = (1.0 - gain) * (float(shared.spread) + gain * off * off)
