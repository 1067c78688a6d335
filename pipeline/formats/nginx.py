"""NGINX: a JSON log (`log_format ... escape=json`) with the variables' names.

The key's id comes from a map that never logs the key: `map $http_x_api_key $api_key_id { default ""; KEY "id-1"; }`.
Where nothing but the key itself is logged, `intake.key_field = "http_x_api_key"` and a pepper make its HMAC the id, of
requests that were let in (not 401, 403, 429): let no path through without a key, for there any word would be one.
Use `$uri`, not `$request_uri`; a query is dropped. `$request_time` and `$msec` are seconds. A format that has it all:
log_format keywatch escape=json '{"msec":"$msec","remote_addr":"$remote_addr","request_method":"$request_method",
"uri":"$uri","status":"$status","request_time":"$request_time","request_length":"$request_length",
"bytes_sent":"$bytes_sent","http_user_agent":"$http_user_agent","request_id":"$request_id","api_key_id":"$api_key_id"}';
A TLS fingerprint is read as `http_ssl_ja4` or `http_ssl_ja3_hash`, the variables of the modules ja4-nginx-module and
nginx-ssl-fingerprint, or by the header of a CDN before it, `http_cf_ja4` or `http_cloudfront_viewer_ja4_fingerprint`.
The names of ingress-nginx's documented JSON are read, too (`time`, `method`, `path`), and `$time_local`.
The map knows the key whatever the answer, so refusals (403, 429) carry its id; a wrong key has none.
Source: NGINX's variables; reference/gateways.md, section 5.
"""

from __future__ import annotations

from typing import Any, Final

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
    log_us,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event

_FINGERPRINTS: Final = (
    "http_ssl_ja4", "http_ssl_ja3_hash", *(f"http_{header.replace('-', '_')}" for header in FROM_CDN),
)  # fmt: skip
_ISO_TIMES: Final = ("time_iso8601", "time", "@timestamp")
_FORWARDED: Final = ("http_x_forwarded_for", "proxy_add_x_forwarded_for", "x_forwarded_for")


def event(record: Any, options: Options) -> Event | Refused:
    """One line of the log."""
    status = status_code(record.get("status"))
    method, _, target = text(record.get("request")).partition(" ")  # "GET /path HTTP/1.1"
    fields = {
        "key_id": key_id_at(record, status, options, "api_key_id", "key_id"),
        "ts_us": _ts_us(record),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": (text(first(record, "request_method", "method")) or method).upper(),
        "path": text(first(record, "uri", "path", "request_uri")) or target.partition(" ")[0],
        "status": status,
        "outcome": outcome_of(status),
        "latency_ms": min(number(record.get("request_time")) * 1000, 1e9),
        "bytes_in": whole(record.get("request_length")),
        "bytes_out": whole(first(record, "bytes_sent", "body_bytes_sent")),
        "user_agent": text(record.get("http_user_agent")),
        "fingerprint": fingerprint(record, *_FINGERPRINTS),
        "environment": environment(record.get("environment")),
        "request_id": text(record.get("request_id")),
    }
    return event_of(fields, "nginx")


def _ts_us(record: Any) -> int:
    msec, local = text(record.get("msec")), text(record.get("time_local"))
    if msec:
        return epoch_us(msec, "s")
    return log_us(local) if local else iso_us(first(record, *_ISO_TIMES))


def hops(record: Any) -> Hops:
    """`remote_addr` is the peer, or whom `real_ip_header` names where `set_real_ip_from` has the peer."""
    return Hops(record.get("remote_addr"), first(record, *_FORWARDED))


def recognises(record: Any) -> bool:
    """By the client's address and a time, under NGINX's names."""
    return "remote_addr" in record and not {"msec", "time_local", *_ISO_TIMES}.isdisjoint(record)


NGINX = Format(
    name="nginx",
    sees=SEES_ALL,
    event=event,
    recognises=recognises,
    key="`api_key_id`, `key_id`, or what intake.key_field names: a map from keys to ids makes it",
    hops=hops,
    address="`remote_addr`, as `set_real_ip_from` and `real_ip_header` make it; `http_x_forwarded_for`",
)
