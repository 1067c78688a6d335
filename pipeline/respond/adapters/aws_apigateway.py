"""AWS API Gateway: API keys of REST and WebSocket APIs in one region, by its control plane, signed with SigV4.

- suspend, revoke: `enabled` = false. A revoked key stays, disabled; delete it by hand after 30 days.
- throttle: the rate of its usage plan, which hits every key of the plan. Refused where the plan has others, or the key
  several plans, or limits per method, which go before the plan's.
- fence, flag, deny and rotate are not supported: a key has no networks and no scopes, and API Gateway's answer to
  CreateApiKey would hand us the new secret (`keys import` or the owner's own pipeline makes it).

An API key has no place for a mark that could be written together with its switch, so what was before is noted first
(`peer.noted`). HTTP APIs have no API keys. Least rights: apigateway:GET on /apikeys/*, /usageplans
and /usageplans/*, apigateway:PATCH on /apikeys/* and, for throttle, /usageplans/*; never `includeValue`.
Source: AWS API Reference, Amazon API Gateway V1: GetApiKey, UpdateApiKey, GetUsagePlans, UpdateUsagePlan, Patch
Operations. It promises no time; `delay_s` is what we allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, Support, TryAgain
from pipeline.respond.adapters.peer import Peer, ailments, attempted, done, noted, recalled, refuse
from pipeline.respond.adapters.settings import AwsApiGateway
from pipeline.respond.adapters.sigv4 import Signer
from pipeline.respond.delivery.address import LookUp, system_look_up
from schemas.incident import Rung

_KEY_ID: Final = re.compile(r"^[a-z0-9]{6,32}$")


class Key(msgspec.Struct, frozen=True):
    """What we read of a key; its `value` is not asked for and left out when the answer is read."""

    id: str
    enabled: bool


class Rate(msgspec.Struct, frozen=True, rename="camel"):
    """Requests a second, and how many may come at once."""

    rate_limit: float = 0.0
    burst_limit: int = 0


class Stage(msgspec.Struct, frozen=True, rename="camel"):
    """One API that a plan is for."""

    throttle: dict[str, Rate] | None = None


class Plan(msgspec.Struct, frozen=True, rename="camel"):
    """A usage plan."""

    id: str
    throttle: Rate | None = None
    api_stages: tuple[Stage, ...] | None = None


class _Plans(msgspec.Struct, frozen=True):
    item: tuple[Plan, ...] = ()
    position: str = ""


class _PlanKey(msgspec.Struct, frozen=True):
    id: str


class _PlanKeys(msgspec.Struct, frozen=True):
    item: tuple[_PlanKey, ...] = ()
    position: str = ""


class Before(msgspec.Struct, frozen=True, omit_defaults=True):
    """The switch as it was; for a throttle the plan, its rate as it was (None: it had none) and as we set it."""

    enabled: bool = True
    plan: str = ""
    rate: Rate | None = None
    set: Rate | None = None


def matrix(settings: AwsApiGateway) -> Mapping[Rung, Support]:
    """What it can do; a rung that is absent is not supported."""
    delay_s = settings.delay_s
    return {
        "throttle": Support("consumer", delay_s, undo=True),
        "suspend": Support("key", delay_s, undo=True),
        "revoke": Support("key", delay_s, undo=False),
    }


class AwsApiGatewayAdapter:
    """Keys of one account and region."""

    name = "aws_apigateway"

    def __init__(
        self,
        settings: AwsApiGateway,
        timeouts_s: tuple[float, float],
        look_up: LookUp = system_look_up,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        url = settings.url or f"https://apigateway.{settings.region}.amazonaws.com"
        signer = Signer(
            settings.access_key_id, settings.secret_access_key, settings.session_token, settings.region, "apigateway"
        )
        host = urlsplit(url).netloc

        def sign(method: str, path: str, body: bytes) -> Mapping[str, str]:
            return signer.headers(method, host, path, body, clock(), {"Accept": "application/json"})

        self._peer = Peer(
            self.name, url, sign, timeouts_s, allow_private=settings.allow_private, ca_file=settings.ca_file,
            look_up=look_up,
        )  # fmt: skip
        self.matrix = matrix(settings)

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        """Some readings and at most one writing."""
        return await attempted(self._undo(intent) if intent.direction == "undo" else self._apply(intent))

    async def check(self) -> list[str]:
        """Whether keys and plans may be read; the right to change one can't be asked for without changing it."""

        async def reads(path: str) -> None:
            await self._peer.ask(dict[str, Any], "GET", path)

        return await ailments(reads("/apikeys?limit=1"), reads("/usageplans?limit=1"))

    async def _apply(self, intent: Intent) -> Outcome:
        if intent.rung == "throttle":
            return await self._throttle(intent)
        key = await self._key(intent.key_id)
        if key is None:
            return done("api gateway knows no such key")
        before = "" if intent.rung == "revoke" else noted(intent, _text(Before(enabled=key.enabled)))
        if not key.enabled:
            return done("it was so already", before)
        await self._switch(key.id, on=False)
        return done("disabled", before)

    async def _undo(self, intent: Intent) -> Outcome:
        if intent.rung == "throttle":
            return await self._unthrottle(intent)
        key = await self._key(intent.key_id)
        if key is None:
            raise refuse("api gateway knows no such key any more")
        if not intent.before and key.enabled:
            return done("nothing of ours is there")
        before = recalled(intent.before, Before, "enable the key")
        if key.enabled or not before.enabled:  # an undo never takes a key out of use
            return done("it was so already")
        await self._switch(key.id, on=True)
        return done("restored as it was")

    async def _throttle(self, intent: Intent) -> Outcome:
        if intent.limit_per_s <= 0:
            raise refuse("a throttle needs a limit above 0")
        plan = await self._sole_plan(intent.key_id)
        wanted = _rate(intent)
        if plan.throttle != wanted and plan.throttle and 0 < plan.throttle.rate_limit <= wanted.rate_limit:
            return done("limited to less already", intent.before)
        before = noted(intent, _text(Before(plan=plan.id, rate=plan.throttle, set=wanted)))
        if plan.throttle == wanted:
            return done("it was so already", before)
        if plan.throttle != recalled(before, Before, "throttle the usage plan").rate:
            raise refuse("somebody changed the usage plan meanwhile")
        await self._set_rate(plan.id, wanted)
        return done("the usage plan's rate is set", before)

    async def _unthrottle(self, intent: Intent) -> Outcome:
        if not intent.before and (await self._sole_plan(intent.key_id)).throttle != _rate(intent):
            return done("nothing of ours is there")
        before = recalled(intent.before, Before, "restore the usage plan")
        plan = await self._peer.find(Plan, f"/usageplans/{before.plan}")
        if plan is None:
            raise refuse("its usage plan was deleted meanwhile")
        if plan.throttle == before.rate:
            return done("it was so already")
        if plan.throttle != before.set:
            raise refuse("somebody changed the usage plan meanwhile: restore it by hand")
        await self._set_rate(plan.id, before.rate)
        return done("restored as it was")

    async def _sole_plan(self, key_id: str) -> Plan:
        """The only usage plan of a key, which has no other key. Raises `Stop`."""
        if await self._key(key_id) is None:
            raise refuse("api gateway knows no such key")
        plans = (await self._peer.ask(_Plans, "GET", f"/usageplans?keyId={key_id}&limit=500")).item
        if len(plans) != 1:
            raise refuse(f"the key is in {len(plans)} usage plans, not one")
        if any(stage.throttle for stage in plans[0].api_stages or ()):
            raise refuse("its usage plan has limits per method: they go before the plan's")
        keys = await self._peer.ask(_PlanKeys, "GET", f"/usageplans/{plans[0].id}/keys?limit=500")
        if others := len([key for key in keys.item if key.id != key_id]) + bool(keys.position):
            raise refuse(f"it would hit {others} more keys of the same usage plan")
        return plans[0]

    async def _key(self, key_id: str) -> Key | None:
        if not _KEY_ID.fullmatch(key_id):
            raise refuse("the id is none of an API Gateway key")
        return await self._peer.find(Key, f"/apikeys/{key_id}")

    async def _switch(self, key_id: str, *, on: bool) -> None:
        await self._patch(f"/apikeys/{key_id}", [("replace", "/enabled", "true" if on else "false")])

    async def _set_rate(self, plan_id: str, rate: Rate | None) -> None:
        if rate is None:
            return await self._patch(f"/usageplans/{plan_id}", [("remove", "/throttle", "")])
        changes = [
            ("replace", "/throttle/rateLimit", f"{rate.rate_limit:g}"),
            ("replace", "/throttle/burstLimit", str(rate.burst_limit)),
        ]
        return await self._patch(f"/usageplans/{plan_id}", changes)

    async def _patch(self, path: str, changes: list[tuple[str, str, str]]) -> None:
        operations = [
            {"op": op, "path": place, **({"value": value} if op != "remove" else {})} for op, place, value in changes
        ]
        await self._peer.ask(dict[str, Any], "PATCH", path, {"patchOperations": operations})


def _rate(intent: Intent) -> Rate:
    return Rate(intent.limit_per_s, max(1, round(intent.limit_per_s)))


def _text(before: Before) -> str:
    return msgspec.json.encode(before).decode()
