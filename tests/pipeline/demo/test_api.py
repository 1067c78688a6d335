"""The demo's API: answers by key, logs without the secret, and obeys signed orders only."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer
from standardwebhooks import Webhook

from pipeline.demo import settings
from pipeline.demo.api import WEBHOOK_PATH, Api
from pipeline.demo.key_service import KeyService
from pipeline.times import micros
from schemas.event import Event
from schemas.key import Key

KEY = Key(key_id="key_a_01", environment="live", scopes=("orders:read", "customers:read"), version=3)
ADDRESS = "198.51.100.7"


@dataclass
class World:
    """An API with one key, and what it wrote."""

    api: Api
    client: TestClient  # type: ignore[type-arg]
    secret: str
    webhook: Webhook
    events: list[Event] = field(default_factory=list)
    declared: list[Key] = field(default_factory=list)

    async def get(self, path: str, secret: str = "") -> int:
        """One GET with the key (or another secret) from `ADDRESS`; returns the status."""
        headers = {"Authorization": f"Bearer {secret or self.secret}", "X-Forwarded-For": ADDRESS}
        async with self.client.get(path, headers=headers) as response:
            await response.read()
            return response.status

    async def order(self, key_id: str, version: int, *, signed: bool = True, tag: str = "one") -> tuple[int, object]:
        """One `key.revoke`; returns status and answer."""
        data = {"key_id": key_id, "key_version": version, "incident_id": "i", "response_id": "r", "rung": "revoke"}
        body = json.dumps({"type": "key.revoke", "timestamp": "2026-11-24T02:30:00Z", "data": data})
        return await self.post(body, signed=signed, tag=tag)

    async def post(self, body: str, *, signed: bool = True, tag: str = "one") -> tuple[int, object]:
        """A webhook, signed with the right secret or another; returns status and answer."""
        at = datetime.now(UTC)
        signer = self.webhook if signed else Webhook(settings.new_webhook_secret())
        headers = {
            "webhook-id": f"msg_{tag}", "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signer.sign(f"msg_{tag}", at, body), "Idempotency-Key": tag,
        }  # fmt: skip
        async with self.client.post(WEBHOOK_PATH, data=body.encode(), headers=headers) as response:
            return response.status, await response.json(content_type=None)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A running API."""
    events: list[Event] = []
    declared: list[Key] = []

    async def publish(event: Event) -> None:
        events.append(event)

    async def announce(key: Key) -> None:
        declared.append(key)

    service, webhook = KeyService(), Webhook(settings.new_webhook_secret())
    secret = service.issue(KEY)
    api = Api(service, webhook, publish, announce, random.Random(1))
    async with TestClient(TestServer(api.application())) as client:
        yield World(api, client, secret, webhook, events, declared)


@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [
        ("/v1/orders", 200, "success"),
        ("/v1/customers/1234", 200, "success"),
        ("/v1/customers/95000", 404, "success"),
        ("/v1/admin/users", 403, "denied"),
        ("/.env", 404, "success"),
    ],
)
async def test_a_request_is_answered_and_logged_as_a_gateway_would(path: str, status: int, outcome: str) -> None:
    async with world() as here:
        assert await here.get(path) == status
        (event,) = here.events
    assert (event.key_id, event.status, event.outcome, event.path) == (KEY.key_id, status, outcome, path)
    assert (event.client_ip, event.environment, event.method) == (ADDRESS, "live", "GET")


async def test_the_secret_never_leaves_the_api() -> None:
    async with world() as here:
        await here.get("/v1/orders")
        await here.get(f"/v1/orders?api_key={here.secret}")
        written = b"".join(msgspec.json.encode(event) for event in here.events)
        assert here.secret.encode() not in written
        assert here.secret not in repr(here.api.service)


async def test_a_secret_nobody_knows_is_refused_and_is_no_event() -> None:
    async with world() as here:
        assert await here.get("/v1/orders", "demo_sk_never_issued") == 401
        assert here.events == []


