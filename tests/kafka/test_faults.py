"""Faults at random moments on three brokers under continuous load; afterwards all equals one clean run over the log.

KEYWATCH_SEED chooses the moments (seeds that failed once are in tests/seeds.txt), KEYWATCH_KILLS how many kills there
are (`make test-faults` asks for 100).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kafka import cluster, topics
from tests.kafka.comparison import compare_counts, finish_counts
from tests.kafka.conftest import either_runner
from tests.kafka.deployment import Deployment
from tests.kafka.orchestrator import Orchestrator, under_load
from tests.kafka.recovery import until_caught_up
from tests.seeds import SEED, kept

pytestmark = pytest.mark.kafka

KILLS: Final = int(os.environ.get("KEYWATCH_KILLS", "8"))
RUNNERS: Final = ("faust", "plain")


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
            with fleet.fault("kill -9"):
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
            with fleet.fault("one of three is replaced"):
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
        with fleet.fault("one worker becomes three"):
            fleet.scale(3)
            deployment.wait(lambda: len(fleet.running()) == 3, "scaled out")
            all_ready(deployment, fleet)
        time.sleep(3.0)
        with fleet.fault("three become one"):
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
            with fleet.fault("a broker dies and comes back"):
                node.kill()
                time.sleep(8.0)
                node.start()
                three.wait()
            time.sleep(4.0)
        assert fleet.running()
    deployment.wait_session_over()
    finish_counts(deployment)


def without_a_replica(three: cluster.Cluster, deployment: Deployment) -> cluster.Node:
    """The changelog asks for three replicas from now on, and there are two: all other topics are content with that."""
    kafka, pages = deployment.config.kafka, deployment.config.topics.pages
    asyncio.run(topics.configure(kafka, pages, cleanup_policy="compact", min_insync_replicas="3"))
    node = three.nodes[0]
    node.kill()
    return node


def whole_again(three: cluster.Cluster, deployment: Deployment, node: cluster.Node) -> None:
    node.start()
    three.wait()
    kafka, pages = deployment.config.kafka, deployment.config.topics.pages
    asyncio.run(topics.configure(kafka, pages, cleanup_policy="compact"))


def patient(deployment: Deployment) -> Deployment:
    """Its workers' sessions outlast the death of their group's coordinator: no rebalance comes of that."""
    deployment.environment = {"KW_KAFKA": json.dumps({"session_timeout_s": 10.0 * cluster.PATIENCE})}
    return deployment


@either_runner
def test_a_changelog_without_its_replicas_holds_up_checkpoints_and_nothing_else(
    three: cluster.Cluster, deploy: Callable[..., Deployment], runner: str
) -> None:
    """However long it takes: an idempotent producer sends its pages again until they are taken.

    A new leader may not show the newest manifest meanwhile: it can't advance its high watermark with two replicas.
    """
    deployment = patient(deploy(runner, "replicas"))
    deployment.produce(1_000)
    worker = deployment.start()
    deployment.wait_drained()
    before, began_s = deployment.manifests(), time.monotonic()
    node = without_a_replica(three, deployment)
    deployment.produce(1_000)
    deployment.wait(lambda: deployment.seen_incidents() == deployment.truth().incidents, "judged meanwhile")
    assert all(at <= before[number] for number, at in deployment.manifests().items()), "a checkpoint was taken"
    whole_again(three, deployment, node)
    with until_caught_up(deployment, "the changelog takes nothing", began_s):
        deployment.wait_drained()
    compare_counts(deployment, worker)


@either_runner
def test_who_loads_while_the_changelog_lacks_replicas_waits_and_nothing_is_lost(
    three: cluster.Cluster, deploy: Callable[..., Deployment], runner: str
) -> None:
    """No event is judged before the manifest that says by whom and with which side inputs.

    Whoever reads pages meanwhile may miss the newest manifest, and refuses (exit 70) until it shows: so all are killed.
    """
    deployment = patient(deploy(runner, "loading"))
    deployment.produce(1_000)
    deployment.start()
    deployment.wait_drained()
    began_s, node = time.monotonic(), without_a_replica(three, deployment)
    loads = deployment.start()
    deployment.wait(lambda: "state of " in deployment.log_of(loads), "a rebalance meanwhile")
    deployment.produce(500)
    time.sleep(5.0)
    assert "next offset" not in deployment.log_of(loads), "loaded without a manifest"
    whole_again(three, deployment, node)
    deployment.kill_all()
    with until_caught_up(deployment, "the changelog takes nothing, all are killed", began_s):
        worker = deployment.start()
        deployment.wait_ready(worker)
        deployment.wait_drained()
    compare_counts(deployment, worker)
