"""Workers of two releases in one group, as in a rolling upgrade: tables and incidents are those of one clean pass."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from pipeline.core import Sides
from pipeline.runners.ending import EXIT_FATAL
from pipeline.state import manifest
from tests.kafka import tomorrow
from tests.kafka.comparison import SidesAt, assert_clean, clean_pass, stop_all
from tests.kafka.conftest import either_runner
from tests.kafka.deployment import DRAIN_S, Deployment, last_words, pid_of, produce
from tests.kafka.outside import Outside
from tests.pipeline.log_of_requests import GEO, Record, catalogue, log
from tests.seeds import SEED

pytestmark = pytest.mark.kafka

TODAY = ""


def start(deployment: Deployment, release: str) -> subprocess.Popen[bytes]:
    deployment.environment["KW_RELEASE"] = release
    return deployment.start()


def parts(seed: int, count: int) -> list[list[Record]]:
    """A log in so many parts."""
    records = log(seed, events=1_500)
    return [records[n * len(records) // count : (n + 1) * len(records) // count] for n in range(count)]


@either_runner
def test_a_rolling_upgrade_to_another_layout_and_back_loses_and_doubles_nothing(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    """One worker after the other, with events on their way; in between each release loads the other's state."""
    deployment, (first, *others) = deploy_real(runner), parts(SEED + 8, 5)
    running = [start(deployment, TODAY), start(deployment, TODAY)]
    for worker in running:
        deployment.wait_ready(worker)
    produce(deployment, first)
    for release, records in zip((tomorrow.LAYOUT, tomorrow.LAYOUT, TODAY, TODAY), others, strict=True):
        produce(deployment, records)
        oldest = running.pop(0)
        assert deployment.stop(oldest) == 0, deployment.log_of(oldest)
        running.append(start(deployment, release))
        deployment.wait_ready(running[-1])
    compare(deployment, outside, *running)


@either_runner
def test_a_worker_that_is_older_than_the_state_refuses_it_in_words_and_the_newer_ones_lose_nothing(
    deploy_real: Callable[..., Deployment], outside: Outside, monkeypatch: pytest.MonkeyPatch, runner: str
) -> None:
    """In the middle of an upgrade to another page format the new one dies: what it had goes to the one not yet renewed.

    An orchestrator starts that one again and again, until it is renewed as well.
    """
    deployment, (first, second, third) = deploy_real(runner), parts(SEED + 9, 3)
    stays, goes = start(deployment, TODAY), start(deployment, TODAY)
    produce(deployment, first)
    deployment.wait_ready(stays)
    deployment.wait_ready(goes)
    assert deployment.stop(goes) == 0, deployment.log_of(goes)
    dies = start(deployment, tomorrow.PAGES)
    deployment.wait_ready(dies)
    produce(deployment, second)
    deployment.wait_drained()
    os.kill(pid_of(dies), signal.SIGKILL)
    refused(deployment, stays)
    before = deployment.committed()
    produce(deployment, third)
    refused(deployment, start(deployment, TODAY))
    assert deployment.committed() == before
    monkeypatch.setitem(manifest.ENTRY_OF_FORMAT, manifest.FORMAT + 1, manifest.ENTRY)  # to look at what they leave
    renewed = [start(deployment, tomorrow.PAGES), start(deployment, tomorrow.PAGES)]
    compare(deployment, outside, *renewed)


def compare(deployment: Deployment, outside: Outside, *workers: subprocess.Popen[bytes]) -> None:
    """All is judged; these workers are stopped, then all equals a pass that changes its release where they did."""
    deployment.wait_drained()
    stop_all(deployment, *workers)
    assert_clean(deployment, outside, clean_pass(deployment, by_release(outside)))


def by_release(outside: Outside) -> SidesAt:
    """Which release judged what, as the table `adoptions` has it: an incident says which it was."""
    sql = "SELECT partition, offset, version_id FROM adoptions FINAL WHERE input = 'config' ORDER BY offset"
    told = outside.query(sql)
    sides = {release: Sides(catalogue(), GEO, release) for *_, release in told}
    assert len(sides) > 1

    def sides_at(partition: int, offset: int) -> Sides:
        return [sides[release] for number, since, release in told if number == partition and since <= offset][-1]

    return sides_at


def refused(deployment: Deployment, worker: subprocess.Popen[bytes]) -> None:
    assert worker.wait(DRAIN_S) == EXIT_FATAL, deployment.log_of(worker)
    words = f"format {manifest.FORMAT + 1}, this program reads up to {manifest.FORMAT}: it is older than the state"
    assert words in last_words(deployment, worker)
