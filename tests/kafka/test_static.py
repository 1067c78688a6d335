"""Static membership on a real Kafka: a worker that comes back under its own name moves no partition of the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.kafka.deployment import Deployment, pid_of

pytestmark = pytest.mark.kafka

ASSIGNED = "Setting newly assigned partitions"
LONG = {"session_timeout_s": 60.0, "heartbeat_s": 1.0}


def start(deployment: Deployment, name: str) -> subprocess.Popen[bytes]:
    """A worker as a StatefulSet's pod of this name starts it."""
    kafka: dict[str, Any] = {**LONG, "instance_id": name}
    deployment.environment = {"KW_KAFKA": json.dumps(kafka)}
    return deployment.start()


def assignments(deployment: Deployment, worker: subprocess.Popen[bytes]) -> int:
    """How often the group gave it partitions."""
    return deployment.log_of(worker).count(ASSIGNED)


@pytest.mark.parametrize("runner", ["faust", "plain"])
def test_a_restart_and_a_kill_under_the_same_name_leave_the_other_worker_alone(
    deploy: Callable[..., Deployment], runner: str
) -> None:
    deployment = deploy(runner)
    deployment.produce(300)
    stays, goes = start(deployment, "worker-0"), start(deployment, "worker-1")
    deployment.wait_ready(stays)
    deployment.wait_ready(goes)
    deployment.wait_drained()
    before = assignments(deployment, stays)
    assert deployment.stop(goes) == 0
    deployment.produce(300)
    again = start(deployment, "worker-1")
    deployment.wait_ready(again)
    deployment.wait_drained()
    os.kill(pid_of(again), signal.SIGKILL)
    again.wait(10)
    deployment.produce(300)
    third = start(deployment, "worker-1")
    deployment.wait_ready(third)
    deployment.wait_drained()
    assert assignments(deployment, stays) == before
    assert deployment.seen() == deployment.truth()
