"""Metrics: declared once, named by the rules, readable by Prometheus' own checker."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.metrics import METRICS, NAMESPACE, REGISTRY, metric_names, reader_started, render, responder_started

ROOT = Path(__file__).parents[2]
FORBIDDEN_LABELS = {"key", "key_id", "ip", "client_ip", "address", "route", "path", "owner", "request_id"}


def labels_of(name: str) -> tuple[str, ...]:
    return tuple(getattr(METRICS, name)._labelnames)


def test_every_metric_is_named_once_under_the_namespace() -> None:
    names = metric_names()
    assert len(names) == len(set(names)) == len(fields(METRICS))
    assert all(re.fullmatch(rf"{NAMESPACE}_[a-z0-9_]+", name) for name in names)


def test_no_label_can_be_chosen_by_a_caller_of_the_api() -> None:
    for field in fields(METRICS):
        assert not FORBIDDEN_LABELS & set(labels_of(field.name)), field.name


def test_the_set_that_dashboards_and_alerts_rest_on_is_there() -> None:
    wanted = {
        "events_consumed", "consumer_lag_records", "end_to_end_seconds", "watermark_timestamp_seconds", "commits",
        "last_poll_timestamp_seconds", "tracked_keys", "findings", "incidents", "clickhouse_insert_errors",
        "webhook_deliveries", "acts", "decisions", "event_loop_stall_seconds", "rebalances", "state_bytes",
    }  # fmt: skip
    assert {f"{NAMESPACE}_{name}" for name in wanted} <= set(metric_names())


def test_whatever_is_declared_is_fed_somewhere() -> None:
    """A panel over what nobody counts is empty for ever, and an alert on it never fires."""
    code = "\n".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    assert not [field.name for field in fields(METRICS) if f"METRICS.{field.name}" not in code]


def test_what_was_counted_is_rendered() -> None:
    METRICS.commits.labels("ok").inc()
    METRICS.end_to_end_seconds.labels("kafka").observe(0.3)
    text = render().decode()
    assert 'keywatch_commits_total{outcome="ok"}' in text
    assert 'keywatch_end_to_end_seconds_bucket{le="0.5",to="kafka"}' in text
    assert "_created" not in text


def test_what_a_responder_alerts_on_is_there_before_it_happens_first() -> None:
    """Prometheus' increase() doesn't see a counter's first value, nor `== 0` a series that isn't there."""
    responder_started(["a-rung"], ["an-endpoint"])  # of no other test
    text = render().decode()
    assert 'keywatch_acts_total{outcome="failed",rung="a-rung"} 0.0' in text
    assert 'keywatch_acts_total{outcome="expired",rung="a-rung"} 0.0' in text
    assert 'keywatch_webhook_deliveries_total{endpoint="an-endpoint",outcome="ok"} 0.0' in text
    assert 'keywatch_webhook_deliveries_total{endpoint="an-endpoint",outcome="failed"} 0.0' in text
    assert 'keywatch_webhook_disabled{endpoint="an-endpoint"} 0.0' in text


def test_what_a_reader_alerts_on_is_there_before_it_happens_first() -> None:
    reader_started(["a-reason"])
    assert 'keywatch_events_rejected_total{reason="a-reason"} 0.0' in render().decode()


def test_an_undeclared_metric_is_an_error() -> None:
    with pytest.raises(AttributeError):
        METRICS.no_such_metric  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
def test_promtool_finds_nothing_to_say() -> None:
    for field in fields(METRICS):
        labels = labels_of(field.name)
        if labels and field.name != "build":
            getattr(METRICS, field.name).labels(*["x"] * len(labels))
    assert list(REGISTRY.collect())
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=render(), capture_output=True, timeout=60, check=False
    )
    assert (check.returncode, check.stderr.decode()) == (0, "")
