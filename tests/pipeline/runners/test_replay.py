"""Replay runs the worker's core over files: the same bytes each time, wherever its slices end, on real logs too."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.errors import ConfigError, Fatal
from pipeline.keys.catalogue import Catalogue
from pipeline.runners.replay import Outcome, Replay, ReplayOptions, main, run, show, write
from schemas.event import Event
from schemas.incident import Incident
from tests.pipeline.log_of_requests import GEO, HOUR_US, START_US, log
from tests.real_data import real

FILES = ("incidents.jsonl", "findings.jsonl", "requests_1m.jsonl")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "events.jsonl"
    path.write_bytes(b"\n".join(value for _, value, _ in log(1) if value))
    return path


def result(options: ReplayOptions, folder: Path) -> tuple[Outcome, list[bytes]]:
    outcome = run(options)
    write(outcome, folder)
    return outcome, [(folder / name).read_bytes() for name in FILES]


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(slice_events=st.integers(1, 700))
def test_the_same_input_cut_anywhere_gives_the_same_bytes(native: Path, tmp_path: Path, slice_events: int) -> None:
    whole = result(ReplayOptions(paths=(native,)), tmp_path / "whole")[1]
    assert result(ReplayOptions(paths=(native,), slice_events=slice_events), tmp_path / "cut")[1] == whole
    assert all(whole)


def test_without_the_compiler_it_gives_the_same_bytes(native: Path, tmp_path: Path) -> None:
    """NUMBA_DISABLE_JIT=1 is the debugger's way through the whole core, and the oracle of what is compiled."""
    few = tmp_path / "few.jsonl"
    few.write_bytes(b"\n".join(native.read_bytes().splitlines()[-60:]))
    compiled = result(ReplayOptions(paths=(few,)), tmp_path / "compiled")[1]
    command = [sys.executable, "-m", "pipeline.cli.main", "replay", str(few), "--out", str(tmp_path / "plain")]
    plain = subprocess.run(command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, timeout=600)
    assert plain.returncode == 0, plain.stderr.decode()
    assert b"Warning" not in plain.stderr
    assert [(tmp_path / "plain" / name).read_bytes() for name in FILES] == compiled
    assert compiled[2]


def test_a_line_of_incidents_has_what_its_readers_rely_on(native: Path, tmp_path: Path) -> None:
    outcome, (incidents, *_) = result(ReplayOptions(paths=(native,)), tmp_path)
    lines = [msgspec.json.decode(line) for line in incidents.splitlines()]
    assert len(lines) == len(outcome.incidents) > 0
    wanted = {"incident_id", "key_id", "opened_at", "last_at", "severity", "bits", "text", "findings", "rung"}
    assert all(wanted <= set(line) for line in lines)
    assert all({"detector", "bits", "at", "observed", "expected", "text"} <= set(f) for f in lines[0]["findings"])


def test_the_summary_has_its_keys(native: Path) -> None:
    summary = run(ReplayOptions(paths=(native,))).summary()
    assert {"events", "rejected", "keys", "findings", "incidents", "seconds", "events_per_s"} <= set(summary)
    assert summary["rejected"]


def test_it_says_how_many_of_the_logs_keys_are_declared(native: Path, tmp_path: Path) -> None:
    """A file whose ids are written in another way would change nothing, and nobody would know."""
    (tmp_path / "keys.csv").write_text("key_id,owner\npk_1,a\npk_2,b\nkey_of_another_log,c\n")
    assert run(ReplayOptions(paths=(native,), keys=tmp_path / "keys.csv")).summary()["declared"] == 2
    assert run(ReplayOptions(paths=(native,))).summary()["declared"] == 0


def test_a_log_of_which_nothing_could_be_read_is_a_failure_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_file = tmp_path / "some.log"
    log_file.write_text("no event\n")
    with pytest.raises(Fatal, match="doctor --sample"):
        main(ReplayOptions(paths=(log_file,), json=True))
    assert msgspec.json.decode(capsys.readouterr().out)["rejected"] == {"undecodable": 1}


def test_an_ordinary_access_log_says_that_the_address_can_be_the_key(tmp_path: Path) -> None:
    log_file = tmp_path / "access.log"
    log_file.write_text('192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 1 "-" "curl/8"\n')
    with pytest.raises(Fatal, match="--key-from address"):
        main(ReplayOptions(paths=(log_file,), format="combined", json=True))
    assert main(ReplayOptions(paths=(log_file,), format="combined", key_from="address", json=True)) == 0


