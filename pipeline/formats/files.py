"""Files of gateway logs to events, streamed: text lines, JSON lines, one JSON document, each also in gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from pipeline.errors import ConfigError
from pipeline.formats.envelope import GZIP_MAGIC, json_line
from pipeline.formats.format import MAX_LINE_BYTES, MAX_MESSAGE_BYTES, Format, Options, Refused
from pipeline.formats.registry import FORMATS, decode, decode_line
from schemas.event import Event

_DEFAULTS: Final = Options()


def read_file(path: Path, format: str, options: Options = _DEFAULTS) -> Iterator[Event | Refused]:
    """The events of one file in the file's order, each with `position` and a request id (`place` says which).

    Raises ConfigError where the file can't be opened; what is broken inside comes out as `Refused`.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    name = f"{path.resolve().parent.name}/{path.name}"
    try:
        with path.open("rb") as file:
            for number, record in _records(file, FORMATS[format], options):
                yield place(record, f"{name}:{number}")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or 'can not be read'}") from None


def place(record: Event | Refused, position: str) -> Event | Refused:
    """With the position; an event without a request id gets the position for one, so that a repeat is known as such."""
    position = position[-128:]
    if isinstance(record, Refused):
        return msgspec.structs.replace(record, position=position)
    return msgspec.structs.replace(record, position=position, request_id=record.request_id or position)


def _records(file: BinaryIO, format: Format, options: Options) -> Iterator[tuple[str, Event | Refused]]:
    """(line, record) of line formats and JSON lines, (ordinal, record) of one JSON document; both from 1."""
    packed = file.read(2) == GZIP_MAGIC
    file.seek(0)
    lines = _lines(gzip.GzipFile(fileobj=file) if packed else file)  # type: ignore[arg-type]
    if format.lines:
        yield from _text(lines, format, options)
        return
    head = next(lines, (1, b""))
    second = next(lines, None)
    if second is None or not _is_json(head[1]):  # a document, perhaps on one very long line
        yield from _document(file, format, options)
        return
    for number, line in chain((head, second), lines):
        yield from _json(number, line, format, options)


Line = tuple[int, "bytes | Refused"]


def _lines(file: BinaryIO) -> Iterator[Line]:
    """Numbered lines, each bounded; a broken gzip ends with a `Refused`."""
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_LINE_BYTES + 1)
            whole, size = len(line) <= MAX_LINE_BYTES, len(line)
            while not whole and line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
                size += len(line)
                if size > MAX_MESSAGE_BYTES:  # not a log; a gigabyte of gzip would take seconds to pass over
                    yield number, Refused(reason="too_large", detail="a line without end: the rest is not read")
                    return
        except (EOFError, zlib.error, gzip.BadGzipFile):
            yield number, Refused(reason="undecodable", detail="the gzip data is broken or ends in the middle")
            return
        if not line and whole:
            return
        yield number, (line if whole else Refused(reason="too_large", detail="the line is longer than 1 MB"))
        if not line:
            return


def _is_json(line: bytes | Refused) -> bool:
    if isinstance(line, Refused):
        return False
    return not any(isinstance(record, Refused) and record.reason == "undecodable" for record in json_line(line))


def _text(lines: Iterator[Line], format: Format, options: Options) -> Iterator[tuple[str, Event | Refused]]:
    for number, line in lines:
        if isinstance(line, Refused):
            yield str(number), line
        elif line.strip():
            yield str(number), decode_line(line.rstrip(b"\r\n"), format, options)


def _json(
    number: int, line: bytes | Refused, format: Format, options: Options
) -> Iterator[tuple[str, Event | Refused]]:
    if isinstance(line, Refused):
        yield str(number), line
    elif line.strip():
        for index, record in enumerate(decode(line.strip(), format.name, options)):
            yield (f"{number}/{index}" if index else str(number)), record


def _document(file: BinaryIO, format: Format, options: Options) -> Iterator[tuple[str, Event | Refused]]:
    file.seek(0)
    raw = file.read(MAX_MESSAGE_BYTES + 1)
    for ordinal, record in enumerate(decode(raw, format.name, options), 1):
        yield str(ordinal), record
