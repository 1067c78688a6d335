"""Compiles all detectors of a tuple into one pass over a slice's events.

`compile_pass(detectors)` gives `run(keys, shared, events, start, configs, settings, found, changed)`:

 keys      KEY array (`key_dtype(detectors)`), one record per key of the partition; zeros = never seen
 shared    SHARED array of 1 (`shared_dtype(detectors)`), the partition's knowledge
 events    EVENT array in log order; slot -1 (no state) and late = 1 are passed over
 start     index to begin at
 configs   one array of one record per detector, in the tuple's order (`configs(detectors)`)
 settings  `config_record(fusion.Settings())`
 found     FOUND array and `changed` CHANGED array to fill from index 0
 returns   (next event, records in found, records in changed): if an array might not hold one more event's records
           the pass stops BEFORE that event; call again with it as `start`. Results do not depend on where it stops.

Order per event: close the incident whose time has passed -> settle the visit that ended -> score every detector ->
fuse -> open, extend or escalate -> learn. All that time brings about happens at the key's own next event, so slice
boundaries change nothing; `close_due` is the sweep for keys that stay silent and does what that next event would do.
From the opening event on nothing is learned (weight 0) and the visit is tainted, so its pending part is dropped;
until it is adopted (`fusion.adopts`). The first event that would be withheld and is learned all the same is told once:
by its own change of the incident, else as ADOPTED, whether or not an incident is open then.

A visit record at score and learn: `start_us` of this visit (this event, if it began it), `last_us` and `events` of
the events before this one (`last_us` 0: the key's first). At settle: the visit that ended, as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import numpy as np

from detectors import fusion
from detectors.calibration import CALIBRATION, return_days, seen_above
from detectors.compile import compiled
from detectors.detector import READING, VISIT, VISIT_GAP_US, VISIT_MAX_US, Detector, attested, config_record
from detectors.generate import load_pass
from detectors.records import records
from detectors.surprise import quantise
from detectors.teaching import lesson_of

FAMILIES: Final = fusion.FAMILIES
CHANGED: Final = fusion.CHANGED
FOUND: Final = np.dtype([("event", "i4"), ("detector", "i2"), ("pad0", "u1", (2,)), *READING.descr], align=True)
"""A READING with the event (index) and the detector (index in the tuple) it belongs to."""

Array = np.ndarray[Any, Any]
Run = Callable[[Array, Array, Array, int, tuple[Array, ...], Array, Array, Array], tuple[int, int, int]]


def key_dtype(detectors: Sequence[Detector]) -> np.dtype[Any]:
    """Everything that is kept of one key."""
    states = [(detector.name, detector.state) for detector in detectors]
    return np.dtype([("visit", VISIT), ("fusion", fusion.fusion_dtype(len(detectors))), *states], align=True)


def shared_dtype(detectors: Sequence[Detector]) -> np.dtype[Any]:
    """Everything that the keys of one partition share; since_us: the first event that it knows of."""
    parts = [(detector.name, detector.shared) for detector in detectors]
    return np.dtype([("since_us", "i8"), ("calibration", CALIBRATION), *parts], align=True)


def configs(
    detectors: Sequence[Detector], tables: dict[str, dict[str, float | int | bool]] | None = None
) -> tuple[Array, ...]:
    """The config records in the tuple's order; `tables` overrides fields. Raises ValueError for unknown names."""
    tables = tables or {}
    if unknown := set(tables) - {detector.name for detector in detectors}:
        raise ValueError(f"no such detector: {', '.join(sorted(unknown))}")
    return tuple(_config(detector, tables.get(detector.name, {})) for detector in detectors)


def _config(detector: Detector, table: dict[str, float | int | bool]) -> Array:
    known = set(detector.config.__struct_fields__)
    if unknown := set(table) - known:
        raise ValueError(f"[detectors.{detector.name}] has no setting {', '.join(sorted(unknown))}; known: {known}")
    return config_record(type(detector.config)(**{name: getattr(detector.config, name) for name in known} | table))


