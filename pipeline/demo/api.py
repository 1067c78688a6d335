"""The demo's API with its gateway: authenticates, answers, and logs each request as a gateway would.

Loopback only. `X-Forwarded-For` is believed because every client of the demo comes through it from loopback; the
secret ends here: an event carries the public key id. A request whose secret nobody knows has no key and is no event.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from pipeline.demo.key_service import KeyService, Order
from pipeline.demo.routes import FIRST_MISSING, ROUTES, Route
from schemas.event import Event
from schemas.key import Key

WEBHOOK_PATH: Final = "/hooks/keywatch"
ORDERS: Final = frozenset({"key.revoke", "key.fence", "key.fence.undo"})
_NUMBER: Final = re.compile(r"/(\d{1,12})$")
_BY_TEMPLATE: Final = {(route.method, route.template): route for route in ROUTES}

Publish = Callable[[Event], Awaitable[None]]
Announce = Callable[[Key], Awaitable[None]]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook's body; `data` depends on the type."""

    type: str
    timestamp: str
    data: msgspec.Raw


@dataclass(slots=True)
class Api:
    """The API's state. `publish` logs a request, `announce` publishes a key whose declaration changed."""

    service: KeyService
    webhook: Webhook
    publish: Publish
    announce: Announce
    rng: random.Random
    outage: set[str] = field(default_factory=set)  # templates that answer 503 for now
    notices: list[str] = field(default_factory=list)  # types of the verified webhooks, in order
    refused: int = 0  # webhooks whose signature did not verify
    unknown_secrets: int = 0

    def application(self) -> web.Application:
        """The aiohttp application: the webhook's path and everything else."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post(WEBHOOK_PATH, self.take_webhook)
        app.router.add_route("*", "/{path:.*}", self.take_request)
        return app

    async def take_request(self, request: web.Request) -> web.Response:
        """Authenticate, answer, log."""
        began_us, started = time.time_ns() // 1_000, time.perf_counter()
        key = self.service.find(_secret(request.headers))
        if key is None:
            self.unknown_secrets += 1
            return _problem(401, "this secret belongs to no key")
        route, number = match(request.method, request.path)
        if self.service.keeps_out(key.key_id, request.headers.get("X-Forwarded-For", request.remote or "")):
            response, outcome = _problem(403, "this key does not work from there"), "denied"
        else:
            response, outcome = self._answer(key, route, number)
        if response.status < 400 and route is not None:
            await asyncio.sleep(self.rng.lognormvariate(0, 0.35) * route.latency_ms / 1_000)
        latency_ms = round((time.perf_counter() - started) * 1_000, 2)
        await self.publish(_event(request, key, route, response, outcome, began_us, latency_ms))
        return response

    def _answer(self, key: Key, route: Route | None, number: int) -> tuple[web.Response, str]:
        """The response and what the gateway says of the credential, in a gateway's order of checks."""
        if key.status != "active":
            return _problem(401, f"this key is {key.status}"), "disabled"
        if route is None:
            return _problem(404, "no such route"), "success"
        if route.scope not in key.scopes:
            return _problem(403, f"this key lacks the scope {route.scope}"), "denied"
        if route.template in self.outage:
            return _problem(503, "try again later"), "success"
        if route.has_id and number >= FIRST_MISSING:
            return _problem(404, "no such record"), "success"
        size = int(route.size_bytes * self.rng.lognormvariate(0, route.spread))
        return web.Response(status=route.status, body=b" " * size, content_type="application/json"), "success"

    async def take_webhook(self, request: web.Request) -> web.Response:
        """Verify the signature over the raw body, then obey or take note. A wrong signature is 400."""
        body = await request.read()
        try:
            self.webhook.verify(body, dict(request.headers))
            message = msgspec.json.decode(body, type=Message)
        except (WebhookVerificationError, msgspec.MsgspecError) as error:
            self.refused += 1
            return _problem(400, str(error))
        self.notices.append(message.type)
        if message.type in ORDERS:
            return await self._obey(message, request.headers.get("Idempotency-Key", ""))
        return web.json_response({"status": "received"})

    async def _obey(self, message: Message, idempotency_key: str) -> web.Response:
        try:
            order = msgspec.json.decode(message.data, type=Order)
            answer = self.service.obey(order, idempotency_key, time.time_ns() // 1_000, message.type)
        except (msgspec.MsgspecError, ValueError) as error:
            return _problem(400, str(error))
        except KeyError:
            return _problem(404, "no such key")
        if answer.status == "revoked":
            await self.announce(self.service.keys[order.key_id])
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def match(method: str, path: str) -> tuple[Route | None, int]:
    """The route of a path and the record it names (0: none); no route where nothing fits."""
    found = _NUMBER.search(path)
    template = _NUMBER.sub("/{id}", path)
    return _BY_TEMPLATE.get((method, template)), int(found.group(1)) if found else 0


def _secret(headers: Mapping[str, str]) -> str:
    scheme, _, secret = headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _event(
    request: web.Request,
    key: Key,
    route: Route | None,
    response: web.Response,
    outcome: str,
    ts_us: int,
    latency_ms: float,
) -> Event:
    return Event(
        key_id=key.key_id, ts_us=ts_us, client_ip=request.headers.get("X-Forwarded-For", request.remote or ""),
        method=request.method[:16], route="" if route is None else route.template, path=request.path[:1024],
        status=response.status, outcome=outcome, latency_ms=latency_ms, bytes_in=request.content_length or 0,
        bytes_out=len(_body(response)), user_agent=request.headers.get("User-Agent", "")[:512],
        environment=key.environment, scope="" if route is None else route.scope,
        request_id=f"r{random.getrandbits(64):016x}", source="native",  # an id, no secret
    )  # fmt: skip


def _body(response: web.Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


def _problem(status: int, title: str) -> web.Response:
    """An error as RFC 9457 has it."""
    body: dict[str, Any] = {"status": status, "title": title}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/problem+json")


async def serve(api: Api, port: int = 0) -> tuple[web.AppRunner, str]:
    """Listen on loopback; returns the runner (`cleanup()` ends it) and the base URL."""
    runner = web.AppRunner(api.application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, bound = runner.addresses[0][:2]
    return runner, f"http://{host}:{bound}"
