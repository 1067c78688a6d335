"""Kong: the log serializer's JSON, as http-log, kafka-log and file-log write it.

The key is `authenticated_entity.id`, the credential's uuid. The raw key may stand in `request.headers.apikey`,
`request.querystring.apikey` and, even with `hide_credentials`, in the query of `request.uri` and `request.url`: headers
are not read but for the user agent and a CDN's TLS fingerprint, the query string never. With a pepper, and only for a
request that Kong authenticated without naming the credential, the raw key's HMAC becomes the key id.
Kong's route paths are prefixes, not templates (one route `/` serves a whole API), so the event carries the path and the
template is found from it. A 401 of key-auth names no credential; 403 (acl) and 429 (rate-limiting) come after
authentication and do.
Source: kong/pdk/log.lua @22246ef; reference/gateways.md, section 3. No Kong was run: field names are from its source.
"""

from __future__ import annotations

from typing import Any

from pipeline.formats.format import SEES_ALL, Format, Options, Refused
from pipeline.formats.values import (
    FROM_CDN,
    address,
    environment,
    epoch_us,
    event_of,
    fingerprint,
    first,
    get,
    key_id_of,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event

_KEY_NAMES = ("apikey", "x-api-key", "api-key")


def event(record: Any, options: Options) -> Event | Refused:
    """One object of the serializer."""
    status = status_code(get(record, "response.status"))
    fields = {
        "key_id": _key_id(record, status, options),
        "ts_us": epoch_us(record.get("started_at"), "ms"),
        "client_ip": address(record.get("client_ip")),
        "method": text(get(record, "request.method")).upper(),
        "path": text(first(record, "request.uri", "upstream_uri")),
        "status": status,
        "outcome": outcome_of(status),
        "latency_ms": min(number(get(record, "latencies.request")), 1e9),
        "bytes_in": whole(get(record, "request.size")),
        "bytes_out": whole(get(record, "response.size")),
        "user_agent": text(get(record, "request.headers.user-agent")),
        "fingerprint": fingerprint(get(record, "request.headers"), *FROM_CDN),
        "environment": environment(first(record, "workspace_name", "environment")),
        "request_id": text(get(record, "request.id")),
    }
    return event_of(fields, "kong")


def _key_id(record: Any, status: int, options: Options) -> str:
    field = "consumer.id" if options.key_field == "consumer" else "authenticated_entity.id"
    raw = next(filter(None, (text(get(record, f"request.{at}.{name}")) for at in ("headers", "querystring")
                             for name in _KEY_NAMES)), "")  # fmt: skip
    return key_id_of(text(get(record, field)), raw, status, options)


def recognises(record: Any) -> bool:
    """By the serializer's own names."""
    return "started_at" in record and "latencies" in record and "request" in record


KONG = Format(
    name="kong",
    sees=SEES_ALL,
    event=event,
    recognises=recognises,
    key="`authenticated_entity.id`: it needs a plugin that authenticates; or with intake.pepper the raw key",
)
