"""A real receiver on loopback that verifies every signature, and answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web
from standardwebhooks import Webhook

from tests.pipeline.respond.incidents import SECRET


@dataclass(frozen=True)
class Received:
    """One request, its signature verified."""

    headers: Mapping[str, str]
    body: bytes
    message: Any

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """`answers` are used up one by one, then 200 with `revoked`; `arrived` counts; `gate` holds answers back."""

    url: str = ""
    port: int = 0
    answers: list[web.Response] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        message = Webhook(SECRET).verify(body, headers)
        self.received.append(Received(headers, body, message))
        self.arrived.release()
        await self.gate.wait()
        return self.answers.pop(0) if self.answers else said("revoked")

    async def until(self, count: int) -> None:
        """Return once so many more requests have arrived."""
        async with asyncio.timeout(60):
            for _ in range(count):
                await self.arrived.acquire()


def said(status: str, code: int = 200) -> web.Response:
    """The contract's answer."""
    return web.Response(status=code, body=msgspec.json.encode({"status": status}), content_type="application/json")


def code(status: int, **headers: str) -> web.Response:
    """A bare status."""
    return web.Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@asynccontextmanager
async def receiver(*answers: web.Response, hold: bool = False) -> AsyncIterator[Receiver]:
    """A running receiver; with `hold` it answers nothing until its gate is set."""
    this = Receiver(answers=list(answers))
    if not hold:
        this.gate.set()
    app = web.Application()
    app.router.add_post("/hook", this.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    this.port = int(runner.addresses[0][1])
    this.url = f"http://127.0.0.1:{this.port}/hook"
    try:
        yield this
    finally:
        this.gate.set()
        await runner.cleanup()
