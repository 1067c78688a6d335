"""Traefik: its JSON access log.

`Duration` is in nanoseconds. Traefik logs no id of a key: let the middleware that checks it set a header (one that
callers can't send through) and keep that (`accessLog.fields.headers.names`), e.g. `request_X-Api-Key-Id`;
`intake.key_field` names another, or `ClientUsername` for basic auth. Better never keep the header with the
key itself; of one that `intake.key_field` names (`request_X-Api-Key`) the HMAC counts, with a pepper.
`ClientHost` is the `X-Forwarded-For` of a peer that the entry point trusts (`forwardedHeaders.trustedIPs`), else the
peer's own address, which `ClientAddr` always has: keep both, and list the same proxies in `intake.trusted_proxies`.
Of a header that was sent twice `ClientHost` has the first alone, which a caller may have written before a proxy that
adds one of its own (HAProxy): keep the header itself, `request_X-Forwarded-For`, which has both and counts before it.
`RequestPath` may have a query, which is dropped. Over OTLP times are nanoseconds.
The header in which a CDN before it names the TLS fingerprint is read where it is kept, e.g. `request_Cf-Ja4`.
Refused requests carry an id only if that middleware sets it before it refuses, so they are not declared.
Source: Traefik's pkg/middlewares/accesslog; reference/gateways.md, section 5. No Traefik was run.
"""

from __future__ import annotations

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
    iso_us,
    key_id_at,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event

_FINGERPRINTS: Final = tuple(f"request_{header.title()}" for header in FROM_CDN)


def event(record: Any, options: Options) -> Event | Refused:
    """One line of the log."""
    status = status_code(first(record, "DownstreamStatus", "OriginStatus"))
    fields = {
        "key_id": key_id_at(record, status, options, "request_X-Api-Key-Id", "key_id"),
        "ts_us": _ts_us(first(record, "StartUTC", "time")),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": text(record.get("RequestMethod")).upper(),
        "path": text(record.get("RequestPath")),
        "status": status,
        "outcome": outcome_of(status),
        "latency_ms": min(number(record.get("Duration")) / 1e6, 1e9),
        "bytes_in": whole(record.get("RequestContentSize")),
        "bytes_out": whole(record.get("DownstreamContentSize")),
        "user_agent": text(record.get("request_User-Agent")),
        "fingerprint": fingerprint(record, *_FINGERPRINTS),
        "environment": environment(record.get("environment")),
        "request_id": text(first(record, "request_X-Request-Id", "request_id")),
    }
    return event_of(fields, "traefik")


def hops(record: Any) -> Hops:
    """`ClientAddr` is the peer. Without it `ClientHost` has to do: its last address is the peer's, or its word."""
    peer = text(record.get("ClientAddr"))
    if not peer:
        return Hops(record.get("ClientHost"))
    return Hops(peer, first(record, "request_X-Forwarded-For", "ClientHost"))


def _ts_us(value: Any) -> int:
    return epoch_us(value, "ns") if text(value).isdecimal() else iso_us(value)


def recognises(record: Any) -> bool:
    """By Traefik's own names."""
    return "DownstreamStatus" in record and not {"ClientHost", "ClientAddr"}.isdisjoint(record)


TRAEFIK = Format(
    name="traefik",
    sees=SEES_ALL & ~SEES_DENIED,
    event=event,
    recognises=recognises,
    key="`request_X-Api-Key-Id`, or what intake.key_field names: accessLog.fields.headers must keep it",
    hops=hops,
    address="`ClientAddr`, else `ClientHost`; `request_X-Forwarded-For`, else `ClientHost`",
)