def test_a_log_with_the_keys_themselves_is_replayed_by_their_hmac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As intake reads it: with the names that `learn` and the worker give these keys."""
    sample = Path(__file__).parents[3] / "schemas/examples/formats/nginx/raw_key_with_pepper.json"
    monkeypatch.setenv("KEYWATCH_INTAKE__PEPPER", "a-pepper")
    outcome = run(ReplayOptions(paths=(sample,), format="nginx", key_from="http_x_api_key"))
    assert (outcome.events, outcome.keys) == (1, 1)


def test_what_a_caller_of_the_api_chose_can_not_steer_the_terminal() -> None:
    golden = Path(__file__).parents[3] / "schemas/examples/incident/v1/opened.json"
    incident = msgspec.json.decode(golden.read_bytes(), type=Incident)
    outcome, console = Outcome(), Console(file=io.StringIO(), force_terminal=True, color_system=None)
    text = "by \x1b]0;owned\x07agent[/bold][red]"
    outcome.incidents["x"] = msgspec.structs.replace(incident, text=text)
    show(outcome, console)
    assert isinstance(console.file, io.StringIO)
    assert "by ?]0;owned?agent[/bold][red]" in console.file.getvalue()


def test_a_folder_that_can_not_be_made_is_named(native: Path) -> None:
    with pytest.raises(ConfigError, match=f"--out {native}: File exists; name a folder"):
        main(ReplayOptions(paths=(native,), out=native, json=True))


def test_keys_go_to_the_partition_of_their_producer(native: Path) -> None:
    one, four = run(ReplayOptions(paths=(native,))), run(ReplayOptions(paths=(native,), partitions=4))
    assert one.keys == four.keys
    assert one.events == four.events


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ReplayOptions(), "--topic"),
        (ReplayOptions(paths=(Path("/nowhere"),)), "does not exist"),
        (ReplayOptions(paths=(Path("/nowhere"),), format="xml"), "known are"),
        (ReplayOptions(paths=(Path("/nowhere"),), partitioner="md5"), "known are"),
        (ReplayOptions(paths=(Path("/nowhere"),), format="combined", key_from="host"), "user and address"),
    ],
)
def test_a_wrong_use_says_what_to_do(options: ReplayOptions, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(options)


def test_invictus_brings_no_false_alarm_and_its_attack_on_a_key_of_14_min_is_missed(tmp_path: Path) -> None:
    """There it is volume alone: no rarer than what visits of keys with few visits reach. At a day others are listed."""
    wide = tmp_path / "keywatch.toml"
    wide.write_text("[budget]\nlisted = 100000.0\n")
    for config, listed in ((None, 0), (wide, 3)):
        outcome = run(ReplayOptions(paths=(real("cloudtrail-invictus"),), format="cloudtrail", config=config))
        assert outcome.events == 2815
        assert outcome.rejected == {"no_key": 85}
        assert len(outcome.incidents) == listed
        assert "AKIATFQR7NSC8Q4X20BJ" not in {each.key_id for each in outcome.incidents.values()}
        assert all(each.findings for each in outcome.incidents.values()), "nobody is listed for nothing"


def test_the_apache_log_brings_few_incidents() -> None:
    options = ReplayOptions(paths=(real("weblog-elastic-apache/apache_logs"),), format="combined", key_from="address")
    outcome = run(options)
    assert (outcome.events, outcome.keys) == (10_000, 1753)
    assert len(outcome.incidents) <= 5


def test_who_comes_from_a_network_that_no_database_knows_is_from_elsewhere_all_the_same(tmp_path: Path) -> None:
    calls = [(day * 24 + hour, "8.8.8.8", "okhttp/4.9") for day in range(30) for hour in (8, 11, 14, 17)]
    calls += [(30 * 24 + 12, "45.155.205.7", "curl/8.1")]
    lines = [
        Event(key_id="pk_0", ts_us=START_US + hour * HOUR_US + i * 5_000_000, client_ip=address, user_agent=agent,
              method="GET", route="/v1/orders", status=200, outcome="success", request_id=f"{hour}-{i}")
        for hour, address, agent in calls for i in range(4)
    ]  # fmt: skip
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines))
    write(run(ReplayOptions(paths=(path,))), tmp_path)
    assert "from an unknown network in RU, never seen for this key" in (tmp_path / "findings.jsonl").read_text()


def test_what_is_late_by_less_than_a_millisecond_is_late_in_replay_as_in_the_worker() -> None:
    """Records that a worker reads carry a time after their event's; a replayed one's must not hold time back."""

    def event(ts_us: int, name: str) -> Event:
        return Event(key_id="pk_0", ts_us=ts_us, outcome="success", request_id=name)

    replay = Replay(Config(), Sides(Catalogue.empty(), GEO, "c1"), 1, "murmur2", 1000)
    replay.feed(event(START_US + 999, "newest"))
    replay.feed(event(START_US + 500 - 120_000_000, "late by 499 us"))
    assert replay.finish().counts["late"] == 1


def test_a_bar_is_shown_to_people_and_not_to_programs(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def counted(things: Iterable[object], doing: str, shown: bool) -> Iterable[object]:
        asked.append((doing, shown))
        return things

    monkeypatch.setattr("pipeline.runners.replay.counted", counted)
    run(ReplayOptions(paths=(native,)))
    run(ReplayOptions(paths=(native,), json=True))
    assert asked == [("replaying", True), ("replaying", False)]
