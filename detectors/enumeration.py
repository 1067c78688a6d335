"""Enumeration: one object after another, where this key's visits ask for the same few, or for ones that are there.

Detects: a key that reads many more distinct objects per request than it did (a poller of twenty records that goes
  through two hundred); ids or addresses tried one by one on a route that refuses or does not know most of them.
Misses: objects that are told apart by a query or a body (paths only are seen); a key that reads each object once
  anyway: more of that is more requests, which spike judges; more than some 250 objects count as 250; tries that go
  over two routes in turn.
False alarms: a first full synchronisation; a client whose records were deleted and that asks for each of them once. So
  it is of the family `volume`, on which, with errors, nothing is ever done by itself.
Source: reference/detections.md no. 6 (Cloudflare's BOLA detection: unique ids of a session; Elastic: 20 distinct
  secrets within 6 min; CrowdSec: distinct paths) and no. 10; here against the key's own visits and its peers'.
  Described incidents: Optus 2022 (contact ids one after another), Trello 2024 (addresses looked up, most unknown).

How it works. A visit's distinct objects are counted in 64 bits (linear counting, Whang 1990: within 15 % up to 100).
Successes: the count, divided by how many times more requests there were than usual, against the key's law of it
(`log_sizes`). Refused and missing ones (401, 403, 404): only objects of the route that was wrong last, so that a scan
over many routes stays what `errors` judges and a retry of one path stays one object; of this key's visits with
one such object or more, the share with 6, 16 and 40 (own counts, memory 50 visits, with the peers' share as prior).
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.detector import (
    ERROR_401,
    ERROR_403,
    ERROR_404,
    ERROR_NONE,
    Context,
    Detector,
    attested,
    tells,
    usual_words,
)
from detectors.log_sizes import LAW, evidence_of, learn_held, size_bits, usual
from detectors.surprise import log2_of, quantise
from detectors.teaching import teaches, tell_levels

BITS: Final = 64
OBJECTS: Final = np.array([BITS * math.log(BITS / max(1, BITS - bits)) for bits in range(BITS + 1)])
"""About how many objects set so many bits: linear counting; at one bit that is still clear, or none, 266."""
LEAST_OBJECTS: Final = 12  # of a visit, until it is judged [judged]
LOG_LEAST: Final = math.log(LEAST_OBJECTS)
LEVELS: Final = 4
LEAST: Final = np.array([1, 6, 16, 40])  # distinct wrong objects of one route in a visit
STRANGERS: Final = np.array([1.0, 0.6, 0.5, 0.3])  # of visits that try out ids [judged]
PEERS: Final = np.array([1.0, 0.1, 0.03, 0.01])  # of peers' visits with one, until they are counted [judged]
PEERS_WEIGHT: Final = 50.0
PEERS_KEPT: Final = 5_000.0
OWN_WEIGHT: Final = 2.0  # visits that the peers' share weighs
RAREST: Final = 0.002
FADING: Final = 0.98  # per visit with a wrong object
UNIT: Final = 5.0  # of `tried`: 50 decayed visits fit into a byte
REQUESTS: Final = 1
WRONG: Final = 2

STATE: Final = np.dtype(
    [
        ("seen", "u8"),  # this visit's objects that were there, one bit each
        ("wrong", "u8"),  # those refused or missing
        ("objects", LAW),  # distinct ones of a visit
        ("requests", "f4"),  # of a usual visit, mean of ln
        ("route", "u4"),  # that was wrong last; 0: none in this visit
        ("now", "u2"),  # successes of this visit
        ("tried", "u1", (LEVELS,)),  # visits with so many wrong objects, in 1/5, fading
        ("seen_bits", "u1"),  # set in `seen`
        ("wrong_bits", "u1"),
        ("reached", "u1"),  # levels that this visit's routes reached before
    ],
    align=True,
)
SHARED: Final = np.dtype([("tried", "f8", (LEVELS,))])
"""Peers' visits with so many wrong objects of a route."""


class Enumeration(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.enumeration]"""

    least_visits: float = 8.0  # of the key, until its objects are judged
    cap_bits: float = 8.0  # of the log likelihood ratio


@compiled
def bit_of(number: int) -> int:
    """Which of the 64 bits is this object's."""
    mixed = (int(number) * 0x9E3779B1) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) * 0x85EBCA6B >> 20 & 63


@compiled
def is_in(word: Any, number: int) -> bool:
    """Whether this object's bit is set."""
    return int((np.uint64(word) >> np.uint64(bit_of(number))) & np.uint64(1)) == 1


@compiled
def with_bit(word: Any, number: int) -> Any:
    """The word with this object's bit."""
    return np.uint64(word) | (np.uint64(1) << np.uint64(bit_of(number)))


@compiled
def objects_of(bits: int) -> float:
    """How many objects set so many bits."""
    return OBJECTS[bits]


@compiled
def held(event: Any) -> bool:
    """Whether the event names an object and its caller held the key, as far as the format can tell."""
    return event.object != 0 and event.route != 0 and attested(event)


@compiled
def is_wrong(event: Any) -> bool:
    """Refused or not there."""
    return event.error == ERROR_401 or event.error == ERROR_403 or event.error == ERROR_404


@compiled
def level_of(count: float) -> int:
    """How many levels are reached."""
    level = 0
    for j in range(LEVELS):
        level = j + 1 if count >= LEAST[j] - 0.5 else level
    return level


@compiled
def peers_share(shared: Any, level: int) -> float:
    """Of peers' visits with a wrong object, those that reach the level."""
    return (shared.tried[level] + PEERS_WEIGHT * PEERS[level]) / (shared.tried[0] + PEERS_WEIGHT)


