"""OTLP's messages of logs for Google's own Protobuf, which the reader by hand is held against."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

_KIND: Final = {"string": 9, "bool": 8, "int64": 3, "double": 1, "bytes": 12, "fixed64": 6, "int32": 5, "fixed32": 7}
MESSAGES: Final[dict[str, str]] = {
    "AnyValue": "oneof string string_value 1, oneof bool bool_value 2, oneof int64 int_value 3, "
    "oneof double double_value 4, oneof ArrayValue array_value 5, oneof KeyValueList kvlist_value 6, "
    "oneof bytes bytes_value 7",
    "ArrayValue": "many AnyValue values 1",
    "KeyValueList": "many KeyValue values 1",
    "KeyValue": "one string key 1, one AnyValue value 2",
    "Scope": "one string name 1, one string version 2, many KeyValue attributes 3",
    "Resource": "many KeyValue attributes 1",
    "LogRecord": "one fixed64 time_unix_nano 1, one fixed64 observed_time_unix_nano 11, one int32 severity_number 2, "
    "one string severity_text 3, one AnyValue body 5, many KeyValue attributes 6, one fixed32 flags 8, "
    "one bytes trace_id 9, one bytes span_id 10, one string event_name 12",
    "ScopeLogs": "one Scope scope 1, many LogRecord log_records 2, one string schema_url 3",
    "ResourceLogs": "one Resource resource 1, many ScopeLogs scope_logs 2, one string schema_url 3",
    "Export": "many ResourceLogs resource_logs 1",
}
"""Message -> its fields: (one, many or of the oneof), type, name, number."""


def _made() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="otlp.proto", package="otlp", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for each in fields.split(", "):
            how, kind, field, number = each.split()
            said = message.field.add(name=field, number=int(number), label=3 if how == "many" else 1)
            if kind in _KIND:
                said.type = _KIND[kind]
            else:
                said.type, said.type_name = 11, f".otlp.{kind}"
            if how == "oneof":
                if not message.oneof_decl:
                    message.oneof_decl.add(name="value")
                said.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("otlp.Export"))


EXPORT: Final = _made()


def protobuf_of(raw: bytes) -> bytes:
    """The Protobuf form of an export in JSON."""
    made = json_format.ParseDict(msgspec.json.decode(raw), EXPORT())
    return bytes(made.SerializeToString())


def json_of(raw: bytes) -> bytes:
    """The JSON form of an export in Protobuf."""
    return str(json_format.MessageToJson(EXPORT.FromString(raw))).encode()
