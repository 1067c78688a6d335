"""ClickHouse as if elsewhere: rows are acknowledged and nowhere, all else is answered by the real one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.config.tree import ClickHouse
from pipeline.migrate import migrate
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.rows import TABLES


@pytest.fixture
def elsewhere(front: str) -> Iterator[str]:
    command = [sys.executable, "-m", "pipeline.bench.elsewhere", front]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


async def test_rows_are_acknowledged_and_only_the_rest_reaches_the_real_one(front: str, elsewhere: str) -> None:
    migrate(ClickHouse(url=front))
    sink, direct = ClickHouseSink(ClickHouse(url=elsewhere)), ClickHouseSink(ClickHouse(url=front))
    rows = {name: [_value(kind)] for name, kind in TABLES["adoptions"]}
    for each, expected in ((sink, 0), (direct, 1)):
        assert await each.ping()
        await each.write("adoptions", rows)
        await each.close()
        client = connect(ClickHouse(url=elsewhere), "keywatch")
        assert client.query("SELECT count() FROM adoptions").result_rows == [(expected,)]
        client.close()


def _value(kind: str) -> object:
    return "" if "String" in kind else 0
