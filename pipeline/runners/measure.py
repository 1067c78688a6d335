"""What the shell tells Prometheus. Labels: topic, partition, reason, detector, severity and change, all closed sets."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.column import Columns, plain
from pipeline.core import Core, Effects, Sides, Slice
from pipeline.flow import KeyCore
from pipeline.geo.provider import SHIPPED, Geo
from pipeline.metrics import METRICS
from pipeline.rails import BOUNDS, railed
from pipeline.rows import RowBuffer

FINDINGS = "findings."
STEPS: Final = ("fetch", "queue", "core", "publish")
"""Until a record is here, until the core takes its slice up, until that is judged, until all is acknowledged."""
UNKEYED: Final = frozenset({"unkeyed", "wrong_partition", "key_mismatch"})
"""Reasons that say that a producer doesn't key by key_id: the alert KeywatchUnkeyed rests on them."""


@dataclass(frozen=True, slots=True)
class Passed:
    """When a slice went from one step to the next, in seconds since 1970."""

    fetched_s: float
    began_s: float  # the core took it up
    judged_s: float
    published_s: float  # and acknowledged


def slice_done(topic: str, batch: Slice, effects: Effects, passed: Passed) -> None:
    """A slice's incidents are acknowledged."""
    METRICS.events_consumed.labels(topic).inc(len(batch.offsets))
    METRICS.slice_events.observe(len(batch.offsets))
    METRICS.slice_seconds.observe(max(0.0, passed.judged_s - passed.began_s))
    age_s = max(0.0, passed.published_s - batch.timestamps_ms[-1] / 1000)
    METRICS.event_age_seconds.observe(age_s)
    METRICS.lag_seconds.labels(topic).set(age_s)
    for reject in effects.rejects:
        METRICS.events_rejected.labels(reject.reason).inc()
        METRICS.events_unkeyed.inc(reject.reason in UNKEYED)
    METRICS.rejected_published.inc(len(effects.rejects))
    for incident in effects.incidents:
        METRICS.incidents.labels(incident.severity, incident.change).inc()
        if incident.change == "opened":
            _waited(batch, incident.offset, passed)
    METRICS.events_late.inc(effects.counts.get("late", 0))
    METRICS.events_duplicate.inc(effects.counts.get("duplicates", 0))
    METRICS.state_evictions.inc(effects.counts.get("evicted", 0))
    _scored(effects.rows.get("findings", {}))
    for name, count in effects.counts.items():
        if name.startswith(FINDINGS):
            METRICS.findings.labels(name.removeprefix(FINDINGS)).inc(count)


def _scored(findings: Columns) -> None:
    for detector, bits in zip(plain(findings.get("detector", ())), plain(findings.get("bits", ())), strict=True):
        METRICS.detector_score.labels(detector).observe(bits)


def _waited(batch: Slice, offset: int, passed: Passed) -> None:
    """Where the time of the record went that opened an incident; its own time is its producer's."""
    at = bisect_left(batch.offsets, offset)
    if at == len(batch.offsets) or batch.offsets[at] != offset or batch.timestamps_ms[at] <= 0:
        return  # time alone opened it
    moments = (
        batch.timestamps_ms[at] / 1000, passed.fetched_s, passed.began_s, passed.judged_s, passed.published_s,
    )  # fmt: skip
    for step, before, after in zip(STEPS, moments, moments[1:], strict=False):
        METRICS.step_seconds.labels(step).observe(max(0.0, after - before))


def state_of(partition: int, core: Core) -> None:
    """Keys and time of a partition, as its state has them."""
    if not isinstance(core, KeyCore):
        return
    METRICS.tracked_keys.labels(str(partition)).set(len(core.state.slots))
    used, of_one_network = core.networks.told
    METRICS.keys_used.labels(str(partition)).set(used)
    METRICS.keys_of_one_network.labels(str(partition)).set(of_one_network)
    METRICS.state_bytes.labels(str(partition)).set(sum(a.used * a.dtype.itemsize for a in core.state.arrays))
    METRICS.open_incidents.labels(str(partition)).set(len(core.state.open))
    for bound, rows in railed(core.state.shared.data[:1]).items():
        METRICS.calibration_railed.labels(str(partition), bound).set(rows)
    if core.state.meta.watermark_us > 0:  # nothing was read yet: no time to be late by
        METRICS.watermark_timestamp.labels(str(partition)).set(core.state.meta.watermark_us / 1e6)


def sides_read(sides: Sides) -> None:
    """The side inputs as the worker begins with: how old each geo database is. The demo's is shipped, too."""
    if isinstance(sides.geo, Geo):
        for base in sides.geo.databases():
            label = SHIPPED if base.packaged else base.setting
            METRICS.geo_build_timestamp.labels(label).set(base.built_at.timestamp())


def fetched(topic: str, lags: Mapping[int, int], rows: RowBuffer) -> None:
    """The consumer's loop came round. `lags`: records that wait, by partition."""
    for partition, lag in lags.items():
        METRICS.lag_records.labels(topic, str(partition)).set(lag)
    if not any(lags.values()):
        METRICS.lag_seconds.labels(topic).set(0)
    METRICS.clickhouse_queue_rows.set(rows.pending_rows)
    METRICS.clickhouse_queue_bound.set(rows.bound)
    METRICS.paused.set(float(rows.full))


def assigned(topic: str, before: Mapping[int, object], now: Collection[int]) -> None:
    """An assignment was taken; what is gone leaves no stale gauge."""
    METRICS.rebalances.inc()
    METRICS.assigned_partitions.set(len(now))
    for gone in before.keys() - set(now):
        METRICS.lag_records.labels(topic, str(gone)).set(0)
        for gauge in (
            METRICS.tracked_keys, METRICS.keys_used, METRICS.keys_of_one_network, METRICS.state_bytes,
            METRICS.open_incidents, METRICS.watermark_timestamp,
        ):  # fmt: skip
            gauge.remove(str(gone))
        for bound in BOUNDS:
            METRICS.calibration_railed.remove(str(gone), bound)


def committed(taken: bool) -> None:
    """The group was asked to take an offset again, before a checkpoint."""
    METRICS.commits.labels("ok" if taken else "failed").inc()


def checkpoint_done(seconds: float, size_bytes: int) -> None:
    """A manifest is acknowledged."""
    METRICS.checkpoints.labels("ok").inc()
    METRICS.checkpoint_seconds.observe(seconds)
    METRICS.checkpoint_bytes.inc(size_bytes)


def timed(core: Core, batch: Slice) -> tuple[Effects, float, float]:
    """Judge a slice; also when that began and ended, in seconds since 1970."""
    began_s = time.time()
    return core.process(batch), began_s, time.time()
