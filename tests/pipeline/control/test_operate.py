"""What people say goes to the control topic in the form the workers read, or is refused with words that help."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import starmap
from pathlib import Path

import msgspec
import pytest

from detectors import fusion, known_operations
from detectors.egress import Egress
from pipeline import moments
from pipeline.asking import coverage, queries
from pipeline.asking.answers import print_explanation
from pipeline.asking.coverage import Unwatched, keys_used, muted, ranked, unwatched
from pipeline.asking.report import SERIES_DAYS, Counts, against, of, poisson_interval, rated, wilson
from pipeline.config.tree import ClickHouse, Config
from pipeline.control import operate, plans
from pipeline.control.controls import NO_CONTROLS, Controls, Said
from pipeline.control.operate import Word, give_feedback
from pipeline.control.people import user
from pipeline.control.withhold import control_rows
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from pipeline.times import rfc3339
from schemas.control import Control, Feedback, Mute, Planned
from schemas.incident import Band, Finding, Incident, Sample
from schemas.key import Key
from tests.pipeline import said
from tests.pipeline.log_of_requests import ABROAD, core, log, slices
from tests.row_examples import rows_of

DAY_US = 86_400_000_000
CATALOGUE = Catalogue.of(
    [Key(key_id="mine", owner="acme", criticality="critical"), Key(key_id="other", owner="x", criticality="high")]
)
NOON_US = 1_790_000_000_000_000 // DAY_US * DAY_US + DAY_US // 2


class Topic:
    """The control topic in memory."""

    def __init__(self) -> None:
        self.said: list[Control] = []

    async def say(self, config: Config, controls: list[Control]) -> list[int]:
        first = len(self.said)
        self.said += controls
        return list(range(first, len(self.said)))

    async def read(self, config: Config) -> Controls:
        if not self.said:
            return NO_CONTROLS
        return Controls.of("topic", [Said(seq, each) for seq, each in enumerate(self.said)], len(self.said))


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Iterator[Topic]:
    held = Topic()
    monkeypatch.setattr(operate, "say", held.say)
    monkeypatch.setattr(operate, "read_controls", held.read)
    monkeypatch.setattr(operate, "read_catalogue", declared)
    yield held


async def declared(config: Config) -> Catalogue:
    return Catalogue.of([Key(key_id="pk_1", owner="acme")])


def written(config: ClickHouse, **tables: dict[str, list[object]]) -> None:
    async def write() -> None:
        sink = ClickHouseSink(config)
        for table, rows in tables.items():
            await sink.write(table, rows)
        await sink.close()

    asyncio.run(write())


@pytest.fixture
def judged(clickhouse: ClickHouse) -> Incident:
    """ClickHouse as the worker leaves it after a log with one incident."""
    judge, told = core(), list[Incident]()

    async def write() -> None:
        sink = ClickHouseSink(clickhouse)
        for batch in slices(log(1), [700]):
            effects = judge.process(batch)
            told.extend(effects.incidents)
            for table, rows in effects.rows.items():
                await sink.write(table, rows)
        for table, rows in judge.due_rows().items():
            await sink.write(table, rows)
        await sink.close()

    asyncio.run(write())
    return told[-1]


def test_feedback_carries_the_values_of_the_evidence_and_shows_what_it_changed(
    judged: Incident,
    clickhouse: ClickHouse,
    topic: Topic,
    capsys: pytest.CaptureFixture[str],
) -> None:
    word = Word(
        incident=judged.incident_id[:8], verdict="expected", reason="moved", until="14d", owner="alice", wait_s=0
    )
    assert give_feedback(Config(clickhouse=clickhouse), word) == 0
    assert "not yet in effect" in capsys.readouterr().out
    (message,) = topic.said
    assert isinstance(message, Feedback)
    assert (message.key_id, message.owner, message.reason) == ("pk_1", "alice", "moved")
    assert {event.client_ip for event in message.events} & set(ABROAD)
    assert message.events and message.networks and message.detectors
    assert moments.stamp(message.until) - moments.stamp(message.at) == pytest.approx(14 * 86_400, abs=60)
    judge = core()
    judge.adopt(said.sides(message))  # a worker can read it
    row = rows_of(
        "applied", 1, control_id=[f"feedback/{judged.incident_id}"], seq=[1], effect=["closed the incident"],
        incident_id=[judged.incident_id], verdict=["expected"], at=[NOON_US],
    )  # fmt: skip
    written(clickhouse, applied=row)
    assert print_explanation(Config(clickhouse=clickhouse), judged.incident_id) == 0, "as the command advises"
    assert "said expected: closed the incident" in capsys.readouterr().out
    assert give_feedback(Config(clickhouse=clickhouse), msgspec.structs.replace(word, as_json=True)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["applied"]["effect"] == "closed the incident"


def test_a_word_that_it_was_expected_says_what_stands_all_the_same(
    judged: Incident, clickhouse: ClickHouse, topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    """Feedback undoes nothing: a key that was suspended for a false alarm stayed so, and nobody was told."""
    acts = [("fence", "apply"), ("suspend", "apply"), ("revoke", "apply"), ("fence", "undo")]
    lines = rows_of(
        "responses", 4, incident_id=[judged.incident_id] * 4, stage=["done"] * 4, verdict=["allowed"] * 4,
        rung=[rung for rung, _ in acts], body=[json.dumps({"direction": way}) for _, way in acts],
        at=[NOON_US + n for n in range(4)], offset=[9_001, 9_002, 9_003, 9_004],
    )  # fmt: skip
    written(clickhouse, responses=lines)
    config = Config(clickhouse=clickhouse)
    assert give_feedback(config, Word(incident=judged.incident_id, verdict="expected", reason="r", wait_s=0)) == 0
    said = capsys.readouterr().out
    assert f"the suspend that was done for it stands: keywatch respond undo {judged.incident_id} --reason TEXT" in said
    assert "the revoke that was done for it stands: if the revocation was wrong, enable the key" in said
    assert "the fence" not in said
    assert give_feedback(config, Word(incident=judged.incident_id, verdict="malicious", reason="r", wait_s=0)) == 0
    assert "stands: " not in capsys.readouterr().out


def test_an_event_of_the_evidence_comes_back_as_it_was(judged: Incident, clickhouse: ClickHouse) -> None:
    client = connect(clickhouse, clickhouse.database)
    events = queries.evidence_events(client, judged)
    client.close()
    assert events
    logged = {v for _, v, _ in log(1)}
    originals = [msgspec.json.decode(v) for v in logged if v and b"request_id" in v]
    by_id = {each["request_id"]: each for each in originals}
    for event in events:
        original = by_id[event.request_id]
        for name in ("key_id", "ts_us", "client_ip", "method", "path", "status", "outcome", "user_agent"):
            assert getattr(event, name) == original[name], name


def test_a_word_admits_what_the_incident_names_and_not_who_else_came_meanwhile(
    judged: Incident,
    clickhouse: ClickHouse,
) -> None:
    client = connect(clickhouse, clickhouse.database)
    client.command(
        "INSERT INTO evidence SELECT * REPLACE (offset + 1000000 AS offset, 'NZ' AS country, 64999 AS asn,"
        " 'another' AS client, concat(request_id, '-other') AS request_id) FROM evidence FINAL"
    )
    at = next(each.sample for each in judged.findings)
    client.command(
        "INSERT INTO evidence SELECT * REPLACE (offset + 2000000 AS offset, 'DELETE' AS method,"
        f" {at.asn} AS asn, '{at.country}' AS country, '{at.client}' AS client,"
        " concat(request_id, '-deleted') AS request_id) FROM evidence FINAL WHERE asn != 64999"
    )
    events = queries.evidence_events(client, judged)
    client.close()
    assert events
    assert not [each.request_id for each in events if each.request_id.endswith(("-other", "-deleted"))]


@pytest.mark.parametrize(
    ("word", "words"),
    [
        (Word(incident="a", verdict="fine", reason="x"), "there are expected and malicious"),
        (Word(incident="a", verdict="expected", reason=" "), "--reason is needed"),
        (Word(incident="a", verdict="malicious", reason="x", until="1d"), "goes with expected only"),
        (Word(incident="a", verdict="expected", reason="x", until="soon"), "RFC 3339"),
        (Word(incident="a", verdict="expected", reason="x", until="2020-01-01T00:00:00Z"), "a time to come"),
        (Word(incident="a", verdict="expected", reason="x", until="60w"), "at most 400 days"),
    ],
)
def test_a_word_that_makes_no_sense_is_refused_with_what_would(word: Word, words: str, topic: Topic) -> None:
    with pytest.raises(ConfigError, match=words):
        give_feedback(Config(), word)
    assert not topic.said


def test_an_incident_that_is_not_there_is_exit_code_1(
    clickhouse: ClickHouse,
    topic: Topic,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert give_feedback(Config(clickhouse=clickhouse), Word(incident="ff", verdict="expected", reason="x")) == 1
    assert "keywatch incidents" in capsys.readouterr().err
    assert not topic.said


def test_a_mute_is_listed_until_it_is_lifted(topic: Topic, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config()
    assert operate.mute(config, ("pk_1", "", ""), "12h", "load test") == 0
    assert operate.mute(config, ("", "spike", "acme"), "2d", "sale") == 0
    capsys.readouterr()
    assert operate.print_mutes(config, False, "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["about"] for row in rows] == ["key pk_1", "keys of acme, what rests on spike alone"]
    assert operate.unmute(config, ("pk_1", "", "")) == 0
    assert operate.unmute(config, ("pk_1", "", "")) == 1, "there is none any more"
    assert operate.unmute(config, ("pk_9", "", "")) == 1
    capsys.readouterr()
    assert operate.print_mutes(config, False, "json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert operate.print_mutes(config, True, "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["about"]: bool(row["ended_by"]) for row in rows} == {
        "key pk_1": True, "keys of acme, what rests on spike alone": False,
    }  # fmt: skip
    assert operate.print_mutes(config, True, "table") == 0
    shown = capsys.readouterr().out
    assert "load test" in shown
    assert f"ended by {user()}" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (("pk_l", "", ""), "no key 'pk_l' is declared, and none was ever used"),
        (("", "", "acne"), "no key of owner 'acne' is declared"),
        (("pk_1", "", "acne"), "no key of owner 'acne' is declared"),
    ],
)
def test_a_mute_of_what_nobody_knows_is_a_slip_and_said_only_by_force(
    topic: Topic, clickhouse: ClickHouse, capsys: pytest.CaptureFixture[str], scope: tuple[str, str, str], words: str
) -> None:
    written(clickhouse, keys_last_used=rows_of("keys_last_used", 1, key_id=["used_only"]))
    config = Config(clickhouse=clickhouse)
    assert operate.mute(config, scope, "12h", "quiet") == operate.MISSING
    assert f"{words}: nothing is muted; --force" in capsys.readouterr().err
    assert not topic.said
    assert operate.mute(config, scope, "12h", "quiet", force=True) == 0
    assert operate.mute(config, ("used_only", "", ""), "12h", "quiet") == 0, "it need not be declared"
    assert len(topic.said) == 2


def test_a_mute_while_clickhouse_is_away_says_what_it_could_not_look_up(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(clickhouse=ClickHouse(url="http://127.0.0.1:9"))
    assert operate.mute(config, ("pk_9", "", ""), "12h", "quiet") == operate.MISSING
    said = capsys.readouterr().err
    assert "no key 'pk_9' is declared, and whether one was used nobody can say (" in said and "--force" in said
    assert operate.mute(config, ("pk_1", "", ""), "12h", "quiet") == 0, "a declared one needs no ClickHouse"
    assert len(topic.said) == 1


@pytest.mark.parametrize(
    ("scope", "reason", "words"),
    [
        (("", "", ""), "x", "everything at once"),
        (("pk_1", "", ""), " ", "--reason is needed"),
        (("pk_1", "spik", ""), "x", "there are geography"),
    ],
)
def test_a_mute_that_makes_no_sense_is_refused(scope: tuple[str, str, str], reason: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        operate.mute_of(scope, "2026-12-01T00:00:00Z", reason)


def test_a_planned_event_is_said_listed_and_cancelled(topic: Topic, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config()
    event = plans.planned_of("sale", "1d", "3d", "black friday", {"owners": ("acme",), "routes": ("/v1/orders*",)})
    assert operate.plan(config, [event]) == 0
    assert "owners acme; routes /v1/orders*" in capsys.readouterr().out
    assert operate.cancel(config, "sale") == 0
    assert operate.cancel(config, "sale") == 1
    last = topic.said[-1]
    assert isinstance(last, Planned) and last.to == last.at


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({"owners": ("acme", "acne")}, "no key of owner 'acne' is declared"),
        ({"roles": ("read",)}, "no key of role 'read' is declared"),
        ({"environments": ("prod",)}, "no key of environment 'prod' is declared"),
    ],
)
def test_a_plan_of_what_no_key_declares_is_a_slip_and_said_only_by_force(
    topic: Topic, capsys: pytest.CaptureFixture[str], scope: dict[str, tuple[str, ...]], words: str
) -> None:
    good = plans.planned_of("good", "", "1d", "r", {"routes": ("*",)})
    event = plans.planned_of("sale", "", "1d", "r", scope)
    assert operate.plan(Config(), [good, event]) == operate.MISSING
    assert f"sale: {words}: nothing is planned; --force" in capsys.readouterr().err
    assert not topic.said, "of a calendar all or nothing"
    assert operate.plan(Config(), [good, event], force=True) == 0
    assert len(topic.said) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("x", "", "", "r", {"owners": ("a",)}), "--to and --reason"),
        (("x", "2d", "1d", "r", {"owners": ("a",)}), "before it begins"),
        (("x", "", "1d", "r", {}), "give it a scope"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    given: tuple[str, str, str, str, dict[str, tuple[str, ...]]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        plans.planned_of(*given)


def test_a_calendar_is_read_from_toml_and_csv_alike(tmp_path: Path) -> None:
    toml, table = tmp_path / "plans.toml", tmp_path / "plans.csv"
    toml.write_text(
        '[[planned]]\nname = "sale"\nfrom = 2026-11-27T00:00:00Z\nto = "2026-11-30T00:00:00Z"\nreason = "sale"\n'
        'owners = ["shop", "web"]\nroutes = ["/v1/*"]\n'
    )
    table.write_text(
        "name,from,to,reason,owners,routes\nsale,2026-11-27T00:00:00+00:00,2026-11-30T00:00:00Z,sale,shop|web,/v1/*\n"
    )
    (one,), (other,) = plans.read_calendar(toml), plans.read_calendar(table)
    assert msgspec.structs.replace(one, at="") == msgspec.structs.replace(other, at="")
    assert one.owners == ("shop", "web")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no event"),
        ("name,from,to,reason\nsale,2026-11-27T00:00:00Z,2026-11-30T00:00:00Z,x\n", "event 1: .*give it a scope"),
        ("name,from,to,reason,owners\nsale,tomorrow,2026-11-30T00:00:00Z,x,a\n", "event 1: .*from"),
        ("name,from,reason,owners\nsale,2026-11-27T00:00:00Z,x,a\n", "event 1: .*required field to"),
    ],
)
def test_a_calendar_that_is_wrong_names_the_event(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "plans.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        plans.read_calendar(path)


def test_spans_and_moments() -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    assert moments.moment("90m", "--until", now) == now + timedelta(minutes=90)
    assert moments.moment("2026-12-01", "--until", now) == datetime(2026, 12, 1, tzinfo=UTC)
    assert moments.span("2w", "--last") == timedelta(days=14)
    with pytest.raises(ConfigError, match="30m, 12h, 7d or 2w"):
        moments.span("0d", "--last")


# -- judging Keywatch -----------------------------------------------------------------------------------------------


def test_coverage_names_every_key_that_is_not_really_watched(clickhouse: ClickHouse) -> None:
    hour_us, old = 3_600_000_000, NOON_US - 30 * DAY_US
    routes = [f"/r/{number}" for number in range(coverage.OPERATIONS + 1)]  # the last one of another key
    written(
        clickhouse,
        keys_last_used=rows_of(
            "keys_last_used", 6, key_id=["newest", "evicted", "back", "young", "open", "week"],
            last_used=[NOON_US, NOON_US - DAY_US, *[NOON_US - hour_us] * 4],
            first_used=[old, old, old, NOON_US - 2 * hour_us, old, NOON_US - 6 * DAY_US],
        ),
        evictions=rows_of(
            "evictions", 2, key_id=["evicted", "back"], at=[NOON_US - DAY_US] * 2,
            last_used=[NOON_US - DAY_US, NOON_US - 2 * DAY_US],
        ),
        incidents=rows_of(
            "incidents", 2, incident_id=["a" * 32, "b" * 32], key_id=["open", "newest"], state=["open", "open"],
            opened_at=[NOON_US - 2 * DAY_US, NOON_US - hour_us], rule=["visit", "slow"],
        ),
        key_source_1h=rows_of(
            "key_source_1h", 2 + len(routes), key_id=["blind", "newest", *["many"] * coverage.OPERATIONS, "fewer"],
            prefix=["", *["192.0.2.0/24"] * (1 + len(routes))], client=["", *["curl"] * (1 + len(routes))],
            route=["/a", "/a", *routes], outcome=["success"] * (2 + len(routes)),
            window_start=[(NOON_US - hour_us) // 1_000_000] * (2 + len(routes)),
        ),
    )  # fmt: skip
    mutes = said.controls(said.mute(owner="acme"), said.mute(detector="spike"), said.mute(key_id="x", until=said.AT))
    client = connect(clickhouse, clickhouse.database)
    assert keys_used(client) == 6
    found = {(each.key_id, each.why) for each in unwatched(client, mutes, CATALOGUE)}
    client.close()
    assert found == {
        ("evicted", "evicted"), ("young", "young"), ("open", "open"), ("blind", "blind"), ("mine", "muted"),
        ("week", "abstaining"), ("many", "abstaining"),
    }  # fmt: skip


def test_coverage_takes_a_mute_that_was_lifted_since_the_newest_use_for_over(clickhouse: ClickHouse) -> None:
    written(
        clickhouse, keys_last_used=rows_of("keys_last_used", 1, key_id=["mine"], last_used=[NOON_US], first_used=[0])
    )
    lifted = said.controls(said.mute(key_id="mine"), said.mute(key_id="mine", until=rfc3339(NOON_US + DAY_US)))
    client = connect(clickhouse, clickhouse.database)
    found = [
        {each.key_id for each in unwatched(client, lifted, CATALOGUE, NOON_US + days * DAY_US) if each.why == "muted"}
        for days in (0, 2)
    ]
    client.close()
    assert found == [{"mine"}, set()]


def test_coverage_names_keys_that_geography_or_egress_never_judge(clickhouse: ClickHouse) -> None:
    """`inner` behind a proxy nobody declared; `sizeless` by a format without bytes; the others are judged."""
    keys = ["inner", "inner", "sizeless", "good", "good", "few", "refused"]
    written(
        clickhouse,
        keys_last_used=rows_of("keys_last_used", 1, key_id=["good"], last_used=[NOON_US], first_used=[0]),
        key_source_1h=rows_of(
            "key_source_1h", 7, key_id=keys, part=list("abcdefg"), window_start=[NOON_US // 1_000_000 - 3600] * 7,
            prefix=["10.0.0.0/24", "10.0.1.0/24", *["192.0.2.0/24"] * 5], asn=[0, 0, 64_500, 0, 64_500, 64_500, 64_500],
            country=[""] * 7, requests=[100, 100, 150, 100, 100, 99, 900],
            bytes_out=[1, 1, 0, 0, 7, 0, 0], outcome=[*["success"] * 6, "denied"],
        ),
    )  # fmt: skip
    client = connect(clickhouse, clickhouse.database)
    found = {each.key_id: (each.why, each.detail) for each in unwatched(client, NO_CONTROLS, CATALOGUE)}
    client.close()
    assert found.keys() == {"inner", "sizeless"}
    assert found["inner"][0] == "abstaining" and found["inner"][1].startswith("geography: ")
    assert found["sizeless"] == ("abstaining", "egress: none of 150 answers has a size")


def test_coverage_says_of_all_keys_what_their_format_does_not_tell() -> None:
    assert coverage.untold_by("kong") == []
    assert any("errors misses them" in words for words in coverage.untold_by("envoy"))


def test_coverage_goes_by_what_the_detectors_abstain_at() -> None:
    full = math.log(1 - known_operations.FULL) / (2 * math.log(1 - 1 / known_operations.FILTER_BITS))
    assert round(full) == coverage.OPERATIONS
    assert 24 * Egress().least_days == coverage.EGRESS_H


def test_critical_keys_come_first() -> None:
    found = [Unwatched(key_id=key, why="young", detail="") for key in ("unknown", "other", "mine")]
    assert [row["key_id"] for row in ranked(found, CATALOGUE)] == ["mine", "other", "unknown"]


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (("", "decoy", ""), "may be a proof"),
        (("source:192.0.2.0/24", "", ""), "another topology's"),
        (("fleet", "", ""), "another topology's"),
    ],
)
def test_a_mute_that_is_too_wide_is_refused_but_one_that_stands_can_be_lifted(
    topic: Topic, scope: tuple[str, str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        operate.mute(Config(), scope, "12h", "quiet")
    assert not topic.said
    until = moments.future("12h", "--until", moments.now())
    topic.said.append(operate.mute_of(scope, until, "said by an older version"))
    assert operate.unmute(Config(), scope) == 0


def test_a_mute_that_is_over_leaves_its_keys_watched() -> None:
    over = said.controls(said.mute(key_id="mine", until="2026-01-01T00:00:00Z"))
    assert not list(muted(over, CATALOGUE, NOON_US))


def test_the_table_names_who_ended_a_mute_or_a_plan_and_before_that_who_made_it() -> None:
    words = said.mute(key_id="k"), said.planned(by="cy")
    ended = [msgspec.structs.replace(each, ended_by="bob") for each in words]
    rows = control_rows([Said(seq, each) for seq, each in enumerate((*words, *ended))])
    assert list(rows["by"]) == ["me", "cy", "bob", "bob"]


def report_rows() -> dict[str, dict[str, list[object]]]:
    opened = [NOON_US - DAY_US, NOON_US - 2 * DAY_US, NOON_US - 3 * DAY_US, NOON_US - 30 * DAY_US]
    bodies = [json.dumps({"adopted": number == 2}) for number in range(4)]
    said_of = (("a", "malicious"), ("b", "malicious"), ("b", "expected"))
    words = [Said(seq, feedback_on(letter, verdict)) for seq, (letter, verdict) in enumerate(said_of)]
    return {
        "keys_last_used": rows_of("keys_last_used", 1, key_id=["k"], last_used=[NOON_US]),
        "requests_1h": rows_of(
            "requests_1h", 4, key_id=["k", "k", "m", "k"], part=list("abcd"),
            window_start=[(NOON_US - each) // 1_000_000 for each in (0, 3_600_000_000, 0, 2 * DAY_US)],
        ),
        "incidents": rows_of(
            "incidents", 4, incident_id=[letter * 32 for letter in "abcd"], key_id=["k1", "k2", "k3", "k4"],
            opened_at=opened, last_at=opened, rule=["visit", "slow", "visit", "visit"], body=bodies,
            severity=["high", "medium", "medium", "high"],
            detectors=[["spike", "errors"], ["spike"], ["spike"], ["spike"]],
        ),
        "findings": rows_of(
            "findings", 6, incident_id=["", "", "a" * 32, "", "", ""], key_id=["n1", "n2", "k1", "k1", "w", "v"],
            at=[*[NOON_US - DAY_US] * 3, *[NOON_US - DAY_US - 600_000_000] * 2, NOON_US - 2 * DAY_US],
            bits=[9.0, 11.0, 30.0, 20.0, 27.0, 10.0],
        ),  # the fourth led up to k1's incident, w's to what a mute withheld; v was muted a day later only
        "withheld": rows_of(
            "withheld", 3, withheld_id=["1", "2", "3"], control_id=["mute/x"] * 3, key_id=["w", "w", "v"],
            change=["opened", "escalated", "extended"], severity=["medium", "high", "medium"],
            at=[NOON_US - DAY_US] * 3,
        ),
        "controls": {name: list(column) for name, column in control_rows(words).items()},
    }  # fmt: skip


def feedback_on(letter: str, verdict: str) -> Feedback:
    finding = Finding(
        detector="spike", family="volume", bits=9.0, at="", observed=1, expected=Band(low=0, median=0, high=0), unit="",
        text="", authenticated=True, sample=Sample(at=""),
    )  # fmt: skip
    incident = Incident(
        incident_id=letter * 32, key_id="other", rule="visit", revision=1, change="opened", state="open",
        severity="high", rung="observe", opened_at=said.AT, last_at=said.AT, findings=(finding,),
    )  # fmt: skip
    return said.feedback(incident, "malicious" if verdict == "malicious" else "expected")


def test_the_report_counts_what_it_names(clickhouse: ClickHouse) -> None:
    written(clickhouse, **report_rows())
    client = connect(clickhouse, clickhouse.database)
    report = of(client, Config().budget, 7.0, [])
    client.close()
    assert report.counts == Counts(key_days=3, listed=3, paged=1, proofs=0)
    spike = next(row for row in report.precision if row["detector"] == "spike")
    assert (spike["incidents"], spike["malicious"], spike["expected"]) == (3, 1, 1), "the newest word counts"
    assert [each.key_id for each in report.adoptions] == ["k3"]
    assert [(each.key_id, each.bits) for each in report.near_misses] == [("n2", 11.0), ("v", 10.0), ("n1", 9.0)]
    assert [(each.openings, each.worst) for each in report.withheld] == [(1, "high")]


def test_an_adoption_is_reported_until_somebody_judges_it_and_no_word_on_something_else_hides_it(
    clickhouse: ClickHouse,
) -> None:
    """`a` to `c` are of one key. Judged: `c` itself, `e` and `f` by later words on others of their series."""
    opened = [NOON_US - days * DAY_US for days in (3, 3, 4, 3, 3, 3)]
    words = [
        on(feedback_on("1", "expected"), "kb", NOON_US - 60 * DAY_US, NOON_US),  # of another time
        on(feedback_on("2", "expected"), "kd", opened[3] - DAY_US, opened[3] - 1_000_000),  # before it was adopted
        on(feedback_on("3", "malicious"), "kd", opened[3] - 15 * DAY_US, NOON_US),  # of an older series
        on(feedback_on("c", "malicious"), "kb", opened[2], opened[2]),
        on(feedback_on("4", "expected"), "ke", opened[4] - 8 * DAY_US, NOON_US),
        on(feedback_on("5", "malicious"), "kf", opened[5] + DAY_US, NOON_US),
    ]
    written(
        clickhouse,
        keys_last_used=rows_of("keys_last_used", 1, key_id=["k"], last_used=[NOON_US]),
        incidents=rows_of(
            "incidents", 6, incident_id=[letter * 32 for letter in "abcdef"],
            key_id=["kb", "kb", "kb", "kd", "ke", "kf"], opened_at=opened, last_at=opened,
            body=[json.dumps({"adopted": True})] * 6,
        ),
        controls={name: list(column) for name, column in control_rows(list(starmap(Said, enumerate(words)))).items()},
    )  # fmt: skip
    client = connect(clickhouse, clickhouse.database)
    found = [each.incident_id[0] for each in of(client, Config().budget, 7.0, []).adoptions]
    client.close()
    assert sorted(found) == ["a", "b", "d"]
    assert SERIES_DAYS * DAY_US == 2 * fusion.SERIES_US


def on(word: Feedback, key_id: str, opened_us: int, at_us: int) -> Feedback:
    opened_at, at = rfc3339(opened_us), rfc3339(at_us)
    return msgspec.structs.replace(word, key_id=key_id, opened_at=opened_at, at=at)


def test_rates_have_intervals_and_nothing_to_divide_by_is_no_error() -> None:
    rates = against(Counts(key_days=1000, listed=4, paged=0, proofs=0), Config().budget)
    assert rates["listed"]["rate"] == 400.0
    assert rates["listed"]["low"] < 400 < rates["listed"]["high"]
    assert rates["page"]["low"] == 0.0 < rates["page"]["high"]
    assert against(Counts(key_days=0, listed=0, paged=0, proofs=0), Config().budget)["listed"]["rate"] == 0.0


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.0), (3, 0.82, 7.75), (10, 5.43, 16.96), (100, 84.1, 118.1)]
)
def test_the_interval_of_a_count_is_the_exact_one_within_a_few_percent(count: int, low: float, high: float) -> None:
    """Garwood's exact limits at 90 %."""
    found = poisson_interval(count)
    assert found[0] == pytest.approx(low, rel=0.03, abs=0.05)
    assert found[1] == pytest.approx(high, rel=0.03)


def test_precision_without_feedback_is_unknown() -> None:
    from pipeline.asking.report import Precision

    row = rated(Precision(detector="spike", incidents=5, malicious=0, expected=0))
    assert (row["precision"], row["low"], row["high"]) == (None, 0.0, 1.0)
    assert wilson(5, 5)[1] == 1.0
    assert 0.0 < wilson(1, 10)[0] < 0.1 < wilson(1, 10)[1] < 0.35


def test_a_mute_as_it_stands_on_the_topic_says_who_and_until_when(topic: Topic) -> None:
    operate.mute(Config(), ("pk_1", "", ""), "12h", "x")
    (word,) = topic.said
    assert isinstance(word, Mute) and word.owner_of_mute and word.until > word.at
