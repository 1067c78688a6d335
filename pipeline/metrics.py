# ruff: noqa: RUF009  (the helpers below return `field(...)`: a declaration, not a shared default)
"""Every metric, declared once: name, unit, meaning, labels, buckets. `METRICS.x` is typed: a misspelt one fails mypy.

Names are `keywatch_<thing>_<unit>[_total]` in base units. Labels come from closed sets that the code itself spells
out (a topic's name, a partition's number, a detector of the tuple, a reason or outcome written in a module): never a
key id, an address, a route, an owner or anything else that a caller of the API can choose, since each value is a time
series for ever. One process has one `REGISTRY` of its own, so that an embedding process' default one stays clean.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase

NAMESPACE: Final = "keywatch"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Processing: 0.5 ms to 10 s; from event to alert: 0.1 s to 10 min (reference/outputs.md, section 4).
STEP_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATENCY_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
WAIT_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SLICE_BUCKETS: Final = (1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
BITS_BUCKETS: Final = (1, 2, 4, 6, 8, 10, 12, 15, 20, 30, 50, 100)

REGISTRY: Final = CollectorRegistry()
disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` gauge per series doubles them and says nothing


def _counter(name: str, meaning: str, *labels: str) -> Any:
    return field(default_factory=lambda: Counter(name, meaning, labels, NAMESPACE, registry=REGISTRY))


def _gauge(name: str, meaning: str, *labels: str) -> Any:
    return field(default_factory=lambda: Gauge(name, meaning, labels, NAMESPACE, registry=REGISTRY))


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Any:
    make = Histogram
    return field(default_factory=lambda: make(name, meaning, labels, NAMESPACE, registry=REGISTRY, buckets=buckets))


def _info(name: str, meaning: str) -> Any:
    return field(default_factory=lambda: Info(name, meaning, (), NAMESPACE, registry=REGISTRY))


@dataclass(frozen=True, slots=True)
class Metrics:
    """All of them, in the order of an event's way. Everything labelled `outcome` says which ones there are."""

    # Consuming
    events_consumed: Counter = _counter("events_consumed_total", "Request records read, good or bad.", "topic")
    events_rejected: Counter = _counter(
        "events_rejected_total",
        "Records that are no event; reasons as in schemas.reasons.",
        "reason",
    )
    events_late: Counter = _counter("events_late_total", "Events after their window's end plus lateness: only counted.")
    events_duplicate: Counter = _counter("events_duplicate_total", "Events that came before, told alike: dropped.")
    events_unkeyed: Counter = _counter("events_unkeyed_total", "Records without a key or on its wrong partition.")
    records_lost: Counter = _counter("records_lost_total", "Records that retention deleted before they were judged.")
    rejected_published: Counter = _counter("rejected_published_total", "Rejects acknowledged by the rejected topic.")
    lag_records: Gauge = _gauge("consumer_lag_records", "Log end less position.", "topic", "partition")
    lag_seconds: Gauge = _gauge("consumer_lag_seconds", "Age of the last record processed while lagging.", "topic")
    slice_events: Histogram = _histogram("slice_events", "Records in one slice.", SLICE_BUCKETS)
    slice_seconds: Histogram = _histogram("slice_processing_seconds", "One slice through the core.", STEP_BUCKETS_S)
    step_seconds: Histogram = _histogram(
        "step_seconds",
        "What the record that opened an incident waited for; step: fetch, queue, core, publish.",
        WAIT_BUCKETS_S,
        "step",
    )
    event_age_seconds: Histogram = _histogram(
        "event_age_seconds", "Age of a slice's newest event when processed.", LATENCY_BUCKETS_S
    )
    end_to_end_seconds: Histogram = _histogram(
        "end_to_end_seconds", "From an event's time to its alert being acknowledged.", LATENCY_BUCKETS_S, "to"
    )
    watermark_timestamp: Gauge = _gauge(
        "watermark_timestamp_seconds", "Event time up to which windows end.", "partition"
    )
    last_poll_timestamp: Gauge = _gauge("last_poll_timestamp_seconds", "When the consumer polled last.")
    loop_stall_seconds: Histogram = _histogram(
        "event_loop_stall_seconds", "How much later than asked the event loop woke up.", STEP_BUCKETS_S
    )
    commits: Counter = _counter("commits_total", "Offset commits; outcome: ok, failed.", "outcome")
    rebalances: Counter = _counter("rebalances_total", "Assignments taken after a rebalance.")
    assigned_partitions: Gauge = _gauge("assigned_partitions", "Partitions that this process owns.")
    paused: Gauge = _gauge("consumption_paused", "1 while reading waits for a sink, else 0.")

    # State
    tracked_keys: Gauge = _gauge("tracked_keys", "Keys with state.", "partition")
    keys_used: Gauge = _gauge(
        "keys_used", "Keys looked at for keys_of_one_network: up to 1,000, from 3 on, else 0.", "partition"
    )
    keys_of_one_network: Gauge = _gauge(
        "keys_of_one_network",
        "Of keys_used, those used last from the network (autonomous system, or else /24 or /48) that most were.",
        "partition",
    )
    state_bytes: Gauge = _gauge("state_bytes", "State in memory.", "partition")
    state_evictions: Counter = _counter("state_evictions_total", "Keys that lost their state to the cap.")
    checkpoints: Counter = _counter("checkpoints_total", "Manifests; outcome: ok, failed.", "outcome")
    checkpoint_seconds: Histogram = _histogram("checkpoint_seconds", "Pages and manifest, all awaited.", STEP_BUCKETS_S)
    checkpoint_bytes: Counter = _counter("checkpoint_bytes_total", "Compressed pages sent.")

    # Detecting
    findings: Counter = _counter("findings_total", "Surprises above a detector's reporting level.", "detector")
    detector_score: Histogram = _histogram(
        "detector_score", "Surprise of findings, in bits of information.", BITS_BUCKETS, "detector"
    )
    calibration_railed: Gauge = _gauge(
        "calibration_railed", "Counts held at a rail: ten times what ships, or a tenth; bound: upper, lower.",
        "partition", "bound",
    )  # fmt: skip
    incidents: Counter = _counter(
        "incidents_total", "Incident messages; change: opened, extended, escalated, closed.", "severity", "change"
    )
    open_incidents: Gauge = _gauge("open_incidents", "Incidents that are open now.", "partition")

    # ClickHouse
    clickhouse_insert_seconds: Histogram = _histogram(
        "clickhouse_insert_seconds", "One insert, acknowledged.", STEP_BUCKETS_S, "table"
    )
    clickhouse_insert_rows: Counter = _counter("clickhouse_insert_rows_total", "Rows acknowledged.", "table")
    clickhouse_insert_errors: Counter = _counter("clickhouse_insert_errors_total", "Inserts that failed.", "table")
    clickhouse_queue_rows: Gauge = _gauge("clickhouse_insert_queue_rows", "Rows that wait for ClickHouse.")
    clickhouse_queue_bound: Gauge = _gauge(
        "clickhouse_insert_queue_bound_rows", "As many may wait (clickhouse.max_pending_rows): then reading pauses."
    )
    view_refresh_failing: Gauge = _gauge(
        "clickhouse_view_refresh_failing", "1 while a view that sums up days is missing or its last try failed.", "view"
    )
    view_refresh_success: Gauge = _gauge(
        "clickhouse_view_refresh_success_timestamp_seconds",
        "When a view last summed up days well; or the server's start, if that is later.",
        "view",
    )

    # Responding
    decisions: Counter = _counter(
        "decisions_total", "Decisions of the responder; verdict: allowed, refused, simulated.", "rung", "verdict"
    )
    refusals: Counter = _counter("refusals_total", "Guards that said no.", "guard")
    acts: Counter = _counter(
        "acts_total", "Acts on keys; outcome: done, scheduled, refused, failed, expired.", "rung", "outcome"
    )
    undos: Counter = _counter("undos_total", "Acts taken back; outcomes as of acts.", "rung", "outcome")
    in_force: Gauge = _gauge("acts_in_force", "Acts that stand and can be undone.", "rung")
    waiting: Gauge = _gauge("acts_waiting", "Acts that wait for people's approval.")
    queued: Gauge = _gauge("acts_queued", "Keys that caps or the breaker held back within the day.")
    acts_stopped: Gauge = _gauge(
        "acts_stopped",
        "1 while a switch stops all acts; by: person, keywatch (it found the decisions topic emptied).",
        "by",
    )
    breaker_open: Gauge = _gauge("breaker_open", "1 while automatic acts are stopped since many owners' keys tripped.")
    act_seconds: Histogram = _histogram("act_seconds", "Until the target answered, all tries.", LATENCY_BUCKETS_S)
    enforcement: Counter = _counter(
        "enforcement_total", "What the stream shows of acts; word: enforced, broken, unproven.", "rung", "word"
    )
    enforcement_watched: Gauge = _gauge("enforcement_watched", "Acts whose keys are watched.")
    response_seconds: Histogram = _histogram(
        "response_seconds",
        "One leg of a response; leg: event_to_incident, incident_to_decision, decision_to_act, act_to_effect.",
        LATENCY_BUCKETS_S,
        "leg",
    )
    adapter_calls: Counter = _counter(
        "adapter_calls_total",
        "Requests by which keys are acted on, a signed webhook's too; outcome: ok, failed, redirected, slowed, gone, "
        "refused_address.",
        "adapter",
        "outcome",
    )
    adapter_seconds: Histogram = _histogram(
        "adapter_call_seconds", "One request by which a key is acted on.", LATENCY_BUCKETS_S, "adapter"
    )
    cap_used_ratio: Gauge = _gauge(
        "cap_used_ratio", "Keys acted on within the window over what the cap allows.", "cap", "window"
    )
    cap_refusals: Counter = _counter("cap_refusals_total", "Acts that a cap refused; they wait in the queue.", "cap")
    webhook_deliveries: Counter = _counter(
        "webhook_deliveries_total",
        "Attempts; outcome: ok, failed, redirected, slowed, gone, refused_address, given_up.",
        "endpoint",
        "outcome",
    )
    webhook_seconds: Histogram = _histogram("webhook_delivery_seconds", "One attempt.", LATENCY_BUCKETS_S, "endpoint")
    webhook_pending: Gauge = _gauge("webhook_pending", "Deliveries not yet done.", "endpoint")
    webhook_disabled: Gauge = _gauge("webhook_disabled", "1 once the endpoint answered 410.", "endpoint")
    open_cases: Gauge = _gauge("open_cases", "Cases that are not closed, of this responder's partitions.")
    case_waiting_seconds: Gauge = _gauge(
        "case_waiting_seconds", "How long the oldest paged case has waited for an acknowledgement; 0 is none."
    )
    unprotected_since: Gauge = _gauge(
        "unprotected_since_timestamp_seconds", "Since when nobody judges the requests; 0 is protected."
    )
    drills: Counter = _counter("drills_total", "Drills that ended since the start; outcome: passed, failed.", "outcome")
    drill_seconds: Histogram = _histogram(
        "drill_seconds", "From a drill's start to the detection (and act) that it asks for.", LATENCY_BUCKETS_S
    )
    drill_last_passed: Gauge = _gauge(
        "drill_last_passed_timestamp_seconds", "When the newest drill that passed began; 0 is none known."
    )

    # The life of keys
    rotations: Gauge = _gauge(
        "rotations",
        "Rotations that go on; state: draining, due, overdue, drained (`keys rotations --metrics`).",
        "state",
    )
    leak_reports: Counter = _counter(
        "leak_reports_total", "Tokens reported; outcome: matched, known, unmatched.", "outcome"
    )
    leak_deliveries: Counter = _counter(
        "leak_deliveries_total",
        "Bodies at /leaks; outcome: ok, refused (signature or token), invalid, failed.",
        "outcome",
    )
    leak_feed_timestamp: Gauge = _gauge("leak_feed_last_delivery_timestamp_seconds", "Last signed delivery of a feed.")

    # What this process is
    geo_build_timestamp: Gauge = _gauge(
        "geoip_database_build_timestamp_seconds",
        "When a geo database was built: those of [geo], and the one that ships with the package.",
        "database",
    )
    certificate_left: Gauge = _gauge(
        "client_certificate_left_ratio",
        "Share of the life that our client certificate's file still has; below 0 it has expired. To: kafka.",
        "to",
    )
    build: Info = _info("build", "Version, Python and layout of this process.")
    config_loaded: Gauge = _gauge("config_last_load_successful", "1 if the last load of the configuration was good.")


