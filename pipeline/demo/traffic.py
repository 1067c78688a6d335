"""The demo's clients, live: their planned calls as real HTTP requests at the planned moments."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from pipeline.demo.fleet import Client
from pipeline.demo.rhythm import HOUR_US, Calls, Span, plan
from pipeline.demo.routes import ROUTES, Route, path_of

PLAN_US = HOUR_US
"""Live traffic is planned an hour at a time: `--keep` may stay up for days."""


@dataclass(slots=True)
class Caller:
    """Sends requests in a client's name. `secrets` is what the keys' owners hold."""

    session: aiohttp.ClientSession
    base_url: str
    secrets: Mapping[str, str]
    agents: dict[str, str] = field(default_factory=dict)  # key_id -> user agent, where it has changed meanwhile
    answers: Counter[int] = field(default_factory=Counter)

    async def call(self, key_id: str, address: str, agent: str, method: str, path: str) -> int:
        """One request, its whole answer read; returns the status. Raises aiohttp.ClientError."""
        headers = {
            "Authorization": f"Bearer {self.secrets[key_id]}", "X-Forwarded-For": address,
            "User-Agent": self.agents.get(key_id, agent),
        }  # fmt: skip
        async with self.session.request(method, self.base_url + path, headers=headers) as response:
            await response.read()
        self.answers[response.status] += 1
        return response.status

    async def usual(self, client: Client, route: Route, record: int = 1_000, address: int = 0) -> int:
        """One request as the client itself would make it."""
        place = client.addresses[address]
        return await self.call(client.key_id, place, client.user_agent, route.method, path_of(route, record))


async def live(caller: Caller, fleet: Sequence[Client], seed: int, from_us: int) -> None:
    """Go on where the history ended, until cancelled: the same process, in real time."""
    start_us = from_us
    async with asyncio.TaskGroup() as running:
        while True:
            span = Span(start_us, start_us + PLAN_US)
            await play(running, caller, fleet, plan(tuple(fleet), span, seed, from_us))
            start_us = span.end_us


async def play(running: asyncio.TaskGroup, caller: Caller, fleet: Sequence[Client], planned: Calls) -> None:
    """Start each call at its time; what lies in the past is started at once."""
    for call in planned.tolist():
        ts_us, number, route, address, record = call
        address_index = min(address, len(fleet[number].addresses) - 1)
        await asyncio.sleep(max(0.0, ts_us / 1e6 - time.time()))
        running.create_task(_one(caller, fleet[number], ROUTES[route], record, address_index))


async def _one(caller: Caller, client: Client, route: Route, record: int, address: int) -> None:
    try:
        await caller.usual(client, route, record, address)
    except aiohttp.ClientError:
        caller.answers[0] += 1  # the API is stopping: a client sees a broken connection
