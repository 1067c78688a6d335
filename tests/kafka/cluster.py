"""Apache Kafka (KRaft) on loopback, one node or several, from the jars that pom.xml names; killed by its pids.

`secured` adds a listener with TLS and SASL/SCRAM-SHA-512, one with TLS that asks each client for a certificate, and an
authorizer that allows nobody anything by default; the plaintext listener stays for the nodes themselves and for the
tests' own set-up, as a super user.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
JARS: Final = HERE / "target" / "dependency"
PATIENCE: Final = float(os.environ.get("KEYWATCH_PATIENCE", "1"))
"""Times as long for everything, on a machine that does other work."""
SLOWER: Final = max(1.0, PATIENCE / 2)
"""How much longer sessions are where others need the processors: a node that waits for its turn is not gone."""
START_S: Final = 90.0 * PATIENCE
LIFE_S: Final = round(2_400 * PATIENCE)
"""A node ends by itself after this time, should the tests be killed."""
JAVA: Final = ("java", "-cp", f"{JARS}/*", "-Xmx320m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

PROPERTIES: Final = """\
process.roles=broker,controller
node.id={number}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/log
num.partitions=1
default.replication.factor={replication}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=1
offsets.topic.replication.factor={replication}
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=1
broker.session.timeout.ms={session_ms}
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
replica.lag.time.max.ms={lag_ms}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=2
background.threads=2
"""
SECURED: Final = """\
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
NEW_KEY: Final = ("-newkey", "rsa:2048", "-nodes")


@dataclass(slots=True)
class Node:
    """One node: its files, its ports, and its process while it runs."""

    number: int
    folder: Path
    port: int
    secured_port: int  # 0: no such listener
    certified_port: int = 0  # as well
    life_s: int = LIFE_S
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again with what it had on its disk; it answers some seconds later (`Cluster.wait`)."""
        with (self.folder / "out.log").open("ab") as out:
            command = ["timeout", "-s", "KILL", str(self.life_s), *JAVA, "kafka.Kafka", str(self.folder / "properties")]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=dict(os.environ))

    def kill(self) -> None:
        """End the node and its guard, as a power cut would."""
        if self.process is None:
            return
        for child in _children(self.process.pid):
            os.kill(child, 9)
        self.process.kill()
        self.process.wait(10)
        self.process = None


@dataclass(slots=True)
class Cluster:
    """Running nodes."""

    folder: Path
    nodes: list[Node] = field(default_factory=list)

    @property
    def brokers(self) -> str:
        """host:port of all nodes, plaintext."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def secured_brokers(self) -> str:
        """host:port of all nodes, SASL_SSL."""
        return ",".join(f"127.0.0.1:{node.secured_port}" for node in self.nodes)

    @property
    def certified_brokers(self) -> str:
        """host:port of all nodes, TLS with clients' certificates."""
        return ",".join(f"127.0.0.1:{node.certified_port}" for node in self.nodes)

    @property
    def ca_file(self) -> Path:
        """The certificate that signs the nodes'."""
        return self.folder / "ca.pem"

    def wait(self) -> None:
        """Until every started node answers."""
        for node in self.nodes:
            if node.process is not None:
                _wait(node)

    def freeze(self, frozen: bool) -> None:
        """All take connections and answer nothing, or answer again."""
        for node in self.nodes:
            for child in _children(node.process.pid) if node.process else ():
                os.kill(child, signal.SIGSTOP if frozen else signal.SIGCONT)

    def stop(self) -> None:
        """End all."""
        for node in self.nodes:
            node.kill()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def why_not() -> str:
    """What is missing for a cluster, "" if nothing."""
    if shutil.which("java") is None:
        return "no Java (17 or newer) on the PATH"
    if not any(JARS.glob("kafka_2.13-*.jar")) or not any(JARS.glob("kafka-tools-4*.jar")):
        if shutil.which("mvn") is None:
            return "no Maven on the PATH to fetch the broker's jars: see `make test-cluster`"
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(command, cwd=HERE, capture_output=True, timeout=600, check=False)
        if done.returncode:
            return f"Maven could not fetch the broker's jars: {done.stdout[-300:].decode(errors='replace')}"
    return ""


def start(folder: Path, count: int = 1, users: Mapping[str, str] | None = None, life_s: int = LIFE_S) -> Cluster:
    """Format the nodes' folders, start them, wait until they answer. `users`: name -> password, and a secured listener.

    Three nodes replicate everything three times and acknowledge at two, as in production.
    """
    cluster = Cluster(folder)
    controllers = [free_port() for _ in range(count)]
    voters = ",".join(f"{i}@127.0.0.1:{port}" for i, port in enumerate(controllers, 1))
    if users:
        make_certificates(folder)
    for number, controller in enumerate(controllers, 1):
        secured = (free_port(), free_port()) if users else (0, 0)
        node = Node(number, folder / f"node{number}", free_port(), *secured, life_s)
        node.folder.mkdir()
        (node.folder / "properties").write_text(_properties(node, controller, voters, count))
        _format(node, users or {})
        cluster.nodes.append(node)
    for node in cluster.nodes:
        node.start()
    try:
        cluster.wait()
    except RuntimeError:
        cluster.stop()
        raise
    return cluster


def _properties(node: Node, controller: int, voters: str, count: int) -> str:
    listeners = f"PLAINTEXT://127.0.0.1:{node.port}"
    if node.secured_port:
        listeners += f",SASL_SSL://127.0.0.1:{node.secured_port},SSL://127.0.0.1:{node.certified_port}"
    replication = min(3, count)
    text = PROPERTIES.format(
        number=node.number, listeners=listeners, controller=controller, voters=voters, folder=node.folder,
        replication=replication, in_sync=max(1, replication - 1), session_ms=round(3_000 * SLOWER),
        lag_ms=round(5_000 * SLOWER),
    )  # fmt: skip
    return text + SECURED.format(folder=node.folder.parent) if node.secured_port else text


def _format(node: Node, users: Mapping[str, str]) -> None:
    command = [*JAVA, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk"]
    for name, password in users.items():
        command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
    done = subprocess.run([*command, "-c", str(node.folder / "properties")], capture_output=True, timeout=START_S)
    if done.returncode:
        raise RuntimeError(f"Kafka's folder could not be formatted: {done.stderr.decode()[-1000:]}")


def make_certificates(folder: Path) -> None:
    """A CA of a day, and one certificate of it for all nodes (127.0.0.1), with its key in `server.pem`."""
    authority = ("-keyout", "ca.key", "-out", "ca.pem", "-days", "1", "-subj", "/CN=tests")
    _openssl(folder, "req", "-x509", *NEW_KEY, *authority)
    make_certificate(folder, "server", "localhost")
    pem = "".join((folder / name).read_text() for name in ("server.key", "server.crt", "ca.pem"))
    (folder / "server.pem").write_text(pem)


def make_certificate(folder: Path, file: str, name: str) -> None:
    """`file`.crt of this name (CN), signed by the folder's CA for a day, and `file`.key."""
    _openssl(folder, "req", *NEW_KEY, "-keyout", f"{file}.key", "-out", f"{file}.csr", "-subj", f"/CN={name}")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "san")
    _openssl(folder, "x509", "-req", "-in", f"{file}.csr", *signing, "-out", f"{file}.crt")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)


def _wait(node: Node) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if node.process is None or node.process.poll() is not None:
            raise RuntimeError(f"Kafka ended: {(node.folder / 'out.log').read_text()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", node.port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"node {node.number} of Kafka did not answer in {START_S:.0f} s")


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
