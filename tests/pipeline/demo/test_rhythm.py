"""The clients' rhythms: the same for the same seed, and what the catalogue declares is what they do."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from pipeline.demo import fleet, rhythm
from pipeline.demo.rhythm import DAY_US, HOUR_US, Span

NOW_US = int(datetime(2026, 11, 24, 2, 30, tzinfo=UTC).timestamp()) * 1_000_000
WEEKS = Span(NOW_US - 14 * DAY_US, NOW_US)
CLIENTS = fleet.build(7)


def test_the_fleet_has_200_keys_and_is_the_same_for_the_same_seed() -> None:
    assert len({client.key_id for client in CLIENTS}) == 200
    assert fleet.build(7) == CLIENTS
    assert fleet.build(8) != CLIENTS


def test_the_history_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first = rhythm.plan(CLIENTS, WEEKS, 7)
    assert first.tobytes() == rhythm.plan(CLIENTS, WEEKS, 7).tobytes()
    assert first.tobytes() != rhythm.plan(CLIENTS, WEEKS, 8).tobytes()


def test_a_clients_calls_do_not_depend_on_the_other_clients() -> None:
    alone = rhythm.plan(CLIENTS[5:6], WEEKS, 7)
    among = rhythm.plan(CLIENTS, WEEKS, 7)
    assert np.array_equal(np.sort(among["ts_us"][among["client"] == 5]), alone["ts_us"])


def test_the_history_is_ordered_lies_in_its_span_and_is_of_the_stated_size() -> None:
    planned = rhythm.plan(CLIENTS, WEEKS, 7)
    assert 120_000 <= len(planned) <= 400_000
    assert np.all(np.diff(planned["ts_us"]) >= 0)
    assert planned["ts_us"][0] >= WEEKS.start_us
    assert planned["ts_us"][-1] < WEEKS.end_us
    assert set(np.unique(planned["client"])) == {client.number for client in CLIENTS}


def test_office_keys_start_their_visits_in_their_declared_hours_only() -> None:
    offices = [client for client in CLIENTS if client.kind == "office"]
    outside = total = 0
    for client in offices:
        hours = client.key.business_hours
        assert hours is not None
        zone = ZoneInfo(client.key.time_zone)
        for ts_us in rhythm.calls(client, WEEKS, 7, NOW_US)["ts_us"].tolist():
            local = datetime.fromtimestamp(ts_us / 1e6, UTC).astimezone(zone)
            inside = local.weekday() in hours.weekdays and 480 <= local.hour * 60 + local.minute < 1140
            outside += not inside
            total += 1
    assert outside <= 0.01 * total  # the last visit of a day may run past the hour


def test_jobs_are_as_regular_as_a_clock() -> None:
    job = next(client for client in CLIENTS if client.kind == "job")
    times = np.sort(rhythm.calls(job, WEEKS, 7, NOW_US)["ts_us"])
    starts = times[np.diff(times, prepend=0) > 60_000_000]
    assert np.all(np.abs(np.diff(starts) - DAY_US / job.visits_per_day) < 3_000_000)


def test_a_rotation_has_no_gap_and_a_key_that_fell_silent_stays_so() -> None:
    by_key = {client.key_id: client for client in CLIENTS}
    live = Span(NOW_US, NOW_US + HOUR_US)
    old, new, silent = (by_key[key] for key in (fleet.REPLACED, fleet.REPLACING, fleet.FELL_SILENT))
    before, after = (rhythm.calls(each, WEEKS, 7, NOW_US)["ts_us"] for each in (old, new))
    assert NOW_US - DAY_US < after.min() < before.max() < NOW_US - 17 * HOUR_US
    assert rhythm.calls(silent, WEEKS, 7, NOW_US)["ts_us"].max() < NOW_US - 9 * DAY_US
    assert len(rhythm.calls(new, live, 7, NOW_US))
    assert not len(rhythm.calls(old, live, 7, NOW_US)) + len(rhythm.calls(silent, live, 7, NOW_US))


def test_the_growing_customer_ends_the_history_at_about_twice_its_level() -> None:
    growing = next(client for client in CLIENTS if client.grows)
    times = rhythm.calls(growing, WEEKS, 7, NOW_US)["ts_us"]
    first_day = np.count_nonzero(times < WEEKS.start_us + DAY_US)
    last_day = np.count_nonzero(times >= NOW_US - DAY_US)
    assert 1.5 <= last_day / first_day <= 3.0


@pytest.mark.parametrize("hour", range(24))
def test_at_any_hour_it_is_deep_night_in_one_of_the_offices(hour: int) -> None:
    at = datetime(2026, 11, 24, hour, 30, tzinfo=UTC)
    local = [at.astimezone(ZoneInfo(zone)) for zone, _, _ in fleet.OFFICES]
    assert any(0.4 <= time.hour + time.minute / 60 <= 5 for time in local)


def test_daylight_saving_moves_the_office_with_the_clock() -> None:
    summer, winter = (
        np.array([int(datetime(2026, month, 6, 12, tzinfo=UTC).timestamp()) // 3_600]) for month in (7, 1)
    )
    berlin = [int(rhythm.hours_of_week("Europe/Berlin", hours)[0]) % 24 for hours in (summer, winter)]
    assert berlin == [14, 13]


def test_live_traffic_goes_on_at_the_rate_of_the_history() -> None:
    live = rhythm.plan(CLIENTS, Span(NOW_US, NOW_US + 6 * HOUR_US), 7, NOW_US)
    past = rhythm.plan(CLIENTS, WEEKS, 7)
    same_hours_yesterday = (past["ts_us"] >= NOW_US - DAY_US) & (past["ts_us"] < NOW_US - DAY_US + 6 * HOUR_US)
    assert 0.7 <= len(live) / np.count_nonzero(same_hours_yesterday) <= 1.4
