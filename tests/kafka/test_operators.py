"""What operators and brokers do to the topics: refused pages, a topic made anew, a full disk, a freeze in
the middle of a checkpoint. Either nothing changes, or one line says what is wrong and the exit code is not 0."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.doctor import check_kafka
from pipeline.runners.ending import EXIT_FATAL
from pipeline.sinks.kafka import client_settings
from schemas.event import Event
from tests.kafka import cluster, topics
from tests.kafka.comparison import compare_tables, finish_counts, finish_tables
from tests.kafka.conftest import available, either_runner, long
from tests.kafka.deployment import DRAIN_S, PARTITIONS, Deployment, last_words, pid_of, produce
from tests.kafka.outside import Outside
from tests.pipeline.log_of_requests import START_US, log, record
from tests.seeds import SEED

pytestmark = pytest.mark.kafka

EXIT_CONFIG = 2
DAY_US = 86_400_000_000


@pytest.mark.parametrize("runner", ["faust", "plain"])
def test_a_worker_frozen_in_the_middle_of_a_checkpoint_does_no_harm(
    deploy: Callable[..., Deployment], runner: str
) -> None:
    """It comes back as a zombie with half a checkpoint, while another has gone on from the one before."""
    deployment = deploy(runner)
    deployment.produce(2_000)
    frozen = deployment.start("between_pages:5:freeze")
    deployment.produce_until(lambda: state_of(pid_of(frozen)) == "T")
    other = deployment.start()
    deployment.wait_ready(other)
    deployment.produce(1_000)
    deployment.wait_drained()
    os.kill(pid_of(frozen), signal.SIGCONT)
    deployment.produce(1_000)
    deployment.wait(lambda: frozen.poll() is not None or "generation" in deployment.log_of(frozen), "thawed")
    deployment.wait_drained()
    for worker in (other, frozen):
        if worker.poll() is None:
            deployment.stop(worker)
    finish_counts(deployment)


def state_of(pid: int) -> str:
    """R, S, T (stopped) and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]


@either_runner
def test_a_changelog_that_refuses_pages_stops_the_worker_and_nothing_is_lost(
    deploy: Callable[..., Deployment], runner: str
) -> None:
    deployment = deploy(runner)
    kafka, pages = deployment.config.kafka, deployment.config.topics.pages
    deployment.produce(2_000)
    asyncio.run(topics.configure(kafka, pages, cleanup_policy="compact", max_message_bytes="300"))
    worker = deployment.start()
    assert worker.wait(DRAIN_S) == EXIT_FATAL, deployment.log_of(worker)
    assert f"pages were not written to {pages}: MessageSizeTooLarge" in last_words(deployment, worker)
    assert deployment.committed() == {}
    asyncio.run(topics.configure(kafka, pages, cleanup_policy="compact"))
    finish_counts(deployment)


@either_runner
def test_a_worker_whose_own_disk_is_full_goes_on_and_starts_again(
    deploy_real: Callable[..., Deployment], outside: Outside, small_disk: Path, runner: str
) -> None:
    """Its log and its folder for temporary files: what it must not lose is in Kafka."""
    deployment = deploy_real(runner)
    deployment.folder = small_disk
    deployment.environment["TMPDIR"] = str(small_disk)
    records = log(SEED + 6, events=1_500)
    produce(deployment, records[:500])
    worker = deployment.start()
    deployment.wait_drained()
    fill_up(small_disk)
    produce(deployment, records[500:1_000])
    deployment.wait_drained()
    os.kill(pid_of(worker), signal.SIGKILL)
    worker.wait(20)
    again = deployment.start()
    produce(deployment, records[1_000:])
    deployment.wait_drained()
    assert shutil.disk_usage(small_disk).free < 65_536
    compare_tables(deployment, outside, again)


@either_runner
def test_a_topic_made_anew_is_refused_with_words_that_help(deploy: Callable[..., Deployment], runner: str) -> None:
    deployment = deploy(runner)
    deployment.produce(1_000)
    worker = deployment.start()
    deployment.wait_drained()
    assert deployment.stop(worker) == 0
    before = deployment.seen()
    asyncio.run(topics.make_anew(deployment.config.kafka, deployment.config.topics.requests, PARTITIONS))
    deployment.produce(3_000)
    again = deployment.start()
    assert again.wait(DRAIN_S) != 0
    words = last_words(deployment, again)
    assert "was made anew" in words
    assert deployment.config.topics.pages in words
    assert deployment.seen() == before, "nothing of the new topic was taken for the old one's"


@either_runner
def test_a_running_worker_whose_topic_is_made_anew_ends(deploy: Callable[..., Deployment], runner: str) -> None:
    deployment = deploy(runner, stuck_s=5.0)
    deployment.produce(1_000)
    worker = deployment.start()
    deployment.wait_drained()
    before = deployment.seen()
    asyncio.run(topics.make_anew(deployment.config.kafka, deployment.config.topics.requests, PARTITIONS))
    deployment.produce(3_000)
    assert worker.wait(DRAIN_S) != 0
    assert "was made anew" in last_words(deployment, worker) or "UnknownTopic" in last_words(deployment, worker)
    assert deployment.seen() == before, "nothing of the new topic was taken for the old one's"


