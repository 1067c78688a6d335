"""AWS API Gateway access logs (REST and WebSocket APIs) in JSON; every value is a string, a missing one is "-".

The operator writes the format himself: names may be flat (`apiKeyId`), dotted (`identity.apiKeyId`) or nested; times as
`requestTimeEpoch` (ms) or `requestTime` (CLF). The key is `identity.apiKeyId`; `identity.apiKey` is the key itself and
is never read. A request that was refused for its key carries no id, and whether one refused by a usage plan does is not
known to us, so refusals are not declared; request size is not logged.
Source: API Gateway access-log variables; reference/gateways.md, section 4. A format that has it all:
{"requestId":"$context.requestId","requestTimeEpoch":"$context.requestTimeEpoch","httpMethod":"$context.httpMethod",
"resourcePath":"$context.resourcePath","status":"$context.status","responseLength":"$context.responseLength",
"responseLatency":"$context.responseLatency","stage":"$context.stage","apiKeyId":"$context.identity.apiKeyId",
"sourceIp":"$context.identity.sourceIp","userAgent":"$context.identity.userAgent"}
"""

from __future__ import annotations

from typing import Any

from detectors.detector import SEES_BYTES, SEES_DENIED
from pipeline.formats.format import SEES_ALL, Format, Options, Refused
from pipeline.formats.values import (
    address,
    environment,
    epoch_us,
    event_of,
    first,
    log_us,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import Event


def event(record: Any, options: Options) -> Event | Refused:
    """One access-log object."""
    status = status_code(record.get("status"))
    route_key = text(record.get("routeKey"))  # WebSocket: "$connect"; HTTP APIs: "GET /users/{id}"
    fields = {
        "key_id": text(first(record, "identity.apiKeyId", "apiKeyId", "api_key_id")),
        "ts_us": _ts_us(record),
        "client_ip": address(first(record, "identity.sourceIp", "sourceIp", "ip")),
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
    return epoch_us(epoch, "ms") if epoch is not None else log_us(first(record, "requestTime"))


def recognises(record: Any) -> bool:
    """By the time's name and one that says REST or WebSocket."""
    names = {"resourcePath", "routeKey", "apiKeyId", "identity", "identity.apiKeyId", "httpMethod"}
    return not {"requestTimeEpoch", "requestTime"}.isdisjoint(record) and not names.isdisjoint(record)


AWS_APIGATEWAY = Format(
    name="aws_apigateway",
    sees=SEES_ALL & ~(SEES_DENIED | SEES_BYTES),
    event=event,
    recognises=recognises,
)
