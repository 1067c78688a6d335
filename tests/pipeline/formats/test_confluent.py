"""Avro and Protobuf under a registry's id: what is written is what the formats read, and rubbish is told."""

from __future__ import annotations

import base64
import io
import json
import struct
from typing import Any

import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.formats import decode
from pipeline.formats.confluent import IN_HEADER, Schema, body_of, framed, reader, schema_id
from pipeline.formats.format import BadValueError
from schemas.event import Event

NATIVE_AVRO = {
    "type": "record", "name": "Request", "fields": [
        {"name": "key_id", "type": "string"},
        {"name": "ts_us", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "status", "type": ["null", "int"], "default": None},
        {"name": "client", "type": "Client"},
    ],
}  # fmt: skip
CLIENT_AVRO = {"type": "record", "name": "Client", "fields": [{"name": "ip", "type": "bytes"}]}
TS_US = 1_764_000_000_123_456


def avro(value: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    named: dict[str, Any] = {}
    fastavro.parse_schema(CLIENT_AVRO, named)
    fastavro.schemaless_writer(out, fastavro.parse_schema(NATIVE_AVRO, named), value)
    return out.getvalue()


def avro_reader() -> Any:
    return reader(Schema("AVRO", json.dumps(NATIVE_AVRO)), [Schema("AVRO", json.dumps(CLIENT_AVRO), "Client")])


def test_an_avro_record_becomes_the_event_with_its_time_as_it_was_written() -> None:
    body = avro({"key_id": "key-7", "ts_us": TS_US, "status": 200, "client": {"ip": b"\xff"}})
    plain = avro_reader()(body)
    assert json.loads(plain)["client"] == {"ip": "/w=="}
    [event] = decode(plain, "native")
    assert isinstance(event, Event)
    assert (event.key_id, event.ts_us, event.status) == ("key-7", TS_US, 200)


@given(st.binary(max_size=60))
def test_any_body_is_read_by_avro_or_refused(body: bytes) -> None:
    try:
        json.loads(avro_reader()(body))
    except BadValueError as error:
        assert "Avro" in str(error)


def protobuf_files() -> tuple[descriptor_pb2.FileDescriptorProto, descriptor_pb2.FileDescriptorProto]:
    """`Outer { Request { key_id, ts_us, client, at } }` beside `Other`; `Client` is in a file of its own."""
    client = descriptor_pb2.FileDescriptorProto(name="client.proto", package="gw", syntax="proto3")
    of_client = client.message_type.add(name="Client")
    of_client.field.add(name="client_ip", number=1, type=9, label=1)
    file = descriptor_pb2.FileDescriptorProto(name="request.proto", package="gw", syntax="proto3")
    file.dependency.extend(["client.proto", "google/protobuf/timestamp.proto"])
    file.message_type.add(name="Other")
    request = file.message_type.add(name="Outer").nested_type.add(name="Request")
    request.field.add(name="key_id", number=1, type=9, label=1)
    request.field.add(name="ts_us", number=2, type=3, label=1)
    request.field.add(name="client", number=3, type=11, label=1, type_name=".gw.Client")
    request.field.add(name="at", number=4, type=11, label=1, type_name=".google.protobuf.Timestamp")
    return client, file


def protobuf_reader() -> Any:
    client, file = (base64.b64encode(each.SerializeToString()).decode() for each in protobuf_files())
    return reader(Schema("PROTOBUF", file), [Schema("PROTOBUF", client, "client.proto")])


def protobuf_body() -> bytes:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    for each in protobuf_files():
        pool.AddSerializedFile(each.SerializeToString())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("gw.Outer.Request"))()
    made.key_id, made.ts_us, made.client.client_ip = "key-7", TS_US, "203.0.113.7"
    made.at.seconds = 1_764_000_000
    return bytes([4, 2, 0, *made.SerializeToString()])  # the path: two steps, type 1, in it type 0


def test_a_nested_protobuf_message_becomes_the_event() -> None:
    plain = protobuf_reader()(protobuf_body())
    assert json.loads(plain)["client"] == {"client_ip": "203.0.113.7"}
    assert json.loads(plain)["at"] == "2025-11-24T16:00:00Z"
    [event] = decode(plain, "native")
    assert isinstance(event, Event)
    assert (event.key_id, event.ts_us) == ("key-7", TS_US)


@given(st.binary(max_size=60))
def test_any_body_is_read_by_protobuf_or_refused(body: bytes) -> None:
    read = protobuf_reader()
    for each in (body, b"\x00" + body, bytes([4, 2, 0]) + body):
        try:
            json.loads(read(each))
        except BadValueError as error:
            assert "Protobuf" in str(error)


def test_json_under_an_id_is_json() -> None:
    assert reader(Schema("JSON", "{}"))(b'{"key_id":"k"}') == b'{"key_id":"k"}'


@given(st.integers(0, 2**32 - 1), st.binary(min_size=1))
def test_the_id_is_read_from_the_header_and_plain_records_have_none(ident: int, body: bytes) -> None:
    assert schema_id(b"\x00" + struct.pack(">I", ident) + body) == ident
    assert schema_id(b'{"key_id"' + body) is None
    assert schema_id(b"\x00" * 5) is None