@compiled
def clear(reading: Any) -> None:
    """A reading that says nothing."""
    reading.bits = 0.0
    reading.lr_stranger = 0.0
    reading.lr_insider = 0.0
    reading.lr_stranger_slow = 0.0
    reading.observed = 0.0
    reading.low = 0.0
    reading.median = 0.0
    reading.high = 0.0
    reading.a = 0.0
    reading.b = 0.0
    reading.covered = 0
    reading.proof = 0


@compiled
def mark_place(visit: Any, event: Any, reading: Any) -> None:
    """A detector that finds places has found this visit's place new: the detectors after it in the tuple may know.

    Not by a refused request in its name: a new client is little news beside a new place.
    """
    if reading.covered == 1 and reading.bits > 0.0 and attested(event):
        visit.new_place = 1


@compiled
def put_found(row: Any, event: int, detector: int, reading: Any) -> None:
    """Fill one FOUND record."""
    row.event = event
    row.detector = detector
    row.bits = reading.bits
    row.lr_stranger = reading.lr_stranger
    row.lr_insider = reading.lr_insider
    row.lr_stranger_slow = reading.lr_stranger_slow
    row.observed = reading.observed
    row.low = reading.low
    row.median = reading.median
    row.high = reading.high
    row.a = reading.a
    row.b = reading.b
    row.covered = reading.covered
    row.proof = reading.proof


@compiled
def report(
    state: Any, event: int, held: bool, everything: bool, settings: Any, readings: Any, found: Any, n: int
) -> int:  # fmt: skip
    """Emit findings that are new or larger by a bit, or (`everything`) all there are, and what has evidence without
    any surprise at this event: what a visit brought earlier, and still carries. Returns the new n.

    held: whether the event is attested. What refused requests brought counts for itself, all detectors as one: else a
    thief who sends louder ones first would keep his findings from being told, and an act without its evidence.
    """
    refused = int(state.refused)
    for k in range(len(readings)):
        reading = readings[k]
        carries = everything and max(reading.lr_stranger, reading.lr_insider, reading.lr_stranger_slow) > 0.0
        if reading.covered == 0 or (reading.bits <= 0.0 and not carries):
            continue
        told = int(state.found[k]) if held else refused
        larger = reading.bits >= settings.finding_bits and reading.bits >= told / 64.0 + 1.0
        if not (larger or everything):
            continue
        put_found(found[n], event, k, reading)
        n += 1
        if held:
            state.found[k] = max(int(state.found[k]), int(reading.bits * 64.0))
        else:
            state.refused = max(int(state.refused), int(reading.bits * 64.0))
    return n


@compiled
def visit_ended(visit: Any, event: Any) -> bool:
    """Whether this event lies beyond the key's running visit."""
    if visit.start_us == 0:
        return False
    return event.ts_us - visit.last_us >= VISIT_GAP_US or event.ts_us - visit.start_us >= VISIT_MAX_US


@compiled
def settle_weight(visit: Any) -> float:
    """1 if the ended visit may be learned: an attested event came in it and no incident was open."""
    return 1.0 if visit.tainted == 0 and visit.confirmed == 1 else 0.0


@compiled
def turn_visit(key: Any, shared: Any, event: Any, ended: bool) -> None:
    """Take the ended visit into fusion and calibration, and begin the one that this event belongs to."""
    visit = key.visit
    if visit.start_us != 0 and not ended:
        if visit.confirmed == 0 and attested(event):
            visit.start_us = event.ts_us  # or refused requests before it would cut its holder's visit in two
        return
    if ended:
        fusion.end_visit(key.fusion, visit, shared.calibration)
        visit.ordinal += 1 if visit.confirmed == 1 else 0  # refused requests make nobody busy
    else:
        visit.first_seen_us = event.ts_us
    if shared.since_us == 0 or visit.first_seen_us < shared.since_us:  # keys may be older than what counts them
        shared.since_us = visit.first_seen_us
    visit.teaches = lesson_of(visit, shared.since_us, event.ts_us, ended and settle_weight(visit) > 0.0)
    visit.start_us = event.ts_us
    visit.events = 0
    visit.new_place = 0
    visit.confirmed = 0
    visit.tainted = 0 if fusion.adopts(key.fusion, event.ts_us) else key.fusion.open
    visit.anew = 1 if fusion.begins_anew(key.fusion, event.ts_us) else 0
    fusion.begin_visit(key.fusion)


