"""`keywatch migrate`: bring ClickHouse's tables to `schemas/clickhouse/`, over HTTP or in chDB.

Files `NNN_name.sql` are applied in order, once each, and noted with their md5 in `schema_versions`. A file that was
applied and then edited is refused: a change is a new file. Statements are `IF NOT EXISTS`, so what failed half way goes
on. In a database of engine Replicated, which an administrator made before, each table is made replicated
(`replicas.py`); the files and their md5 are as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_migrations.connection import ClickhouseConnectConnection
from clickhouse_migrations.defaults import MIGRATIONS_TABLE
from clickhouse_migrations.exceptions import MigrationException
from clickhouse_migrations.migration import Migration, MigrationStorage
from clickhouse_migrations.migrator import Migrator

import schemas
from pipeline.config.tree import ClickHouse
from pipeline.errors import ConfigError, Retry
from pipeline.replicas import is_replicated, replicated
from pipeline.sinks.connect import PASSING_CODES, connect, display_name, error_code, first_line

FOLDER: Final = Path(schemas.__file__).parent / "clickhouse"


def migrate(config: ClickHouse, dry_run: bool = False, folder: Path = FOLDER) -> list[str]:
    """Apply what is missing; returns the files' names in order. With `dry_run` only says which, and makes nothing.

    Raises `Retry` where ClickHouse doesn't answer, `ConfigError` where it refuses (rights, edited migrations, SQL).
    """
    names = {int(path.name.split("_")[0]): path.name for path in folder.glob("*.sql")}
    try:
        applied = _apply(config, MigrationStorage(folder).migrations(), dry_run)
    except MigrationException as error:
        raise ConfigError(f"migrations of {config.database} on {display_name(config)}: {first_line(error)}") from error
    except ClickHouseError as error:
        raise _refused(config, error) from error
    return [names[migration.version] for migration in applied]


def _apply(config: ClickHouse, migrations: list[Migration], dry_run: bool) -> list[Migration]:
    client = connect(config, None)
    try:
        if dry_run and not _has_tables(client, config.database):
            return sorted(migrations)
        if not dry_run:
            client.command(f"CREATE DATABASE IF NOT EXISTS {_quote(config.database)}")
        client.database = config.database
        connection = _replicating(client, config) if is_replicated(client) else ClickhouseConnectConnection(client)
        applied = _apply_in_database(connection, migrations, dry_run)
        if not (config.expire or dry_run):
            _keep_for_ever(client)
        return applied
    finally:
        client.close()


class _Replicating(ClickhouseConnectConnection):  # type: ignore[misc]  # the library is not typed
    """Each table that a statement makes is replicated, the one of applied migrations too."""

    def command(self, statement: str, log_statement: str | None = None) -> None:
        """As the library's own."""
        super().command(replicated(statement), log_statement)


def _replicating(client: Client, config: ClickHouse) -> ClickhouseConnectConnection:
    """A server that is away gets the statement when it is back; one that is there and slow is an error in time."""
    client.set_client_setting("distributed_ddl_output_mode", "none_only_active")
    client.set_client_setting("distributed_ddl_task_timeout", max(1, int(config.timeout_s * 0.8)))
    return _Replicating(client)


def _apply_in_database(
    connection: ClickhouseConnectConnection, migrations: list[Migration], dry_run: bool
) -> list[Migration]:
    migrator = Migrator(connection, dryrun=dry_run, migration_log_format="compact")
    if dry_run:
        return list(migrator.migrations_to_apply(migrations))
    migrator.init_schema()
    pending = list(migrator.migrations_to_apply(migrations))
    migrator.apply_migration(migrations, True)
    return pending


def _keep_for_ever(client: Client) -> None:
    """Take the TTLs off: they count from the event's time, so rows of old logs would go as they come."""
    sql = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine_full LIKE '% TTL %'"
    for (table,) in client.query(sql).result_rows:
        client.command(f"ALTER TABLE {_quote(table)} REMOVE TTL")


def _has_tables(client: Client, database: str) -> bool:
    sql = "SELECT count() FROM system.tables WHERE database = {db:String} AND name = {name:String}"
    return bool(client.query(sql, parameters={"db": database, "name": MIGRATIONS_TABLE}).result_rows[0][0])


def _quote(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _refused(config: ClickHouse, error: ClickHouseError) -> Exception:
    text = f"{display_name(config)}, database {config.database}: {first_line(error)}"
    code = error_code(error)
    return ConfigError(text) if code and code not in PASSING_CODES else Retry(text)
