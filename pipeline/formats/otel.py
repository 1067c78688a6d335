"""OpenTelemetry: log records of HTTP servers in OTLP, as the collector's kafka and otlphttp exporters write it.

Both encodings are read, `otlp_proto` (the exporters' default) and `otlp_json`: which it is shows by itself. The
otlphttp exporter's `endpoint` is intake's own address, to which it adds `/v1/logs`: bodies of at most 4 MiB, so let its
queue make batches below that, since it drops what is answered 413.
Both generations of names are read: the stable ones and the deprecated ones that most exporters still write. There is
no convention for a key's id: ours is `api_key.id` (or what `intake.key_field` names); `http.request.header.x-api-key`
is read only where that names it, with a pepper, as its HMAC. Headers are lists there, of which the first value counts.
A TLS fingerprint is `tls.client.ja4` (as the collector writes it of AWS WAF's logs) or `tls.client.ja3`.
A collector may also carry the line of another gateway, as the record's body (filelog) or attributes (Traefik): read it
by that gateway's format (`envelope.carried`). Whether refusals carry the id is the server's doing, so they are not
declared.
Source: OpenTelemetry semantic conventions @384d661; OTLP's JSON mapping (64-bit integers are strings);
reference/gateways.md, section 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from detectors.detector import SEES_DENIED
from pipeline.formats.client_address import client_address
from pipeline.formats.format import SEES_ALL, Format, Hops, Options, Refused
from pipeline.formats.values import (
    FROM_CDN,
    environment,
    epoch_us,
    event_of,
    fingerprint,
    first,
    key_id_at,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event

_PEERS: Final = ("network.peer.address", "net.sock.peer.addr", "net.peer.ip")
"""Who the connection is with, which nobody can make up."""
_CLIENTS: Final = ("client.address", "http.client_ip")
"""Who asked, as the instrumentation reads headers: most take the first forwarded address, which callers write."""
_FORWARDED: Final = "http.request.header.x-forwarded-for"
_FINGERPRINTS: Final = (
    "tls.client.ja4", "tls.client.ja3", *(f"http.request.header.{header}" for header in FROM_CDN),
)  # fmt: skip
_SCALARS: Final = ("stringValue", "intValue", "doubleValue", "boolValue")
DEEPEST: Final = 8
"""Nesting of a value that is read."""
MOST_SHARED: Final = 256
"""Attributes of a resource that are read: each of its records gets them, so that a small body could grow a lot."""


def log_records(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The log records of one export, each with its resource's attributes; what is no record is passed over."""
    for resource in _objects(document.get("resourceLogs")):
        shared = _attributes(resource.get("resource"), MOST_SHARED)
        for scope in (*_objects(resource.get("scopeLogs")), *_objects(resource.get("instrumentationLibraryLogs"))):
            for record in _objects(scope.get("logRecords")):
                times = (record.get("timeUnixNano"), record.get("observedTimeUnixNano"))
                yield log_record(*times, {**shared, **_attributes(record)}, _value(record.get("body")))


def log_record(time: Any, observed: Any, attributes: dict[str, Any], body: Any) -> dict[str, Any]:
    """One record as formats get it: plain values, times in nanoseconds as text."""
    return {"timeUnixNano": time, "observedTimeUnixNano": observed, "attributes": attributes, "body": body}


def is_log_record(record: Any) -> bool:
    """Whether `log_record` made it."""
    return type(record) is dict and "timeUnixNano" in record and isinstance(record.get("attributes"), dict)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _attributes(holder: Any, most: int | None = None) -> dict[str, Any]:
    found = {}
    for each in _objects(holder.get("attributes") if isinstance(holder, dict) else None)[:most]:
        if isinstance(each.get("key"), str):
            found[each["key"]] = _value(each.get("value"))
    return found


def _value(value: Any, depth: int = 0) -> Any:
    """A plain value of OTLP's `AnyValue`; None of what is none, or lies too deep."""
    if not isinstance(value, dict) or depth > DEEPEST:
        return None
    if isinstance(value.get("arrayValue"), dict):
        return [_value(each, depth + 1) for each in _objects(value["arrayValue"].get("values"))]
    if isinstance(value.get("kvlistValue"), dict):
        pairs = _objects(value["kvlistValue"].get("values"))
        return {each["key"]: _value(each.get("value"), depth + 1) for each in pairs if isinstance(each.get("key"), str)}
    return next((value[kind] for kind in _SCALARS if kind in value), None)


def event(record: Any, options: Options) -> Event | Refused:
    """One log record."""
    said = record.get("attributes")
    said = said if isinstance(said, dict) else {}
    status = status_code(first(said, "http.response.status_code", "http.status_code"))
    time = first(record, "timeUnixNano", "observedTimeUnixNano")
    fields = {
        "key_id": key_id_at(said, status, options, "api_key.id"),
        "ts_us": epoch_us(time if text(time) != "0" else record.get("observedTimeUnixNano"), "ns"),
        "client_ip": client_address(_of_attributes(said), options.trusted_proxies),
        "method": text(first(said, "http.request.method", "http.method")).upper(),
        "route": text(said.get("http.route")),
        "path": text(first(said, "url.path", "http.target")),
        "status": status,
        "outcome": outcome_of(status),
        "latency_ms": min(number(said.get("http.server.request.duration")) * 1000, 1e9),
        "bytes_in": whole(first(said, "http.request.size", "http.request.body.size", "http.request_content_length")),
        "bytes_out": whole(
            first(said, "http.response.size", "http.response.body.size", "http.response_content_length")
        ),
        "user_agent": text(first(said, "user_agent.original", "http.user_agent")),
        "fingerprint": fingerprint(said, *_FINGERPRINTS),
        "environment": environment(first(said, "deployment.environment.name", "deployment.environment")),
        "request_id": text(first(said, "http.request.header.x-request-id", "request.id")),
    }
    return event_of(fields, "otel")


def hops(record: Any) -> Hops:
    """The peer; what the instrumentation makes of headers counts only where it names no peer."""
    said = record.get("attributes")
    return _of_attributes(said if isinstance(said, dict) else {})


def _of_attributes(said: dict[str, Any]) -> Hops:
    peer = first(said, *_PEERS)
    return Hops(first(said, *_CLIENTS)) if peer is None else Hops(peer, said.get(_FORWARDED))


def recognises(record: Any) -> bool:
    """By OTLP's name of the time, or in a sample that is cut by its envelope's."""
    return "resourceLogs" in record or ("timeUnixNano" in record and "attributes" in record)


OTEL = Format(
    name="otel",
    sees=SEES_ALL & ~SEES_DENIED,
    event=event,
    recognises=recognises,
    key="the attribute `api_key.id`, or what intake.key_field names: there is no convention for it",
    hops=hops,
    address="`network.peer.address`; `http.request.header.x-forwarded-for`. Without a peer `client.address`, which "
    "callers may write",
)
