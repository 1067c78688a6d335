"""AWS API Gateway access logs in JSON; every value is a string, a missing one is "-".

The operator writes the format himself: names may be flat (`apiKeyId`), dotted (`identity.apiKeyId`) or nested; times as
`requestTimeEpoch` (ms; HTTP APIs write seconds) or `requestTime` (CLF). The key is `identity.apiKeyId` of REST and
WebSocket APIs; `identity.apiKey` is the key itself and is never read. HTTP APIs have no API keys: there
`intake.key_field` names what the authorizer says of the caller's, e.g. `authorizer.keyId`. A request that was refused
for its key carries no id, and whether one refused by a usage plan does is not known to us, so refusals are not
declared; request size is not logged, nor any fingerprint of the connection.
The log comes through Firehose: to Kafka, or straight to `keywatch intake --from http` behind TLS (its access key is
`intake.http_token`, its buffer at most 2 MiB).
Source: API Gateway access-log variables; reference/gateways.md, section 4. A format that has it all:
{"requestId":"$context.requestId","requestTimeEpoch":"$context.requestTimeEpoch","httpMethod":"$context.httpMethod",
"resourcePath":"$context.resourcePath","status":"$context.status","responseLength":"$context.responseLength",
"responseLatency":"$context.responseLatency","stage":"$context.stage","apiKeyId":"$context.identity.apiKeyId",
"sourceIp":"$context.identity.sourceIp","userAgent":"$context.identity.userAgent"}
"""

from __future__ import annotations

from typing import Any, Final

from detectors.detector import SEES_DENIED
from pipeline.formats.client_address import client_address
from pipeline.formats.format import SEES_ALL, Format, Hops, Options, Refused
from pipeline.formats.values import (
    environment,
    epoch_us,
    event_of,
    first,
    key_id_at,
    log_us,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event

_KEY_IDS: Final = ("identity.apiKeyId", "apiKeyId", "api_key_id")
_SECONDS_BELOW: Final = 1e11
"""In ms that is 1973, in seconds the year 5138."""


def event(record: Any, options: Options) -> Event | Refused:
    """One access-log object."""
    status = status_code(record.get("status"))
    route_key = text(record.get("routeKey"))  # WebSocket: "$connect"; HTTP APIs: "GET /users/{id}"
    fields = {
        "key_id": key_id_at(record, status, options, *_KEY_IDS),
        "ts_us": _ts_us(record),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": text(first(record, "httpMethod", "method")).upper() or route_key.rpartition(" ")[0],
        "route": text(first(record, "resourcePath", "resource")) or route_key.rpartition(" ")[2],
        "path": text(record.get("path")),
        "status": status,
        "outcome": outcome_of(status),
        "latency_ms": min(number(first(record, "responseLatency", "latency", "integrationLatency")), 1e9),
        "bytes_out": whole(record.get("responseLength")),
        "user_agent": text(first(record, "identity.userAgent", "userAgent")),
        "environment": environment(record.get("stage")),
        "request_id": text(first(record, "requestId", "extendedRequestId")),
    }
    return event_of(fields, "aws_apigateway")


def _ts_us(record: Any) -> int:
    epoch = first(record, "requestTimeEpoch")
    if epoch is None:
        return log_us(first(record, "requestTime"))
    return epoch_us(epoch, "s" if number(epoch) < _SECONDS_BELOW else "ms")


def hops(record: Any) -> Hops:
    """AWS logs the peer; there is no variable for the header."""
    return Hops(first(record, "identity.sourceIp", "sourceIp", "ip"))


def recognises(record: Any) -> bool:
    """By the time's name and one that says REST or WebSocket."""
    names = {"resourcePath", "routeKey", "apiKeyId", "identity", "identity.apiKeyId", "httpMethod"}
    return not {"requestTimeEpoch", "requestTime"}.isdisjoint(record) and not names.isdisjoint(record)


AWS_APIGATEWAY = Format(
    name="aws_apigateway",
    sees=SEES_ALL & ~SEES_DENIED,
    event=event,
    recognises=recognises,
    key="`identity.apiKeyId` (HTTP APIs have none), or what intake.key_field names",
    hops=hops,
    address="`identity.sourceIp`, the peer: a CDN before the API is taken for its callers",
)
