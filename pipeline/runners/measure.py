"""What the shell tells Prometheus. Labels: topic, partition, reason, detector, severity and change, all closed sets."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core import Effects
from pipeline.metrics import METRICS
from pipeline.rows import RowBuffer

FINDINGS = "findings."


def slice_done(topic: str, records: int, effects: Effects, core_s: float) -> None:
    """A slice's incidents are acknowledged. `core_s`: seconds in the core alone."""
    METRICS.events_consumed.labels(topic).inc(records)
    METRICS.slice_events.observe(records)
    METRICS.slice_seconds.observe(core_s)
    for reject in effects.rejects:
        METRICS.events_rejected.labels(reject.reason).inc()
    METRICS.rejected_published.inc(len(effects.rejects))
    for incident in effects.incidents:
        METRICS.incidents.labels(incident.severity, incident.change).inc()
    METRICS.events_late.inc(effects.counts.get("late", 0))
    METRICS.events_duplicate.inc(effects.counts.get("duplicates", 0))
    for name, count in effects.counts.items():
        if name.startswith(FINDINGS):
            METRICS.findings.labels(name.removeprefix(FINDINGS)).inc(count)


def fetched(topic: str, lags: Mapping[int, int], rows: RowBuffer) -> None:
    """The consumer's loop came round. `lags`: records that wait, by partition."""
    for partition, lag in lags.items():
        METRICS.lag_records.labels(topic, str(partition)).set(lag)
    METRICS.clickhouse_queue_rows.set(rows.pending_rows)
    METRICS.paused.set(float(rows.full))


def assigned(topic: str, before: Mapping[int, object], now: Mapping[int, object]) -> None:
    """An assignment was taken; what is gone leaves no stale gauge."""
    METRICS.rebalances.inc()
    METRICS.assigned_partitions.set(len(now))
    for gone in before.keys() - now.keys():
        METRICS.lag_records.labels(topic, str(gone)).set(0)


def checkpoint_done(seconds: float, size_bytes: int) -> None:
    """A manifest is acknowledged."""
    METRICS.checkpoints.labels("ok").inc()
    METRICS.checkpoint_seconds.observe(seconds)
    METRICS.checkpoint_bytes.inc(size_bytes)