async def test_a_revoked_key_is_refused_and_its_use_is_still_logged() -> None:
    async with world() as here:
        assert await here.get("/v1/orders") == 200
        assert await here.order(KEY.key_id, 3) == (200, {"status": "revoked"})
        assert await here.get("/v1/orders") == 401
        assert (here.events[-1].status, here.events[-1].outcome) == (401, "disabled")
        (declared,) = here.declared
        assert declared.status == "revoked" and micros(declared.ended_at) >= here.events[0].ts_us


async def test_a_fenced_key_goes_on_from_its_networks_and_is_refused_elsewhere_until_the_fence_is_undone() -> None:
    data = {"key_id": KEY.key_id, "key_version": 3, "incident_id": "i", "response_id": "r", "rung": "fence"}
    fence = {"type": "key.fence", "timestamp": "2026-11-24T02:30:00Z", "data": data | {"networks": ["203.0.113.0/24"]}}
    undo = fence | {"type": "key.fence.undo", "data": data}
    async with world() as here:
        assert await here.post(json.dumps(fence), tag="f") == (200, {"status": "done"})
        assert await here.get("/v1/orders") == 403
        assert (here.events[-1].outcome, here.declared) == ("denied", [])
        assert not here.api.service.keeps_out(KEY.key_id, "203.0.113.9")
        assert await here.post(json.dumps(undo), tag="u") == (200, {"status": "done"})
        assert await here.get("/v1/orders") == 200


async def test_a_fence_of_no_networks_is_400_and_changes_nothing() -> None:
    data = {"key_id": KEY.key_id, "networks": ["home"]}
    body = json.dumps({"type": "key.fence", "timestamp": "2026-11-24T02:30:00Z", "data": data})
    async with world() as here:
        assert (await here.post(body))[0] == 400
        assert await here.get("/v1/orders") == 200


async def test_an_order_with_a_wrong_signature_is_400_and_changes_nothing() -> None:
    async with world() as here:
        assert (await here.order(KEY.key_id, 3, signed=False))[0] == 400
        assert await here.get("/v1/orders") == 200
        assert here.api.refused == 1


async def test_the_same_order_again_gets_the_same_answer() -> None:
    async with world() as here:
        first = await here.order(KEY.key_id, 3)
        assert await here.order(KEY.key_id, 3) == first
        assert len(here.api.service.revoked) == 1


async def test_an_order_for_a_key_that_was_rotated_meanwhile_is_refused() -> None:
    async with world() as here:
        status, answer = await here.order(KEY.key_id, 2)
        assert status == 200
        assert isinstance(answer, dict)
        assert answer["status"] == "refused"
        assert await here.get("/v1/orders") == 200


async def test_an_order_for_a_key_nobody_knows_is_404() -> None:
    async with world() as here:
        assert (await here.order("key_b_02", 1))[0] == 404


async def test_a_signed_body_that_is_no_order_is_400() -> None:
    async with world() as here:
        assert (await here.post('{"type": "key.revoke", "timestamp": "", "data": {"key_id": 5}}'))[0] == 400
        assert (await here.post("[]"))[0] == 400


async def test_incident_webhooks_are_received_when_signed() -> None:
    async with world() as here:
        body = '{"type": "incident.opened", "timestamp": "2026-11-24T02:30:00Z", "data": {}}'
        assert (await here.post(body))[0] == 200
        assert (await here.post(body, signed=False))[0] == 400
        assert here.api.notices == ["incident.opened"]


async def test_in_an_outage_the_route_answers_503_to_everyone_and_others_go_on() -> None:
    async with world() as here:
        here.api.outage.add("/v1/orders")
        assert await here.get("/v1/orders") == 503
        assert await here.get("/v1/customers") == 200
        here.api.outage.clear()
        assert await here.get("/v1/orders") == 200
