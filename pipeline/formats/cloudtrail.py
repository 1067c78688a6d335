"""AWS CloudTrail: management and data events; the key is the access key id, the route the IAM action `s3:GetObject`.

Sees the outcome by `errorCode` and keeps the key id on refusals. Sees no latency, and bytes of S3 data events only: a
call without them has no body. `eventTime` is in whole seconds and the completion; delivery lags by minutes. Calls that
an AWS service makes for a key carry a DNS name for an address: then no address, and the service as user agent.
Source: CloudTrail record contents; reference/gateways.md, section 4; `errorCode` words from 3,068 real records.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pipeline.formats.client_address import client_address
from pipeline.formats.format import SEES_ALL, BadValueError, Format, Hops, Options, Refused
from pipeline.formats.values import event_of, get, iso_us, text, whole
from schemas.event import Event

AWS: Final = ".amazonaws.com"
# First match wins: NotFound comes before Invalid (Client.InvalidVpcID.NotFound), quotas (VpcLimitExceeded) are plain
# errors while request limits are throttling.
_MEANINGS: Final = (
    (re.compile(r"ExpiredToken|TokenRefreshRequired|RequestExpired"), 401, "expired"),
    (
        re.compile(
            r"InvalidClientTokenId|AuthFailure|SignatureDoesNotMatch|UnrecognizedClient|InvalidAccessKeyId"
            r"|MissingAuthenticationToken|IncompleteSignature|InvalidToken|InvalidSignature"
        ),
        401,
        "invalid",
    ),
    (re.compile(r"AccessDenied|Unauthorized|NotAuthorized|AuthorizationError|Forbidden|OptInRequired"), 403, "denied"),
    (re.compile(r"Throttl|RequestLimitExceeded|TooManyRequests|SlowDown|RateExceeded"), 429, "rate_limited"),
    (re.compile(r"NotFound|^NoSuch|DoesNotExist|UnknownResource"), 404, "success"),
    (re.compile(r"Internal|ServiceUnavailable|ServiceFailure|ServerException|ServiceException$"), 500, "success"),
)


def event(record: Any, options: Options) -> Event | Refused:
    """One record of `Records`, an EventBridge `detail` or a line."""
    source, name = text(record.get("eventSource")), text(record.get("eventName"))
    if not source or not name:
        raise BadValueError("eventSource or eventName is missing: no CloudTrail record")
    status, outcome = meaning(text(record.get("errorCode")))
    fields = {
        "key_id": text(get(record, "userIdentity.accessKeyId")),
        "ts_us": iso_us(record.get("eventTime")),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": _method(record.get("readOnly")),
        "route": operation(source, name),
        "status": status,
        "outcome": outcome,
        "bytes_in": whole(get(record, "additionalEventData.bytesTransferredIn")),
        "bytes_out": whole(get(record, "additionalEventData.bytesTransferredOut")),
        "user_agent": text(record.get("userAgent")),
        # eventID first: one requestID may stand on several records (S3 batch, cross-account copies)
        "request_id": text(record.get("eventID")) or text(record.get("requestID")),
    }
    return event_of(fields, "cloudtrail")


def operation(source: str, name: str) -> str:
    """A call's route: `s3:GetObject`."""
    return f"{source.removesuffix(AWS)}:{name}"


def meaning(error_code: str) -> tuple[int, str]:
    """(status, outcome) of an error's name, or of none."""
    if not error_code:
        return 200, "success"
    return next(((status, word) for pattern, status, word in _MEANINGS if pattern.search(error_code)), (400, "success"))


def _method(read_only: Any) -> str:
    """CloudTrail has no HTTP method; what matters is whether the call writes."""
    words = {"true": "GET", "false": "POST"}
    return words.get(str(read_only).lower(), "")


def hops(record: Any) -> Hops:
    """AWS logs the peer of its own front."""
    return Hops(record.get("sourceIPAddress"))


def recognises(record: Any) -> bool:
    """By the fields that every record has."""
    return "eventSource" in record and "eventName" in record and "eventTime" in record


CLOUDTRAIL = Format(
    name="cloudtrail",
    sees=SEES_ALL,
    event=event,
    recognises=recognises,
    key="`userIdentity.accessKeyId`: console sign-ins and AWS services have none",
    hops=hops,
    address="`sourceIPAddress`, as AWS saw it",
)
