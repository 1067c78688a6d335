"""What every test has: a ClickHouse, a broker, a log as nobody has set it up. What every run tells: the random seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.clickhouse_front import clickhouse, database, front, migrated  # noqa: F401
from tests.embedded_broker import embedded_broker  # noqa: F401
from tests.seeds import SEED

settings.register_profile("keywatch", deadline=None)  # a busy machine is no failure
settings.load_profile("keywatch")


def pytest_report_header() -> str:
    """One line."""
    return f"KEYWATCH_SEED={SEED}"


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command that a test calls sets the log up for its process, which would be the next test's too."""
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    level = root.level
    yield
    root.setLevel(level)
    logging.setLogRecordFactory(factory)
