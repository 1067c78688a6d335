# ruff: noqa: N802  (names of the API itself)
"""Unkey's API v2 for keys: verification is by `enabled`, rate limits are replaced as a list, a reroll copies meta."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from pipeline.config.setting import Secret
from pipeline.respond.adapters.adapter import Adapter
from pipeline.respond.adapters.settings import Unkey
from pipeline.respond.adapters.unkey import UnkeyAdapter
from schemas.incident import Rung
from tests.pipeline.respond.adapters.peers import json

ROOT_KEY = "unkey_3ZbHq8rT2vLm9Kw4"
NEW_SECRET = "prod_2cGKbMxRjIzhCxo1IdjH3arELti7Sdyc8w6XYbvtcyuBowPT"
KEY_ID = "key_2cGKbMxRyIzhCxo1Idjz8q"
NOW_MS = 1_795_000_000_000


class FakeUnkey:
    """One workspace."""

    key_id = KEY_ID

    def __init__(self, handover_dir: str = "") -> None:
        self.handover_dir = handover_dir
        key = {
            "keyId": KEY_ID, "start": "prod_2cG", "enabled": True, "createdAt": 1, "meta": {"plan": "pro"},
            "ratelimits": [{"name": "requests", "limit": 1000, "duration": 60000, "autoApply": True}],
            "permissions": ["documents.read"],
        }  # fmt: skip
        self.state: dict[str, Any] = {"keys": {KEY_ID: key}}

    def adapter(self, url: str) -> Adapter:
        settings = Unkey(url=url, root_key=Secret(ROOT_KEY), handover_dir=self.handover_dir, allow_private=True)
        return UnkeyAdapter(settings, (1, 5), now_s=lambda: NOW_MS / 1000)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v2/keys.{verb}", self.keys)]

    async def keys(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {ROOT_KEY}":
            return self._error(401, "Unauthorized")
        body = msgspec.json.decode(await request.read())
        keys: dict[str, Any] = self.state["keys"]
        if body["keyId"] not in keys:
            return self._error(404, "Not Found")
        answer = getattr(self, "_" + request.match_info["verb"])(keys, keys[body["keyId"]], body)
        return json({"meta": {"requestId": "req_1"}, "data": answer})

    def _getKey(self, keys: dict[str, Any], key: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        limits = [{"id": f"rl_{n:08}", **limit} for n, limit in enumerate(key.get("ratelimits", []))]
        return {**key, **({"ratelimits": limits} if limits else {})}

    def _updateKey(self, keys: dict[str, Any], key: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        allowed = {"name", "limit", "duration", "autoApply"}
        assert all(set(limit) == allowed for limit in body.get("ratelimits", []))  # additionalProperties: false
        for name, value in body.items():
            if value is None or value == []:
                key.pop(name, None)
            else:
                key[name] = value
        return {}

    def _rerollKey(self, keys: dict[str, Any], key: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        new_id = f"key_new{len(keys)}"
        keys[new_id] = {**{name: value for name, value in key.items() if name != "expires"}, "keyId": new_id}
        key["expires"] = NOW_MS + body["expiration"]
        return {"keyId": new_id, "key": NEW_SECRET}

    def _deleteKey(self, keys: dict[str, Any], key: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        assert body["permanent"] is False
        del keys[body["keyId"]]
        return {}

    def _error(self, status: int, title: str) -> web.Response:
        error = {"title": title, "detail": title, "status": status, "type": "https://unkey.com/docs/errors"}
        return json({"meta": {"requestId": "req_1"}, "error": error}, status)

    def works(self, rung: Rung) -> bool:
        key = self.state["keys"][KEY_ID]
        if rung == "rotate":
            return len(self.state["keys"]) == 2 and key["expires"] > NOW_MS
        if rung == "throttle":
            return any(limit["limit"] <= 1000 and limit["name"] == "keywatch" for limit in key["ratelimits"])
        return not key["enabled"]

    def tamper(self, rung: Rung) -> bool:
        key = self.state["keys"][KEY_ID]
        if rung == "throttle":
            key["ratelimits"] = []
        elif rung == "rotate":
            key["meta"] = {"plan": "pro"}
        else:
            key["enabled"] = True
        return True

    def seen(self) -> Any:
        return self.state
