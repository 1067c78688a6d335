"""From the bytes of one message to its records: gunzip, arrays, JSON lines, and the envelopes that logs come in.

CloudTrail's `Records`, CloudWatch (also to Lambda), EventBridge, Firehose, Kinesis, OTLP (JSON or Protobuf),
CloudEvents (structured; in binary mode the value is the record itself).
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pipeline.formats import otlp_proto
from pipeline.formats.format import MAX_LINE_BYTES, MAX_MESSAGE_BYTES, MAX_RECORDS, BadValueError, Refused
from pipeline.formats.otel import is_log_record, log_records

GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_DEEPEST = 4  # CloudWatch data in base64 in an array is 3
MAX_VALUES: Final = 4_000_000
"""Of one JSON document: empty objects take 64 bytes each, so that 64 MB of text would become more than a gigabyte."""
MOST_MENDED_BYTES: Final = 16 << 20
"""Of a document with bytes that are not UTF-8: the text of each may take four times as much."""
_DECODER: Final = json.JSONDecoder()
_BLANKS: Final = re.compile(r"[ \t\r\n]*")
NOT_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
"""What msgspec raises for bytes that are no JSON."""


class TooLargeError(Exception):
    """A message unpacks to more than MAX_MESSAGE_BYTES, or holds more than MAX_VALUES."""


@dataclass
class Room:
    """What one message may still unpack to, all that is packed inside of it together."""

    bytes_left: int = MAX_MESSAGE_BYTES


def gunzip(raw: bytes, limit_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """All members of a gzip stream, at most `limit_bytes`. Raises BadValueError (broken data) or TooLargeError."""
    out: list[bytes] = []
    room = limit_bytes
    while raw.startswith(GZIP_MAGIC):
        unpack = zlib.decompressobj(wbits=31)
        try:
            out.append(unpack.decompress(raw, room + 1))
        except zlib.error:
            raise BadValueError("the gzip data is broken") from None
        room -= len(out[-1])
        if room < 0:
            raise TooLargeError
        if not unpack.eof:
            raise BadValueError("the gzip data ends in the middle")
        raw = unpack.unused_data
    return b"".join(out)


def plain_bytes(raw: bytes, room: Room) -> bytes:
    """The message without gzip. Raises BadValueError or TooLargeError."""
    plain = gunzip(raw, max(0, room.bytes_left)) if raw.startswith(GZIP_MAGIC) else raw
    room.bytes_left -= len(plain)
    if room.bytes_left < 0:
        raise TooLargeError
    return plain


def document(plain: bytes) -> Any:
    """The JSON value. Raises one of NOT_JSON or, before anything is made of it, TooLargeError.

    What is not UTF-8 becomes a replacement character: gateways write what a caller sends as it comes, so that one byte
    would hide his request, and all of its batch.
    """
    if len(plain) > MAX_VALUES and sum(map(plain.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise TooLargeError
    try:
        return msgspec.json.decode(plain)
    except UnicodeDecodeError:
        if len(plain) > MOST_MENDED_BYTES:
            raise
        return msgspec.json.decode(plain.decode("utf-8", "replace"))


def json_records(raw: bytes) -> Iterator[Any]:
    """The JSON objects of one message; a `Refused` in place of each record that is none."""
    room = Room()
    plain = _plain_or_refused(raw, room)
    if isinstance(plain, Refused):
        yield plain
    else:
        yield from bounded(_parsed(plain.removeprefix(_BOM), room))


def line_records(raw: bytes) -> Iterator[str | Refused]:
    """The lines of text of one message that are not blank."""
    plain = _plain_or_refused(raw, Room())
    if isinstance(plain, Refused):
        yield plain
    else:
        yield from bounded(text_line(line) for line in io.BytesIO(plain.removeprefix(_BOM)) if line.strip())


def bounded(records: Iterator[Any]) -> Iterator[Any]:
    """The records up to MAX_RECORDS; then one `Refused` for all the rest."""
    for number, record in enumerate(records):
        if number == MAX_RECORDS:
            yield Refused(reason="too_large", detail=f"the message has more than {MAX_RECORDS} records")
            return
        yield record


def text_line(line: bytes) -> str | Refused:
    """One line as text; what is not UTF-8 in it becomes a replacement character."""
    if len(line) > MAX_LINE_BYTES:
        return Refused(reason="too_large", detail=f"the line is longer than {MAX_LINE_BYTES >> 20} MB")
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def _plain_or_refused(raw: bytes, room: Room) -> bytes | Refused:
    try:
        return plain_bytes(raw, room)
    except BadValueError as error:
        return Refused(reason="undecodable", detail=str(error))
    except TooLargeError:
        return _too_large()


def _too_large() -> Refused:
    detail = f"the message is larger than {MAX_MESSAGE_BYTES >> 20} MB or has more than {MAX_VALUES} JSON values"
    return Refused(reason="too_large", detail=detail)


def _parsed(plain: bytes, room: Room) -> Iterator[Any]:
    try:
        parsed = document(plain)
    except TooLargeError:
        yield from _json_lines(plain, room) if _begins_with_a_line(plain) else (_too_large(),)
    except NOT_JSON:
        yield from _exported(plain) if otlp_proto.is_export(plain) else _json_lines(plain, room)
    else:
        yield from unpack(parsed, 0, room)


def _exported(plain: bytes) -> Iterator[Any]:
    """The log records of a Protobuf export, and a `Refused` of the rest where it is broken or too large."""
    try:
        yield from otlp_proto.log_records(plain)
    except BadValueError as error:
        yield Refused(reason="undecodable", detail=str(error))
    except otlp_proto.TooManyFieldsError:
        yield Refused(reason="too_large", detail=f"the export has more than {otlp_proto.MAX_FIELDS} fields")


def _begins_with_a_line(plain: bytes) -> bool:
    """Whether the first line alone is JSON: of a document that is too large it is not."""
    return _is_json(plain[: plain.find(b"\n", 0, MAX_LINE_BYTES)] if b"\n" in plain[:MAX_LINE_BYTES] else b"")


def _is_json(line: bytes) -> bool:
    try:
        document(line)
    except (*NOT_JSON, TooLargeError):
        return False
    return True


def _json_lines(plain: bytes, room: Room) -> Iterator[Any]:
    lines = (line for line in io.BytesIO(plain) if line.strip())
    head, second = next(lines, b""), next(lines, b"")
    if not second:
        yield from _run_together(head, room)
        return
    for line in (head, second):
        yield from json_line(line, room)
    for line in lines:
        yield from json_line(line, room)


def _run_together(line: bytes, room: Room, depth: int = 0, rest: str = "not JSON in UTF-8") -> Iterator[Any]:
    """Objects with nothing between them, as Firehose writes CloudWatch's to S3; then a `Refused` of the `rest`."""
    text, at = line.decode("utf-8", "replace").strip(), 0
    while text.startswith("{", at):
        try:
            _, end = _DECODER.raw_decode(text, at)  # only where it ends: it takes NaN and halves of surrogate pairs
        except (ValueError, RecursionError):
            break
        yield from json_line(text[at:end].encode("utf-8", "replace"), room, depth)
        at = end + len(_BLANKS.match(text, end)[0])  # type: ignore[index]
    if at < len(text) or not text:
        yield Refused(reason="undecodable", detail=rest if text or depth else "empty")


