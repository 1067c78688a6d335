"""The registry's client against a small registry of our own: imports, refusals, outages, a flood of unknown ids."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiokafka import ConsumerRecord

from pipeline.config.tree import Intake, Secret
from pipeline.errors import ConfigError, Fatal
from pipeline.formats import Options, Refused
from pipeline.formats.confluent import IN_HEADER, framed
from pipeline.intake import schema_registry
from pipeline.intake import topic as intake_topic
from pipeline.intake.schema_registry import SchemaRegistry
from tests.pipeline.formats.test_confluent import (
    CLIENT_AVRO,
    GUID,
    NATIVE_AVRO,
    TS_US,
    avro,
    protobuf_body,
    protobuf_files,
)

RECORD = b"\x00\x00\x00\x00\x07" + avro({"key_id": "key-7", "ts_us": TS_US, "status": 200, "client": {"ip": b""}})


@dataclass
class Registry:
    """Schemas by id and by subject; `fails` answers are 500 first."""

    fails: int = 0
    status: int = 200
    asked: list[str] = field(default_factory=list)
    authorized: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        self.authorized = request.headers.get("Authorization", "")
        if self.fails:
            self.fails -= 1
            return web.Response(status=500)
        if self.status != 200:
            return web.Response(status=self.status)
        found = self.schemas(request.query.get("format") == "serialized").get(request.path)
        return web.json_response(found) if found else web.Response(status=404)

    @staticmethod
    def schemas(serialized: bool) -> dict[str, Any]:
        client, file = protobuf_files()
        texts = [base64.b64encode(x.SerializeToString()).decode() if serialized else "syntax" for x in (client, file)]
        at = [{"name": "Client", "subject": "client", "version": 1}]
        proto = [{"name": "client.proto", "subject": "client.proto", "version": 3}]
        return {
            "/schemas/ids/7": {"schema": json.dumps(NATIVE_AVRO), "references": at},
            "/subjects/client/versions/1": {"schema": json.dumps(CLIENT_AVRO)},
            "/schemas/ids/8": {"schema": texts[1], "schemaType": "PROTOBUF", "references": proto},
            "/subjects/client.proto/versions/3": {"schema": texts[0], "schemaType": "PROTOBUF"},
            f"/schemas/guids/{GUID}": {"schema": texts[1], "schemaType": "PROTOBUF", "references": proto},
            "/schemas/ids/9": {"schema": "x", "schemaType": "THRIFT"},
        }


@asynccontextmanager
async def serving(registry: Registry, **more: Any) -> AsyncIterator[SchemaRegistry]:
    app = web.Application()
    app.router.add_get("/{path:.*}", registry.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        intake = Intake(registry_url=f"http://127.0.0.1:{runner.addresses[0][1]}/", **more)
        async with schema_registry.opened(intake) as client:
            assert client is not None
            yield client
    finally:
        await runner.cleanup()


def key_of(plain: bytes | Refused) -> str:
    assert isinstance(plain, bytes), plain
    return str(json.loads(plain)["key_id"])


async def test_schemas_and_what_they_import_are_asked_for_once() -> None:
    registry = Registry()
    async with serving(registry) as client:
        for _ in range(3):
            await client.know([RECORD, RECORD, b'{"key_id":"plain"}'])
        assert key_of(client.plain(RECORD)) == "key-7"
        assert client.plain(b'{"key_id":"plain"}') == b'{"key_id":"plain"}'
        proto = b"\x00\x00\x00\x00\x08" + protobuf_body()
        await client.know([proto])
        assert key_of(client.plain(proto)) == "key-7"
    assert len(registry.asked) == len(set(registry.asked))
    assert registry.asked[:2] == ["/schemas/ids/7", "/subjects/client/versions/1"]


async def test_a_guid_in_the_kafka_header_with_the_path_to_the_message_is_asked_for() -> None:
    body = protobuf_body()
    header = b"\x01" + bytes.fromhex(GUID.replace("-", "")) + body[:3]
    registry = Registry()
    async with serving(registry) as client:
        await client.know([framed(body[3:], [(IN_HEADER, header)])])
        record = ConsumerRecord("t", 0, 0, 0, 0, b"", body[3:], None, 0, 0, ((IN_HEADER, header),))
        [out] = intake_topic._routed(record, "native", Options(), client)
    assert (out.lane, out.key) == ("requests", b"key-7")
    assert registry.asked[0] == f"/schemas/guids/{GUID}"


async def test_an_unknown_id_is_a_reject_that_names_it_and_is_not_asked_for_again() -> None:
    registry = Registry()
    async with serving(registry) as client:
        for _ in range(3):
            await client.know([b"\x00\x00\x00\x00\x63body"])
        refused = client.plain(b"\x00\x00\x00\x00\x63body")
    assert isinstance(refused, Refused)
    assert "no schema 99" in refused.detail
    assert registry.asked == ["/schemas/ids/99"]


async def test_an_outage_is_waited_for_and_then_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(fails=1)
    async with serving(registry) as client:
        await client.know([RECORD])
        assert key_of(client.plain(RECORD)) == "key-7"
    async with serving(Registry(fails=99)) as client:
        with pytest.raises(Fatal, match="did not answer"):
            await client.know([RECORD], give_up_s=0.1)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_says_which_setting_to_look_at(status: int) -> None:
    async with serving(Registry(status=status)) as client:
        with pytest.raises(ConfigError, match="registry_username"):
            await client.know([RECORD])


async def test_a_type_that_is_not_known_is_told() -> None:
    async with serving(Registry()) as client:
        with pytest.raises(ConfigError, match="THRIFT"):
            await client.know([b"\x00\x00\x00\x00\x09body"])


async def test_the_password_is_sent_and_never_shown() -> None:
    more: dict[str, Any] = {"registry_username": "kw", "registry_password": Secret("registry-canary")}
    registry = Registry()
    async with serving(registry, **more) as client:
        await client.know([RECORD])
    assert base64.b64decode(registry.authorized.removeprefix("Basic ")) == b"kw:registry-canary"
    assert "registry-canary" not in repr(Intake(**more)) + repr(client.__dict__)


async def test_what_the_raw_topic_brings_becomes_events_or_rejects_without_payload() -> None:
    class Record(msgspec.Struct):
        value: bytes | None
        topic: str = "gateway.raw"
        partition: int = 0
        offset: int = 3
        headers: tuple[()] = ()

    async with serving(Registry()) as client:
        await client.know([RECORD])
        routed: Any = intake_topic._routed
        [good] = routed(Record(RECORD), "native", Options(), client)
        [bad] = routed(Record(RECORD[:9]), "native", Options(), client)
        assert list(routed(Record(None), "native", Options(), client)) == []
    assert (good.lane, good.key) == ("requests", b"key-7")
    told = json.loads(bad.value)
    assert (bad.lane, told["reason"], told["position"]) == ("rejected", "undecodable", "gateway.raw/0/3/0")
    assert "payload" not in told
    assert told["payload_hash"]


async def test_without_a_registry_nothing_is_asked() -> None:
    async with schema_registry.opened(Intake()) as client:
        assert client is None