METRICS: Final = Metrics()


def process_started() -> None:
    """A service has its configuration and is about to serve: what this process is."""
    METRICS.config_loaded.set(1)
    METRICS.build.info({"version": version("keywatch"), "python": platform.python_version()})


ACT_OUTCOMES: Final = ("done", "scheduled", "refused", "failed", "expired")
CAPS: Final = ("usual", "fence", "flag", "proof", "rotation")
ENFORCEMENT_WORDS: Final = ("enforced", "broken", "unproven")
ROTATION_STATES: Final = ("draining", "due", "overdue", "drained")
LEAK_OUTCOMES: Final = ("matched", "known", "unmatched")
LEAK_DELIVERIES: Final = ("ok", "refused", "invalid", "failed")


def reader_started(reasons: Iterable[str]) -> None:
    """Begins at 0 what a panel and an alert ask for."""
    for reason in reasons:
        METRICS.events_rejected.labels(reason)


def leaks_started() -> None:
    """Begins at 0 what alerts ask for."""
    for outcome in LEAK_OUTCOMES:
        METRICS.leak_reports.labels(outcome)
    for outcome in LEAK_DELIVERIES:
        METRICS.leak_deliveries.labels(outcome)


DELIVERY_OUTCOMES: Final = ("ok", "failed", "redirected", "slowed", "gone", "refused_address", "given_up")


