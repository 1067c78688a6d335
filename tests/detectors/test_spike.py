"""detectors/spike.py: true cases and near misses, cold and warm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.detector import Context, config_record, known_words, usual_words
from detectors.fusion import Settings
from detectors.spike import DETECTOR, STATE, explain, most_evidence
from detectors.window_peaks import COUNTED_BITS, CROWD_MANY, SIZE_BITS, crowd_evidence
from tests.detectors.one_key import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    MONDAY_US,
    SECOND_US,
    OneKey,
    at_random,
    event_at,
    every,
    first,
    record,
)

ALARM_BITS = 13.0  # about one in 8,000 visits
CONTEXT = Context(
    key_id="k", method="GET", route="/v1/items", status=200, client_ip="", country="", asn=0, network="", client="",
    local_time="", time_zone="", seen_days=14.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def cron() -> OneKey:
    """Every minute for three days, then 412 requests in one minute; the readings of the burst are kept."""
    key = OneKey(DETECTOR)
    key.quiet_bits = key.run(every(60, MONDAY_US, 3 * 86_400))  # type: ignore[attr-defined]
    start = MONDAY_US + 3 * DAY_US
    key.burst = [key.feed(event_at(t)) for t in every(60 / 412, start, 60)]  # type: ignore[attr-defined]
    return key


def test_a_constant_key_is_quiet_while_it_keeps_its_beat(cron: Any) -> None:
    assert cron.quiet_bits < 5.0


def test_a_constant_key_that_bursts_alerts_within_seconds(cron: Any) -> None:
    bits = [float(reading.bits) for reading in cron.burst]
    assert max(bits) > 25.0
    assert bits[30] > ALARM_BITS  # 4 s into the burst


def test_the_words_name_count_window_and_what_is_usual(cron: Any) -> None:
    reading = max(cron.burst, key=lambda r: float(r.bits))
    words = explain(reading, CONTEXT)
    assert words.split(" where ")[0] in (
        "411 requests in 60 s",
        f"{reading.observed:.0f} requests in {reading.a:.0f} s",
    )
    assert words.endswith("are usual")
    assert reading.low <= reading.median <= reading.high < reading.observed


def test_usual_words_say_none_instead_of_zeros_and_a_young_keys_age_is_never_zero() -> None:
    assert usual_words(0.0, 0.0, 0.0) == "none are usual"
    assert usual_words(3.0, 9.0, 21.0) == "9 [3-21] are usual"
    assert [known_words(days) for days in (0.01, 0.8, 3.5)] == ["14 min", "19 h", "3 days"]


def test_twice_the_rate_for_twenty_minutes_is_seen_on_a_constant_key() -> None:
    key = OneKey(DETECTOR)
    key.run(every(20, MONDAY_US, 2 * 86_400))
    assert key.run(every(4, MONDAY_US + 2 * DAY_US, 1200)) > ALARM_BITS


def test_chance_alone_does_not_alert_over_two_weeks() -> None:
    key = OneKey(DETECTOR)
    assert key.run(at_random(30, MONDAY_US, 14 * 24)) < ALARM_BITS


def test_an_office_rhythm_does_not_alert_on_monday_morning() -> None:
    key = OneKey(DETECTOR)
    days = [MONDAY_US + d * DAY_US for d in range(19) if d % 7 < 5]
    times = [t for i, day in enumerate(days) for t in at_random(80, day + 9 * HOUR_US, 8, seed=i)]
    late = [t for t in times if t >= MONDAY_US + 7 * DAY_US]
    key.run(t for t in times if t < MONDAY_US + 7 * DAY_US)
    assert key.run(late) < ALARM_BITS


def test_the_same_burst_at_night_is_more_surprising_than_by_day() -> None:
    def burst_at(hour: int) -> float:
        key = OneKey(DETECTOR)
        for d in range(12):
            if d % 7 < 5:
                key.run(at_random(100, MONDAY_US + d * DAY_US + 9 * HOUR_US, 8, seed=d))
        return key.run(every(2, MONDAY_US + 14 * DAY_US + hour * HOUR_US, 900))

    assert burst_at(2) >= burst_at(11)


def test_fewer_than_five_requests_say_nothing() -> None:
    key = OneKey(DETECTOR)
    key.run(every(6 * 3600, MONDAY_US, 5 * 86_400))
    assert key.run(every(1, MONDAY_US + 5 * DAY_US + HOUR_US, 5)) == 0.0


def test_a_new_key_below_the_floor_of_its_first_day_is_quiet_and_says_so_little() -> None:
    key = OneKey(DETECTOR)
    assert key.run(every(0.5, MONDAY_US, 45)) == 0.0


def test_a_new_key_that_rushes_is_judged_by_its_peers_and_less_sure_than_a_known_one() -> None:
    def rush(history_days: int) -> float:
        key = OneKey(DETECTOR)
        key.run(every(360, MONDAY_US, history_days * 86_400))
        return key.run(every(0.02, MONDAY_US + history_days * DAY_US + 100 * SECOND_US, 60))

    new, known = rush(0), rush(10)
    assert 0.0 < new < known


def test_a_busy_key_is_less_odd_among_busy_peers() -> None:
    peers = record(DETECTOR.shared)
    peers.keys, peers.log_rate, peers.spread = 500.0, float(np.log(20_000.0)), 1.0
    alone, among = OneKey(DETECTOR), OneKey(DETECTOR, peers)
    times = every(0.1, MONDAY_US, 120)
    assert among.run(times) < alone.run(times)


def test_a_first_day_is_explained_as_such() -> None:
    reading = OneKey(DETECTOR).feed(event_at(MONDAY_US))
    young = Context(**{**{f: getattr(CONTEXT, f) for f in CONTEXT.__struct_fields__}, "seen_days": 0.25})
    assert "known for 6 h, judged by its peers" in explain(reading, young)


def test_what_happens_under_an_incident_is_not_learned() -> None:
    key = OneKey(DETECTOR)
    key.run(every(60, MONDAY_US, 3 * 86_400))
    start = MONDAY_US + 3 * DAY_US
    before = (float(key.state.seen), float(key.state.exposed), key.state.profile.copy())
    key.run(every(0.5, start, 5400), weight=0.0)
    key.run(every(60, start + 2 * HOUR_US, 60), weight=0.0)
    assert float(key.state.seen) <= before[0] * 1.05 + 60  # the last clean visit may settle, the attack may not
    key.run(every(60, start + 4 * HOUR_US, 4 * 3600))
    assert key.run(every(0.5, start + 8 * HOUR_US, 300)) > ALARM_BITS


def test_learning_waits_until_the_visit_has_settled() -> None:
    key = OneKey(DETECTOR)
    key.run(every(10, MONDAY_US, 3000))
    assert float(key.state.seen) == 0.0
    assert int(key.state.weights.min()) == 0
    key.run([MONDAY_US + 2 * HOUR_US])
    assert float(key.state.seen) > 0.0
    assert int(key.state.weights.min()) < 0


def test_a_slow_ramp_cannot_lift_the_level_beyond_four_times_the_anchor() -> None:
    key = OneKey(DETECTOR)
    for day in range(28):
        rate = 2.0 if day < 10 else 2.0 * 1.3 ** (day - 10)
        times = every(3600 / min(rate, 60.0), MONDAY_US + day * DAY_US, 86_400)
        key.run(times)
    raw = float(key.state.seen) / float(key.state.exposed)
    assert float(key.state.rate) <= 4.0 * float(key.state.anchor) * 1.5
    assert float(key.state.anchor) < raw


def test_three_percent_growth_a_day_does_not_alert() -> None:
    key = OneKey(DETECTOR)
    bits = [key.run(at_random(15 * 1.03**d, MONDAY_US + d * DAY_US, 24, seed=d)) for d in range(21)]
    assert max(bits) < ALARM_BITS


def test_requests_of_callers_who_did_not_hold_the_key_do_not_count() -> None:
    key = OneKey(DETECTOR)
    for t in every(0.1, MONDAY_US, 60):
        event = event_at(t)
        event.authenticated = 0
        reading = key.feed(event)
    assert int(reading.covered) == 0 and int(key.state.last_us) == 0
    event.sees = 0  # a format that cannot tell: everything counts
    assert int(key.feed(event).covered) == 1


def test_the_event_itself_is_not_in_its_own_window() -> None:
    key = OneKey(DETECTOR)
    key.run(every(600, MONDAY_US, 3 * 86_400))
    start = MONDAY_US + 3 * DAY_US + HOUR_US
    readings = [key.feed(event_at(t)) for t in every(0.5, start, 10)]
    seen = [float(r.observed) for r in readings if r.bits > 0]
    assert seen and seen[-1] <= len(readings) - 1 + 6  # the hour's window may hold the beat's six


def test_out_of_order_events_within_two_minutes_enter_their_own_time() -> None:
    in_order, swapped = OneKey(DETECTOR), OneKey(DETECTOR)
    times = every(5, MONDAY_US, 600)
    in_order.run(times)
    swapped.run([t for pair in zip(times[1::2], times[::2], strict=True) for t in pair])
    end = MONDAY_US + 10 * MINUTE_US
    hour_in, hour_out = in_order.state.ring[3].sum(), swapped.state.ring[3].sum()
    assert int(hour_in) == int(hour_out) == len(times)
    assert int(swapped.state.last_us) == int(in_order.state.last_us) < end


def test_what_is_kept_of_a_window_adds_and_takes_hardly_any_bits() -> None:
    def readings(kept: bool) -> list[float]:
        key = OneKey(DETECTOR)
        bits = []
        for t in at_random(200, MONDAY_US, 30, seed=5) + every(1, MONDAY_US + 31 * HOUR_US, 300):
            if not kept:
                key.state.until[:] = 0
            bits.append(float(key.feed(event_at(t)).bits))
        return bits

    pairs = list(zip(readings(kept=True), readings(kept=False), strict=True))
    assert max(exact for _, exact in pairs) > 10.0
    assert all(exact - 7.0 <= kept <= exact + 0.125 for kept, exact in pairs)  # the first bits that are told are 6 or 7
    assert max(kept for kept, _ in pairs) > max(exact for _, exact in pairs) - 1.0


def test_a_blatant_attack_from_the_owners_own_network_is_evidence_enough_for_an_incident() -> None:
    key = OneKey(DETECTOR)
    key.run(at_random(540, MONDAY_US, 27))
    start = MONDAY_US + 27 * HOUR_US
    readings = [key.feed(event_at(t)) for t in every(60 / 412, start, 60)]
    assert max(float(r.bits) for r in readings) > 16.0
    assert max(float(r.lr_insider) for r in readings) > 10.0


def test_a_threefold_step_of_a_steady_key_is_no_incident_by_itself() -> None:
    key = OneKey(DETECTOR)
    key.run(at_random(60, MONDAY_US, 7 * 24))
    readings = [key.feed(event_at(t)) for t in at_random(180, MONDAY_US + 7 * DAY_US, 12, seed=2)]
    assert max(float(r.bits) for r in readings) < 40.0
    assert max(float(r.lr_insider) for r in readings) < 20.0


def test_evidence_stays_within_its_floor_and_cap() -> None:
    key = OneKey(DETECTOR)
    key.feed(event_at(MONDAY_US))
    readings = [key.feed(event_at(t)) for t in every(0.05, MONDAY_US + SECOND_US, 100)]
    for reading in readings:
        assert -1.0 <= float(reading.lr_insider) <= 32.0
        assert reading.lr_stranger == reading.lr_insider
        assert reading.lr_stranger_slow == 0.0
    assert float(readings[1].lr_insider) == -1.0
    assert float(readings[-1].lr_insider) > -1.0


@given(st.floats(0.0, 1e6), st.floats(1.0, 4.0))
def test_more_requests_are_never_worth_less_and_one_more_never_much_more(n: float, times: float) -> None:
    config = first(config_record(DETECTOR.config))
    for window in range(4):
        before, after = most_evidence(config, window, n), most_evidence(config, window, n * times)
        assert before <= after <= before + 8.0 + 1e-9, "fourfold is worth two doublings"
        assert before == config.cap_bits or window >= 2, "the crowd of a moment is worth what it says"


@given(st.floats(0.0, 64.0), st.floats(1.0, 1e4), st.floats(1.0, 4.0))
def test_a_crowd_of_twice_as_many_is_worth_at_most_what_half_of_it_lost(bits: float, n: float, times: float) -> None:
    before, after = crowd_evidence(bits, n), crowd_evidence(bits, n * times)
    assert before - 1e-9 <= after <= before + SIZE_BITS * np.log2(times) + 1e-9
    assert after <= bits - COUNTED_BITS
    assert n < CROWD_MANY or after == before == bits - COUNTED_BITS


@pytest.mark.parametrize("few", [0.0, 0.5, 1.0])
def test_no_setting_of_few_ends_the_worker(few: float) -> None:
    config = first(config_record(type(DETECTOR.config)(few=few)))
    assert 0.0 < most_evidence(config, 3, 500.0) <= config.cap_bits


@pytest.mark.parametrize("a_minute", [5, 9, 13])
def test_an_hour_of_bulk_reads_below_the_crowd_of_a_minute_is_a_finding(a_minute: int) -> None:
    """Its evidence alone carries no incident of a busy key; who looks at the key finds it told."""
    key = OneKey(DETECTOR)
    key.run(at_random(8.0, MONDAY_US, 24 * 20))
    readings = [key.feed(event_at(t)) for t in every(60 / a_minute, MONDAY_US + 20 * DAY_US + HOUR_US, 3600)]
    loudest = max(readings, key=lambda reading: float(reading.bits))
    assert float(loudest.bits) >= Settings().finding_bits
    assert float(loudest.observed) > float(loudest.high)


def test_the_state_of_a_key_is_about_seven_hundred_bytes() -> None:
    assert STATE.itemsize <= 704