@compiled
def judge(key: Any, known: Any, ts_us: int, families: int, evidence: bool, larger: bool, settings: Any) -> int:
    """Open or grow the key's incident by this visit's largest scores, or adopt. Returns the kind of change, 0: none.

    larger: this event's is the visit rule's largest. Only then does that rule open: the event names what carried it.
    No score of 0 bits and less opens anything, whatever was counted: so begin most visits.
    """
    state = key.fusion
    visit = key.visit
    slow_bits = fusion.slow_bits(fusion.slow_step(state, visit.start_us, state.best_slow))
    if state.open == 0 and max(state.best, slow_bits) <= 0.0:
        return 0
    per_day = fusion.visits_per_day(visit, ts_us)
    days_visit = return_days(known, 0, state.best, per_day) if larger or state.open == 1 else 0.0
    days_slow = return_days(known, 1, slow_bits, per_day)
    if state.open == 0:
        rule = fusion.rule_that_opens(state, ts_us, days_visit, days_slow, families, settings)
        if rule == 0:
            if max(days_visit, days_slow) < settings.listed_days:
                return 0
            if fusion.adopts(state, ts_us):
                return fusion.ADOPTED if state.taken == 0 else 0
            visit.tainted = 1  # told already today: no message, but nothing to learn from either
            return 0
        days = days_visit if rule == fusion.RULE_VISIT else days_slow
        score = state.best if rule == fusion.RULE_VISIT else slow_bits
        state.seen = seen_above(known, rule - 1, score)
        fusion.open_incident(state, ts_us, rule, days, score, families, settings)
        return fusion.OPENED
    if not evidence:
        return 0
    score = state.best if state.rule == fusion.RULE_VISIT else slow_bits
    return fusion.grow_incident(state, max(days_visit, days_slow), score, families, settings)


@compiled
def weigh(key: Any, known: Any, event: Any, families: Any, readings: Any, settings: Any) -> int:
    """Fuse what the detectors say of one attested event; returns the kind of change of the key's incident or 0."""
    state = key.fusion
    stranger, insider, slow, proof, mask = 0.0, 0.0, 0.0, False, 0
    for k in range(len(readings)):
        if readings[k].covered == 1 and families[k] != 0:  # 0: simulated, it only tells
            proof = proof or readings[k].proof == 1
            stranger += readings[k].lr_stranger
            insider += readings[k].lr_insider
            if families[k] & fusion.SLOW_FAMILIES != 0:
                slow += readings[k].lr_stranger_slow
            if readings[k].bits >= settings.finding_bits:
                mask |= families[k]  # of what has a finding at this event
    evidence = mask != 0 or max(stranger, insider) >= fusion.EVIDENCE_BITS
    if state.open == 1:
        state.events += 1
        if evidence:
            state.evidence_us = max(state.evidence_us, event.ts_us)
    if proof:
        return fusion.prove(state, event.ts_us, mask, settings)
    # the mixture is never above its larger part: most events need no logarithm
    larger, slower = False, quantise(slow) > state.best_slow
    if max(stranger, insider) > state.best:
        bits = quantise(fusion.mixed(stranger, insider))
        larger = bits > state.best
        state.best = max(state.best, bits)
    if slower:
        state.best_slow = quantise(slow)
    if larger or slower or (state.open == 1 and evidence):
        return judge(key, known, event.ts_us, mask, evidence, larger, settings)
    return 0


@compiled
def is_full(found: Any, n_found: int, changed: Any, n_changed: int, detectors: int) -> bool:
    """Whether the records of one more event might not fit."""
    return n_found + detectors > len(found) or n_changed + 2 > len(changed)


