"""Novel operation: the key does something it has never done, weighed by how much harm that kind of operation can do.

Detects: first use of a route with its method (or of a cloud's operation), most of all where it deletes, administers or
handles credentials; "who am I" asked by a visit from a new place. Tested once per visit against how often this key's
visits bring new operations (`novelty`). A holder who abuses a key does new things as a stranger does, so it speaks for
both. Its evidence holds for the rest of the visit; further sensitive operations that are new add to it.
Misses: abuse of what the key does anyway; a key of so many routes that the filter is full (it abstains and says so);
what comes through one route only, as GraphQL does; the first visit.
False alarms: a release that calls new routes; routes that the gateway names anew after a deploy of the API look new for
every key. A quarterly job's routes stay known: the filter forgets nothing.
Source: reference/evidence.md, section 4 (e3) and 1; classes as in reference/detections.md, no. 5.

Filters: 512 bits, two per operation: at 40 operations 2 % of new ones pass for known, which errs towards silence; what
deletes, administers or handles credentials has one of its own of 128 bits, so that a crawler's hundreds of reads don't
hide a first deletion (one key in four of keybench's busy ones was not covered at all). The forecast learns by the
same filters, so a full one makes the detector slow and never wrong; beyond FULL it abstains. What a visit brings waits
until it is settled, at most PENDING operations.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from detectors import novelty
from detectors.compile import compiled
from detectors.detector import (
    ERROR_401,
    ERROR_404,
    NOTHING,
    OPERATION_ADMIN,
    OPERATION_CREDENTIAL,
    OPERATION_DELETE,
    OPERATION_IDENTITY,
    OPERATION_WRITE,
    OPERATIONS,
    SEES_ROUTE,
    Context,
    Detector,
    known_words,
)
from detectors.surprise import log2_of, quantise

FILTER_BYTES: Final = 64
FILTER_BITS: Final = 8 * FILTER_BYTES
PENDING: Final = 4
SENSITIVE_BYTES: Final = 16
SENSITIVE_BITS: Final = 8 * SENSITIVE_BYTES
FULL: Final = 0.85  # share of bits set from which a filter says nothing: 7 of 10 new ones would pass for known
NEW_OPERATIONS: Final = 0.5  # share of strangers' and abusers' visits that do something new
HARM_BITS: Final = np.array([0.0, -1.0, 1.0, 2.0, 2.5, 3.0, 0.0])
"""By OPERATION_*: log2 of how much more often an attacker's new operation is of this class than an owner's.
Attackers (Stratus' 18 techniques and the invictus attack, first operations): read .35, write .2, delete .15, admin
.1, credential .15, identity .05; owners' new operations read .7, write .1, delete .04, admin .02, credential .02
[judged]."""
MORE_BITS: Final = 1.0  # for each further sensitive operation that is new in the visit, up to PENDING [judged]
SLOW_HARM: Final = 2.0  # deletion, administration, credentials: these add up over a day or two in the slow rule,
SLOW_LESS: Final = 4.0  # less what a key brings of them that does something new every day,
SLOW_MOST: Final = 6.0  # and none alone is enough (keybench, development half: 4 and 6 of 2 .. 6)
WHOAMI_BITS: Final = 2.0  # in a visit from a new place [judged; a program that starts anew asks it, too]

STATE: Final = np.dtype(
    [
        ("mixture", novelty.SMALL_MIXTURE),
        ("known", "u1", (FILTER_BYTES,)),
        ("sensitive", "u1", (SENSITIVE_BYTES,)),  # the same of HARM_BITS >= SLOW_HARM
        ("waiting", "u4", (PENDING,)),  # the visit's operations that the filter does not know
        ("p", "f4"),  # of the visit's first new operation; 0: none yet
        ("harm", "f4"),  # largest HARM_BITS of the visit's new operations
        ("set_bits", "u2"),  # of `known`
        ("sensitive_set", "u1"),  # bits of `sensitive`
        ("used", "u1"),  # 1: the visit did anything that counts
        ("harms", "u1"),  # bit mask of `waiting`: which are sensitive
        ("pad", "u1", (3,)),
    ],
    align=True,
)


class NovelOperation(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.novel_operation]"""

    cap_bits: float = 16.0  # of the log likelihood ratio


@compiled
def counts(event: Any) -> bool:
    """Whether the event did or tried an operation of the API: a missing route is none (`errors` counts those)."""
    return int(event.route) != 0 and int(event.error) != ERROR_404 and int(event.error) != ERROR_401


@compiled
def first_bit(route: int) -> int:
    """Where an operation lies in the filter."""
    return int((np.uint64(route) * np.uint64(0x9E3779B1) & np.uint64(0xFFFFFFFF)) >> np.uint64(23))


@compiled
def second_bit(route: int) -> int:
    """The other place."""
    mixed = np.uint64(route) ^ (np.uint64(route) >> np.uint64(15))
    return int((mixed * np.uint64(0x85EBCA6B) & np.uint64(0xFFFFFFFF)) >> np.uint64(23))


@compiled
def is_set(bits: Any, bit: int) -> bool:
    """One bit of a filter."""
    return (int(bits[bit >> 3]) >> (bit & 7)) & 1 == 1


@compiled
def is_known(state: Any, route: int, sensitive: bool) -> bool:
    """Whether the filter of such operations has this one."""
    first, second = first_bit(route), second_bit(route)
    if sensitive:
        return is_set(state.sensitive, first % SENSITIVE_BITS) and is_set(state.sensitive, second % SENSITIVE_BITS)
    return is_set(state.known, first) and is_set(state.known, second)


@compiled
def put(bits: Any, bit: int) -> int:
    """Set one bit; returns how many that changed."""
    if is_set(bits, bit):
        return 0
    bits[bit >> 3] = int(bits[bit >> 3]) | (1 << (bit & 7))
    return 1


@compiled
def keep(state: Any, route: int, sensitive: bool) -> None:
    """The operation is known from now on."""
    first, second = first_bit(route), second_bit(route)
    if sensitive:
        state.sensitive_set += put(state.sensitive, first % SENSITIVE_BITS)
        state.sensitive_set += put(state.sensitive, second % SENSITIVE_BITS)
    else:
        state.set_bits += put(state.known, first)
        state.set_bits += put(state.known, second)


@compiled
def sensitive_in_visit(state: Any, event: Any, new: bool) -> int:
    """Distinct sensitive operations that are new in this visit, this event's included; at most PENDING + 1."""
    count = 0
    for j in range(PENDING):
        count += (int(state.harms) >> j) & 1
        if int(state.waiting[j]) == int(event.route):
            new = False
    return count + (1 if new else 0)


@compiled
def is_full(state: Any, sensitive: bool) -> bool:
    """Whether the filter of such operations has seen too many to say what is new."""
    if sensitive:
        return int(state.sensitive_set) > FULL * SENSITIVE_BITS
    return int(state.set_bits) > FULL * FILTER_BITS


@compiled
def harm_of(event: Any) -> float:
    """HARM_BITS of the event's class."""
    return HARM_BITS[min(int(event.operation), OPERATIONS - 1)]


@compiled
def ratio_bits(p: float, harm: float, cap: float) -> float:
    """e3, as log2: .5 / p for a new operation, weighed by its class; .5 / (1 - p) for known ones."""
    return min(cap, log2_of(NEW_OPERATIONS / p) + harm)


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = class of the operation + 16 * (1 new, 2 "who am I" from a new place)."""
    if int(event.sees) & SEES_ROUTE == 0 or int(event.route) == 0:
        return
    harmful = harm_of(event) >= SLOW_HARM
    if is_full(state, harmful):
        return
    reading.covered = 1
    p, harm = float(state.p), float(state.harm)
    if float(state.mixture.visits) <= 0.0 or (not counts(event) and p <= 0.0):
        return
    new = counts(event) and not is_known(state, event.route, harmful)
    if new:
        p = p if p > 0.0 else np.float64(np.float32(novelty.p_new(state.mixture, event.ts_us)))
        harm = max(harm, harm_of(event)) if float(state.p) > 0.0 else harm_of(event)
        reading.bits = quantise(log2_of(1.0 / p))
        reading.observed = 1.0
    cap = float(config.cap_bits)
    quiet = log2_of(NEW_OPERATIONS / max(1e-4, 1.0 - novelty.p_new(state.mixture, event.ts_us)))
    more = MORE_BITS * max(0, sensitive_in_visit(state, event, new and harmful) - 1)
    evidence = ratio_bits(p, harm + more, cap) if p > 0.0 else quiet
    whoami = int(event.operation) == OPERATION_IDENTITY and int(visit.new_place) == 1
    evidence = min(cap, max(evidence, 0.0) + WHOAMI_BITS) if whoami else evidence
    reading.lr_stranger = quantise(evidence)
    reading.lr_insider = quantise(evidence if not whoami else quiet)
    if p > 0.0 and harm >= SLOW_HARM:
        reading.lr_stranger_slow = quantise(min(SLOW_MOST, max(0.0, evidence - SLOW_LESS)))
    reading.a = int(event.operation) + 16.0 * ((1 if new else 0) + (2 if whoami else 0))


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Keep the visit's new operations until it is settled."""
    if weight <= 0.0 or int(event.sees) & SEES_ROUTE == 0 or not counts(event):
        return
    state.used = 1
    harm = harm_of(event)
    if is_known(state, event.route, harm >= SLOW_HARM):
        return
    if float(state.mixture.visits) > 0.0:
        if float(state.p) <= 0.0:
            state.p = novelty.p_new(state.mixture, event.ts_us)
            state.harm = harm
        else:
            state.harm = max(float(state.harm), harm)
    for j in range(PENDING):
        if int(state.waiting[j]) == int(event.route):
            return
        if int(state.waiting[j]) == 0:
            state.waiting[j] = event.route
            state.harms = int(state.harms) | (int(harm >= SLOW_HARM) << j)
            return


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """Move the visit's operations into the filter."""
    if weight > 0.0 and int(state.used) == 1:
        novelty.learn_visit(state.mixture, visit.last_us, int(state.waiting[0]) != 0)
        for j in range(PENDING):
            if int(state.waiting[j]) != 0:
                keep(state, int(state.waiting[j]), (int(state.harms) >> j) & 1 == 1)
    for j in range(PENDING):
        state.waiting[j] = 0
    state.p = 0.0
    state.harm = 0.0
    state.harms = 0
    state.used = 0


WORDS: Final = {
    OPERATION_WRITE: "a write",
    OPERATION_DELETE: "a deletion",
    OPERATION_ADMIN: "administration",
    OPERATION_CREDENTIAL: "handling of credentials",
    OPERATION_IDENTITY: "the question who it is",
}


def explain(reading: Any, context: Context) -> str:
    """In words: "DELETE /v1/users/{id}, a deletion that this key never did in 14 days"."""
    kind, flags = int(reading.a) % 16, int(reading.a) // 16
    name = f"{context.method} {context.route}".strip() or "an operation"
    if flags & 1 == 0:
        return f"{name}, asked first from a new place" if flags & 2 else f"{name}, done before"
    since = f"in {known_words(context.seen_days)}"
    return f"{name}, {WORDS[kind]} that this key never did {since}" if kind in WORDS else f"{name}, never done {since}"


NOVEL_OPERATION: Final = Detector(
    name="novel_operation",
    family="operation",
    unit="new operations",
    state=STATE,
    shared=NOTHING,
    config=NovelOperation(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
