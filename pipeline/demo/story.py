"""The demo's story: keys are abused, and innocent things happen, all through the API and in no other way.

Nothing here reaches the worker: it sees requests. Times are seconds since the story began.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiohttp

from pipeline.demo import networks, routes
from pipeline.demo.fleet import DEPLOYED, FENCED, SDK_VERSIONS, Client, sdk_agent
from pipeline.demo.networks import FOREIGN_HOSTING
from pipeline.demo.routes import FIRST_MISSING, ROUTES
from pipeline.demo.traffic import Caller
from pipeline.moments import text
from schemas.control import Mute

TESTED: Final = "key_warehouse_12"
"""A test key that its team puts under load: announced, so what is found is kept and not told (`announced`)."""
LOAD: Final = ("/v1/orders/{}", "/v1/customers/{}", "/v1/invoices/{}", "/v1/reports/{}", "/v1/exports/{}")
REFUSALS: Final = 5
"""A thief gives up after so many 401 (or 403, where the key is fenced) in a row."""
REFUSED: Final = (401, 403)
SCAN_PATHS: Final = (
    "/.env", "/.git/config", "/actuator/health", "/api-docs", "/console", "/debug/vars", "/graphql", "/openapi.json",
    "/internal/metrics", "/server-status", "/swagger.json", "/v1/admin", "/v1/admin/keys", "/v1/admin/users",
    "/v1/backup", "/v1/config", "/v1/credentials", "/v1/debug", "/v1/employees", "/v1/export-all", "/v1/files",
    "/v1/internal/keys", "/v1/logs", "/v1/me", "/v1/oauth/tokens", "/v1/permissions", "/v1/roles", "/v1/secrets",
    "/v1/settings", "/v1/shell", "/v1/tenants", "/v1/tokens", "/v1/upload", "/v1/users", "/v1/users/1",
    "/v1/webhooks", "/v2/admin/users", "/v2/keys",
)  # fmt: skip
COLLECTIONS: Final = ("customers", "orders", "invoices", "reports", "exports")
LOOT: Final = (
    "/v1/customers", "/v1/customers/{}", "/v1/customers/{}", "/v1/invoices/{}", "/v1/exports/{}", "/v1/admin/users",
)  # fmt: skip


@dataclass(slots=True)
class Stage:
    """What the scenes may use: clients' requests, and the API's own switch for an outage."""

    caller: Caller
    clients: dict[str, Client]
    outage: set[str]
    rng: random.Random


@dataclass(slots=True)
class Scene:
    """One thing that happens. `keys` are the keys it touches; the first one is the main one."""

    name: str
    words: str
    attack: bool
    must_revoke: bool
    keys: tuple[str, ...]
    at_s: float
    play: Callable[[Stage, Scene], Coroutine[Any, Any, None]]
    started_us: int = 0
    must_fence: bool = False
    requests: int = 0
    refused: int = 0
    refused_us: int = 0  # when the first of the refused requests that end the scene was answered; 0: it ended otherwise


def schedule(fleet: Sequence[Client], now: datetime, seed: int) -> tuple[Scene, ...]:
    """The scenes in order of time, on keys chosen by the seed; the night is where it is night at `now` (aware)."""
    rng = random.Random(seed)  # noqa: S311
    services = _named(
        fleet, "service", lambda c: c.key.owner != DEPLOYED and not c.grows and c.key.environment == "live"
    )
    services.remove(FENCED)
    leaked, scanned = rng.sample(services, 2)
    bulk = rng.choice(_named(fleet, "people", lambda c: c.key.exposure == "partner"))
    night = _darkest(fleet, now)
    deployed = _named(fleet, "service", lambda c: c.key.owner == DEPLOYED)
    retrying = [key for key in services + _named(fleet, "job", _asks_for_orders) if key not in (leaked, scanned)]
    growing = _named(fleet, "service", lambda c: c.grows)
    return (
        Scene("leak", "a leaked key is used from a foreign hosting network", True, True, (leaked,), 0, leak),
        Scene("growth", "a customer grows to three times its traffic, in steps", False, False, tuple(growing), 3, grow),
        Scene("load", "a load test that its team announced: muted", False, False, (TESTED,), 5, load_test),
        Scene("deploy", "a deploy: new client version, restarts, a few 404", False, False, tuple(deployed), 6, deploy),
        Scene(
            "fence",
            "a leaked key that much depends on: only the thief is kept out",
            True,
            False,
            (FENCED,),
            8,
            leak,
            must_fence=True,
        ),
        Scene("bulk", "a partner's key downloads everything, record by record", True, False, (bulk,), 11, download),
        Scene(
            "night",
            "an office key at night, from a rented server",
            True,
            False,
            (night,),
            17,
            at_night,
        ),
        Scene("scan", "a scan of endpoints with a valid key", True, False, (scanned,), 23, scan),
        Scene("storm", "the API's own outage and the retry storm after it", False, False, tuple(retrying), 28, storm),
    )


def _named(fleet: Sequence[Client], kind: str, wanted: Callable[[Client], bool]) -> list[str]:
    return [client.key_id for client in fleet if client.kind == kind and wanted(client)]


def _asks_for_orders(client: Client) -> bool:
    return routes.ORDERS in client.routes and not client.last_days


def announced(now: datetime) -> Mute:
    """What the team of the load test says beforehand, as `keywatch mute` would: for an hour from `now` (aware)."""
    return Mute(
        key_id=TESTED, reason="load test of the new warehouse import, agreed with the API's team", owner_of_mute="ada",
        at=text(now), until=text(now + timedelta(hours=1)),
    )  # fmt: skip


def _darkest(fleet: Sequence[Client], now: datetime) -> str:
    """The busiest office key of the zone where it is nearest to 02:45 in the morning."""
    offices = [client for client in fleet if client.kind == "office"]
    return min(offices, key=lambda client: (_from_night_min(client.time_zone, now), -client.visits_per_day)).key_id


def _from_night_min(time_zone: str, now: datetime) -> int:
    local = now.astimezone(ZoneInfo(time_zone))
    apart = abs(local.hour * 60 + local.minute - 165)
    return min(apart, 1_440 - apart)


async def perform(stage: Stage, scenes: Sequence[Scene], tell: Callable[[Scene], None]) -> None:
    """Play all scenes at their times; returns when the last has ended. A failing scene fails the story."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as playing:
        for scene in sorted(scenes, key=lambda scene: scene.at_s):
            await asyncio.sleep(max(0.0, began + scene.at_s - time.monotonic()))
            scene.started_us = time.time_ns() // 1_000
            tell(scene)
            playing.create_task(scene.play(stage, scene))


