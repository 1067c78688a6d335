"""A Replicated database: each table copies, nothing else of the migrations changes, the doctor tells what copies not.

No server with replicas can be had here. What is certain without one: ClickHouse's own parser (chDB) takes each
statement and sees in it the engine that was meant and no other change; ClickHouse gets as far as asking for its Keeper.
That replicas copy is not tested.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from clickhouse_migrations.connection import ClickhouseConnectConnection
from clickhouse_migrations.migrator import Migrator
from hypothesis import given
from hypothesis import strategies as st

from pipeline import migrate as migrating
from pipeline import replicas as asking
from pipeline.asking.queries import rewrite
from pipeline.config.tree import ClickHouse, Config
from pipeline.errors import Fatal, Retry
from pipeline.keys.catalogue import Catalogue
from pipeline.migrate import FOLDER, migrate
from pipeline.privacy.erase import erase
from pipeline.replicas import Replicas, findings, is_replicated, replicas, replicated
from pipeline.respond.fence import ClickHouseNetworks
from pipeline.respond.rotation.drain import ClickHouseRotations
from pipeline.sinks.clickhouse import settings_of
from pipeline.sinks.connect import connect, error_code
from schemas.rows import TABLES

NO_KEEPER, UNFINISHED, UNKNOWN_COLUMN = 225, 341, 47
MADE_OF_OTHERS: Final = {"hours", "places", "days", "place_days"}
"""What ClickHouse itself makes of other tables."""
PAGE: Final = Path(__file__).parents[2] / "deploy" / "docs" / "howto" / "install-on-kubernetes.md"
STATEMENTS: Final = [
    statement
    for path in sorted(FOLDER.glob("*.sql"))
    for statement in Migrator.script_to_statements(path.read_text(), True)
]


@pytest.fixture
def client(clickhouse: ClickHouse) -> Iterator[Client]:
    client = connect(clickhouse, clickhouse.database)
    yield client
    client.close()


def parsed(client: Client, statement: str) -> str:
    """As ClickHouse writes it after its parser. Raises ClickHouseError for what that refuses."""
    query = "SELECT formatQuerySingleLine({statement:String})"
    return str(client.query(query, parameters={"statement": statement}).result_rows[0][0])


def test_of_each_statement_the_engine_alone_changes_and_only_where_a_table_is_made(client: Client) -> None:
    tables = set()
    for statement in STATEMENTS:
        before, after = parsed(client, statement), parsed(client, replicated(statement))
        if found := re.match(r"CREATE TABLE IF NOT EXISTS (\w+) ", before):
            tables.add(found[1])
            assert after == re.sub(r"(?<= ENGINE = )(?=ReplacingMergeTree\b)", "Replicated", before) != before
        else:
            assert after == before
    assert tables == set(TABLES) | MADE_OF_OTHERS


ENGINES: Final = st.sampled_from(
    ["MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "CollapsingMergeTree"]
)


@given(
    engine=ENGINES, arguments=st.sampled_from(["", "()", "(v)", "(v, w)"]), space=st.sampled_from(["", " ", "\n  "]),
    word=st.sampled_from(["ENGINE", "engine", "Engine"]), after=st.text("abc ,;()=\n'", max_size=20),
)  # fmt: skip
def test_every_engine_of_the_family_is_replicated_once_with_what_it_was_given(
    engine: str, arguments: str, space: str, word: str, after: str
) -> None:
    made = f"CREATE TABLE t (engine String, v UInt8) {word}{space}={space}{engine}{arguments} ORDER BY v {after}"
    wanted = made.replace(f"={space}{engine}", f"={space}Replicated{engine}")
    assert replicated(made) == wanted
    assert replicated(wanted) == wanted, "what is replicated stays as it is"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (n UInt8) ENGINE = ReplicatedMergeTree ORDER BY n",
        "CREATE TABLE t (n UInt8) ENGINE = SharedReplacingMergeTree ORDER BY n",
        "CREATE TABLE t (n UInt8) ENGINE = Memory", "CREATE TABLE t (n UInt8) ENGINE = Null",
        "CREATE VIEW v AS SELECT * FROM t WHERE engine = name", "INSERT INTO t SELECT 'MergeTree'",
        "ALTER TABLE t ADD COLUMN engine String DEFAULT 'MergeTree'", "OPTIMIZE TABLE schema_versions FINAL",
    ],
)  # fmt: skip
def test_what_makes_no_table_of_the_family_stays_as_it_is(statement: str) -> None:
    assert replicated(statement) == statement


def test_clickhouse_takes_every_table_up_to_the_keeper_that_it_has_not(client: Client) -> None:
    """Where copies are kept is said here, which in a Replicated database is the database's to say."""
    tried = 0
    for statement in STATEMENTS:
        if "CREATE TABLE" in statement:
            made = replicated(statement).replace("IF NOT EXISTS ", "copied_")
            made = re.sub(r"(ReplicatedReplacingMergeTree)\(?", r"\1('/copied/{table}', 'a', ", made, count=1)
            made = made.replace("'a', \n", "'a')\n")
            with pytest.raises(ClickHouseError) as refused:
                client.command(made)
            assert error_code(refused.value) == NO_KEEPER, (made, refused.value)
            tried += 1
    assert tried == len(TABLES) + len(MADE_OF_OTHERS)


