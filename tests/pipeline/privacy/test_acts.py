"""Erasing a key or an owner, cutting addresses, and the log of who looked: every table is spoken for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from pipeline.config.tree import ClickHouse, Config
from pipeline.control.controls import Controls, Said
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue
from pipeline.privacy import acts as privacy
from pipeline.privacy import erase, truncate
from pipeline.privacy.console_log import Line, console_lines
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.control import Control, Forget, control_id
from schemas.key import Key
from schemas.rows import COPIES, TABLES
from tests.deploy.filled import count_days
from tests.pipeline import said
from tests.row_examples import rows_of

LONG_AGO_US = 1_700_000_000_000_000


@pytest.fixture
def tables(database: ClickHouse) -> Iterator[ClickHouse]:
    """The module's, emptied afterwards: to make one for each test takes longer than the tests."""
    yield database
    client = connect(database, database.database)
    found = client.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND total_rows > 0")
    for (name,) in found.result_rows:
        client.command(f"TRUNCATE TABLE {name}" if name in TABLES else "SELECT 1")
    client.close()


@pytest.fixture
def client(tables: ClickHouse) -> Iterator[Client]:
    found = connect(tables, tables.database)
    yield found
    found.close()


def write(settings: ClickHouse, table: str, **columns: Sequence[Any]) -> None:
    async def _write() -> None:
        sink = ClickHouseSink(settings)
        await sink.write(table, rows_of(table, len(next(iter(columns.values()))), **columns))
        await sink.close()

    asyncio.run(_write())


def fill(settings: ClickHouse, *keys: str) -> None:
    """One row of each key in every table that names keys."""
    for table, columns in TABLES.items():
        if "key_id" in dict(columns):
            own = {name: list(keys) for name in ("finding_id", "incident_id", "leak_id", "control_id", "withheld_id")}
            named = {name: values for name, values in own.items() if name in dict(columns)}
            write(settings, table, key_id=list(keys), **named)
    client = connect(settings, settings.database)
    count_days(client)
    client.close()


def left(client: Client) -> dict[str, set[str]]:
    named = [*COPIES, *(table for table, columns in TABLES.items() if "key_id" in dict(columns))]
    return {table: {row[0] for row in client.query(f"SELECT key_id FROM {table}").result_rows} for table in named}


def test_every_table_is_erased_or_kept_by_name_with_a_reason() -> None:
    assert erase.ERASED.keys() | erase.KEPT.keys() == TABLES.keys() | set(COPIES)
    assert not erase.ERASED.keys() & erase.KEPT.keys()
    unnamed = {table for table, columns in TABLES.items() if "key_id" not in dict(columns)}
    assert unnamed <= erase.KEPT.keys()
    assert all(len(why) > 10 for why in erase.KEPT.values())


def test_every_table_with_an_address_is_cut_or_named_with_a_reason() -> None:
    assert truncate.CUT.keys() | truncate.WITHOUT.keys() == TABLES.keys() | set(COPIES)
    assert not truncate.CUT.keys() & truncate.WITHOUT.keys()
    with_address = {table for table, columns in TABLES.items() if "client_ip" in dict(columns)}
    assert with_address <= truncate.CUT.keys()


def test_all_rows_of_the_key_go_and_nobody_elses(tables: ClickHouse, client: Client) -> None:
    fill(tables, "k1", "k12", "other")
    assert list(erase.erase(client, ["k1"])) == list(erase.ERASED)
    for table, keys in left(client).items():
        assert keys == ({"k12", "other"} if table in erase.ERASED else {"k1", "k12", "other"}), table
    assert {each.rows for each in erase.count(client, ["k1"])} == {0}


def test_sums_that_are_being_made_of_what_was_there_are_waited_for(tables: ClickHouse, client: Client) -> None:
    client.command("CREATE TABLE slow (at DateTime) ENGINE = MergeTree ORDER BY at")
    client.command(
        "CREATE MATERIALIZED VIEW to_slow REFRESH EVERY 1 YEAR APPEND TO slow EMPTY AS"
        " SELECT now() AS at FROM numbers(1) WHERE NOT ignore(sleep(1.5))"
    )
    running = "SELECT status FROM system.view_refreshes WHERE view = 'to_slow' AND database = currentDatabase()"
    client.command("SYSTEM REFRESH VIEW to_slow")
    assert client.command(running) in ("Running", "Scheduling")
    done = [(table, client.command(running), client.command("SELECT count() FROM slow"))
            for table in erase.erase(client, ["k1"])]  # fmt: skip
    assert [table for table, _, _ in done] == list(erase.ERASED)
    after = {table: (status, rows) for table, status, rows in done}
    assert after["days"] == after["place_days"] == ("Scheduled", 1)
    client.command("DROP VIEW to_slow")
    client.command("DROP TABLE slow")