def json_line(line: bytes, room: Room | None = None, depth: int = 0) -> Iterator[Any]:
    """The records of one line of JSON lines."""
    try:
        parsed = document(line)
    except TooLargeError:
        yield _too_large()
    except NOT_JSON:
        yield Refused(reason="undecodable", detail="not JSON in UTF-8")
    else:
        yield from unpack(parsed, depth, room or Room())


def unpack(value: Any, depth: int, room: Room) -> Iterator[Any]:
    """Records out of arrays and the envelopes that carry gateway logs."""
    if depth > _DEEPEST or not isinstance(value, (dict, list)):
        yield Refused(reason="undecodable", detail="a JSON value that is no object")
        return
    inner = _inside(value) if isinstance(value, dict) else value
    if inner is None:
        yield value
        return
    for record in inner:
        if isinstance(record, (bytes, str)):
            yield from _nested(record, depth, room)
        else:
            yield from unpack(record, depth + 1, room)


def _nested(record: bytes | str, depth: int, room: Room) -> Iterator[Any]:
    """A record that is text: CloudWatch's `message`, or gzip in base64; Firehose packs several lines into one."""
    raw = record.encode("utf-8", "replace") if isinstance(record, str) else record
    try:
        plain = plain_bytes(raw, room).strip()
        lines = plain.splitlines() if b"\n" in plain else [plain]
    except TooLargeError:
        yield _too_large()
    except BadValueError:
        yield _NOT_JSON_INSIDE
    else:
        whole = len(lines) == 1 or not (_is_json(lines[0]) or (_is_json(lines[1]) and not _is_json(plain)))
        for line in [plain] if whole else filter(None, lines):
            yield from _inner(line, depth, room)


