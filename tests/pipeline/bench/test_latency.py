"""Event to incident: thieves that are found out, an open-loop load that keeps its times, figures that hide nothing."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from pipeline.bench import attacks, latency, offer, stages
from pipeline.bench.load import MARK_US
from pipeline.bench.offer import HOT_KEY, Offer, Offered
from pipeline.bench.trial import parse
from pipeline.config.tree import Config
from pipeline.core import Sides, Slice
from pipeline.demo.history import place_of
from pipeline.flow import KeyCore, open_core
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from schemas.event import Event
from schemas.incident import Incident

NOW_US = 1_780_000_000_000_000
FEW = attacks.Attacks(count=12, seconds=5.0)
OFFER = Offer(brokers="", topic="t", partitions=3, per_s=1_000.0, attacks=FEW, keys=100)


@pytest.fixture(scope="module")
def pieces() -> list[offer.Piece]:
    return offer.pool(OFFER)


def judged(core: KeyCore, events: list[Event], first: int) -> list[Incident]:
    found = []
    for begin in range(0, len(events), 500):
        batch = events[begin : begin + 500]
        keys = [event.key_id.encode() for event in batch]
        values = [msgspec.json.encode(event) for event in batch]
        offsets = range(first + begin, first + begin + len(batch))
        found += core.process(Slice("t", 0, offsets, keys, values, [event.ts_us // 1000 for event in batch])).incidents
    return found


def test_every_thief_opens_one_incident_and_its_time_is_that_of_the_event_that_opened_it() -> None:
    core = open_core(0, Config(), Sides(Catalogue.empty(), open_geo(Config().geo), "c"), "epoch", 1)
    past = list(attacks.history(FEW, NOW_US))
    assert judged(core, past, 0) == []
    thefts = list(attacks.attack(FEW, NOW_US))
    opened = [each for each in judged(core, thefts, len(past)) if each.change == "opened"]
    assert {each.key_id for each in opened} == {attacks.victim(number) for number in range(FEW.count)}
    assert len(opened) == FEW.count
    for incident in opened:
        event = thefts[incident.offset - len(past)]
        assert event.key_id == incident.key_id
        assert latency.opened_ms(incident) == pytest.approx(event.ts_us / 1000, abs=0.01)


def test_attacks_are_in_order_of_time_and_spread_over_the_run() -> None:
    thefts = list(attacks.attack(FEW, NOW_US))
    times = [event.ts_us for event in thefts]
    assert times == sorted(times)
    assert times[-1] - times[0] > FEW.seconds * 1e6 / 2
    assert Counter(event.key_id for event in thefts) == {attacks.victim(n): attacks.STEPS for n in range(FEW.count)}


def test_the_load_is_as_many_events_as_are_due_each_with_its_own_time(pieces: list[offer.Piece]) -> None:
    until = offer.due(OFFER, pieces, NOW_US)
    first, second = list(until(NOW_US + 250_000)), list(until(NOW_US + 1_000_000))
    events = [msgspec.json.decode(value, type=Event) for _, _, value, _ in first + second]
    usual = [event for event in events if not event.key_id.startswith("pk_victim")]
    assert len(usual) == 1_000
    assert [event.ts_us for event in usual] == [NOW_US + 1_000 * number for number in range(1_000)]
    assert len({event.request_id for event in usual}) == 1_000
    assert len([e for e in usual if e.ts_us < NOW_US + 250_000]) == 250
    assert list(until(NOW_US + 1_000_000)) == []


def test_records_lie_where_the_partitioner_puts_their_keys_at_their_times(pieces: list[offer.Piece]) -> None:
    for partition, key, value, ms in offer.due(OFFER, pieces, NOW_US)(NOW_US + 500_000):
        event = msgspec.json.decode(value, type=Event)
        assert (event.key_id.encode(), event.ts_us // 1000) == (key, ms)
        assert place_of(event.key_id, OFFER.partitions) == (key, partition)
        assert event.ts_us != MARK_US


def test_a_hot_key_makes_its_share_of_its_partition_alone() -> None:
    made = offer.pool(msgspec.structs.replace(OFFER, hot=0.3))
    home = place_of(HOT_KEY, OFFER.partitions)[1]
    there = [key for partition, key, _, _ in made if partition == home]
    assert there.count(HOT_KEY.encode()) / len(there) == pytest.approx(0.3, abs=0.02)
    assert all(partition == home for partition, key, _, _ in made if key == HOT_KEY.encode())


class Builder:
    """As aiokafka's: it takes so many records and refuses the next."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, timestamp: int, key: bytes, value: bytes) -> object | None:
        if len(self.values) == 4:
            return None
        self.values.append(value)
        return object()

    def record_count(self) -> int:
        return len(self.values)


