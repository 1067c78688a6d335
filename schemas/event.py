"""Event v1: one API request as the gateway attests it, the only thing that `api.requests` carries.

A producer that cannot write this shape sends what it has to `keywatch intake`, which writes it for it
(`pipeline/formats`). Evolution: a new field has a default; a changed meaning is a new version.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

VERSION: Final = 1
MAX_EVENT_BYTES: Final = 32_768  # before JSON is parsed (reference/response.md, section 7)

KeyId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$(?!\n)")]
"""Public id of the credential, never the secret; printable ASCII without blanks.

The look-ahead is for Python, whose `$` also matches before a last line feed.
"""

# 2000-01-01 .. 2100-01-01 in microseconds: what lies outside is a unit error (s, ms, ns), not a time.
TimeUs = Annotated[int, Meta(ge=946_684_800_000_000, lt=4_102_444_800_000_000)]

OUTCOMES: Final = ("unknown", "success", "denied", "rate_limited", "invalid", "expired", "disabled")
"""What the gateway said of the credential. Position = the number in state. See `AUTHENTICATED`."""
AUTHENTICATED: Final = frozenset({"success", "denied", "rate_limited"})
"""Outcomes in which the caller proved that he holds the key: only these count as evidence against it."""

ENVIRONMENTS: Final = ("", "live", "test")
METHODS: Final = ("", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
"""Known methods; position = the number in state; any other method counts as "" there."""
FINGERPRINT: Final = re.compile(r"(?ia:[0-9a-f]{32}|[tqd][0-9a-z]{2}[di][0-9]{4}[0-9a-z]{2}(?:_[0-9a-f]{12}){2})")
"""A JA3 (MD5 in hex) or a JA4 (36 characters)."""


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One request. Times in microseconds UTC, latency in ms, sizes in bytes; 0 or "" is "not known"."""

    key_id: KeyId  # the credential's public id, never the secret
    ts_us: TimeUs  # when the gateway got the request
    client_ip: Annotated[str, Meta(max_length=45)] = ""  # of the caller, as the gateway attests it
    method: Annotated[str, Meta(max_length=16)] = ""  # GET, POST, ...
    route: Annotated[str, Meta(max_length=256)] = ""  # the gateway's template, e.g. /v1/users/{id}
    path: Annotated[str, Meta(max_length=1024)] = ""  # without query string
    status: Annotated[int, Meta(ge=0, le=599)] = 0  # of the answer
    outcome: Annotated[str, Meta(max_length=16)] = "unknown"  # what the gateway said of the credential: OUTCOMES
    latency_ms: Annotated[float, Meta(ge=0, le=1e9)] = 0.0  # until the answer
    bytes_in: Annotated[int, Meta(ge=0, le=1 << 50)] = 0  # of the request
    bytes_out: Annotated[int, Meta(ge=0, le=1 << 50)] = 0  # of the answer
    user_agent: Annotated[str, Meta(max_length=512)] = ""  # as sent
    fingerprint: Annotated[str, Meta(max_length=64)] = ""  # JA4 or JA3 of the TLS client, as the gateway saw it
    environment: Annotated[str, Meta(max_length=16)] = ""  # live | test | ""
    scope: Annotated[str, Meta(max_length=64)] = ""  # that the request needed
    request_id: Annotated[str, Meta(max_length=128)] = ""  # of the gateway; what repeats all else, too, counts once
    source: Annotated[str, Meta(max_length=64)] = ""  # the format it came by; its capabilities follow from it
    position: Annotated[str, Meta(max_length=128)] = ""  # where intake read it: topic/partition/offset or file:line
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape
