"""Records under a schema registry's id (Confluent's wire format) to plain JSON, which the formats read.

A byte 0, the schema's id in four bytes (big-endian), for Protobuf the path to the message type, the body. Or a byte 1
and the schema's GUID in sixteen. Either may stand before the body or in the Kafka header `__value_schema_id`, the path
with it. Avro's
logical types are left out: a time stays the number it is written as, in the unit that the format's field has.
Protobuf's own JSON names 64-bit integers as strings, as gateways do. Bytes become base64. An Avro schema in which a
record holds itself, or an array's items take no bytes, is refused: a log line has no such thing, and a hostile body of
a few bytes would end the process. Of all else each item takes a byte at least, so a body bounds what is made of it.
Source: Confluent's documentation of the wire format; Avro 1.12; Protobuf's `FileDescriptorProto`.
"""

from __future__ import annotations

import base64
import importlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from pipeline.errors import ConfigError
from pipeline.formats.format import BadValueError
from pipeline.formats.varint import varint

IN_HEADER: Final = "__value_schema_id"
_BYTES_OF: Final = {0: 5, 1: 17}
"""First byte -> how many bytes name the schema, this one included: a number, or a GUID."""
MAX_PATH: Final = 32
"""Nesting of a Protobuf message type within others; more is no header."""
_NO_PATH: Final = "no path to a Protobuf message type"

Kind = Literal["AVRO", "PROTOBUF", "JSON"]
Reader = Callable[[bytes], bytes]
"""A body to JSON. Raises BadValueError for what the schema does not fit."""


class Schema(msgspec.Struct, frozen=True):
    """One schema as the registry has it: JSON of Avro, a serialized descriptor in base64 of Protobuf."""

    kind: Kind
    text: str
    name: str = ""  # as others import it


SchemaId = int | str
"""The registry's number, or a GUID."""


def framed(value: bytes, headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    """The value with what names its schema before it, wherever its producer has put that."""
    return next((said for name, said in headers if name == IN_HEADER and said and _names_schema(said)), b"") + value


def _names_schema(said: bytes) -> bool:
    """What is no id would only spoil a plain record."""
    return said[0] in _BYTES_OF and len(said) >= _BYTES_OF[said[0]]


def schema_id(value: bytes) -> SchemaId | None:
    """The id that a record names; None for plain ones."""
    ends = _BYTES_OF.get(value[0] if value else -1, len(value))
    if len(value) <= ends:
        return None
    named = value[1:ends]
    return int.from_bytes(named, "big") if value[0] == 0 else str(UUID(bytes=named))


def body_of(value: bytes) -> bytes:
    """What follows the id of a record that names one."""
    return value[_BYTES_OF[value[0]] :]


def reader(schema: Schema, imported: Sequence[Schema] = ()) -> Reader:
    """What reads bodies of this schema; `imported`: what it refers to, in the order to be read.

    Raises ConfigError for a schema that is none, and where the extra `keywatch[registry]` is not installed.
    """
    try:
        return _MAKERS[schema.kind](schema, imported)
    except ImportError as error:
        raise ConfigError(f"{schema.kind} needs {error.name}: install the extra 'registry' of this package") from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"the registry's schema {schema.name or ''} can't be read: {type(error).__name__}") from error


def _json(schema: Schema, imported: Sequence[Schema]) -> Reader:
    return bytes


def _avro(schema: Schema, imported: Sequence[Schema]) -> Reader:
    import fastavro

    named: dict[str, Any] = {}
    for each in imported:
        fastavro.parse_schema(_without_logical_types(msgspec.json.decode(each.text)), named)
    parsed = fastavro.parse_schema(_without_logical_types(msgspec.json.decode(schema.text)), named)
    if _holds_itself(parsed, named, set(), set()):
        raise ConfigError(f"the registry's schema {schema.name or ''} has a record that holds itself: no log line does")
    if _has_array_of_nothing(parsed, named, set()):
        raise ConfigError(f"the registry's schema {schema.name or ''} has an array whose items take no bytes")

    def read(body: bytes) -> bytes:
        try:
            return msgspec.json.encode(fastavro.schemaless_reader(io.BytesIO(body), parsed, None))
        except Exception as error:  # noqa: BLE001  fastavro raises whatever struct, UTF-8 or its lists raise
            raise BadValueError(f"the body is none of its Avro schema: {type(error).__name__}") from None

    return read


