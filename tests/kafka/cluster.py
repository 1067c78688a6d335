"""One node of Apache Kafka (KRaft) on loopback, from the jars that pom.xml names; killed by its pid."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
JARS: Final = HERE / "target" / "dependency"
START_S: Final = 60.0
LIFE_S: Final = 900
"""The node ends by itself after this time, should the tests be killed."""

PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/log
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=2
background.threads=2
"""


@dataclass(slots=True)
class Node:
    """A running node."""

    brokers: str
    process: subprocess.Popen[bytes]
    folder: Path


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def why_not() -> str:
    """What is missing for a cluster, "" if nothing."""
    if shutil.which("java") is None:
        return "no Java (17 or newer) on the PATH"
    if not any(JARS.glob("kafka_2.13-*.jar")):
        if shutil.which("mvn") is None:
            return "no Maven on the PATH to fetch the broker's jars: see `make test-cluster`"
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(command, cwd=HERE, capture_output=True, timeout=600, check=False)
        if done.returncode:
            return f"Maven could not fetch the broker's jars: {done.stdout[-300:].decode(errors='replace')}"
    return ""


def start(folder: Path) -> Node:
    """Format a log folder, start the node and wait until it answers."""
    port, controller = free_port(), free_port()
    config = folder / "server.properties"
    config.write_text(PROPERTIES.format(port=port, controller=controller, folder=folder))
    java = ["java", "-cp", f"{JARS}/*", "-Xmx320m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    storage = [*java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(config)]
    subprocess.run(storage, check=True, capture_output=True, timeout=60)
    with (folder / "out.log").open("wb") as out:
        command = ["timeout", "-s", "KILL", str(LIFE_S), *java, "kafka.Kafka", str(config)]
        process = subprocess.Popen(command, stdout=out, stderr=out, env=dict(os.environ))
    node = Node(f"127.0.0.1:{port}", process, folder)
    _wait(node, port)
    return node


def _wait(node: Node, port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if node.process.poll() is not None:
            raise RuntimeError(f"Kafka ended: {(node.folder / 'out.log').read_text()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    stop(node)
    raise RuntimeError("Kafka did not answer in time")


def stop(node: Node) -> None:
    """End the node and its guard."""
    for child in _children(node.process.pid):
        os.kill(child, 9)
    node.process.kill()
    node.process.wait(10)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
