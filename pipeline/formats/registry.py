"""The registry of formats and the one way from bytes to events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pipeline.formats.apisix import APISIX
from pipeline.formats.aws_apigateway import AWS_APIGATEWAY
from pipeline.formats.cloudtrail import CLOUDTRAIL
from pipeline.formats.combined import COMBINED
from pipeline.formats.envelope import carried, json_records, line_records, text_line
from pipeline.formats.envoy import ENVOY
from pipeline.formats.format import BadValueError, Format, Options, Refused
from pipeline.formats.kong import KONG
from pipeline.formats.native import NATIVE
from pipeline.formats.nginx import NGINX
from pipeline.formats.ocsf import OCSF
from pipeline.formats.otel import OTEL, is_log_record
from pipeline.formats.traefik import TRAEFIK
from pipeline.formats.tyk import TYK
from schemas.event import Event

_ALL: Final = (NATIVE, CLOUDTRAIL, COMBINED, KONG, AWS_APIGATEWAY, APISIX, TYK, ENVOY, NGINX, TRAEFIK, OTEL, OCSF)
FORMATS: Final[dict[str, Format]] = {format.name: format for format in _ALL}
"""Name -> format. The name is also `Event.source`, from which the capabilities follow."""


def sees_of(source: str) -> int:
    """SEES_* bits of an event by its `source`; a producer of native events may name itself as it likes and sees all."""
    return FORMATS.get(source, NATIVE).sees


_DEFAULTS: Final = Options()


def decode(raw: bytes, name: str, options: Options = _DEFAULTS) -> Iterator[Event | Refused]:
    """The events of one message in the named format. Never raises on bad input; KeyError for an unknown name."""
    format = FORMATS[name]
    for record in line_records(raw) if format.lines else json_records(raw):
        yield record if isinstance(record, Refused) else _event(record, format, options)


def decode_line(line: bytes, format: Format, options: Options) -> Event | Refused:
    """One line of a text format."""
    record = text_line(line)
    return record if isinstance(record, Refused) else _event(record, format, options)


def _event(record: Any, format: Format, options: Options) -> Event | Refused:
    try:
        return format.event(as_read(record, format), options)
    except BadValueError as error:
        return Refused(reason="invalid", detail=str(error))


def as_read(record: Any, format: Format) -> Any:
    """The record as this format gets it: OpenTelemetry's log records are an envelope to all others."""
    return carried(record) if format is not OTEL and is_log_record(record) else record


_NAME: Final = re.compile(r'"([A-Za-z_][A-Za-z_.-]{0,40})"\s*:')


def detect(sample: bytes) -> str | None:
    """The format of a sample's first record, for `doctor`; the sample may be cut anywhere. None: none recognises it."""
    line = next((line for line in sample.splitlines() if line.strip()), b"").decode("utf-8", "replace")
    if COMBINED.recognises(line):
        return COMBINED.name
    record = next(json_records(sample), None)
    if not isinstance(record, dict):  # cut in the middle: the names alone
        record = dict.fromkeys(_NAME.findall(sample.decode("utf-8", "replace")))
    json_formats = [format for format in FORMATS.values() if not format.lines]
    if is_log_record(record):  # perhaps the line of another gateway
        json_formats.sort(key=lambda format: format is OTEL)
    return next((f.name for f in json_formats if f.recognises(as_read(record, f))), None)
