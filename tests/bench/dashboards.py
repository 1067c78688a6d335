"""How long each panel of the dashboards takes at 10,000 keys and 30 days: `python -m tests.bench.dashboards`.

Fills a chDB (in a process of its own, over HTTP, as Grafana asks) with a row for each key and hour, two source rows
for each, merges what lies in closed days as ClickHouse does by itself in hours, and asks every panel's query over a day
and over 30. Prints the median of each by the clock, and the processor's time of the server, which is what counts on a
machine that others use, too; then the slowest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil
from clickhouse_connect.driver.client import Client

from deploy.grafana.build import DASHBOARDS
from deploy.grafana.panel import Dashboard, Panel
from pipeline.config.tree import ClickHouse
from pipeline.migrate import migrate
from pipeline.sinks.connect import connect
from tests.clickhouse_front import FrontProcess
from tests.deploy.filled import Fill, count_days, fill
from tests.deploy.macros import Asked, expand

NOW_S: Final = 1_790_000_400
USUAL: Final = {"over_age_days": "365", "dormant_days": "90", "resolution": "1h", "key": "key_00042"}
READER: Final = {"do_not_merge_across_partitions_select_final": 1}  # as the reader's settings profile says
DAYS: Final = (1, 30)
MOST_MS: Final = 100.0


def main() -> int:
    """Fill, ask, print; 1 where a panel takes more of the processor than `MOST_MS`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--panel", default="", help="only panels with this in their title")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each panel")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keywatch-dashboards-") as folder:
        front = FrontProcess(Path(folder))
        try:
            return 1 if _measure(front, options) else 0
        finally:
            front.stop()


def _measure(front: FrontProcess, options: argparse.Namespace) -> list[str]:
    """The panels that take too long."""
    config = ClickHouse(url=front.url, expire=False, timeout_s=600.0)
    migrate(config)
    client = connect(config, config.database)
    began = time.monotonic()
    size = Fill(options.keys, options.days, NOW_S, minutes=1440, incidents=2_000, at_once=1)
    fill(client, size)
    for table in ("requests_1h", "hours", "key_source_1h", "places"):
        _merge(client, table)
    counted_s = count_days(client)
    _say(options, {"filled_s": round(time.monotonic() - began), "counted_s": counted_s, "rows": _rows(client)})
    found = [
        _timed(client, _Clock(front.process.pid), page, panel, days, options)
        for page in DASHBOARDS for row in page.rows for panel in row.panels
        if isinstance(panel, Panel) and options.panel.casefold() in panel.title.casefold() for days in DAYS
    ]  # fmt: skip
    for days in DAYS:
        for by in ("median_ms", "processor_ms"):
            times = sorted((each for each in found if each["days"] == days), key=lambda each: float(each[by]))
            slow = [each["panel"] for each in times if float(each[by]) > MOST_MS]
            _say(options, {"days": days, "by": by, "panels": len(times), "over_100": slow, "slowest": times[-1]})
    return sorted({str(each["panel"]) for each in found if float(each["processor_ms"]) > MOST_MS})


def _merge(client: Client, table: str) -> None:
    """What a merge has made of closed partitions after some hours."""
    sql = f"SELECT DISTINCT partition FROM system.parts WHERE table = '{table}' AND active ORDER BY partition"
    for (partition,) in client.query(sql).result_rows:
        client.command(f"OPTIMIZE TABLE {table} PARTITION {partition} FINAL")


def _rows(client: Client) -> dict[str, int]:
    sql = "SELECT table, sum(rows) FROM system.parts WHERE active AND database = currentDatabase() GROUP BY table"
    return {str(table): int(rows) for table, rows in client.query(sql).result_rows}


class _Clock:
    """The processor's time of the server so far, in seconds."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def __call__(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def _timed(
    client: Client, clock: _Clock, page: Dashboard, panel: Panel, days: int, options: argparse.Namespace
) -> dict[str, Any]:
    single = {each.name for each in page.variables if not each.many or each.text}
    chosen = {name: value for name, value in USUAL.items() if name in single}
    asked = Asked(NOW_S - days * 86_400, NOW_S, 3_600 if days == 1 else 7_200, chosen)
    sql = expand(panel.sql, asked)
    times = []
    before_s = clock()
    for _ in range(options.repeats):
        began = time.perf_counter()
        client.query(sql, settings=READER)
        times.append(1e3 * (time.perf_counter() - began))
    told = {
        "page": page.uid, "panel": panel.title, "days": days, "median_ms": round(statistics.median(times), 1),
        "least_ms": round(min(times), 1), "processor_ms": round(1e3 * (clock() - before_s) / options.repeats, 1),
    }  # fmt: skip
    _say(options, told)
    return told


def _say(options: argparse.Namespace, told: dict[str, Any]) -> None:
    print(json.dumps(told) if options.json else told, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
