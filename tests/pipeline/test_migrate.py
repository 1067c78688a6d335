"""Migrations apply once, in order, over HTTP and embedded, and say clearly why they can't."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.tree import ClickHouse, Secret
from pipeline.errors import ConfigError, Retry
from pipeline.migrate import FOLDER, migrate
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from tests.clickhouse_front import FrontProcess
from tests.row_examples import rows_of

NAMES = sorted(path.name for path in FOLDER.glob("*.sql"))


@pytest.fixture
def config(front: str, request: pytest.FixtureRequest) -> Iterator[ClickHouse]:
    config = ClickHouse(url=front, database=f"migrated_{abs(hash(request.node.name))}")
    yield config
    client = connect(config, None)
    client.command(f"DROP DATABASE IF EXISTS {config.database}")
    client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Migrations of our own: two, one table each."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "001_a.sql").write_text("CREATE TABLE a (n UInt8) ENGINE = MergeTree ORDER BY n;")
    (folder / "002_b.sql").write_text("CREATE TABLE b (n UInt8) ENGINE = MergeTree ORDER BY n;")
    return folder


def _tables(config: ClickHouse) -> set[str]:
    client = connect(config, None)
    sql = "SELECT name FROM system.tables WHERE database = {d:String}"
    names = {str(row[0]) for row in client.query(sql, parameters={"d": config.database}).result_rows}
    client.close()
    return names


def test_all_are_applied_once_in_order(config: ClickHouse) -> None:
    assert migrate(config, dry_run=True) == NAMES
    assert _tables(config) == set()
    assert migrate(config) == NAMES
    assert migrate(config) == []
    assert migrate(config, dry_run=True) == []


def test_only_what_is_missing_is_applied(config: ClickHouse, folder: Path) -> None:
    second = folder / "002_b.sql"
    text = second.read_text()
    second.unlink()
    assert migrate(config, folder=folder) == ["001_a.sql"]
    second.write_text(text)
    assert migrate(config, dry_run=True, folder=folder) == ["002_b.sql"]
    assert migrate(config, folder=folder) == ["002_b.sql"]


def test_an_edited_migration_is_refused(config: ClickHouse, folder: Path) -> None:
    migrate(config, folder=folder)
    (folder / "001_a.sql").write_text("SELECT 1;")
    with pytest.raises(ConfigError, match="md5"):
        migrate(config, folder=folder)


def test_a_statement_that_clickhouse_refuses_is_named_and_mending_it_goes_on(config: ClickHouse, folder: Path) -> None:
    good = (folder / "002_b.sql").read_text()
    (folder / "002_b.sql").write_text("CREATE TABLE b (n Nonsense) ENGINE = MergeTree ORDER BY n;")
    with pytest.raises(ConfigError, match="Nonsense"):
        migrate(config, folder=folder)
    (folder / "002_b.sql").write_text(good)
    assert migrate(config, folder=folder) == ["002_b.sql"]


def test_retention_is_on_unless_it_was_taken_off(config: ClickHouse) -> None:
    migrate(config)
    client = connect(config, None)
    sql = "SELECT countIf(engine_full LIKE '% TTL %') FROM system.tables WHERE database = {d:String}"
    before = client.query(sql, parameters={"d": config.database}).result_rows[0][0]
    migrate(ClickHouse(url=config.url, database=config.database, expire=False))
    after = client.query(sql, parameters={"d": config.database}).result_rows[0][0]
    client.close()
    assert (before, after) == (15, 0)


def test_nobody_there_is_retry_and_names_the_address(tmp_path: Path) -> None:
    process = FrontProcess(tmp_path)
    process.stop()
    with pytest.raises(Retry, match=process.url):
        migrate(ClickHouse(url=process.url))


def test_a_wrong_password_is_a_configuration_error(tmp_path: Path) -> None:
    process = FrontProcess(tmp_path, password="right")
    try:
        with pytest.raises(ConfigError, match="refuses user 'default'"):
            migrate(ClickHouse(url=process.url, password=Secret("wrong")))
    finally:
        process.stop()


def test_a_database_embedded_in_the_process_is_migrated_and_written_alike(tmp_path: Path) -> None:
    # In a process of its own: chDB keeps one folder for the life of a process.
    script = """
import asyncio, sys
from pipeline.config.tree import ClickHouse
from pipeline.migrate import migrate
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from tests.row_examples import rows_of
config = ClickHouse(url="chdb://" + sys.argv[1], expire=False)
async def write():
    sink = ClickHouseSink(config)
    await sink.write("requests", rows_of("requests", 20_000, offset=list(range(20_000))))
    await sink.close()
applied = len(migrate(config)), len(migrate(config))
asyncio.run(write())
client = connect(config, config.database)
print(*applied, client.command("SELECT count() FROM v_requests"))
client.close()
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=root)
    shutil.rmtree(tmp_path / "db", ignore_errors=True)
    assert done.stdout.split() == [str(len(NAMES)), "0", "20000"], done.stderr


async def test_what_refused_requests_made_of_a_keys_last_use_is_put_right(config: ClickHouse, tmp_path: Path) -> None:
    """Of unused keys no later row would; an audit reads them."""
    before = tmp_path / "before"
    before.mkdir()
    for path in FOLDER.glob("*.sql"):
        if path.name < "014":
            shutil.copy(path, before)
    migrate(config, folder=before)
    day, now = 86_400, 1_780_000_000 // 3_600 * 3_600
    keys = ["unused", "refused", "used", "older"]
    last = [now, now, now, now - 300 * day]
    sink = ClickHouseSink(config)
    await sink.write("keys_last_used", rows_of(
        "keys_last_used", 4, key_id=keys, last_used=[at * 10**6 for at in last], client_ip=["9.9.9.9"] * 4,
        first_used=[(now - 200 * day) * 10**6] * 3 + [(now - 900 * day) * 10**6], asn=[7] * 4,
        version=[at * 10**6 << 12 for at in last],
    ))  # fmt: skip
    uses = [("unused", now - 100 * day, "success"), ("unused", now, "invalid"), ("refused", now - 200 * day, "expired"),
            ("used", now - 60, "denied"), ("used", now, "invalid"), ("unused", now - 250 * day, "invalid")]  # fmt: skip
    await sink.write("key_source_1h", rows_of(
        "key_source_1h", len(uses), key_id=[key for key, _, _ in uses], outcome=[outcome for _, _, outcome in uses],
        window_start=[at // 3_600 * 3_600 for _, at, _ in uses], first_ts=[at * 10**6 for _, at, _ in uses],
        last_ts=[at * 10**6 for _, at, _ in uses], asn=[5] * len(uses), part=[str(n) for n in range(len(uses))],
    ))  # fmt: skip
    await sink.close()
    assert migrate(config) == [name for name in NAMES if name >= "014"]
    client = connect(config, config.database)
    columns = "key_id, toUnixTimestamp(last_used), toUnixTimestamp(first_used), asn"
    found = client.query(f"SELECT {columns} FROM v_keys_last_used ORDER BY key_id").result_rows
    client.close()
    own = now - 100 * day
    assert found == [
        ("older", now - 300 * day, now - 900 * day, 7),
        ("refused", now, now - 200 * day, 7),
        ("unused", own, own, 5),
        ("used", now, now - 200 * day, 7),
    ]
