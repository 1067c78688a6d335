"""Kong's Admin API, as far as the adapter uses it: entities, plug-ins with filled-in defaults, a database or none."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from aiohttp import web

from pipeline.config.setting import Secret
from pipeline.respond.adapters.adapter import Adapter
from pipeline.respond.adapters.kong import KongAdapter
from pipeline.respond.adapters.settings import Kong
from schemas.incident import Rung
from tests.pipeline.respond.adapters.peers import json

TOKEN = "kong-admin-token-7rQ2xk9WmZp4"
KEY = "the-raw-key-of-the-consumer-Zx81"
CONSUMER = "6e2f5c1a-9b7d-4b55-8a5e-0f6f3c1d2e01"
CREDENTIAL = "0b6d3a4e-2f1c-4a8b-9c3d-5e7f8a9b0c1d"
DEFAULTS: dict[str, dict[str, Any]] = {
    "rate-limiting": {"error_code": 429, "hide_client_headers": False, "sync_rate": -1, "minute": None},
    "ip-restriction": {"deny": None},
    "request-transformer": {"http_method": None},
    "request-termination": {"echo": False, "trigger": None},
}


class FakeKong:
    """One node. `database` "off" refuses to write as a DB-less Kong does."""

    key_id = CREDENTIAL

    def __init__(self, database: str = "postgres") -> None:
        self.database = database
        credential = {"id": CREDENTIAL, "key": KEY, "consumer": {"id": CONSUMER}, "tags": ["team-a"], "created_at": 1}
        self.state: dict[str, Any] = {
            "consumers": {CONSUMER: {"id": CONSUMER, "username": "acme"}},
            "key-auths": {CREDENTIAL: credential},
            "plugins": {},
        }

    def adapter(self, url: str) -> Adapter:
        return KongAdapter(Kong(url=url, token=Secret(TOKEN)), (1, 5))

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.node),
            web.get("/plugins", self.list_plugins),
            web.get("/key-auths", self.list_all),
            web.route("*", "/{kind:key-auths|plugins|consumers}/{id}", self.entity),
            web.get("/consumers/{consumer}/{kind:key-auth|basic-auth|jwt|hmac-auth|oauth2}", self.credentials),
            web.route("*", "/consumers/{consumer}/key-auth/{id}", self.nested),
        ]

    async def node(self, request: web.Request) -> web.Response:
        return self._refused(request) or json(
            {"version": "3.9.1", "configuration": {"database": self.database, "role": "traditional", "pg_host": "db"}}
        )

    async def list_all(self, request: web.Request) -> web.Response:
        return self._refused(request) or json({"data": list(self.state["key-auths"].values()), "next": None})

    async def list_plugins(self, request: web.Request) -> web.Response:
        """Pages of two."""
        start, found = int(request.query.get("offset", "0")), list(self.state["plugins"].values())
        following = f"/plugins?offset={start + 2}" if start + 2 < len(found) else None
        return json({"data": found[start : start + 2], "next": following})

    async def credentials(self, request: web.Request) -> web.Response:
        if request.match_info["kind"] == "oauth2":
            return json({"message": "Not found"}, 404)  # the plug-in is not enabled
        kind = "key-auths" if request.match_info["kind"] == "key-auth" else request.match_info["kind"]
        found = [
            each
            for each in self.state.get(kind, {}).values()
            if each["consumer"]["id"] == request.match_info["consumer"]
        ]
        return json({"data": found, "next": None})

    async def nested(self, request: web.Request) -> web.Response:
        credential = self.state["key-auths"].get(request.match_info["id"])
        consumer = request.match_info["consumer"]
        if request.method != "PUT" and (not credential or credential["consumer"]["id"] != consumer):
            return json({"message": "Not found"}, 404) if request.method == "GET" else web.Response(status=204)
        return await self._do(request, "key-auths", request.match_info["id"], {"consumer": {"id": consumer}})

    async def entity(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["id"]
        by_name = [each["id"] for each in self.state[kind].values() if each.get("username") == name]
        return await self._do(request, kind, by_name[0] if by_name else name, {})

    async def _do(self, request: web.Request, kind: str, name: str, more: dict[str, Any]) -> web.Response:
        entities = self.state[kind]
        if refused := self._refused(request):
            return refused
        if request.method == "GET":
            return json(entities[name]) if name in entities else json({"message": "Not found"}, 404)
        if self.database == "off":
            return json({"message": "cannot create or update entities when not using a database"}, 405)
        if request.method == "DELETE":
            entities.pop(name, None)
            return web.Response(status=204)
        body = {**msgspec.json.decode(await request.read() or b"{}"), **more}
        if request.method == "PATCH":
            if name not in entities:
                return json({"message": "Not found"}, 404)
            body = {**entities[name], **body}
        elif kind == "consumers":
            body["username"], name = name, str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        elif kind == "key-auths":
            body = {"key": uuid.uuid4().hex, **body}  # auto = true: a PUT without a key makes one
        if kind != "consumers" and body["consumer"]["id"] not in self.state["consumers"]:
            return json({"message": "the foreign key does not reference an existing 'consumers' entity"}, 400)
        if kind == "plugins":
            if any(self._same(each, body, name) for each in entities.values()):
                return json({"message": "UNIQUE violation detected"}, 409)
            body = {"enabled": True, "route": None, "service": None, **body}
            body["config"] = {**DEFAULTS[body["name"]], **body["config"]}
        entities[name] = {**body, "id": name}
        return json(entities[name])

    def _same(self, one: dict[str, Any], other: dict[str, Any], own_id: str) -> bool:
        scope = ("name", "consumer", "route", "service")
        return one["id"] != own_id and all((one.get(part) or None) == (other.get(part) or None) for part in scope)

    def _refused(self, request: web.Request) -> web.Response | None:
        good = request.headers.get("Kong-Admin-Token") == TOKEN
        return None if good else json({"message": "Unauthorized"}, 401)

    def works(self, rung: Rung) -> bool:
        credential = self.state["key-auths"].get(CREDENTIAL)
        if rung in ("suspend", "revoke"):
            owner = self.state["consumers"][credential["consumer"]["id"]] if credential else {}
            return bool(self._plugins(owner.get("id", ""), "request-termination"))
        if rung == "rotate":
            return len(self.state["key-auths"]) == 2
        names = {"throttle": "rate-limiting", "fence": "ip-restriction", "flag": "request-transformer"}
        return bool(self._plugins(CONSUMER, names[rung]))

    def _plugins(self, consumer: str, name: str) -> list[dict[str, Any]]:
        found = self.state["plugins"].values()
        return [
            each for each in found
            if each["name"] == name and each["enabled"] and (each.get("consumer") or {}).get("id") == consumer
        ]  # fmt: skip

    def tamper(self, rung: Rung) -> bool:
        if rung == "suspend":
            elsewhere = str(uuid.UUID(int=7))
            self.state["consumers"][elsewhere] = {"id": elsewhere, "username": "elsewhere"}
            self.state["key-auths"][CREDENTIAL]["consumer"] = {"id": elsewhere}
        for plugin in self.state["plugins"].values():
            plugin["config"] |= {"second": 999, "minute": None, "allow": ["0.0.0.0/0"], "add": {"headers": ["X:1"]}}
        return rung != "rotate"

    def seen(self) -> Any:
        """Without the quarantine consumer and its plug-in."""
        plugins = [each for each in self.state["plugins"].values() if each["name"] != "request-termination"]
        return [self.state["key-auths"], self.state["consumers"][CONSUMER], plugins]


def plugin(name: str, config: dict[str, Any], **scope: str) -> dict[str, Any]:
    """Somebody else's plug-in."""
    return {
        "id": str(uuid.uuid4()), "name": name, "enabled": True, "config": config, "consumer": None, "route": None,
        "service": None, **{kind: {"id": each} for kind, each in scope.items()},
    }  # fmt: skip
