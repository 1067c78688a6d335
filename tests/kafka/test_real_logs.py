"""The real logs the whole way, by the commands a user has: `keywatch intake` puts the files on the topic, `keywatch
worker` judges them into ClickHouse and is killed on its way; what stands there then is what `keywatch replay` gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from pipeline.config.file import load
from pipeline.config.tree import ClickHouse, Config
from pipeline.runners.replay import ReplayOptions, incident_line, run
from pipeline.sinks.connect import connect
from pipeline.sinks.topics import ensure_topics
from schemas.incident import Incident
from tests.kafka.cluster import Cluster
from tests.kafka.deployment import Deployment, pid_of, read_topic
from tests.real_data import real

pytestmark = pytest.mark.kafka

PARTITIONS: Final = 4
WAIT_S: Final = 90.0


@dataclass
class Product:
    """The product as a user runs it: a configuration file and the command."""

    config_file: Path
    folder: Path

    @property
    def config(self) -> Config:
        return load(self.config_file, {})

    def run(self, *args: str) -> None:
        done = subprocess.run(self._command(*args), capture_output=True, timeout=WAIT_S, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        with (self.folder / "worker.log").open("ab") as out:
            return subprocess.Popen(["timeout", "-s", "KILL", "240", *self._command(*args)], stdout=out, stderr=out)

    def _command(self, *args: str) -> list[str]:
        command, *rest = args
        return [sys.executable, "-m", "pipeline.cli.main", command, "--config", str(self.config_file), *rest]

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()


CONFIG: Final = """\
[kafka]
brokers = "{brokers}"
group = "{name}"
partitions = 4
session_timeout_s = 6.0
heartbeat_s = 1.0
rebalance_timeout_s = 6.0
[topics]
{topics}
[clickhouse]
url = "{url}"
database = "{database}"
expire = false
[worker]
checkpoint_s = 0.5
metrics_port = 0
ticks = false
[intake]
format = "{format}"
key_field = "{key_from}"
metrics_port = 0

[budget]
listed = 100000.0  # so that there are incidents to compare
"""


@pytest.fixture
def product(node: Cluster, clickhouse: ClickHouse, tmp_path: Path, request: pytest.FixtureRequest) -> Product:
    format_name, key_from = request.param
    name = f"real{os.getpid()}-{time.monotonic_ns()}"
    names = ("raw", "requests", "rejected", "keys", "incidents", "decisions", "responses", "pages")
    topics = "\n".join(f'{each} = "{name}.{each}"' for each in names)
    path = tmp_path / "keywatch.toml"
    path.write_text(
        CONFIG.format(
            brokers=node.brokers, name=name, topics=topics, url=clickhouse.url, database=clickhouse.database,
            format=format_name, key_from=key_from,
        )
    )  # fmt: skip
    return Product(path, tmp_path)


def rows(product: Product, sql: str) -> list[Any]:
    clickhouse = product.config.clickhouse
    client = connect(clickhouse, clickhouse.database)
    try:
        return list(client.query(sql).result_rows)
    finally:
        client.close()


def drained(deployment: Deployment) -> bool:
    return deployment.committed() == deployment.ends()


class Watched(Deployment):
    """Offsets of the product's topics, with the product's own configuration."""

    product: Product

    @property
    def config(self) -> Config:
        return self.product.config


@pytest.mark.parametrize(
    ("runner", "product", "logs"),
    [
        ("faust", ("cloudtrail", ""), "cloudtrail-invictus"),
        ("faust", ("cloudtrail", ""), "cloudtrail-stratus"),
        ("faust", ("combined", "address"), "weblog-elastic-apache/apache_logs"),
        ("plain", ("cloudtrail", ""), "cloudtrail-invictus"),
    ],
    indirect=["product"],
)
def test_the_topic_gives_what_replay_gives(product: Product, logs: str, runner: str, node: Cluster) -> None:
    files = real(logs)
    Watched.product = product
    watched = Watched(node.brokers, "unused", product.folder / "watched")
    watched.run(ensure_topics(product.config))
    product.run("intake", "--from", "files", str(files))
    kill_on_the_way(product, runner)
    worker = product.start("worker", "--runner", runner)
    wait(lambda: drained(watched), product)
    os.kill(pid_of(worker), signal.SIGTERM)
    assert worker.wait(40) == 0, product.log()[-3000:]
    assert watched.committed() == watched.ends() == watched.manifests()
    config = product.config
    options = ReplayOptions(
        paths=(files,), format=config.intake.format, key_from=config.intake.key_field, partitions=PARTITIONS,
        config=product.config_file,
    )  # fmt: skip
    truth = run(options)
    wanted = sorted(incident_line(incident) for incident in truth.incidents.values())
    bodies = [body for (body,) in rows(product, "SELECT body FROM incidents FINAL")]
    assert sorted(incident_line(msgspec.json.decode(body, type=Incident)) for body in bodies) == wanted
    assert newest_on_topic(watched) == wanted
    ((requests, counted),) = rows(
        product, "SELECT (SELECT count() FROM requests FINAL), sum(requests) FROM requests_1m FINAL"
    )
    assert requests == truth.events - truth.counts["rejects"]
    assert counted == requests
    findings = rows(product, "SELECT detector, count() FROM findings FINAL GROUP BY detector")
    assert dict(findings) == dict(truth.findings)


def kill_on_the_way(product: Product, runner: str) -> None:
    """A worker that ends by kill -9 as soon as it has published or written something."""
    worker = product.start("worker", "--runner", runner)
    wait(lambda: bool(rows(product, "SELECT 1 FROM requests LIMIT 1")), product)
    os.kill(pid_of(worker), signal.SIGKILL)
    worker.wait(20)
    time.sleep(7)  # the dead member's session


def newest_on_topic(watched: Watched) -> list[bytes]:
    newest: dict[str, Incident] = {}
    for record in watched.run(read_topic(watched.config, watched.config.topics.incidents)):
        incident = msgspec.json.decode(record.value, type=Incident)
        if incident.incident_id not in newest or incident.revision >= newest[incident.incident_id].revision:
            newest[incident.incident_id] = incident
    return sorted(incident_line(incident) for incident in newest.values())


def wait(done: Any, product: Product) -> None:
    until = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < until, product.log()[-3000:]
        time.sleep(0.3)
