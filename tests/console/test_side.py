"""Declared keys and mutes are followed on a broker, found again when it was away, and read at once when asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from pipeline.config.tree import Config, Kafka, Topics
from pipeline.console.side import Readers, Side, connected
from pipeline.control.controls import Controls
from pipeline.control.topic import say
from pipeline.demo import broker
from pipeline.errors import Fatal
from pipeline.keys.catalogue import Catalogue, publish_keys
from schemas.control import Mute
from schemas.key import Key

MUTED = Mute(key_id="k1", reason="r", owner_of_mute="bea", at="2026-09-21T00:00:00Z", until="2099-01-01T00:00:00Z")


async def test_what_is_said_on_the_topics_is_there_at_once_for_who_asks(embedded_broker: str) -> None:
    topics = Topics(**{name: f"side.{name}" for name in Topics.__struct_fields__})
    await broker.create_topics(embedded_broker, topics, partitions=1)
    config = Config(kafka=Kafka(brokers=embedded_broker, partitions=1), topics=topics)
    await publish_keys(config, [Key(key_id="k1", owner="anna")])
    side = Side(partial(connected, config))
    following = asyncio.create_task(side.follow())
    async with asyncio.timeout(30):
        while side.controls is None or side.catalogue is None:  # noqa: ASYNC110  nobody is told of the first reading
            await asyncio.sleep(0.01)
    found = side.catalogue.get("k1")
    assert (found is not None and found.owner, side.mutes(0)) == ("anna", [])
    (seq,) = await say(config, [MUTED])
    await side.reach(seq, 30.0)
    assert side.mutes(0) == [MUTED]
    following.cancel()
    await asyncio.wait([following])


async def test_where_the_broker_is_away_the_last_snapshots_stay() -> None:
    tries: list[int] = []

    class Read:
        async def refresh(self) -> tuple[Catalogue, Controls]:
            if len(tries) > 1:
                raise Fatal("away")
            return Catalogue.of([Key(key_id="k1")]), Controls("topic", 1)

    @asynccontextmanager
    async def connect() -> AsyncIterator[Readers]:
        tries.append(1)
        yield Read()

    side = Side(connect)
    following = asyncio.create_task(side.follow())
    async with asyncio.timeout(30):
        while side.catalogue is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        tries.append(1)
        await side.reach(7, 0.1)
    assert len(side.catalogue) == 1
    following.cancel()
    await asyncio.wait([following])
