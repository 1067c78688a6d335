"""What the core writes fits the tables: its rows of a whole log, written and read back."""

from __future__ import annotations

from pipeline.config.tree import ClickHouse
from pipeline.core import Rows
from pipeline.rows import append_rows
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from tests.pipeline.log_of_requests import core, log, slices


def _rows_of_a_log() -> Rows:
    judge = core()
    rows: Rows = {}
    for part in slices(log(1), [700]):
        append_rows(rows, judge.process(part).rows)
    append_rows(rows, judge.due_rows())
    return rows


async def test_rows_of_the_core_arrive_and_agree_with_each_other(clickhouse: ClickHouse) -> None:
    rows = _rows_of_a_log()
    sink = ClickHouseSink(clickhouse)
    for _ in range(2):  # as after a crash
        for table, columns in rows.items():
            await sink.write(table, columns)
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    totals = {
        table: client.command(f"SELECT sum(requests) FROM v_{table}")
        for table in ("requests_1m", "requests_1h", "key_source_1h")
    }
    totals["requests"] = client.command("SELECT count() FROM v_requests")
    incidents = client.command("SELECT count() FROM v_incidents")
    keys = client.command("SELECT count() FROM v_keys_last_used")
    client.close()
    assert len(set(totals.values())) == 1, totals
    assert totals["requests"] == len(rows["requests"]["offset"])
    assert incidents == len(set(rows["incidents"]["incident_id"]))
    assert keys == len(set(rows["requests"]["key_id"]))
