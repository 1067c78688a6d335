"""An OTLP export of logs in Protobuf (`otlp_proto`, `application/x-protobuf`) as the JSON form of the same has it.

Read by hand, a dozen fields by their numbers. A general decoder would build the whole export first, of which two bytes
on the wire may take a hundred in memory; here one log record after the other is made, so a body costs its own bytes and
one record. Unknown fields are passed over, as Protobuf wants it; nesting is bounded by `otel.DEEPEST`, all that is made
by `MAX_FIELDS`.
Source: opentelemetry-proto 1.x, collector/logs/v1, logs/v1, common/v1; Protobuf's encoding guide.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pipeline.formats.format import MAX_LINE_BYTES, BadValueError, Refused
from pipeline.formats.otel import DEEPEST, MOST_SHARED, log_record
from pipeline.formats.varint import varint

MAX_FIELDS: Final = 4_000_000
"""Of one export, at every depth: some 20,000 log records; a second of one core for each million."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_RESOURCE_LOGS: Final = 1
"""Field of ExportLogsServiceRequest."""
_OF_RESOURCE_LOGS: Final = frozenset({1, 2, 3, 1000})
"""resource, scope_logs, schema_url, and what scope_logs were once: what a text of JSON can't begin with."""
_SCOPES: Final = frozenset({2, 1000})
_TRUNCATED: Final = "the Protobuf export is cut or broken"


class TooManyFieldsError(Exception):
    """More than MAX_FIELDS."""


@dataclass
class _Room:
    """What one export may still hold."""

    fields: int = MAX_FIELDS


Buffer = bytes | memoryview
Field = tuple[int, int, Any]
"""Number, wire type, value: an integer, or a part of the buffer."""


def is_export(raw: bytes) -> bool:
    """Whether bytes that are no JSON begin as an export: with `resource_logs`, and that with a field of its own."""
    if not raw.startswith(b"\n"):
        return False
    room = _Room()
    try:
        _, wire, value = next(_fields(memoryview(raw), room))
        return wire == _BYTES and (not value or next(_fields(value, room))[0] in _OF_RESOURCE_LOGS)
    except BadValueError:
        return False


def log_records(raw: bytes) -> Iterator[dict[str, Any] | Refused]:
    """The log records, as `otel.log_records` has them; a `Refused` for one that is broken, or the rest of its resource.

    Raises BadValueError (where nobody can tell where the next begins) or TooManyFieldsError, perhaps after some.
    """
    room = _Room()
    for number, wire, resource in _fields(memoryview(raw), room):
        if number != _RESOURCE_LOGS or wire != _BYTES:
            continue
        try:
            yield from _of_resource(resource, room)
        except BadValueError:
            yield _broken("a resource of the Protobuf export is broken")


def _of_resource(resource: Buffer, room: _Room) -> Iterator[dict[str, Any] | Refused]:
    shared: dict[str, Any] = {}
    for found in _nested(resource, frozenset({1}), room):  # wherever it stands: it may follow its records
        shared |= _attributes(found, room, MOST_SHARED - len(shared))
    for scope in _nested(resource, _SCOPES, room):
        for record in _nested(scope, frozenset({2}), room):
            small = len(record) <= MAX_LINE_BYTES  # then a copy at each level costs less than a view
            try:
                yield _log_record(bytes(record) if small else record, shared, room)
            except BadValueError:
                yield _broken("a log record of the Protobuf export is broken")


def _broken(what: str) -> Refused:
    return Refused(reason="undecodable", detail=what)


def _log_record(record: Buffer, shared: dict[str, Any], room: _Room) -> dict[str, Any]:
    time = observed = body = None
    attributes: dict[str, Any] = {}
    for number, wire, value in _fields(record, room):
        if number == 1 and wire == _FIXED64:
            time = str(value)
        elif number == 11 and wire == _FIXED64:
            observed = str(value)
        elif number == 5 and wire == _BYTES:
            body = _value(value, room)
        elif number == 6 and wire == _BYTES:
            attributes |= _pair(value, 0, room)
    return log_record(time, observed, {**shared, **attributes}, body)


def _attributes(resource: Buffer, room: _Room, most: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each, _ in zip(_nested(resource, frozenset({1}), room), range(most), strict=False):
        found |= _pair(each, 0, room)
    return found


def _pair(raw: Buffer, depth: int, room: _Room) -> dict[str, Any]:
    """One KeyValue."""
    key, value = "", None
    for number, wire, said in _fields(raw, room):
        if wire == _BYTES and number == 1:
            key = _text(said)
        elif wire == _BYTES and number == 2:
            value = _value(said, room, depth)
    return {key: value} if key else {}


def _value(raw: Buffer, room: _Room, depth: int = 0) -> Any:
    """One AnyValue; None of bytes, of what is none, and of what lies too deep."""
    value: Any = None
    if depth > DEEPEST:
        return None
    for number, wire, said in _fields(raw, room):
        match number, wire:
            case 1, 2:
                value = _text(said)
            case 2, 0:
                value = bool(said)
            case 3, 0:
                value = str(said - (1 << 64) if said >= 1 << 63 else said)
            case 4, 1:
                value = struct.unpack("<d", struct.pack("<Q", said))[0]
            case 5, 2:
                value = [_value(each, room, depth + 1) for each in _nested(said, frozenset({1}), room)]
            case 6, 2:
                value = {}
                for each in _nested(said, frozenset({1}), room):
                    value |= _pair(each, depth + 1, room)
            case 7, 2:
                value = None
    return value


def _text(raw: Buffer) -> str:
    return str(raw, "utf-8", "replace")


def _nested(raw: Buffer, numbers: frozenset[int], room: _Room) -> Iterator[Buffer]:
    """The messages in these fields."""
    return (value for number, wire, value in _fields(raw, room) if number in numbers and wire == _BYTES)


def _fields(raw: Buffer, room: _Room) -> Iterator[Field]:
    """Raises BadValueError at the first that is none, groups included: nobody has written these for twenty years."""
    at, end = 0, len(raw)
    while at < end:
        room.fields -= 1
        if room.fields < 0:
            raise TooManyFieldsError
        tag, at = (raw[at], at + 1) if raw[at] < 0x80 else varint(raw, at, _TRUNCATED)
        wire = tag & 7
        if tag < 8:  # number 0
            raise BadValueError(_TRUNCATED)
        if wire == _VARINT:
            value, at = varint(raw, at, _TRUNCATED)
            yield tag >> 3, wire, value
            continue
        if wire == _BYTES:
            size, at = (raw[at], at + 1) if at < end and raw[at] < 0x80 else varint(raw, at, _TRUNCATED)
        else:
            size = 8 if wire == _FIXED64 else 4 if wire == _FIXED32 else end
        start, at = at, at + size
        if at > end:
            raise BadValueError(_TRUNCATED)
        part = raw[start:at]
        yield tag >> 3, wire, part if wire == _BYTES else int.from_bytes(part, "little")
