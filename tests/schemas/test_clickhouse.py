"""The migrations and `schemas/rows.py` say the same, and tables keep rows as the design asks."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from clickhouse_migrations.defaults import MIGRATIONS_TABLE

from pipeline.config.tree import ClickHouse
from pipeline.migrate import FOLDER
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.rows import COPIES, LATENCY_BOUNDS_MS, TABLES
from tests.deploy.filled import count_days
from tests.row_examples import rows_of

RETENTION_DAYS = {
    "requests": 14,
    "requests_1m": 30,
    "requests_1h": 400,
    "key_source_1h": 400,
    "keys_last_used": 1830,
    "findings": 400,
    "incidents": 400,
    "evidence": 400,
    "withheld": 400,
    "evictions": 400,
    "console_log": 400,
    "hours": 400,
    "places": 400,
    "days": 400,
    "place_days": 400,
}

SUMMED = {"part", "version"}
"""What tells rows of a window apart: a view that sums them has none of it."""
LACKS = {f"v_{table}": SUMMED for table in ("requests_1m", "requests_1h", "key_source_1h")}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.sql")), ids=lambda file: file.name)
def test_a_migration_only_adds_so_that_pods_of_the_last_version_go_on_while_and_after_it_runs(file: Path) -> None:
    """`helm upgrade` runs it beside the old pods, and `helm rollback` leaves the tables as they are."""
    text = re.sub(r"--.*", "", file.read_text())
    added = r"ADD (COLUMN|INDEX|PROJECTION) IF NOT EXISTS "
    allowed = rf"CREATE (OR REPLACE )?(MATERIALIZED )?(TABLE|VIEW)\b|INSERT INTO |ALTER TABLE \S+ {added}"
    for statement in filter(None, map(str.strip, text.split(";"))):
        assert re.match(allowed, statement), statement
        if statement.startswith("ALTER"):
            assert not re.search(r"\b(DROP|MODIFY|RENAME|CLEAR|DELETE|UPDATE)\b", statement), statement


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_exactly_the_columns_of_the_rows(table: str, migrated: ClickHouse) -> None:
    client = connect(migrated, migrated.database)
    sql = "SELECT name, type FROM system.columns WHERE database = {d:String} AND table = {t:String} ORDER BY position"
    found = client.query(sql, parameters={"d": migrated.database, "t": table}).result_rows
    client.close()
    assert tuple((name, kind) for name, kind in found) == TABLES[table]


def test_a_view_has_every_column_of_its_table_or_it_is_said_why_not(migrated: ClickHouse) -> None:
    """`SELECT *` is of the columns on the day when the view is made: one that comes later needs the view made anew."""
    client = connect(migrated, migrated.database)
    sql = "SELECT table, groupArray(name) FROM system.columns WHERE database = {d:String} GROUP BY table"
    columns = {str(table): set(names) for table, names in client.query(sql, {"d": migrated.database}).result_rows}
    client.close()
    views = {name: columns[name.removeprefix("v_")] - of for name, of in columns.items() if name.startswith("v_")}
    assert len(views) >= 20
    assert {name: lacks for name, lacks in views.items() if lacks} == LACKS


def test_every_table_replaces_and_is_covered_by_a_migration(migrated: ClickHouse) -> None:
    client = connect(migrated, migrated.database)
    sql = "SELECT name, engine FROM system.tables WHERE database = {d:String} AND engine LIKE '%MergeTree'"
    found = client.query(sql, parameters={"d": migrated.database}).result_rows
    engines = {str(name): str(engine) for name, engine in found}
    client.close()
    engines.pop(MIGRATIONS_TABLE)
    assert engines == dict.fromkeys([*TABLES, *COPIES], "ReplacingMergeTree")


def test_each_tier_has_its_retention_and_drops_whole_parts() -> None:
    sql = "".join(path.read_text() for path in sorted(FOLDER.glob("*.sql")))
    statements = {
        found[1]: found[0] for found in re.finditer(r"CREATE TABLE IF NOT EXISTS (\w+)\n.*?;", sql, re.DOTALL)
    }
    days = {name: re.search(r"TTL .*INTERVAL (\d+) DAY", text) for name, text in statements.items()}
    assert {name: int(found[1]) for name, found in days.items() if found} == RETENTION_DAYS
    partitioned = [name for name, text in statements.items() if days[name] and "PARTITION BY" in text]
    assert all("ttl_only_drop_parts = 1" in statements[name] for name in partitioned)


def test_the_audit_log_has_no_end() -> None:
    text = (FOLDER / "003_incidents.sql").read_text()
    responses = text[text.index("EXISTS responses") : text.index("EXISTS adoptions")]
    assert "TTL" not in responses.split("-- From")[0]


async def test_a_window_written_twice_counts_once_and_its_parts_are_summed(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(clickhouse)
    window: dict[str, list[Any]] = {
        "key_id": ["k"],
        "window_start": [1_700_000_040],
        "latency_counts": [[1] * (len(LATENCY_BOUNDS_MS) + 1)],
    }
    await sink.write("requests_1m", rows_of("requests_1m", 1, **window, part=["a"], version=[7], requests=[3]))
    await sink.write("requests_1m", rows_of("requests_1m", 1, **window, part=["a"], version=[9], requests=[5]))
    await sink.write("requests_1m", rows_of("requests_1m", 1, **window, part=["a"], version=[8], requests=[4]))
    await sink.write("requests_1m", rows_of("requests_1m", 1, **window, part=["b"], version=[1], requests=[2]))
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    found = client.query("SELECT requests, latency_counts FROM v_requests_1m").result_rows
    client.close()
    assert found == [(7, [2] * (len(LATENCY_BOUNDS_MS) + 1))]


async def test_loading_the_audit_again_adds_no_line_and_a_new_topic_overwrites_none(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(clickhouse)
    first = rows_of("responses", 1, response_id=["r1"], partition=[0], offset=[0])
    await sink.write("responses", first)
    await sink.write("responses", first)
    await sink.write("responses", rows_of("responses", 1, response_id=["r2"], partition=[0], offset=[0]))
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    found = client.query("SELECT response_id FROM v_responses ORDER BY response_id").result_rows
    client.close()
    assert found == [("r1",), ("r2",)]


async def test_a_question_by_network_takes_the_second_ordering(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(clickhouse)
    count = 30_000
    asns = [i * 7_919 % 1_000 for i in range(count)]
    await sink.write("requests", rows_of("requests", count, asn=asns, offset=list(range(count))))
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    plan = client.command("EXPLAIN indexes = 1 SELECT ts, key_id FROM requests WHERE asn = 17")
    client.close()
    assert "by_network" in str(plan)


async def test_a_window_written_twice_counts_once_in_the_order_of_time_too(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(clickhouse)
    for version, requests in ((7, 3), (9, 5), (8, 4)):
        for table, start in (("requests_1h", "window_start"), ("key_source_1h", "window_start")):
            row: dict[str, list[Any]] = {start: [1_699_999_200], "version": [version], "requests": [requests]}
            await sink.write(table, rows_of(table, 1, **row))
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    found = [client.query(f"SELECT requests FROM {view}").result_rows for view in ("v_hours", "v_places")]
    client.close()
    assert found == [[(5,)], [(5,)]]


async def test_a_past_day_is_counted_anew_when_something_comes_late_and_today_never(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(clickhouse)
    client = connect(clickhouse, clickhouse.database)
    now_s = int(time.time())
    old_s = 1_699_999_200
    for version, part, start_s, requests in ((7, "a", old_s, 3), (9, "a", old_s, 5), (1, "b", old_s + 3600, 4)):
        row: dict[str, list[Any]] = {"window_start": [start_s], "version": [version], "requests": [requests]}
        row |= {"part": [part], "key_id": ["k"]}
        await sink.write("requests_1h", rows_of("requests_1h", 1, **row))
        await sink.write("key_source_1h", rows_of("key_source_1h", 1, **row, country=["DE"]))
        await sink.write("requests_1h", rows_of("requests_1h", 1, **(row | {"window_start": [now_s // 3600 * 3600]})))
        count_days(client)
    await sink.close()
    count_days(client)
    assert client.query("SELECT count() FROM days").result_rows == [(3,)], "what has not changed is not written again"
    days = client.query("SELECT toString(day), key_id, requests FROM v_days").result_rows
    places = client.query("SELECT toString(day), country, key_id, requests FROM v_place_days").result_rows
    client.close()
    assert days == [("2023-11-14", "k", 9)]
    assert places == [("2023-11-14", "DE", "k", 9)]