def test_incidents_of_many_keys_stay_and_name_the_key_no_more(tables: ClickHouse, client: Client) -> None:
    body = '{"keys":["k.1","k.12","kx1"],"text":"tried k.1, k.12"}'
    write(tables, "incidents", key_id=["source:a"], incident_id=["i"], body=[body], text=["tried k.1, k.12"])
    list(erase.erase(client, ["k.1"]))
    [(text, after)] = client.query("SELECT text, body FROM incidents").result_rows
    assert text == "tried (erased), k.12"
    assert after == '{"keys":["(erased)","k.12","kx1"],"text":"tried (erased), k.12"}'


def test_that_it_was_erased_is_kept_and_a_mute_of_the_owner_is_not(tables: ClickHouse, client: Client) -> None:
    write(
        tables, "controls", kind=["forget", "mute", "mute", "feedback"], key_id=["k1", "", "", "k1"],
        control_id=["a", "b", "c", "d"], seq=[1, 2, 3, 4],
        body=["{}", '{"owner":"acme"}', '{"owner":"else"}', '{"owner":"ann"}'],
    )  # fmt: skip
    write(tables, "applied", key_id=["k1", "k1"], verdict=["forget", "expected"], control_id=["a", "d"])
    list(erase.erase(client, ["k1"], "acme"))
    assert client.query("SELECT control_id FROM controls ORDER BY control_id").result_rows == [("a",), ("c",)]
    assert client.query("SELECT verdict FROM applied").result_rows == [("forget",)]


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[Control | str]:
    """What went to the control topic: controls, and the names of tombstones."""
    heard: list[Control | str] = []

    async def known(_: Config) -> Controls:
        old: tuple[Control, ...] = (
            said.mute(key_id="k1"),
            said.mute(owner="acme"),
            said.mute(key_id="k9"),
            said.planned(),
        )
        return Controls.of("e", [Said(number, each) for number, each in enumerate(old)], 4)

    async def say(_: Config, controls: list[Control]) -> list[int]:
        heard.extend(controls)
        return list(range(len(controls)))

    async def take_back(_: Config, names: Sequence[str]) -> None:
        heard.extend(names)

    async def catalogue(_: Config) -> Catalogue:
        return Catalogue.of(
            [Key(key_id="k1", owner="acme"), Key(key_id="k2", owner="acme"), Key(key_id="k9", owner="b")]
        )

    for name, instead in (
        ("read_controls", known),
        ("say", say),
        ("_take_back", take_back),
        ("read_catalogue", catalogue),
    ):
        monkeypatch.setattr(privacy, name, instead)
    return heard


