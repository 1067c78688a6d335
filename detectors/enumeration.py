"""Enumeration: a visit touches far more different objects than this key's visits do.

Detects: records read one after the other (ids counted up, lists walked through): distinct paths of one visit against
the key's own law of that count. Distinct, so a client that polls one object is not enumerating, however often.
Misses: harvests through few paths (lists, searches, exports: that is `egress`); slow ones that stay within the key's
usual count; keys that walk through everything anyway; objects named in the body or the query.
False alarms: a migration, a first full synchronisation, a report over all records.
Source: reference/detections.md, no. 6; the law is `log_sizes`. Volume alone proves nothing: family "volume".
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors.compile import compiled
from detectors.detector import NOTHING, SEES_OUTCOME, SEES_ROUTE, Context, Detector
from detectors.distinct import add, estimate, has, wipe
from detectors.log_sizes import LAW, evidence_of, learn_size, size_bits, usual

BITMAP_BYTES: Final = 16
BITS: Final = 8 * BITMAP_BYTES


class Enumeration(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.enumeration]"""

    least: float = 20.0  # distinct objects of a visit before it is judged
    cap_bits: float = 10.0  # of the log likelihood ratio
    floor_bits: float = 0.5


STATE: Final = np.dtype(
    [("objects", LAW), ("loud", "f4"), ("bitmap", "u1", (BITMAP_BYTES,)), ("set_bits", "u2"), ("pad", "u1", (2,))],
    align=True,
)
"""`loud`: distinct objects below which a visit is nothing odd; so most events need no logarithm."""


@compiled
def counted(event: Any) -> bool:
    """Whether the event's caller held the key and the path is known."""
    return int(event.object) != 0 and (int(event.authenticated) == 1 or int(event.sees) & SEES_OUTCOME == 0)


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Bits of the visit's distinct objects with this one."""
    if int(event.sees) & SEES_ROUTE == 0 or int(event.object) == 0 or not counted(event):
        return
    reading.covered = 1
    if float(state.objects.seen) <= 0.0:
        return
    used = int(state.set_bits)
    floor = -float(config.floor_bits)
    reading.lr_stranger = floor
    reading.lr_insider = floor
    if used + 1 < float(config.least) * 0.9 or estimate(used + 1, BITS) < float(state.loud):
        return
    objects = estimate(used if has(state.bitmap, event.object) else used + 1, BITS)
    if objects < float(config.least):
        return
    bits = size_bits(state.objects, objects)
    evidence = evidence_of(bits, float(config.floor_bits), float(config.cap_bits))
    reading.bits = bits
    reading.lr_stranger = evidence
    reading.lr_insider = evidence
    reading.observed = math.floor(objects + 0.5)
    reading.low = math.floor(usual(state.objects, -1.65))
    reading.median = math.floor(usual(state.objects, 0.0) + 0.5)
    reading.high = math.ceil(usual(state.objects, 1.65))
    reading.a = 1.0 if used + 1 >= BITS else 0.0


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Take the object into the visit; settle decides what is kept of it."""
    if int(event.sees) & SEES_ROUTE == 0 or not counted(event):
        return
    if add(state.bitmap, event.object):
        state.set_bits = int(state.set_bits) + 1


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """The visit's count into the law."""
    if weight > 0.0 and int(state.set_bits) > 0:
        learn_size(state.objects, max(1.0, estimate(int(state.set_bits), BITS)))
        state.loud = usual(state.objects, 1.0)
    wipe(state.bitmap)
    state.set_bits = 0


def explain(reading: Any, context: Context) -> str:
    """In words: "412 different objects in one visit, where 9 [3-21] are usual"."""
    least = "more than " if reading.a == 1.0 else ""
    band = f"{reading.median:.0f} [{reading.low:.0f}-{reading.high:.0f}]"
    return f"{least}{reading.observed:.0f} different objects in one visit, where {band} are usual"


ENUMERATION: Final = Detector(
    name="enumeration",
    family="volume",
    unit="distinct objects in a visit",
    state=STATE,
    shared=NOTHING,
    config=Enumeration(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