def test_migrate_in_a_replicated_database_makes_replicated_tables_and_waits_for_no_server_that_is_away(
    front: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only says that it is; what is sent is noted, and done without replicas, of which chDB has none."""
    config = ClickHouse(url=front, database="says_it_is_replicated", timeout_s=20.0)
    sent: list[str] = []
    clients: list[Client] = []

    def say(client: Client) -> bool:
        clients.append(client)
        return True

    def note(self: Any, statement: str, log_statement: str | None = None) -> None:
        sent.append(statement)
        self._client.command(statement.replace("ReplicatedReplacing", "Replacing").replace("ReplicatedMerge", "Merge"))

    monkeypatch.setattr(migrating, "is_replicated", say)
    monkeypatch.setattr(ClickhouseConnectConnection, "command", note)
    assert migrate(config) == sorted(path.name for path in FOLDER.glob("*.sql"))
    assert clients[0].get_client_setting("distributed_ddl_output_mode") == "none_only_active"
    assert clients[0].get_client_setting("distributed_ddl_task_timeout") == "16"
    tables = [each for each in sent if "CREATE TABLE" in each]
    assert len(tables) == len(TABLES) + len(MADE_OF_OTHERS) + 1, "that of applied migrations, too"
    assert all(re.search(r"ENGINE = Replicated(Replacing)?MergeTree\b", each) for each in tables)
    assert migrate(config) == [], "they are the same files to it"
    monkeypatch.undo()
    assert migrate(config) == []


def test_an_ordinary_database_is_not_replicated_and_its_replicas_can_be_asked_for_all_the_same(client: Client) -> None:
    assert not is_replicated(client)
    seen = replicas(client)
    assert (seen.shards, seen.tables, seen.read_only) == (0, 0, 0)
    assert set(TABLES) < set(seen.alone)


WELL: Final = Replicas(shards=1, alone=[], tables=20, replicas=3, active=3, read_only=0, late_s=1)


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({}, "ok", "20 tables on 3 replicas, 1 s behind"),
        ({"alone": ["requests", "keys"]}, "fail", "copies nothing of keys, requests"),
        ({"shards": 2}, "fail", "has 2 shards: each answer is of one shard's rows"),
        ({"read_only": 4}, "fail", "4 tables of keywatch are read-only on this server"),
        ({"active": 2}, "warn", "1 of 3 replicas of keywatch are away"),
        ({"late_s": 61}, "warn", "61 s behind"),
    ],
)
def test_doctor_tells_what_loses_rows_or_hides_them(change: dict[str, Any], state: str, words: str) -> None:
    [found] = findings("keywatch", msgspec.structs.replace(WELL, **change))
    assert found.state == state
    assert words in found.text
    assert bool(found.advice) == (state != "ok")


@pytest.mark.parametrize("change", [{"late_s": 61}, {"read_only": 1}])
def test_nothing_is_decided_by_a_replica_that_is_behind(
    clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """A replica that is new has little of the past: a fence would leave the owner's networks out."""
    fence, rotations = ClickHouseNetworks(clickhouse), ClickHouseRotations(Config(clickhouse=clickhouse))
    assert asyncio.run(fence.usual("k", 1)) == ((), "")
    rotations.look(Catalogue.of(()), ())
    monkeypatch.setattr(asking, "is_replicated", lambda client: True)
    monkeypatch.setattr(asking, "replicas", lambda client: WELL)
    assert asyncio.run(fence.usual("k", 1)) == ((), "")
    rotations.look(Catalogue.of(()), ())
    monkeypatch.setattr(asking, "replicas", lambda client: msgspec.structs.replace(WELL, **change))
    assert asyncio.run(fence.usual("k", 1)) == ((), "ClickHouse cannot say where the key was used from (Retry)")
    with pytest.raises(Retry, match="this replica of ClickHouse is"):
        rotations.look(Catalogue.of(()), ())


class Answering:
    """A client whose server refuses with this code."""

    def __init__(self, code: int) -> None:
        self.code = code

    def command(self, statement: str, parameters: dict[str, Any]) -> None:
        """Refused."""
        error = DatabaseError(f"Code: {self.code}. some replicas are inactive right now: b")
        error.code = self.code
        raise error


@pytest.mark.parametrize(("code", "kind"), [(UNFINISHED, Retry), (NO_KEEPER, Retry), (UNKNOWN_COLUMN, Fatal)])
def test_a_rewrite_that_a_replica_that_is_away_has_to_do_is_to_be_run_again(code: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="inactive right now: b"):
        list(erase(cast("Client", Answering(code)), ["k"]))
    with pytest.raises(kind, match="inactive right now: b"):
        rewrite(cast("Client", Answering(code)), "ALTER TABLE requests DELETE WHERE 1", {})


def test_an_insert_asks_that_nothing_is_taken_for_a_repeat_of_an_earlier_one(client: Client) -> None:
    asked = settings_of(client)
    assert (asked["insert_deduplicate"], asked["deduplicate_insert"]) == (0, "disable")
    known = dict(client.server_settings)
    del client.server_settings["deduplicate_insert"]  # of an older server, which refuses what it doesn't know
    client.server_settings["insert_deduplicate"] = known["insert_deduplicate"]._replace(readonly=1)
    assert settings_of(client).keys() == asked.keys() - {"deduplicate_insert", "insert_deduplicate"}


def test_clickhouse_s_parser_takes_the_database_of_the_page(client: Client) -> None:
    [statement] = re.findall(r"^(CREATE DATABASE .*);$", PAGE.read_text(), re.MULTILINE)
    assert "ENGINE = Replicated('/clickhouse/databases/keywatch', '{shard}'" in parsed(client, statement)
