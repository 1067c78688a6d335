"""The doctor: each fault is found and comes with what to do."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pipeline.config.tree import ClickHouse, Config, Console, Endpoint, Geo, Intake, Kafka, Respond, Secret
from pipeline.doctor import (
    STALE_DAYS,
    check,
    check_adapters,
    check_clickhouse,
    check_detectors,
    check_geo,
    check_ports,
    check_webhooks,
    main,
    of_decisions,
)
from pipeline.errors import ConfigError
from pipeline.geo.provider import DEMO_DB, SHIPPED
from pipeline.respond.adapters.settings import Adapters, Kong
from pipeline.sinks.connect import connect
from pipeline.sinks.topics import DECISIONS_CONFIG
from tests.pipeline.respond.adapters.fake_kong import TOKEN, FakeKong
from tests.pipeline.respond.adapters.peers import running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def endpoint(url: str, allow_private: bool = False) -> Config:
    hook = Endpoint(name="x", url=url, secret=Secret("whsec_x"), allow_private=allow_private)
    return Config(respond=Respond(endpoints=(hook,)))


def test_what_does_not_answer_fails_with_advice() -> None:
    config = Config(
        kafka=Kafka(brokers=f"127.0.0.1:{free_port()}"), clickhouse=ClickHouse(url=f"http://127.0.0.1:{free_port()}")
    )
    found = {finding.about: finding for finding in check(config)}
    assert found["kafka"].state == found["clickhouse"].state == "fail"
    assert "no Kafka broker answers" in found["kafka"].text
    assert found["kafka"].advice
    assert found["clickhouse"].advice


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({}, "", ""),
        ({"retention.ms": "-1"}, "", ""),
        ({"retention.ms": "604800000"}, "warn", "7.0 days: after so many without a responder"),
        ({"message.timestamp.type": "CreateTime"}, "fail", "by the clocks of whoever writes"),
        ({"cleanup.policy": "compact,delete"}, "fail", "its records have no keys"),
    ],
)
def test_a_decisions_topic_that_loses_what_stands_is_found_with_the_command_that_mends_it(
    changes: dict[str, str], state: str, words: str
) -> None:
    found = of_decisions("api.decisions", DECISIONS_CONFIG | changes)
    assert [(each.state, words in each.text) for each in found] == ([(state, True)] if state else [])
    for each in found:
        (setting,) = changes
        assert each.advice.endswith(f"--entity-name api.decisions --add-config {setting}={DECISIONS_CONFIG[setting]}")
    assert of_decisions("api.decisions", {}) == [], "of what a broker does not say nothing is said"


def test_what_takes_a_connection_and_stays_silent_is_not_waited_for(tmp_path: Path) -> None:
    """In a process of its own, since it is at its end that threads are waited for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        path = tmp_path / "k.toml"
        path.write_text(f'[kafka]\nbrokers = "{address}"\n[clickhouse]\nurl = "http://{address}"\ntimeout_s = 300.0\n')
        code = (
            "import sys; from pathlib import Path; from pipeline import doctor; doctor.CHECK_TIMEOUT_S = 1.0;"
            "sys.exit(doctor.main(Path(sys.argv[1])))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert {"kafka", "clickhouse"} <= set(re.findall(r"fail +(\w+) +no answer within 1 s", done.stdout))
    assert not done.stderr


async def test_the_shipped_geo_database_is_named_with_date_age_and_licence() -> None:
    (finding,) = await check_geo(Config())
    assert finding.state == "warn"
    assert "2022-10-29" in finding.text
    assert "days old" in finding.text
    assert "CC BY-SA 4.0" in finding.text
    assert "geo.country_db" in finding.advice


async def test_own_databases_stand_before_the_shipped_one() -> None:
    findings = await check_geo(Config(geo=Geo(country_db=str(DEMO_DB))))
    assert [finding.text.split()[0] for finding in findings] == ["keywatch-demo", "keywatch-libloc"]


def test_the_alert_on_an_old_geo_database_is_about_those_that_doctor_calls_stale() -> None:
    rules = (Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml").read_text()
    said = re.search(r'build_timestamp_seconds\{database!="(\w+)"\}\) > (\d+) \* 86400', rules)
    assert said
    assert (said[1], int(said[2])) == (SHIPPED, STALE_DAYS)


@pytest.mark.parametrize(
    ("config", "state", "words"),
    [
        (Config(), "warn", "no endpoint"),
        (endpoint("https://127.0.0.1/x"), "fail", ""),
        (endpoint("http://192.0.2.1/x"), "fail", ""),
        (endpoint("http://127.0.0.1:9/x", allow_private=True), "fail", "nobody accepts"),
        (endpoint("https://no-such-host.invalid/x"), "fail", "does not resolve"),
    ],
)
async def test_webhooks_are_judged_by_url_and_address(config: Config, state: str, words: str) -> None:
    (finding,) = await check_webhooks(config)
    assert finding.state == state
    assert words in finding.text


async def test_a_webhook_that_accepts_connections_is_well_and_gets_no_request() -> None:
    got = asyncio.Event()
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()
        got.set()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (finding,) = await check_webhooks(endpoint(f"http://127.0.0.1:{port}/x", allow_private=True))
        await asyncio.wait_for(got.wait(), 5)
    assert finding.state == "ok"
    assert heard == [b""]


async def test_a_kong_that_has_no_database_is_refused_before_anybody_needs_it() -> None:
    for database, state in (("off", "fail"), ("postgres", "ok")):
        fake = FakeKong(database)
        async with running(fake.routes()) as server:
            kong = Kong(url=server.url, token=Secret(TOKEN))
            [found] = await check_adapters(Config(respond=Respond(adapters=Adapters(kong=kong))))
        assert (found.state, found.about) == (state, "adapter kong")
        assert ("without a database" in found.text) == (state == "fail")


def test_detector_tables_are_checked_by_name_and_setting() -> None:
    from detectors import DETECTORS

    field = DETECTORS[0].config.__struct_fields__[0]
    check_detectors(Config(detectors={DETECTORS[0].name: {field: getattr(DETECTORS[0].config, field)}}))
    with pytest.raises(ConfigError, match="no such detector"):
        check_detectors(Config(detectors={"nothing": {}}))
    with pytest.raises(ConfigError, match="unknown setting"):
        check_detectors(Config(detectors={DETECTORS[0].name: {"nothing": 1}}))


def test_the_exit_code_is_1_where_something_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "k.toml"
    path.write_text(
        f'[kafka]\nbrokers = "127.0.0.1:{free_port()}"\n[clickhouse]\nurl = "http://127.0.0.1:{free_port()}"\n'
    )
    assert main(path) == 1
    shown = capsys.readouterr().out
    assert "fail" in shown
    assert "->" in shown
    sample = tmp_path / "access.log"
    sample.write_bytes(b'192.0.2.1 - anna [17/May/2015:10:05:03 +0000] "GET /x HTTP/1.1" 200 203 "-" "curl/7"\n')
    assert main(path, sample) == 0


def test_a_sample_is_read_as_intake_would_read_it_by_variables_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = tmp_path / "access.log"
    sample.write_bytes(b'192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET /x HTTP/1.1" 200 203 "-" "curl/7"\n')
    assert main(None, sample) == 1
    assert "intake.key_field" in capsys.readouterr().out
    monkeypatch.setenv("KEYWATCH_INTAKE__KEY_FIELD", "address")
    assert main(None, sample) == 0
    assert "1 keys, e.g. 192.0.2.1" in capsys.readouterr().out


async def test_ports_beyond_this_machine_are_told_and_one_that_takes_events_needs_a_token() -> None:
    assert await check_ports(Config()) == []
    wide = Intake(http_host="0.0.0.0", metrics_host="::")
    found = await check_ports(Config(intake=wide))
    assert [(each.state, each.about) for each in found] == [("fail", "intake"), ("warn", "metrics")]
    told = msgspec.structs.replace(wide, http_token=Secret("t"))
    assert [each.state for each in await check_ports(Config(intake=told))] == ["warn", "warn"]
    console = Config(console=Console(host="0.0.0.0", secure_cookie=True))
    assert [(each.state, each.about) for each in await check_ports(console)] == [("warn", "console")]


HOSTS = [
    (section, name)
    for section in Config.__struct_fields__
    for name in getattr(getattr(Config(), section), "__struct_fields__", ())
    if name.endswith("host")
]


@pytest.mark.parametrize(("section", "name"), HOSTS)
async def test_every_port_that_others_can_reach_is_named(section: str, name: str) -> None:
    part = msgspec.structs.replace(getattr(Config(), section), **{name: "0.0.0.0"})
    (found,) = await check_ports(msgspec.structs.replace(Config(), **{section: part}))
    port = getattr(part, name.replace("host", "port"))
    assert found.text.startswith(f"{section}.{name} is 0.0.0.0, port {port}: ")
    assert found.advice


async def test_two_clusters_that_write_into_one_database_are_told(clickhouse: ClickHouse) -> None:
    client = connect(clickhouse, clickhouse.database)
    for age_h, epoch, told in ((5, "before", []), (0, "one", []), (0, "two", ["one, two"])):
        client.command(f"INSERT INTO requests (key_id, ts, epoch) VALUES ('k', now64(6) - {age_h * 3_600}, '{epoch}')")
        warned = [each for each in await check_clickhouse(Config(clickhouse=clickhouse)) if each.state == "warn"]
        assert [each.text.rpartition(": ")[2] for each in warned] == told
    client.close()