def test_an_owners_keys_are_forgotten_erased_and_what_was_said_of_them_taken_back(
    tables: ClickHouse,
    client: Client,
    spoken: list[Control | str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(tables, "k1", "k2", "k9")
    write(tables, "incidents", key_id=["k3"], incident_id=["gone from the catalogue"], owner=["acme"])
    config = Config(clickhouse=tables)
    assert privacy.erase_all(config, privacy.Wish(owner="acme", reason="ticket 1", wait_s=0)) == 0
    words = [each for each in spoken if isinstance(each, Forget)]
    assert [(each.key_id, each.reason) for each in words] == [(key, "ticket 1") for key in ("k1", "k2", "k3")]
    mutes = {control_id(said.mute(key_id="k1")), control_id(said.mute(owner="acme"))}
    assert {each for each in spoken if isinstance(each, str)} == mutes
    assert left(client)["findings"] == {"k9"}
    told = capsys.readouterr().out
    assert "run" in told and "no worker has said" in told
    assert privacy.erase_all(config, privacy.Wish(key="k1", reason="again", wait_s=0, as_json=True)) == 0
    again = capsys.readouterr()
    assert json.loads(again.out)["keys"] == ["k1"] and "no worker has said" in again.err
    for name in (*erase.KEPT, "api.requests", "api.responses", "api.control"):
        assert name in told


def test_a_dry_run_says_the_same_and_does_nothing(
    tables: ClickHouse,
    client: Client,
    spoken: list[Control | str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(tables, "k1")
    before = left(client)
    assert privacy.erase_all(Config(clickhouse=tables), privacy.Wish(key="k1", dry_run=True)) == 0
    assert (left(client), spoken) == (before, [])
    assert "findings: 1 rows would be erased" in capsys.readouterr().out


def test_a_worker_that_forgot_it_is_waited_for(tables: ClickHouse, client: Client) -> None:
    at_us = LONG_AGO_US
    write(tables, "controls", kind=["forget"], key_id=["k1"], control_id=["forget/k1"], seq=[7], at=[at_us])
    assert erase.wait(client, ["k1"], at_us, 0) == {"k1"}, "adopted, and not yet carried out"
    write(tables, "applied", key_id=["k1"], verdict=["forget"], control_id=["forget/k1"], seq=[7])
    assert erase.wait(client, ["k1", "k2"], at_us, 0) == {"k2"}
    assert erase.wait(client, ["k1"], at_us + 1_000_000, 0) == {"k1"}, "that was an earlier time"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (privacy.Wish(), "name one KEY"),
        (privacy.Wish(key="k", owner="o", reason="r"), "name one KEY"),
        (privacy.Wish(key="k", reason=" "), "--reason is needed"),
        (privacy.Wish(owner="nobody", reason="r"), "no key of 'nobody'"),
    ],
)
def test_what_can_not_be_meant_is_refused(
    wish: privacy.Wish,
    words: str,
    tables: ClickHouse,
    spoken: list[Control | str],
) -> None:
    with pytest.raises(ConfigError, match=words):
        privacy.erase_all(Config(clickhouse=tables), wish)
    assert spoken == []


ADDRESSES = [
    ("198.51.100.77", "198.51.100.0"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
    ("2001:db8:1::6", "2001:db8:1::"),
]


@pytest.mark.parametrize("table", ["requests", "evidence", "keys_last_used"])
def test_addresses_in_columns_are_cut_once_they_are_old(table: str, tables: ClickHouse, client: Client) -> None:
    at = dict(TABLES[table]).keys() & {"ts", "last_used"}
    new_us = int(client.command("SELECT toUnixTimestamp64Micro(now64(6))"))  # type: ignore[arg-type]
    whole = [address for address, _ in ADDRESSES]
    ages = [LONG_AGO_US] * 3 + [new_us] * 3
    own: dict[str, Sequence[Any]] = {"offset": range(6)} if "offset" in dict(TABLES[table]) else {}
    write(tables, table, client_ip=whole * 2, key_id=[f"k{i}" for i in range(6)], **{at.pop(): ages}, **own)
    assert [(each.table, each.rows) for each in truncate.truncate(client, 30)] == [(table, 3)]
    rows = client.query(f"SELECT replaceOne(IPv6NumToString(client_ip), '::ffff:', '') FROM {table} ORDER BY key_id")
    assert [row[0] for row in rows.result_rows] == [cut for _, cut in ADDRESSES] + whole
    assert truncate.truncate(client, 30) == []


@pytest.mark.parametrize(
    ("table", "column", "at"), [(t, c, a) for t, (c, _, a) in truncate.CUT.items() if c != "client_ip"]
)
def test_addresses_within_json_are_cut_wherever_they_stand(
    table: str,
    column: str,
    at: str,
    tables: ClickHouse,
    client: Client,
) -> None:
    mapped, short = ("::ffff:192.0.2.9", "::ffff:192.0.2.0"), ("2001::7", "2001::")
    more = [*ADDRESSES, ("2001:db8::7", "2001:db8::"), short, mapped, ("", "")]
    before, after = (
        msgspec.json.encode({"n": [{"client_ip": pair[side], "text": "198.51.100.77"} for pair in more]}).decode()
        for side in (0, 1)
    )
    row: dict[str, list[Any]] = {column: [before], at: [LONG_AGO_US]}
    write(tables, table, **row)
    assert [(each.table, each.rows) for each in truncate.truncate(client, 30)] == [(table, 1)]
    assert client.query(f"SELECT {column} FROM {table}").result_rows == [(after,)]
    assert truncate.truncate(client, 30) == []


def test_nothing_is_cut_where_the_configuration_says_never(
    tables: ClickHouse,
    client: Client,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tables, "evidence", client_ip=["198.51.100.77"], ts=[LONG_AGO_US])
    never = msgspec.structs.replace(Config().privacy, truncate_addresses_days=0)
    assert privacy.truncate_addresses(Config(clickhouse=tables, privacy=never), -1, False) == 0
    assert "stay whole" in capsys.readouterr().out
    assert privacy.truncate_addresses(Config(clickhouse=tables), -1, True) == 0
    assert "evidence: 1 rows would be cut" in capsys.readouterr().out
    assert {each.table for each in truncate.count(client, 30) if each.rows} == {"evidence"}


def test_who_looked_at_a_key_is_found_by_person_and_by_page(
    tables: ClickHouse,
    client: Client,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(
        tables, "console_log", at=[LONG_AGO_US + i for i in range(3)], person=["ann", "bob", "ann"],
        path=["/keys/k1", "/keys/k1", "/policy"],
    )  # fmt: skip
    look: Callable[..., list[Line]] = lambda **about: console_lines(client, LONG_AGO_US, **about)  # noqa: E731
    assert [(each.person, each.path) for each in look(about="/keys/k1")] == [("bob", "/keys/k1"), ("ann", "/keys/k1")]
    assert [each.path for each in look(person="ann")] == ["/policy", "/keys/k1"]
    config = Config(clickhouse=tables)
    assert privacy.print_console_log(config, "2023-11-01T00:00:00Z", "bob", "", "table") == 0
    told = capsys.readouterr().out
    assert "bob" in told and "/keys/k1" in told and "ann" not in told
    assert privacy.print_console_log(config, "1d", "", "", "table") == 0
    assert "nothing" in capsys.readouterr().out
