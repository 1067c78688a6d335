"""The values of one open set that a key's visits bring (networks, countries, clients): which are known, since when.

A known value has one slot, the weakest gives way; a visit's own values wait until it is settled, so that a value is
as new at a visit's last event as at its first. What the hour before an incident's visit brought is taken back again
(`forget_lately`): so learning lags by more than the visit. How probable a new value is, `novelty` says.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors import novelty
from detectors.compile import compiled
from detectors.detector import DECLARED_LEAKED

HOUR_US: Final = 3_600_000_000
COUNT_UNIT: Final = 16  # a count of 1 visit is 16
YEAR_H: Final = 8_760
ADMITTED: Final = 0x8000
"""Bit of `with_`, above those of slots: a person has said that the value is the key's."""
OWN_H: Final = 7 * 24
"""A value that a key brought so long before its secret was public is its owner's; as the fence has it."""
LEAK_BITS: Final = 32.0
SLOT: Final = np.dtype([("value", "u4"), ("count", "u2"), ("first_h", "u2"), ("last_h", "u2"), ("with_", "u2")])
"""One known value; count in 1/16 visits; hours since the epoch modulo 65,536; `with_`: the slots it occurs with."""
WAITING: Final = np.dtype([("value", "u4"), ("p", "f4")])
"""One value of the running visit; p: its probability when first seen, 1 where known."""


@compiled
def hours(ts_us: int) -> int:
    """Hours since the epoch modulo 65,536."""
    return ts_us // HOUR_US % 65_536


@compiled
def find(slots: Any, value: int) -> int:
    """Index of a value, -1 if it is not there."""
    for j in range(len(slots)):
        if slots[j].value == value:
            return j
    return -1


@compiled
def is_young(slots: Any, value: int, ts_us: int, config: Any) -> bool:
    """Whether the slow rule takes this known value for new."""
    j = find(slots, value)
    return j >= 0 and (hours(ts_us) - slots[j].first_h) % 65_536 < config.slow_days * 24.0


@compiled
def has_room(slots: Any) -> bool:
    """Whether a slot was never needed: no value was ever forgotten for another."""
    for j in range(len(slots)):  # noqa: SIM110
        if slots[j].value == 0 and slots[j].last_h == 0:
            return True
    return False


@compiled
def is_strangers(slots: Any, value: int, visit: Any, event: Any) -> bool:
    """Whether whoever holds a key whose secret is public brings a value that its owner didn't have before that.

    A key that was not used 7 days before has no owner's ways to tell by, and one with more values than there are slots
    may have had this one.
    """
    if event.declared & DECLARED_LEAKED == 0 or event.authenticated != 1:
        return False
    now_h = hours(event.ts_us)
    since_h = (now_h - int(event.leaked_h)) % 65_536
    if (event.ts_us - visit.first_seen_us) // HOUR_US - since_h < OWN_H:
        return False
    j = find(slots, value)
    if j < 0:
        return has_room(slots)
    return (now_h - int(slots[j].first_h)) % 65_536 - since_h < OWN_H


@compiled
def wait(waiting: Any, value: int, p: float) -> bool:
    """Keep a value of this visit; False if it was there or there is no room."""
    for j in range(len(waiting)):
        if waiting[j].value == value:
            return False
        if waiting[j].value == 0:
            waiting[j].value = value
            waiting[j].p = p
            return True
    return False


@compiled
def faded(slot: Any, now_h: int) -> float:
    """The slot's count now, in 1/16 visits."""
    return slot.count * novelty.fade((now_h - slot.last_h) % 65_536 * HOUR_US)


@compiled
def weakest(slots: Any, now_h: int) -> int:
    """An empty slot, else the one with the lowest decayed count."""
    best, lowest = 0, 1e18
    for j in range(len(slots)):
        count = faded(slots[j], now_h) if slots[j].value != 0 else -1.0
        if count < lowest:
            best, lowest = j, count
    return best


@compiled
def any_new(waiting: Any) -> bool:
    """Whether the visit brought a value that was new."""
    for j in range(len(waiting)):  # noqa: SIM110
        if waiting[j].value != 0 and float(waiting[j].p) < 1.0:
            return True
    return False


@compiled
def keep(slots: Any, value: int, ts_us: int, old: bool) -> int:
    """Count one visit of a value; a new one takes the slot with the lowest decayed count. Returns its index."""
    now_h = hours(ts_us)
    j = find(slots, value)
    if j < 0:
        j = weakest(slots, now_h)
        for k in range(len(slots)):
            slots[k].with_ = int(slots[k].with_) & (65_535 - (1 << j))
        slots[j].value = value
        slots[j].count = 0
        slots[j].with_ = 0
        slots[j].first_h = (now_h - YEAR_H) % 65_536 if old else now_h
    else:
        slots[j].count = int(faded(slots[j], now_h) + 0.5)
    slots[j].count = min(65_535, int(slots[j].count) + COUNT_UNIT)
    slots[j].last_h = now_h
    return j


@compiled
def drop(slots: Any, j: int) -> None:
    """Empty a slot. One of a full table stays one (`last_h` 1): the value that gave way to it is not known."""
    room = has_room(slots)
    for k in range(len(slots)):
        slots[k].with_ = int(slots[k].with_) & (65_535 - (1 << j))
    slots[j].value = 0
    slots[j].count = 0
    slots[j].first_h = 0
    slots[j].last_h = 0 if room else 1
    slots[j].with_ = 0


@compiled
def forget_lately(slots: Any, visit: Any) -> int:
    """Take back what the hour before a visit brought in which an incident opened; returns the slots, one bit each.

    By whole hours: values first seen in the clock hour in which the visit began, or in the one before. What a key
    brought in its first visit is its own (`keep`), and so is what a person admitted. How often new values come stays
    as it was counted.
    """
    start_h, dropped = hours(visit.start_us), 0
    for j in range(len(slots)):
        lately = slots[j].value != 0 and (start_h - int(slots[j].first_h)) % 65_536 <= 1
        if lately and int(slots[j].with_) & ADMITTED == 0:
            drop(slots, j)
            dropped |= 1 << j
    return dropped


@compiled
def p_value(waiting: Any, slots: Any, mixture: Any, value: int, ts_us: int) -> float:
    """How probable a value that new was when this visit first brought it; 1 where it is known."""
    j = find(waiting, value)
    if j >= 0:
        return float(waiting[j].p)
    return 1.0 if find(slots, value) >= 0 else novelty.p_new(mixture, ts_us)


@compiled
def clear(waiting: Any) -> None:
    """The visit's values are used or dropped."""
    for j in range(len(waiting)):
        waiting[j].value = 0
        waiting[j].p = 0.0
