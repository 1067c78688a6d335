"""What a partition's keys share, divided and put together when its keys move to other partitions.

Every key takes an equal part of its partition's shared knowledge along: where 30 % of a partition's keys go to another
one, so do 30 % of what it has counted (visits by score, peers by network, units and errors), and the new partition has
the sum of what came. So nothing is counted twice however often keys move, and totals stay what they were. Means (the
peers' rate) are averaged by what they weigh, with the variance between the partitions in it. It is known for as long
as the oldest of it (`teaching`). What was seen of single keys on routes lately (`outage`) goes with these keys. A
partition that gets all the keys of one other, and nobody else's, has its shared knowledge bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from detectors import DETECTORS, detector

Array = np.ndarray[Any, Any]

SUMMED: Final = frozenset(
    {
        "calibration.visits", "calibration.counts", "geography.keys", "geography.networks", "geography.new_networks",
        "geography.both_new", "geography.moves", "geography.leaps", "geography.due", "geography.seen",
        "novel_client.new_places", "novel_client.both_new", "novel_client.new_clients", "novel_client.turned",
        "novel_client.due", "novel_client.seen", "novel_client.stood", "novel_client.changed", "novel_client.lately",
        "novel_operation.close_visits", "spike.keys", "spike.visits", "spike.peaks", "spike.same_visits",
        "spike.same_peaks", "errors.units", "errors.wrong", "errors.visits", "errors.lone",
        "errors.close_visits",
        "egress.visits", "egress.peaks", "egress.sum_visits", "egress.sum_peaks", "sharing.visits", "enumeration.tried",
    }
)  # fmt: skip
"""Counts: each key's part of them goes with it."""
MEANS: Final = {"spike.log_rate": ("spike.keys", "spike.spread")}
"""Mean -> (its weight, its variance)."""
LAWS: Final = frozenset({"spike.crowds"})
"""Arrays whose last axis is weight, mean, variance."""
OF_KEYS: Final = frozenset({"errors.routes", "egress.routes"})
"""Tables that name keys."""
NOTHING: Final = frozenset(f"{each.name}.unused" for each in DETECTORS if each.shared == detector.NOTHING)

Find = Callable[[int, int], int]
"""(source partition, key's number in its file) -> the key's slot in this target, -1 if it is elsewhere."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one source gives: its record (one of SHARED), and which share of its keys comes."""

    source: int
    record: Any
    share: float


def fields(dtype: np.dtype[Any]) -> list[str]:
    """All fields of SHARED as "detector.field"."""
    return [f"{outer}.{inner}" for outer in dtype.names or () for inner in dtype[outer].names or ()]


def rules() -> frozenset[str]:
    """All fields that have a rule here."""
    pairs = {name for weight, spread in MEANS.values() for name in (weight, spread)}
    return SUMMED | LAWS | OF_KEYS | NOTHING | pairs | set(MEANS)


def combine(parts: Iterable[Part], find: Find, target: Any) -> None:
    """Fill `target` (a zeroed array of one SHARED record) with what the parts bring."""
    given = [part for part in parts if part.share > 0.0]
    if len(given) == 1 and given[0].share == 1.0:
        target[0] = given[0].record
    elif given:  # a partition may get no key at all
        _combine(given, target)
    _route_keys(given, find, target["errors"]["routes"][0])
    _route_sizes(given, find, target["egress"]["routes"][0])


