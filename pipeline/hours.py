"""What the clock says where a key is declared to live: hour of the week, and inside of its business hours or not.

Zones are names, never offsets, so daylight saving moves no profile. A zone's offset is looked up once per quarter of
an hour (every change of a zone since 2000 falls on one) and a holiday once per country and day; the rest is arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import holidays
import msgspec
import numpy as np

from pipeline.column import Coded
from schemas.event import ENVIRONMENTS
from schemas.key import BusinessHours, Key

QUARTER_S: Final = 900
DAY_S: Final = 86_400
EPOCH_WEEKDAY: Final = 3
"""1970-01-01 was a Thursday; Monday is 0."""
MOST_CACHED: Final = 1 << 16

SCHEDULE: Final = np.dtype(
    [
        ("zone", "i4"),  # -1: none declared
        ("country", "i4"),  # of the holidays; -1: none declared
        ("start_min", "i4"),  # -1: no business hours declared
        ("end_min", "i4"),
        ("weekdays", "i4"),  # bit 0 is Monday
        ("live", "i4"),  # as EVENT.live
    ]
)

Ints = np.ndarray[Any, np.dtype[np.int64]]


class Clock(msgspec.Struct, frozen=True):
    """Per event, as in EVENT: local hour of the week, inside of business hours, declared environment."""

    local_hour: Ints
    in_hours: Ints
    live: Ints


class Hours:
    """The declared zones and business hours, with their caches. One per partition: not thread-safe."""

    def __init__(self) -> None:
        self._index: dict[int, int] = {}  # id of a key -> its row
        self._keys: list[Key | None] = []  # by row; held, so that an id stays its key's own
        self._rows = np.zeros(64, SCHEDULE)
        self._zones: dict[str, int] = {}
        self._zone_infos: list[ZoneInfo] = []
        self._countries: dict[str, int] = {}
        self._calendars: list[Any] = []
        self._offsets_s: dict[tuple[int, int], int] = {}
        self._free_days: dict[tuple[int, int], bool] = {}

    def clock(self, seconds: Ints, declared: Coded[Key | None]) -> Clock:
        """`seconds` since 1970 UTC per event; `declared` what the catalogue says of each event's key."""
        if not any(declared.values):
            none = np.full(len(seconds), -1, np.int64)
            return Clock(none, none, np.zeros(len(seconds), np.int64))
        if len(self._keys) > MOST_CACHED:
            self._index.clear()
            self._keys.clear()
        indices = self._indices(declared.values)
        rows = self._rows.take(np.array(indices, np.intp).take(declared.codes))
        local_s = seconds + self._pairs(rows["zone"], seconds // QUARTER_S, self._offset_s)
        weekday = (local_s // DAY_S + EPOCH_WEEKDAY) % 7
        hour = weekday * 24 + local_s % DAY_S // 3600
        zoned = rows["zone"] >= 0
        inside = self._inside(rows, weekday, local_s)
        return Clock(
            np.where(zoned, hour, -1), np.where(zoned & (rows["start_min"] >= 0), inside, -1), rows["live"].astype("i8")
        )  # fmt: skip

    def _inside(self, rows: Any, weekday: Ints, local_s: Ints) -> Ints:
        """1 inside of the declared hours, else 0. Hours that end before they start run over midnight."""
        minute, start, end = local_s % DAY_S // 60, rows["start_min"], rows["end_min"]
        span = np.where(start <= end, (minute >= start) & (minute < end), (minute >= start) | (minute < end))
        working = (rows["weekdays"] >> weekday) & 1 == 1
        free = self._pairs(rows["country"], local_s // DAY_S, self._free) == 1
        inside: Ints = (span & working & ~free).astype("i8")
        return inside

    def _pairs(self, first: Any, second: Ints, ask: Any) -> Ints:
        """`ask(first, second)` per event, asked once per distinct pair; 0 where first is -1."""
        joined = (first.astype("i8") << 40) | second
        distinct, inverse = np.unique(joined, return_inverse=True)
        answers = [ask(int(pair >> 40), int(pair & (1 << 40) - 1)) if pair >= 0 else 0 for pair in distinct]
        return np.array(answers, "i8")[inverse.reshape(-1)]

    def _offset_s(self, zone: int, quarter: int) -> int:
        known = self._offsets_s.get((zone, quarter))
        if known is None:
            at = datetime.fromtimestamp(quarter * QUARTER_S, self._zone_infos[zone]).utcoffset() or timedelta()
            known = self._offsets_s[zone, quarter] = round(at.total_seconds())
            _halve(self._offsets_s)
        return known

    def _free(self, country: int, day: int) -> int:
        known = self._free_days.get((country, day))
        if known is None:
            at = date.fromordinal(date(1970, 1, 1).toordinal() + day)
            known = self._free_days[country, day] = at in self._calendars[country]
            _halve(self._free_days)
        return int(known)

    def _indices(self, declared: Sequence[Key | None]) -> list[int]:
        """The row of each event's key."""
        numbers = list(map(id, declared))
        try:
            return list(map(self._index.__getitem__, numbers))
        except KeyError:
            for key in declared:
                if id(key) not in self._index:
                    self._add(key)
            return list(map(self._index.__getitem__, numbers))

    def _add(self, key: Key | None) -> None:
        row = self._index[id(key)] = len(self._keys)
        self._keys.append(key)
        if row == len(self._rows):
            self._rows = np.resize(self._rows, 2 * row)
        key = key or Key(key_id="-")
        hours = key.business_hours or BusinessHours(start_min=0, end_min=0, weekdays=())
        self._rows[row] = (
            self._zone(key.time_zone),
            self._country(key.holidays_country),
            hours.start_min if key.business_hours else -1,
            hours.end_min,
            sum({1 << day for day in hours.weekdays}),
            ENVIRONMENTS.index(key.environment),
        )

    def _zone(self, name: str) -> int:
        """Its number; -1 where none is declared or the name is no zone (import refuses such; a topic may hold one)."""
        if name not in self._zones:
            try:
                self._zone_infos.append(ZoneInfo(name))
            except (OSError, ValueError, LookupError):
                self._zones[name] = -1
            else:
                self._zones[name] = len(self._zone_infos) - 1
        return self._zones[name] if name else -1

    def _country(self, code: str) -> int:
        """Its number; -1 where none is declared or no calendar is known."""
        if code not in self._countries:
            calendar = calendar_of(code)
            self._countries[code] = len(self._calendars) if calendar is not None else -1
            if calendar is not None:
                self._calendars.append(calendar)
        return self._countries[code]


def calendar_of(code: str) -> Any | None:
    """The public holidays of a country, computed year by year as asked; None where there are none."""
    if not code:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return holidays.country_holidays(code.upper())
    except NotImplementedError:
        return None


def utc_hour(seconds: Ints) -> Ints:
    """Hour of the week in UTC, Monday 00h is 0."""
    return (seconds // 3600 + EPOCH_WEEKDAY * 24) % 168


def _halve(cache: dict[Any, Any]) -> None:
    """Drop the older half at the bound."""
    if len(cache) > MOST_CACHED:
        for key in list(cache)[: MOST_CACHED // 2]:
            del cache[key]
