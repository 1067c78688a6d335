"""The real core behind a real broker: after kills, incidents and tables are those of one clean pass over the log."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.faults import KILLED
from tests.kafka.comparison import finish_tables
from tests.kafka.deployment import DRAIN_S, Deployment, produce
from tests.kafka.outside import Outside
from tests.pipeline.log_of_requests import log

pytestmark = pytest.mark.kafka


def test_the_real_core_gives_after_kills_what_a_clean_pass_gives(
    deploy_real: Callable[..., Deployment], outside: Outside
) -> None:
    deployment = deploy_real()
    produce(deployment, log(3, events=3_000))
    for fault in ("after_publish:1", "after_rows:2", "after_manifest:2"):
        killed = deployment.start(fault)
        assert killed.wait(DRAIN_S) == KILLED, deployment.log_of(killed)
    finish_tables(deployment, outside)
