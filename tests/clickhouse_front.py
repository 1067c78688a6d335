"""ClickHouse for tests: the chDB front in a process of its own (one engine per process), a database per test.

Every test has these fixtures (tests/conftest.py): `front` is the address, shared by the session, `clickhouse` a
configuration with a fresh migrated database, `migrated` one that tests share. Tables have no TTL there: tests bring
events of any year. Importing them into a module would start an engine for that module, up to the session's end.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.tree import ClickHouse
from pipeline.migrate import migrate
from pipeline.sinks.connect import connect

START_S = 60.0
_number = itertools.count()


class FrontProcess:
    """One running front. `url` is its address."""

    def __init__(self, path: Path, *options: str, password: str = "") -> None:
        command = [sys.executable, "-m", "pipeline.sinks.chdb_front", "--path", str(path), *options]
        environment = {**os.environ, "KEYWATCH_FRONT_PASSWORD": password}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the front ended with {self.process.wait(START_S)}"
        self.url: str = json.loads(line)["url"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a front that all tests of the session share; it knows faults (POST /faults)."""
    process = FrontProcess(tmp_path_factory.mktemp("clickhouse"), "--faults")
    yield process.url
    process.stop()


@pytest.fixture(scope="session")
def migrated(front: str) -> ClickHouse:
    """A migrated database that the session shares: for tests that only look, or write under keys of their own."""
    config = ClickHouse(url=front, database="keywatch_shared", expire=False)
    migrate(config)
    return config


def _own(front: str) -> Iterator[ClickHouse]:
    config = ClickHouse(url=front, database=f"keywatch_{os.getpid()}_{next(_number)}", expire=False)
    migrate(config)
    yield config
    client = connect(config, None)
    client.command(f"DROP DATABASE {config.database}")
    client.close()


@pytest.fixture
def clickhouse(front: str) -> Iterator[ClickHouse]:
    """A configuration with a migrated database of the test's own, dropped afterwards."""
    yield from _own(front)


@pytest.fixture(scope="module")
def database(front: str) -> Iterator[ClickHouse]:
    """The same for a module, whose tests share what it fills in."""
    yield from _own(front)
