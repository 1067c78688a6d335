"""A schema registry (Confluent's API): what a record's schema id means, asked once and kept.

Ids never change their meaning, so what is known needs no refresh. While the registry is away intake waits, as it does
for the broker: nothing is rejected for it. An id that the registry does not know is a reject, not a reason to stop.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec

from pipeline.config.tree import Intake
from pipeline.errors import ConfigError, Fatal
from pipeline.formats.confluent import Reader, Schema, SchemaId, body_of, reader, schema_id
from pipeline.formats.format import BadValueError, Refused

log = logging.getLogger(__name__)

GIVE_UP_S: Final = 300.0
ANSWER_S: Final = 10.0
MAX_UNKNOWN: Final = 10_000
"""Ids that the registry did not know; remembered, so that a flood of them is not a flood of questions."""
MAX_IMPORTS: Final = 100


class _Reference(msgspec.Struct, frozen=True):
    name: str
    subject: str
    version: int


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    schema: str
    schema_type: str = "AVRO"
    references: tuple[_Reference, ...] = ()


class SchemaRegistry:
    """`know` before `plain`: the one asks, the other never waits."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._readers: dict[SchemaId, Reader] = {}
        self._unknown: set[SchemaId] = set()

    async def know(self, values: Iterable[bytes], give_up_s: float = GIVE_UP_S) -> None:
        """Learn every schema that these records name. Raises ConfigError for a refusal, Fatal after `give_up_s`."""
        for ident in {found for value in values if (found := schema_id(value)) is not None}:
            if ident not in self._readers and ident not in self._unknown:
                await self._learn(ident, give_up_s)

    def plain(self, value: bytes) -> bytes | Refused:
        """The record in plain JSON; one without a header is that already."""
        ident = schema_id(value)
        if ident is None:
            return value
        if ident not in self._readers:
            return Refused(reason="undecodable", detail=f"the registry knows no schema {ident}")
        try:
            return self._readers[ident](body_of(value))
        except BadValueError as error:
            return Refused(reason="undecodable", detail=str(error))

    async def _learn(self, ident: SchemaId, give_up_s: float) -> None:
        answer = await self._ask(f"/schemas/{'ids' if isinstance(ident, int) else 'guids'}/{ident}", give_up_s)
        if answer is None:
            log.warning("the schema registry knows no schema %s: its records are rejected", ident)
            if len(self._unknown) >= MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown.add(ident)
            return
        imported: dict[str, Schema] = {}
        await self._import(answer, imported, give_up_s)
        self._readers[ident] = reader(_schema(answer, ""), list(imported.values()))

    async def _import(self, answer: _Answer, imported: dict[str, Schema], give_up_s: float) -> None:
        """What it refers to, and that in turn, depth first: in the order to be read."""
        for each in answer.references:
            if each.name in imported:
                continue
            if len(imported) >= MAX_IMPORTS:
                raise ConfigError(f"a schema of the registry refers to more than {MAX_IMPORTS} others")
            inner = await self._ask(f"/subjects/{each.subject}/versions/{each.version}", give_up_s)
            if inner is None:
                raise ConfigError(f"the schema registry has no version {each.version} of {each.subject}")
            await self._import(inner, imported, give_up_s)
            imported[each.name] = _schema(inner, each.name)

    async def _ask(self, path: str, give_up_s: float) -> _Answer | None:
        until, pause_s = asyncio.get_running_loop().time() + give_up_s, 0.2
        while True:
            answer = await self._once(path)
            if not isinstance(answer, str):
                return answer
            if asyncio.get_running_loop().time() + pause_s > until:
                raise Fatal(f"the schema registry did not answer for {give_up_s:.0f} s: {answer}")
            log.warning("the schema registry does not answer, trying again: %s", answer)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 10.0)

    async def _once(self, path: str) -> _Answer | str | None:
        """The answer, None for "there is none", or words of what may pass."""
        try:
            answer = await self._get(path, {})
            if isinstance(answer, _Answer) and answer.schema_type == "PROTOBUF":
                answer = await self._get(path, {"format": "serialized"})
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
            return type(error).__name__
        return answer

    async def _get(self, path: str, query: dict[str, str]) -> _Answer | str | None:
        async with self._session.get(self._url + path, params=query) as response:
            if response.status == 404:
                return None
            if response.status in (401, 403):
                raise ConfigError(f"the schema registry answers {response.status}: check intake.registry_username")
            if response.status != 200:
                return f"it answers {response.status}"
            return msgspec.json.decode(await response.read(), type=_Answer)


def _schema(answer: _Answer, name: str) -> Schema:
    kind: Any = answer.schema_type
    if kind not in ("AVRO", "PROTOBUF", "JSON"):
        raise ConfigError(f"the registry's schema type {kind!r} is not known; there are AVRO, PROTOBUF and JSON")
    return Schema(kind, answer.schema, name)


@asynccontextmanager
async def opened(intake: Intake) -> AsyncIterator[SchemaRegistry | None]:
    """The configured registry, or None where records are plain."""
    if not intake.registry_url:
        yield None
        return
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(headers=_authorization(intake), timeout=timeout, trust_env=False) as session:
        yield SchemaRegistry(intake.registry_url, session)


def _authorization(intake: Intake) -> dict[str, str]:
    if not intake.registry_username:
        return {}
    pair = f"{intake.registry_username}:{intake.registry_password.reveal()}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
