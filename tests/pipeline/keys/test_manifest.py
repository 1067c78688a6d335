"""A key's manifest admits what its holder did, leaves the thief out, and says what it could not see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from pipeline.asking import keys as asking_keys
from pipeline.asking.keys import print_manifest
from pipeline.config.tree import ClickHouse, Config
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.manifest import Manifest, manifest, rates
from pipeline.keys.manifest_policies import aws, kong, rendered, shortcomings
from pipeline.sinks.connect import connect
from schemas.key import Key
from tests.pipeline.key_rows import DAY_US, HOUR_US, MINUTE_US, NOON_US, Use, daily, fill
from tests.row_examples import rows_of

KEY = Key(key_id="office", owner="acme")
THIEF_US = NOON_US - 3 * DAY_US + 5 * HOUR_US
USES = [
    *daily("office", range(20), times=10),
    *daily("office", range(20), hour=1, times=30, method="POST", route="/v1/reports", client="okhttp"),
    *daily("office", range(0, 20, 7), ip="192.0.2.7", asn=64_502, country="FR", times=2),
    Use("office", NOON_US - 6 * DAY_US, ip="100.64.9.9", asn=64_503, country="NL", client="curl"),  # once: left out
    Use("office", NOON_US - DAY_US, ip="203.0.113.9", asn=64_666, country="RO", outcome="invalid", times=500),
    Use("office", THIEF_US, ip="203.0.113.9", asn=64_666, country="RO", client="sqlmap", route="/v1/admin", times=400),
    *[Use("office", NOON_US - DAY_US + 2 * MINUTE_US + n, times=60) for n in range(2)],
]


def incident(key_id: str, at_us: int) -> dict[str, list[object]]:
    return rows_of(
        "incidents", 1, incident_id=["ab" * 16], key_id=[key_id], rule=["visit"], opened_at=[at_us],
        last_at=[at_us + HOUR_US], detectors=[[]], body=["{}"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def filled(database: ClickHouse) -> ClickHouse:
    fill(database, USES, incidents=incident("office", THIEF_US - 60 * MINUTE_US))
    return database


@pytest.fixture(scope="module")
def client(filled: ClickHouse) -> Iterator[Client]:
    client = connect(filled, filled.database)
    yield client
    client.close()


@pytest.fixture(scope="module")
def found(client: Client) -> Manifest:
    return manifest(client, "office", KEY)


def test_what_the_holder_did_is_allowed(found: Manifest) -> None:
    assert found.networks == ["198.51.100.0/24", "192.0.2.0/24"]
    assert found.countries == ["DE", "FR"]
    assert found.clients == ["okhttp", "python-requests"]
    assert found.routes == ["/v1/reports", "/v1/orders"]
    assert (found.methods, found.hours_utc) == (["GET", "POST"], [12, 13])
    assert (found.used_days, found.weekdays) == (20, [0, 1, 2, 3, 4, 5, 6])
    assert found.requests == 20 * 40 + 3 * 2 + 1 + 120


def test_the_thiefs_hours_and_what_was_refused_are_no_part_of_it(found: Manifest) -> None:
    text = json.dumps(msgspec.to_builtins(found))
    assert "203.0.113" not in text and "sqlmap" not in text and "/v1/admin" not in text


def test_a_thief_who_goes_on_after_the_incidents_last_message_is_left_out_too(
    filled: ClickHouse, client: Client
) -> None:
    later = THIEF_US + 4 * HOUR_US
    evidence = rows_of("evidence", 1, incident_id=["ef" * 16], key_id=["robbed"], ts=[later])
    uses = [*daily("robbed", range(5)), Use("robbed", later, ip="203.0.113.9", times=9)]
    fill(filled, uses, incidents=incident("robbed", THIEF_US) | {"incident_id": ["ef" * 16]})
    assert "203.0.113.0/24" in manifest(client, "robbed", None).networks  # nothing says that it was still the thief
    fill(filled, [], evidence=evidence)
    assert manifest(client, "robbed", None).networks == ["198.51.100.0/24"]


def test_what_was_there_once_is_left_out_and_said(found: Manifest) -> None:
    assert {(row.dimension, row.value) for row in found.left_out} == {
        ("network", "100.64.9.0/24"), ("country", "NL"), ("client", "curl"),
    }  # fmt: skip


def test_limits_are_the_busiest_minute_and_hour_with_head_room(found: Manifest) -> None:
    assert (found.rates.busiest_minute, found.rates.per_minute) == (120, 240)  # a flood that was refused is none of it
    assert (found.rates.busiest_hour, found.rates.per_hour) == (130, 260)
    assert rates(10, 100, 400, 1.5) == rates(10, 100, 400, 1.5)
    assert (rates(10, 100, 400, 1.5).per_minute, rates(10, 100, 400, 1.5).per_day) == (15, 600)
    assert rates(0, 120, 120, 2.0).per_minute == 4  # no minutes are kept: the hour's sixtieth


def test_an_incident_that_was_expected_is_the_keys_own_way(filled: ClickHouse, client: Client) -> None:
    fill(filled, [*daily("moved", range(5)), Use("moved", THIEF_US, ip="203.0.113.9", times=9)],
         incidents=incident("moved", THIEF_US) | {"incident_id": ["cd" * 16]})  # fmt: skip
    assert "203.0.113.0/24" not in manifest(client, "moved", None).networks
    said = rows_of("controls", 1, kind=["feedback"], incident_id=["cd" * 16], verdict=["expected"], until=[None])
    fill(filled, [], controls=said)
    assert "203.0.113.0/24" in manifest(client, "moved", None).networks


def test_what_could_not_be_seen_is_said(client: Client, filled: ClickHouse) -> None:
    fill(filled, [*daily("blind", range(3), ip="", asn=0, country="", client="", route="", method="")])
    words = " / ".join(manifest(client, "blind", None).not_seen)
    for part in ("no network in 100%", "no client in 100%", "only 3 days", "no methods", "bursts within a minute"):
        assert part in words
    with pytest.raises(ConfigError, match="was not used in the 30 days"):
        manifest(client, "nobody", None)


def test_the_neutral_policy_says_what_it_rests_on(found: Manifest) -> None:
    policy = rendered(found, "json")
    assert policy["allow"]["networks"] == found.networks
    assert policy["rests_on"]["looked_days"] == 30 and policy["rests_on"]["used_days"] == 20
    first = datetime.fromisoformat(policy["rests_on"]["from"])
    assert first == datetime.fromtimestamp((NOON_US - 19 * DAY_US) / 1e6, UTC)


def test_kongs_file_binds_the_consumer_and_says_who_shares_it(found: Manifest) -> None:
    plugins = kong(found)["plugins"]
    assert [(each["name"], each["consumer"]) for each in plugins] == [
        ("ip-restriction", "acme"),
        ("rate-limiting", "acme"),
    ]
    assert plugins[0]["config"] == {"allow": found.networks}
    assert plugins[1]["config"]["minute"] == 240 and plugins[1]["config"]["minute"] <= plugins[1]["config"]["hour"]
    assert "3 other keys of consumer acme" in " ".join(shortcomings(found, "kong", 3))
    with pytest.raises(ConfigError, match="no declared owner"):
        kong(msgspec.structs.replace(found, owner=""))


def test_a_usage_plan_of_aws_is_within_its_limits(found: Manifest) -> None:
    plan = aws(found)
    assert plan["throttle"] == {"burstLimit": 240, "rateLimit": 4.0}
    assert plan["quota"]["period"] == "DAY" and plan["quota"]["limit"] == found.rates.per_day
    wild = msgspec.structs.replace(found, rates=rates(90_000, 90_000, 90_000, 2))
    assert aws(wild)["throttle"]["burstLimit"] == 5000
    assert "198.51.100.0/24" in " ".join(shortcomings(found, "aws", 0))


def test_the_command_writes_the_policy_to_stdout_and_its_limits_to_stderr(
    filled: ClickHouse, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async def said(_: Config) -> Catalogue:
        return Catalogue.of([KEY, Key(key_id="other", owner="acme")])

    monkeypatch.setattr(asking_keys, "read_catalogue", said)
    assert print_manifest(Config(clickhouse=filled), "office", "kong", 0, 0.0) == 0
    shown = capsysbinary.readouterr()
    assert json.loads(shown.out)["_format_version"] == "3.0"
    assert b"1 other keys of consumer acme" in shown.err and b"left out: network 100.64.9.0/24" in shown.err
    with pytest.raises(ConfigError, match="unknown gateway 'nginx'"):
        print_manifest(Config(clickhouse=filled), "office", "nginx", 0, 0.0)