@compiled
def adopted(state: Any, ts_us: int, kind: int) -> int:
    """Write down that what goes on is learned from this event on; returns `kind`, or ADOPTED where nothing else tells.

    Under an open incident; `judge` says so of what was told and is over.
    """
    if state.taken != 0 or not (kind == fusion.ADOPTED or (state.open == 1 and fusion.adopts(state, ts_us))):
        return kind
    state.taken = fusion.UNREVIEWED
    return kind if kind != 0 else fusion.ADOPTED


@compiled
def conclude(
    key: Any, shared: Any, event: Any, i: int, settings: Any, families: Any, readings: Any,
    found: Any, changed: Any, n_found: int, n_changed: int,
) -> tuple[int, int]:  # fmt: skip
    """After all detectors have scored: fuse, open or grow the incident, write what changed. Returns the new counts."""
    state = key.fusion
    kind, held = 0, attested(event)
    if held:
        key.visit.confirmed = 1
        kind = adopted(state, event.ts_us, weigh(key, shared.calibration, event, families, readings, settings))
    everything = kind == fusion.OPENED or kind == fusion.ESCALATED
    n_found = report(state, i, held, everything, settings, readings, found, n_found)
    if kind != 0:
        fusion.put_change(changed[n_changed], i, event.slot, kind, state, event.ts_us)
        state.reported = state.score
        state.reported_events = state.events
        n_changed += 1
    if state.open == 1 and not fusion.adopts(state, event.ts_us):
        key.visit.tainted = 1
    return n_found, n_changed


@compiled
def learn_weight(visit: Any, event: Any) -> float:
    """1 if the event may be learned as normal."""
    return 1.0 if attested(event) and visit.tainted == 0 else 0.0


@compiled
def advance(visit: Any, event: Any) -> None:
    """The event is part of the visit now. Refused requests in its name prolong no visit of the key's holder."""
    if visit.confirmed == 0 or attested(event):
        visit.last_us = max(visit.last_us, event.ts_us)
        visit.events += 1


@compiled
def sweep(keys: Any, used: int, watermark_us: int, settings: Any, changed: Any) -> int:
    """`close_due`, compiled."""
    n = 0
    for slot in range(used):
        if n >= len(changed):
            break
        n = fusion.close_if_due(keys[slot].fusion, watermark_us, -1, slot, settings[0], changed, n)
    return n


def close_due(keys: Array, used: int, watermark_us: int, settings: Array, changed: Array) -> int:
    """Close the incidents of `keys[:used]` whose time has passed at the watermark; returns the records in `changed`.

    If `changed` comes back full, call again. Closes exactly as the key's next event would, provided that no event
    older than the watermark is scored after it (those are late).
    """
    return int(sweep(records(keys), used, watermark_us, records(settings), records(changed)))


def compile_pass(detectors: Sequence[Detector], simulated: Collection[str] = ()) -> Run:
    """The pass over these detectors; compiled at its first call, from the disk cache where there is one.

    simulated: names of detectors whose findings are told, but weigh nothing.
    """
    module = load_pass(detectors)
    weighing = [0 if detector.name in simulated else 1 << FAMILIES.index(detector.family) for detector in detectors]
    families = np.array(weighing, np.int64)

    def run(
        keys: Array, shared: Array, events: Array, start: int, configs: tuple[Array, ...], settings: Array,
        found: Array, changed: Array,
    ) -> tuple[int, int, int]:  # fmt: skip
        if len(found) < len(detectors) or len(changed) < 2:
            raise ValueError(f"found needs room for {len(detectors)} records and changed for 2")
        readings = np.zeros(len(detectors), READING)
        after, n_found, n_changed = module.run(
            records(keys), records(shared), records(events), start, tuple(records(c) for c in configs),
            records(settings), records(found), records(changed), records(readings), families,
        )  # fmt: skip
        return int(after), int(n_found), int(n_changed)

    return run
