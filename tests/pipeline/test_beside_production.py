"""`worker --shadow` and `plugin`, as processes: embedded broker, embedded ClickHouse, a log with an attack in it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from clickhouse_connect.driver.client import Client

from pipeline.config import file as config_file
from pipeline.config.tree import Config
from pipeline.demo import broker
from pipeline.demo.children import Child, Children, last_words
from pipeline.migrate import migrate
from pipeline.shadow import shadowed
from pipeline.sinks.connect import connect
from schemas.incident import Incident
from tests.pipeline.log_of_requests import log

pytestmark = pytest.mark.timeout(600)
ALLOW_S = 240.0  # alone it takes 25 s; compiling first, and beside others, longer
LOG = log(1, events=3_000)
REQUESTS = 3_000 + 150 + 10


@dataclass
class World:
    """Production's configuration, and the shadow's."""

    path: Path
    production: Config
    shadow: Config
    children: Children

    async def start(self, name: str, *arguments: str) -> Child:
        return await self.children.start(name, [sys.executable, "-m", "pipeline.cli.main", *arguments])


@pytest_asyncio.fixture
async def world(tmp_path: Path, front: str) -> AsyncIterator[World]:
    """The log lies in the requests topic; production's worker doesn't run."""
    children, path = Children(tmp_path, {}), tmp_path / "keywatch.toml"
    try:
        _, address = await broker.start(children)
        path.write_text(
            f'[kafka]\nbrokers = "{address}"\npartitions = 1\nrebalance_timeout_s = 3.0\nsession_timeout_s = 20.0\n'
            f'[clickhouse]\nurl = "{front}"\ndatabase = "beside"\ninsert_s = 0.3\nexpire = false\n'
            f"[worker]\ncheckpoint_s = 1.0\nmetrics_port = {broker.free_port()}\n"
            "[plugin]\nfinding_bits = 0.1\npoll_s = 0.2\nlearn_days = 30\n"
        )
        production = config_file.load(path)
        made = World(path, production, shadowed(production, "new"), children)
        for each in (made.production, made.shadow):
            await broker.create_topics(address, each.topics, partitions=1)
            await asyncio.to_thread(migrate, each.clickhouse)
        await produce(address, production.topics.requests)
        yield made
    finally:
        await children.stop_all()


async def produce(address: str, topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address)
    await producer.start()
    for key, value, timestamp_ms in LOG:
        await producer.send(topic, value, key, partition=0, timestamp_ms=timestamp_ms)
    await producer.stop()


async def until(client: Client, sql: str, least: int, child: Child) -> None:
    """Until the first number of this query is so large. Fails where the child ends."""
    deadline = time.monotonic() + ALLOW_S
    while (found := (await asyncio.to_thread(client.query, sql)).result_rows[0][0]) < least:
        assert child.running, last_words(child.log, 20, 4_000)
        assert time.monotonic() < deadline, f"{sql}: {found} of {least}; {last_words(child.log)}"
        await asyncio.sleep(0.2)


async def messages(config: Config, topic: str) -> list[Incident]:
    """What lies in a topic of one partition now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=config.kafka.brokers, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    found = await consumer.getmany(timeout_ms=3_000)
    await consumer.stop()
    return [msgspec.json.decode(row.value, type=Incident) for rows in found.values() for row in rows if row.value]


async def test_a_shadow_judges_productions_log_into_tables_and_topics_of_its_own_and_a_plugin_reads_its_minutes(
    world: World,
) -> None:
    client = connect(world.shadow.clickhouse, world.shadow.clickhouse.database)
    shadow = await world.start("shadow", "worker", "--config", str(world.path), "--shadow", "new")
    await until(client, "SELECT count() FROM requests FINAL", REQUESTS, shadow)
    await until(client, "SELECT count() FROM incidents FINAL", 1, shadow)
    told = await messages(world.production, world.shadow.topics.incidents)
    assert {incident.key_id for incident in told} == {"pk_1"}
    assert await messages(world.production, world.production.topics.incidents) == []
    await world.children.stop(shadow)
    assert shadow.process.returncode == 0, last_words(shadow.log)
    production = connect(world.production.clickhouse, world.production.clickhouse.database)
    for table in ("requests", "incidents", "findings", "requests_1m"):
        assert production.query(f"SELECT count() FROM {table}").result_rows == [(0,)]
    production.close()
    await judged_by_the_plugin(world, client)
    client.close()


async def judged_by_the_plugin(world: World, client: Client) -> None:
    """The shadow's minutes are as good as production's: findings of its own, no incident."""
    path = world.path.with_name("plugin.toml")
    path.write_text(world.path.read_text().replace('"beside"', f'"{world.shadow.clickhouse.database}"'))
    before = client.query("SELECT count() FROM incidents FINAL").result_rows
    plugin = await world.start("plugin", "plugin", "--config", str(path))
    await until(client, "SELECT count() FROM findings FINAL WHERE detector = 'plugin'", 1, plugin)
    await world.children.stop(plugin)
    assert plugin.process.returncode == 0, last_words(plugin.log)
    sql = "SELECT family, incident_id, text FROM findings FINAL WHERE detector = 'plugin'"
    for family, incident_id, text in client.query(sql).result_rows:
        assert (family, incident_id) == ("plugin", "")
        assert "HalfSpaceTrees" in text
    assert client.query("SELECT count() FROM incidents FINAL").result_rows == before
