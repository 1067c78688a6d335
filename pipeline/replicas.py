"""ClickHouse with replicas: a database of engine Replicated, whose tables copy what is written to any of its servers.

Such a database carries each statement that makes or changes a table to all its servers, and has one of them at a time
refresh the views that sum up days (with ON CLUSTER and an ordinary database each server would do that). What is left to
us is the tables' engines: in such a database, too, `ReplacingMergeTree` copies nothing, and says nothing of it.
ClickHouse Cloud (database engine Shared) puts its own engines in the place of these.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.queries import ask
from pipeline.errors import Retry
from pipeline.finding import Finding

LATE_S: Final = 60
"""A replica that lags so much is told of, and nothing is decided by it."""

_ENGINE: Final = re.compile(r"\bENGINE\s*=\s*(?=(?!Replicated|Shared)\w*MergeTree\b)", re.IGNORECASE)


def replicated(statement: str) -> str:
    """The same with a table's engine in its replicated form; where it keeps its copies is the database's to say."""
    return _ENGINE.sub(lambda found: f"{found[0]}Replicated", statement)


def is_replicated(client: Client) -> bool:
    """Whether the client's database is of engine Replicated. Raises ClickHouseError."""
    sql = "SELECT engine FROM system.databases WHERE name = currentDatabase()"
    return [row[0] for row in client.query(sql).result_rows] == ["Replicated"]


class Replicas(msgspec.Struct, frozen=True, kw_only=True):
    """A Replicated database as one of its servers sees it."""

    shards: int
    alone: list[str]  # tables that copy nothing
    tables: int  # that do
    replicas: int  # fewest of a table
    active: int  # likewise
    read_only: int  # tables that this server can't write, its Keeper is away
    late_s: int  # most of a table here


_REPLICAS: Final = """
    SELECT
        (SELECT toInt64(uniqExact(shard_num)) FROM system.clusters WHERE cluster = currentDatabase()) AS shards,
        (SELECT groupArray(name) FROM system.tables WHERE database = currentDatabase() AND endsWith(engine, 'MergeTree')
            AND NOT startsWith(engine, 'Replicated')) AS alone,
        toInt64(count()) AS tables, toInt64(min(total_replicas)) AS replicas, toInt64(min(active_replicas)) AS active,
        toInt64(countIf(is_readonly OR is_session_expired)) AS read_only, toInt64(max(absolute_delay)) AS late_s
    FROM system.replicas WHERE database = currentDatabase()"""


def replicas(client: Client) -> Replicas:
    """What this server says. Raises Retry or Fatal."""
    return ask(client, Replicas, _REPLICAS, {})[0]


def refuse_behind(client: Client) -> None:
    """For who decides by what was: what a lagging replica doesn't have yet looks as if it never was.

    The client's next question goes to the same server, if what stands before the servers keeps connections whole.
    Raises Retry or Fatal.
    """
    if not is_replicated(client):
        return
    seen = replicas(client)
    if seen.read_only or seen.late_s > LATE_S:
        raise Retry(f"this replica of ClickHouse is {seen.late_s} s behind, or without its Keeper: not asked")


def findings(database: str, seen: Replicas) -> list[Finding]:
    """What the doctor says of it: what loses rows or hides them fails, what passes by itself is a warning."""
    howto = "deploy/docs/howto/install-on-kubernetes.md"
    found = []
    if seen.alone:
        text = (
            f"{database} is Replicated and copies nothing of {', '.join(sorted(seen.alone))}: servers have other rows"
        )
        found.append(Finding("fail", "clickhouse", text, f"they were made by an earlier version: {howto}"))
    if seen.shards > 1:
        text = f"{database} has {seen.shards} shards: each answer is of one shard's rows"
        found.append(Finding("fail", "clickhouse", text, f"give all servers the same shard: {howto}"))
    if seen.read_only:
        text = f"{seen.read_only} tables of {database} are read-only on this server"
        found.append(Finding("fail", "clickhouse", text, "does it reach its Keeper? system.replicas says why"))
    if seen.active < seen.replicas:
        text = f"{seen.replicas - seen.active} of {seen.replicas} replicas of {database} are away"
        found.append(Finding("warn", "clickhouse", text, "what is written meanwhile is on fewer servers"))
    if seen.late_s > LATE_S:
        text = f"this replica of {database} is {seen.late_s} s behind: answers here are as old"
        found.append(Finding("warn", "clickhouse", text, "system.replication_queue says what it waits for"))
    return found or [
        Finding("ok", "clickhouse", f"{seen.tables} tables on {seen.replicas} replicas, {seen.late_s} s behind")
    ]
