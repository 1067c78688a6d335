"""What a person's word on an incident does to a key's record: admit its values, adopt its way, forget, never count.

Not compiled: it happens a few times a day. The detectors' own `learn` and `settle` admit values, as one visit of weight
1, so that what is admitted is what an untainted visit would have taught. Only kinds of values are admitted (networks,
clients, operations); level and rhythm follow from the visits to come, which `confirm` lets be learned at once instead
of after the seven days of `fusion.adopts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from detectors import calibration, counted, fusion
from detectors.detector import VISIT, Detector
from detectors.generate import load_pass
from detectors.known_values import ADMITTED, SLOT, drop, hours
from detectors.records import records
from detectors.teaching import too_young

Array = np.ndarray[Any, Any]

OF_VALUES: Final = frozenset({"network", "client", "operation"})
"""Families that know values, not amounts."""
AT_ONCE: Final = 2
"""Values of one visit: what every such detector keeps of a visit."""
HOURS: Final = 65_536
"""`known_values.hours` counts modulo this."""
FIELD_OF: Final = {"networks": "asn", "countries": "country", "clients": "client"}
"""Table of known values (a field of SLOT) -> the event's field that it knows."""


def admit(detectors: Sequence[Detector], configs: tuple[Array, ...], key: Any, shared: Any, events: Array) -> None:
    """Teach the values of these EVENT records, in log order, to the key's record; `key`, `shared`: one-row arrays."""
    module, one, common = load_pass(detectors), records(key)[0], records(shared)[0]
    for k, detector in enumerate(detectors):
        if detector.family not in OF_VALUES:
            continue
        state, known = one[detector.name], common[detector.name]
        for first in range(0, len(events), AT_ONCE):
            visit, some = records(_visit_of(events[first : first + AT_ONCE])), records(events[first : first + AT_ONCE])
            for event in some:
                getattr(module, f"learn_{k}")(state, known, visit[0], event, 1.0, records(configs[k])[0])
            getattr(module, f"settle_{k}")(state, known, visit[0], 1.0, records(configs[k])[0])
        for table, slots in _tables(detector, key):
            said = np.isin(slots["value"], events[FIELD_OF[table]]) & (slots["value"] != 0)
            slots["with_"][said] |= ADMITTED


def _visit_of(events: Array) -> Array:
    visit = np.zeros(1, VISIT)
    visit["start_us"] = visit["first_seen_us"] = events["ts_us"][0]
    visit["last_us"] = events["ts_us"][-1]
    visit["confirmed"] = visit["anew"] = 1
    return visit


def in_series(key: Array, opened_us: int) -> bool:
    """Whether the incident is one of those that follow one another until now (`fusion.adopts`)."""
    series_us = int(key["fusion"]["series_us"][0])
    return series_us != 0 and opened_us >= series_us


def confirm(key: Array, opened_us: int, now_us: int) -> bool:
    """`expected`: what goes on under the key's incidents is learned from now on. False: they are long over."""
    if not in_series(key, opened_us):
        return False
    key["fusion"]["series_us"] = np.minimum(key["fusion"]["series_us"], max(1, now_us - fusion.SERIES_US))
    key["fusion"]["series_severity"] = 0
    key["fusion"]["taken"] = fusion.REVIEWED
    key["visit"]["tainted"] = 0
    key["visit"]["anew"] = 1
    return True


def condemn(key: Array, opened_us: int) -> bool:
    """`malicious`: what goes on is never adopted; the running visit, if it is the incident's, will not be counted."""
    if int(key["visit"]["start_us"][0]) <= opened_us:
        key["fusion"]["under"] = 1
        key["visit"]["tainted"] = 1
    if not in_series(key, opened_us):
        return False
    key["fusion"]["series_severity"] = 2
    key["fusion"]["taken"] = 0
    return True


def close(key: Array) -> None:
    """The open incident is over."""
    key["fusion"]["open"] = 0


def forget(detectors: Sequence[Detector], key: Array, values: dict[str, set[int]], since_us: int) -> int:
    """Take values out of the key's tables that came in after `since_us`; returns how many.

    values: field of EVENT -> numbers. What is kept in a filter of bits (operations) can't be taken out again.
    """
    gone = 0
    for detector in detectors:
        for table, slots in _tables(detector, key):
            after = _after(slots, values.get(FIELD_OF[table], set()), since_us)
            for j in after:
                drop(records(slots), j)
            gone += len(after)
    return gone


def _tables(detector: Detector, key: Array) -> list[tuple[str, Array]]:
    """The detector's tables of known values in a key's record, by name."""
    names = [name for name in detector.state.names or () if name in FIELD_OF and detector.state[name].base == SLOT]
    return [(name, key[detector.name][name][0]) for name in names]


def _after(slots: Array, values: set[int], since_us: int) -> list[int]:
    age_h = (slots["first_h"].astype(np.int64) - hours(since_us)) % HOURS
    return [j for j, slot in enumerate(slots) if int(slot["value"]) in values and age_h[j] < HOURS // 2]


def uncount(key: Array, shared: Array, rule: str, opened_us: int) -> bool:
    """Take the run of an incident's visit out of the calibration again; False: it isn't in it, or goes on.

    Only the key's newest run is known. Visits that follow begin another one.
    """
    visit, kept = key["visit"][0], key["fusion"][0]
    if rule not in calibration.RULES or int(visit["start_us"]) <= opened_us:
        return False
    number = calibration.RULES.index(rule)
    hour = opened_us // fusion.HOUR_US % 65_535 + 1
    if counted.begins_run(int(kept["run_h"][number]), hour):
        return False
    if too_young(int(visit["first_seen_us"]), int(shared["since_us"][0]), opened_us):
        return False  # its visits were not counted then
    stratum = calibration.stratum_of(fusion.visits_per_day(records(key)[0]["visit"], int(visit["last_us"])))
    known = shared["calibration"]
    for counts in (known["visits"][0, number], known["counts"][0, number, :, int(kept["run_bin"][number])]):
        counts[stratum] = max(0.0, counts[stratum] - 1.0)
    key["fusion"]["run_h"][0, number] = 0
    return True
