"""The audit's copy in ClickHouse: by position, so that loading twice changes nothing."""

from __future__ import annotations

import msgspec

from pipeline.config.tree import ClickHouse
from pipeline.respond.audit import Positioned, rfc3339, rows
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.response import GuardResult, Response
from schemas.rows import RESPONSES
from tests.pipeline.respond.incidents import NOW_S


def line(offset: int, stage: str = "decided") -> Positioned:
    value = {
        "response_id": "r1", "incident_id": "i1", "revision": 1, "key_id": "k1", "key_version": 1,
        "at": rfc3339(NOW_S + offset), "stage": stage, "verdict": "allowed", "rung": "revoke", "reason": "all passed",
        "guards": [GuardResult(guard="mode", passed=True, reason="on")],
    }  # fmt: skip
    return Positioned(0, offset, int(NOW_S * 1e6), b"k1", msgspec.json.encode(value))


def test_rows_have_the_table_s_columns_and_leave_out_what_is_no_response() -> None:
    columns = rows([line(7), Positioned(0, 8, 0, b"k1", b"{}"), Positioned(0, 9, 0, b"k1", None), line(10, "done")])
    assert list(columns) == [name for name, _ in RESPONSES]
    assert list(columns["offset"]) == [7, 10]
    assert list(columns["stage"]) == ["decided", "done"]
    assert list(columns["at"])[:1] == [int((NOW_S + 7) * 1e6)]
    body, *_ = columns["body"]
    assert msgspec.json.decode(body, type=Response).guards[0].guard == "mode"


async def test_loading_a_part_of_the_topic_twice_keeps_one_row_per_line(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(clickhouse)
    lines = [line(0), line(1, "acting"), line(2, "done")]
    await sink.write("responses", rows(lines[:2]))
    await sink.write("responses", rows(lines))
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    found = client.query("SELECT offset, stage, toString(at) FROM responses FINAL ORDER BY offset").result_rows
    client.close()
    assert [(row[0], row[1]) for row in found] == [(0, "decided"), (1, "acting"), (2, "done")]
    assert found[0][2].startswith("2026-11-18 ")
