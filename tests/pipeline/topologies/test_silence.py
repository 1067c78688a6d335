"""A steady key that stops; keys that pause; and everybody at once."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.times import micros
from schemas.incident import Incident
from schemas.sighting import Beat, Beats
from tests.pipeline.topologies.messages import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    START_US,
    Told,
    core,
    judge,
    restored,
    seeded,
    slices,
)
from tests.real_data import real


def steady(key: str, hours: int, seed: int = 1, from_hour: int = 0) -> list[Beats]:
    """A key that is used every hour, at some minute of it."""
    minutes = seeded(seed).integers(0, 60, hours).tolist()
    return [
        Beats(beats=(Beat(key, START_US + hour * HOUR_US + minute * MINUTE_US),))
        for hour, minute in zip(range(from_hour, from_hour + hours), minutes, strict=True)
    ]


def together(*keys: list[Beats], until_hour: int = 0) -> list[Told]:
    """In the order of time, with a tick each hour up to `until_hour`."""
    ticks = [START_US + hour * HOUR_US for hour in range(until_hour)]
    told: list[Told] = [*(each for key in keys for each in key), *ticks]
    return sorted(told, key=_time_us)


def _time_us(told: Told) -> int:
    return told if isinstance(told, int) else told.beats[0].ts_us  # type: ignore[union-attr]


def fleet(keys: int, hours: int) -> list[list[Beats]]:
    return [steady(f"key_{n}", hours, seed=n) for n in range(keys)]


def test_a_steady_key_that_stops_is_told_once_and_closed_when_it_is_back() -> None:
    others = fleet(20, 400)
    log = together(*others, steady("stops", 240, 99), steady("stops", 100, 98, from_hour=300), until_hour=400)
    found = judge("sources", log)
    assert [(incident.key_id, incident.rule, incident.change) for incident in found] == [
        ("stops", "silence", "opened"), ("stops", "silence", "closed"),
    ]  # fmt: skip
    assert "not used for" in found[0].text
    assert found[0].findings[0].observed <= 12


def test_an_outage_of_everything_is_one_message_and_not_one_for_each_key() -> None:
    found = judge("sources", together(*fleet(40, 240), until_hour=300))
    assert [(incident.key_id, incident.change, incident.keys_total) for incident in found] == [("fleet", "opened", 40)]
    assert found[0].severity == "high"
    assert "40 of 40 steady keys" in found[0].text


def test_a_region_that_fails_is_one_message_about_its_keys() -> None:
    lost = fleet(10, 240)
    others = [steady(f"other_{n}", 300, seed=100 + n) for n in range(60)]
    found = judge("sources", together(*lost, *others, until_hour=300))
    (told,) = found
    assert (told.key_id, told.severity, told.keys_total) == ("fleet", "medium", 10)
    assert all(key.startswith("key_") for key in found[0].keys)


def test_a_key_that_never_comes_back_is_given_up_after_a_month() -> None:
    found = judge("sources", together(*fleet(10, 50 * 24), steady("stops", 240, 99), until_hour=50 * 24))
    assert [(incident.key_id, incident.change) for incident in found] == [("stops", "opened"), ("stops", "closed")]
    assert micros(found[1].closed_at) - micros(found[0].opened_at) == 30 * DAY_US


def test_the_fleet_comes_back_and_the_message_is_closed() -> None:
    before, after = fleet(30, 240), [steady(f"key_{n}", 50, seed=n, from_hour=260) for n in range(30)]
    found = judge("sources", together(*before, *after, until_hour=310))
    assert [incident.change for incident in found] == ["opened", "closed"]


def office_hours(key: str, days: int, seed: int) -> list[Beats]:
    """Nine to five on weekdays, some hours left out."""
    random = seeded(seed)
    return [
        Beats(beats=(Beat(key, START_US + day * DAY_US + hour * HOUR_US),))
        for day in range(days)
        for hour in range(9, 17)
        if day % 7 < 5 and random.random() < 0.7
    ]


def test_a_key_that_pauses_at_night_and_over_weekends_is_not_watched() -> None:
    log = together(*fleet(10, 60 * 24), office_hours("office", 40, 5), until_hour=60 * 24)
    assert judge("sources", log) == []


def test_a_key_that_comes_as_it_likes_is_not_watched() -> None:
    times = np.cumsum(seeded(3).exponential(20.0, 70))
    rare = [Beats(beats=(Beat("rare", START_US + int(hour * HOUR_US)),)) for hour in times if hour < 1300]
    assert judge("sources", together(*fleet(10, 70 * 24), rare, until_hour=70 * 24)) == []


def test_a_daily_job_that_stops_is_told_of_after_three_days() -> None:
    daily = [Beats(beats=(Beat("daily", START_US + day * DAY_US),)) for day in range(60)]
    (found,) = judge("sources", together(*fleet(10, 70 * 24), daily, until_hour=70 * 24))
    assert found.key_id == "daily"
    assert found.findings[0].observed == pytest.approx(72.0, abs=3.0)


def test_a_log_that_is_read_in_again_from_files_stops_nobody() -> None:
    log: list[Told] = [*together(*fleet(30, 240)), START_US + 400 * DAY_US]
    assert judge("sources", log) == []


def as_days(key: str, minutes: list[int]) -> list[Beats]:
    """An hour's minutes as hours, twelve times over."""
    hours = [60 * again + minute for again in range(12) for minute in minutes]
    return [Beats(beats=(Beat(key, START_US + hour * HOUR_US),)) for hour in hours]


