"""The night on Apache Kafka: a responder pages one case once, over SIGKILL, and says that nobody is watching."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from pipeline.respond.night.desk import opened
from pipeline.respond.night.records import CaseSaid
from tests.kafka.cluster import Cluster
from tests.kafka.test_responder import World, fresh
from tests.pipeline.respond.delivery.test_channel import listening

TOKEN = "R0UTINGKEYROUTINGKEYROUTINGKEY12"
Events = list[dict[str, Any]]


class Pager:
    """What PagerDuty heard, by `event_action` and class."""

    def __init__(self, came: list[tuple[Any, Any]]) -> None:
        self._came = came

    def of(self, *actions: str) -> Events:
        return [body for _, body in self._came if body["event_action"] in actions]

    def cases(self) -> list[str]:
        return [each["event_action"] for each in self.of("trigger", "acknowledge") if self.about_a_case(each)]

    def about_a_case(self, event: dict[str, Any]) -> bool:
        return str(event["dedup_key"]).startswith("case_")

    async def until(self, count: int, key: str) -> None:
        """So many events whose dedup key begins so."""
        async with asyncio.timeout(60):
            while len([1 for _, body in self._came if body["dedup_key"].startswith(key)]) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def until_acknowledged(self) -> None:
        """Of some case."""
        async with asyncio.timeout(60):
            while "acknowledge" not in self.cases():  # noqa: ASYNC110
                await asyncio.sleep(0.1)


@pytest.fixture
async def pager() -> AsyncIterator[tuple[str, Pager]]:
    async with listening() as (url, came):
        yield url, Pager(came)


@pytest.fixture
def world(node: Cluster, pager: tuple[str, Pager]) -> Iterator[World]:
    this = World(node.brokers, "http://127.0.0.1:9/")
    respond = this.settings["respond"]
    respond["endpoints"] = [
        {"name": "pager", "kind": "pagerduty", "url": pager[0], "secret": TOKEN, "allow_private": True}
    ]
    respond["revocation"] = {"mode": "simulate"}
    respond["night"] = {"blind_after_s": 4, "look_every_s": 1, "numbers_within_s": 0.2}
    yield this
    this.end()


async def test_one_case_is_one_page_over_a_kill_and_in_step_with_its_acknowledgement(
    world: World, pager: tuple[str, Pager]
) -> None:
    _, heard = pager
    await world.prepare(keys=5)
    first = world.start()
    async with world.producer() as producer:
        for name in ("k1", "k2"):
            about = msgspec.structs.replace(fresh(name), owner="billing")
            await producer.publish(world.config.topics.incidents, name.encode(), msgspec.json.encode(about))
    await heard.until(1, "case_")
    world.signal(first, signal.SIGKILL)
    first.wait(10)
    world.start()
    async with opened(world.config) as desk:
        (case,) = desk.books.cases.cases.values()
        assert sorted(case.keys) == ["k1", "k2"]
        await desk.write([CaseSaid(case_id=case.case_id, verb="ack", by="ada")])
    await heard.until_acknowledged()
    *before, last = heard.cases()
    assert set(before) == {"trigger"} and last == "acknowledge"
    assert len(before) <= 2, "once, and once more at most where the kill came before it was noted"
    assert len({each["dedup_key"] for each in heard.of("trigger") if heard.about_a_case(each)}) == 1
    page = next(each for each in heard.of("trigger") if heard.about_a_case(each))
    assert page["routing_key"] == TOKEN
    assert page["payload"]["custom_details"]["Owner"] == "billing"
    assert "unknown" in page["payload"]["custom_details"]["It would break"]  # ClickHouse is away


async def test_that_nobody_watches_is_said_by_itself(world: World, pager: tuple[str, Pager]) -> None:
    _, heard = pager
    await world.prepare(keys=1)
    world.start()
    await heard.until(1, "protection")
    (told,) = heard.of("trigger")
    assert told["payload"]["summary"].startswith("UNPROTECTED since")
    assert told["payload"]["severity"] == "critical"
