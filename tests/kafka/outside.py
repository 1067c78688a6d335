"""A ClickHouse of the test's own that can be stopped, frozen and spoiled, and comes back at the same address."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.config.tree import ClickHouse
from pipeline.core import Rows
from pipeline.migrate import migrate
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.rows import TABLES
from tests.clickhouse_front import FrontProcess
from tests.kafka.cluster import PATIENCE, free_port
from tests.kafka.deployment import Deployment

AWAY_S: Final = float(os.environ.get("KEYWATCH_AWAY_S", "8"))
WORKERS: Final = sorted(TABLES.keys() - {"responses", "adoptions", "leaks", "keys"})
"""The tables that follow from the log; `responses` copies its topic, `adoptions` begins the truth, others are apart."""


class Outside:
    """Two databases of one server: `config` is what the product writes to, `clean` takes the truth's rows."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.start()
        self.config = ClickHouse(url=self.process.url, database="found", expire=False, timeout_s=2.0, insert_s=0.1)
        self.clean = msgspec.structs.replace(self.config, database="clean", timeout_s=60.0 * PATIENCE)
        migrate(msgspec.structs.replace(self.config, timeout_s=60.0 * PATIENCE))  # nothing is put to the test yet
        migrate(self.clean)

    def start(self) -> None:
        """Start it again."""
        self.process = FrontProcess(self._folder, "--faults", "--port", str(self._port))

    def serve(self, deployment: Deployment) -> None:
        """Workers that it starts from now on have the real core, and write here."""
        deployment.core = "real"
        found = {name: getattr(self.config, name) for name in ("url", "database", "timeout_s")}
        deployment.environment["KW_CLICKHOUSE"] = json.dumps(found)

    def stop(self) -> None:
        """kill -9."""
        self.process.stop(signal.SIGKILL)

    def freeze(self, frozen: bool) -> None:
        """It takes connections and answers nothing, or answers again."""
        os.kill(self.process.process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def spoil(self, faults: list[str]) -> None:
        """The next inserts fail so."""
        request = urllib.request.Request(f"{self.process.url}/faults", data=json.dumps(faults).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def empty(self) -> None:
        """All tables of both databases; first started again where a test left it stopped."""
        if self.process.process.poll() is not None:
            self.start()
        client = connect(self.config, None)
        for database in ("found", "clean"):
            for name in TABLES:
                client.command(f"TRUNCATE TABLE {database}.{name}")
        client.close()

    def write_clean(self, rows: Rows, config: ClickHouse | None = None) -> None:
        """The truth's rows, by the product's own sink; `config`: into another database."""

        async def write() -> None:
            sink = ClickHouseSink(config or self.clean)
            for table, columns in rows.items():
                await sink.write(table, columns)
            await sink.close()

        asyncio.run(write())

    def digest(self, config: ClickHouse, name: str) -> list[Any]:
        """How many rows a table has FINAL, and a sum over all that stands in them: also of many rows."""
        return self.query(f"SELECT count(), sum(cityHash64(toString(tuple(*)))) FROM {name} FINAL", config)

    def table(self, config: ClickHouse, name: str) -> list[Any]:
        """One table FINAL."""
        return self.query(f"SELECT * FROM {name} FINAL ORDER BY ALL", config)

    def query(self, sql: str, config: ClickHouse | None = None) -> list[Any]:
        """Rows; by default of what the product wrote."""
        asked = config or self.config
        client = connect(msgspec.structs.replace(asked, timeout_s=60.0), asked.database)
        try:
            return list(client.query(sql).result_rows)
        finally:
            client.close()
