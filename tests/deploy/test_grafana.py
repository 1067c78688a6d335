"""The dashboard is what its builder makes, and every query of it runs on ClickHouse and returns what it declares."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from clickhouse_connect.driver.client import Client

from deploy.grafana.build import FILE, dashboard, render
from deploy.grafana.panels import ANNOTATION, KEY_VARIABLE, ROWS, Panel
from pipeline.config import ClickHouse
from pipeline.migrate import migrate
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.rows import LATENCY_BOUNDS_MS
from tests.clickhouse_front import front  # noqa: F401
from tests.row_examples import rows_of

NOW_S = 1_790_000_400
FROM_S = NOW_S - 86_400
PANELS = [panel for row in ROWS for panel in row.panels]
KEYS = ["pk_live_a", "it's"]


def expand(sql: str, keys: list[str] | None, resolution: str = "1m") -> str:
    """Grafana's macros as the ClickHouse plugin writes them; `keys` None is "All"."""
    start, end = f"toDateTime({FROM_S})", f"toDateTime({NOW_S})"
    quoted = ",".join("'" + key.replace("'", "''") + "'" for key in keys or KEYS)
    condition = r"$__conditionalAll("
    while condition in sql:
        head, _, rest = sql.partition(condition)
        inside, tail = _closing(rest)
        sql = head + ("1=1" if keys is None else inside.rpartition(",")[0]) + tail
    sql = sql.replace("${key:singlequote}", quoted).replace("${resolution}", resolution)
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 >= {start} AND \1 <= {end}", sql)
    sql = re.sub(r"\$__timeInterval\(([\w.]+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)", sql)
    sql = sql.replace("$__fromTime", start).replace("$__toTime", end).replace("$__interval_s", "60")
    assert "$" not in sql, sql
    return sql


def _closing(text: str) -> tuple[str, str]:
    """(what stands before the bracket that closes, what follows)."""
    depth = 1
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:i], text[i + 1 :]
    raise AssertionError(f"no closing bracket: {text}")


async def _seed(config: ClickHouse) -> None:
    sink = ClickHouseSink(config)
    size = 4
    keys = [KEYS[i % 2] for i in range(size)]
    minutes = [(NOW_S - 600 - 60 * i) // 60 * 60 for i in range(size)]
    times = [minute * 1_000_000 for minute in minutes]
    counts = [list(range(len(LATENCY_BOUNDS_MS) + 1))] * size
    for table in ("requests_1m", "requests_1h"):
        starts = minutes if table == "requests_1m" else [m // 3600 * 3600 for m in minutes]
        windows: dict[str, list[Any]] = {
            "key_id": keys,
            "window_start": starts,
            "latency_counts": counts,
            "first_ts": times,
            "last_ts": times,
        }
        await sink.write(table, rows_of(table, size, **windows))
    places: dict[str, list[Any]] = {"country": ["DE", "FR"] * 2, "first_ts": times, "last_ts": times}
    hours = [m // 3600 * 3600 for m in minutes]
    await sink.write("key_source_1h", rows_of("key_source_1h", size, key_id=keys, window_start=hours, **places))
    await sink.write("keys_last_used", rows_of("keys_last_used", 2, key_id=KEYS, environment=["live", "test"]))
    await sink.write("findings", rows_of("findings", size, key_id=keys, at=times))
    ids = [f"i{i}" for i in range(size)]
    opened = rows_of("incidents", size, incident_id=ids, key_id=keys, opened_at=times, state=["open"] * size)
    await sink.write("incidents", opened)
    done: dict[str, list[Any]] = {"stage": ["done"] * size, "verdict": ["allowed"] * size}
    await sink.write("responses", rows_of("responses", size, key_id=keys, at=times, **done))
    await sink.close()


@pytest.fixture(scope="module")
def client(front: str) -> Iterator[Client]:  # noqa: F811
    config = ClickHouse(url=front, database="keywatch_grafana", expire=False)
    migrate(config)
    asyncio.run(_seed(config))
    client = connect(config, config.database)
    yield client
    client.command(f"DROP DATABASE {config.database}")
    client.close()


def _kind(type_name: str) -> str:
    bare = re.sub(r"^(?:Nullable|LowCardinality)\((.*)\)$", r"\1", type_name)
    if bare.startswith("DateTime"):
        return "time"
    return "text" if bare in ("String",) else "number" if re.match(r"U?Int|Float", bare) else bare


@pytest.mark.parametrize("panel", PANELS, ids=[panel.title for panel in PANELS])
def test_a_panels_query_returns_the_columns_it_declares(panel: Panel, client: Client) -> None:
    for keys, resolution in ((None, "1m"), (["it's"], "1h")):
        found = client.query(expand(panel.sql, keys, resolution))
        shape = [(name, _kind(kind.name)) for name, kind in zip(found.column_names, found.column_types, strict=True)]
        assert shape == list(panel.columns)
        assert found.result_rows, f"{panel.title} shows nothing of the seeded rows"


@pytest.mark.parametrize("panel", [p for p in PANELS if p.kind == "timeseries"], ids=lambda p: p.title)
def test_a_time_series_begins_with_time_and_is_in_its_order(panel: Panel, client: Client) -> None:
    assert panel.columns[0] == ("time", "time")
    times = [row[0] for row in client.query(expand(panel.sql, None)).result_rows]
    assert times == sorted(times)


def test_latency_shows_the_bound_that_the_share_falls_under(client: Client) -> None:
    (panel,) = [p for p in PANELS if p.title == "Latency"]
    p50, _, p99 = client.query(expand(panel.sql, None)).result_rows[0][1:]
    # 0, 1, ... 15 of 120 requests lie in the 16 classes: the 60th in the twelfth, the 119th in the last.
    assert (p50, p99) == (LATENCY_BOUNDS_MS[11], 60_000)


def test_the_key_variable_and_the_annotation_run(client: Client) -> None:
    assert {row[0] for row in client.query(KEY_VARIABLE).result_rows} == set(KEYS)
    found = client.query(expand(ANNOTATION, ["it's"]))
    assert found.column_names == ("time", "text", "title", "tags")
    assert found.result_rows


def test_a_chosen_key_hides_the_others(client: Client) -> None:
    (panel,) = [p for p in PANELS if p.title == "Requests per minute"]
    assert {row[1] for row in client.query(expand(panel.sql, ["it's"])).result_rows} == {"it's"}
    assert {row[1] for row in client.query(expand(panel.sql, None)).result_rows} == set(KEYS)


def test_the_file_is_what_the_builder_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == render(), "run: python -m deploy.grafana.build"


def test_ids_are_unique_and_every_panel_uses_the_data_source_variable() -> None:
    panels: list[dict[str, Any]] = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels if panel["type"] != "row")
    json.loads(render())


def test_panels_lie_on_the_grid_and_none_covers_another() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    for a, b in itertools.combinations(places, 2):
        apart_x = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        apart_y = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart_x or apart_y, (a, b)


def test_provisioning_points_at_the_reader_and_at_the_dashboards_folder() -> None:
    folder = FILE.parent.parent / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "clickhouse.yaml").read_text())["datasources"][0]
    assert (source["jsonData"]["username"], source["jsonData"]["host"]) == ("keywatch_reader", "clickhouse")
    provider = yaml.safe_load((folder / "dashboards" / "keywatch.yaml").read_text())["providers"][0]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
