"""The real core behind a real broker: after kills, incidents and rows are those of one clean pass over the same log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from pipeline.column import plain
from pipeline.core import Rows, Sides
from pipeline.faults import KILLED
from pipeline.flow import open_core
from pipeline.records import of_records
from pipeline.rows import append_rows
from pipeline.sinks.kafka import Producer
from pipeline.sinks.topics import topic_id
from tests.kafka.deployment import DRAIN_S, PARTITIONS, Deployment, read_topic
from tests.pipeline.log_of_requests import GEO, Record, catalogue, log

pytestmark = pytest.mark.kafka

KEYS: Final = {
    "requests": ("key_id", "ts", "partition", "offset"),
    "requests_1m": ("key_id", "window_start", "part"),
    "requests_1h": ("key_id", "window_start", "part"),
    "findings": ("finding_id",),
    "incidents": ("incident_id", "version"),
    "keys_last_used": ("key_id",),
}
Newest = dict[str, dict[tuple[Any, ...], dict[str, Any]]]


def produce(deployment: Deployment, records: list[Record]) -> None:
    """Keyed as producers do it, with the event's time as timestamp."""

    async def send() -> None:
        producer = Producer(deployment.config.kafka)
        await producer.start()
        topic = deployment.config.topics.requests
        for key, value, timestamp_ms in records:
            await producer._producer.send(topic, value, key=key, timestamp_ms=timestamp_ms)
        await producer.close()

    asyncio.run(send())


def newest(rows: list[tuple[str, dict[str, Any]]]) -> Newest:
    """What ReplacingMergeTree leaves."""
    left: Newest = {}
    for table, row in rows:
        if table in KEYS:
            found = left.setdefault(table, {})
            key = tuple(row[name] for name in KEYS[table])
            if key not in found or row.get("version", 0) >= found[key].get("version", 0):
                found[key] = row
    return left


def written(deployment: Deployment) -> Newest:
    rows = []
    for path in sorted((deployment.folder / "rows").glob("*.jsonl")):
        rows += [(path.stem, json.loads(line)) for line in path.read_text().splitlines()]
    return newest(rows)


def clean_rows(deployment: Deployment) -> tuple[set[bytes], Rows]:
    """One core per partition over the whole log, in one slice each: incidents and rows."""
    epoch = asyncio.run(topic_id(deployment.config.kafka, deployment.config.topics.requests))
    records = asyncio.run(read_topic(deployment.config, deployment.config.topics.requests))
    incidents: set[bytes] = set()
    rows: Rows = {}
    for number in range(PARTITIONS):
        mine = [r for r in records if r.partition == number]
        if mine:
            core = open_core(number, deployment.config, Sides(catalogue(), GEO, "test"), epoch, PARTITIONS)
            effects = core.process(of_records(mine).part("", number, 0, len(mine)))
            incidents |= {msgspec.json.encode(incident) for incident in effects.incidents}
            append_rows(rows, effects.rows)
            append_rows(rows, core.due_rows())
    return incidents, rows


def clean_pass(deployment: Deployment) -> tuple[set[bytes], Newest]:
    """The same, with what ReplacingMergeTree leaves of the rows."""
    incidents, rows = clean_rows(deployment)
    flat = [
        (table, json.loads(json.dumps(dict(zip(columns_, values, strict=True)))))
        for table, columns_ in rows.items()
        for values in zip(*map(plain, columns_.values()), strict=True)
    ]
    return incidents, newest(flat)


def test_the_real_core_gives_after_kills_what_a_clean_pass_gives(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy()
    deployment.core = "real"
    produce(deployment, log(3, events=3_000))
    for fault in ("after_publish:1", "after_rows:2", "after_manifest:2"):
        killed = deployment.start(fault)
        assert killed.wait(DRAIN_S) == KILLED, deployment.log_of(killed)
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    incidents, rows = clean_pass(deployment)
    published = asyncio.run(read_topic(deployment.config, deployment.config.topics.incidents))
    assert incidents
    assert {record.value for record in published} == incidents
    found = written(deployment)
    for table, expected in rows.items():
        assert found[table] == expected, table
