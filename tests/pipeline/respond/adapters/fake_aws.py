# ruff: noqa: N802, N803  (names of the API itself)
"""AWS: API Gateway's control plane and IAM's Query API. Every request's signature is checked over what arrived."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
from aiohttp import web

from pipeline.config.setting import Secret
from pipeline.respond.adapters.adapter import Adapter
from pipeline.respond.adapters.aws_apigateway import AwsApiGatewayAdapter
from pipeline.respond.adapters.aws_iam import AwsIamAdapter
from pipeline.respond.adapters.settings import AwsApiGateway, AwsIam
from pipeline.respond.adapters.sigv4 import Signer
from schemas.incident import Rung
from tests.pipeline.respond.adapters.peers import json, xml

OWN_KEY = "AKIAIOSFODNN7KEYWATCH"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEKeywatchSessionToken"
API_KEY = "hzYAVO9Sg98nsNh65VfX81M84O2kyXVy6K1xwHD7"


async def signed(request: web.Request, region: str, service: str) -> bool:
    """Whether the Authorization header is that of SECRET over the request as it came."""
    given = dict(request.headers)
    names = given["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    signer = Signer(OWN_KEY, Secret(SECRET), Secret(TOKEN), region, service)
    now = datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    headers = {
        name: request.headers[name] for name in names if name not in ("host", "x-amz-date", "x-amz-security-token")
    }
    again = signer.headers(request.method, given["Host"], request.raw_path, await request.read(), now, headers)
    return again["Authorization"] == given["Authorization"] and given["X-Amz-Security-Token"] == TOKEN


class FakeApiGateway:
    """One region."""

    key_id = "kdz9k3mflb"

    def __init__(self) -> None:
        key = {"id": self.key_id, "value": API_KEY, "name": "acme", "enabled": True, "stageKeys": []}
        plan = {
            "id": "n371pt", "name": "gold", "apiStages": [{"apiId": "a1", "stage": "prod"}],
            "throttle": {"rateLimit": 100.0, "burstLimit": 200},
        }  # fmt: skip
        self.state: dict[str, Any] = {
            "keys": {self.key_id: key},
            "plans": {"n371pt": plan},
            "in": {"n371pt": [self.key_id]},
        }

    def adapter(self, url: str) -> Adapter:
        settings = AwsApiGateway(
            region="eu-central-1", access_key_id=OWN_KEY, secret_access_key=Secret(SECRET), session_token=Secret(TOKEN),
            url=url, allow_private=True,
        )  # fmt: skip
        return AwsApiGatewayAdapter(settings, (1, 5))

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/apikeys", self.keys), web.route("*", "/apikeys/{id}", self.key),
            web.get("/usageplans", self.plans), web.route("*", "/usageplans/{id}", self.plan),
            web.get("/usageplans/{id}/keys", self.plan_keys),
        ]  # fmt: skip

    async def keys(self, request: web.Request) -> web.Response:
        return json({"item": [self._shown(key) for key in self.state["keys"].values()]})

    async def key(self, request: web.Request) -> web.Response:
        return await self._entity(request, self.state["keys"])

    async def plan(self, request: web.Request) -> web.Response:
        return await self._entity(request, self.state["plans"])

    async def plans(self, request: web.Request) -> web.Response:
        key_id = request.query.get("keyId")
        found = [plan for plan in self.state["plans"].values() if not key_id or key_id in self.state["in"][plan["id"]]]
        return json({"item": found} if found else {})

    async def plan_keys(self, request: web.Request) -> web.Response:
        names = self.state["in"][request.match_info["id"]]
        return json({"item": [{"id": name, "type": "API_KEY", "value": API_KEY} for name in names]})

    async def _entity(self, request: web.Request, entities: dict[str, Any]) -> web.Response:
        if not await signed(request, "eu-central-1", "apigateway"):
            return json({"message": "The request signature we calculated does not match"}, 403)
        name = request.match_info["id"]
        if name not in entities:
            return json({"message": "Invalid API Key identifier specified"}, 404)
        if request.method == "PATCH":
            for change in msgspec.json.decode(await request.read())["patchOperations"]:
                self._patch(entities[name], change)
        return json(self._shown(entities[name]))

    def _patch(self, entity: dict[str, Any], change: dict[str, str]) -> None:
        _, *path = change["path"].split("/")
        if change["op"] == "remove":
            entity.pop(path[0])
        elif path == ["enabled"]:
            entity["enabled"] = change["value"] == "true"
        else:
            kind = float if path[1] == "rateLimit" else int
            entity.setdefault("throttle", {})[path[1]] = kind(change["value"])

    def _shown(self, entity: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in entity.items() if name != "value"}

    def works(self, rung: Rung) -> bool:
        if rung == "throttle":
            return bool(self.state["plans"]["n371pt"].get("throttle", {}).get("rateLimit", 1e9) < 100)
        return not self.state["keys"][self.key_id]["enabled"]

    def tamper(self, rung: Rung) -> bool:
        self.state["plans"]["n371pt"]["throttle"]["rateLimit"] = 7.0
        return rung == "throttle"

    def seen(self) -> Any:
        return self.state


class FakeIam:
    """One account."""

    key_id = "AKIAIOSFODNN7EXAMPLE"

    def __init__(self) -> None:
        keys = {self.key_id: ["bob", "Active"], OWN_KEY: ["keywatch", "Active"]}
        self.state: dict[str, Any] = {"keys": keys, "policies": {}}

    def adapter(self, url: str) -> Adapter:
        settings = AwsIam(
            access_key_id=OWN_KEY, secret_access_key=Secret(SECRET), session_token=Secret(TOKEN), url=url,
            allow_private=True,
        )  # fmt: skip
        return AwsIamAdapter(settings, (1, 5))

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/", self.query)]

    async def query(self, request: web.Request) -> web.Response:
        if not await signed(request, "us-east-1", "iam"):
            return self._error("SignatureDoesNotMatch", 403)
        given = dict(parse_qsl((await request.read()).decode()))
        assert given.pop("Version") == "2010-05-08"
        answer: web.Response = getattr(self, given.pop("Action"))(**given)
        return answer

    def GetAccessKeyLastUsed(self, AccessKeyId: str) -> web.Response:
        if AccessKeyId not in self.state["keys"]:
            return self._error("NoSuchEntity", 404)
        user = self.state["keys"][AccessKeyId][0]
        last = "<AccessKeyLastUsed><Region>us-west-2</Region><ServiceName>s3</ServiceName></AccessKeyLastUsed>"
        inner = f"<GetAccessKeyLastUsedResult><UserName>{user}</UserName>{last}</GetAccessKeyLastUsedResult>"
        return xml("GetAccessKeyLastUsed", inner)

    def ListAccessKeys(self, UserName: str) -> web.Response:
        members = "".join(
            f"<member><UserName>{UserName}</UserName><AccessKeyId>{key}</AccessKeyId><Status>{status}</Status></member>"
            for key, (user, status) in self.state["keys"].items() if user == UserName
        )  # fmt: skip
        inner = f"<AccessKeyMetadata>{members}</AccessKeyMetadata><IsTruncated>false</IsTruncated>"
        return xml("ListAccessKeys", f"<ListAccessKeysResult>{inner}</ListAccessKeysResult>")

    def UpdateAccessKey(self, UserName: str, AccessKeyId: str, Status: str) -> web.Response:
        assert self.state["keys"][AccessKeyId][0] == UserName
        self.state["keys"][AccessKeyId][1] = Status
        return xml("UpdateAccessKey")

    def GetUserPolicy(self, UserName: str, PolicyName: str) -> web.Response:
        policy = self.state["policies"].get(f"{UserName}/{PolicyName}")
        if policy is None:
            return self._error("NoSuchEntity", 404)
        inner = f"<UserName>{UserName}</UserName><PolicyDocument>{quote(policy, safe='')}</PolicyDocument>"
        return xml("GetUserPolicy", f"<GetUserPolicyResult>{inner}</GetUserPolicyResult>")

    def PutUserPolicy(self, UserName: str, PolicyName: str, PolicyDocument: str) -> web.Response:
        if len(PolicyDocument) > 2048:
            return self._error("LimitExceeded", 409)
        msgspec.json.decode(PolicyDocument)
        self.state["policies"][f"{UserName}/{PolicyName}"] = PolicyDocument
        return xml("PutUserPolicy")

    def DeleteUserPolicy(self, UserName: str, PolicyName: str) -> web.Response:
        self.state["policies"].pop(f"{UserName}/{PolicyName}")
        return xml("DeleteUserPolicy")

    def _error(self, code: str, status: int) -> web.Response:
        text = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>"
        return web.Response(status=status, text=text, content_type="text/xml")

    def works(self, rung: Rung) -> bool:
        names = {"deny": "bob/keywatch-quarantine", "fence": "bob/keywatch-fence"}
        if rung in names:
            return names[rung] in self.state["policies"]
        return bool(self.state["keys"][self.key_id][1] == "Inactive")

    def tamper(self, rung: Rung) -> bool:
        for name in self.state["policies"]:
            self.state["policies"][name] = '{"Version":"2012-10-17","Statement":[]}'
        return rung in ("deny", "fence")

    def seen(self) -> Any:
        return self.state