GUID = "89791762-2336-4186-9674-299b90a802e2"


@given(st.binary(min_size=1, max_size=9))
def test_an_id_or_guid_is_read_before_the_body_or_from_the_kafka_header(body: bytes) -> None:
    guid = b"\x01" + bytes.fromhex(GUID.replace("-", ""))
    for named, wanted in ((b"\0\0\0\0\x07", 7), (guid, GUID)):
        in_header = framed(body, [("other", b"x"), (IN_HEADER, named)])
        assert in_header == named + body
        assert (schema_id(in_header), body_of(in_header)) == (wanted, body)
        assert schema_id(named) is None  # no body
    assert framed(body, [(IN_HEADER, None), ("other", b"x")]) == framed(body, ()) == body


ENDLESS = [
    {"type": "record", "name": "R", "fields": [{"name": "a", "type": "R"}]},
    {"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "R"]}]},
    {"type": "record", "name": "n.R", "fields": [{"name": "a", "type": {"type": "array", "items": "n.R"}}]},
    {"type": "record", "name": "R", "fields": [{"name": "a", "type": {
        "type": "record", "name": "S", "fields": [{"name": "b", "type": {"type": "map", "values": ["int", "R"]}}]}}]},
]  # fmt: skip


@pytest.mark.parametrize("schema", ENDLESS)
def test_a_record_that_holds_itself_is_no_schema_for_a_log(schema: dict[str, Any]) -> None:
    """Its reader is C and has no bound: 20,000 bytes that each say "and one more" ended the process."""
    with pytest.raises(ConfigError, match="holds itself"):
        reader(Schema("AVRO", json.dumps(schema)))


NOTHING = {"type": "record", "name": "N", "fields": [{"name": "a", "type": "null"}, {"name": "b", "type": "null"}]}
OF_NOTHING = [
    {"type": "array", "items": "null"},
    {"type": "array", "items": {"type": "null"}},
    {"type": "array", "items": NOTHING},
    {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}},
    {"type": "map", "values": ["int", {"type": "array", "items": "null"}]},
    {"type": "array", "items": {"type": "array", "items": "null"}},
    {"type": "record", "name": "R", "fields": [
        {"name": "a", "type": NOTHING}, {"name": "b", "type": {"type": "array", "items": "N"}}]},
]  # fmt: skip


@pytest.mark.parametrize("schema", OF_NOTHING)
def test_an_array_whose_items_take_no_bytes_is_no_schema_for_a_log(schema: dict[str, Any]) -> None:
    """Six bytes say that there are 2^40 of them, and its reader makes them all."""
    with pytest.raises(ConfigError, match="take no bytes"):
        reader(Schema("AVRO", json.dumps(schema)))


@pytest.mark.parametrize(
    ("kind", "inner"), [("map", "null"), ("array", ["null", "int"]), ("array", "boolean"), ("array", "string")]
)
@pytest.mark.parametrize("count", [1 << 40, -(1 << 40), -(1 << 62)])
def test_a_block_that_says_more_items_than_the_body_has_bytes_is_refused_at_once(
    kind: str, inner: Any, count: int
) -> None:
    """Each item takes a byte, so the body's end is the bound: a map's null has its key."""
    schema = {"type": kind, "values" if kind == "map" else "items": inner}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", count)
    with pytest.raises(BadValueError):
        reader(Schema("AVRO", json.dumps(schema)))(out.getvalue() + bytes(10_000))


def test_a_packed_field_and_empty_messages_of_protobuf_stay_within_the_bodys_bounds() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", syntax="proto3")
    message = file.message_type.add(name="P")
    message.nested_type.add(name="E")
    message.field.add(name="n", number=1, type=3, label=3)  # repeated int64: packed
    message.field.add(name="e", number=2, type=11, label=3, type_name=".P.E")
    read = reader(Schema("PROTOBUF", base64.b64encode(file.SerializeToString()).decode()))
    assert json.loads(read(b"\0\x0a\x64" + bytes(100) + b"\x12\0" * 100)) == {"n": ["0"] * 100, "e": [{}] * 100}
    for length in (b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"):
        with pytest.raises(BadValueError):
            read(b"\0\x0a" + length + bytes(100))


def test_a_type_that_occurs_twice_is_read() -> None:
    twice = {"type": "record", "name": "R", "fields": [
        {"name": "a", "type": {"type": "record", "name": "S", "fields": [{"name": "x", "type": "int"}]}},
        {"name": "b", "type": {"type": "array", "items": "S"}}, {"name": "c", "type": ["null", "S"]},
    ]}  # fmt: skip
    assert json.loads(reader(Schema("AVRO", json.dumps(twice)))(b"\2\2\4\0\2\6")) == {
        "a": {"x": 1}, "b": [{"x": 2}], "c": {"x": 3},
    }  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [Schema("AVRO", "{"), Schema("AVRO", '{"type":"nothing"}'), Schema("PROTOBUF", "!"), Schema("PROTOBUF", "AAAA")],
)
def test_a_schema_that_is_none_is_told_to_the_operator(schema: Schema) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        reader(schema)
