"""A worker process for the tests: the counting core (or the real one), rows into a file. Settings by environment.

KW_BROKERS, KW_FOLDER (rows.jsonl is written there), KW_RUNNER faust|plain, KW_TOPICS (prefix), KW_CONFIG (JSON of
further worker settings).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import ClickHouse, Config, Kafka, Topics, Worker
from pipeline.core import Sides
from pipeline.ports import Columns
from pipeline.runners.parts import Parts
from tests.pipeline.counting_core import SIDES, open_core


class JsonLinesSink:
    """Rows as lines of a file, each write acknowledged when it is on disk."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    async def write(self, table: str, rows: Columns) -> None:
        """One line per row: table and columns."""
        names = list(rows)
        columns: list[Sequence[Any]] = [rows[name] for name in names]
        lines = [
            json.dumps({"table": table} | dict(zip(names, values, strict=True)))
            for values in zip(*columns, strict=True)
        ]
        self._file.write("".join(line + "\n" for line in lines).encode())

    async def close(self) -> None:
        """Close the file."""
        self._file.close()


async def _sides(config: Config) -> Sides:
    return SIDES


def parts(folder: Path) -> Parts:
    """The counting core and the file."""
    return Parts(open_core, lambda config: JsonLinesSink(folder / "rows.jsonl"), _sides, lambda: None)


def config_from_environment() -> Config:
    """Short timeouts, any metrics port, topics with the test's prefix."""
    prefix = os.environ["KW_TOPICS"]
    names = {f.name: f"{prefix}.{f.name}" for f in msgspec.structs.fields(Topics)}
    worker = {"metrics_port": 0, "checkpoint_s": 0.5, "slice_events": 100, "stop_s": 10.0}
    return Config(
        kafka=Kafka(
            brokers=os.environ["KW_BROKERS"],
            group=prefix,
            session_timeout_s=6.0,
            heartbeat_s=0.5,
            rebalance_timeout_s=6.0,
            partitions=4,
        ),
        topics=Topics(**names),
        clickhouse=ClickHouse(insert_s=0.1),
        worker=Worker(**(worker | json.loads(os.environ.get("KW_CONFIG", "{}")))),
    )


def main() -> int:
    """Run until SIGTERM."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.__stderr__, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    if os.environ["KW_RUNNER"] == "plain":
        from pipeline.runners.plain import main as run
    else:
        from pipeline.runners.worker import main as run
    return run(config_from_environment(), parts(Path(os.environ["KW_FOLDER"])))


if __name__ == "__main__":
    sys.exit(main())
