"""Who gets state, what counts twice, what comes too late; and the partition's time, which is in the log.

Watermark = the greatest min(event time, record timestamp) so far, less the lateness: an event from the future can't
move it. A key that the catalogue knows has state from its first event; an unknown one from its first *authenticated*
event, since anybody can send junk under a made-up id. Until then its events are stored, but nothing is learned.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from itertools import compress, repeat
from typing import Any, Final

import numpy as np

from detectors.compile import brief
from detectors.detector import attested
from pipeline.core import Slice
from pipeline.decode import Decoded, reject
from pipeline.fields import Fields
from pipeline.state.partition import LATE_REPEATS, REPEATS, State
from schemas.event import AUTHENTICATED
from schemas.key import Key

Array = np.ndarray[Any, Any]
STRAY: Final = "the key belongs to another partition: is the producers' partitioner the one in worker.partitioner?"


def watermarks(batch: Slice, at: Array, ts_us: Array, start_us: int, lateness_us: int) -> tuple[Array, int]:
    """(watermark BEFORE each event, watermark after the slice), both us; `at` as in `Decoded`."""
    records_us = np.asarray(batch.timestamps_ms, np.int64) * 1000
    floor = np.iinfo(np.int64).min // 2
    moves = np.full(len(records_us) + 1, floor, np.int64)
    moves[0] = start_us
    for tick in batch.ticks:
        moves[tick + 1] = records_us[tick] - lateness_us
    stamped = np.where(records_us[at] > 0, np.minimum(ts_us, records_us[at]), ts_us)
    moves[at + 1] = stamped - lateness_us
    reached = np.maximum.accumulate(moves)
    return reached[at], int(reached[-1])


def without_strays(batch: Slice, decoded: Decoded, known: Mapping[str, int], is_home: Callable[[str], bool]) -> Decoded:
    """Without the events whose key belongs to another partition: their state would be split in two.

    known: keys that have state, which are at home.
    """
    keys = decoded.told.coded("key_id")
    new = compress(enumerate(keys.values), map(operator.not_, map(known.__contains__, keys.values)))
    away = [code for code, key_id in new if not is_home(key_id)]
    if not away:
        return decoded
    stray = np.isin(keys.codes, away)
    for i in np.flatnonzero(stray)[::-1].tolist():
        at = int(decoded.at[i])
        decoded.rejects.append(reject(batch, at, "wrong_partition", STRAY, decoded.told.event(i)))
    kept = np.flatnonzero(~stray)
    return Decoded(decoded.told.take(kept), decoded.at[kept], decoded.rejects)


def slots(state: State, told: Fields, declared: Callable[[str], Key | None], limit: int, *, full: bool) -> Array:
    """Slots of the first events, -1 for a key without state; gives new keys their state.

    Stops before the first event that needs state where `limit` keys have it: then the caller judges what came so far,
    evicts, and calls again. With `full` nobody could be evicted and such a key stays without.
    """
    keys, outcomes = told.coded("key_id"), told.coded("outcome")
    known = map(state.slots.get, keys.values, repeat(-1))
    found: Array = np.fromiter(known, np.int64, len(keys.values)).take(keys.codes)
    for i in np.flatnonzero(found < 0).tolist():
        key_id = keys[i]
        if key_id in state.slots:
            found[i] = state.slots[key_id]
        elif (key := declared(key_id)) is not None or outcomes[i] in AUTHENTICATED:
            if len(state.slots) < limit:
                found[i] = state.add_key(key_id, key)
            elif not full:
                return found[:i]
    return found


@brief
def first_time(events: Array, book: Array, keep: Array, first_us: Array) -> int:
    """keep[i] = 0, and the slot -1, where the same request of the same key came within the key's last `REPEATS`.

    Of requests that came late, `LATE_REPEATS` places remember some, so that a mirror of old ones drives out no others.
    Returns how many did. A repeat has the time of what it repeats (`enrich.request_hashes`), so an event of its holder
    that is newer than all his others is none, whatever the hashes say; of the rest, 36 hashes of 32 bits take one in
    120 million for a repeat by chance. Asked of every event, that dropped one of two million in a run of the bench.
    Also keeps the book: when its holder's first event of the log was, and his latest one: refused requests in a key's
    name are no use of it. first_us[i] is his first, 0 where there was none. A late event moves neither, so that
    the row of a key's last use says the same wherever checkpoints lie. Events without state are kept: nothing remembers
    them.
    """
    repeats = 0
    for i in range(len(events)):
        keep[i] = 1
        event = events[i]
        if event.slot < 0:
            continue
        row = book[event.slot]
        request = np.uint32(event.request & np.uint64(0xFFFFFFFF))
        held = attested(event)
        if event.ts_us <= row.last_us or not held:
            for k in range(len(row.recent)):
                if row.recent[k] == request:
                    keep[i] = 0
        if keep[i] == 0:
            repeats += 1
            event.slot = -1
            continue
        if event.late == 1:
            row.recent[REPEATS + np.int64(request) % LATE_REPEATS] = request
        else:
            row.recent[row.recent_at % REPEATS] = request
            row.recent_at += 1
        if held:
            if event.ts_us == row.last_us:
                row.ties += 1
            elif event.ts_us > row.last_us:
                row.last_us, row.ties = event.ts_us, 0
            if row.first_us == 0:
                row.first_us = event.ts_us
        first_us[i] = row.first_us
    return repeats


def least_recent(state: State, limit: int) -> list[int]:
    """Slots to evict where the keys are full: the hundredth part longest unused, none under an open incident."""
    taken = np.array([slot for slot in state.slots.values() if slot not in state.open], np.int64)
    order = np.lexsort((taken, state.book.data["last_us"][taken]))
    return [int(slot) for slot in taken[order[: max(1, limit // 100)]]]
