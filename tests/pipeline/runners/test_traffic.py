"""The traffic generator against a broker: keys declared, two weeks written once, clients that go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.config.tree import Config, Kafka, Topics
from pipeline.demo import broker
from pipeline.demo.children import Children
from pipeline.demo.fleet import build
from pipeline.demo.lives import NEVER_USED
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import read_catalogue
from pipeline.runners import traffic
from pipeline.sinks.kafka import fetched_highwaters

PARTITIONS = 4


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[Config]:
    children = Children(tmp_path, {})
    _, address = await broker.start(children)
    await broker.create_topics(address, Topics(), PARTITIONS)
    yield Config(kafka=Kafka(brokers=address, partitions=PARTITIONS))
    await children.stop_all()


async def requests(config: Config) -> int:
    return sum((await fetched_highwaters(config.kafka, config.topics.requests, range(PARTITIONS))).values())


async def until_more_than(config: Config, count: int) -> None:
    async with asyncio.timeout(120):
        while await requests(config) <= count:  # each look is a fetch, which waits by itself
            pass


async def running(config: Config, more_than: int) -> int:
    task = asyncio.create_task(traffic.run(config, attacks=False))
    waiting = asyncio.create_task(until_more_than(config, more_than))
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task.exception()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await waiting
    return await requests(config)  # with what was on its way when it was stopped


async def test_the_past_is_written_once_and_clients_go_on_from_there(config: Config) -> None:
    first = await running(config, 50_000)
    catalogue = await read_catalogue(config)
    assert {client.key_id for client in build(traffic.SEED)} | set(NEVER_USED) == set(catalogue)
    again = await running(config, first)
    assert again - first < 5_000, "a second start adds live requests, no second past"


def test_a_secured_broker_is_refused() -> None:
    with pytest.raises(ConfigError, match="plain"):
        traffic.main(Config(kafka=Kafka(security="SSL")), attacks=True)
