"""What a key's owner asks is answered from the rows the worker writes, whatever the key is called."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectors import DETECTORS
from pipeline.asking import answers as asking
from pipeline.asking import queries
from pipeline.asking.answers import print_explanation, print_incidents, print_keys
from pipeline.column import Columns
from pipeline.config.tree import ClickHouse, Config
from pipeline.errors import ConfigError, Fatal
from pipeline.keys import told as told_of_key
from pipeline.respond import declared
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from pipeline.times import micros
from schemas.incident import Band, Finding, Incident, Sample
from schemas.key import Key
from tests.row_examples import rows_of

HOUR_S = 3_600
NOON_S = 1_790_000_000 // 86_400 * 86_400 + 12 * HOUR_S
OPENED = "2026-09-21T12:30:00Z"
EVIL = "x' OR 1=1 -- \\' UNION ALL SELECT 1 {keys:String} %s"

INCIDENT = Incident(
    incident_id="ab" * 16, key_id="office", rule="visit", revision=2, change="extended", state="open",
    severity="high", rung="flag", opened_at=OPENED, last_at="2026-09-21T12:40:00Z",
    text="office: [many] requests", events=7,
    findings=(
        Finding(
            detector="spike", family="volume", bits=14.5, at=OPENED, observed=412,
            expected=Band(low=3, median=9, high=21), unit="requests",
            text="412 requests in 60 s", authenticated=True, sample=Sample(at=OPENED, request_id="r-1"),
        ),
    ),
)  # fmt: skip


def written(config: ClickHouse, table: str, columns: Columns) -> None:
    async def write() -> None:
        sink = ClickHouseSink(config)
        await sink.write(table, columns)
        await sink.close()

    asyncio.run(write())


async def _fill(config: ClickHouse) -> None:
    sink = ClickHouseSink(config)
    hours = [NOON_S - h * HOUR_S for h in range(48)]
    office = rows_of(
        "requests_1h", 48, key_id=["office"] * 48, window_start=hours, requests=[10] * 48, errors_403=[1] * 48,
        errors_401=[0] * 48, errors_404=[0] * 48, errors_429=[0] * 48, errors_4xx=[0] * 48, errors_5xx=[0] * 48,
        latency_sum_ms=[50.0] * 48,
    )  # fmt: skip
    await sink.write("requests_1h", office)
    await sink.write("requests_1h", office)  # again, as after a crash
    await sink.write("requests_1h", rows_of("requests_1h", 1, key_id=[EVIL], window_start=[NOON_S], requests=[3]))
    extra = rows_of("requests_1h", 1, key_id=["office"], window_start=[NOON_S], part=["late"], requests=[2])
    await sink.write("requests_1h", extra)
    sources: dict[str, list[Any]] = {
        "country": ["DE", "DE", "RO"],
        "asn": [1, 1, 64_500],
        "prefix": ["a", "b", "c"],
        "requests": [60, 30, 10],
    }
    starts = [NOON_S - HOUR_S] * 2 + [NOON_S]
    await sink.write(
        "key_source_1h", rows_of("key_source_1h", 3, key_id=["office"] * 3, window_start=starts, **sources)
    )
    used = rows_of("keys_last_used", 2, key_id=["office", EVIL], last_used=[(NOON_S + 60) * 10**6] * 2)
    await sink.write("keys_last_used", used)
    body = [msgspec.json.encode(INCIDENT).decode()]
    await sink.write("incidents", _incident_rows(body))
    evidence = rows_of("evidence", 2, incident_id=[INCIDENT.incident_id] * 2, request_id=["r-1", "r-2"], offset=[1, 2])
    await sink.write("evidence", evidence)
    before = [(NOON_S + at_s) * 10**6 for at_s in (-1801, -1800, 1740, 1799, 1800)]  # the incident opens at 1800
    ids = ["old", "hour", "led", "up", "opening"]
    await sink.write("requests", rows_of("requests", 5, key_id=["office"] * 5, ts=before, request_id=ids))
    await sink.write("responses", rows_of("responses", 1, incident_id=[INCIDENT.incident_id], verdict=["simulated"]))
    await sink.close()


def _incident_rows(body: list[str]) -> dict[str, list[object]]:
    return rows_of(
        "incidents", 1, incident_id=[INCIDENT.incident_id], key_id=["office"], severity=["high"], body=body,
        opened_at=[(NOON_S + 1800) * 10**6], detectors=[["spike"]], text=[INCIDENT.text],
    )  # fmt: skip


@pytest.fixture(scope="module")
def filled(database: ClickHouse) -> ClickHouse:
    asyncio.run(_fill(database))
    return database


@pytest.fixture(scope="module")
def client(filled: ClickHouse) -> Iterator[Client]:
    client = connect(filled, filled.database)
    yield client
    client.close()


def test_requests_are_summed_over_parts_and_counted_once_when_written_twice(client: Client) -> None:
    (row,) = queries.requests_per_key(client, ["office"], days=7)
    assert (row.requests, row.active_hours, row.busiest_hour) == (48 * 10 + 2, 48, 12)


def test_a_period_ends_at_the_newest_use_not_at_todays_date(client: Client) -> None:
    (row,) = queries.requests_per_key(client, ["office"], days=0.5)
    assert row.active_hours == 12


def test_error_rates_are_shares_of_the_requests(client: Client) -> None:
    (row,) = queries.error_rates(client, ["office"], days=7)
    assert row.rate_403 == pytest.approx((48 + 1) / 482)
    assert row.error_rate == pytest.approx((48 + 6) / 482)  # the late part of `rows_of` has one error of each class


def test_last_use_says_when_and_from_where(client: Client) -> None:
    (row,) = queries.last_used(client, ["office"])
    assert (row.last_used_us, row.client_ip) == ((NOON_S + 60) * 10**6, "192.0.2.1")


def test_places_are_shares_of_the_key(client: Client) -> None:
    rows = queries.places(client, ["office"], days=7)
    found = [(row.country, row.asn, row.requests, row.share, row.prefixes) for row in rows]
    assert found == [("DE", 1, 90, 0.9, 2), ("RO", 64_500, 10, 0.1, 1)]


def test_the_fleet_is_listed_busiest_first(client: Client) -> None:
    assert [row.key_id for row in queries.requests_per_key(client)] == ["office", EVIL]


def test_normal_is_what_was_before_the_incident(client: Client) -> None:
    found = queries.normal(client, "office", OPENED)
    assert (found.active_hours, found.median) == (47, 10.0)  # the incident's own hour is not part of it
    assert {(u.value, u.share) for u in found.usual if u.dimension == "country"} == {("DE", 1.0)}


def test_a_key_without_use_has_an_empty_normal(client: Client) -> None:
    found = queries.normal(client, "nobody", OPENED)
    assert (found.active_hours, found.median, found.usual) == (0, 0.0, ())


def test_an_incident_is_found_by_the_beginning_of_its_id_with_all_that_belongs_to_it(client: Client) -> None:
    found = queries.explain_incident(client, "abab")
    assert found is not None
    assert found.incident == INCIDENT
    assert [line.request_id for line in found.evidence] == ["r-1", "r-2"]
    assert [line.verdict for line in found.responses] == ["simulated"]


def test_an_incident_that_goes_on_is_as_new_as_its_evidence(filled: ClickHouse, client: Client) -> None:
    """Its row is as of the last revision; at night the question is whether it still goes on."""
    going_on = "cd" * 16
    body = msgspec.json.encode(msgspec.structs.replace(INCIDENT, incident_id=going_on, key_id="busy", events=2))
    last = [datetime.fromisoformat("2026-09-21T12:41:00+00:00").timestamp() * 10**6 + at for at in range(3)]
    ids = {"incident_id": [going_on] * 3, "key_id": ["busy"] * 3}

    async def fill() -> None:
        sink = ClickHouseSink(filled)
        row = _incident_rows([body.decode()]) | {"incident_id": [going_on], "key_id": ["busy"], "events": [2]}
        await sink.write("incidents", row)
        evidence = rows_of("evidence", 3, ts=[int(at) for at in last], offset=[1, 2, 3], **ids)
        await sink.write("evidence", evidence)
        await sink.close()

    asyncio.run(fill())
    [line] = queries.newest_incidents(client, "busy")
    found = queries.explain_incident(client, going_on)
    assert found is not None
    assert (line.events, line.last_us) == (3, int(last[2]))
    assert (found.incident.events, found.incident.last_at) == (3, "2026-09-21T12:41:00.000002Z")


def test_what_led_up_to_an_incident_is_the_hour_before_it_opened(client: Client) -> None:
    found = queries.explain_incident(client, "abab")
    assert found is not None
    assert [line.request_id for line in found.before] == ["hour", "led", "up"]
    newest = queries.explain_incident(client, "abab", evidence=2)
    assert newest is not None
    assert [line.request_id for line in newest.before] == ["led", "up"]


@pytest.mark.parametrize("incident_id", ["", "nope", "%", "' OR '1'='1"])
def test_no_incident_is_no_explanation(client: Client, incident_id: str) -> None:
    assert queries.explain_incident(client, incident_id) is None


def test_a_key_named_like_sql_is_just_a_name(client: Client) -> None:
    assert [row.requests for row in queries.requests_per_key(client, [EVIL])] == [3]
    assert [row.key_id for row in queries.last_used(client, [EVIL])] == [EVIL]
    assert queries.newest_incidents(client, EVIL) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=40))
def test_no_text_breaks_out_of_its_parameter(client: Client, text: str) -> None:
    known = {"office", EVIL}
    assert {row.key_id for row in queries.last_used(client, [text])} == known & {text}
    assert queries.newest_incidents(client, text) == [] or text == "office"


def test_a_database_without_tables_says_what_to_do(front: str) -> None:
    bare = connect(ClickHouse(url=front), None)
    with pytest.raises(Fatal, match="keywatch migrate"):
        queries.last_used(bare)
    bare.close()


@pytest.mark.parametrize(("database", "command"), [("kw", "keywatch migrate"), ("kw_shadow_x", "--shadow x")])
def test_a_database_that_is_missing_is_made_by_the_command_that_is_named(
    front: str, database: str, command: str
) -> None:
    """`migrate` alone would make production's, and a shadow's report would ask for it for ever."""
    with pytest.raises(ConfigError, match=f"{command}`$"):
        connect(ClickHouse(url=front, database=database), database)


def test_the_command_prints_keys_as_table_json_and_csv(
    filled: ClickHouse, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    config = Config(clickhouse=filled)
    assert print_keys(config, as_json=True) == 0
    fleet = json.loads(capsysbinary.readouterr().out)
    assert [row["key_id"] for row in fleet] == ["office", EVIL]
    assert print_keys(config, "office", as_json=True) == 0
    one = json.loads(capsysbinary.readouterr().out)
    assert [place["country"] for place in one["places"]] == ["DE", "RO"]
    assert print_keys(config, output="csv") == 0
    row = next(csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode())))
    assert row["key_id"] == "office" and float(row["requests"]) > 0 and 0 <= float(row["error_rate"]) <= 1
    assert datetime.fromisoformat(row["last_used_us"]).tzinfo is not None
    assert print_keys(config, "office") == 0
    assert b"RO" in capsysbinary.readouterr().out


def test_a_list_that_is_not_whole_says_so_where_programs_do_not_read(
    filled: ClickHouse, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FLEET_LIMIT", 1)
    assert print_keys(Config(clickhouse=filled), output="csv") == 0
    shown = capsys.readouterr()
    assert "the 1 busiest keys only" in shown.err and "busiest keys" not in shown.out


@pytest.mark.parametrize(
    ("family", "unit", "said"),
    [
        ("network", "visits from this network",
         "(0 visits from this network, 47.7 [47.7-47.7] from those that it knows; 7.4 bits"),
        ("client", "visits by this client",
         "(0 visits by this client, 47.7 [47.7-47.7] by those that it knows; 7.4 bits"),
        ("network", "changes of network in a visit", "(observed 0, usual 47.7 [47.7-47.7] changes of network in a"),
        ("time", "hour of day", "(7.4 bits"),
        ("volume", "requests", "(observed 0, usual 47.7 [47.7-47.7] requests; 7.4 bits"),
    ],
)  # fmt: skip
def test_numbers_are_compared_in_the_way_of_their_unit(family: str, unit: str, said: str) -> None:
    """A network or client never seen has no band: "usual 47.7 visits from this network" would say the opposite."""
    band = Band(low=47.7, median=47.7, high=47.7)
    finding = Finding(
        detector="x", family=family, bits=7.4, at=OPENED, observed=0, expected=band, unit=unit, text="words",
        authenticated=True, sample=Sample(at=OPENED),
    )  # fmt: skip
    assert said in asking._finding_words(finding)


def test_what_its_visit_brought_has_no_number_of_this_request() -> None:
    finding = Finding(
        detector="novel_operation", family="operation", bits=0.0, at=OPENED, observed=0, unit="new operations",
        expected=Band(low=0, median=0, high=0), text="earlier in this visit a deletion", authenticated=True,
        sample=Sample(at=OPENED),
    )  # fmt: skip
    assert "earlier in this visit a deletion (evidence of its visit; " in asking._finding_words(finding)


def test_the_command_explains_an_incident_in_words_and_numbers(
    filled: ClickHouse, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    config = Config(clickhouse=filled)
    assert print_incidents(config) == 0
    assert print_explanation(config, "abab") == 0
    shown = capsysbinary.readouterr().out.decode()
    for words in ("office: [many] requests", "9 [3-21]", "r-1", "10 requests in an active hour", "simulated"):
        assert words in shown, words


def test_what_people_read_fits_eighty_columns(
    filled: ClickHouse, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    config = Config(clickhouse=filled)
    print_keys(config)
    print_keys(config, "office")
    print_incidents(config)
    print_explanation(config, "abab")
    shown = capsysbinary.readouterr().out.decode()
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert "office" in shown


def test_incidents_that_are_left_out_are_named(filled: ClickHouse, capsys: pytest.CaptureFixture[str]) -> None:
    """With 500 incidents 50 were listed, and nothing said so."""
    written(filled, "incidents", rows_of("incidents", 2, incident_id=["c1" * 16, "c2" * 16], key_id=["stormy"] * 2))
    assert print_incidents(Config(clickhouse=filled), "stormy", 1) == 0
    said = capsys.readouterr()
    assert said.err == "keywatch: the 1 newest incidents only; --limit shows more\n"
    assert said.out.count(", rung ") == 1
    assert print_incidents(Config(clickhouse=filled), "stormy", 2, as_json=True) == 0
    said = capsys.readouterr()
    assert (said.err, len(json.loads(said.out))) == ("", 2)


def test_no_incidents_are_said_in_words(filled: ClickHouse, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_incidents(Config(clickhouse=filled), "nobody") == 0
    assert capsys.readouterr().out == "no incidents of nobody\n"


def test_what_is_not_there_is_said_and_is_exit_code_1(filled: ClickHouse, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(clickhouse=filled)
    assert print_keys(config, "nobody") == 1
    assert print_explanation(config, "nope") == 1
    assert "nobody" in capsys.readouterr().err


def test_a_key_is_shown_with_its_status_and_its_owner(
    filled: ClickHouse, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A key that was revoked looked like any other."""
    config = Config(clickhouse=filled)
    assert print_keys(config, "office") == 0
    assert b"declared   by nobody, or no responder has read it yet" in capsysbinary.readouterr().out
    ended = Key(key_id="office", owner="acme", status="revoked", ended_at="2026-09-21T12:30:00Z", protected=True)
    written(filled, "keys", declared.rows([("office", ended)], 1))
    assert print_keys(config, "office") == 0
    said = capsysbinary.readouterr().out
    assert b"declared   revoked since 2026-09-21 12:30:00Z, owner acme, normal, protected" in said
    assert print_keys(config, "office", as_json=True) == 0
    assert json.loads(capsysbinary.readouterr().out)["declared"]["ended_us"] == micros("2026-09-21T12:30:00Z")
    written(filled, "keys", declared.rows([("office", None)], 2))
    assert told_of_key.declared_of(connect(filled, filled.database), "office") is None


