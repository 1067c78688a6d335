"""From requests to an incident of a source, and of a key's life, through real workers that are killed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.faults import KILLED
from pipeline.records import of_records
from pipeline.runners.slices import cut
from pipeline.runners.topology import open_core_of, settings_of
from pipeline.sinks.kafka import Producer
from schemas.event import Event
from schemas.incident import Incident
from schemas.key_event import KeyEvent
from tests.kafka.deployment import PARTITIONS, Deployment, produce, read_topic
from tests.pipeline.log_of_requests import GEO, HOME, HOUR_US, START_US, Declared, Record, record

pytestmark = pytest.mark.kafka

KEYS = 20
DAYS = 9
RENTED_ABROAD = "128.199.200.7"
KILLS = ("after_publish:1", "between_pages:2", "before_manifest:2", "after_manifest:3", "after_recovery:1")


class Topology(Deployment):
    """The same topics, seen by another topology."""

    @property
    def config(self) -> Config:
        """As its workers have it."""
        return settings_of(super().config, self.core)


def requests() -> list[Record]:
    """Keys that are used from home for nine days, then all of them by one rented server within minutes."""
    out = []
    for hour in range(0, DAYS * 24, 3):
        for n in range(KEYS):
            at_us = START_US + hour * HOUR_US + n * 1_000_000
            out.append(_request(n, at_us, HOME[n % 3]))
    end_us = START_US + DAYS * 24 * HOUR_US
    out += [_request(n, end_us + n * 20_000_000, RENTED_ABROAD) for n in range(KEYS)]
    return [record(event) for event in out]


def _request(n: int, at_us: int, address: str) -> Event:
    return Event(
        key_id=f"pk_{n}", ts_us=at_us, client_ip=address, method="GET", path="/v1/things", status=200,
        outcome="success", request_id=f"{n}-{at_us}",
    )  # fmt: skip


def incidents_of(deployment: Deployment, *rules: str) -> list[Incident]:
    """What the workers have published, each revision once."""
    records = asyncio.run(read_topic(deployment.config, deployment.config.topics.incidents))
    told = [msgspec.json.decode(record.value, type=Incident) for record in records]
    once = {(each.incident_id, each.revision): each for each in told if each.rule in rules}
    return sorted(once.values(), key=lambda each: (each.incident_id, each.revision))


def clean(deployment: Deployment, topology: str) -> list[Incident]:
    """One core for each partition over the whole log, in one pass."""
    records = asyncio.run(read_topic(deployment.config, deployment.config.topics.requests))
    found: list[Incident] = []
    for number in range(PARTITIONS):
        mine: list[Any] = [each for each in records if each.partition == number]
        core = open_core_of(topology)(number, deployment.config, Sides(Declared(), GEO, ""), "", PARTITIONS)
        for part in cut("", number, of_records(mine), None, deployment.config) if mine else ():
            found += core.process(part.records).incidents
    return sorted(found, key=lambda each: (each.incident_id, each.revision))


def run_through(topology: Topology) -> None:
    """Workers that die at named moments, then one that ends the work."""
    for fault in KILLS:
        killed = topology.start(fault)
        try:
            assert killed.wait(30) == KILLED, topology.log_of(killed)
        except Exception:
            topology.kill_all()
            raise
    worker = topology.start()
    topology.wait_ready(worker)
    topology.wait_drained()
    assert topology.stop(worker) == 0, topology.log_of(worker)


def run_both(keys: Deployment, topology: str) -> Topology:
    """The keys' worker over what was produced, then the topology's over what that has told."""
    worker = keys.start()
    keys.wait_ready(worker)
    keys.wait_drained()
    assert keys.stop(worker) == 0, keys.log_of(worker)
    told = Topology(keys.brokers, keys.prefix, keys.folder / topology, core=topology)
    try:
        run_through(told)
    finally:
        told.kill_all()
    return told


def test_a_stolen_batch_becomes_one_incident_of_its_source(deploy: Callable[..., Deployment]) -> None:
    keys = deploy()
    keys.core = "real"
    produce(keys, requests())
    topology = run_both(keys, "sources")
    found = incidents_of(topology, "spray", "guessing", "outbreak", "silence")
    assert found == clean(topology, "sources")
    sprayed = [incident for incident in found if incident.rule == "spray"]
    assert {incident.key_id for incident in sprayed} == {"source:128.199.200.0/24"}
    assert len({incident.incident_id for incident in sprayed}) == 1
    assert sprayed[-1].keys_total >= 12
    assert "unrelated owners came from there in an hour" in sprayed[-1].text


def test_a_key_that_is_made_and_used_abroad_becomes_an_incident(deploy: Callable[..., Deployment]) -> None:
    keys = deploy()
    made = [
        KeyEvent(
            key_id=f"pk_{n}", ts_us=START_US + n * HOUR_US, kind="created", actor=f"user_{n}", actor_role="member",
            environment="live", client_ip="130.149.7.7",
        )
        for n in range(6)
    ]  # fmt: skip
    asyncio.run(_tell(keys.config, made))
    keys.core = "real"
    produce(keys, [record(_request(n, START_US + n * HOUR_US + 60_000_000, RENTED_ABROAD)) for n in range(6)])
    topology = run_both(keys, "lifecycle")
    found = incidents_of(topology, "lifecycle")
    assert found == clean(topology, "lifecycle")
    assert "made by somebody who is no admin" in found[0].text


async def _tell(config: Config, events: list[KeyEvent]) -> None:
    producer = Producer(config.kafka)
    await producer.start()
    for event in events:
        await producer.publish(config.topics.key_events, event.key_id.encode(), msgspec.json.encode(event))
    await producer.close()
