"""A hunt finds every key that an address, a network, a client or a route has touched, once, with what came of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from pipeline.asking.hunt import Quarry, hunt
from pipeline.asking.keys import print_hunt, quarry_of
from pipeline.config.tree import ClickHouse, Config
from pipeline.errors import ConfigError
from pipeline.privacy.truncate import truncate
from pipeline.sinks.connect import connect
from tests.pipeline.key_rows import DAY_US, HOUR_US, NOON_US, Use, daily, fill, hours

EVIL = "203.0.113.9"
STRANGER: dict[str, Any] = {"ip": EVIL, "asn": 64_666, "country": "RO", "client": "sqlmap"}
ASKED = {"ip": "", "asn": "", "client": "", "route": "", "from": "", "to": ""}
USES = [
    *daily("office", range(20)),
    *daily("batch", range(20), client="curl", route="/v1/files/{id}"),
    Use("office", NOON_US - 2 * DAY_US, route="/v1/admin", outcome="denied", times=4, **STRANGER),
    Use("office", NOON_US - 2 * DAY_US + HOUR_US, times=2, **STRANGER),
    Use("batch", NOON_US - DAY_US, ip="203.0.113.77", asn=64_666, country="RO", client="sqlmap", times=3),
    Use("old", NOON_US - 40 * DAY_US, **STRANGER),
    Use("six", NOON_US - DAY_US, ip="2001:db8:1:2::9", asn=64_777, client="okhttp"),
]


@pytest.fixture(scope="module")
def filled(database: ClickHouse) -> ClickHouse:
    fill(database, USES)
    fill(database, [], key_source_1h=hours(USES))  # again, as after a crash
    return database


@pytest.fixture(scope="module")
def client(filled: ClickHouse) -> Iterator[Client]:
    client = connect(filled, filled.database)
    yield client
    client.close()


def span(days: float = 100) -> dict[str, Any]:
    return {"from_us": NOON_US - round(days * DAY_US), "to_us": NOON_US + 1}


def test_a_network_gives_every_key_once_in_the_order_of_their_first_touch(client: Client) -> None:
    found = hunt(client, Quarry(asn=64_666, **span()))
    assert [(row.key_id, row.requests, row.succeeded, row.outcomes) for row in found] == [
        ("old", 1, 1, {"success": 1}),
        ("office", 6, 2, {"denied": 4, "success": 2}),
        ("batch", 3, 3, {"success": 3}),
    ]
    assert (found[1].first_us, found[1].last_us) == (NOON_US - 2 * DAY_US, NOON_US - 2 * DAY_US + HOUR_US + 1)
    assert (found[1].routes, found[1].bytes_out) == (2, 600)


def test_an_address_is_exact_and_its_network_is_told_apart(client: Client) -> None:
    found = {row.key_id: row.by for row in hunt(client, Quarry(ip=EVIL, **span()))}
    assert found == {"old": "address", "office": "address", "batch": "network"}


def test_an_address_of_version_six_is_found_by_itself_and_by_its_forty_eight(client: Client) -> None:
    assert [(row.key_id, row.by) for row in hunt(client, Quarry(ip="2001:db8:1:2::9", **span()))] == [
        ("six", "address")
    ]
    assert [(row.key_id, row.by) for row in hunt(client, Quarry(ip="2001:db8:1:ff::1", **span()))] == [
        ("six", "network")
    ]


def test_all_that_is_asked_for_must_fit_and_a_star_stands_for_any_end(client: Client) -> None:
    assert [row.key_id for row in hunt(client, Quarry(client="sqlmap", route="/v1/admin", **span()))] == ["office"]
    assert [row.key_id for row in hunt(client, Quarry(route="/v1/fil*", **span()))] == ["batch"]
    assert hunt(client, Quarry(client="sql", **span())) == []
    assert {row.key_id for row in hunt(client, Quarry(client="sql*", **span()))} == {"old", "office", "batch"}


def test_what_lies_outside_of_the_span_is_not_found(client: Client) -> None:
    assert [row.key_id for row in hunt(client, Quarry(asn=64_666, **span(1.5)))] == ["batch"]
    until = Quarry(asn=64_666, from_us=0, to_us=NOON_US - 2 * DAY_US)
    assert [row.key_id for row in hunt(client, until)] == ["old"]


def test_no_text_is_sql(client: Client) -> None:
    for text in ("' OR 1=1 --", "\\", "{asn:UInt32}", "%s", "*"):
        assert hunt(client, Quarry(client=text + "x", **span())) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [({}, "say what to hunt"), ({"ip": "300.1.1.1"}, "is no address"), ({"asn": "ASX"}, "give a number"),
     ({"asn": "1", "from": "2030-01-01"}, "must lie before"), ({"asn": "1", "from": "soon"}, "is no time")],
)  # fmt: skip
def test_what_can_not_be_hunted_is_said(client: Client, words: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        hunt(client, quarry_of(ASKED | words, NOON_US))


def test_the_command_prints_table_json_and_csv(filled: ClickHouse, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    config, asked = Config(clickhouse=filled), ASKED | {"asn": "as64666", "from": "100d"}
    assert print_hunt(config, asked, "table") == 0
    shown = capsysbinary.readouterr().out.decode()
    assert "3 keys touched" in shown and "denied 4 success 2" in shown
    assert print_hunt(config, asked, "json") == 0
    assert [row["key_id"] for row in json.loads(capsysbinary.readouterr().out)] == ["old", "office", "batch"]
    assert print_hunt(config, asked, "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode())))
    assert [row["outcomes"] for row in rows] == ["success=1", "denied=4 success=2", "success=3"]
    assert print_hunt(config, ASKED | {"asn": "64666"}, "table") == 0
    assert "2 keys touched" in capsysbinary.readouterr().out.decode()  # 14 days by default
    assert print_hunt(config, ASKED | {"ip": "192.0.2.200"}, "table") == 0
    assert "no key was touched" in capsysbinary.readouterr().out.decode()


def test_once_addresses_are_cut_the_same_keys_are_found_by_their_network(client: Client) -> None:
    truncate(client, 1)  # the last test of this file: what is cut stays so
    found = {row.key_id: row.by for row in hunt(client, Quarry(ip=EVIL, **span()))}
    assert found == {"old": "network", "office": "network", "batch": "network"}
