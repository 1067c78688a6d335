"""What the alert rules rest on is really told: age of a backlog, wrongly keyed records, geo database, keys, time."""

from __future__ import annotations

import time

import msgspec

from pipeline.catalogue import Catalogue
from pipeline.config import Config
from pipeline.core import Effects, Reject, Sides, Slice
from pipeline.flow import open_core
from pipeline.geo.provider import open_geo
from pipeline.metrics import REGISTRY
from pipeline.rows import RowBuffer
from pipeline.runners import measure
from pipeline.sinks.clickhouse import MemorySink
from schemas.event import Event

TOPIC = "measured.requests"


def told(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"keywatch_{name}", labels)


def one(timestamp_ms: int, partition: int = 0) -> Slice:
    return Slice(TOPIC, partition, [0], [b"k"], [b"{}"], [timestamp_ms])


def test_a_backlog_has_an_age_until_nothing_waits() -> None:
    measure.slice_done(TOPIC, one(int((time.time() - 300) * 1000)), Effects(), 0.001)
    age_s = told("consumer_lag_seconds", topic=TOPIC)
    assert age_s is not None and 299 < age_s < 400
    measure.fetched(TOPIC, {0: 5}, RowBuffer(MemorySink(), 1.0, 10))
    assert told("consumer_lag_seconds", topic=TOPIC) == age_s
    measure.fetched(TOPIC, {0: 0}, RowBuffer(MemorySink(), 1.0, 10))
    assert told("consumer_lag_seconds", topic=TOPIC) == 0


def test_records_on_a_wrong_partition_count_as_unkeyed_and_bad_json_does_not() -> None:
    before = told("events_unkeyed_total") or 0.0
    rejects = [Reject(reason, 0, 0, "", 2, "", None) for reason in ("wrong_partition", "unkeyed", "undecodable")]
    measure.slice_done(TOPIC, one(0), Effects(rejects=rejects), 0.001)
    assert told("events_unkeyed_total") == before + 2


def test_a_partitions_keys_and_time_are_told_and_leave_with_it() -> None:
    sides = Sides(Catalogue.empty(), open_geo(Config().geo), "t")
    core = open_core(77, Config(), sides, "t", 0)
    event = Event(
        key_id="k", ts_us=1_764_000_000_000_000, client_ip="192.0.2.1", method="GET", route="/a", status=200,
        outcome="success",
    )  # fmt: skip
    core.process(Slice(TOPIC, 77, [0], [b"k"], [msgspec.json.encode(event)], [event.ts_us // 1000]))
    measure.state_of(77, core)
    assert told("tracked_keys", partition="77") == 1
    assert told("watermark_timestamp_seconds", partition="77") == 1_764_000_000 - Config().worker.lateness_s
    measure.assigned(TOPIC, {77: core}, {})
    assert told("watermark_timestamp_seconds", partition="77") is None


def test_the_geo_databases_date_is_told() -> None:
    geo = open_geo(Config().geo)
    measure.sides_read(Sides(Catalogue.empty(), geo, "t"))
    oldest = min(base.built_at.timestamp() for base in geo.databases())
    assert told("geoip_database_build_timestamp_seconds") == oldest
