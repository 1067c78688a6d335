"""Tyk: the records that Tyk Pump writes to Kafka, or as JSON to its standard output (`tyk-analytics-record`).

`api_key` is the raw key, or its hash where the gateway has `hash_keys`: nothing in the record says which. So it is an
id only where the operator says so (`intake.key_field = "hash"`); otherwise its HMAC is, with a pepper, or else the
`alias`, which names a session. Of OAuth `oauth_id`, the client's id, counts before all: its tokens, which stand in
`api_key`, are new every hour. Tyk answers a key that it does not know by 403 and no alias: such a guess makes no id.
`ip_address` is the header `X-Real-IP` where one came, else the first of `X-Forwarded-For` (or the one at
`http_server_options.xff_depth` from its end), else the peer: callers write both headers. So let nobody reach Tyk but a
proxy that sets `X-Real-IP` itself: no setting of Tyk's or ours keeps that one out.
`raw_request` and `raw_response` are never read. No size of the response is sent, so egress is not seen.
Source: tyk-pump/pumps/kafka.go @95d7b7c, tyk/request/real_ip.go; reference/gateways.md, section 3. No Tyk was run.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.detector import SEES_BYTES, SEES_DENIED
from pipeline.formats.client_address import client_address
from pipeline.formats.format import SEES_ALL, Format, Hops, Options, Refused
from pipeline.formats.values import (
    environment,
    event_of,
    first,
    iso_us,
    key_id_of,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event

_ON_STDOUT: Final = "tyk-analytics-record"
_UNKNOWN: Final = frozenset({400, 401, 403})
"""What Tyk answers where no session belongs to the key."""


def event(record: Any, options: Options) -> Event | Refused:
    """One record of the pump."""
    record = _inside(record)
    status = status_code(record.get("response_code"))
    tags = record.get("tags")
    fields = {
        "key_id": _key_id(record, status, options),
        "ts_us": iso_us(record.get("timestamp")),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": text(record.get("method")).upper(),
        "path": text(first(record, "raw_path", "path")),
        "status": status,
        "outcome": outcome_of(status),
        "latency_ms": min(number(first(record, "request_time_ms", "request_time")), 1e9),
        "bytes_in": whole(record.get("content_length")),
        "user_agent": text(record.get("user_agent")),
        "environment": next(filter(None, map(environment, tags if isinstance(tags, list) else ())), ""),
    }
    return event_of(fields, "tyk")


def _key_id(record: Any, status: int, options: Options) -> str:
    key, alias = text(record.get("api_key")), text(record.get("alias"))
    if not options.key_field and (client := text(record.get("oauth_id"))):
        return client
    if status in _UNKNOWN and not alias:
        return ""
    if options.key_field == "hash":
        return key
    if options.key_field == "alias":
        return alias
    return key_id_of(key, status, options) or alias


def hops(record: Any) -> Hops:
    """What Tyk has made of headers: nothing else is sent of the way."""
    return Hops(_inside(record).get("ip_address"))


def _inside(record: Any) -> Any:
    inner = record.get(_ON_STDOUT)
    return inner if isinstance(inner, dict) else record


def recognises(record: Any) -> bool:
    """By the pump's own names."""
    record = _inside(record)
    return "api_id" in record and "api_key" in record and "raw_path" in record


TYK = Format(
    name="tyk",
    sees=SEES_ALL & ~(SEES_DENIED | SEES_BYTES),
    event=event,
    recognises=recognises,
    key='`oauth_id`, or `alias`; with intake.pepper the raw key, with intake.key_field = "hash" `api_key` itself',
    hops=hops,
    address="`ip_address`, which Tyk takes from `X-Real-IP` or `X-Forwarded-For`: callers write it, unless a proxy "
    "before Tyk sets `X-Real-IP`",
)
