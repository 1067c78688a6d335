"""Errors: more refused, missing, throttled or failing routes in a visit than this key's visits bring.

Detects: probing (403 and 404 over many routes), a key used beyond its scope, limit riding over many routes, a client
that broke on many routes at once, a success after guesses (`guesses`). Classes apart: 401 and 403, 404, 429, 5xx; and
refused and missing together, which is what a scan meets.
Misses: an attacker who knows the routes and has the scopes; a probe of one or two routes; a key whose visits always
bring many errors. Where the format has no status it is blind for 404 and 5xx, where it has no key id on refused
requests for 401, 403 and 429.
False alarms: a deploy that breaks one client on many routes; a revoked scope. The API's own outage is discounted:
5xx and 429 of a route on which the median of the other keys fails too (`outage`), and nothing else.
Source: reference/evidence.md, section 3: per request one innocent client gave 435 alarms, per distinct (route, class)
and visit none. Unit: distinct (route, class), decay .97 a visit, prior 2 pseudo-units at the peers' rate, a + b <= 20,
mid-p; a retried route gives at most 10.6 bits. Evidence is what that tail is worth (`surprise.evidence_of`) over the
units whose caller held the key. A product over units (CUSUM, q = max(.5, 5 p)) took errors for independent of each
other within a visit, which they are least of all: 13 to 16 bits of evidence where the tail has 4 (keybench). An error
that an earlier visit had on the same route is this key's habit and counts as a success (`usual`, a filter of 192 bits).
The API's own failures (5xx) are worth 3 bits of evidence at most, however many: they say little of the caller.
A visit's only error is worth no more than peers bear it out to be (`lone_errors`), two and more within seconds what
they bear it out to be (`close_errors`).
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors import outage
from detectors.close_errors import CLOSE_FIELDS, close_bits, count_close, level_with, note_close, sum_with
from detectors.compile import compiled
from detectors.detector import SEES_DENIED, SEES_STATUS, Context, Detector, attested, tells, usual_words
from detectors.error_units import (
    DENIED,
    FAILED,
    MISSING,
    PROBED,
    SETS_BITS,
    THROTTLED,
    TRIALS_MAX,
    beliefs,
    bit_of,
    class_of,
    is_new_unit,
    is_seen,
    tail_bits,
    tell_peers,
    total_of,
)
from detectors.guesses import forget_guesses, guessed_bits, note_guess, surprise_of
from detectors.known_operations import put
from detectors.lone_errors import (
    CLASSES,
    LONE_BITS,
    LONE_FIELDS,
    RETRY_BITS,
    alone,
    count_lone,
    lone_bits,
    only_class,
)
from detectors.surprise import evidence_of, log2_of, quantise
from detectors.teaching import teaches
from detectors.usual_errors import USUAL_BITS, is_usual, keep_usual, usual_bit

GUESSED: Final = 5  # of a reading's `a`: no class, but what came before a success
NAMES: Final = ("401 or 403", "404", "429", "5xx", "401, 403 or 404")
KEEP: Final = 0.97  # per visit
CLASS_BITS: Final = 2.321928094887362  # log2 of CLASSES and PROBED: the largest of five tests
SERVER_ROUTES: Final = 3
SERVER_BITS: Final = 8.0
"""5xx and 429 are the API's own words: on fewer than 3 routes of a visit they are no evidence against the caller, and
too weak a finding to count towards an act. The demo's outage listed 0 to 2 of 50 innocent keys without this: the first
keys that meet an outage come before the median of the others can know of it."""
DISCOUNT: Final = 0.2
"""From this median share on a route's 5xx and 429 say nothing of a key."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.errors]"""

    cap_bits: float = 40.0
    cap_ratio: float = 24.0  # log2, of a visit
    outage_share: float = DISCOUNT


