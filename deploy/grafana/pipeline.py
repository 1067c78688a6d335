"""The pipeline: whether Keywatch itself keeps up. All from its metrics (pipeline/metrics.py)."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panel import Chart, Dashboard, Mark, Row

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
            description="Of Keywatch's own health: RUNBOOK has a section of each alert's name.",
        ),
        Chart("Processes up", (('sum(up{job=~"keywatch-.+"})', "up"),), 4, 4, kind="stat",
            description="Workers, responders, console and intake that Prometheus reaches.",
        ),
        Chart(
            "Unprotected for",
            (("(time() - max(keywatch_unprotected_since_timestamp_seconds > 0)) or vector(0)", "s"),),
            4, 4, "s", kind="stat", red_from=1, description="How long nobody has judged the requests.",
        ),
        Chart("Behind", (("max(keywatch_consumer_lag_seconds)", "s"),), 4, 4, "s", kind="stat", red_from=60,
            description="Age of the newest record judged, where more wait: so long a leaked key goes on being used.",
        ),
        Chart(
            "Rows that wait",
            (("max(keywatch_clickhouse_insert_queue_rows / keywatch_clickhouse_insert_queue_bound_rows)", "of all"),),
            4, 4, "percentunit", kind="stat", red_from=0.5,
            description="For ClickHouse, in a worker's memory, of those that may. At 100% reading pauses.",
        ),
        Chart("Paused", (("max(keywatch_consumption_paused)", "paused"),), 4, 4, kind="stat", red_from=1,
            description="1 while a worker reads nothing, since too many rows wait for ClickHouse.",
        ),
    ),
)  # fmt: skip

READING: Final = Row(
    "Reading",
    (
        Chart("Lag, records", (("sum by (topic) (keywatch_consumer_lag_records)", "{{topic}}"),),
            description="Log end less position, all partitions together.",
        ),
        Chart("Lag, seconds", (("max by (topic) (keywatch_consumer_lag_seconds)", "{{topic}}"),), unit="s", red_from=60,
            description="Age of the last record processed, where more wait.",
        ),
        Chart(
            "Events per second", ((per_second("keywatch_events_consumed_total", "topic"), "{{topic}}"),),
            unit="reqps",
            description="Records read, by topic.",
        ),
        Chart(
            "Rejects per second", ((per_second("keywatch_events_rejected_total", "reason"), "{{reason}}"),),
            unit="reqps",
            description="Records that are no events; they go to api.requests.rejected. Over 1 % makes a ticket.",
        ),
        Chart(
            "Late, repeated, unkeyed",
            (
                (per_second("keywatch_events_late_total"), "late"),
                (per_second("keywatch_events_duplicate_total"), "repeated"),
                (per_second("keywatch_events_unkeyed_total"), "unkeyed"),
            ),
            unit="reqps",
            description="Late and repeated ones are left out; unkeyed means that a producer does not key by key_id.",
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
        Chart("From an event to its alert", quantiles("keywatch_end_to_end_seconds", by="to"), unit="s",
            description="End to end, from the request's own time, by where it went.",
        ),
        Chart("By step", quantiles("keywatch_step_seconds", by="step"), unit="s",
              description="What the record that opened an incident waited for."),
        Chart("One slice through the core", quantiles("keywatch_slice_processing_seconds"), unit="s",
            description="Decode to decide, of all that one fetch brought. Growing, and a core full: add a worker.",
        ),
        Chart("Age of a slice's newest event", quantiles("keywatch_event_age_seconds"), unit="s",
            description="When its judging began: what gateway, intake and broker took, and waiting.",
        ),
        Chart("Legs of a response", quantiles("keywatch_response_seconds", by="leg"), unit="s",
            description="From the event to the incident, the decision, the act and its effect.",
        ),
        Chart("Event loop stalls", quantiles("keywatch_event_loop_stall_seconds"), unit="s",
            description="How late the loop wakes up; long stalls lose heartbeats and then partitions.",
        ),
    ),
)  # fmt: skip

STATE: Final = Row(
    "State and storing",
    (
        Chart("Keys with state", (("sum by (job) (keywatch_tracked_keys)", "{{job}}"),),
            description="At worker.max_keys_per_partition the least recently used lose what is known of them.",
        ),
        Chart("State in memory", (("sum by (job) (keywatch_state_bytes)", "{{job}}"),), unit="bytes",
            description="All partitions of the process; about 2.2 kB a key.",
        ),
        Chart(
            "Evicted keys, rebalances",
            (
                (per_second("keywatch_state_evictions_total"), "evictions/s"),
                ("sum(increase(keywatch_rebalances_total[$__rate_interval]))", "rebalances"),
            ),
            description="Both ought to be rare.",
        ),
        Chart("Checkpoints", quantiles("keywatch_checkpoint_seconds"), unit="s",
            description="Pages and manifest, acknowledged. Seconds: after a crash as much is judged again.",
        ),
        Chart("Checkpoints, bytes", ((per_second("keywatch_checkpoint_bytes_total"), "written"),), unit="Bps",
            description="Compressed pages sent to the changelog.",
        ),
        Chart(
            "Commits and checkpoints, by outcome",
            (
                (per_second("keywatch_commits_total", "outcome"), "commits {{outcome}}"),
                (per_second("keywatch_checkpoints_total", "outcome"), "checkpoints {{outcome}}"),
            ),
            unit="cps",
            description="Failed ones: a restart would do much again.",
        ),
        Chart("Inserts, 99th percentile", quantiles("keywatch_clickhouse_insert_seconds", by="table")[1:], unit="s",
            description="By table. ClickHouse is slow: fewer, larger inserts (clickhouse.insert_s), or more of it.",
        ),
        Chart("Rows per second", ((per_second("keywatch_clickhouse_insert_rows_total", "table"), "{{table}}"),),
            unit="cps",
            description="Acknowledged by ClickHouse, by table.",
        ),
        Chart(
            "Inserts that fail", ((per_second("keywatch_clickhouse_insert_errors_total", "table"), "{{table}}"),),
            unit="cps",
            description="They are tried again for ever; nothing is lost while memory lasts.",
        ),
    ),
)  # fmt: skip

OUT: Final = Row(
    "Webhooks and gateways",
    (
        Chart(
            "Deliveries",
            ((per_second("keywatch_webhook_deliveries_total", "endpoint, outcome"), "{{endpoint}} {{outcome}}"),),
            unit="cps",
            description="Webhooks, by endpoint and outcome.",
        ),
        Chart("One attempt", quantiles("keywatch_webhook_delivery_seconds", by="endpoint"), unit="s",
            description="Of a webhook's delivery; slow receivers delay nobody else's.",
        ),
        Chart(
            "Not yet delivered, and disabled",
            (
                ("sum by (endpoint) (keywatch_webhook_pending)", "{{endpoint}}"),
                ("max by (endpoint) (keywatch_webhook_disabled)", "{{endpoint}} disabled"),
            ),
            description="An endpoint that answers 410 is disabled: `keywatch respond endpoints`.",
        ),
        Chart(
            "Calls of gateways",
            ((per_second("keywatch_adapter_calls_total", "adapter, outcome"), "{{adapter}} {{outcome}}"),),
            unit="cps",
            description="By adapter and outcome, signed webhooks that act on keys too: where acts are done.",
        ),
        Chart("One call", quantiles("keywatch_adapter_call_seconds", by="adapter"), unit="s",
            description="Of a gateway's API or of a signed webhook.",
        ),
        Chart(
            "Acts", ((per_second("keywatch_acts_total", "rung, outcome"), "{{rung}} {{outcome}}"),), unit="cps",
            description="By rung and outcome. A failed one pages: a key that should be out of use is not.",
        ),
    ),
)  # fmt: skip

MARKS: Final = (
    Mark("Alerts", 'ALERTS{alertname=~"Keywatch.+", alertstate="firing"}', "{{alertname}} {{instance}}", "red"),
    # what was not there five minutes ago: deploys and restarts
    Mark("Starts", "keywatch_build_info unless keywatch_build_info offset 5m", "{{job}} {{version}} starts", "blue"),
)

PIPELINE: Final = Dashboard(
    "keywatch-pipeline",
    "Keywatch: pipeline",
    (STATE_OF_THINGS, READING, LATENCY, STATE, OUT),
    marks=MARKS,
    span="now-6h",
)
