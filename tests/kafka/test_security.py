"""TLS, SASL/SCRAM and the ACLs of `deploy/kafka/acls.sh` on a real broker that allows nobody anything else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from pipeline.config.tree import ClickHouse, Config, Kafka, Secret
from pipeline.core import TICK_HEADER
from pipeline.doctor import check_kafka
from pipeline.errors import Fatal
from pipeline.runners.ending import EXIT_FATAL
from pipeline.runners.published import newest_incidents
from pipeline.runners.topology import TOPOLOGIES, settings_of
from pipeline.shadow import shadowed
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.kafka import Producer, fetched_highwaters, side_consumer
from pipeline.sinks.topics import ensure_topics
from pipeline.state.manifest import Key, key_bytes
from tests.kafka import cluster
from tests.kafka.comparison import finish_counts
from tests.kafka.conftest import available, long
from tests.kafka.deployment import DRAIN_S, Deployment, last_words, pid_of

pytestmark = pytest.mark.kafka

ROOT: Final = Path(__file__).parents[2]
NAMES: Final = (
    "keywatch-worker", "keywatch-intake", "keywatch-leaks", "keywatch-respond", "keywatch-oncall", "keywatch-console",
)  # fmt: skip
USERS: Final = {name: f"secret-of-{name}" for name in NAMES}
STRANGER: Final = {"stranger": "secret-of-stranger"}
WAIT_S: Final = 90.0
PAGE: Final = key_bytes(Key("page", 0, "none", 0, 0, "none", 0, 0))
NOTHING: Final = cast("bytes", None)

TOLD: Final = {"api.sightings", "api.key_events", "keywatch.sources", "keywatch.lifecycle"}
SHADOW: Final = {"api.incidents.shadow-new", "api.requests.rejected.shadow-new", "keywatch.pages.shadow-new"}
MAY_WRITE: Final = {
    "keywatch-worker": {"api.requests", "api.requests.rejected", "api.incidents", "keywatch.pages", *TOLD, *SHADOW},
    "keywatch-intake": {"api.requests", "api.requests.rejected", "api.key_events"},
    "keywatch-leaks": {"api.incidents", "api.keys"},
    "keywatch-respond": {"api.decisions", "api.responses"},
    "keywatch-oncall": {"api.decisions", "api.control"},
    "keywatch-console": {"api.decisions", "api.control"},
    "stranger": set(),
}
MAY_READ: Final = {
    "keywatch-worker": {"api.requests", "api.keys", "api.control", "api.incidents", "keywatch.pages", *TOLD, *SHADOW},
    "keywatch-intake": {"gateway.raw"},
    "keywatch-leaks": {"api.keys"},
    "keywatch-respond": {"api.incidents", "api.requests", "api.keys", "api.decisions", "api.responses"},
    "keywatch-oncall": {"api.decisions", "api.control", "api.keys"},
    "keywatch-console": {"api.decisions", "api.control", "api.keys"},
    "stranger": set(),
}
TOPICS: Final = (
    "gateway.raw", "api.requests", "api.requests.rejected", "api.keys", "api.control", "api.incidents",
    "api.decisions", "api.responses", "keywatch.pages", *sorted(TOLD | SHADOW),
)  # fmt: skip


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Cluster]:
    """A node with the users, the topics, and what the deployed script allows."""
    available()
    folder = tmp_path_factory.mktemp("secured")
    running = cluster.start(folder, users=USERS | STRANGER)
    try:
        allow(running, folder)
        settings = Config(kafka=Kafka(brokers=running.brokers, partitions=2))
        for topology in TOPOLOGIES:
            asyncio.run(ensure_topics(settings_of(settings, topology)))
        asyncio.run(ensure_topics(shadowed(settings, "new")))
        yield running
    finally:
        running.stop()


def allow(running: cluster.Cluster, folder: Path) -> None:
    """The deployment's own script, with a kafka-acls.sh that has the tests' jars."""
    tool = folder / "kafka-acls.sh"
    java = " ".join(f"'{part}'" for part in cluster.JAVA)
    tool.write_text(f'#!/bin/bash\nexec {java} org.apache.kafka.tools.AclCommand "$@"\n')
    tool.chmod(0o755)
    environment = dict(os.environ) | {"BROKERS": running.brokers, "KAFKA_BIN": str(folder), "SHADOW": "new"}
    command = ["bash", str(ROOT / "deploy/kafka/acls.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def kafka_as(running: cluster.Cluster, user: str) -> Kafka:
    return Kafka(
        brokers=running.secured_brokers, security="SASL_SSL", username=user, ca_file=str(running.ca_file),
        password=Secret((USERS | STRANGER)[user]), declare_topics=False, partitions=2,
    )  # fmt: skip


@pytest.mark.parametrize("user", list(MAY_WRITE))
async def test_each_user_writes_and_reads_what_it_needs_and_nothing_else(secured: cluster.Cluster, user: str) -> None:
    kafka = kafka_as(secured, user)
    assert {topic for topic in TOPICS if await can_write(kafka, topic)} == MAY_WRITE[user]
    assert {topic for topic in TOPICS if await can_read(kafka, topic)} == MAY_READ[user]


async def can_write(kafka: Kafka, topic: str) -> bool:
    """A tombstone of what never was, which every reader passes over."""
    producer = Producer(kafka)
    try:
        await producer.start()
        await producer.publish(topic, PAGE, NOTHING, [(TICK_HEADER, b"1")], 0)
    except Fatal as error:
        assert "AuthorizationFailed" in str(error)
        return False
    finally:
        await producer.close()
    return True


async def can_read(kafka: Kafka, topic: str) -> bool:
    async with side_consumer(kafka) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        try:
            await consumer.getmany(partition, timeout_ms=2_000)
        except TopicAuthorizationFailedError:
            return False
        return consumer.highwater(partition) is not None  # without sight of the topic no fetch is ever sent


async def test_doctor_is_content_with_what_the_script_allows(secured: cluster.Cluster) -> None:
    findings = await check_kafka(Config(kafka=kafka_as(secured, "keywatch-worker")))
    assert {finding.state for finding in findings} == {"ok"}, findings


async def test_a_user_who_may_not_read_the_incidents_is_told_what_that_costs(
    secured: cluster.Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    assert await newest_incidents(Config(kafka=kafka_as(secured, "keywatch-worker")))() == []
    assert not caplog.records
    assert await newest_incidents(Config(kafka=kafka_as(secured, "keywatch-intake")))() == []
    assert [record.levelname for record in caplog.records if "api.incidents may not be read" in record.message] == [
        "WARNING"
    ]


CONFIG: Final = """\
[kafka]
brokers = "{brokers}"
security = "SASL_SSL"
username = "{user}"
password = "{password}"
ca_file = "{ca_file}"
declare_topics = false
session_timeout_s = 6.0
heartbeat_s = 1.0
[clickhouse]
url = "{url}"
database = "{database}"
expire = false
[worker]
checkpoint_s = 0.5
metrics_port = 0
ticks = false
[respond]
metrics_port = 0
[intake]
metrics_port = 0
"""


def config_file(
    secured: cluster.Cluster, clickhouse: ClickHouse, folder: Path, user: str, password: str = ""
) -> Path:  # fmt: skip
    path = folder / f"{user}.toml"
    path.write_text(
        CONFIG.format(
            brokers=secured.secured_brokers, user=user, password=password or USERS[user], ca_file=secured.ca_file,
            url=clickhouse.url, database=clickhouse.database,
        )
    )  # fmt: skip
    return path


def command(verb: str, config: Path, *rest: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli.main", verb, "--config", str(config), *rest]


@pytest.mark.parametrize("runner", ["faust", "plain"])
def test_intake_and_worker_run_with_their_own_users_to_the_end_of_the_log(
    secured: cluster.Cluster, clickhouse: ClickHouse, tmp_path: Path, runner: str
) -> None:  # fmt: skip
    take_in(config_file(secured, clickhouse, tmp_path, "keywatch-intake"), tmp_path, runner)
    code, log = run_worker(secured, config_file(secured, clickhouse, tmp_path, "keywatch-worker"), runner, tmp_path)
    assert code == 0, log[-3000:]
    assert offsets(secured, "committed") == offsets(secured, "ends")


def take_in(config: Path, folder: Path, prefix: str) -> None:
    """600 requests through the intake."""
    events = folder / "events.jsonl"
    lines = [
        {"key_id": f"k{n % 7}", "ts": f"2026-03-02T10:{n // 60:02}:{n % 60:02}Z", "client_ip": "192.0.2.7",
         "method": "GET", "path": "/v1/orders", "status": 200, "request_id": f"{prefix}-{n}"}
        for n in range(600)
    ]  # fmt: skip
    events.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines))
    intake = command("intake", config, "--from", "files", str(events))
    done = subprocess.run(intake, capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def run_worker(secured: cluster.Cluster, config: Path, runner: str, folder: Path) -> tuple[int, str]:
    """A worker until the log's end is committed, then SIGTERM; its exit code and what it wrote."""
    log = folder / "worker.log"
    with log.open("wb") as out:
        guarded = ["timeout", "-s", "KILL", "180", *command("worker", config, "--runner", runner)]
        worker = subprocess.Popen(guarded, stdout=out, stderr=out)
    until = time.monotonic() + WAIT_S
    while offsets(secured, "committed") != offsets(secured, "ends"):
        assert worker.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
        time.sleep(0.5)
    os.kill(pid_of(worker), signal.SIGTERM)
    return worker.wait(40), log.read_text()