STATE: Final = np.dtype(
    [
        ("units", "f4"),  # decayed distinct (route, class) of learned visits, right ones included
        ("wrong", "f4", (CLASSES,)),  # of these errors, by class
        ("seen", "u1", (SETS_BITS // 8,)),  # this visit's distinct (route, class), one hash; strangers' in a part
        ("wrong_now", "u1", (USUAL_BITS // 8,)),  # of these the errors
        ("usual", "u1", (USUAL_BITS // 8,)),  # errors of earlier visits: this key's own habit
        ("visit_wrong", "u2", (CLASSES,)),
        ("visit_units", "u2"),
        ("repeats", "u2"),  # this visit's errors that were no new unit
        ("peak", "f4"),  # this visit's largest bits
        ("held_peak", "f4"),  # the same of events whose caller held the key
        ("held_wrong", "u1", (CLASSES,)),  # of `visit_wrong`, those; at most TRIALS_MAX
        ("held_units", "u1"),
        ("peak_class", "u1"),
        ("close", "u1"),  # of this visit's wrong routes, how many came together (`close_errors`)
        ("guesses", "u1"),  # refused tries at the secret in this visit, by the address `guesser`
        ("guesser", "u4"),
    ],
    align=True,
)
SHARED: Final = np.dtype(
    [("units", "f8"), ("wrong", "f8", (CLASSES,)), ("routes", outage.TABLE), *LONE_FIELDS, *CLOSE_FIELDS],
    align=True,
)


@compiled
def is_outage(shared: Any, event: Any, kind: int, config: Any) -> bool:
    """Whether this 5xx or 429 is what most other keys get on this route now."""
    if kind != FAILED and kind != THROTTLED:
        return False
    return outage.median_of_others(shared.routes, event.route, event.slot, event.ts_us) >= config.outage_share


@compiled
def new_error(state: Any, shared: Any, event: Any, config: Any) -> int:
    """The class of an error that is a new unit of this visit and no outage; -1 otherwise."""
    kind = class_of(event.error)
    if kind < 0 or event.route == 0 or not is_seen(event.sees, kind):
        return -1
    if not is_new_unit(state, event.route, kind, attested(event)):
        return -1
    if is_usual(state, event.route, kind):
        return -1
    return -1 if is_outage(shared, event, kind, config) else kind


@compiled
def unit_bits(state: Any, shared: Any, kind: int, config: Any) -> float:
    """Surprise of one more unit of this class in this visit."""
    a, b = beliefs(state, shared, kind)
    wrong = int(total_of(state.visit_wrong, kind)) + 1
    bits = tail_bits(wrong, int(state.visit_units) + 1, a, b) - CLASS_BITS
    most = config.cap_bits if speaks(kind, wrong) else SERVER_BITS
    return max(0.0, min(bits, most, LONE_BITS if wrong <= 1 else most))


@compiled
def speaks(kind: int, wrong: int) -> bool:
    """Whether so many routes with this class say something of the caller: 5xx and 429 on one or two are the API's."""
    return kind in (DENIED, MISSING, PROBED) or wrong >= SERVER_ROUTES


@compiled
def retry_bits(state: Any) -> float:
    """What retries of a route say: their number as a heavy-tailed count, at most RETRY_BITS."""
    repeats = int(state.repeats)
    if repeats < 16:
        return 0.0
    return min(RETRY_BITS, 0.5 * log2_of(1.0 + repeats))


@compiled
def held_bits(state: Any, shared: Any, kind: int) -> float:
    """As `unit_bits`, of the units alone whose caller held the key; 0 where these say nothing of the caller."""
    wrong = int(total_of(state.held_wrong, kind)) + 1
    if not speaks(kind, wrong):
        return 0.0
    a, b = beliefs(state, shared, kind)
    bits = alone(wrong, max(0.0, tail_bits(wrong, int(state.held_units) + 1, a, b) - CLASS_BITS))
    return min(SERVER_BITS, bits) if kind == FAILED else bits


@compiled
def loudest(state: Any, shared: Any, kind: int, config: Any) -> int:
    """The class to name for one more unit of `kind`: its own, or PROBED where both kinds of it say more together."""
    if kind not in (DENIED, MISSING):
        return kind
    other = MISSING if kind == DENIED else DENIED
    if int(state.visit_wrong[other]) == 0:
        return kind
    joint = unit_bits(state, shared, PROBED, config) > unit_bits(state, shared, kind, config)
    return PROBED if joint else kind


@compiled
def probes(event: Any, kind: int) -> bool:
    """Whether a new unit of this class is what a probe meets, and its caller held the key."""
    return kind in (DENIED, MISSING) and attested(event)


@compiled
def has_strangers(state: Any) -> bool:
    """Whether errors of this visit came from callers who knew the key's id alone."""
    strange = 0
    for k in range(CLASSES):
        strange += int(state.visit_wrong[k]) - int(state.held_wrong[k])
    return strange > 0


def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = class or GUESSED, b = distinct units of this visit."""
    if event.sees & (SEES_STATUS | SEES_DENIED) == 0:
        return
    reading.covered = 1
    kind = new_error(state, shared, event, config)
    bits, which = float(state.peak), int(state.peak_class)
    evidence = float(state.held_peak)
    if kind >= 0:
        named = loudest(state, shared, kind, config)
        fresh = unit_bits(state, shared, named, config)
        if fresh > bits:
            bits, which = fresh, named
        if attested(event):
            most = max(held_bits(state, shared, kind), held_bits(state, shared, named))
            evidence = max(evidence, np.float64(np.float32(most)))
    if attested(event) and has_strangers(state):
        bits = min(bits, evidence)  # told of the holder, it may count towards an act: others' errors don't
    limit = lone_bits(state, shared, visit, kind if attested(event) else -1)
    evidence = min(evidence, limit)
    bits = min(bits, limit) if only_class(state.visit_wrong, kind) >= 0 else bits
    level = level_with(state, sum_with(state, visit, event, probes(event, kind)))
    together = close_bits(shared, visit, level, total_of(state.wrong, PROBED))
    guessed = guessed_bits(state, event)
    reading.bits = quantise(max(bits, together, retry_bits(state)))
    reading.lr_insider = quantise(min(config.cap_ratio, max(0.0, together, evidence_of(evidence))))
    reading.lr_stranger = max(reading.lr_insider, guessed)  # whoever holds the key need not guess
    if not tells(reading):
        return
    if surprise_of(guessed) > reading.bits:
        reading.bits = surprise_of(guessed)
        reading.observed = int(state.guesses)
        reading.a = GUESSED
        return
    units = int(state.visit_units) + (1 if kind >= 0 else 0)
    a, b = beliefs(state, shared, which)
    mean = units * a / (a + b)
    fits = kind == which or (which == PROBED and kind in (DENIED, MISSING))
    reading.observed = total_of(state.visit_wrong, which) + (1 if fits else 0)
    reading.median = math.floor(mean)
    # Rounded, not up: one error where 0.01 are expected lies outside of what is usual
    reading.high = math.floor(0.5 + mean + 1.65 * math.sqrt(mean * (1.0 + units / (a + b))))
    reading.a = which
    reading.b = units


@compiled
def add_unit(state: Any, shared: Any, event: Any, kind: int, config: Any) -> None:
    """A new (route, class) of this visit; kind -1 is a success."""
    put(state.seen, bit_of(event.route, kind, attested(event)))
    if kind >= 0:
        named = loudest(state, shared, kind, config)
        fresh = unit_bits(state, shared, named, config)
        if fresh > float(state.peak):
            state.peak = quantise(fresh)
            state.peak_class = named
    if attested(event) and int(state.held_units) < TRIALS_MAX:
        if kind >= 0:
            named = loudest(state, shared, kind, config)
            most = max(held_bits(state, shared, kind), held_bits(state, shared, named))
            state.held_peak = max(float(state.held_peak), most)
            state.held_wrong[kind] += 1
        state.held_units += 1
    if state.visit_units < 60_000:
        state.visit_units += 1
        if kind >= 0:
            state.visit_wrong[kind] += 1


@compiled
def learn_error(state: Any, shared: Any, event: Any, kind: int, config: Any) -> None:
    """An error that is no outage: a new unit, a usual one, or a retry."""
    usual = is_usual(state, event.route, kind)
    unit = -1 if usual else kind
    if is_new_unit(state, event.route, unit, attested(event)):
        add_unit(state, shared, event, unit, config)
        if attested(event):  # or who knows the id alone would make usual what he scans later, with the key
            put(state.wrong_now, usual_bit(event.route, kind))
    elif state.repeats < 60_000:
        state.repeats += 1


def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Count the event in its visit (whoever sent it; settle decides what is kept) and in the routes' table."""
    note_guess(state, event)
    if event.sees & (SEES_STATUS | SEES_DENIED) == 0 or event.route == 0:
        return
    if attested(event):
        note_close(state, visit, event, probes(event, new_error(state, shared, event, config)))
    kind = class_of(event.error)
    if kind >= 0 and is_seen(event.sees, kind):
        if not is_outage(shared, event, kind, config):
            learn_error(state, shared, event, kind, config)
    elif kind < 0 and is_new_unit(state, event.route, -1, attested(event)):
        add_unit(state, shared, event, -1, config)
    if weight > 0.0 and teaches(visit):
        outage.see(shared.routes, event.route, event.slot, event.ts_us, kind in (FAILED, THROTTLED))


@compiled
def leave_strangers_out(state: Any) -> None:
    """Count the units of callers who held the key alone: others' errors say nothing of what is usual for it."""
    if int(state.visit_units) != int(state.held_units):
        state.visit_units = state.held_units
        for k in range(CLASSES):
            state.visit_wrong[k] = state.held_wrong[k]


def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """Move the visit's units into the forecast and the peers' rate, or drop them."""
    leave_strangers_out(state)
    units = min(float(TRIALS_MAX), float(state.visit_units))
    if weight > 0.0 and units > 0.0:
        scale, lately = units / float(state.visit_units), total_of(state.wrong, PROBED)
        state.units = float(state.units) * KEEP + units
        for k in range(CLASSES):
            state.wrong[k] = float(state.wrong[k]) * KEEP + int(state.visit_wrong[k]) * scale
        if teaches(visit):
            tell_peers(state, shared, units, scale)
            count_lone(state, shared, visit)
            count_close(state, shared, visit, lately)
    keep_usual(state, weight)
    for j in range(SETS_BITS // 8):
        state.seen[j] = 0
    for k in range(CLASSES):
        state.visit_wrong[k] = 0
        state.held_wrong[k] = 0
    state.visit_units = 0
    state.repeats = 0
    state.close = 0
    state.peak = 0.0
    state.held_peak = 0.0
    state.held_units = 0
    state.peak_class = 0
    forget_guesses(state)


def explain(reading: Any, context: Context) -> str:
    """In words: "403 on 9 of 12 routes of this visit, where 0 [0-1] are usual"."""
    if int(reading["a"]) == GUESSED:
        return f"let in after {reading['observed']:.0f} refused tries (401) from the same address"
    kind = NAMES[int(reading["a"])]
    usual = usual_words(reading["low"], reading["median"], reading["high"])
    tried = f"{reading['observed']:.0f} of {reading['b']:.0f} routes" if reading["b"] > 1 else "the only route"
    return f"{kind} on {tried} of this visit, where {usual}"


ERRORS: Final = Detector(
    name="errors",
    family="outcome",
    unit="routes with this error in a visit",
    state=STATE,
    shared=SHARED,
    config=Config(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
