"""Tyk's gateway API for keys: whole sessions by hash, zero values left out, policies that overrule."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from pipeline.config.setting import Secret
from pipeline.respond.adapters.adapter import Adapter
from pipeline.respond.adapters.settings import Tyk
from pipeline.respond.adapters.tyk import TykAdapter
from schemas.incident import Rung
from tests.pipeline.respond.adapters.peers import json

SECRET = "tyk-node-secret-pV3nB8sQ1c"
HASH = "5a1d08f2c3"


class FakeTyk:
    """One gateway. `hash_keys` as in tyk.conf."""

    key_id = HASH

    def __init__(self, hash_keys: bool = True) -> None:
        self.hash_keys = hash_keys
        session = {
            "rate": 1000, "per": 1, "allowance": 1000, "quota_max": -1, "quota_renews": 1449051461, "org_id": "53ac07",
            "access_rights": {"api1": {"api_id": "api1", "api_name": "Users", "versions": ["Default"]}},
            "meta_data": {"owner": "acme"}, "last_updated": "1449051461", "alias": "acme live",
        }  # fmt: skip
        self.state: dict[str, Any] = {"keys": {HASH: session}}

    def adapter(self, url: str) -> Adapter:
        return TykAdapter(Tyk(url=url, secret=Secret(SECRET)), (1, 5))

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/tyk/keys/{key}", self.key)]

    async def key(self, request: web.Request) -> web.Response:
        if request.headers.get("x-tyk-authorization") != SECRET:
            return json(
                {"status": "error", "message": "Attempted administrative access with invalid or missing key!"}, 403
            )
        if request.query.get("hashed") and not self.hash_keys:
            return json({"status": "error", "message": "Key requested by hash but key hashing is not enabled"}, 400)
        key, sessions = request.match_info["key"], self.state["keys"]
        if key not in sessions:
            return json({"status": "error", "message": "Key not found"}, 404)
        if request.method == "GET":
            return json(sessions[key])
        new = msgspec.json.decode(await request.read())
        if request.query.get("suppress_reset") == "1":
            new |= {name: sessions[key][name] for name in ("quota_renews", "last_updated")}
        else:
            new |= {"quota_renews": 0, "last_updated": "now"}
        sessions[key] = {name: value for name, value in new.items() if value not in (0, False, "", None)}  # omitzero
        return json({"key": key, "status": "ok", "action": "modified"})

    def works(self, rung: Rung) -> bool:
        session = self.state["keys"][HASH]
        if rung == "throttle":
            return bool(session["rate"] / session["per"] <= 1000 / 60)
        return bool(session.get("is_inactive", False))

    def tamper(self, rung: Rung) -> bool:
        session = self.state["keys"][HASH]
        if rung == "throttle":
            session["rate"] = 5000
        else:
            session.pop("is_inactive")
        return True

    def seen(self) -> Any:
        return self.state
