"""CloudEvents in binary content mode, as the Kafka protocol binding 1.0.2 shows it (3.2.5): data alone is the value.

Attributes are headers; the structured twins of these messages are examples of the format `native`, with golden results.
"""

from __future__ import annotations

import json

import msgspec
from aiokafka import ConsumerRecord

from pipeline.formats import Options
from pipeline.intake import topic as intake_topic
from pipeline.intake.run import Outgoing
from pipeline.intake.schema_registry import SchemaRegistry
from schemas.event import Event
from tests.pipeline.intake.test_schema_registry import RECORD, Registry, serving
from tests.schemas import examples

BINDING = """
Topic Name: mytopic
Key: mykey
ce_specversion: 1.0
ce_type: com.example.someevent
ce_source: /mycontext/subcontext
ce_id: 1234-1234-1234
ce_time: 2018-04-05T03:56:24Z
content-type: {}
"""
"""The message of the binding's section 3.2.5, without its value."""
STRUCTURED = examples.ROOT / "formats" / "native" / "cloudevent.json"
DATA = json.dumps(json.loads(STRUCTURED.read_bytes())["data"]).encode()


def message(content_type: str, value: bytes | None) -> ConsumerRecord:
    """As the binding has it, with this value."""
    named = dict(line.split(": ", 1) for line in BINDING.format(content_type).strip().splitlines())
    topic, key = named.pop("Topic Name"), named.pop("Key").encode()
    headers = tuple((name, text.encode()) for name, text in named.items())
    return ConsumerRecord(topic, 0, 17, 1_522_900_584_000, 0, key, value, None, len(key), len(value or b""), headers)


def routed(record: ConsumerRecord, registry: SchemaRegistry | None = None) -> list[Outgoing]:
    """What intake sends on for one record of the raw topic."""
    return list(intake_topic._routed(record, "native", Options(), registry))


def test_json_in_binary_mode_gives_the_golden_event_of_its_structured_twin() -> None:
    [out] = routed(message("application/json;charset=utf-8", DATA))
    [golden] = json.loads(examples.beside(STRUCTURED, "golden").read_bytes())
    assert (out.lane, out.key) == ("requests", golden["event"]["key_id"].encode())
    wanted = msgspec.convert(golden["event"] | {"position": "mytopic/0/17/0"}, Event)
    assert msgspec.json.decode(out.value, type=Event) == wanted


async def test_avro_in_binary_mode_as_in_the_binding_is_read_by_the_registrys_schema() -> None:
    async with serving(Registry()) as registry:
        await registry.know([RECORD])
        [out] = routed(message("application/avro", RECORD), registry)
    assert (out.lane, out.key) == ("requests", b"key-7")


def test_a_binary_event_without_data_has_no_value_and_says_nothing() -> None:
    assert routed(message("application/json", None)) == []


def test_binary_data_of_another_kind_is_refused_and_not_taken_for_an_envelope() -> None:
    [out] = routed(message("application/xml", b"<request key='key_7f3a9c21'/>"))
    told = json.loads(out.value)
    assert (out.lane, told["reason"], told["position"]) == ("rejected", "undecodable", "mytopic/0/17/0")
    assert "payload" not in told
