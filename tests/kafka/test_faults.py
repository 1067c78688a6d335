"""Faults at random moments on three brokers under continuous load; afterwards all equals one clean run over the log.

KEYWATCH_SEED chooses the moments (seeds that failed once are in tests/seeds.txt), KEYWATCH_KILLS how many kills there
are (`make test-faults` asks for 100).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kafka import cluster
from tests.kafka.comparison import finish_counts
from tests.kafka.conftest import available
from tests.kafka.deployment import Deployment
from tests.kafka.orchestrator import Orchestrator, under_load
from tests.seeds import SEED, kept

pytestmark = pytest.mark.kafka

KILLS: Final = int(os.environ.get("KEYWATCH_KILLS", "8"))
RUNNERS: Final = ("faust", "plain")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Cluster]:
    """Three nodes: everything three times, acknowledged by two."""
    available()
    running = cluster.start(tmp_path_factory.mktemp("three"), 3)
    yield running
    running.stop()


@pytest.fixture
def deploy(three: cluster.Cluster, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    made: list[Deployment] = []

    def make(runner: str, name: str, **settings: Any) -> Deployment:
        made.append(Deployment(three.brokers, f"{name}-{runner}", tmp_path / name, runner, settings))
        return made[-1]

    yield make
    for deployment in made:
        deployment.kill_all()


@pytest.mark.parametrize("seed", [SEED, *kept("kills")])
@pytest.mark.parametrize("runner", RUNNERS)
def test_kills_at_random_moments_lose_and_double_nothing(
    deploy: Callable[..., Deployment], runner: str, seed: int
) -> None:
    deployment, rng = deploy(runner, f"kills{seed}"), random.Random(seed)
    with under_load(deployment, 2) as fleet:
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.5, 7.0))  # in recovery, at work, in a rebalance, in a checkpoint
            fleet.kill_one(rng)
        assert fleet.restarts >= KILLS - 1
    deployment.wait_session_over()
    finish_counts(deployment)


def all_ready(deployment: Deployment, fleet: Orchestrator) -> None:
    """Before that a worker may be stopped by a signal that it does not handle yet."""
    for worker in fleet.running():
        deployment.wait_ready(worker)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_rolling_restart_of_three_workers_changes_nothing(deploy: Callable[..., Deployment], runner: str) -> None:
    deployment = deploy(runner, "rolling")
    with under_load(deployment, 3) as fleet:
        deployment.wait(lambda: bool(deployment.committed()), "first commit")
        for _ in range(3):
            fleet.replace_one()
            deployment.wait(lambda: len(fleet.running()) == 3, "replaced")
            all_ready(deployment, fleet)
            time.sleep(3.0)
    finish_counts(deployment)


@pytest.mark.parametrize("runner", RUNNERS)
def test_scaling_out_and_in_changes_nothing(deploy: Callable[..., Deployment], runner: str) -> None:
    deployment = deploy(runner, "scaling")
    with under_load(deployment, 1) as fleet:
        deployment.wait(lambda: bool(deployment.committed()), "first commit")
        fleet.scale(3)
        deployment.wait(lambda: len(fleet.running()) == 3, "scaled out")
        all_ready(deployment, fleet)
        time.sleep(3.0)
        fleet.scale(1)
        time.sleep(3.0)
    finish_counts(deployment)


@pytest.mark.parametrize("runner", RUNNERS)
def test_each_broker_dies_and_comes_back_and_nothing_is_lost(
    three: cluster.Cluster, deploy: Callable[..., Deployment], runner: str
) -> None:
    """One after the other, so the coordinator of the group and the controller are among them."""
    deployment = deploy(runner, "brokers")
    with under_load(deployment, 2) as fleet:
        deployment.wait(lambda: bool(deployment.committed()), "first commit")
        for node in three.nodes:
            node.kill()
            time.sleep(8.0)
            node.start()
            three.wait()
            time.sleep(4.0)
        assert fleet.running()
    deployment.wait_session_over()
    finish_counts(deployment)
