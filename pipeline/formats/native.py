"""Native: event v1 as JSON, written by a producer of one's own; sent through intake it may be sloppy.

Sees all. Strict first (the common case is one decode); otherwise the rules that hold for every adapter: missing values
as `"-"`, numbers as strings, `ip:port`, a query in the path, `ts` in RFC 3339 or `ts_ms` for `ts_us`.
Source: schemas/event.py; reference/gateways.md, sections 1 and 10.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from pipeline.formats.client_address import client_address
from pipeline.formats.format import SEES_ALL, BadValueError, Format, Hops, Options, Refused
from pipeline.formats.values import (
    environment,
    epoch_us,
    event_of,
    fingerprint,
    iso_us,
    number,
    outcome_of,
    status_code,
    text,
    whole,
)
from pipeline.secrets import is_clean
from schemas.event import ENVIRONMENTS, OUTCOMES, Event

_SAID: Final = frozenset(OUTCOMES) - {""}
_PLAIN_ADDRESS: Final = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}|")


def event(record: Any, options: Options) -> Event | Refused:
    """A JSON object with event v1's names."""
    return strict(record) or sloppy(record, options)


def strict(record: Any) -> Event | None:
    """The event of a record that is one as it stands: what `sloppy` would give, at a fifth of its cost."""
    try:
        event = msgspec.convert(record, Event)
    except msgspec.ValidationError:
        return None
    texts = (event.method, event.route, event.path, event.user_agent, event.scope, event.request_id, event.source)
    plain = (
        "outcome" in record  # without one the status says it
        and event.outcome in _SAID
        and event.environment in ENVIRONMENTS
        and (event.status == 0 or event.status >= 100)
        and _PLAIN_ADDRESS.fullmatch(event.client_ip) is not None
        and event.method == event.method.upper()
        and all(text.isprintable() and text == text.strip() and text != "-" for text in texts)
        and event.fingerprint == fingerprint(record, "fingerprint")
        and event.key_id != "-"
        and is_clean(event)
    )
    if not plain:
        return None
    if event.source and not event.position:
        return event
    return msgspec.structs.replace(event, source=event.source or "native", position="")


def sloppy(record: Any, options: Options) -> Event | Refused:
    """The event of a record that may say the same in other ways; every value is looked at."""
    version = record.get("v", 1)
    if version != 1:
        raise BadValueError("v is not 1: this version of the event is not known")
    status = status_code(record.get("status"))
    said = text(record.get("outcome")).lower()
    fields = {
        "key_id": text(record.get("key_id")),
        "ts_us": _ts_us(record),
        "client_ip": client_address(hops(record), options.trusted_proxies),
        "method": text(record.get("method")).upper(),
        "route": text(record.get("route")),
        "path": text(record.get("path")),
        "status": status,
        "outcome": said if said in OUTCOMES else outcome_of(status),
        "latency_ms": min(number(record.get("latency_ms")), 1e9),
        "bytes_in": whole(record.get("bytes_in")),
        "bytes_out": whole(record.get("bytes_out")),
        "user_agent": text(record.get("user_agent")),
        "fingerprint": fingerprint(record, "fingerprint"),
        "environment": environment(record.get("environment")),
        "scope": text(record.get("scope")),
        "request_id": text(record.get("request_id")),
    }
    return event_of(fields, text(record.get("source"))[:64] or "native")


def _ts_us(record: Any) -> int:
    if text(record.get("ts_us")):
        return epoch_us(record["ts_us"], "us")
    if text(record.get("ts_ms")):
        return epoch_us(record["ts_ms"], "ms")
    return iso_us(record.get("ts"))


def hops(record: Any) -> Hops:
    """The producer's own word; it may give the whole chain, the peer last."""
    return Hops(record.get("client_ip"))


def recognises(record: Any) -> bool:
    """By the two fields every event has."""
    return "key_id" in record and not {"ts_us", "ts_ms", "ts"}.isdisjoint(record)


NATIVE = Format(
    name="native",
    sees=SEES_ALL,
    event=event,
    recognises=recognises,
    key="`key_id`",
    hops=hops,
    address="`client_ip`, the producer's word: the caller's address, or the forwarded ones with the peer's as the last",
)
