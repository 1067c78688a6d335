"""The cluster of the session, and deployments on it. Skipped without Java or Maven, but never in CI."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kafka import cluster, recovery
from tests.kafka.deployment import Deployment
from tests.kafka.outside import Outside
from tests.pipeline.respond.receiver import Receiver, receiver

_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """The mark by which these tests are chosen or left out."""
    config.addinivalue_line("markers", "kafka: needs Java and Maven: runs on Apache Kafka")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long the faults took to be over."""
    if recovery.ROWS:
        terminalreporter.section("from a fault's end until caught up: median and most")
        for line in recovery.table(recovery.ROWS):
            terminalreporter.write_line(line)


long = pytest.mark.skipif(not os.environ.get("KEYWATCH_LONG"), reason="takes long: make test-faults")
either_runner = pytest.mark.parametrize("runner", ["faust", pytest.param("plain", marks=long)])
"""On Faust always, on plain aiokafka the long way: what comes out of both is held to the same clean run."""


def available() -> None:
    """Skips where there is no Java or no Maven; in CI that is a failure."""
    reason = cluster.why_not()
    if reason and os.environ.get("CI") != "true":
        pytest.skip(reason)
    assert not reason, reason


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Cluster]:
    """One node of Apache Kafka."""
    available()
    running = cluster.start(tmp_path_factory.mktemp("kafka"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Cluster]:
    """Three nodes: everything three times, acknowledged by two."""
    available()
    running = cluster.start(tmp_path_factory.mktemp("three"), 3)
    yield running
    running.stop()


@pytest.fixture
def deploy(node: cluster.Cluster, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Makes deployments; their workers are killed at the end."""
    made: list[Deployment] = []

    def make(runner: str = "faust", **settings: Any) -> Deployment:
        number = next(_numbers)
        made.append(Deployment(node.brokers, f"t{number}", tmp_path / f"t{number}", runner, settings))
        return made[-1]

    yield make
    for deployment in made:
        deployment.kill_all()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A ClickHouse for all tests that break it."""
    outside = Outside(tmp_path_factory.mktemp("outside"))
    yield outside
    outside.stop()


@pytest.fixture
def outside(server: Outside) -> Outside:
    """With empty tables."""
    server.empty()
    return server


@pytest.fixture
def deploy_real(deploy: Callable[..., Deployment], outside: Outside) -> Callable[..., Deployment]:
    """Makes deployments with the real core and this ClickHouse."""

    def make(*arguments: Any, **settings: Any) -> Deployment:
        deployment = deploy(*arguments, **settings)
        outside.serve(deployment)
        return deployment

    return make


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    """Where a responder's webhooks go."""
    async with receiver() as this:
        yield this
