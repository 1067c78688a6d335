"""A worker process for the tests: the counting core (or the real one), rows into a file. Settings by environment.

KW_BROKERS, KW_FOLDER (rows.jsonl is written there), KW_RUNNER faust|plain, KW_PREFIX (of topics and group),
KW_CORE counting|real|sources|lifecycle, KW_SETTINGS (JSON of further worker settings), KW_CLICKHOUSE (JSON of
`ClickHouse`: rows go there instead), KW_CLOCK_S (so many seconds are added to the process' wall clock), KW_USER (JSON
of what a secured listener asks for), KW_KAFKA (JSON of other settings of `Kafka`), KW_RELEASE (one of `tomorrow.py`).
KW_CONFIG is a whole configuration, in place of these: then the product's own parts run, with KW_SIDES_S between two
looks at the catalogue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import msgspec

from pipeline.column import Columns, plain
from pipeline.config.tree import ClickHouse, Config, Kafka, Lifecycle, Secret, Sources, Topics, Worker
from pipeline.control.topic import ControlsReader
from pipeline.core import Sides
from pipeline.runners import shell
from pipeline.runners.parts import Parts, production_parts
from pipeline.runners.topology import TOPOLOGIES, open_core_of, settings_of
from pipeline.warm import warm_up
from tests.kafka.cluster import PATIENCE
from tests.kafka.run_responder import config_from
from tests.pipeline.counting_core import SIDES, open_core


class JsonLinesSink:
    """Rows as lines of a file, each write acknowledged when it is on disk."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    async def write(self, table: str, rows: Columns) -> None:
        """One line per row: table and columns."""
        names = list(rows)
        columns = [plain(rows[name]) for name in names]
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


def parts(folder: Path, core: str) -> Parts:
    """The counting core and one file, or the real core, its catalogue of one key, and a file per table."""
    if os.environ.get("KW_CLICKHOUSE"):
        return clickhouse_parts(msgspec.json.decode(os.environ["KW_CLICKHOUSE"]))
    if core in TOPOLOGIES:
        return topology_parts(folder, core)
    if core == "counting":
        return Parts(open_core, lambda config: JsonLinesSink(folder / "rows.jsonl"), _sides, lambda: None)
    from pipeline import flow
    from pipeline.sinks.clickhouse import FileSink

    sides = SaidSides()
    return Parts(flow.open_core, lambda config: FileSink(folder / "rows"), sides.read, warm_up, sides.close)


def topology_parts(folder: Path, topology: str) -> Parts:
    """Another topology's core, and a file per table."""
    from pipeline.sinks.clickhouse import FileSink
    from tests.pipeline.log_of_requests import GEO, Declared

    async def sides(config: Config) -> Sides:
        return Sides(Declared(), GEO, "")

    return Parts(open_core_of(topology), lambda config: FileSink(folder / "rows"), sides, lambda: None)


def clickhouse_parts(settings: dict[str, Any]) -> Parts:
    """The real core and ClickHouse."""
    from pipeline import flow
    from pipeline.sinks.clickhouse import ClickHouseSink

    sides = SaidSides()
    sink = ClickHouse(**settings)
    return Parts(flow.open_core, lambda config: ClickHouseSink(sink), sides.read, warm_up, sides.close)


class SaidSides:
    """The catalogue of one key, and what was said on the control topic."""

    def __init__(self) -> None:
        self._reader: ControlsReader | None = None

    async def read(self, config: Config) -> Sides:
        """As of now."""
        from tests.pipeline.log_of_requests import GEO, catalogue

        if self._reader is None:
            self._reader = ControlsReader(config)
            controls = await self._reader.open()
        else:
            controls = await self._reader.refresh()
        return Sides(catalogue(), GEO, os.environ.get("KW_RELEASE") or "test", controls)

    async def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            await self._reader.close()


def shift_clock(seconds: float) -> None:
    """The wall clock of this process is wrong by so much."""
    right = time.time
    time.time = lambda: right() + seconds


def config_of(brokers: str, prefix: str, settings: dict[str, Any]) -> Config:
    """Short timeouts, any metrics port, topics and group with the test's prefix, as many replicas as brokers."""
    names = {field.name: f"{prefix}.{field.name}" for field in msgspec.structs.fields(Topics)}
    worker: dict[str, Any] = {"metrics_port": 0, "checkpoint_s": 0.3, "slice_events": 50, "stop_s": 10.0 * PATIENCE}
    kafka = Kafka(
        brokers=brokers, group=f"{prefix}.group", session_timeout_s=4.0, heartbeat_s=0.4, rebalance_timeout_s=6.0,
        partitions=4, replication=len(brokers.split(",")),
    )  # fmt: skip
    clickhouse = ClickHouse(insert_s=0.1)
    return Config(
        kafka=kafka, topics=Topics(**names), clickhouse=clickhouse, worker=Worker(**(worker | settings)),
        sources=Sources(metrics_port=0), lifecycle=Lifecycle(metrics_port=0),
    )  # fmt: skip


def as_user(config: Config, given: dict[str, Any]) -> Config:
    """The same with what a secured listener asks for: brokers, security, username, password, ca_file."""
    secret = Secret(given["password"])
    kafka = msgspec.structs.replace(config.kafka, **(given | {"password": secret, "declare_topics": False}))
    return msgspec.structs.replace(config, kafka=kafka)


def main() -> int:
    """Run until SIGTERM."""
    signal.signal(signal.SIGUSR1, _dump)
    logging.basicConfig(
        level=logging.INFO, stream=sys.__stderr__, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    shift_clock(float(os.environ.get("KW_CLOCK_S") or 0))
    signal.signal(signal.SIGUSR2, _step)
    if os.environ["KW_RUNNER"] == "plain":
        from pipeline.runners.plain import main as run
    else:
        from pipeline.runners.worker import main as run
    if whole := os.environ.get("KW_CONFIG"):
        shell.SIDES_S = float(os.environ["KW_SIDES_S"])  # type: ignore[misc]  # Final: a test has no ten seconds
        return run(config_from(whole), production_parts())
    config = config_of(os.environ["KW_BROKERS"], os.environ["KW_PREFIX"], json.loads(os.environ["KW_SETTINGS"]))
    if kafka := os.environ.get("KW_KAFKA"):
        changed = msgspec.structs.replace(config.kafka, **json.loads(kafka))
        config = msgspec.structs.replace(config, kafka=changed)
    if user := os.environ.get("KW_USER"):
        config = as_user(config, json.loads(user))
    if release := os.environ.get("KW_RELEASE"):
        from tests.kafka import tomorrow

        tomorrow.install(release)
    core = os.environ["KW_CORE"]
    config = settings_of(config, core if core in TOPOLOGIES else "keys")
    return run(config, parts(Path(os.environ["KW_FOLDER"]), core))


def _step(*_: object) -> None:
    """SIGUSR2: the clock steps by what the file `clock` says."""
    told = Path(os.environ["KW_FOLDER"]) / "clock"
    shift_clock(float(told.read_text()))
    told.unlink()


def _dump(*_: object) -> None:
    """SIGUSR1: every task's stack, for a run that hangs."""
    for thread in sys._current_frames().values():
        traceback.print_stack(thread, limit=12, file=sys.__stderr__)
    for task in asyncio.all_tasks():
        awaited: Any = task.get_coro()
        chain = []
        while awaited is not None and hasattr(awaited, "cr_frame") and awaited.cr_frame is not None:
            chain.append(f"{awaited.cr_code.co_qualname}:{awaited.cr_frame.f_lineno}")
            awaited = awaited.cr_await
        os.write(2, ("  " + " > ".join(chain) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