@pytest.mark.parametrize("runner", ["faust", "plain"])
def test_a_stop_while_the_broker_is_silent_ends_in_its_time_and_what_was_not_saved_comes_again(
    deploy: Callable[..., Deployment], node: cluster.Cluster, runner: str
) -> None:
    """It takes connections and answers nothing: not where the log ends, not what is committed."""
    deployment = deploy(runner, stop_s=4.0)
    deployment.produce(600)
    worker = deployment.start()
    deployment.wait_drained()
    node.freeze(True)
    try:
        os.kill(pid_of(worker), signal.SIGTERM)
        assert worker.wait(DRAIN_S) == EXIT_FATAL, deployment.log_of(worker)
        assert "not all is in a checkpoint within worker.stop_s" in last_words(deployment, worker)
    finally:
        node.freeze(False)
    deployment.produce(200)
    finish_counts(deployment)


@either_runner
def test_state_on_a_topic_that_deletes_is_refused_before_any_is_lost(
    deploy: Callable[..., Deployment], runner: str
) -> None:
    """As brokers make topics by themselves: after a week the pages of quiet keys would be gone."""
    deployment = deploy(runner)
    kafka, names = deployment.config.kafka, deployment.config.topics
    asyncio.run(topics.configure(kafka, names.pages, cleanup_policy="delete"))
    asyncio.run(topics.configure(kafka, names.keys, cleanup_policy="delete"))
    worker = deployment.start()
    assert worker.wait(DRAIN_S) == EXIT_CONFIG, deployment.log_of(worker)
    assert f"{names.pages} has cleanup.policy=delete" in last_words(deployment, worker)
    assert "--add-config cleanup.policy=compact" in last_words(deployment, worker)
    found = {finding.text.split()[0]: finding for finding in asyncio.run(check_kafka(deployment.config))}
    assert found[names.pages].state == found[names.keys].state == "fail"
    asyncio.run(topics.configure(kafka, names.pages, cleanup_policy="compact"))
    deployment.produce(500)
    again = deployment.start()
    deployment.wait_drained()
    assert f"{names.keys} has cleanup.policy=delete" in deployment.log_of(again), "which stops nobody, and is told"


@either_runner
@pytest.mark.parametrize("overtaken", ["before it starts", "while it starts"])
def test_what_retention_deleted_unjudged_is_told_with_how_much(
    deploy: Callable[..., Deployment], runner: str, overtaken: str
) -> None:
    """What is left is judged, also where the position is set again while a fetch waits."""
    deployment = deploy(runner)
    deployment.produce(600)
    worker = deployment.start()
    deployment.wait_drained()
    assert deployment.stop(worker) == 0
    deployment.produce(300)
    before, ends = deployment.committed(), deployment.ends()
    if overtaken == "while it starts":
        again = deployment.start("after_recovery:1:freeze")
        deployment.wait(lambda: state_of(pid_of(again)) == "T", "frozen")
    asyncio.run(topics.delete_before(deployment.config.kafka, deployment.config.topics.requests, ends))
    deployment.produce(300)
    if overtaken == "while it starts":
        os.kill(pid_of(again), signal.SIGCONT)
    else:
        again = deployment.start()
    deployment.wait_drained()
    for number, end in ends.items():
        words = f"partition {number}: {end - before[number]} records from offset {before[number]} on are LOST"
        assert words in deployment.log_of(again)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB for a broker."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@long
@either_runner
def test_a_broker_whose_disk_is_full_loses_nothing_once_there_is_room(
    outside: Outside, small_disk: Path, tmp_path: Path, runner: str
) -> None:
    available()
    running = cluster.start(small_disk)
    deployment = Deployment(running.brokers, "full", tmp_path / "full", runner)
    outside.serve(deployment)
    records = log(SEED + 7, events=1_500)
    try:
        produce(deployment, records[:1_000])
        worker = deployment.start()
        deployment.wait_drained()
        filler = fill_up(small_disk)
        (node,) = running.nodes
        produce_until_it_ends(deployment, node)
        node.kill()
        filler.unlink()
        node.start()
        running.wait()
        produce(deployment, records[1_000:])
        deployment.kill_all()
        deployment.wait_session_over()
        assert worker.returncode is not None
        finish_tables(deployment, outside)
    finally:
        deployment.kill_all()
        running.stop()


def produce_until_it_ends(deployment: Deployment, node: cluster.Node) -> None:
    """A broker whose only disk is full ends itself; what it acknowledged before stands in its log."""
    config, now_us = deployment.config, START_US + 2 * DAY_US

    async def produce_on() -> None:
        producer = AIOKafkaProducer(**client_settings(config.kafka), acks="all", request_timeout_ms=2_000)
        await producer.start()
        try:
            async with asyncio.timeout(DRAIN_S):
                while node.process is not None and node.process.poll() is None:
                    key, value, timestamp_ms = record(Event(key_id="pk_0", ts_us=now_us, path="/" + "x" * 1_000))
                    with contextlib.suppress(KafkaError):
                        await producer.send_and_wait(config.topics.requests, value, key, timestamp_ms=timestamp_ms)
        finally:
            await producer.stop()

    deployment.run(produce_on())


def fill_up(folder: Path) -> Path:
    """A file that leaves no room beside it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4_096)):
            pass
    return filler
