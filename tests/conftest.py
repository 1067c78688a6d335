"""What every test has: a ClickHouse and a broker. What every run tells: the seed of the random tests."""

from __future__ import annotations

from tests.clickhouse_front import clickhouse, database, front, migrated  # noqa: F401
from tests.embedded_broker import embedded_broker  # noqa: F401
from tests.seeds import SEED


def pytest_report_header() -> str:
    """One line."""
    return f"KEYWATCH_SEED={SEED}"