def _inner(line: bytes, depth: int, room: Room) -> Iterator[Any]:
    try:
        parsed = document(line)
    except TooLargeError:
        yield _too_large()
    except NOT_JSON:
        yield from _run_together(line, room, depth + 1, _NOT_JSON_INSIDE.detail)
    else:
        yield from unpack(parsed, depth + 1, room)


_NOT_JSON_INSIDE: Final = Refused(reason="undecodable", detail="a record inside the envelope is not JSON")


def carried(record: dict[str, Any]) -> dict[str, Any]:
    """The record of another gateway that an OTLP log record carries: its attributes, and its body if that is one."""
    body = record.get("body")
    if isinstance(body, str) and body.lstrip().startswith("{"):
        try:
            body = document(body.encode("utf-8", "replace"))
        except (*NOT_JSON, TooLargeError):
            body = None
    return {**record["attributes"], **(body if isinstance(body, dict) else {})}


def is_bare(raw: bytes) -> bool:
    """Whether a message is one record as it stands, with nothing packed around it or inside."""
    try:
        value = document(raw)
    except (*NOT_JSON, TooLargeError):
        return False
    return isinstance(value, dict) and _inside(value) is None and not is_log_record(value)


def _inside(document: dict[str, Any]) -> Iterable[Any] | None:
    """What an envelope carries, or None where the object is a record itself."""
    if isinstance(document.get("Records"), list):  # CloudTrail file, or Kinesis to Lambda
        return [_kinesis(record) for record in document["Records"]]
    if isinstance(document.get("records"), list) and "requestId" in document:  # Firehose to an HTTP endpoint
        return [_base64(_text(record, "data")) for record in document["records"] if record != _EMPTY]
    if isinstance(document.get("resourceLogs"), list):  # OTLP
        return log_records(document)  # one by one: a megabyte of them would be hundreds
    if "specversion" in document and "type" in document:  # CloudEvents, structured
        return [document["data"]] if "data" in document else [_base64(_text(document, "data_base64"))]
    if isinstance(document.get("logEvents"), list):  # CloudWatch subscription; control messages carry nothing
        events = document["logEvents"] if document.get("messageType") != "CONTROL_MESSAGE" else []
        return [event.get("message", "") if isinstance(event, dict) else event for event in events]
    awslogs = document.get("awslogs")
    if isinstance(awslogs, dict) and isinstance(awslogs.get("data"), str):  # CloudWatch to Lambda
        return [_base64(awslogs["data"])]
    if isinstance(document.get("detail"), dict) and "detail-type" in document:  # EventBridge
        return [document["detail"]]
    return None


_EMPTY: Final = {"data": ""}
"""Permitted by Firehose's specification, and nothing."""


def _kinesis(record: Any) -> Any:
    inner = record.get("kinesis") if isinstance(record, dict) else None
    return record if inner is None else _base64(_text(inner, "data"))


def _text(holder: Any, name: str) -> str:
    """A member that must be text; "" where it isn't, which is then no base64 of anything."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, str) else ""


def _base64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return b""
