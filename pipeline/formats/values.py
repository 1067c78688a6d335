"""Single values of gateway logs to the event's units. `"-"`, `""` and null are missing; numbers may be strings."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from pipeline.formats.format import BadValueError, Options, Refused
from pipeline.secrets import key_id_of_secret, scrub
from schemas.event import FINGERPRINT, Event

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LIMITS: Final = {
    "method": 16,
    "route": 256,
    "path": 1024,
    "user_agent": 512,
    "scope": 64,
    "request_id": 128,
}
_LIVE: Final = frozenset({"live", "prod", "production", "prd"})
_TEST: Final = frozenset({"test", "testing", "sandbox", "staging", "stage", "stg", "dev", "development", "qa"})
_KEY_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_RAW_KEY: Final = re.compile(r"(?i:(?:api|auth|subscription)[-_]?key|token|secret|authorization|cookie|password)$")
"""How names end under which gateways log the credential itself: http_api_key, request_X-Auth-Token, identity.apiKey."""
_NOT_LET_IN: Final = frozenset({401, 403, 429})
"""429, too: NGINX and Envoy count requests before anybody looked at the key, and a made-up one must get no state."""
_SCHEME: Final = re.compile(r"^\s*+[A-Za-z][A-Za-z0-9-]*+\s++")
_LOG_TIME: Final = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})")
_MONTHS: Final = {
    name: f"{number:02}"
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)  # noqa: SIM905
}
_MAX_HOST_CHARS: Final = 64  # an address of 45, brackets, a zone, a port
FROM_CDN: Final = ("cloudfront-viewer-ja4-fingerprint", "cf-ja4", "cloudfront-viewer-ja3-fingerprint", "cf-ja3-hash")
"""Request headers: CloudFront's, by an origin request policy, and Cloudflare's, by "Add bot protection headers".

Whoever reaches the gateway beside the CDN can send them, too: then they tell no more than a user agent does.
"""
_MAX_INT: Final = 1 << 50
_US_OF: Final = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}


def get(record: Any, path: str) -> Any:
    """`a.b.c` in nested objects, or the flat name `a.b.c`; None where anything on the way is missing."""
    if type(record) is not dict:  # as JSON is decoded; `Mapping` costs ten times as much
        return None
    if path in record:
        return record[path]
    head, _, rest = path.partition(".")
    return get(record.get(head), rest) if rest else None


def first(record: Any, *paths: str) -> Any:
    """The first value that is not missing, in the given order."""
    for path in paths:  # a generator here would cost half a microsecond
        if text(value := get(record, path)):
            return value
    return None


def text(value: Any) -> str:
    """One line of text without control characters; lists give their first item (repeated headers)."""
    if type(value) is str and value.isprintable():  # the common case, without a search
        line = value.strip()
        return "" if line == "-" else line
    if isinstance(value, list):
        value = value[0] if value else ""
    if isinstance(value, bool) or value is None or not isinstance(value, (str, int, float)):
        return ""
    line = _CONTROL.sub(" ", str(value)).strip()
    return "" if line == "-" else line


def number(value: Any) -> float:
    """A finite number >= 0, or 0.0: "not known". Negative is how gateways say "none" (Kong: -1)."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return 0.0
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return result if math.isfinite(result) and 0 <= result <= 1e15 else 0.0


def whole(value: Any) -> int:
    """An integer 0 .. 2^50, or 0: "not known"."""
    return min(int(number(value)), _MAX_INT)


def status_code(value: Any) -> int:
    """An HTTP status 100 .. 599, or 0."""
    code = whole(value)
    return code if 100 <= code <= 599 else 0


def address(name: str) -> str:
    """The canonical address of `ip`, `ip:port` or `[v6]:port`; "" for names and rubbish."""
    return _address(name[:_MAX_HOST_CHARS])


@lru_cache(maxsize=1 << 15)  # clients recur; parsing one costs 5 us
def _address(host: str) -> str:
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def network(ip: str) -> str:
    """The /24 or /48 that an address lies in; "" without one."""
    if not ip:
        return ""
    prefix = 48 if ":" in ip else 24
    return str(ipaddress.ip_network(f"{ip}/{prefix}", strict=False))


def epoch_us(value: Any, unit: str) -> int:
    """Microseconds of an epoch number (or numeric string) in `s`, `ms`, `us` or `ns`. Raises BadValueError."""
    whole_part, _, _ = text(value).partition(".")
    if unit != "s" and whole_part.isdecimal() and len(whole_part) < 20:
        if unit == "ns":
            return int(whole_part) // 1000
        fraction = number(text(value)) % 1 if "." in text(value) else 0.0
        return int(whole_part) * int(_US_OF[unit]) + round(fraction * _US_OF[unit])
    result = number(value)
    if result == 0.0:
        raise BadValueError("the time is missing or no number")
    return round(result * _US_OF[unit])


