"""Kong: the log serializer's JSON, as http-log, kafka-log and file-log write it.

The key is `authenticated_entity.id`, the credential's uuid. The raw key may stand in `request.headers.apikey`,
`request.querystring.apikey` and, even with `hide_credentials`, in the query of `request.uri` and `request.url`: headers
are not read but for the user agent, the forwarded addresses and a CDN's TLS fingerprint, the query string never. Where
Kong names no credential it has authenticated nobody: the route has no plugin for that, or the plugin's `anonymous`
consumer let the request in, whatever its `apikey` said. So such a request has no key here, with a consumer or a pepper
either.
Kong's route paths are prefixes, not templates (one route `/` serves a whole API), so the event carries the path and the
template is found from it. A 401 of key-auth names no credential; 403 (acl) and 429 (rate-limiting) come after
authentication and do.
Source: kong/pdk/log.lua @22246ef; kong/plugins/key-auth/handler.lua @00239d0: only a credential is an authentication;
reference/gateways.md, section 3. No Kong was run: field names are from its source.
"""

from __future__ import annotations

from typing import Any

from pipeline.formats.client_address import client_address
from pipeline.formats.format import SEES_ALL, Format, Hops, Options, Refused
from pipeline.formats.values import (
    FROM_CDN,
    environment,
    epoch_us,
    event_of,
    fingerprint,
    first,
    get,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event


def event(record: Any, options: Options) -> Event | Refused:
    """One object of the serializer."""
    status = status_code(get(record, "response.status"))
    fields = {
        "key_id": _key_id(record, options),
        "ts_us": epoch_us(record.get("started_at"), "ms"),
        "client_ip": client_address(hops(record), options.trusted_proxies),
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


def _key_id(record: Any, options: Options) -> str:
    """Nothing where Kong names no credential: then it has authenticated nobody, whoever the consumer is."""
    credential = text(get(record, "authenticated_entity.id"))
    return text(get(record, "consumer.id")) if credential and options.key_field == "consumer" else credential


def hops(record: Any) -> Hops:
    """`client_ip` is `remote_addr`: the peer, or whom `real_ip_header` names where `trusted_ips` has the peer."""
    return Hops(record.get("client_ip"), get(record, "request.headers.x-forwarded-for"))


def recognises(record: Any) -> bool:
    """By the serializer's own names."""
    return "started_at" in record and "latencies" in record and "request" in record


KONG = Format(
    name="kong",
    sees=SEES_ALL,
    event=event,
    recognises=recognises,
    key="`authenticated_entity.id`: it needs a plugin that authenticates",
    hops=hops,
    address="`client_ip`, as Kong's `trusted_ips` and `real_ip_header` make it; `x-forwarded-for` of `request.headers`",
)