def test_units_whose_band_is_of_others_are_those_of_detectors() -> None:
    units = {detector.name: detector.unit for detector in DETECTORS}
    assert {units["geography"], units["novel_client"]} == set(asking.OF_OTHERS)


def test_what_is_taken_back_is_told_as_an_undo_and_by_whom(filled: ClickHouse) -> None:
    """The audit's lines of an undo have the rung of the act: "done: suspend allowed" stood there for the opposite."""
    bodies = [json.dumps({"direction": way, "by": by}) for way, by in (("apply", ""), ("undo", "ada"), ("undo", "ada"))]
    lines = rows_of(
        "responses", 3, incident_id=["taken_back"] * 3, stage=["done", "decided", "done"], verdict=["allowed"] * 3,
        rung=["suspend"] * 3, reason=["done", "false alarm", "done"], body=bodies, at=[1_000_000, 2_000_000, 3_000_000],
        offset=[901, 902, 903],
    )  # fmt: skip
    written(filled, "responses", lines)
    client = connect(filled, filled.database)
    told = [asking._response_words(line).split("Z ", 1)[1] for line in queries.responses_to(client, "taken_back")]
    client.close()
    assert told == [
        "done: suspend allowed, done", "decided: undo of suspend allowed by ada, false alarm",
        "done: undo of suspend allowed, done",
    ]  # fmt: skip
