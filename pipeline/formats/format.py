"""What a format is, what it is told, and what it says of a record that is no event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from detectors.detector import (
    SEES_ADDRESS,
    SEES_BYTES,
    SEES_CLIENT,
    SEES_DENIED,
    SEES_OUTCOME,
    SEES_ROUTE,
    SEES_STATUS,
)
from pipeline.config.tree import Secret
from schemas.event import Event

SEES_ALL: Final = SEES_ADDRESS | SEES_STATUS | SEES_DENIED | SEES_BYTES | SEES_OUTCOME | SEES_CLIENT | SEES_ROUTE
"""A format's `sees` is this without what it can't say."""

MAX_MESSAGE_BYTES: Final = 64 << 20
"""Of one message or file of one JSON document, after gunzip: CloudTrail files are at most 50 MB."""
MAX_RECORDS: Final = 1_000_000
MAX_LINE_BYTES: Final = 1 << 20


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator chooses of a format; everything has a default."""

    key_field: str = ""  # the field that names the key; combined: user (default) | address; kong, apisix: consumer
    pepper: Secret = Secret("")  # only where a gateway logs nothing but the raw key: key_id = HMAC(pepper, key)
    trusted_proxies: tuple[str, ...] = ()  # networks whose word on whom they heard counts (client_address.py)


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is no event: a value, never an exception; of the payload it holds `no_key`'s facts only.

    `reason` is one of schemas.reasons.REASONS, `detail` words without any part of the payload. For `no_key` the other
    fields say what is known of the request; `network` is the client's /24 or /48.
    """

    reason: str
    detail: str = ""
    position: str = ""
    network: str = ""
    ts_us: int = 0
    status: int = 0
    outcome: str = ""
    route: str = ""


class Hops(NamedTuple):
    """What a record says of the way to its gateway: the `peer`, as that saw or resolved it; the header, as it came."""

    peer: Any
    forwarded: Any = None


@dataclass(frozen=True)
class Format:
    """One gateway's log. `event` maps one record (a JSON object, or a line for `lines` formats) to the event.

    `event` may raise `BadValueError`; `pipeline.formats` turns that into a `Refused`.
    """

    name: str
    sees: int  # SEES_* bits of detectors/detector.py: what this format can say at all
    event: Callable[[Any, Options], Event | Refused]
    recognises: Callable[[Any], bool]  # whether one record looks like this format, for `detect`
    key: str  # where the key's id is looked for, in words for whoever has none
    hops: Callable[[Any], Hops]  # what a record says of the way from the caller to the gateway
    address: str  # the same in words: the peer's field, the header's, and who makes them what they are
    lines: bool = False  # text lines instead of JSON


class BadValueError(Exception):
    """A value of a record that makes it no event; the text names the field and never quotes the value."""
