"""deploy/SECURITY.md says of ports, rights and lifetimes what code and deployment say."""

from __future__ import annotations

import re
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from pipeline.config.tree import Config
from pipeline.health import Health, _app
from pipeline.intake.http import make_app
from pipeline.intake.run import Pump
from pipeline.privacy import erase
from schemas.rows import TABLES
from tests.pipeline.intake.test_run import Broker

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "SECURITY.md").read_text()


def test_the_ports_are_those_of_the_configuration_with_their_defaults() -> None:
    told = re.findall(r"^\| `(\w+)\.(\w+)`, `\w+\.(\w+)` \| ([\d.]+):(\d+) \|", TEXT, re.MULTILINE)
    expected = set()
    for section in Config.__struct_fields__:
        part = getattr(Config(), section)
        for name in getattr(part, "__struct_fields__", ()):
            if name.endswith("port"):
                host = name.replace("port", "host")
                expected.add((section, host, name, getattr(part, host), str(getattr(part, name))))
    assert set(told) == expected


def test_every_path_that_is_answered_is_told_and_only_intake_takes_anything() -> None:
    def routes(app: web.Application) -> set[tuple[str, str]]:
        return {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}

    reading = routes(_app(Health(), CollectorRegistry()))
    assert {method for method, _ in reading} == {"GET", "HEAD"}
    assert all(f"`{path}`" in TEXT for _, path in reading)
    assert routes(make_app(Config(), Pump(Config(), Broker()))) == {("POST", "/"), ("POST", "/v1/logs")}


def test_the_kafka_rights_are_those_of_the_script() -> None:
    script = (ROOT / "deploy" / "kafka" / "acls.sh").read_text().replace("\\\n", " ")
    for who, variable in (("intake", "INTAKE"), ("worker", "WORKER"), ("responder", "RESPONDER")):
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| {who} |"))
        kafka = row.split("|")[2]
        reads, _, writes = kafka.partition(";")
        for operation, told in (("Read", reads), ("Write", writes)):
            given = re.search(rf'allow "\${variable}" {operation} (?:"([^"]*)"|(\S+))', script)
            assert given is not None
            assert set(re.findall(r"`([\w.]+)`", told)) == set((given[1] or given[2]).split()), (who, operation)


def test_the_lifetimes_are_those_of_the_tables() -> None:
    told: dict[str, int] = {}
    for line in TEXT[TEXT.index("## What is kept") :].splitlines():
        if days := re.search(r"\| (\d+) days \|$", line):
            told |= dict.fromkeys(re.findall(r"`([a-z_0-9]+)`", line), int(days[1]))
    real: dict[str, int] = {}
    for path in sorted((ROOT / "schemas" / "clickhouse").glob("*.sql")):
        for part in path.read_text().split("CREATE TABLE")[1:]:
            name = re.search(r"(?:IF NOT EXISTS )?(?:\w+\.)?(\w+)", part.strip())
            days = re.search(r"^TTL .* INTERVAL (\d+) DAY", part, re.MULTILINE)
            if name and days:
                real[name[1]] = int(days[1])
    assert told == real


def test_every_table_has_its_line_of_what_is_kept() -> None:
    kept = TEXT[TEXT.index("## What is kept") : TEXT.index("## Whose data goes")]
    assert set(re.findall(r"`([a-z_0-9]+)`", kept)) >= TABLES.keys()


def test_addresses_are_told_where_they_are_and_for_how_long() -> None:
    [line] = [each for each in TEXT.splitlines() if each.startswith("| client addresses")]
    assert f"({Config().privacy.truncate_addresses_days} days" in line
    with_address = {table for table, columns in TABLES.items() if "client_ip" in dict(columns)}
    assert all(f"`{table}`" in line for table in with_address)


def test_what_may_be_erased_is_never_the_audit() -> None:
    text = (ROOT / "deploy" / "clickhouse" / "users.sql").read_text()
    for table in ("responses", "console_log"):
        assert table in erase.KEPT
        assert f"REVOKE ALTER DELETE, ALTER UPDATE ON keywatch.{table} FROM keywatch_erase;" in text
