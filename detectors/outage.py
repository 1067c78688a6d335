"""Is the API itself failing? A shared table of routes: each route's error share over the last minutes, by key.

A key's 5xx and 429 on a route say nothing of the key while most OTHER keys get the same there. The judge is the
median over the other keys' shares (one broken client cannot move it; design, issue 3, section 6); with fewer than
`OTHERS_MIN` other keys it abstains. Direct-mapped, fixed size: a route that finds its cell taken by a live one is not
watched, which only means no discount.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.compile import compiled

CELLS: Final = 128
KEYS: Final = 8
WINDOW_US: Final = 300_000_000
OTHERS_MIN: Final = 3

SHARE: Final = np.dtype([("since_us", "i8"), ("slot", "i4"), ("requests", "u2"), ("failed", "u2")], align=True)
"""One key's requests on this route in the window that began at `since_us` (0: unused)."""
TABLE: Final = np.dtype(
    [("last_us", "i8", (CELLS,)), ("route", "u4", (CELLS,)), ("keys", SHARE, (CELLS, KEYS))], align=True
)


@compiled
def see(table: Any, route: int, slot: int, ts_us: int, failed: bool) -> None:
    """Count one request of a key on a route."""
    cell = route % CELLS
    if table.route[cell] != route:
        if ts_us - table.last_us[cell] < WINDOW_US:
            return
        table.route[cell] = route
        for k in range(KEYS):
            table.keys[cell, k].since_us = 0
    table.last_us[cell] = max(table.last_us[cell], ts_us)
    share = table.keys[cell, place_of(table, cell, slot)]
    if share.slot != slot or share.since_us == 0 or ts_us - share.since_us >= WINDOW_US:
        share.slot = slot
        share.since_us = ts_us
        share.requests = 0
        share.failed = 0
    if share.requests < 65_535:
        share.requests += 1
        share.failed += 1 if failed else 0


@compiled
def place_of(table: Any, cell: int, slot: int) -> int:
    """This key's place in the cell, else the one whose window began first."""
    oldest = 0
    for k in range(KEYS):
        share = table.keys[cell, k]
        if share.since_us != 0 and share.slot == slot:
            return k
        if share.since_us < table.keys[cell, oldest].since_us:
            oldest = k
    return oldest


@compiled
def median_of_others(table: Any, route: int, slot: int, ts_us: int) -> float:
    """The (lower) median of the other keys' error shares on this route lately; 0 where there are too few."""
    cell = route % CELLS
    if route == 0 or table.route[cell] != route:
        return 0.0
    others = 0
    for k in range(KEYS):
        if is_other(table.keys[cell, k], slot, ts_us):
            others += 1
    if others < OTHERS_MIN:
        return 0.0
    for k in range(KEYS):
        if is_other(table.keys[cell, k], slot, ts_us) and rank(table, cell, k, slot, ts_us) == (others - 1) // 2:
            return share_of(table.keys[cell, k])
    return 0.0


@compiled
def is_other(share: Any, slot: int, ts_us: int) -> bool:
    """Another key's share, and a recent one."""
    return share.since_us != 0 and share.slot != slot and abs(ts_us - share.since_us) < WINDOW_US


@compiled
def share_of(share: Any) -> float:
    """Failed / requests."""
    return float(share.failed) / max(1.0, float(share.requests))


@compiled
def rank(table: Any, cell: int, k: int, slot: int, ts_us: int) -> int:
    """How many other keys' shares are smaller (ties by place)."""
    own = share_of(table.keys[cell, k])
    smaller = 0
    for j in range(KEYS):
        if j != k and is_other(table.keys[cell, j], slot, ts_us):
            share = share_of(table.keys[cell, j])
            if share < own or (share == own and j < k):
                smaller += 1
    return smaller
