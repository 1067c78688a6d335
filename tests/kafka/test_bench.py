"""`make bench` on the real cluster: every installed peer does a whole log, and the runner takes the broker there is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.bench import load, peers
from pipeline.config.tree import Kafka
from pipeline.demo.children import Children
from pipeline.sinks.topics import TopicSpec, create_topics
from tests.kafka import cluster, run_bench

START_US = 1_780_000_000_000_000


@pytest.mark.parametrize("key", [peer.key for peer in peers.PEERS])
async def test_a_peer_does_a_whole_log(node: cluster.Cluster, tmp_path: Path, key: str) -> None:
    (peer,) = (each for each in peers.PEERS if each.key == key)
    if not peers.installed(peer):
        pytest.skip(f"{peer.words}: {peer.install}")
    topic, log = f"peer-{os.urandom(4).hex()}", load.Load(events=2_000, keys=50, partitions=2)
    kafka = Kafka(brokers=node.brokers, partitions=2)
    await create_topics(kafka, [TopicSpec(topic, 2, {})])
    assert await load.fill(kafka, topic, load.events(log, START_US)) == 2_000
    children = Children(tmp_path, {"TMPDIR": str(tmp_path)})
    try:
        assert (await peers.measure(children, peer, node.brokers, topic, 2, 2_000)).per_s > 0
    finally:
        await children.stop_all()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the bench was called with."""
    calls: list[list[str]] = []

    def bench(arguments: Sequence[str]) -> int:
        calls.append(list(arguments))
        return 0

    monkeypatch.setattr(run_bench, "bench", bench)
    return calls


def test_without_java_the_embedded_broker_is_taken_and_it_is_said(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "why_not", lambda: "no Java (17 or newer) on the PATH")
    assert run_bench.main(["--json", "--nodes", "3"]) == 0
    assert asked == [["--json"]]
    assert "no Java (17 or newer) on the PATH): the embedded broker is taken instead" in capsys.readouterr().err


def test_a_given_broker_is_taken(asked: list[list[str]]) -> None:
    assert run_bench.main(["--broker", "kafka.example:9092", "--repeats", "1"]) == 0
    assert asked == [["--broker", "kafka.example:9092", "--repeats", "1"]]


def test_the_bench_gets_a_running_node_that_ends_after_it(
    node: cluster.Cluster, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []

    class Running:
        brokers = node.brokers

        def stop(self) -> None:
            stopped.append(self.brokers)

    monkeypatch.setattr(cluster, "start", lambda *_, **__: Running())
    assert run_bench.main([]) == 0
    assert asked == [["--broker", node.brokers]]
    assert stopped == [node.brokers]
