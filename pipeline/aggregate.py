"""Counts per key and minute, per key and hour, and per key, source and hour: full values, kept until they are final.

A window is in state from its first event until the watermark passes its end (the watermark already lags by the
lateness). An event that comes later still starts another *life* of the window, named by its own offset (`part`), so
that it can never overwrite the whole by a fragment. Whether an event extends a life depends on the log alone, never
on when a finished life is taken out of state: results don't depend on where a slice ends.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.detector import attested
from schemas.rows import LATENCY_BOUNDS_MS

Array = np.ndarray[Any, Any]

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 3_600_000_000
BOUNDS: Final = np.array(LATENCY_BOUNDS_MS, np.float64)
NAMELESS: Final[Any] = np.uint32(0)
NOWHERE: Final[Any] = np.uint64(0)
STATELESS: Final[Any] = np.uint16(0)
MOST_SOURCES: Final = 1_000
"""Rows of a key's hour by source. Beyond them they have no route and no client; beyond twice as many no network."""

_COUNTS: Final = [
    ("requests", "u4"),
    ("errors", "u4", (7,)),  # by detectors.detector.ERROR_*; [0] is no error
    ("bytes_in", "i8"),
    ("bytes_out", "i8"),
]

WINDOW: Final = np.dtype(
    [
        ("start_us", "i8"),
        ("until_us", "i8"),  # watermark at which this life is final
        ("first_offset", "i8"),
        ("last_offset", "i8"),
        ("first_us", "i8"),
        ("last_us", "i8"),
        *_COUNTS,
        ("latency_sum_ms", "f8"),
        ("addresses", "u8", (4,)),  # bitmaps for linear counting
        ("routes", "u8", (4,)),
        ("countries", "u8"),
        ("latency", "u4", (16,)),
        ("latency_max_ms", "f4"),
        ("top_bits", "f4"),
        ("slot", "i4"),
        ("next", "i4"),  # row number + 1 of the key's next window; 0 ends the chain
        ("top_detector", "i2"),
        ("live", "u1"),  # 0: the row is free
        ("sources", "u2", (2,)),  # of an hour: rows by source that it has; of callers who did not hold the key, who did
    ],
    align=True,
)
"""One life of one key's minute or hour. Times in us UTC."""

SOURCE: Final = np.dtype(
    [
        ("start_us", "i8"),
        ("until_us", "i8"),
        ("first_offset", "i8"),
        ("last_offset", "i8"),
        ("first_us", "i8"),
        ("last_us", "i8"),
        *_COUNTS,
        ("prefix_hash", "u8"),
        ("network", "u8"),  # what the row says in words: `source_texts.py`
        ("asn", "u4"),
        ("client_hash", "u4"),
        ("route_hash", "u4"),
        ("client_text", "u4"),
        ("route_text", "u4"),
        ("slot", "i4"),
        ("country", "u2"),
        ("outcome", "u1"),
        ("live", "u1"),
    ],
    align=True,
)
"""One life of one key's use from one source in one hour; what it is called is filled in when the row is made."""


@compiled
def _count(row: Any, event: Any) -> None:
    row.requests += 1
    row.errors[event.error] += 1
    row.bytes_in += event.bytes_in
    row.bytes_out += event.bytes_out
    row.last_offset = event.offset
    row.first_us = min(row.first_us, event.ts_us)
    row.last_us = max(row.last_us, event.ts_us)


@compiled
def _open(row: Any, event: Any, start_us: int, period_us: int, watermark_us: int, lateness_us: int) -> None:
    row.live = 1
    row.slot = event.slot
    row.start_us = start_us
    row.until_us = max(start_us + period_us, watermark_us + lateness_us)
    row.first_offset = event.offset
    row.first_us = event.ts_us
    row.last_us = event.ts_us


@compiled
def _bit(bitmap: Any, value: np.int64) -> None:
    bitmap[(value >> 6) & 3] |= np.uint64(1) << np.uint64(value & 63)


@compiled
def add_windows(
    events: Array, watermarks: Array, heads: Array, windows: Array, free: Array, n_free: int,
    touched: Array, period_us: int, lateness_us: int, bounds: Array,
) -> int:  # fmt: skip
    """Count every event that has a slot; `touched[i]` becomes its window's row. Returns how many rows stay free.

    free: int32 stack of free row numbers, of which the first `n_free` are valid; there must be one per event.
    """
    for i in range(len(events)):
        touched[i] = -1
        event = events[i]
        if event.slot < 0:
            continue
        start_us = event.ts_us - event.ts_us % period_us
        at = heads[event.slot] - 1
        while at >= 0 and not (windows[at].start_us == start_us and windows[at].until_us > watermarks[i]):
            at = windows[at].next - 1
        if at < 0:
            n_free -= 1
            at = free[n_free]
            _open(windows[at], event, start_us, period_us, watermarks[i], lateness_us)
            windows[at].next = heads[event.slot]
            heads[event.slot] = at + 1
        row = windows[at]
        _count(row, event)
        row.latency_sum_ms += event.latency_ms
        row.latency_max_ms = max(row.latency_max_ms, event.latency_ms)
        row.latency[np.searchsorted(bounds, event.latency_ms)] += 1
        mixed = np.uint64(event.address) * np.uint64(0x9E3779B97F4A7C15)
        if event.address != 0:
            _bit(row.addresses, np.int64(mixed >> np.uint64(40)))
        if event.route != 0:
            _bit(row.routes, np.int64((np.uint64(event.route) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)))
        if event.country != 0:
            row.countries |= np.uint64(1) << np.uint64((int(event.country) * 0x9E3779B1 >> 16) & 63)
        touched[i] = at
    return n_free


