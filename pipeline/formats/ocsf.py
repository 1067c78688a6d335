"""OCSF API Activity (class 6003), as security lakes and collectors write it.

The key is `api.token.uid` (1.9), else a programmatic credential of the user or session. The token's value, if
somebody logs it, is never read. `time` is in ms. `status_id` 2 with a code of 401, 403 or 429 says which refusal; a
record without a code is a success or, for `status_id` 2, unknown: not every failure is the caller's. What AWS Security
Lake makes of CloudTrail (1.1) has no HTTP answer but `api.response.error`, and its operations are named as `cloudtrail`
names them. The class has no `tls` object, so there is no fingerprint of the connection. Most producers log API calls
with their credential whether refused or not, so refusals are declared.
Source: OCSF schema @a5cfc68 (1.9.0-dev), 1.1 to 1.5 besides; reference/gateways.md, section 9.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.formats.client_address import client_address
from pipeline.formats.cloudtrail import AWS, meaning, operation
from pipeline.formats.format import SEES_ALL, BadValueError, Format, Hops, Options, Refused
from pipeline.formats.values import (
    environment,
    epoch_us,
    event_of,
    first,
    get,
    key_id_at,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from schemas.event import METHODS, Event

CLASS_UID: Final = 6003
_SUCCESS: Final = 1
_METHOD_OF: Final = {1: "POST", 2: "GET", 3: "PUT", 4: "DELETE"}
"""Of an activity (create, read, update, delete) where no method is logged."""


def event(record: Any, options: Options) -> Event | Refused:
    """One activity."""
    if whole(record.get("class_uid")) != CLASS_UID:
        raise BadValueError("class_uid is not 6003 (API Activity)")
    status, outcome = _answer(record)
    method, route = _operation(record)
    fields = {
        "key_id": key_id_at(record, status, options, "") if options.key_field else _key_id(record),
        "ts_us": epoch_us(record.get("time"), "ms"),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": method,
        "route": route,
        "path": text(get(record, "http_request.url.path")),
        "status": status,
        "outcome": outcome,
        "latency_ms": min(number(get(record, "http_response.latency")), 1e9),
        "bytes_in": whole(get(record, "http_request.length")),
        "bytes_out": whole(get(record, "http_response.length")),
        "user_agent": text(get(record, "http_request.user_agent")),
        "environment": environment(get(record, "cloud.account.name")),
        "request_id": text(first(record, "http_request.uid", "metadata.uid", "api.request.uid")),
    }
    return event_of(fields, "ocsf")


def _key_id(record: Any) -> str:
    credentials = get(record, "actor.user.programmatic_credentials")
    listed = credentials[0] if isinstance(credentials, list) and credentials else {}
    return (
        text(get(record, "api.token.uid"))
        or text(get(listed, "uid"))
        or text(first(record, "actor.user.credential_uid", "actor.session.credential_uid"))
    )


def _operation(record: Any) -> tuple[str, str]:
    """(method, route) of `api.operation`, "GET /v1/users/{id}" or a name; the request's own method counts first."""
    said = text(get(record, "api.operation"))
    head, _, tail = said.partition(" ")
    in_words = head.upper() in METHODS and bool(tail)
    method = text(get(record, "http_request.http_method")).upper() or (head.upper() if in_words else "")
    method = method or _METHOD_OF.get(whole(record.get("activity_id")), "")
    if in_words:
        return method, tail
    service = text(get(record, "api.service.name"))
    return method, operation(service, said) if service.endswith(AWS) and said else said


def _answer(record: Any) -> tuple[int, str]:
    """(status, outcome): by the HTTP answer, by the API's own or its error, or by what the record says of itself."""
    status = status_code(first(record, "http_response.code", "api.response.code"))
    if status:
        return status, outcome_of(status)
    error = text(get(record, "api.response.error"))
    if error:
        return meaning(error)
    return 0, "success" if whole(record.get("status_id")) == _SUCCESS else "unknown"


def hops(record: Any) -> Hops:
    """The header is a list there, in its own order."""
    return Hops(get(record, "src_endpoint.ip"), get(record, "http_request.x_forwarded_for"))


def recognises(record: Any) -> bool:
    """By the class, or in a sample that is cut by its names."""
    return "class_uid" in record and "api" in record and record["class_uid"] in (CLASS_UID, None)


OCSF = Format(
    name="ocsf",
    sees=SEES_ALL,
    event=event,
    recognises=recognises,
    key="`api.token.uid`, `actor.user.credential_uid` and its like, or what intake.key_field names",
    hops=hops,
    address="`src_endpoint.ip`, as the producer makes it; `http_request.x_forwarded_for`",
)
