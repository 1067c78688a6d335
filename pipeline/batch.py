"""One slice's events, numbers and texts side by side: what the steps after `enrich` hand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from detectors.detector import SEES_OUTCOME
from pipeline.column import Coded
from pipeline.fields import Events, Fields
from pipeline.geo.provider import Place
from schemas.key import Key

Array = np.ndarray[Any, Any]


class Kind(NamedTuple):
    """What events say in few words; one `Kind` per combination that occurs."""

    method: str
    outcome: str
    environment: str
    source: str
    scope: str


def held(events: Array) -> Any:
    """Of which EVENT records the caller held the key, or nobody can tell: `detectors.detector.attested` of many."""
    return (events["authenticated"] == 1) | (events["sees"] & SEES_OUTCOME == 0)


@dataclass(frozen=True, slots=True)
class Batch:
    """`source[i]`, `events[i]` (an EVENT record) and the texts of event i; all of equal length, in log order."""

    source: Events
    told: Fields
    declared: Coded[Key | None]
    events: Array
    places: Coded[Place]
    clients: Coded[str]  # family of the user agent
    routes: Coded[str]
    words: Mapping[str, Coded[str]]  # the texts of rows, by column
    first_us: Array  # of the first event of the key's holder, as known at event i; 0: none, or no state

    def zone(self, i: int) -> str:
        """The key's declared time zone, else UTC."""
        key = self.declared[i]
        return key.time_zone if key is not None and key.time_zone else "UTC"

    def local_time(self, i: int) -> str:
        """E.g. "Tue 03:12", in the key's zone; a zone that no longer exists counts as UTC."""
        try:
            zone: Any = ZoneInfo(self.zone(i))
        except (ZoneInfoNotFoundError, ValueError):
            zone = UTC
        return datetime.fromtimestamp(self.source[i].ts_us / 1e6, zone).strftime("%a %H:%M")
