"""Declared zones, business hours and holidays, over daylight saving and midnight."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.column import coded
from pipeline.hours import Hours, utc_hour
from schemas.key import BusinessHours, Key

ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "UTC"]


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def inside(key: Key, *times: str) -> list[int]:
    clock = Hours().clock(np.array([seconds(time) for time in times]), coded([key] * len(times)))
    return [int(each) for each in clock.in_hours]


def office(**changes: object) -> Key:
    fields = {"time_zone": "Europe/Berlin", "business_hours": BusinessHours(start_min=540, end_min=1020), **changes}
    return Key(key_id="k", **fields)  # type: ignore[arg-type]


def test_daylight_saving_moves_no_business_hour() -> None:
    winter, summer = "2026-03-27T08:30:00+00:00", "2026-03-30T07:30:00+00:00"  # both 09:30 in Berlin
    before = "2026-03-30T06:30:00+00:00"
    assert inside(office(), winter, summer, before) == [1, 1, 0]


def test_end_is_outside_and_weekends_are_outside() -> None:
    assert inside(office(), "2026-01-09T15:59:59+00:00", "2026-01-09T16:00:00+00:00", "2026-01-10T10:00:00+00:00") == [
        1,
        0,
        0,
    ]


def test_a_public_holiday_is_outside_where_a_country_is_declared() -> None:
    unity_day = "2025-10-03T10:00:00+00:00"  # a Friday
    assert inside(office(), unity_day) == [1]
    assert inside(office(holidays_country="DE"), unity_day) == [0]
    assert inside(office(holidays_country="de"), "2025-10-02T10:00:00+00:00") == [1]


def test_hours_over_midnight() -> None:
    night = office(business_hours=BusinessHours(start_min=1320, end_min=360, weekdays=(0, 1, 2, 3, 4, 5, 6)))
    assert inside(night, "2026-01-05T22:00:00+00:00", "2026-01-05T03:00:00+00:00", "2026-01-05T12:00:00+00:00") == [
        1,
        1,
        0,
    ]


@pytest.mark.parametrize("key", [office(time_zone=""), office(time_zone="No/Where"), office(business_hours=None), None])
def test_what_is_not_declared_or_no_zone_is_minus_one(key: Key | None) -> None:
    clock = Hours().clock(np.array([seconds("2026-01-05T12:00:00+00:00")] * 2), coded([key, office()]))
    assert clock.in_hours.tolist() == [-1, 1]


def test_an_unknown_country_has_no_holidays() -> None:
    assert inside(office(holidays_country="XX"), "2026-01-05T12:00:00+00:00") == [1]


@given(st.sampled_from(ZONES), st.integers(946_684_800, 4_102_444_799))
def test_the_local_hour_is_what_zoneinfo_says(zone: str, at_s: int) -> None:
    local = datetime.fromtimestamp(at_s, ZoneInfo(zone))
    clock = Hours().clock(np.array([at_s]), coded([Key(key_id="k", time_zone=zone)]))
    assert clock.local_hour.tolist() == [local.weekday() * 24 + local.hour]


@given(st.integers(946_684_800, 4_102_444_799))
def test_the_utc_hour_is_what_datetime_says(at_s: int) -> None:
    at = datetime.fromtimestamp(at_s, UTC)
    assert utc_hour(np.array([at_s])).tolist() == [at.weekday() * 24 + at.hour]


def test_many_keys_come_and_go_and_each_keeps_its_own_zone() -> None:
    hours = Hours()
    at = np.full(3000, seconds("2026-01-05T12:00:00+00:00"))
    for _ in range(3):
        keys = [Key(key_id=str(number), time_zone=ZONES[number % 2]) for number in range(3000)]
        assert hours.clock(at, coded(keys)).local_hour.tolist() == [13, 7] * 1500
