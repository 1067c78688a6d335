"""kill -9 at every named moment: afterwards state, incidents and rows are those of a run without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.faults import KILLED
from tests.kafka.deployment import Deployment

pytestmark = pytest.mark.kafka

WHILE_WORKING = (
    "after_publish:3",
    "after_rows:2",
    "between_pages:2",
    "before_manifest:4",
    "after_manifest:5",
    "after_commit:2",
)
WHILE_RECOVERING = ("in_recovery:3", "after_recovery:1")


def finish_and_compare(deployment: Deployment) -> None:
    """A worker without a fault ends the work; everything then equals the truth, to the end of the log."""
    worker = deployment.start()
    deployment.wait_drained()
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    assert deployment.committed() == deployment.manifests() == deployment.ends()
    assert deployment.seen() == deployment.truth()


@pytest.mark.parametrize("fault", WHILE_WORKING)
def test_a_kill_while_working_changes_nothing(deploy: Callable[..., Deployment], fault: str) -> None:
    deployment = deploy()
    deployment.produce(4_000)
    killed = deployment.start(fault)
    assert killed.wait(40) == KILLED, deployment.log_of(killed)
    deployment.produce(500)
    finish_and_compare(deployment)


@pytest.mark.parametrize("fault", WHILE_RECOVERING)
def test_a_kill_while_recovering_under_a_backlog_changes_nothing(deploy: Callable[..., Deployment], fault: str) -> None:
    deployment = deploy()
    deployment.produce(2_000)
    first = deployment.start("after_manifest:6")
    assert first.wait(40) == KILLED
    deployment.produce(3_000)
    killed = deployment.start(fault)
    assert killed.wait(40) == KILLED, deployment.log_of(killed)
    finish_and_compare(deployment)


def test_a_kill_while_partitions_are_revoked_changes_nothing(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy()
    deployment.produce(2_000)
    killed = deployment.start("in_revoke:1")
    deployment.wait_drained()
    other = deployment.start()
    assert killed.wait(40) == KILLED, deployment.log_of(killed)
    deployment.produce(1_000)
    deployment.wait_drained()
    assert deployment.stop(other) == 0
    assert deployment.seen() == deployment.truth()
