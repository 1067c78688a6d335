"""How many at once: a key's visits against each other. The near miss is a restart, the true case a dump."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors import crowds
from detectors.detector import VISIT
from detectors.spike import DETECTOR
from tests.detectors.one_key import DAY_US, HOUR_US, MONDAY_US, OneKey, event_at, every, record
from tests.detectors.streams import CONTEXT


def hourly_pairs(days: int = 10) -> OneKey:
    """A service that calls two times within a second, every hour, and then for ten minutes not."""
    key = OneKey(DETECTOR)
    for hour in range(days * 24):
        key.run([MONDAY_US + hour * HOUR_US, MONDAY_US + hour * HOUR_US + 600_000])
    return key


def burst(key: OneKey, calls: int, gap_s: float) -> Any:
    """The last reading of so many calls, half an hour after a pair."""
    start = MONDAY_US + 10 * DAY_US + 1_900_000_000
    return [key.feed(event_at(t)) for t in every(gap_s, start, calls * gap_s)][-1]


def test_thirty_records_at_two_a_second_are_evidence_and_are_counted_in_words() -> None:
    reading = burst(hourly_pairs(), 30, 0.5)
    assert float(reading.lr_insider) > 10.0
    assert DETECTOR.explain(reading, CONTEXT) == (
        f"{reading.observed:.0f} requests in {reading.a:.0f} s where {reading.median:.0f} "
        f"[{reading.low:.0f}-{reading.high:.0f}] are usual"
    )
    assert reading.a in (10.0, 60.0)
    assert reading.high <= 4.0 < reading.observed


def test_a_restart_of_eleven_calls_is_worth_no_more_than_four_bits() -> None:
    """make demo's deploy: each of five routes twice and one that is gone, within a second."""
    assert float(burst(hourly_pairs(), 11, 0.1).lr_insider) <= 4.0


def test_a_key_that_always_comes_in_dozens_may_come_in_dozens() -> None:
    key = OneKey(DETECTOR)
    for hour in range(10 * 24):
        key.run(every(0.1, MONDAY_US + hour * HOUR_US, 3.0))
    start = MONDAY_US + 10 * DAY_US + 1_900_000_000
    assert max(float(key.feed(event_at(t)).lr_insider) for t in every(0.1, start, 3.5)) <= 0.0


def test_a_key_of_few_visits_is_judged_with_its_peers() -> None:
    state, shared, visit = record(DETECTOR.state), record(DETECTOR.shared), record(VISIT)
    alone = crowds.crowd_bits(state, shared, visit, 0, 30.0)
    shared.crowds[0, 0] = (500.0, 0.3, 0.1)
    assert crowds.crowd_bits(state, shared, visit, 0, 30.0) > alone + 2.0
    shared.crowds[0, 0, 1] = 3.0
    assert crowds.crowd_bits(state, shared, visit, 0, 30.0) == 0.0


def test_nobody_trains_a_grown_key_by_more_than_a_tenth_in_a_day() -> None:
    key = hourly_pairs()
    before = key.state.crowd_mean.copy()
    for half_hour in range(48):
        at = MONDAY_US + 11 * DAY_US + half_hour * HOUR_US
        key.run(every(0.02, at, 3.0))
    assert key.state.crowd_mean[0] - before[0] <= np.log(1.1)
    assert key.state.crowd_mean[0] > before[0]


def test_under_an_incident_no_crowd_is_learned() -> None:
    key = hourly_pairs()
    key.run([MONDAY_US + 10 * DAY_US])
    key.run([MONDAY_US + 10 * DAY_US + HOUR_US], weight=0.0)
    before = key.state.crowd_mean.copy()
    key.run(every(0.1, MONDAY_US + 11 * DAY_US, 30.0), weight=0.0)
    key.run([MONDAY_US + 12 * DAY_US], weight=0.0)
    assert key.state.crowd_mean.tolist() == before.tolist()
    assert not int(key.state.most[0]) > 1