async def leak(stage: Stage, scene: Scene) -> None:
    """25 s of 14 requests a second from Romania, while the owner goes on; ends when the key is refused."""
    owner = stage.clients[scene.keys[0]]
    thief = [FOREIGN_HOSTING.address(7), FOREIGN_HOSTING.address(21)]
    in_a_row = 0
    for number in range(350):
        path = LOOT[number % len(LOOT)].format(1_000 + number)
        status = await _call(stage, scene, owner, thief[number % 2], "python-requests/2.31.0", path)
        in_a_row = in_a_row + 1 if status in REFUSED else 0
        if in_a_row == REFUSALS:
            return
        if number % 60 == 10:
            await _usual(stage, scene, owner, owner.routes[0])
        await asyncio.sleep(0.05)


async def download(stage: Stage, scene: Scene) -> None:
    """Five collections record by record, to past the end of each (404): 300 requests, own address."""
    client = stage.clients[scene.keys[0]]
    for record in range(FIRST_MISSING - 40, FIRST_MISSING + 20):
        for collection in COLLECTIONS:
            path = f"/v1/{collection}/{record}"
            await _call(stage, scene, client, client.addresses[0], client.user_agent, path)
            await asyncio.sleep(0.02)


async def load_test(stage: Stage, scene: Scene) -> None:
    """300 records of five collections as fast as they come, in about 8 s, to past the end of each (404)."""
    client = stage.clients[scene.keys[0]]
    for record in range(FIRST_MISSING - 40, FIRST_MISSING + 20):
        for path in LOAD:
            await _call(stage, scene, client, client.addresses[0], client.user_agent, path.format(record))
            await asyncio.sleep(0.01)