@compiled
def _source_hash(prefix: int, slot: int, route: int, client: int, start_us: int, outcome: int) -> np.int64:
    h = np.uint64(prefix) ^ (np.uint64(slot + 1) * np.uint64(0x9E3779B97F4A7C15))
    h = (h ^ (np.uint64(route) << np.uint64(32)) ^ np.uint64(client)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(29)) ^ np.uint64(start_us // 3_600_000_000)) * np.uint64(0x94D049BB133111EB)
    return np.int64((h ^ (np.uint64(outcome) << np.uint64(50)) ^ (h >> np.uint64(32))) >> np.uint64(2))


@compiled
def _same_source(
    row: Any, event: Any, prefix: int, asn: int, country: int, route: int, client: int, start_us: int
) -> bool:
    return bool(
        row.slot == event.slot
        and row.start_us == start_us
        and row.prefix_hash == prefix
        and row.route_hash == route
        and row.client_hash == client
        and row.outcome == event.outcome
        and row.asn == asn
        and row.country == country
    )


@compiled
def _spot(
    event: Any, prefix: int, asn: int, country: int, route: int, client: int, start_us: int, watermark_us: int,
    sources: Array, index: Array,
) -> int:  # fmt: skip
    """Where in the index the row of this source is, or would be."""
    mask = len(index) - 1
    spot = _source_hash(prefix, event.slot, route, client, start_us, event.outcome) & mask
    while index[spot] != 0:
        row = sources[index[spot] - 1]
        if _same_source(row, event, prefix, asn, country, route, client, start_us) and row.until_us > watermark_us:
            break
        spot = (spot + 1) & mask
    return int(spot)


@compiled
def add_sources(
    events: Array, watermarks: Array, prefixes: Array, sources: Array, index: Array, free: Array,
    n_free: int, touched: Array, made: Array, period_us: int, lateness_us: int, hours: Array, hour: Array,
) -> int:  # fmt: skip
    """As `add_windows`, by source. `index`: open addressing, int32 row + 1, a power of two, at most half full.

    `made[i]` is 1 where the event made a row, which the caller says in words. What callers who did not hold the key
    asked for, and with what, makes no rows: they may make up as many routes and clients as they like. Nor may who holds
    it make more than some: `MOST_SOURCES`, each kind of caller for itself. `hour[i]`: the event's row of `hours`.
    """
    for i in range(len(events)):
        touched[i] = -1
        made[i] = 0
        event = events[i]
        if event.slot < 0:
            continue
        start_us = event.ts_us - event.ts_us % period_us
        held = attested(event)
        route, client = event.route if held else NAMELESS, event.client if held else NAMELESS
        prefix, asn, country, at = prefixes[i], event.asn, event.country, watermarks[i]
        spot = _spot(event, prefix, asn, country, route, client, start_us, at, sources, index)
        rows = hours[hour[i]].sources
        kind = 1 if held else 0
        if index[spot] == 0 and rows[kind] >= MOST_SOURCES:
            route, client = NAMELESS, NAMELESS
            spot = _spot(event, prefix, asn, country, route, client, start_us, at, sources, index)
        if index[spot] == 0 and rows[kind] >= 2 * MOST_SOURCES:
            prefix, asn, country = NOWHERE, NAMELESS, STATELESS
            spot = _spot(event, prefix, asn, country, route, client, start_us, at, sources, index)
        if index[spot] == 0:
            rows[kind] += 1
            n_free -= 1
            index[spot] = free[n_free] + 1
            made[i] = 1
            row = sources[free[n_free]]
            _open(row, event, start_us, period_us, watermarks[i], lateness_us)
            row.prefix_hash = prefix
            row.asn = asn
            row.country = country
            row.client_hash = client
            row.route_hash = route
            row.outcome = event.outcome
        _count(sources[index[spot] - 1], event)
        touched[i] = index[spot] - 1
    return n_free


@compiled
def rebuild_index(sources: Array, used: int, index: Array) -> None:
    """Fill the hash index anew from the live rows (after recovery, growth, or a sweep)."""
    mask = len(index) - 1
    index[:] = 0
    for at in range(used):
        row = sources[at]
        if row.live == 0:
            continue
        hashed = _source_hash(row.prefix_hash, row.slot, row.route_hash, row.client_hash, row.start_us, row.outcome)
        spot = hashed & mask
        while index[spot] != 0:
            spot = (spot + 1) & mask
        index[spot] = at + 1


@compiled
def unlink(windows: Array, heads: Array, gone: Array, linked: Array) -> int:
    """Take the rows `gone` (their `live` is 0 already) out of their keys' chains.

    linked: as long as `gone`; filled with the rows that stay and whose `next` was set. Returns how many.
    """
    n = 0
    for k in range(len(gone)):
        slot = windows[gone[k]].slot
        previous = -1
        at = heads[slot] - 1
        while at >= 0:
            following = windows[at].next - 1
            if windows[at].live == 0:
                if previous < 0:
                    heads[slot] = following + 1
                else:
                    windows[previous].next = following + 1
                    if n == 0 or linked[n - 1] != previous:
                        linked[n] = previous
                        n += 1
            else:
                previous = at
            at = following
    return n


def distinct(bitmaps: Array) -> Array:
    """Linear counting (Whang et al., 1990): rows x words of bitmap -> estimated distinct values, as int64."""
    bits = bitmaps.shape[1] * 64
    zeros = bits - np.bitwise_count(bitmaps).sum(axis=1, dtype=np.int64)
    return np.rint(-bits * np.log(np.maximum(zeros, 1) / bits)).astype(np.int64)
