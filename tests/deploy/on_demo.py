"""Which panels of the dashboards show nothing on a running demo: `python -m tests.deploy.on_demo http://127.0.0.1:PORT`.

The address is the ClickHouse that `keywatch demo --keep` prints. Exit code 1 where a panel has no row, or only zeros.
Asked over the last day, as pages open, for the first key that something was done to: its page has all to tell.
tests/deploy/test_on_demo.py is the same question to a demo of its own. Of panels over metrics it asks whether each
metric has a sample at the demo's worker and responder: no Prometheus runs there.
"""

from __future__ import annotations

import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Final

from clickhouse_connect.driver.client import Client
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana.build import DASHBOARDS
from deploy.grafana.panel import Chart, Dashboard, Panel
from pipeline.config.tree import ClickHouse
from pipeline.sinks.connect import connect
from tests.deploy.macros import Asked, expand

DAY_S: Final = 86_400
PANELS: Final = tuple(
    (page, panel) for page in DASHBOARDS for row in page.rows for panel in row.panels if isinstance(panel, Panel)
)
CHARTS: Final = tuple(
    (page, panel) for page in DASHBOARDS for row in page.rows for panel in row.panels if isinstance(panel, Chart)
)


def main() -> int:
    """Print each empty panel."""
    config = ClickHouse(url=sys.argv[1])
    empty = [name(*each) for each in still_empty(connect(config, config.database), PANELS)]
    print("\n".join(empty) or "every panel shows something")  # noqa: T201
    return 1 if empty else 0


def name(page: Dashboard, panel: Panel) -> str:
    """As people find it."""
    return f"{page.uid}: {panel.title}"


def still_empty(client: Client, panels: tuple[tuple[Dashboard, Panel], ...]) -> Iterator[tuple[Dashboard, Panel]]:
    """Those of `panels` that show nothing; all of them, as long as nothing was done to any key."""
    acted = client.query("SELECT key_id FROM v_responses WHERE stage = 'done' ORDER BY at LIMIT 1").result_rows
    for page, panel in panels:
        if not acted or not shows(client, page, panel, acted[0][0]):
            yield page, panel


def shows(client: Client, page: Dashboard, panel: Panel, key: str) -> bool:
    """Whether there is anything but nothing in it, besides its first column."""
    usual = {"over_age_days": "365", "dormant_days": "90", "resolution": "1h", "key": key}
    single = {each.name for each in page.variables if not each.many or each.text}
    now_s = int(time.time()) + 3_600
    asked = Asked(now_s - DAY_S, now_s, 3_600, {name: text for name, text in usual.items() if name in single})
    rows = client.query(expand(panel.sql, asked)).result_rows
    return any(value not in (None, 0, "") for row in rows for value in row[1:] or row)


def metrics_of(chart: Chart) -> set[str]:
    """What its PromQL asks for, of ours; `up` and `ALERTS` are Prometheus' own."""
    return {found for promql, _ in chart.lines for found in re.findall(r"\bkeywatch_\w+", promql)}


def sampled(ports: tuple[int, ...]) -> set[str]:
    """Names of all samples at the metrics ports of this machine."""
    texts = [urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode() for port in ports]
    families = (family for text in texts for family in text_string_to_metric_families(text))
    return {sample.name for family in families for sample in family.samples}


def without_sample(ports: tuple[int, ...]) -> list[str]:
    """Panels over metrics that would be empty, each with the metrics that have no sample."""
    there = sampled(ports)
    missing = [(page, chart, sorted(metrics_of(chart) - there)) for page, chart in CHARTS]
    return [f"{page.uid}: {chart.title}: {', '.join(names)}" for page, chart, names in missing if names]


if __name__ == "__main__":
    sys.exit(main())