def test_a_full_batch_is_followed_by_another_and_none_is_lost() -> None:
    records = [(number % 2, b"k", b"%d" % number, number) for number in range(20)]
    batches = offer.in_batches(Builder, records, 2)
    for partition in (0, 1):
        sent = [value for number, builder in batches if number == partition for value in builder.values]
        assert sent == [value for number, _, value, _ in records if number == partition]


def test_the_load_is_made_before_it_begins_tick_by_tick_and_is_what_is_due(pieces: list[offer.Piece]) -> None:
    ticks = list(offer.prepared(Builder, OFFER, pieces, NOW_US))
    assert [at for at, _ in ticks] == list(range(NOW_US + offer.TICK_US, NOW_US + 7_000_000, offer.TICK_US))
    values = [value for _, batches in ticks for _, builder in batches for value in builder.values]
    until = ticks[-1][0]
    wanted = [value for _, _, value, _ in offer.due(OFFER, pieces, NOW_US)(until)]
    assert sorted(values) == sorted(wanted)
    for at, batches in ticks:
        made = [msgspec.json.decode(value, type=Event) for _, builder in batches for value in builder.values]
        assert all(at - offer.TICK_US <= event.ts_us <= at for event in made)


def test_what_is_sustained_is_the_rate_of_the_busiest_half() -> None:
    samples = [(0.0, 0), (1.0, 0), (2.0, 50), (3.0, 150), (4.0, 250), (5.0, 350), (6.0, 360), (7.0, 360)]
    assert latency.steepest(samples) == pytest.approx(100.0)
    assert latency.steepest([(0.0, 0), (2.0, 50)]) == 25.0
    assert latency.steepest([]) == 0.0


def test_a_missing_incident_counts_as_an_endless_one() -> None:
    offered = Offered(NOW_US, 100, 3.21)
    whole = latency.summed_up(OFFER, offered, [float(ms) for ms in range(1, 13)])
    assert (whole.p50_ms, whole.p99_ms, whole.missing) == (7.0, 12.0, 0)
    lost = latency.summed_up(OFFER, offered, [5.0] * 11)
    assert (lost.p50_ms, lost.p99_ms, lost.worst_ms) == (5.0, None, None)
    assert (lost.incidents, lost.missing, lost.offered_late_ms) == (11, 1, 3.2)


def test_stages_are_told_of_the_run_alone_as_upper_bounds() -> None:
    name = stages.STAGES["slice"]
    lines = '{0}_bucket{{le="0.01"}} {1}\n{0}_bucket{{le="0.1"}} {2}\n{0}_bucket{{le="+Inf"}} {3}\n'
    before, quick, slow, slowest = (
        stages.buckets(lines.format(name, *counts))
        for counts in ((5, 9, 9), (105, 109, 109), (55, 109, 109), (5, 9, 99))
    )
    assert stages.between(before, quick)["slice"] == 10.0
    assert stages.between(before, slow)["slice"] == 100.0
    assert stages.between(before, slowest)["slice"] == 100.0  # more is not known
    assert stages.between(before, before)["slice"] is None
    assert stages.between({}, quick)["checkpoint"] is None


def test_steps_are_told_apart_in_the_order_of_an_events_way() -> None:
    line = 'keywatch_step_seconds_bucket{{le="{1}",step="{0}"}} {2}\n'
    text = "".join(
        line.format(step, le, count)
        for step, counts in (("publish", (0, 100, 100)), ("fetch", (98, 99, 100)))
        for le, count in zip(("0.01", "0.1", "+Inf"), counts, strict=True)
    )
    told = stages.steps({}, stages.buckets(text))
    assert list(told) == ["fetch", "publish"]
    assert told == {"fetch": {"p50": 10.0, "p99": 100.0}, "publish": {"p50": 100.0, "p99": 100.0}}


def test_progress_is_what_was_judged_and_acknowledged() -> None:
    told = parse(
        'keywatch_events_consumed_total{topic="a"} 120.0\n'
        'keywatch_clickhouse_insert_rows_total{table="requests"} 100.0\n'
        'keywatch_clickhouse_insert_rows_total{table="requests_1m"} 30.0\n'
        'keywatch_consumer_lag_records{topic="a",partition="0"} 4.0\n'
        'keywatch_consumer_lag_records{topic="a",partition="1"} 3.0\n'
    )
    assert (told.consumed, told.done, told.lag) == (120, 100, 7)
    assert told.rows == {"requests": 100, "requests_1m": 30}
    assert parse("").done == 0
