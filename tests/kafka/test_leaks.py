"""A signed report of a leaked key on a real Kafka and ClickHouse: as intake runs it, from body to catalogue."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import aiohttp
import msgspec
import pytest

from pipeline.asking.answers import connected
from pipeline.asking.queries import newest_incidents
from pipeline.config.tree import ClickHouse, Config, Intake, Kafka, Leaks, Secret, Topics
from pipeline.errors import ConfigError
from pipeline.intake.http import from_http
from pipeline.intake.run import Pump, _topics
from pipeline.keys import leaks
from pipeline.keys.catalogue import publish_keys, read_catalogue
from pipeline.sinks.kafka import Producer
from schemas.incident import Incident
from tests.kafka.cluster import Cluster
from tests.kafka.deployment import read_topic
from tests.pipeline.intake.test_run import Broker
from tests.pipeline.keys.test_leaks import PAYMENTS, PEPPER, SIGNER, TOKEN, body, document, headers

pytestmark = pytest.mark.kafka
_numbers = itertools.count()


def config_for(node: Cluster, clickhouse: ClickHouse, folder: Path) -> Config:
    name = f"leaks{next(_numbers)}"
    keys = folder / "github.json"
    keys.write_bytes(document(one=SIGNER))
    return Config(
        kafka=Kafka(brokers=node.brokers, partitions=2), clickhouse=clickhouse,
        topics=Topics(**{each: f"{name}.{each}" for each in Topics.__struct_fields__}),
        intake=Intake(http_port=0, pepper=Secret(PEPPER)), leaks=Leaks(enabled=True, public_keys_file=str(keys)),
    )  # fmt: skip


async def test_a_report_goes_the_whole_way_and_a_restart_repeats_nothing(
    node: Cluster,
    clickhouse: ClickHouse,
    tmp_path: Path,
) -> None:
    config = config_for(node, clickhouse, tmp_path)
    await _topics(config)
    await publish_keys(config, [PAYMENTS])
    raw = body(TOKEN)
    for _ in range(2):  # the second time in a new process' place
        producer = Producer(config.kafka)
        await producer.start()
        stop, bound = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.create_task(from_http(config, Pump(config, producer), stop, bound))
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{await bound}/leaks"
            answer = await session.post(url, data=raw, headers=headers(raw))
            assert (answer.status, [each["label"] for each in await answer.json()]) == (200, ["true_positive"])
            assert (await session.post(url, data=raw + b" ", headers=headers(raw))).status == 401
        stop.set()
        await task
        await producer.close()
    (record,) = await read_topic(config, config.topics.incidents)
    incident = msgspec.json.decode(record.value, type=Incident)
    declared = (await read_catalogue(config)).get("payments")
    assert declared is not None and declared.leaked_at == incident.opened_at
    with connected(config.clickhouse) as client:
        (told,) = newest_incidents(client, "payments")
        (leak,) = leaks.leaks(client)
    assert (told.incident_id, leak.incident_id, leak.key_id) == (incident.incident_id, incident.incident_id, "payments")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Leaks(enabled=True), "leaks.enabled needs leaks.public_keys_file"),
        (Leaks(enabled=True, public_keys_url="http://h.example"), "https://"),
        (Leaks(enabled=True, token=Secret("x")), "needs intake.pepper"),
    ],
)
async def test_what_could_not_work_is_said_before_anything_is_served(settings: Leaks, words: str) -> None:
    pepper = Secret("") if "pepper" in words else Secret(PEPPER)
    config = Config(leaks=settings, intake=Intake(http_port=0, pepper=pepper))
    with pytest.raises(ConfigError, match=words):
        await from_http(config, Pump(config, Broker()), asyncio.Event())
