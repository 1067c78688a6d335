"""The pipeline: whether Keywatch itself keeps up. All from its metrics (pipeline/metrics.py)."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panel import Chart, Dashboard, Row

Lines = tuple[tuple[str, str], ...]


def per_second(metric: str, by: str = "") -> str:
    """PromQL: a counter's rate, summed."""
    inside = f"sum by ({by})" if by else "sum"
    return f"{inside} (rate({metric}[$__rate_interval]))"


def quantiles(metric: str, chosen: str = "", by: str = "") -> Lines:
    """PromQL: median and 99th percentile of a histogram; with `by` the latter per value of that label."""
    buckets = (
        f"rate({metric}_bucket{{{chosen}}}[$__rate_interval])" if chosen else f"rate({metric}_bucket[$__rate_interval])"
    )
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (f"histogram_quantile({share}, sum by ({labels}) ({buckets}))", f"{legend}{name}")
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    )


STATE_OF_THINGS: Final = Row(
    "Is it well?",
    (
        Chart(
            "Alerts that fire",
            (('count(ALERTS{alertname=~"Keywatch.+", alertstate="firing"}) or vector(0)', "firing"),),
            4, 4, kind="stat", red_from=1,
        ),
        Chart("Processes up", (('sum(up{job=~"keywatch-.+"})', "up"),), 4, 4, kind="stat"),
        Chart(
            "Unprotected for",
            (("(time() - max(keywatch_unprotected_since_timestamp_seconds > 0)) or vector(0)", "s"),),
            4, 4, "s", kind="stat", red_from=1, description="How long nobody has judged the requests.",
        ),
        Chart("Behind", (("max(keywatch_consumer_lag_seconds)", "s"),), 4, 4, "s", kind="stat", red_from=60),
        Chart("Rows that wait", (("sum(keywatch_clickhouse_insert_queue_rows)", "rows"),), 4, 4, kind="stat"),
        Chart("Paused", (("max(keywatch_consumption_paused)", "paused"),), 4, 4, kind="stat", red_from=1),
    ),
)  # fmt: skip

READING: Final = Row(
    "Reading",
    (
        Chart("Lag, records", (("sum by (topic) (keywatch_consumer_lag_records)", "{{topic}}"),)),
        Chart("Lag, seconds", (("max by (topic) (keywatch_consumer_lag_seconds)", "{{topic}}"),), unit="s"),
        Chart(
            "Events per second", ((per_second("keywatch_events_consumed_total", "topic"), "{{topic}}"),),
            unit="reqps",
        ),
        Chart(
            "Rejects per second", ((per_second("keywatch_events_rejected_total", "reason"), "{{reason}}"),),
            unit="reqps",
        ),
        Chart(
            "Late, repeated, unkeyed",
            (
                (per_second("keywatch_events_late_total"), "late"),
                (per_second("keywatch_events_duplicate_total"), "repeated"),
                (per_second("keywatch_events_unkeyed_total"), "unkeyed"),
            ),
            unit="reqps",
        ),
        Chart(
            "Watermark behind the clock",
            (("max by (job) (time() - keywatch_watermark_timestamp_seconds)", "{{job}}"),), unit="s",
            description="Windows end and incidents close this late.",
        ),
    ),
)  # fmt: skip

LATENCY: Final = Row(
    "Latency",
    (
        Chart("From an event to its alert", quantiles("keywatch_end_to_end_seconds", by="to"), unit="s"),
        Chart("By step", quantiles("keywatch_step_seconds", by="step"), unit="s",
              description="What the record that opened an incident waited for."),
        Chart("One slice through the core", quantiles("keywatch_slice_processing_seconds"), unit="s"),
        Chart("Age of a slice's newest event", quantiles("keywatch_event_age_seconds"), unit="s"),
        Chart("Legs of a response", quantiles("keywatch_response_seconds", by="leg"), unit="s"),
        Chart("Event loop stalls", quantiles("keywatch_event_loop_stall_seconds"), unit="s"),
    ),
)  # fmt: skip

STATE: Final = Row(
    "State and storing",
    (
        Chart("Keys with state", (("sum by (job) (keywatch_tracked_keys)", "{{job}}"),)),
        Chart("State in memory", (("sum by (job) (keywatch_state_bytes)", "{{job}}"),), unit="bytes"),
        Chart(
            "Evicted keys, rebalances",
            (
                (per_second("keywatch_state_evictions_total"), "evictions/s"),
                ("sum(increase(keywatch_rebalances_total[$__rate_interval]))", "rebalances"),
            ),
        ),
        Chart("Checkpoints", quantiles("keywatch_checkpoint_seconds"), unit="s"),
        Chart("Checkpoints, bytes", ((per_second("keywatch_checkpoint_bytes_total"), "written"),), unit="Bps"),
        Chart(
            "Commits and checkpoints, by outcome",
            (
                (per_second("keywatch_commits_total", "outcome"), "commits {{outcome}}"),
                (per_second("keywatch_checkpoints_total", "outcome"), "checkpoints {{outcome}}"),
            ),
        ),
        Chart("Inserts, 99th percentile", quantiles("keywatch_clickhouse_insert_seconds", by="table")[1:], unit="s"),
        Chart("Rows per second", ((per_second("keywatch_clickhouse_insert_rows_total", "table"), "{{table}}"),)),
        Chart(
            "Inserts that fail", ((per_second("keywatch_clickhouse_insert_errors_total", "table"), "{{table}}"),),
        ),
    ),
)  # fmt: skip

OUT: Final = Row(
    "Webhooks and gateways",
    (
        Chart(
            "Deliveries",
            ((per_second("keywatch_webhook_deliveries_total", "endpoint, outcome"), "{{endpoint}} {{outcome}}"),),
        ),
        Chart("One attempt", quantiles("keywatch_webhook_delivery_seconds", by="endpoint"), unit="s"),
        Chart(
            "Not yet delivered, and disabled",
            (
                ("sum by (endpoint) (keywatch_webhook_pending)", "{{endpoint}}"),
                ("max by (endpoint) (keywatch_webhook_disabled)", "{{endpoint}} disabled"),
            ),
        ),
        Chart(
            "Calls of gateways",
            ((per_second("keywatch_adapter_calls_total", "adapter, outcome"), "{{adapter}} {{outcome}}"),),
        ),
        Chart("One call", quantiles("keywatch_adapter_call_seconds", by="adapter"), unit="s"),
        Chart(
            "Acts", ((per_second("keywatch_acts_total", "rung, outcome"), "{{rung}} {{outcome}}"),),
        ),
    ),
)  # fmt: skip

PIPELINE: Final = Dashboard(
    "keywatch-pipeline", "Keywatch: pipeline", (STATE_OF_THINGS, READING, LATENCY, STATE, OUT), span="now-6h"
)
