"""A key's quiet life and one more visit that differs: what a detector says of it."""

from __future__ import annotations

from typing import Any

from detectors import DETECTORS
from tests.detectors.streams import DAY_US, Array, Judge

INDEX = {detector.name: index for index, detector in enumerate(DETECTORS)}


def one_more(life: Array, calls: int = 3, later_us: int = DAY_US, **fields: Any) -> Array:
    """A visit like the last, later, with other fields (a value or an array of `calls`)."""
    events = life[-calls:].copy()
    events["ts_us"] += later_us
    events["request"] += 1_000_000
    for name, value in fields.items():
        events[name] = value
    return events


def found_in(name: str, life: Array, visit: Array, **settings: float) -> list[dict[str, Any]]:
    """The findings of one detector in the visit, after that life."""
    judge = Judge(1, **({"finding_bits": 0.25} | settings))
    judge.feed(life)
    before = len(judge.found)
    judge.feed(visit)
    return [row for row in judge.found[before:] if row["detector"] == INDEX[name]]


def bits_of(name: str, life: Array, visit: Array) -> float:
    """The largest bits of the visit, 0 for none."""
    return max((row["bits"] for row in found_in(name, life, visit)), default=0.0)
