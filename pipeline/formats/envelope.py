"""From the bytes of one message to its records: gunzip, arrays, `Records`, CloudWatch, EventBridge, JSON lines."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.formats.format import MAX_LINE_BYTES, MAX_MESSAGE_BYTES, BadValueError, Refused

GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_DEEPEST = 4  # CloudWatch data in base64 in an array is 3


class TooLargeError(Exception):
    """A message unpacks to more than MAX_MESSAGE_BYTES."""


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


def plain_bytes(raw: bytes) -> bytes:
    """The message without gzip. Raises BadValueError or TooLargeError."""
    plain = gunzip(raw) if raw.startswith(GZIP_MAGIC) else raw
    if len(plain) > MAX_MESSAGE_BYTES:
        raise TooLargeError
    return plain


def json_records(raw: bytes) -> Iterator[Any]:
    """The JSON objects of one message; a `Refused` in place of each record that is none."""
    plain = _plain_or_refused(raw)
    if isinstance(plain, Refused):
        yield plain
    else:
        yield from _parsed(plain.removeprefix(_BOM))


def line_records(raw: bytes) -> Iterator[str | Refused]:
    """The lines of text of one message that are not blank."""
    plain = _plain_or_refused(raw)
    if isinstance(plain, Refused):
        yield plain
    else:
        yield from (text_line(line) for line in plain.removeprefix(_BOM).split(b"\n") if line.strip())


def text_line(line: bytes) -> str | Refused:
    """One line as text; what is not UTF-8 in it becomes a replacement character."""
    if len(line) > MAX_LINE_BYTES:
        return Refused(reason="too_large", detail=f"the line is longer than {MAX_LINE_BYTES >> 20} MB")
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def _plain_or_refused(raw: bytes) -> bytes | Refused:
    try:
        return plain_bytes(raw)
    except BadValueError as error:
        return Refused(reason="undecodable", detail=str(error))
    except TooLargeError:
        return Refused(reason="too_large", detail=f"the message is larger than {MAX_MESSAGE_BYTES >> 20} MB")


def _parsed(plain: bytes) -> Iterator[Any]:
    try:
        document = msgspec.json.decode(plain)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        lines = [line for line in plain.splitlines() if line.strip()]
        if len(lines) < 2:
            yield Refused(reason="undecodable", detail="not JSON in UTF-8" if plain.strip() else "empty")
            return
        for line in lines:
            yield from json_line(line)
        return
    yield from unpack(document, 0)


def json_line(line: bytes) -> Iterator[Any]:
    """The records of one line of JSON lines."""
    try:
        document = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        yield Refused(reason="undecodable", detail="not JSON in UTF-8")
        return
    yield from unpack(document, 0)


def unpack(document: Any, depth: int) -> Iterator[Any]:
    """Records out of arrays and the envelopes that carry gateway logs."""
    if depth > _DEEPEST or not isinstance(document, (dict, list)):
        yield Refused(reason="undecodable", detail="a JSON value that is no object")
        return
    inner = _inside(document) if isinstance(document, dict) else document
    if inner is None:
        yield document
        return
    for record in inner:
        if isinstance(record, (bytes, str)):
            yield from _nested(record, depth)
        else:
            yield from unpack(record, depth + 1)


def _nested(record: bytes | str, depth: int) -> Iterator[Any]:
    """A record that is text: CloudWatch's `message`, or gzip in base64."""
    raw = record.encode("utf-8", "replace") if isinstance(record, str) else record
    try:
        document = msgspec.json.decode(plain_bytes(raw))
    except TooLargeError:
        yield Refused(reason="too_large", detail=f"the message is larger than {MAX_MESSAGE_BYTES >> 20} MB")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, BadValueError):
        yield Refused(reason="undecodable", detail="a record inside the envelope is not JSON")
    else:
        yield from unpack(document, depth + 1)


def _inside(document: dict[str, Any]) -> list[Any] | None:
    """What an envelope carries, or None where the object is a record itself."""
    if isinstance(document.get("Records"), list):  # CloudTrail file
        return list(document["Records"])
    if isinstance(document.get("logEvents"), list):  # CloudWatch subscription; control messages carry nothing
        events = document["logEvents"] if document.get("messageType") != "CONTROL_MESSAGE" else []
        return [event.get("message", "") if isinstance(event, dict) else event for event in events]
    awslogs = document.get("awslogs")
    if isinstance(awslogs, dict) and isinstance(awslogs.get("data"), str):  # CloudWatch to Lambda
        return [_base64(awslogs["data"])]
    if isinstance(document.get("detail"), dict) and "detail-type" in document:  # EventBridge
        return [document["detail"]]
    return None


def _base64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return b""
