"""kill -9 at every named moment: afterwards state, incidents and rows are those of a run without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.faults import KILLED
from tests.kafka.comparison import compare_counts
from tests.kafka.deployment import Deployment
from tests.kafka.recovery import until_caught_up

pytestmark = pytest.mark.kafka

KILLS = (
    ("after_publish:3", "after_rows:2", "between_pages:2"),
    ("before_manifest:2", "after_manifest:2", "after_commit:1"),
    ("after_manifest:1", "in_recovery:3", "after_recovery:1"),
)


def kill_at(deployment: Deployment, fault: str) -> None:
    """A worker that dies at this moment, under load."""
    killed = deployment.start(fault)
    deployment.produce_until(lambda: killed.poll() is not None)
    assert killed.returncode == KILLED, deployment.log_of(killed)


@pytest.mark.parametrize("faults", KILLS, ids=" ".join)
def test_kills_at_named_moments_change_nothing(deploy: Callable[..., Deployment], faults: tuple[str, ...]) -> None:
    deployment = deploy()
    deployment.produce(2_000)
    for fault in faults:
        kill_at(deployment, fault)
    deployment.produce(500)
    with until_caught_up(deployment, f"killed {faults[-1]}, from the next worker's start"):
        worker = deployment.start()
        deployment.wait_drained()
    compare_counts(deployment, worker)


def test_a_kill_while_partitions_are_revoked_changes_nothing(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy()
    deployment.produce(2_000)
    killed = deployment.start("in_revoke:1")
    deployment.wait_drained()
    other = deployment.start()
    assert killed.wait(40) == KILLED, deployment.log_of(killed)
    deployment.produce(1_000)
    with until_caught_up(deployment, "killed while partitions are revoked"):
        deployment.wait_drained()
    compare_counts(deployment, other)
