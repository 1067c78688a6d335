"""A report tells what happened first, what strangers touched and from where, and takes no orders from what it shows."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from pipeline.asking.hunt import Quarry, hunt
from pipeline.asking.investigate import Act, Case, investigate
from pipeline.asking.investigate_words import causes, document, in_force, questions, steps, timeline
from pipeline.asking.investigating import case_of, print_investigation
from pipeline.clients import family
from pipeline.config.tree import ClickHouse, Config
from pipeline.errors import ConfigError
from pipeline.formats import Options
from pipeline.history import ordered
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from pipeline.times import rfc3339
from schemas.event import Event
from schemas.incident import Band, Finding, Incident, Sample
from tests.pipeline.key_rows import DAY_US, HOUR_US, MINUTE_US, NOON_US, Use, daily, fill
from tests.pipeline.log_of_requests import core, record, slices
from tests.real_data import real
from tests.row_examples import rows_of

FIRST_US = NOON_US - 2 * DAY_US + 7 * MINUTE_US
HOSTILE = "<script>alert(1)</script>\x1b[2J"
THIEF: dict[str, Any] = {"ip": "203.0.113.9", "asn": 64_666, "country": "RO", "client": HOSTILE}
INCIDENT = Incident(
    incident_id="ab" * 16, key_id="office", rule="visit", revision=1, change="opened", state="closed", severity="high",
    rung="fence", opened_at=rfc3339(FIRST_US + 5 * MINUTE_US), last_at=rfc3339(FIRST_US + 30 * MINUTE_US),
    closed_at=rfc3339(FIRST_US + 2 * HOUR_US), owner="acme", text="office: used from a network it never had",
    findings=(
        Finding(
            detector="novel_network", family="network", bits=14.0, at=rfc3339(FIRST_US), observed=0, unit="visits",
            expected=Band(low=0, median=9, high=9), text="never from AS64666", authenticated=True, sample=Sample(at=""),
        ),
    ),
)  # fmt: skip
USES = [
    *daily("office", range(30), times=10),
    *daily("office", range(3), hour=1, times=5, route="/v1/users"),
    Use("office", FIRST_US, times=2, outcome="denied", route="/v1/admin", path="/v1/admin/keys", **THIEF),
    Use("office", FIRST_US + 6 * MINUTE_US, times=30, method="GET", route="/v1/users/{id}", path="/v1/users/7",
        bytes_out=1_000, **THIEF),
    Use("second", FIRST_US + MINUTE_US, **THIEF), *daily("second", range(10)),
    Use("office", NOON_US - 8 * DAY_US, outcome="invalid", **THIEF),  # named before by who knew its id: no use
    Use("third", NOON_US - 20 * DAY_US, **THIEF),  # the same source, weeks before
    *daily("calm", range(30)),
]  # fmt: skip


def tables() -> dict[str, dict[str, list[Any]]]:
    act = rows_of(
        "responses", 2, key_id=["office"] * 2, incident_id=[INCIDENT.incident_id] * 2, stage=["decided", "done"],
        verdict=["allowed"] * 2, rung=["fence"] * 2, reason=["two families", "fenced"],
        at=[FIRST_US + 10 * MINUTE_US, FIRST_US + 11 * MINUTE_US], response_id=["r"] * 2, offset=[1, 2],
    )  # fmt: skip
    found = rows_of(
        "findings", 1, key_id=["office"], at=[FIRST_US], detector=["novel_network"], family=["network"], bits=[14.0],
        text=["never from AS64666"], incident_id=[INCIDENT.incident_id],
    )  # fmt: skip
    incident = rows_of(
        "incidents", 1, incident_id=[INCIDENT.incident_id], key_id=["office"], rule=["visit"],
        detectors=[["novel_network"]], opened_at=[FIRST_US + 5 * MINUTE_US], last_at=[FIRST_US + 30 * MINUTE_US],
        body=[msgspec.json.encode(INCIDENT).decode()],
    )  # fmt: skip
    said = rows_of(
        "controls", 1, kind=["feedback"], incident_id=[INCIDENT.incident_id], verdict=["malicious"], by=["alice"],
        reason=["stolen laptop"], at=[FIRST_US + 3 * HOUR_US], until=[None],
    )  # fmt: skip
    return {"responses": act, "findings": found, "incidents": incident, "controls": said}


@pytest.fixture(scope="module")
def filled(database: ClickHouse) -> ClickHouse:
    fill(database, USES, **tables())
    return database


@pytest.fixture(scope="module")
def client(filled: ClickHouse) -> Iterator[Client]:
    client = connect(filled, filled.database)
    yield client
    client.close()


@pytest.fixture(scope="module")
def case(client: Client) -> Case:
    found = case_of(client, "abab", "", "")
    assert found is not None
    return found


def test_the_sources_that_are_new_are_told_from_the_known_ones(case: Case) -> None:
    assert [(source.network, source.requests, source.strange) for source in case.sources] == [
        ("AS64500", 10, False), ("AS64666", 32, True),
    ]  # fmt: skip
    (stranger,) = case.strangers
    assert (stranger.succeeded, stranger.refused, stranger.first_us) == (30, 2, FIRST_US)
    assert (stranger.new_network, stranger.new_client) == (True, True)


def test_the_scope_is_what_strangers_touched_and_nothing_else(case: Case) -> None:
    assert [(row.route, row.outcome, row.requests, row.bytes_out) for row in case.routes] == [
        ("/v1/users/{id}", "success", 30, 30_000), ("/v1/admin", "denied", 2, 200),
    ]  # fmt: skip
    assert [(row.method, row.path, row.succeeded) for row in case.things] == [
        ("GET", "/v1/users/7", 30), ("GET", "/v1/admin/keys", 0),
    ]  # fmt: skip
    assert case.things_from == "requests"
    assert [(row.client_ip, row.requests) for row in case.addresses] == [("203.0.113.9", 32)]


def test_other_keys_of_the_same_sources_are_those_of_the_span(case: Case) -> None:
    assert [(row.key_id, row.succeeded) for row in case.others] == [("second", 1)]


def test_the_timeline_begins_with_what_happened_first_and_ends_with_what_was_said(case: Case) -> None:
    kinds = [kind for _, kind, _ in timeline(case)]
    assert kinds == [
        "first seen", "found", "incident", "last seen", "response", "response", "incident", "feedback",
    ]  # fmt: skip
    assert [at for at, _, _ in timeline(case)] == sorted(at for at, _, _ in timeline(case))


def test_the_likely_cause_is_said_with_what_speaks_for_it(case: Case) -> None:
    assert causes(case)[0].startswith("somebody else holds the secret: 30 requests succeeded")
    assert "they used 1 other key as well" in causes(case)[0]
    assert "How did the secret get out?" in " ".join(questions(case))


def test_a_key_that_did_nothing_odd_has_no_cause_and_its_own_scope(client: Client) -> None:
    found = case_of(client, "calm", "", "")
    assert found is not None
    assert found.strangers == [] and found.others == []
    assert causes(found) == ["no evidence of a cause: nothing in the span is unusual for this key"]
    assert sum(route.requests for route in found.routes) == 8  # seven days and the moment they begin with
    assert "Why was nothing done?" in " ".join(questions(found))


def test_evidence_stands_in_where_requests_are_gone(clickhouse: ClickHouse) -> None:
    evidence = rows_of(
        "evidence", 1, incident_id=[INCIDENT.incident_id], key_id=["office"], ts=[FIRST_US], asn=[64_666],
        path=["/v1/x"], client_ip=["203.0.113.9"], one_in=[1], outcome=["success"],
    )  # fmt: skip
    fill(clickhouse, USES, **tables(), evidence=evidence)
    client = connect(clickhouse, clickhouse.database)
    client.command("TRUNCATE TABLE requests")
    found = case_of(client, "abab", "", "")
    client.close()
    assert found is not None
    assert (found.things_from, [thing.path for thing in found.things]) == ("evidence", ["/v1/x"])
    assert "older than 14 days" in " ".join(questions(found))


def test_an_incident_that_goes_on_is_looked_at_up_to_its_newest_evidence(filled: ClickHouse, client: Client) -> None:
    going_on = msgspec.structs.replace(INCIDENT, incident_id="cd" * 16, key_id="calm", state="open", closed_at="")
    row = tables()["incidents"] | {
        "incident_id": ["cd" * 16], "key_id": ["calm"], "body": [msgspec.json.encode(going_on).decode()],
    }  # fmt: skip
    evidence = rows_of("evidence", 1, incident_id=["cd" * 16], key_id=["calm"], ts=[NOON_US])
    fill(filled, [], incidents=row, evidence=evidence)
    found = case_of(client, "cdcd", "", "")
    assert found is not None
    assert found.to_us == NOON_US + 1


def test_any_past_day_can_be_named(client: Client) -> None:
    day = case_of(client, "office", rfc3339(NOON_US - 10 * DAY_US), rfc3339(NOON_US - 9 * DAY_US))
    assert day is not None and sum(source.requests for source in day.sources) == 10 and day.incidents == []
    back = case_of(client, "office", "36h", rfc3339(FIRST_US + DAY_US))
    assert back is not None and [each.incident_id for each in back.incidents] == [INCIDENT.incident_id]
    assert case_of(client, "nobody", "", "") is None
    with pytest.raises(ConfigError, match="must lie before"):
        case_of(client, "office", rfc3339(NOON_US), rfc3339(NOON_US - DAY_US))


def test_files_and_terminal_hold_no_markup_of_a_caller(
    filled: ClickHouse, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    html, markdown = tmp_path / "r.html", tmp_path / "r.md"
    assert print_investigation(Config(clickhouse=filled), "abab", ("", ""), (str(html), str(markdown)), "text") == 0
    capsysbinary.readouterr()
    assert [path.stat().st_mode & 0o077 for path in (html, markdown)] == [0, 0]  # it names addresses: its owner's alone
    assert print_investigation(Config(clickhouse=filled), "abab", ("", ""), ("", ""), "text") == 0
    shown = capsysbinary.readouterr().out.decode()
    for text in (html.read_text(), markdown.read_text(), shown):
        assert "alert(1)" in text or "alert\\(1\\)" in text  # it is shown
        assert "\x1b" not in text
    assert "<script" not in html.read_text() and "<script" not in markdown.read_text()
    assert print_investigation(Config(clickhouse=filled), "abab", ("", ""), ("", ""), "json") == 0
    assert json.loads(capsysbinary.readouterr().out)["key_id"] == "office"
    assert print_investigation(Config(clickhouse=filled), "nobody", ("", ""), ("", ""), "text") == 1


def test_every_section_that_an_incident_needs_is_there(case: Case, tmp_path: Path) -> None:
    from pipeline.asking.document import Heading

    heads = [block.text for block in document(case) if isinstance(block, Heading)]
    assert heads[1:] == [
        "Likely cause", "What happened, in order", "Scope: what was touched", "Sources", "What was done",
        "What was normal before", "Open questions", "Next steps", "Where it may have leaked",
    ]  # fmt: skip


def test_every_command_among_the_steps_exists(case: Case) -> None:
    import typer

    from pipeline.cli.main import app

    root: Any = typer.main.get_command(app)
    said = [command.split() for _, command in steps(case) if command]
    assert len(said) >= 5
    for words in said:
        assert words[0] == "keywatch" and words[1] in root.commands
        group = root.commands[words[1]]
        assert not hasattr(group, "commands") or words[2] in group.commands


def invictus() -> tuple[list[Event], list[dict[str, Any]]]:
    """The events as intake reads them, and the raw records."""
    files = sorted(real("cloudtrail-invictus").glob("*.json"))
    events = [each for each in ordered(files, "cloudtrail", Options(), 120_000_000) if isinstance(each, Event)]
    return events, [each for file in files for each in json.loads(file.read_bytes())["Records"]]


def test_the_attack_in_the_invictus_log_is_hunted_and_told_as_its_records_say(clickhouse: ClickHouse) -> None:
    events, raw = invictus()
    judge = core()

    async def write() -> None:
        sink = ClickHouseSink(clickhouse)
        for batch in slices([record(event) for event in events], range(0, len(events), 500)):
            for table, rows in judge.process(batch).rows.items():
                await sink.write(table, rows)
        for table, rows in judge.due_rows().items():
            await sink.write(table, rows)
        await sink.close()

    asyncio.run(write())
    agents = {str(one.get("userAgent", "")) for one in raw}
    named = {family(agent) for agent in agents if agent.startswith("stratus-red-team_")}
    truth: Counter[str] = Counter()
    for each in {str(one["eventID"]): one for one in raw}.values():
        key = each.get("userIdentity", {}).get("accessKeyId")
        if key and family(str(each.get("userAgent", ""))) in named:
            truth[key] += 1
    client = connect(clickhouse, clickhouse.database)
    span: dict[str, Any] = {"from_us": events[0].ts_us - HOUR_US, "to_us": events[-1].ts_us + HOUR_US}
    found = Counter[str]()
    for name in named:
        for row in hunt(client, Quarry(client=name, **span)):
            found[row.key_id] += row.requests
    assert sum(truth.values()) > 200
    assert found == truth
    key, count = truth.most_common(1)[0]
    told = investigate(client, key, span["from_us"], span["to_us"])
    client.close()
    by_tool = sum(source.requests for source in told.sources if source.client in named)
    assert by_tool == count
    assert told.things and told.routes
    assert "What is normal for this key?" in " ".join(questions(told))  # the log has no day before


def test_the_incidents_own_findings_are_told_however_many_weak_ones_came_before(clickhouse: ClickHouse) -> None:
    weak, at = 200, [NOON_US - DAY_US + n * MINUTE_US for n in range(200)]
    found = rows_of(
        "findings", weak + 1, key_id=["office"] * (weak + 1), at=[*at, NOON_US - 1], detector=["spike"] * (weak + 1),
        bits=[6.0] * weak + [20.0], text=[f"weak {n}" for n in range(weak)] + ["the one that opened it"],
        incident_id=[""] * weak + [INCIDENT.incident_id], finding_id=[f"f{n}" for n in range(weak + 1)],
    )  # fmt: skip
    fill(clickhouse, daily("office", range(3)), findings=found)
    client = connect(clickhouse, clickhouse.database)
    case = investigate(client, "office", NOON_US - 2 * DAY_US, NOON_US)
    client.close()
    entries = timeline(case)
    assert "the one that opened it" in " ".join(text for _, _, text in entries)
    assert entries[-1][1:] == ("left out", "141 weaker findings of the span")


def act(
    at_us: int, stage: str, rung: str, direction: str = "apply", verdict: str = "allowed", incident_id: str = "i" * 32
) -> Act:  # fmt: skip
    return Act(
        at_us=at_us, incident_id=incident_id, stage=stage, verdict=verdict, rung=rung, reason="it is",
        direction=direction,
    )  # fmt: skip


def test_of_a_revoked_key_nothing_is_said_to_be_taken_back(case: Case) -> None:
    acts = [act(NOON_US, "done", "suspend"), act(NOON_US + 1, "done", "revoke")]
    first, second, *_ = steps(msgspec.structs.replace(case, acts=acts))
    assert first[0].startswith("It is revoked since")
    assert "respond undo" not in second[1]


def test_the_undo_of_one_incidents_act_does_not_end_another_incidents(case: Case) -> None:
    acts = [act(NOON_US, "done", "fence"), act(NOON_US + 1, "done", "fence", "undo"),
            act(NOON_US + 2, "done", "fence", incident_id="j" * 32),
            act(NOON_US + 3, "done", "fence", "undo")]  # fmt: skip
    (stands,) = in_force(msgspec.structs.replace(case, acts=acts))
    assert stands.incident_id == "j" * 32


def test_what_is_in_force_comes_first_with_its_way_back_and_an_undo_is_told_as_one(case: Case) -> None:
    fenced = [act(NOON_US, "decided", "fence"), act(NOON_US + 1, "done", "fence")]
    stands = msgspec.structs.replace(case, acts=fenced)
    first, second, *_ = steps(stands)
    assert "In force since" in first[0] and first[1].startswith("keywatch respond undo iiii")
    assert second == (
        "Stop it: suspend the key at the gateway, or by the responder where it enforces",
        f"keywatch respond act {INCIDENT.incident_id} --rung suspend --preview",
    )
    over = msgspec.structs.replace(case, acts=[*fenced, act(NOON_US + 2, "done", "fence", "undo")])
    assert "--rung fence --preview" in next(iter(steps(over)))[1]
    assert ("response", "done: undo of fence allowed, it is") in [(kind, text) for _, kind, text in timeline(over)]
    revoked = msgspec.structs.replace(case, acts=[act(NOON_US, "done", "revoke")])
    assert next(iter(steps(revoked)))[0].startswith("It is revoked since")


def test_what_is_said_again_and_again_is_one_entry(case: Case) -> None:
    refused = [act(NOON_US + n, "decided", "fence", verdict="refused") for n in range(150)]
    texts = [text for _, kind, text in timeline(msgspec.structs.replace(case, acts=refused)) if kind == "response"]
    assert texts == ["decided: fence refused, it is; 150 times, the last at 2026-09-21 12:00:00Z"]