def _combine(parts: list[Part], target: Any) -> None:
    target["since_us"] = min((since for part in parts if (since := int(part.record["since_us"])) > 0), default=0)
    for name in sorted(SUMMED):
        outer, inner = name.split(".")
        total = sum(np.asarray(part.record[outer][inner], "f8") * part.share for part in parts)
        target[outer][inner][0] = total
    for mean, (weight, spread) in MEANS.items():
        outer = mean.split(".")[0]
        weights = np.array([float(_get(part.record, weight)) * part.share for part in parts])
        if weights.sum() > 0.0:
            values = np.array([float(_get(part.record, mean)) for part in parts])
            inside = np.array([float(_get(part.record, spread)) for part in parts])
            target[outer][mean.split(".")[1]][0], target[outer][spread.split(".")[1]][0] = _joined(
                weights, values, inside
            )
    for name in sorted(LAWS):
        outer, inner = name.split(".")
        for place in np.ndindex(target[outer][inner].shape[1:-1]):
            laws = np.array([np.asarray(_get(part.record, name)[place], "f8") for part in parts])
            weights = laws[:, 0] * np.array([part.share for part in parts])
            if weights.sum() > 0.0:
                target[outer][inner][0][place] = (weights.sum(), *_joined(weights, laws[:, 1], laws[:, 2]))


def _joined(weights: Array, means: Array, variances: Array) -> tuple[float, float]:
    """Mean and variance of several laws together."""
    middle = float((weights * means).sum() / weights.sum())
    return middle, float((weights * (variances + (means - middle) ** 2)).sum() / weights.sum())


def _get(record: Any, name: str) -> Any:
    outer, inner = name.split(".")
    return record[outer][inner]


def _route_keys(parts: Iterable[Part], find: Find, table: Any) -> None:
    """The outage table: each key's share of a route's requests, under the key's new slot."""
    table["last_us"], table["route"] = 0, 0
    table["keys"] = np.zeros((), table["keys"].dtype)
    for part in parts:
        source = part.record["errors"]["routes"]
        for cell in np.flatnonzero(source["route"]).tolist():
            here = [share for share in source["keys"][cell] if share["since_us"] != 0]
            moved = [(share, slot) for share in here if (slot := find(part.source, int(share["slot"]))) >= 0]
            if moved:
                _put_route(table, cell, int(source["route"][cell]), int(source["last_us"][cell]), moved)


def _put_route(table: Any, cell: int, route: int, last_us: int, moved: list[tuple[Any, int]]) -> None:
    """Of two routes in one cell the one used last stays; of more keys than there is room for the newest."""
    if table["route"][cell] not in (0, route):
        if table["last_us"][cell] >= last_us:
            return
        table["keys"][cell] = np.zeros((), table["keys"].dtype)
    table["route"][cell] = route
    table["last_us"][cell] = max(int(table["last_us"][cell]), last_us)
    for share, slot in moved:
        place = int(np.argmin(table["keys"][cell]["since_us"]))
        if table["keys"][cell, place]["since_us"] < share["since_us"]:
            table["keys"][cell, place] = share
            table["keys"][cell, place]["slot"] = slot


def _route_sizes(parts: Iterable[Part], find: Find, table: Any) -> None:
    """How large routes' answers are: in each place what is known best; the keys that taught last move along."""
    for name in table.dtype.names:
        table[name][:] = 0
    for part in parts:
        source = part.record["egress"]["routes"]
        better = source["seen"] > table["seen"]
        better |= (source["seen"] == table["seen"]) & (source["route"] != 0) & (table["route"] == 0)
        for name in table.dtype.names:
            table[name][better] = source[name][better]
        for cell in np.flatnonzero(better & (source["teacher"] > 0)).tolist():
            table["teacher"][cell] = find(part.source, int(source["teacher"][cell]) - 1) + 1


def named(record: Any, numbers: Mapping[int, int]) -> Any:
    """A copy of one SHARED record with keys by `numbers` (slot -> number) instead of slots; forgotten keys are out."""
    copy = record.copy()
    keys = copy["errors"]["routes"]["keys"]
    for at in zip(*np.nonzero(keys["since_us"]), strict=True):
        number = numbers.get(int(keys["slot"][at]))
        if number is None:
            keys[at] = np.zeros((), keys.dtype)
        else:
            keys["slot"][at] = number
    teachers = copy["egress"]["routes"]["teacher"]
    for at in zip(*np.nonzero(teachers), strict=True):
        teachers[at] = numbers.get(int(teachers[at]) - 1, -1) + 1
    return copy
