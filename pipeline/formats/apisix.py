"""Apache APISIX: the JSON of its loggers (kafka-logger, http-logger, file-logger), an object or an array of them.

APISIX logs no id of the credential, only `consumer.username`: one consumer with two keys is one key here. Better is
`log_format_extra: {"key_id": "$consumer_name", "request_id": "$request_id"}`, or a header that a plugin sets to the
credential's id; `key_id` counts before the consumer. The raw key may stand in `request.headers` and in the query of
`request.uri` and `request.url`: of the headers only the user agent, the forwarded addresses and a CDN's TLS fingerprint
are read, the query never. A request without a consumer's name was not authenticated: it has no key here, whatever its
`apikey` said. One that key-auth let in as its `anonymous_consumer` bears that name: a key that everybody has, which
nobody should declare.
With a `log_format` of one's own, as the plugins' documents show it, the time is `@timestamp` (RFC 3339, seconds).
Source: apisix/utils/log-util.lua @f519a0f; reference/gateways.md, section 3. No APISIX was run.
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
    iso_us,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event


def event(record: Any, options: Options) -> Event | Refused:
    """One object of a logger."""
    status = status_code(get(record, "response.status"))
    named = ("consumer.username",) if options.key_field == "consumer" else ("key_id", "consumer.username")
    fields = {
        "key_id": text(first(record, *named)),
        "ts_us": _ts_us(record),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": text(get(record, "request.method")).upper(),
        "path": text(get(record, "request.uri")),
        "status": status,
        "outcome": outcome_of(status),
        "latency_ms": min(number(record.get("latency")), 1e9),
        "bytes_in": whole(get(record, "request.size")),
        "bytes_out": whole(get(record, "response.size")),
        "user_agent": text(get(record, "request.headers.user-agent")),
        "fingerprint": fingerprint(get(record, "request.headers"), *FROM_CDN),
        "environment": environment(record.get("environment")),
        "request_id": text(record.get("request_id")),
    }
    return event_of(fields, "apisix")


def _ts_us(record: Any) -> int:
    started = record.get("start_time")
    return iso_us(record["@timestamp"]) if started is None and "@timestamp" in record else epoch_us(started, "ms")


def hops(record: Any) -> Hops:
    """`client_ip` is NGINX's `remote_addr`: the peer, or whom the plugin `real-ip` has found."""
    return Hops(record.get("client_ip"), get(record, "request.headers.x-forwarded-for"))


def recognises(record: Any) -> bool:
    """By the two names that only APISIX has together."""
    times = {"start_time", "@timestamp"}
    return not times.isdisjoint(record) and not {"apisix_latency", "route_id"}.isdisjoint(record)


APISIX = Format(
    name="apisix",
    sees=SEES_ALL,
    event=event,
    recognises=recognises,
    key="`key_id` of log_format_extra, or `consumer.username`: it needs a plugin that authenticates, such as key-auth",
    hops=hops,
    address="`client_ip`, as the plugin `real-ip` makes it; `x-forwarded-for` of `request.headers`",
)
