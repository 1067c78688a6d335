"""What deploy/ says fits the code: settings, topics, metrics, alerts with a section each, rights that parse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_connect.driver.client import Client

from pipeline.config import file as config_file
from pipeline.config.tree import ClickHouse, Config, Kafka
from pipeline.sinks.connect import connect
from pipeline.sinks.topics import PAGES_CONFIG, topic_specs

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def _run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# compose.yaml


def test_services_depend_only_on_services_and_mount_only_what_exists() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys(), name
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys(), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
            assert exists, f"{name}: {source}"


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_names_its_version() -> None:
    images = {service["image"] for service in COMPOSE["services"].values()} - {"keywatch:local"}
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.]*", image) for image in images), images


def test_the_configuration_loads_with_the_secrets_that_compose_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = COMPOSE["services"]["worker"]["environment"]
    for name, value in environment.items():
        if name.endswith("_FILE"):
            secret = tmp_path / Path(value).name
            secret.write_text("s3cret-of-the-test\n")
            monkeypatch.setenv(name, str(secret))
    loaded = config_file.load(DEPLOY / "keywatch.toml")
    assert loaded.clickhouse.password.reveal() == "s3cret-of-the-test"
    assert loaded.kafka.partitions == int(COMPOSE["services"]["topics"]["environment"]["PARTITIONS"])


def test_a_container_gets_longer_to_stop_than_the_worker_needs() -> None:
    grace_s = int(COMPOSE["services"]["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > Config().worker.stop_s


def test_the_image_runs_as_somebody_without_rights() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    final = text[text.rindex("FROM ") :]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert "build-essential" not in final


def test_secrets_are_made_once_and_kept_closed(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    shutil.copy(DEPLOY / "secrets.sh", script)
    _run("bash", str(script))
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert made.keys() == COMPOSE["secrets"].keys()
    assert all(re.fullmatch(r"[0-9a-f]{64}", text) for text in made.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    _run("bash", str(script))
    assert made == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}


# Kafka


def _topics(tmp_path: Path) -> dict[str, tuple[int, dict[str, str]]]:
    """What the script would create, seen by stand-ins of Kafka's commands."""
    calls = tmp_path / "calls"
    for name in ("kafka-topics.sh", "kafka-configs.sh"):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/bash\necho "{name} $*" >> "{calls}"\n')
        tool.chmod(0o755)
    _run("bash", str(DEPLOY / "kafka" / "topics.sh"), BROKERS="b:9092", PARTITIONS="8", KAFKA_BIN=str(tmp_path))
    found = {}
    for line in calls.read_text().splitlines():
        if made := re.search(r"--create --if-not-exists --topic (\S+) --partitions (\d+)", line):
            found[made[1]] = (int(made[2]), dict(re.findall(r"--config (\S+)=(\S+)", line)))
    return found


def test_the_topics_script_says_what_the_code_says(tmp_path: Path) -> None:
    specs = topic_specs(Config(kafka=Kafka(partitions=8)))
    expected = {spec.name: (spec.partitions, spec.config) for spec in specs}
    for pages in ("keywatch.pages", "keywatch.sources", "keywatch.lifecycle"):
        expected.setdefault(pages, (8, PAGES_CONFIG))
    found = _topics(tmp_path)
    for _, settings in found.values():
        assert settings.pop("min.insync.replicas") == "2"
    assert found == expected


# ClickHouse


@pytest.fixture
def client(front: str) -> Iterator[Client]:
    client = connect(ClickHouse(url=front), None)
    yield client
    client.close()


def test_the_rights_parse_and_the_reader_may_only_read(client: Client) -> None:
    text = re.sub(r"--[^\n]*", "", (DEPLOY / "clickhouse" / "users.sql").read_text())
    statements = [" ".join(part.split()) for part in text.split(";") if part.strip()]
    for statement in statements:
        assert client.command("SELECT formatQuery({sql:String})", parameters={"sql": statement}), statement
    grants = [
        statement for statement in statements if statement.startswith("GRANT") and "TO keywatch_read" in statement
    ]
    assert set(grants) == {
        "GRANT SELECT ON keywatch.* TO keywatch_read", "GRANT SELECT ON keywatch_shadow_*.* TO keywatch_read",
        "GRANT keywatch_read TO keywatch_reader",
    }  # fmt: skip
    assert "readonly = 1" in text
