"""The drill as it runs each day: over HTTP through a gateway that really refuses, its log judged by the worker's core.

From there on as in production: incident, responder, order to the gateway, verdict, page. The broker is in memory, its
clock stands unless the test moves it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest
from aiohttp import web

from pipeline.config.night import Drill
from pipeline.config.tree import Config, Secret
from pipeline.core import Core, Sides, Slice
from pipeline.flow import open_core
from pipeline.keys.catalogue import Catalogue
from pipeline.respond.night import desk as night_desk
from pipeline.respond.night.desk import Desk
from schemas.event import Event
from schemas.incident import Incident
from tests.pipeline.log_of_requests import GEO
from tests.pipeline.respond.incidents import NOW_S, key
from tests.pipeline.respond.lives import Lives, Process
from tests.pipeline.respond.memory_log import Fuse
from tests.pipeline.respond.night.test_night import World, arrive, life, rounds
from tests.pipeline.respond.test_handle import Catalogue as Declared

DECOY = key("decoy0", decoy=True, owner="security")
SECRET = "kd-the-decoy-itself"


@dataclass
class Gateway:
    """Knows one key, refuses what it was told to revoke, and writes a log while that works."""

    world: Lives
    logging: bool = True
    log: list[Event] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        if request.headers["X-Api-Key"] != SECRET:
            return web.Response(status=401)
        revoked = (DECOY.key_id, "revoke") in self.world.gateway.set_on
        if self.logging:
            self.log.append(Event(
                key_id=DECOY.key_id, ts_us=int(NOW_S * 1e6) + len(self.log), method="GET", path="/v1/ping",
                status=401 if revoked else 200, outcome="disabled" if revoked else "success",
                client_ip="185.220.101.4", user_agent="curl/8.7.1", environment="live", source="native",
                request_id=f"r{len(self.log)}",
            ))  # fmt: skip
        return web.Response(status=401 if revoked else 200)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/v1/ping", self.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/ping"
        await runner.cleanup()


@dataclass
class Worker:
    """The worker's core over the gateway's log."""

    core: Core = field(default_factory=lambda: open_core(0, Config(), Sides(Catalogue.of([DECOY]), GEO, "c1"), "t", 1))
    at: int = 0

    def judge(self, log: list[Event]) -> list[Incident]:
        fresh, start = log[self.at :], self.at
        if not fresh:
            return []
        self.at = len(log)
        batch = Slice(
            "api.requests", 0, range(start, self.at), [DECOY.key_id.encode()] * len(fresh),
            [msgspec.json.encode(event) for event in fresh], [event.ts_us // 1_000 for event in fresh],
        )  # fmt: skip
        return self.core.process(batch).incidents


async def drill(gateway: Gateway, moves_s: float = 0.0, kept: str = "") -> tuple[int, World]:
    """(the command's exit code, what was paged). `moves_s`: the clock moves on so far; `kept`: the kill switch."""
    lives = gateway.world
    lives.killed = kept
    night_world, worker = World(log=lives.log), Worker()
    process = Process(lives, "a", frozenset({0, 1}), Fuse(), 0.0)
    async with gateway.served() as url, life(night_world) as night:
        await process.decisions.start()
        about = Drill(
            url=url, key_id=DECOY.key_id, key=Secret(SECRET), header="X-Api-Key", act=True, allow_private=True
        )
        desk = Desk(night.decisions, night.books)
        caller = night_desk.caller_of(Config(), about)
        drilling = asyncio.create_task(night_desk.drilled(desk, about, caller, "cron", wait=True))
        while not drilling.done():
            for incident in worker.judge(gateway.log):
                lives.incidents[0].append(incident)
                await arrive(night, incident)
                await process.handle(0)
            await process.care()
            if len(gateway.log) == about.requests or not gateway.logging:
                night_world.pass_time(moves_s)
                moves_s = 0.0
            await rounds(night, 1)
            await asyncio.wait([drilling], timeout=0.01)
        await rounds(night)
        await process.caretaker.close()
        await process.decisions.close()
    return drilling.result(), night_world


def world() -> Lives:
    return Lives(catalogue=Declared({DECOY.key_id: DECOY}))


def failures(night_world: World) -> list[str]:
    told = [msgspec.json.decode(json.dumps(each)) for each in night_world.lines[0].came]
    return [each["payload"]["summary"] for each in told if "drill" in each.get("payload", {}).get("summary", "")]


async def test_a_decoy_that_is_abused_through_the_gateway_is_seen_acted_on_and_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateway = Gateway(world())
    code, night_world = await drill(gateway)
    assert code == 0, capsys.readouterr().out
    assert gateway.world.gateway.set_on.keys() == {("decoy0", "revoke")}
    assert failures(night_world) == []
    assert SECRET not in capsys.readouterr().out
    answers = [event.status for event in gateway.log]
    assert answers[0] == 200
    async with gateway.served() as url:
        again = Drill(url=url, key_id="decoy0", key=Secret(SECRET), header="X-Api-Key", requests=1, allow_private=True)
        assert await night_desk.abuse(night_desk.caller_of(Config(), again), again) == ["401"]


@pytest.mark.parametrize("broken", ["the gateway's log is lost", "nothing may act"])
async def test_where_the_way_is_broken_somebody_is_paged_and_the_command_fails(broken: str) -> None:
    gateway = Gateway(world(), logging=broken != "the gateway's log is lost")
    code, night_world = await drill(gateway, moves_s=121.0, kept="" if not gateway.logging else broken)
    assert code == 1
    missing = "detection" if not gateway.logging else "an act"
    assert [each.startswith(f"the drill failed: {missing} is missing") for each in failures(night_world)] == [True]
    assert not gateway.world.gateway.effects