def offsets(secured: cluster.Cluster, kind: str) -> dict[int, int]:
    kafka = Kafka(brokers=secured.brokers)
    if kind == "ends":
        return asyncio.run(fetched_highwaters(kafka, "api.requests", [0, 1]))
    return {n: offset for n, offset in asyncio.run(committed_offsets(kafka, "api.requests")).items() if offset}


@pytest.mark.parametrize(
    ("user", "password", "words"),
    [
        ("keywatch-worker", "wrong", "refuses user 'keywatch-worker'"),
        ("stranger", "secret-of-stranger", "grant"),
    ],
)
@pytest.mark.parametrize("verb", ["worker", "respond", "intake"])
def test_wrong_credentials_are_one_clear_line_and_no_start(
    secured: cluster.Cluster, clickhouse: ClickHouse, tmp_path: Path, user: str, password: str, words: str, verb: str
) -> None:  # fmt: skip
    config = config_file(secured, clickhouse, tmp_path, user, password)
    done = subprocess.run(command(verb, config), capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode in (1, 2), done.stderr.decode()[-2000:]
    last = done.stderr.decode().strip().splitlines()[-1]
    assert words in last and password not in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.fixture(scope="module")
def certified(secured: cluster.Cluster) -> Path:
    """Of the listener that asks for certificates: those of two users of this name who may do all, as Strimzi has it."""
    named = []
    for user in ("keywatch-worker", "keywatch-intake"):
        cluster.make_certificate(secured.folder, user, user)
        named += ["--allow-principal", f"User:CN={user}"]
    acl(secured, "--add", "--force", *named, "--operation", "All", "--topic", "*", "--group", "*")
    return secured.folder


def by_certificate(secured: cluster.Cluster, config: Path, folder: Path | None) -> Path:
    """The same configuration, which shows the user's certificate where it signed in by a password."""
    text = config.read_text().replace(secured.secured_brokers, secured.certified_brokers).replace("SASL_SSL", "SSL")
    files = f'cert_file = "{folder}/{config.stem}.crt"\nkey_file = "{folder}/{config.stem}.key"\n' if folder else ""
    config.write_text(re.sub(r"username = .*\npassword = .*\n", files, text, count=1))
    return config


@pytest.mark.parametrize("runner", ["faust", "plain"])
def test_intake_and_worker_run_by_certificates_alone_to_the_end_of_the_log(
    secured: cluster.Cluster, certified: Path, clickhouse: ClickHouse, tmp_path: Path, runner: str
) -> None:  # fmt: skip
    intake, worker = [
        by_certificate(secured, config_file(secured, clickhouse, tmp_path, user), certified)
        for user in ("keywatch-intake", "keywatch-worker")
    ]
    take_in(intake, tmp_path, f"by-certificate-{runner}")
    code, log = run_worker(secured, worker, runner, tmp_path)
    assert code == 0, log[-3000:]
    assert offsets(secured, "committed") == offsets(secured, "ends")
    told = subprocess.run(command("doctor", worker), capture_output=True, timeout=WAIT_S, check=False).stdout
    assert b"answers (SSL)" in told
    assert b"certificate of CN=keywatch-worker lasts until" in told


@pytest.mark.parametrize("verb", ["worker --runner faust", "worker --runner plain", "respond", "intake"])
@pytest.mark.parametrize(
    ("whose", "words"),
    [
        ("", "asks for a client certificate: set kafka.cert_file"),
        ("another", "refuses the certificate of 'CN=keywatch"),
    ],
)
def test_no_certificate_or_one_that_the_brokers_do_not_trust_is_one_clear_line_and_no_start(
    secured: cluster.Cluster, clickhouse: ClickHouse, tmp_path: Path, whose: str, words: str, verb: str
) -> None:  # fmt: skip
    config = config_file(secured, clickhouse, tmp_path, "keywatch-worker")
    if whose:
        cluster.make_certificates(tmp_path)
        cluster.make_certificate(tmp_path, config.stem, config.stem)
    name, *rest = verb.split()
    starting = command(name, by_certificate(secured, config, tmp_path if whose else None), *rest)
    done = subprocess.run(starting, capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode in (1, 2), done.stderr.decode()[-2000:]
    assert words in done.stderr.decode().strip().splitlines()[-1]
    assert "Traceback" not in done.stderr.decode()


RIGHTS: Final = {
    "requests": ("Read", "--topic", "requests"),
    "group": ("Read", "--group", "group"),
    "pages": ("Write", "--topic", "pages"),
    "incidents": ("Write", "--topic", "incidents"),
}


def acl(secured: cluster.Cluster, *arguments: str) -> None:
    """Kafka's own command."""
    tool = secured.folder / "kafka-acls.sh"
    command = ["bash", str(tool), "--bootstrap-server", secured.brokers, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.fixture
def deployed(secured: cluster.Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A deployment whose workers have a user of their own; everything else is done as the super user."""
    runner, right = request.param
    prefix = f"rights-{runner}-{right}"
    deployment = Deployment(secured.brokers, prefix, tmp_path / prefix, runner, {"stuck_s": 10.0})
    user = "keywatch-worker"
    named = {
        "brokers": secured.secured_brokers, "security": "SASL_SSL", "username": user, "password": USERS[user],
        "ca_file": str(secured.ca_file),
    }  # fmt: skip
    deployment.environment["KW_USER"] = json.dumps(named)
    mine = ("--resource-pattern-type", "prefixed", "--topic", f"{prefix}.", "--group", f"{prefix}.")
    acl(secured, "--add", "--allow-principal", f"User:{user}", "--operation", "All", *mine)
    yield deployment
    deployment.kill_all()


@pytest.mark.parametrize(
    ("deployed", "right"),
    [
        pytest.param((runner, right), right, marks=() if (runner, right) == ("faust", "incidents") else long)
        for runner in ("faust", "plain")
        for right in RIGHTS
    ],
    indirect=["deployed"],
    ids=lambda each: each if isinstance(each, str) else each[0],
)
def test_a_right_that_is_taken_away_ends_the_worker_with_clear_words_and_loses_nothing(
    secured: cluster.Cluster, deployed: Deployment, right: str
) -> None:
    operation, kind, name = RIGHTS[right]
    forbidden = ("--operation", operation, kind, f"{deployed.prefix}.{name}")
    deployed.produce(1_000)
    worker = deployed.start()
    deployed.wait_drained()
    acl(secured, "--add", "--deny-principal", "User:keywatch-worker", *forbidden)
    deployed.produce(1_000)
    assert worker.wait(DRAIN_S) == EXIT_FATAL, deployed.log_of(worker)[-3000:]
    assert f"{deployed.prefix}.{name}" in last_words(deployed, worker)
    again = deployed.start()
    assert again.wait(DRAIN_S) in (1, EXIT_FATAL), deployed.log_of(again)[-3000:]
    acl(secured, "--remove", "--force", "--deny-principal", "User:keywatch-worker", *forbidden)
    deployed.wait_session_over()
    finish_counts(deployed)