def responder_started(rungs: Iterable[str], endpoints: Iterable[str]) -> None:
    """Begins at 0 what alerts ask for: a counter that appears with its first failure has not increased."""
    for rung in rungs:
        METRICS.in_force.labels(rung)
        for outcome in ACT_OUTCOMES:
            METRICS.acts.labels(rung, outcome)
            METRICS.undos.labels(rung, outcome)
        for word in ENFORCEMENT_WORDS:
            METRICS.enforcement.labels(rung, word)
    for cap in CAPS:
        METRICS.cap_refusals.labels(cap)
    METRICS.refusals.labels("not_promoted")
    for endpoint in endpoints:
        METRICS.webhook_disabled.labels(endpoint)
        for outcome in DELIVERY_OUTCOMES:
            METRICS.webhook_deliveries.labels(endpoint, outcome)


def metric_names() -> tuple[str, ...]:
    """The full names as documented, in order of declaration; suffixes as in the exposition's TYPE line."""
    wrapped: list[MetricWrapperBase] = [getattr(METRICS, each.name) for each in fields(METRICS)]
    return tuple(name for metric in wrapped for name in (sample.name for sample in metric.describe()))


def render() -> bytes:
    """The exposition in Prometheus' text format 0.0.4 (`CONTENT_TYPE`)."""
    return generate_latest(REGISTRY)
