"""Novel operation: the key does something it has never done, weighed by how much harm that kind of operation can do.

Detects: first use of a route with its method (or of a cloud's operation), most of all where it deletes, administers or
handles credentials; "who am I" asked by a visit from a new place. Tested once per visit against how often this key's
visits bring new operations (`novelty`). A holder who abuses a key does new things as a stranger does, so it speaks for
both. Its evidence holds for the rest of the visit. A visit that does several things it has never done (a scan, the list
of an attack tool) says more than one that does a single one, as far as such visits are rare among this key's and its
peers' that bring anything new.
Misses: abuse of what the key does anyway; a key of so many routes that the filter is full (it abstains and says so);
what comes through one route only, as GraphQL does; the first visit.
False alarms: a release that calls new routes (so breadth is worth 6 bits at most, less where releases are usual);
routes that the gateway names anew after a deploy of the API look new for every key. A quarterly job's routes stay
known: the filter forgets nothing.
Source: reference/evidence.md, section 4 (e3) and 1; classes as in reference/detections.md, no. 5.

What is new comes with requests: of a visit that is longer than this key's usual one, as much more is expected. Else
volume, errors and new routes of one long visit would be three facts (keybench, development half: 12 of 20 false
alarms).
Breadth: how many new routes come close together, missing ones too: each adds one, each request takes an eighth away and
a minute half, so that neither 400 requests with three new routes nor three in as many quarters of an hour are a list.
Of visits with one, the share that comes to two, three and five in a row: the key's own (memory 50 such visits) with the
peers' as prior, more of a visit that is longer, against [judged] shares of attackers'. Of busy keys' innocent visits
with a new route .37 have two within five requests, .14 within a minute as well (keybench, development half).
Filters (`known_operations`): a crawler's hundreds of reads don't hide a first deletion, which has one of its own (one
key in four of keybench's busy ones was not covered at all). The forecast learns by the same filters, so a full one
makes the detector slow and never wrong; beyond FULL it abstains.
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
from detectors.fusion import visits_group
from detectors.known_operations import (
    FILTER_BYTES,
    HELD_US,
    PENDING,
    SENSITIVE_BYTES,
    first_bit,
    is_full,
    is_held,
    is_known,
    is_sensitive,
    keep_held,
    put_waiting,
    settle_waiting,
)
from detectors.surprise import halved, log2_of, quantise
from detectors.teaching import teaches, tell_levels

NEW_OPERATIONS: Final = 0.5  # share of strangers' and abusers' visits that do something new
HARM_BITS: Final = np.array([0.0, -1.0, 1.0, 2.0, 2.5, 3.0, 0.0])
"""By OPERATION_*: log2 of how much more often an attacker's new operation is of this class than an owner's.
Attackers (Stratus' 18 techniques and the invictus attack, first operations): read .35, write .2, delete .15, admin
.1, credential .15, identity .05; owners' new operations read .7, write .1, delete .04, admin .02, credential .02
[judged]."""
LEVELS: Final = 4
GROUPS: Final = 2  # `fusion.visits_group`
CLOSE: Final = 32  # what a new route adds
FADING_US: Final = 60_000_000.0  # in which half of it is gone
LEAST: Final = np.array([32, 48, 70, 105])
"""From which sum the level is reached: one; two within five requests and a minute; three and five in a row."""
ATTACKERS: Final = np.array([1.0, 0.7, 0.6, 0.4])
"""Of attackers' visits with a new operation, those with so many [judged; recorded ones have 1 to 12]."""
PEERS: Final = np.array([[1.0, 0.5, 0.35, 0.2], [1.0, 0.15, 0.04, 0.01]])
"""The same of peers', those of few visits first, until they are counted. keybench, development half, 22,000 such visits
of busy keys: .14, .03, .004; 1,500 of keys of few visits: .54, .36, .18."""
PEERS_WEIGHT: Final = 20.0
PEERS_KEPT: Final = 2_000.0
OWN_WEIGHT: Final = 2.0  # visits that the peers' share weighs
RAREST: Final = 0.01
FADING: Final = 0.98  # per visit with a new operation
MEMORY: Final = 50.0  # visits, of `usual`
UNIT: Final = 256.0  # of `close_visits`
MORE_BITS: Final = 1.0  # for each further sensitive operation that is new in the visit, up to PENDING [judged]
SLOW_HARM: Final = 2.0  # deletion, administration, credentials: these add up over a day or two in the slow rule,
SLOW_LESS: Final = 5.0  # less what a key brings of them that does something new every day,
SLOW_MOST: Final = 6.0  # and none alone is enough
"""keybench, development half: with 4 instead of 5, two such keys of 509 rang for weeks and doubled the slow rule's
threshold for all busy ones (14 bits instead of 7; another client found in .03 instead of .61); 6 and 7 find fewer."""
WHOAMI_BITS: Final = 2.0  # in a visit from a new place [judged; a program that starts anew asks it, too]

STATE: Final = np.dtype(
    [
        ("mixture", novelty.SMALL_MIXTURE),
        ("known", "u1", (FILTER_BYTES,)),
        ("sensitive", "u1", (SENSITIVE_BYTES,)),  # the same of HARM_BITS >= SLOW_HARM
        ("waiting", "u4", (PENDING,)),  # the visit's operations that the filter does not know, and those HELD
        ("fresh", "u4"),  # the visit's distinct new routes, hashed to bits
        ("usual", "f4"),  # requests of a visit, on average
        ("p", "f4"),  # of the visit's first new operation; 0: none yet
        ("harm", "f4"),  # largest HARM_BITS of the visit's new operations
        ("set_bits", "u2"),  # of `known`
        ("sensitive_set", "u1"),  # bits of `sensitive`
        ("used", "u1"),  # 1: the visit did anything that counts
        ("harms", "u1"),  # bit masks of `waiting`: which are sensitive; above, which are HELD
        ("close", "u1"),  # sum of the visit's new routes, fading by requests and time
        ("level", "u1"),  # 1 + the highest level of LEAST that it came to in this visit; 0: none
        ("close_visits", "u2", (LEVELS,)),  # decayed visits that came to a level, in 1/256
    ],
    align=True,
)
SHARED: Final = np.dtype([("close_visits", "f8", (GROUPS, LEVELS))])
"""The same of all keys of the partition, those of few visits among themselves."""


class NovelOperation(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.novel_operation]"""

    cap_bits: float = 16.0  # of the log likelihood ratio


@compiled
def counts(event: Any) -> bool:
    """Whether the event did or tried an operation of the API: a missing route is none (`errors` counts those)."""
    return int(event.route) != 0 and int(event.error) != ERROR_404 and int(event.error) != ERROR_401


@compiled
def sensitive_in_visit(state: Any, event: Any, new: bool) -> int:
    """Distinct sensitive operations that are new in this visit, this event's included; at most PENDING + 1."""
    count = 0
    for j in range(PENDING):
        if is_held(state, j):
            continue
        count += 1 if is_sensitive(state, j) else 0
        if int(state.waiting[j]) == int(event.route):
            new = False
    return count + (1 if new else 0)


@compiled
def route_bit(route: int) -> int:
    """Where a route lies in the visit's set."""
    return 1 << (first_bit(route) & 31)


@compiled
def close_with(state: Any, visit: Any, event: Any, unknown: bool) -> int:
    """The fading sum of new routes with this request; what came out of order has faded by the newest one's time."""
    new = unknown and int(state.fresh) & route_bit(event.route) == 0
    kept, after_us = int(state.close) * 7 // 8, int(event.ts_us) - int(visit.last_us)
    if kept > 0 and after_us > 0:
        kept = int(kept * halved(after_us / FADING_US))
    return min(255, kept + int(CLOSE * halved(max(0, -after_us) / FADING_US))) if new else kept


@compiled
def level_with(state: Any, close: int) -> int:
    """The highest level of this visit; -1 for none."""
    level = int(state.level) - 1
    for j in range(LEVELS):
        level = max(level, j) if close >= LEAST[j] else level
    return level


@compiled
def longer(state: Any, visit: Any) -> float:
    """How many times as many requests as this key's usual visit the visit has with this one; at least 1."""
    return max(1.0, (int(visit.events) + 1.0) / max(1.0, np.float64(state.usual)))


@compiled
def share_of(state: Any, shared: Any, visit: Any, level: int) -> float:
    """Of this key's visits with a new route, those that reach the level; more of longer ones, 1 for the lowest."""
    if level < 1:
        return 1.0
    group = visits_group(visit)
    known = shared.close_visits[group]
    peers = (known[level] + PEERS_WEIGHT * PEERS[group, level]) / (known[0] + PEERS_WEIGHT)
    own = int(state.close_visits[level]) / UNIT + OWN_WEIGHT * peers
    return min(1.0, max(RAREST, own / (int(state.close_visits[0]) / UNIT + OWN_WEIGHT)) * longer(state, visit))


@compiled
def breadth_bits(state: Any, shared: Any, visit: Any, level: int) -> float:
    """What more new routes so close together say than the first."""
    return max(0.0, log2_of(ATTACKERS[level] / share_of(state, shared, visit, level))) if level > 0 else 0.0


@compiled
def harm_of(event: Any) -> float:
    """HARM_BITS of the event's class."""
    return HARM_BITS[min(int(event.operation), OPERATIONS - 1)]


@compiled
def class_of(harm: float) -> int:
    """A class of that HARM_BITS, the first of several."""
    for kind in range(OPERATIONS):
        if HARM_BITS[kind] == harm:
            return kind
    return 0


@compiled
def chance(state: Any, visit: Any, event: Any) -> float:
    """Probability that a visit of this key brings something new within so many requests."""
    return min(1.0, novelty.p_new(state.mixture, event.ts_us) * longer(state, visit))


@compiled
def ratio_bits(p: float, harm: float, cap: float) -> float:
    """e3, as log2: .5 / p for a new operation, weighed by its class; .5 / (1 - p) for known ones."""
    return min(cap, log2_of(NEW_OPERATIONS / p) + harm)


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = class + 16 * (1 new, 2 "who am I" from a new place, 4 new earlier in the visit), b = level.

    The class is the operation's, of an earlier one that of the most harm.
    """
    if int(event.sees) & SEES_ROUTE == 0 or int(event.route) == 0:
        return
    harmful = harm_of(event) >= SLOW_HARM
    if is_full(state, harmful):
        return
    reading.covered = 1
    p, harm = float(state.p), float(state.harm)
    if float(state.mixture.visits) <= 0.0:
        return
    unknown = not is_known(state, event.route, harmful)
    level = level_with(state, close_with(state, visit, event, unknown))
    if not counts(event) and p <= 0.0 and level < 1:
        return
    new = counts(event) and unknown
    if new:
        p = p if p > 0.0 else np.float64(np.float32(chance(state, visit, event)))
        harm = max(harm, harm_of(event)) if float(state.p) > 0.0 else harm_of(event)
        reading.bits = quantise(log2_of(1.0 / p / share_of(state, shared, visit, level)))
        reading.observed = 1.0
    cap = float(config.cap_bits)
    quiet = log2_of(NEW_OPERATIONS / max(1e-4, 1.0 - novelty.p_new(state.mixture, event.ts_us)))
    more = MORE_BITS * max(0, sensitive_in_visit(state, event, new and harmful) - 1)
    broad = max(more, breadth_bits(state, shared, visit, level))
    evidence = ratio_bits(p, harm + broad, cap) if p > 0.0 else quiet + broad
    whoami = int(event.operation) == OPERATION_IDENTITY and int(visit.new_place) == 1
    evidence = min(cap, max(evidence, 0.0) + WHOAMI_BITS) if whoami else evidence
    reading.lr_stranger = quantise(evidence)
    reading.lr_insider = quantise(evidence if not whoami else quiet)
    if p > 0.0 and harm >= SLOW_HARM:
        reading.lr_stranger_slow = quantise(min(SLOW_MOST, max(0.0, ratio_bits(p, harm + more, cap) - SLOW_LESS)))
    earlier = p > 0.0 and not new
    kind = class_of(harm) if earlier and not whoami else int(event.operation)
    reading.a = kind + 16.0 * ((1 if new else 0) + (2 if whoami else 0) + (4 if earlier else 0))
    reading.b = level


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Keep the visit's new operations until it is settled."""
    if int(visit.events) == 0 and event.ts_us - int(visit.last_us) > HELD_US:
        keep_held(state)
    if weight <= 0.0 or int(event.sees) & SEES_ROUTE == 0 or int(event.route) == 0:
        return
    harm = harm_of(event)
    unknown = not is_known(state, event.route, harm >= SLOW_HARM)
    state.close = close_with(state, visit, event, unknown)
    state.level = level_with(state, int(state.close)) + 1
    if unknown:
        state.fresh = int(state.fresh) | route_bit(event.route)
    if not counts(event):
        return
    state.used = 1
    if not unknown:
        return
    if float(state.mixture.visits) > 0.0:
        if float(state.p) <= 0.0:
            state.p = chance(state, visit, event)
            state.harm = harm
        else:
            state.harm = max(float(state.harm), harm)
    put_waiting(state, int(event.route), harm >= SLOW_HARM)


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """Move the visit's operations into the filter."""
    own = float(state.mixture.visits) <= 0.0 or int(visit.anew) == 1  # its first visit's, or adopted, or admitted
    if weight > 0.0 and float(state.mixture.visits) > 0.0:
        learn_breadth(state, shared, visit)
    if weight > 0.0 and int(state.used) == 1:
        novelty.learn_visit(state.mixture, visit.last_us, float(state.p) > 0.0)
        off = int(visit.events) - np.float64(state.usual)
        state.usual = np.float64(state.usual) + off / min(MEMORY, max(1.0, np.float64(state.mixture.visits)))
    settle_waiting(state, weight > 0.0 and int(state.used) == 1, int(visit.tainted) == 1, own)
    state.fresh = 0
    state.close = 0
    state.level = 0
    state.p = 0.0
    state.harm = 0.0
    state.used = 0


@compiled
def learn_breadth(state: Any, shared: Any, visit: Any) -> None:
    """A visit's new routes into the key's and the peers' counts."""
    level = int(state.level) - 1
    if level < 0:
        return
    for j in range(LEVELS):
        reached = 1.0 if j <= level else 0.0
        state.close_visits[j] = min(65_535, int(FADING * int(state.close_visits[j]) + UNIT * reached + 0.5))
    if teaches(visit):
        tell_levels(shared.close_visits[visits_group(visit)], level + 1, PEERS_KEPT)


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
    since = f"in {known_words(context.seen_days)}"
    others = ", among others just as new" if reading.b >= 1 else ""
    if flags & 1 == 0:
        said = [f"{name}, asked first from a new place"] if flags & 2 else []
        if flags & 4:
            what = WORDS.get(kind, "an operation") if not flags & 2 else "an operation"
            said.append(f"earlier in this visit {what} that this key never did {since}{others}")
        elif reading.b >= 1:
            said.append("routes that it never asked for, close together in this visit")
        return " and ".join(said) or f"{name}, done before: nothing new in a visit is rare for this key"
    if kind in WORDS:
        return f"{name}, {WORDS[kind]} that this key never did {since}{others}"
    return f"{name}, never done {since}{others}"


NOVEL_OPERATION: Final = Detector(
    name="novel_operation",
    family="operation",
    unit="new operations",
    state=STATE,
    shared=SHARED,
    config=NovelOperation(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
