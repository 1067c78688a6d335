"""Rows per event and bytes per row in ClickHouse: `python -m tests.bench.clickhouse_bytes`.

Ten thousand keys go on as before for a while (`grown`); their rows are inserted as the worker does it, every table is
merged, and ClickHouse (chDB: the same engine and codecs) tells the bytes on disk. Constants of the runbook's model.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.config.tree import ClickHouse
from pipeline.core import Rows
from pipeline.migrate import migrate
from pipeline.rows import append_rows, count_rows
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from tests.bench.grown import DAY_US, START_US, Grown, cut, print_json
from tests.clickhouse_front import FrontProcess

EACH = 20_000
SIZES = """SELECT table, sum(rows), sum(bytes_on_disk) FROM system.parts
           WHERE active AND database = 'keywatch' GROUP BY table"""


async def insert(config: ClickHouse, rows: Rows) -> None:
    """As the worker's row buffer does."""
    sink = ClickHouseSink(config)
    for table, columns in rows.items():
        await sink.write(table, columns)
    await sink.close()


def fill(config: ClickHouse, keys: int, events: int) -> Counter[str]:
    """Judge, insert; returns the rows that were sent, by table."""
    grown, rows, waiting, sent = Grown(keys, 1), Rows(), 0, Counter[str]()
    log = cut(grown.traffic(events, grown.natural_per_s(), START_US + DAY_US), 1, [0])
    for part in log:
        append_rows(rows, grown.cores[0].process(part).rows)
        waiting += len(part.offsets)
        if waiting >= EACH:
            waiting = 0
            append_rows(rows, grown.cores[0].due_rows())
            sent.update({table: count_rows({table: columns}) for table, columns in rows.items()})
            asyncio.run(insert(config, rows))
            rows = {}
    return sent


def main() -> None:
    """Against an embedded ClickHouse in a temporary folder."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keys", type=int, default=10_000)
    options.add_argument("--events", type=int, default=200_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        front = FrontProcess(Path(folder))
        try:
            config = ClickHouse(url=front.url, expire=False)
            migrate(config)
            sent = fill(config, chosen.keys, chosen.events)
            client = connect(config, None)
            for table in sent:
                client.command(f"OPTIMIZE TABLE keywatch.{table} FINAL")
            found: Any = client.query(SIZES).result_rows
            client.close()
        finally:
            front.stop()
    tables = {
        table: {
            "sent_per_event": round(sent[table] / chosen.events, 3), "kept_per_event": round(rows / chosen.events, 3),
            "bytes_per_row": round(size / rows, 1),
        }
        for table, rows, size in found
        if table in sent and rows
    }  # fmt: skip
    total = sum(each["kept_per_event"] * each["bytes_per_row"] for each in tables.values())
    print_json("clickhouse_bytes", {"events": chosen.events, "bytes_per_event": round(total, 1), "tables": tables})


if __name__ == "__main__":
    main()