async def scan(stage: Stage, scene: Scene) -> None:
    """Every path of the list once, in about 6 s, from the key's own address: 403 and 404 over many routes."""
    client = stage.clients[scene.keys[0]]
    for path in SCAN_PATHS:
        await _call(stage, scene, client, client.addresses[0], client.user_agent, path)
        await asyncio.sleep(0.12)


async def at_night(stage: Stage, scene: Scene) -> None:
    """200 requests in about 17 s with the office's own kind of client, from a rented server in the key's country.

    Customer by customer, to past the last one (404).
    """
    client = stage.clients[scene.keys[0]]
    place = networks.RENTED[client.country].address(77)
    for record in range(FIRST_MISSING - 170, FIRST_MISSING + 30):
        await _call(stage, scene, client, place, client.user_agent, f"/v1/customers/{record}")
        await asyncio.sleep(0.06)


async def deploy(stage: Stage, scene: Scene) -> None:
    """All clients of one owner restart with a new version within 5 s: warm-up calls, and one 404."""
    for key_id in scene.keys:
        stage.caller.agents[key_id] = sdk_agent(SDK_VERSIONS[2])
    await asyncio.gather(*(_restart(stage, scene, stage.clients[key_id]) for key_id in scene.keys))


async def _restart(stage: Stage, scene: Scene, client: Client) -> None:
    await asyncio.sleep(stage.rng.uniform(0, 5))
    await _call(stage, scene, client, client.addresses[0], client.user_agent, "/v2/orders")
    for route in client.routes * 2:
        await _usual(stage, scene, client, route)


async def storm(stage: Stage, scene: Scene) -> None:
    """Orders answer 503 for 8 s; each client calls once in that time and retries with growing pauses."""
    stage.outage.add("/v1/orders")
    retries = asyncio.gather(*(_retry(stage, scene, stage.clients[key_id]) for key_id in scene.keys))
    try:
        await asyncio.sleep(8)
    finally:
        stage.outage.discard("/v1/orders")
    await retries


async def _retry(stage: Stage, scene: Scene, client: Client) -> None:
    await asyncio.sleep(stage.rng.uniform(0, 4))
    for attempt in range(7):
        if await _usual(stage, scene, client, routes.ORDERS) != 503:
            return
        await asyncio.sleep(min(4.0, 0.4 * 2**attempt) * stage.rng.uniform(0.7, 1.3))


async def grow(stage: Stage, scene: Scene) -> None:
    """On top of its usual traffic (about 5 a minute): 4 more a minute, then 8, then 10; 11 s each."""
    client = stage.clients[scene.keys[0]]
    began = time.monotonic()
    for step, per_minute in enumerate((4, 8, 10), start=1):
        until = began + 11 * step
        while (left_s := until - time.monotonic()) > 0:
            pause_s = stage.rng.expovariate(per_minute / 60)
            await asyncio.sleep(min(pause_s, left_s))
            if pause_s < left_s:
                await _usual(stage, scene, client, stage.rng.choice(client.routes))


async def _usual(stage: Stage, scene: Scene, client: Client, route: int) -> int:
    scene.requests += 1
    return await stage.caller.usual(client, ROUTES[route], stage.rng.randrange(1_000, FIRST_MISSING))


async def _call(stage: Stage, scene: Scene, client: Client, address: str, agent: str, path: str) -> int:
    scene.requests += 1
    try:
        status = await stage.caller.call(client.key_id, address, agent, "GET", path)
    except aiohttp.ClientError:
        return 0
    refused = status == 401 or (scene.must_fence and status == 403)
    scene.refused += refused
    if not refused:
        scene.refused_us = 0
    elif not scene.refused_us:
        scene.refused_us = time.time_ns() // 1_000
    return status