def test_real_services_that_never_stop_are_never_told_of() -> None:
    """The two services of the Azure trace, whose hour is told as days: minutes stand for hours."""
    log: list[list[Beats]] = []
    for file in sorted(real("azure-llm").glob("*.csv")):
        stamps = np.loadtxt(file, dtype="datetime64[us]", delimiter=",", skiprows=1, usecols=0).astype(np.int64)
        minutes = np.unique((stamps - stamps.min()) // MINUTE_US)
        keys = [minutes[n::4] for n in range(4)]  # four keys of each service take turns
        log += [as_days(f"{file.stem}_{n}", mine.tolist()) for n, mine in enumerate(keys)]
    assert len(log) >= 8
    assert judge("sources", together(*log, until_hour=12 * 60 - 60)) == []


def test_in_real_series_nothing_stops_but_at_their_end() -> None:
    """54 keys out of NAB's tweets, load balancer and road sensors, each whole and thinned to a tenth and a fiftieth."""
    keys = [key for file in series() for key in thinned(file)]
    assert len(keys) >= 50
    ends = {key[0].beats[0].key_id: key[-1].beats[0].ts_us for key in keys}
    first_us = min(key[0].beats[0].ts_us for key in keys)
    ticks = range(first_us, max(ends.values()), HOUR_US)
    found = judge("sources", sorted([*(each for key in keys for each in key), *ticks], key=_time_us))
    opened = [incident for incident in found if incident.change == "opened"]
    assert {incident.key_id.partition(".")[0] for incident in opened} == {"elb_request_count_8c0756", "fleet"}
    for incident in opened:
        at_us = micros(incident.opened_at)
        assert all(ends[key] < at_us for key in incident.keys if not key.startswith(GAPPY)), incident.text


GAPPY = ("TravelTime", "occupancy", "speed")
"""Road sensors that were all silent for hours, and came back."""


def series() -> list[Path]:
    folder = real("nab")
    return sorted(
        file
        for pattern in ("realTweets/*.csv", "realAWSCloudwatch/elb*.csv", "realTraffic/*.csv")
        for file in folder.rglob(pattern)
        if "results" not in file.parts
    )


def thinned(file: Path) -> list[list[Beats]]:
    """Its hours with at least one request, of a key with all, a tenth or a fiftieth of them."""
    with file.open() as lines:
        rows = [(row["timestamp"], float(row["value"])) for row in csv.DictReader(lines)]
    hours = np.array([int(datetime.fromisoformat(f"{at}+00:00").timestamp()) // 3600 for at, _ in rows])
    counts = np.array([value for _, value in rows])
    keys = []
    for share in (1.0, 0.1, 0.02):
        live = np.unique(hours[seeded(1).poisson(counts * share) > 0]) if "Traffic" not in str(file) else hours
        name = f"{file.stem}.{share}"
        if len(live) >= 72:
            keys.append([Beats(beats=(Beat(name, int(hour) * HOUR_US),)) for hour in np.unique(live)])
    return keys


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 2000), max_size=8), at=st.integers(1, 2000), lost=st.integers(0, 8))
def test_cuts_and_crashes_change_nothing(cuts: list[int], at: int, lost: int) -> None:
    keys = [*fleet(6, 200), *(steady(f"lost_{n}", 150, seed=50 + n) for n in range(lost))]
    log = together(*keys, until_hour=230)
    clean = judge("sources", log)
    assert judge("sources", log, cuts) == clean
    at = min(at, len(log) - 1)
    first, second = slices(log, [at])
    before = core("sources")
    found: list[Incident] = before.process(first).incidents
    found += restored(before, "sources").process(second).incidents
    assert found == clean


@pytest.mark.parametrize("share", [0, 1])
def test_a_beat_that_is_told_twice_teaches_nothing(share: int) -> None:
    log = together(*fleet(5, 100))
    doubled = [told for told in log for _ in range(1 + share)]
    opened = core("sources")
    for part in slices(doubled):
        opened.process(part)
    rows = opened.arrays[0].data[:5]
    assert rows["gaps"].tolist() == [99] * 5
