"""detectors/off_hours.py: office keys, declared hours, real daylight saving, jobs and round-the-clock keys."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from detectors.archetypes import ARCHETYPES, SHARES
from detectors.detector import Context
from detectors.off_hours import DETECTOR, STATE, explain
from tests.detectors.one_key import DAY_US, HOUR_US, MINUTE_US, MONDAY_US, SECOND_US, OneKey, event_at

ODD_BITS = 6.0
CONTEXT = Context(
    key_id="k", method="GET", route="/v1/items", status=200, client_ip="", country="", asn=0, network="", client="",
    local_time="Tue 03:12", time_zone="Europe/Berlin", seen_days=14.0,
)  # fmt: skip


def local_us(zone: str, year: int, month: int, day: int, hour: int) -> int:
    """Microseconds of a local time."""
    return int(datetime(year, month, day, hour, 7, tzinfo=ZoneInfo(zone)).timestamp()) * SECOND_US


def office_days(zone: str, year: int, month: int, days: int) -> list[int]:
    """Visits at 9, 11, 14 and 16 h local time on weekdays from the first of a month on."""
    first = datetime(year, month, 1, tzinfo=ZoneInfo(zone)).toordinal()
    dates = [datetime.fromordinal(first + d) for d in range(days)]
    return [local_us(zone, d.year, d.month, d.day, h) for d in dates if d.weekday() < 5 for h in (9, 11, 14, 16)]


@pytest.fixture(scope="module")
def office() -> OneKey:
    key = OneKey(DETECTOR)
    key.run(office_days("Europe/Berlin", 2026, 1, 42), "Europe/Berlin")
    return key


def test_an_office_key_at_three_in_the_night_is_odd_and_says_why(office: OneKey) -> None:
    event = event_at(local_us("Europe/Berlin", 2026, 2, 17, 3), "Europe/Berlin")
    office.turn_visit(int(event.ts_us), 1.0)
    reading = office.score(event)
    assert reading.bits > ODD_BITS
    assert reading.lr_stranger > 2.0 and reading.lr_insider == reading.lr_stranger
    words = explain(reading, CONTEXT)
    assert words.startswith("used on Tue at 03 h, usually 0") and words.endswith("h (Europe/Berlin)")


@pytest.mark.parametrize(
    ("low", "high", "hour", "inside"), [(8, 18, 12, True), (8, 18, 3, False), (22, 6, 1, True), (22, 6, 12, False)]
)
def test_an_hour_between_the_usual_ones_is_not_said_to_be_outside_of_them(
    low: int, high: int, hour: int, inside: bool
) -> None:
    words = explain(SimpleNamespace(a=hour, b=0.0, low=low, high=high), CONTEXT)
    assert ("rarely used" in words) == inside and ("usually" in words) != inside


def test_a_key_known_for_hours_is_not_said_to_have_hours_of_its_own() -> None:
    reading, young = SimpleNamespace(a=8, b=0.0, low=0, high=23), msgspec.structs.replace(CONTEXT, seen_days=0.8)
    said = "an hour in which keys like it (known for 19 h) are rarely used"
    assert explain(reading, young).endswith(said)


def test_an_office_key_in_the_office_is_not_odd(office: OneKey) -> None:
    event = event_at(local_us("Europe/Berlin", 2026, 2, 17, 14), "Europe/Berlin")
    reading = office.score(event)
    assert reading.covered == 1 and reading.bits < 3.0 and reading.lr_stranger < 0.0


def test_bits_never_exceed_the_cap_of_ten() -> None:
    key = OneKey(DETECTOR)
    key.run([MONDAY_US + d * DAY_US + 10 * HOUR_US for d in range(200)], "UTC")
    assert key.run([MONDAY_US + 200 * DAY_US + 3 * HOUR_US], "UTC") <= 10.0


def test_every_event_of_a_visit_gives_the_bits_of_its_first(office: OneKey) -> None:
    start = local_us("Europe/Berlin", 2026, 2, 18, 1)
    bits = {float(office.feed(event_at(start + i * 10 * MINUTE_US, "Europe/Berlin")).bits) for i in range(6)}
    assert len(bits) == 1


@pytest.mark.parametrize(
    ("zone", "year", "month"),
    [("Europe/Berlin", 2026, 3), ("Europe/Berlin", 2026, 10), ("Australia/Sydney", 2026, 4),
     ("Australia/Sydney", 2026, 10), ("America/New_York", 2026, 3)],
)  # fmt: skip
@pytest.mark.parametrize("zone_known", [True, False])
def test_daylight_saving_does_not_fire(zone: str, year: int, month: int, zone_known: bool) -> None:
    key = OneKey(DETECTOR)
    times = office_days(zone, year, month - 1, 75)
    switch = next(t for t in range(local_us(zone, year, month, 1, 12), times[-1], DAY_US) if shifted(zone, t))
    named = zone if zone_known else ""
    key.run((t for t in times if t < switch), named)
    assert key.run((t for t in times if t >= switch), named) < ODD_BITS


def shifted(zone: str, noon_us: int) -> bool:
    """Whether the clock was turned within the day before."""
    now, before = (datetime.fromtimestamp(t // SECOND_US, ZoneInfo(zone)) for t in (noon_us, noon_us - DAY_US))
    return now.utcoffset() != before.utcoffset()


def test_a_round_the_clock_key_is_not_covered() -> None:
    key = OneKey(DETECTOR)
    readings = [key.feed(event_at(MONDAY_US + i * HOUR_US + MINUTE_US)) for i in range(24 * 21)]
    assert int(readings[-1].covered) == 0
    assert float(readings[-1].bits) == 0.0 and float(readings[-1].lr_stranger) == 0.0


def test_without_a_zone_a_key_never_seen_is_not_covered_and_with_one_it_is() -> None:
    night = MONDAY_US + 3 * HOUR_US
    assert int(OneKey(DETECTOR).feed(event_at(night)).covered) == 0
    known = OneKey(DETECTOR).feed(event_at(night, "UTC"))
    assert int(known.covered) == 1 and float(known.bits) > 3.0


def test_a_nightly_job_is_at_home_at_night_and_odd_by_day() -> None:
    key = OneKey(DETECTOR)
    jobs = [MONDAY_US + d * DAY_US + 2 * HOUR_US for d in range(60)]
    assert key.run(jobs[20:40]) < ODD_BITS
    key = OneKey(DETECTOR)
    key.run(jobs)
    by_day = event_at(MONDAY_US + 60 * DAY_US + 14 * HOUR_US)
    key.turn_visit(int(by_day.ts_us), 1.0)
    assert float(key.score(by_day).bits) > 4.0


def test_declared_hours_come_first_and_count_how_rarely_they_were_broken() -> None:
    def outside(evenings: int) -> Any:
        key = OneKey(DETECTOR)
        for d in range(60):
            key.feed(event_at(MONDAY_US + d * DAY_US + 10 * HOUR_US, "UTC", in_hours=1))
            if d < evenings:
                key.feed(event_at(MONDAY_US + d * DAY_US + 20 * HOUR_US, "UTC", in_hours=0))
        return key.feed(event_at(MONDAY_US + 61 * DAY_US + 20 * HOUR_US, "UTC", in_hours=0))

    never, often = outside(0), outside(40)
    assert never.bits > 7.0 and often.bits < 3.0
    assert "outside its declared business hours" in explain(never, CONTEXT)


def test_inside_its_declared_hours_a_key_is_never_odd() -> None:
    reading = OneKey(DETECTOR).feed(event_at(MONDAY_US + 3 * HOUR_US, "UTC", in_hours=1))
    assert int(reading.covered) == 1 and float(reading.bits) == 0.0 and float(reading.lr_insider) < 0.0


def test_what_happens_under_an_incident_is_not_learned() -> None:
    key = OneKey(DETECTOR)
    key.run(office_days("UTC", 2026, 1, 42), "UTC")
    night = local_us("UTC", 2026, 2, 16, 3)
    key.run([night + d * DAY_US for d in range(5)], "UTC", weight=0.0)
    before = key.state.profile.copy()
    event = event_at(night + 7 * DAY_US, "UTC")
    key.turn_visit(int(event.ts_us), 1.0)
    assert float(key.score(event).bits) > ODD_BITS
    assert int(before[3 + 24]) == 0


def test_a_second_late_evening_within_three_days_is_weaker_evidence() -> None:
    key = OneKey(DETECTOR)
    key.run(office_days("UTC", 2026, 1, 42), "UTC")
    first = key.feed(event_at(local_us("UTC", 2026, 2, 16, 23), "UTC"))
    second = key.feed(event_at(local_us("UTC", 2026, 2, 17, 23), "UTC"))
    assert second.lr_stranger < first.lr_stranger


def test_a_zone_that_becomes_known_turns_the_histogram_and_judges_nothing_that_once() -> None:
    key = OneKey(DETECTOR)
    times = office_days("Asia/Tokyo", 2026, 1, 42)
    key.run(times)
    after = [t + 42 * DAY_US for t in times]
    turning = key.feed(event_at(after[0], "Asia/Tokyo"))
    assert int(turning.covered) == 0
    assert key.run(after[1:20], "Asia/Tokyo") < ODD_BITS


def test_decay_keeps_the_mass_on_average() -> None:
    key = OneKey(DETECTOR)
    key.run([MONDAY_US + d * DAY_US + h * HOUR_US for d in range(280) for h in (9, 15)])
    visits = key.state.profile.astype(float).sum() / 8.0
    steady = 14 / (1 - 2 ** (-7 / 60))
    assert 0.8 * steady < visits < 1.2 * steady


def test_archetypes_are_distributions_with_a_floor() -> None:
    table = np.array(ARCHETYPES)
    assert table.shape == (8, 168) and len(SHARES) == 8
    assert np.allclose(table.sum(axis=1), 1.0, atol=2e-3)
    assert table.min() >= 0.9 * 0.02 / 168


def test_the_state_of_a_key_is_at_most_230_bytes() -> None:
    assert STATE.itemsize <= 230
