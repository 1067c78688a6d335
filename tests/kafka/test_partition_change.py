"""Partitions added, a topic made anew, a backup: on a real broker, with the real core, by the commands' own code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from pipeline.config.tree import Config
from pipeline.errors import ConfigError, Fatal
from pipeline.runners import export_state, import_state
from pipeline.runners.import_state import Choices
from pipeline.sinks.group import group_members
from pipeline.sinks.kafka import client_settings
from pipeline.sinks.topics import add_partitions, ensure_topics, partitions_of
from schemas.incident import Incident
from tests.kafka.conftest import either_runner
from tests.kafka.deployment import DRAIN_S, Deployment, produce, read_topic
from tests.pipeline.log_of_requests import START_US, Record, log

pytestmark = pytest.mark.kafka

CONFIG_ERROR = 2
FATAL = (1, 70)
LOG = log(3, events=2_000)
QUIET = next(i for i, r in enumerate(LOG) if r[2] * 1000 > START_US + 60 * 3_600_000_000)
"""Before the theft, which is at hour 64."""


def work_off(deployment: Deployment, records: list[Record]) -> None:
    """These records, judged by one worker that is stopped at the end."""
    produce(deployment, records)
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    deployment.wait(lambda: deployment.run(group_members(deployment.config.kafka)) == 0, "left")


def opened(deployment: Deployment) -> set[tuple[str, str]]:
    """(key, minute) of each incident."""
    values = asyncio.run(read_topic(deployment.config, deployment.config.topics.incidents))
    return {(x.key_id, x.opened_at[:16]) for x in (msgspec.json.decode(v.value, type=Incident) for v in values)}


def with_partitions(deployment: Deployment, count: int) -> None:
    asyncio.run(add_partitions(deployment.config.kafka, deployment.config.topics.requests, count))
    deployment.partitions = count
    topic = deployment.config.topics.requests
    deployment.wait(lambda: asyncio.run(partitions_of(deployment.config.kafka, [topic]))[topic] == count, "added")


async def delete(config: Config, *topics: str) -> None:
    admin = AIOKafkaAdminClient(**client_settings(config.kafka))
    await admin.start()
    await admin.delete_topics(list(topics))
    await admin.close()
    for _ in range(100):
        if not await partitions_of(config.kafka, list(topics)):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("not deleted")


@either_runner
def test_added_partitions_are_refused_then_served_after_export_and_import(
    deploy: Callable[..., Deployment], tmp_path: Path, runner: str
) -> None:
    stayed = deploy()
    stayed.core = "real"
    work_off(stayed, LOG)
    deployment = deploy(runner)
    deployment.core = "real"
    work_off(deployment, LOG[:QUIET])
    with_partitions(deployment, 7)
    refused = deployment.start()
    assert refused.wait(DRAIN_S) == CONFIG_ERROR
    assert "keywatch state export" in deployment.log_of(refused)
    assert export_state.main(deployment.config, tmp_path) == 0
    with pytest.raises(ConfigError, match="has 7 partitions, not 6"):
        import_state.main(deployment.config, tmp_path, Choices(6))
    assert import_state.main(deployment.config, tmp_path, Choices(7)) == 0
    assert import_state.main(deployment.config, tmp_path, Choices(7)) == 0, "once more changes nothing"
    work_off(deployment, LOG[QUIET:])
    assert opened(stayed)
    assert opened(deployment) == opened(stayed)
    with pytest.raises(Fatal, match="the file only to"):
        import_state.main(deployment.config, tmp_path, Choices(7))
    rejected = asyncio.run(read_topic(deployment.config, deployment.config.topics.rejected))
    assert not [r for r in rejected if b"wrong_partition" in r.value]


@either_runner
def test_a_running_worker_stops_when_partitions_are_added_before_it_rejects_an_event(
    deploy: Callable[..., Deployment], runner: str
) -> None:
    deployment = deploy(runner)
    deployment.core = "real"
    produce(deployment, LOG[:300])
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    with_partitions(deployment, 7)
    key, value, _ = LOG[0]
    strangers: list[Record] = [
        (b"new%d" % n, (value or b"").replace(b'"%b"' % (key or b""), b'"new%d"' % n), LOG[300][2]) for n in range(60)
    ]
    produce(deployment, strangers)
    assert worker.wait(DRAIN_S) in FATAL, deployment.log_of(worker)
    assert "keywatch state import" in deployment.log_of(worker)
    rejected = asyncio.run(read_topic(deployment.config, deployment.config.topics.rejected))
    assert not [r for r in rejected if b"wrong_partition" in r.value]


def test_export_refuses_a_running_group_and_a_log_that_is_not_judged(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    deployment = deploy()
    deployment.core = "real"
    produce(deployment, LOG[:300])
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    with pytest.raises(Fatal, match="stop all workers first"):
        export_state.main(deployment.config, tmp_path)
    assert deployment.stop(worker) == 0
    deployment.wait(lambda: deployment.run(group_members(deployment.config.kafka)) == 0, "left")
    produce(deployment, LOG[300:400])
    with pytest.raises(Fatal, match="events wait in the log"):
        export_state.main(deployment.config, tmp_path)
    assert list(tmp_path.iterdir()) == [p for p in tmp_path.iterdir() if p.is_dir()], "no half a file"
    assert export_state.main(deployment.config, tmp_path / "backup", undrained=True) == 0
    with_partitions(deployment, 7)
    with pytest.raises(Fatal, match="written for another number"):
        import_state.main(deployment.config, tmp_path / "backup", Choices(7))


@either_runner
def test_a_topic_made_anew_gets_the_state_of_the_old_one(
    deploy: Callable[..., Deployment], tmp_path: Path, runner: str
) -> None:
    stayed = deploy()
    stayed.core = "real"
    work_off(stayed, LOG)
    deployment = deploy(runner)
    deployment.core = "real"
    work_off(deployment, LOG[:QUIET])
    assert export_state.main(deployment.config, tmp_path / "state") == 0
    topics = deployment.config.topics
    asyncio.run(delete(deployment.config, topics.requests, topics.pages))
    fewer = msgspec.structs.replace(
        deployment.config, kafka=msgspec.structs.replace(deployment.config.kafka, partitions=2)
    )
    asyncio.run(ensure_topics(fewer))
    deployment.partitions = 2
    time.sleep(1.0)  # the broker forgets the offsets of a deleted topic a moment later
    assert import_state.main(deployment.config, tmp_path / "state", Choices(2)) == 0
    work_off(deployment, LOG[QUIET:])
    assert opened(deployment) == opened(stayed)


def test_a_backup_restores_what_was_lost(deploy: Callable[..., Deployment], tmp_path: Path) -> None:
    deployment = deploy()
    deployment.core = "real"
    work_off(deployment, LOG[:QUIET])
    assert export_state.main(deployment.config, tmp_path / "state") == 0
    work_off(deployment, LOG[QUIET:])
    before = opened(deployment)
    asyncio.run(delete(deployment.config, deployment.config.topics.pages))
    assert import_state.main(deployment.config, tmp_path / "state", Choices(4)) == 0
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    published = [r.value for r in asyncio.run(read_topic(deployment.config, deployment.config.topics.incidents))]
    assert before
    assert opened(deployment) == before
    assert len(set(published)) * 2 == len(published), "judged once more, the very same incidents came"
