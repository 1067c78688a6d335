"""`keywatch replay --topic` on a real broker finds what a worker published from the same topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.runners import topic_range
from pipeline.runners.replay import ReplayOptions, run
from schemas.incident import Incident
from tests.kafka.deployment import PARTITIONS, Deployment, produce, read_topic
from tests.pipeline.log_of_requests import catalogue, log

pytestmark = pytest.mark.kafka


def config_file(folder: Path, config: Config) -> Path:
    """The deployment's topics as an operator's file has them."""
    topics = "\n".join(f'{name} = "{getattr(config.topics, name)}"' for name in config.topics.__struct_fields__)
    path = folder / "keywatch.toml"
    path.write_text(f'[kafka]\nbrokers = "{config.kafka.brokers}"\n[topics]\n{topics}\n')
    return path


def keys_file(folder: Path) -> Path:
    """What the worker's catalogue declares."""
    path = folder / "keys.jsonl"
    declared: Any = catalogue().get("pk_0")
    path.write_bytes(msgspec.json.encode(declared) + b"\n")
    return path


def raw(config: Config, from_: str = "", to: str = "") -> list[topic_range.Raw]:
    async def read() -> list[topic_range.Raw]:
        topic = await topic_range._describe(config, config.topics.requests)
        return [record async for batch in topic_range.read_range(config, topic, from_, to) for record in batch]

    return asyncio.run(read())


def test_a_replayed_topic_gives_the_incidents_and_rejects_that_the_worker_published(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    deployment = deploy()
    deployment.core = "real"
    produce(deployment, log(3, events=3_000))
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    config = deployment.config
    outcome = run(
        ReplayOptions(
            topic=config.topics.requests,
            config=config_file(tmp_path, config),
            keys=keys_file(tmp_path),
            slice_events=70,
        )
    )
    published = [record.value for record in asyncio.run(read_topic(config, config.topics.incidents))]
    newest: dict[str, Incident] = {}
    for value in published:
        incident = msgspec.json.decode(value, type=Incident)
        newest[incident.incident_id] = max(
            newest.get(incident.incident_id, incident), incident, key=lambda x: x.revision
        )
    assert newest
    assert outcome.incidents.keys() == newest.keys()
    for incident_id, incident in newest.items():
        found = outcome.incidents[incident_id]
        assert (found.partition, found.offset, found.severity, found.text) == (
            incident.partition, incident.offset, incident.severity, incident.text,
        )  # fmt: skip
    rejected = asyncio.run(read_topic(config, config.topics.rejected))
    assert sum(outcome.rejected.values()) == len(rejected) > 0


def test_a_range_holds_its_times_and_each_record_its_own_place(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy()
    produce(deployment, log(1, events=600))
    everything = raw(deployment.config)
    truth = asyncio.run(read_topic(deployment.config, deployment.config.topics.requests))
    places = {(r.partition, r.offset): (r.key, r.value, r.timestamp) for r in truth}
    assert {(r.partition, r.offset): (r.key, r.value, r.timestamp_ms) for r in everything} == places
    early = raw(deployment.config, to="2026-05-30T20:26:40Z")
    rest = raw(deployment.config, from_="2026-05-30T22:26:40+02:00")
    assert early and rest
    assert sorted((r.partition, r.offset) for r in early + rest) == sorted(places)
    assert {r.partition for r in everything} <= set(range(PARTITIONS))


def test_a_topic_that_is_missing_is_said_in_one_line(deploy: Callable[..., Deployment]) -> None:
    with pytest.raises(ConfigError, match="no topic 'nowhere'"):
        topic_range.describe(deploy().config, "nowhere")