def iso_us(value: Any) -> int:
    """Microseconds of an RFC 3339 time; one without offset is UTC. Raises BadValueError."""
    try:
        moment = datetime.fromisoformat(text(value))
    except ValueError:
        raise BadValueError("the time is missing or not RFC 3339") from None
    return _to_us(moment)


def log_us(value: Any) -> int:
    """Microseconds of a common-log time, `17/May/2015:10:05:03 +0000`. Raises BadValueError."""
    try:
        day, month, year, clock, zone = _LOG_TIME.fullmatch(text(value)).groups()  # type: ignore[union-attr]
        moment = datetime.fromisoformat(f"{year}-{_MONTHS[month]}-{day}T{clock}{zone}")
    except (ValueError, KeyError, AttributeError):
        raise BadValueError("the time is not of the form 17/May/2015:10:05:03 +0000") from None
    return _to_us(moment)


def _to_us(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def environment(value: Any) -> str:
    """`live`, `test` or "" for a stage, workspace or environment name."""
    name = text(value).lower()
    return "live" if name in _LIVE else "test" if name in _TEST else ""


def outcome_of(status: int) -> str:
    """What a status says of the credential where the gateway says nothing itself (schemas.event.OUTCOMES)."""
    named = {0: "unknown", 401: "invalid", 403: "denied", 429: "rate_limited"}
    return named.get(status, "success")


def fingerprint(record: Any, *names: str) -> str:
    """The first of these fields that is a JA4 or JA3; "" where none is: logs say "-", "unknown", the raw list, too."""
    for name in names:
        said = text(get(record, name)).lower()
        if said and FINGERPRINT.fullmatch(said):
            return said
    return ""


def key_id_of(raw: str, status: int, options: Options) -> str:
    """The raw key's HMAC, with a pepper and for requests that were let in; else "".

    A key that was refused must not make an id of its own: a guesser would create as many keys as he has guesses.
    """
    if not raw or not options.pepper or status == 401:
        return ""
    return key_id_of_secret(raw, options.pepper.reveal())


def key_id_at(record: Any, status: int, options: Options, name: str, *others: str) -> str:
    """The key's id where the operator says or the format has it.

    A field that he names and that holds the key itself (`http_x_api_key`) gives the key's HMAC, with a pepper and for
    requests that were let in; without a pepper it gives nothing.
    """
    if is_raw_key_field(options.key_field):
        raw = _credential(text(_the_one(get(record, options.key_field))))
        return "" if status in _NOT_LET_IN else key_id_of(raw, status, options)
    return text(_the_one(first(record, options.key_field or name, *others)))


def is_raw_key_field(name: str) -> bool:
    """Whether a field of this name holds the key itself."""
    return _RAW_KEY.search(name) is not None


def _the_one(value: Any) -> Any:
    """The value of a header; None where it was sent with different ones: which of them counted nobody says."""
    return None if type(value) is list and any(each != value[0] for each in value) else value


def _credential(said: str) -> str:
    """The key of a header's value, without a scheme (`Bearer`), so that every way to send it gives one id.

    "" where it has a comma: a header that was sent twice, or a signature, new with each request.
    """
    return "" if "," in said else _SCHEME.sub("", said, count=1)


def event_of(fields: Mapping[str, Any], source: str) -> Event | Refused:
    """The event of fields in our units, clipped to the limits and without secrets; or why it is none."""
    clipped: dict[str, Any] = {
        name: value[: _LIMITS.get(name)] if isinstance(value, str) else value for name, value in fields.items()
    }
    if not 946_684_800_000_000 <= clipped["ts_us"] < 4_102_444_800_000_000:
        return Refused(reason="invalid", detail="the time lies outside 2000 to 2100: is its unit right?")
    key_id = clipped.get("key_id", "")
    if not key_id:
        return no_key(clipped)
    if not _KEY_ID.fullmatch(key_id):
        return Refused(reason="invalid", detail="the key id is longer than 128 or not printable ASCII without blanks")
    cleaned = scrub(Event(**{**clipped, "source": source}))
    if isinstance(cleaned, Event):
        return cleaned
    return Refused(reason=cleaned, detail="the key id looks like the secret itself")


def no_key(fields: Mapping[str, Any]) -> Refused:
    """A request that names no key: what is known of it, by source network."""
    route = scrub(Event(key_id="-", ts_us=fields["ts_us"], route=fields.get("route", "")))
    return Refused(
        reason="no_key",
        detail="the record carries no key id",
        network=network(fields.get("client_ip", "")),
        ts_us=fields["ts_us"],
        status=fields.get("status", 0),
        outcome=fields.get("outcome", ""),
        route=route.route if isinstance(route, Event) else "",
    )