def _holds_itself(type_: Any, named: Mapping[str, Any], inside: set[str], done: set[str]) -> bool:
    """Whether a record holds one of its own type, at any depth; `inside`: the records around this type."""
    if isinstance(type_, list):
        return any(_holds_itself(each, named, inside, done) for each in type_)
    if isinstance(type_, str):
        return type_ in inside or (type_ in named and _holds_itself(named[type_], named, inside, done))
    if type_["type"] not in ("record", "error"):
        inner = [type_[name] for name in ("type", "items", "values") if isinstance(type_.get(name), (dict, list))]
        named_inner = [type_[name] for name in ("items", "values") if isinstance(type_.get(name), str)]
        return any(_holds_itself(each, named, inside, done) for each in (*inner, *named_inner))
    name = type_["name"]
    if name in done:
        return False
    found = any(_holds_itself(each["type"], named, inside | {name}, done) for each in type_["fields"])
    done.add(name)
    return found


def _has_array_of_nothing(type_: Any, named: Mapping[str, Any], done: set[str]) -> bool:
    """Whether there is an array whose items take no bytes: a block of it says how many in one number, and no body ends.

    Of a schema in which no record holds itself; `done`: records that were looked at.
    """
    if isinstance(type_, list):
        return any(_has_array_of_nothing(each, named, done) for each in type_)
    if isinstance(type_, str):
        return type_ in named and type_ not in done and _has_array_of_nothing(named[type_], named, done)
    if type_["type"] == "array" and _is_nothing(type_["items"], named):
        return True
    done.add(type_.get("name", ""))
    inner = [each["type"] for each in type_.get("fields", ())] + [
        type_[name] for name in ("items", "values", "type") if name in type_
    ]
    return any(_has_array_of_nothing(each, named, done) for each in inner if each not in ("record", "error"))


def _is_nothing(type_: Any, named: Mapping[str, Any]) -> bool:
    """Whether values of this type take no bytes."""
    if isinstance(type_, list):
        return False  # which of them it is takes one
    if isinstance(type_, str):
        return type_ == "null" or (type_ in named and _is_nothing(named[type_], named))
    if type_["type"] in ("record", "error"):
        return all(_is_nothing(each["type"], named) for each in type_["fields"])
    if type_["type"] == "fixed":
        return not type_["size"]
    return type_["type"] not in ("array", "map", "enum") and _is_nothing(type_["type"], named)


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(each) for each in schema]
    if isinstance(schema, dict):
        return {name: _without_logical_types(each) for name, each in schema.items() if name != "logicalType"}
    return schema


def _protobuf(schema: Schema, imported: Sequence[Schema]) -> Reader:
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory

    pool, known = descriptor_pool.DescriptorPool(), set[str]()

    def add(each: Schema) -> Any:
        file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(each.text, validate=True))
        file.name = each.name or file.name
        for dependency in file.dependency:
            if dependency not in known and dependency.startswith("google/protobuf/"):
                known.add(dependency)
                own = importlib.import_module(f"{dependency.removesuffix('.proto').replace('/', '.')}_pb2")
                pool.AddSerializedFile(own.DESCRIPTOR.serialized_pb)
        known.add(file.name)
        return pool.AddSerializedFile(file.SerializeToString()) or pool.FindFileByName(file.name)

    for each in imported:
        add(each)
    types: Mapping[str, Any] = add(schema).message_types_by_name
    roots = list(types.values())

    def read(body: bytes) -> bytes:
        path, at = _path(body)
        try:
            type_ = roots[path[0]]
            for index in path[1:]:
                type_ = type_.nested_types[index]
            found = message_factory.GetMessageClass(type_).FromString(body[at:])
            return msgspec.json.encode(json_format.MessageToDict(found, preserving_proto_field_name=True))
        except (IndexError, message.DecodeError, json_format.SerializeToJsonError, RecursionError) as error:
            raise BadValueError(f"the body is none of its Protobuf schema: {type(error).__name__}") from None

    return read


def _path(body: bytes) -> tuple[list[int], int]:
    """The path to the message type, and where the message begins; a single 0 is the first type."""
    count, at = _zigzag(body, 0)
    if count == 0:
        return [0], at
    if not 0 < count <= MAX_PATH:
        raise BadValueError(_NO_PATH)
    path = []
    for _ in range(count):
        index, at = _zigzag(body, at)
        if index < 0:
            raise BadValueError(_NO_PATH)
        path.append(index)
    return path, at


def _zigzag(body: bytes, at: int) -> tuple[int, int]:
    """A signed varint and where it ends."""
    value, at = varint(body, at, _NO_PATH)
    return (value >> 1) ^ -(value & 1), at


_MAKERS: Final[dict[Kind, Callable[[Schema, Sequence[Schema]], Reader]]] = {
    "AVRO": _avro, "PROTOBUF": _protobuf, "JSON": _json,
}  # fmt: skip
