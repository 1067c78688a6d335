"""What the alert rules rest on is really told: age of a backlog, wrongly keyed records, geo database, keys, time."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec

from pipeline.config.tree import Config, Geo
from pipeline.core import Effects, Reject, Sides, Slice
from pipeline.flow import open_core
from pipeline.geo.provider import DEMO_DB, open_geo
from pipeline.keys.catalogue import Catalogue
from pipeline.metrics import REGISTRY
from pipeline.rows import RowBuffer
from pipeline.runners import measure
from pipeline.sinks.clickhouse import MemorySink
from schemas.event import Event
from schemas.incident import Incident
from tests.schemas.examples import ROOT

TOPIC = "measured.requests"


def told(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"keywatch_{name}", labels)


def passed(*steps_s: float) -> measure.Passed:
    """A slice that is published now; how long each step took."""
    fetched_s = time.time() - sum(steps_s)
    return measure.Passed(*(fetched_s + sum(steps_s[:n]) for n in range(4)))


def one(timestamp_ms: int, partition: int = 0) -> Slice:
    return Slice(TOPIC, partition, [0], [b"k"], [b"{}"], [timestamp_ms])


def test_a_backlog_has_an_age_until_nothing_waits() -> None:
    measure.slice_done(TOPIC, one(int((time.time() - 300) * 1000)), Effects(), passed())
    age_s = told("consumer_lag_seconds", topic=TOPIC)
    assert age_s is not None and 299 < age_s < 400
    measure.fetched(TOPIC, {0: 5}, RowBuffer(MemorySink(), 1.0, 10))
    assert told("consumer_lag_seconds", topic=TOPIC) == age_s
    measure.fetched(TOPIC, {0: 0}, RowBuffer(MemorySink(), 1.0, 10))
    assert told("consumer_lag_seconds", topic=TOPIC) == 0
    assert told("clickhouse_insert_queue_bound_rows") == 10


def test_the_time_of_an_opening_record_is_told_by_step_and_of_no_other() -> None:
    steps = (0.03, 0.2, 0.004)
    came_s = passed(*steps)
    slow, quick = round((came_s.fetched_s - 0.6) * 1000), round(came_s.fetched_s * 1000)
    batch = Slice(TOPIC, 0, [7, 9], [b"k"] * 2, [b"{}"] * 2, [quick, slow])
    opened = incident(change="opened", offset=9)
    others = [incident(change="extended", offset=7), incident(change="opened", offset=8)]  # at 8 lies no record
    bounds = {
        "fetch": ("0.5", "1.0"),
        "queue": ("0.02", "0.035"),
        "core": ("0.15", "0.25"),
        "publish": ("0.002", "0.005"),
    }
    before = {step: [waited(step, le) for le in pair] for step, pair in bounds.items()}
    measure.slice_done(TOPIC, batch, Effects(incidents=[opened, *others]), came_s)
    assert {step: [waited(step, le) for le in pair] for step, pair in bounds.items()} == {
        step: [below, above + 1] for step, (below, above) in before.items()
    }


def incident(change: str, offset: int) -> Incident:
    example = ROOT / "incident" / "v1" / "opened.json"
    return msgspec.structs.replace(
        msgspec.json.decode(example.read_bytes(), type=Incident), change=change, offset=offset
    )


def waited(step: str, le: str) -> float:
    return told("step_seconds_bucket", step=step, le=le) or 0.0


def test_records_on_a_wrong_partition_count_as_unkeyed_and_bad_json_does_not() -> None:
    before = told("events_unkeyed_total") or 0.0
    rejects = [Reject(reason, 0, 0, "", 2, "", None) for reason in ("wrong_partition", "unkeyed", "undecodable")]
    measure.slice_done(TOPIC, one(0), Effects(rejects=rejects), passed())
    assert told("events_unkeyed_total") == before + 2


def test_evictions_and_the_bits_of_findings_are_counted() -> None:
    before, scored = told("state_evictions_total") or 0.0, told("detector_score_count", detector="spike") or 0.0
    effects = Effects(rows={"findings": {"detector": ["spike", "spike"], "bits": [12.0, 20.0]}})
    effects.count(evicted=3)
    measure.slice_done(TOPIC, one(0), effects, passed())
    assert (told("state_evictions_total"), told("detector_score_count", detector="spike")) == (before + 3, scored + 2)


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
    assert told("open_incidents", partition="77") == 0
    assert 1_000 < (told("state_bytes", partition="77") or 0) < 1_000_000
    assert told("watermark_timestamp_seconds", partition="77") == 1_764_000_000 - Config().worker.lateness_s
    assert told("calibration_railed", partition="77", bound="upper") == 0
    core.state.shared.data["calibration"]["counts"][0, 0, :, -1] = core.state.shared.data["calibration"]["visits"] = 1e5
    measure.state_of(77, core)
    assert told("calibration_railed", partition="77", bound="upper") == 3
    measure.assigned(TOPIC, {77: core}, {})
    assert told("watermark_timestamp_seconds", partition="77") is None
    assert told("state_bytes", partition="77") is None
    assert told("calibration_railed", partition="77", bound="upper") is None


def test_keys_that_all_come_from_one_network_are_told_once_rows_are_due() -> None:
    core = open_core(78, Config(), Sides(Catalogue.empty(), open_geo(Config().geo), "t"), "t", 0)
    for offset in range(12):
        event = Event(
            key_id=f"k{offset}", ts_us=1_764_000_000_000_000 + offset, client_ip="10.0.0.1", status=200,
            outcome="success",
        )  # fmt: skip
        values = [msgspec.json.encode(event)]
        core.process(Slice(TOPIC, 78, [offset], [event.key_id.encode()], values, [event.ts_us // 1000]))
    core.due_rows()
    measure.state_of(78, core)
    assert told("keys_used", partition="78") == told("keys_of_one_network", partition="78") == 12
    measure.assigned(TOPIC, {78: core}, {})
    assert told("keys_of_one_network", partition="78") is None


def test_the_date_of_each_geo_database_is_told_by_the_setting_that_names_it(tmp_path: Path) -> None:
    own = shutil.copy(DEMO_DB, tmp_path / "own.mmdb")
    geo = open_geo(Geo(country_db=str(own), asn_db=str(DEMO_DB)))
    measure.sides_read(Sides(Catalogue.empty(), geo, "t"))
    ours, _, shipped = geo.databases()
    assert told("geoip_database_build_timestamp_seconds", database="country") == ours.built_at.timestamp()
    assert told("geoip_database_build_timestamp_seconds", database="shipped") == shipped.built_at.timestamp()
    assert told("geoip_database_build_timestamp_seconds", database="asn") is None, "the demo's: nobody fetches it"
