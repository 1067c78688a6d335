"""Every metric: name, type, labels, meaning."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from pipeline.metrics import METRICS, Metrics, metric_names
from pipeline.reference.words import comments, module_source, table

HEAD: Final = """# Metrics

`/metrics` of each process, in Prometheus' text format (`[worker] metrics_port` and so on). Labels come from closed
sets, never from a caller of the API. The alerts on them are in [RUNBOOK.md](../../RUNBOOK.md).

"""


def page() -> str:
    """Markdown, by the groups of `pipeline/metrics.py`."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for group, field, name in zip(_groups(), fields(METRICS), metric_names(), strict=True):
        groups.setdefault(group, []).append(_row(name, getattr(METRICS, field.name)))
    head = ("metric", "type", "labels", "meaning")
    return HEAD + "\n".join(f"## {group}\n\n{table(head, rows)}" for group, rows in groups.items())


def _row(name: str, metric: Any) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # no public name
    name += "_total" if metric._type == "counter" else ""
    return (f"`{name}`", metric._type, labels, metric._documentation)


def _groups() -> list[str]:
    """The comment that stands above each metric, in order."""
    source = module_source("pipeline.metrics")
    body = source[source.index("class Metrics:") :]
    heads = {line: text for line, text in comments(body).items() if body.splitlines()[line - 1].lstrip()[0] == "#"}
    lines = {text.partition(":")[0].strip(): number for number, text in enumerate(body.splitlines(), 1)}
    return [heads[max(at for at in heads if at < lines[field.name])] for field in fields(Metrics)]