@compiled
def share_of(state: Any, shared: Any, level: int) -> float:
    """Of this key's visits with a wrong object, those that reach the level."""
    own = int(state.tried[level]) / UNIT + OWN_WEIGHT * peers_share(shared, level)
    return max(RAREST, own / (int(state.tried[0]) / UNIT + OWN_WEIGHT))


@compiled
def expected(state: Any, requests: float) -> float:
    """How many times more requests than usual the visit has, at least 1: so many more objects are no news."""
    return max(1.0, requests / math.exp(min(60.0, np.float64(state.requests))))


@compiled
def weigh_wrong(state: Any, shared: Any, event: Any, config: Any, reading: Any) -> None:
    """One more object of a route that was wrong before: how rare so many are."""
    if state.route != event.route or is_in(state.wrong, event.object):
        return
    count = objects_of(int(state.wrong_bits) + 1)
    level = level_of(count) - 1
    if level < 1:
        return
    share = share_of(state, shared, level)
    reading.bits = quantise(log2_of(1.0 / share))
    reading.lr_stranger = quantise(min(float(config.cap_bits), max(0.0, log2_of(STRANGERS[level] / share))))
    reading.observed = count
    reading.high = LEAST[level] - 1.0
    reading.a = WRONG


@compiled
def weigh_seen(state: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """One more object that is there: how rare so many are, for so many requests."""
    if int(visit.ordinal) < config.least_visits or float(state.objects.seen) <= 0.0:
        return
    requests = int(state.now) + 1.0
    if requests < LEAST_OBJECTS:
        return
    count = min(requests, objects_of(int(state.seen_bits) + (0 if is_in(state.seen, event.object) else 1)))
    if count < LEAST_OBJECTS:
        return
    reading.bits = size_bits(state.objects, count / expected(state, requests))
    reading.lr_stranger = evidence_of(reading.bits, 0.0, float(config.cap_bits))
    if not tells(reading):
        return
    reading.observed = count
    reading.low = usual(state.objects, -1.65)
    reading.median = usual(state.objects, 0.0)
    reading.high = usual(state.objects, 1.65)
    reading.a = REQUESTS
    reading.b = requests


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = REQUESTS or WRONG, b = successes of the visit."""
    if event.object == 0:
        return
    reading.covered = 1
    if not held(event):
        return
    if is_wrong(event):
        weigh_wrong(state, shared, event, config, reading)
    elif event.error == ERROR_NONE:
        weigh_seen(state, visit, event, config, reading)
    reading.lr_insider = reading.lr_stranger


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """The object into its visit; what becomes of it, settle decides."""
    if not held(event):
        return
    if is_wrong(event):
        learn_wrong(state, event)
    elif event.error == ERROR_NONE:
        if not is_in(state.seen, event.object):
            state.seen = with_bit(state.seen, event.object)
            state.seen_bits = int(state.seen_bits) + 1
        state.now = min(65_000, int(state.now) + 1)


@compiled
def learn_wrong(state: Any, event: Any) -> None:
    """One object of the route that is wrong now; another route begins anew."""
    if state.route != event.route:
        state.reached = levels_reached(state)
        state.route = event.route
        state.wrong = np.uint64(0)
        state.wrong_bits = 0
    if not is_in(state.wrong, event.object):
        state.wrong = with_bit(state.wrong, event.object)
        state.wrong_bits = int(state.wrong_bits) + 1


@compiled
def levels_reached(state: Any) -> int:
    """By any route of this visit."""
    return max(int(state.reached), level_of(objects_of(int(state.wrong_bits))))


@compiled
def count_wrong(state: Any, shared: Any, visit: Any) -> None:
    """The visit's wrong objects into the key's counts and the peers'."""
    levels = levels_reached(state)
    for j in range(LEVELS):
        reached = 1.0 if j < levels else 0.0
        state.tried[j] = min(255, int(int(state.tried[j]) * FADING + reached * UNIT + 0.5))
    if teaches(visit):
        tell_levels(shared.tried, levels, PEERS_KEPT)


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit's counts into what is usual, or dropped."""
    if weight > 0.0 and int(state.route) != 0:
        count_wrong(state, shared, visit)
    if weight > 0.0 and int(state.now) > 0:
        logs = math.log(float(int(state.now)))
        before = np.float64(state.requests)
        gain = 1.0 if float(state.objects.seen) <= 0.0 else 1.0 / (float(state.objects.seen) + 1.0)
        state.requests = before + gain * (logs - before)
        learn_held(state.objects, visit, objects_of(int(state.seen_bits)), LOG_LEAST)
    state.seen = np.uint64(0)
    state.wrong = np.uint64(0)
    state.seen_bits = 0
    state.wrong_bits = 0
    state.reached = 0
    state.route = 0
    state.now = 0


def explain(reading: Any, context: Context) -> str:
    """Such as "43 different objects of GET /v1/members/{id} refused or missing in a visit, where 0 [0-5] are usual"."""
    count = f"{'over 250' if reading.observed > 250 else f'about {reading.observed:.0f}'} different objects"
    if reading.a == WRONG:
        return f"{count} of {context.method} {context.route} refused or missing in a visit, one after another"
    how_many = usual_words(reading.low, reading.median, reading.high)
    return f"{count} in {reading.b:.0f} requests of a visit, where {how_many}"


ENUMERATION: Final = Detector(
    name="enumeration",
    family="volume",
    unit="distinct objects of a visit",
    state=STATE,
    shared=SHARED,
    config=Enumeration(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
