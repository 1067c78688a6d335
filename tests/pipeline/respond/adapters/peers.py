"""A gateway's API on loopback: a fake with the vendor's semantics, or a recording that is played back."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from aiohttp import web

from pipeline.respond.adapters.adapter import Adapter
from schemas.incident import Rung

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fake(Protocol):
    """One vendor's server. `state` is all it holds, in plain values; `key_id` is a key whose consumer has no other."""

    key_id: str
    state: dict[str, Any]

    def routes(self) -> list[web.RouteDef]:
        """Its API."""

    def adapter(self, url: str) -> Adapter:
        """The product's adapter for it, newly made as after a restart."""

    def works(self, rung: Rung) -> bool:
        """Whether the vendor would now treat the key as that rung says."""

    def tamper(self, rung: Rung) -> bool:
        """Somebody changes by hand what that rung set; False where any change by hand is the state of before."""

    def seen(self) -> Any:
        """What an exact undo restores: all but what the product made once for good."""


@dataclass
class Running:
    """A running server. `faults` are used up one by one: a status to answer, or `lost`: done but told as 503."""

    url: str = ""
    faults: list[int | str] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    answers: list[web.Response] = field(default_factory=list)  # of the requests without a fault, in their order
    only_writes: bool = True

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        fault = (
            self.faults.pop(0)
            if self.faults and (not self.only_writes or _writes(request, self.requests[-1][3]))
            else 0
        )
        if isinstance(fault, int) and fault:
            return web.Response(status=fault, text="<no json>", headers={"Retry-After": "7"} if fault == 429 else {})
        response = await handler(request)
        assert isinstance(response, web.Response)
        self.answers.append(response)
        return web.Response(status=503) if fault == "lost" else response


def _writes(request: web.Request, body: bytes) -> bool:
    reading = (b"Action=Get", b"Action=List", b'"decrypt"')
    return request.method != "GET" and not any(word in body for word in reading)


@asynccontextmanager
async def running(routes: list[web.RouteDef]) -> AsyncIterator[Running]:
    """The server, until the block ends."""
    this = Running()
    app = web.Application(middlewares=[this.middleware])
    app.router.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    this.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield this
    finally:
        await runner.cleanup()


def json(body: Any, status: int = 200) -> web.Response:
    """An answer."""
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


def xml(action: str, inner: str = "", status: int = 200) -> web.Response:
    """An answer of the IAM Query API."""
    text = (
        f'<{action}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/">{inner}'
        f"<ResponseMetadata><RequestId>7a62c49f</RequestId></ResponseMetadata></{action}Response>"
    )
    return web.Response(status=status, text=text, content_type="text/xml")


def snapshot(fake: Fake) -> Any:
    """What an exact undo restores, as it is now."""
    return copy.deepcopy(fake.seen())
