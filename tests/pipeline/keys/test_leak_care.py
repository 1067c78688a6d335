"""A leak is told a second time once a stranger uses the key, and closed once its secret opens nothing any more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
import pytest

from pipeline.asking.investigate import Source
from pipeline.config.policy import Policy, Rule
from pipeline.config.tree import ClickHouse
from pipeline.errors import Retry
from pipeline.keys import leaks
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.leak_care import LeakCare, open_leaks_of, strangers_of, why_dead
from pipeline.keys.leaks import Match, Report, incident_of
from pipeline.ports import Columns
from pipeline.respond.guard import Question, evidence, judge
from pipeline.respond.ladder import Ladder
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.incident import Incident
from schemas.key import Key
from tests.pipeline.intake.test_run import Broker
from tests.pipeline.key_rows import DAY_US, HOUR_US, NOON_US, Use, daily, fill
from tests.pipeline.keys.test_leaks import TOPICS

PAYMENTS = Key(key_id="payments", owner="acme", environment="live", version=4)
LEAK = incident_of(Match(report=Report(feed="github", hash="h", shown=True), key=PAYMENTS), NOON_US)
HEARSAY = incident_of(Match(report=Report(feed="manual", key_id="payments"), key=PAYMENTS), NOON_US)


def source(**changes: object) -> Source:
    seen = Source(
        network="AS64666", prefixes=["203.0.113.0/24"], asn=64_666, country="RO", client="sqlmap", requests=3,
        succeeded=3, refused=0, bytes_out=10, first_us=NOON_US, last_us=NOON_US + HOUR_US, new_network=True,
        new_client=True,
    )  # fmt: skip
    return msgspec.structs.replace(seen, **changes)


@dataclass
class World:
    """Topics and tables in memory."""

    open: list[Incident] = field(default_factory=lambda: [LEAK])
    catalogue: Catalogue = field(default_factory=lambda: Catalogue.of([PAYMENTS]))
    seen: list[Source] = field(default_factory=list)
    broker: Broker = field(default_factory=Broker)

    async def write(self, table: str, rows: Columns) -> None:
        assert table == "incidents"
        self.open = [msgspec.json.decode(body, type=Incident) for body in rows["body"]]
        self.open = [each for each in self.open if each.state == "open"]

    async def close(self) -> None:
        pass

    async def declared(self) -> Catalogue:
        return self.catalogue

    async def open_ones(self) -> list[Incident]:
        return self.open

    async def strangers(self, incident: Incident) -> list[Source]:
        return self.seen

    def care(self) -> LeakCare:
        return LeakCare(
            TOPICS.incidents, self.broker, self, self.declared, self.open_ones, self.strangers, lambda: NOON_US + DAY_US
        )  # fmt: skip

    def told(self) -> list[Incident]:
        return [msgspec.json.decode(value, type=Incident) for _, value in self.broker.of(TOPICS.incidents)]


async def test_a_stranger_who_uses_it_is_told_once_as_evidence_of_the_leak() -> None:
    world = World()
    care = world.care()
    await care.look()
    assert world.told() == []
    world.seen = [source(), source(network="AS64667", last_us=NOON_US)]
    for _ in range(3):
        await care.look()
    (told,) = world.told()
    assert (told.incident_id, told.revision, told.change, told.state) == (LEAK.incident_id, 2, "escalated", "open")
    assert "a stranger uses the leaked key: 6 requests (6 succeeded) from 2 new sources" in told.text
    assert "AS64666 by sqlmap" in told.text
    assert [(each.family, each.authenticated) for each in told.findings] == [("declared", True), ("network", True)]


async def test_a_stranger_who_was_refused_has_not_used_it() -> None:
    world = World(seen=[source(succeeded=0, refused=3)])
    await world.care().look()
    assert world.told() == []


async def test_hearsay_does_not_become_a_proof_by_a_new_network() -> None:
    world = World(open=[HEARSAY], seen=[source()])
    await world.care().look()
    (told,) = world.told()
    assert not any(each.authenticated for each in told.findings)
    ladder = Ladder(Policy(mode="enforce"), (Rule(name="leak", rung="revoke", proof="only"),))
    asked = Question(told, ladder, PAYMENTS, "", "", NOON_US / 1e6)
    assert not evidence(asked).passed
    assert len(judge(asked)) > 5


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (PAYMENTS, ""),
        (None, ""),
        (msgspec.structs.replace(PAYMENTS, status="suspended"), ""),
        (msgspec.structs.replace(PAYMENTS, version=0), ""),
        (msgspec.structs.replace(PAYMENTS, status="revoked"), "the key is revoked"),
        (msgspec.structs.replace(PAYMENTS, status="expired"), "the key is expired"),
        (msgspec.structs.replace(PAYMENTS, version=5), "the key has another secret, version 5"),
    ],
)
async def test_a_leak_is_over_once_its_secret_is_dead(key: Key | None, why: str) -> None:
    assert why_dead(key, LEAK) == why
    world = World(catalogue=Catalogue.of([key] if key else []), seen=[] if not why else [source()])
    for _ in range(2):
        await world.care().look()
    if not why:
        assert world.told() == []
        return
    (told,) = world.told()
    assert (told.revision, told.change, told.state) == (2, "closed", "closed")
    assert told.text.endswith(f"over: {why}") and told.closed_at == told.last_at


async def test_what_cannot_be_asked_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    world, looked = World(seen=[source()]), asyncio.Event()

    caplog.set_level("WARNING")

    async def flaky() -> Catalogue:
        if not looked.is_set():
            looked.set()
            raise Retry("no broker")
        return world.catalogue

    care = LeakCare(TOPICS.incidents, world.broker, world, flaky, world.open_ones, world.strangers)
    running = asyncio.create_task(care.run(0.0))
    async with asyncio.timeout(20):
        while not world.told():  # noqa: ASYNC110  it publishes when it looks
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert "no broker" in caplog.text


def test_strangers_and_open_leaks_are_read_from_clickhouse(clickhouse: ClickHouse) -> None:
    thief = {"ip": "203.0.113.9", "asn": 64_666, "country": "RO", "client": "sqlmap"}
    named = Use("stolen", NOON_US - 5 * DAY_US, outcome="invalid", **thief)  # type: ignore[arg-type]
    uses = [*daily("stolen", range(20)), named, *daily("own", range(20)), Use("new", NOON_US)]
    fill(clickhouse, [*uses, Use("stolen", NOON_US + HOUR_US, times=3, **thief)])  # type: ignore[arg-type]
    made = {name: incident_of(Match(report=Report(feed="github", shown=True), key=Key(key_id=name)), NOON_US)
            for name in ("stolen", "own", "new", "gone")}  # fmt: skip

    async def write() -> None:
        sink, broker = ClickHouseSink(clickhouse), Broker()
        for name, incident in made.items():
            match = Match(report=Report(feed="github", shown=True), key=Key(key_id=name))
            for at_us in (NOON_US, NOON_US + 1):  # again, as after a crash
                await leaks.tell([match], at_us, TOPICS, broker, sink)
            if name == "gone":
                care = World(open=[incident], catalogue=Catalogue.of([Key(key_id="gone", status="revoked")]))
                care.write = sink.write  # type: ignore[method-assign]
                await care.care().look()
        await sink.close()

    asyncio.run(write())
    client = connect(clickhouse, clickhouse.database)
    assert {each.key_id for each in open_leaks_of(client)} == {"stolen", "own", "new"}
    seen = {name: strangers_of(client, made[name], NOON_US + DAY_US) for name in made}
    client.close()
    assert {name: [each.client for each in found] for name, found in seen.items()} == {
        "stolen": ["sqlmap"], "own": [], "new": [], "gone": []
    }  # fmt: skip
