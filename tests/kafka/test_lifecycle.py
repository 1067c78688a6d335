"""Starting, stopping, joining, leaving, freezing: with either runner everything ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.kafka.comparison import compare_counts, finish_counts
from tests.kafka.deployment import Deployment, pid_of
from tests.kafka.test_kills import kill_at

pytestmark = pytest.mark.kafka

RUNNERS = ("faust", "plain")
JOINING = "(Re-)joining group"
"""What aiokafka says when a rebalance begins and what was owned is let go."""


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_clean_stop_commits_to_the_end_of_the_log(deploy: Callable[..., Deployment], runner: str) -> None:
    deployment = deploy(runner)
    deployment.produce(3_000)
    worker = deployment.start()
    deployment.wait(lambda: bool(deployment.committed()), "first commit")
    deployment.produce(3_000)
    compare_counts(deployment, worker)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_second_worker_that_joins_and_leaves_changes_nothing(deploy: Callable[..., Deployment], runner: str) -> None:
    deployment = deploy(runner)
    deployment.produce(2_000)
    first = deployment.start()
    deployment.wait_drained()
    second = deployment.start()
    deployment.wait_ready(second)
    deployment.produce(2_000)
    deployment.wait_drained()
    assert deployment.stop(second) == 0, deployment.log_of(second)
    deployment.produce(1_000)
    deployment.wait_drained()
    compare_counts(deployment, first)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_stop_in_the_middle_of_a_rebalance_is_a_clean_one_and_changes_nothing(
    deploy: Callable[..., Deployment], runner: str
) -> None:
    """SIGTERM to who lets partitions go to a second worker, and to a third one that asks for its first ones."""
    deployment = deploy(runner)
    deployment.produce(2_000)
    gives = deployment.start()
    deployment.wait_drained()
    joins = deployment.log_of(gives).count(JOINING)
    stays = deployment.start()
    deployment.wait(lambda: deployment.log_of(gives).count(JOINING) > joins, "the second one joins")
    deployment.produce(1_000)
    assert deployment.stop(gives) == 0, deployment.log_of(gives)
    deployment.wait_ready(stays)
    asks = deployment.start()
    deployment.wait(lambda: JOINING in deployment.log_of(asks), "the third one joins")
    deployment.produce(1_000)
    assert deployment.stop(asks) == 0, deployment.log_of(asks)
    deployment.produce(500)
    deployment.wait_drained()
    compare_counts(deployment, stays)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_worker_frozen_past_its_session_does_no_harm(deploy: Callable[..., Deployment], runner: str) -> None:
    deployment = deploy(runner)
    deployment.produce(2_000)
    first = deployment.start()
    deployment.wait_drained()
    second = deployment.start()
    deployment.wait_ready(second)
    os.kill(pid_of(first), signal.SIGSTOP)
    deployment.produce(2_000)
    deployment.wait_drained()  # the second takes over when the session ends
    os.kill(pid_of(first), signal.SIGCONT)
    deployment.produce(2_000)
    deployment.wait_drained()
    for worker in (second, first):
        if worker.poll() is None:
            deployment.stop(worker)
    finish_counts(deployment)


def test_the_plain_runner_goes_on_from_what_faust_left(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy("faust")
    deployment.produce(3_000)
    kill_at(deployment, "before_manifest:4")
    deployment.wait_session_over()
    deployment.runner = "plain"
    deployment.produce(1_000)
    finish_counts(deployment)


def test_a_killed_plain_worker_changes_nothing(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy("plain")
    deployment.produce(3_000)
    kill_at(deployment, "between_pages:4")
    kill_at(deployment, "in_recovery:1")
    deployment.wait_session_over()
    deployment.runner = "faust"
    finish_counts(deployment)
