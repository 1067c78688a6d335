"""Key catalogue v1: what is declared of one key, on the compacted topic `api.keys` under its key id."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.event import KeyId

VERSION: Final = 1

ROLES: Final = ("", "full", "limited", "read_only")
STATUSES: Final = ("active", "suspended", "revoked", "expired")
CRITICALITIES: Final = ("normal", "high", "critical")

Role = Literal["", "full", "limited", "read_only"]
Status = Literal["active", "suspended", "revoked", "expired"]
Exposure = Literal["", "server", "ci", "mobile", "browser", "partner"]
Criticality = Literal["normal", "high", "critical"]
Minute = Annotated[int, Meta(ge=0, le=1440)]


class BusinessHours(msgspec.Struct, frozen=True, kw_only=True):
    """When the key is meant to be used, in the key's time zone; `start_min` <= minute of day < `end_min`."""

    start_min: Minute = 480  # first minute of the day
    end_min: Minute = 1140  # the minute after the last
    weekdays: tuple[Annotated[int, Meta(ge=0, le=6)], ...] = (0, 1, 2, 3, 4)  # Monday is 0


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key as its owner declares it. A key that no one declared is `protected` and only observed."""

    key_id: KeyId  # the credential's public id
    environment: Literal["", "live", "test"] = ""  # live keys are not for tests, test keys not for live work
    role: Role = ""  # what it may do, roughly
    scopes: tuple[str, ...] = ()  # what it may do, exactly
    owner: Annotated[str, Meta(max_length=128)] = ""  # who is called; owners count in caps and the breaker
    time_zone: Annotated[str, Meta(max_length=64)] = ""  # IANA name; "" is not declared
    business_hours: BusinessHours | None = None  # when it is meant to be used
    holidays_country: Annotated[str, Meta(max_length=2)] = ""  # ISO 3166 alpha-2
    allowed_networks: tuple[str, ...] = ()  # CIDR
    allowed_countries: tuple[str, ...] = ()  # ISO 3166 alpha-2
    created_at: str = ""  # RFC 3339
    rotated_from: Annotated[str, Meta(max_length=128)] = ""  # the id of the key that this one replaces
    rotated_to: Annotated[str, Meta(max_length=128)] = ""  # the id of the key that replaces this one
    superseded_at: str = ""  # RFC 3339; when the key that replaces it was made: by default as that one declares
    last_rotated_at: str = ""  # RFC 3339; when it became the newest of its line
    status: Status = "active"  # an ended key that still succeeds is a proof
    ended_at: str = ""  # RFC 3339; since when it is revoked or expired, a minute's grace beside; else at all times
    protected: bool = False  # never acted on without people's approval
    criticality: Criticality = "normal"  # of what depends on it
    exposure: Exposure = ""  # where its secret lies
    decoy: bool = False  # planted: any use is a proof
    secret_hash: Annotated[str, Meta(pattern=r"^(hmac_[0-9a-f]{32})?$")] = (
        ""  # `keywatch leaks hash`: finds a leaked key
    )
    leaked_at: str = ""  # since when its secret is known to be public; the leak intake writes it, an import keeps it
    leak_shown: bool = False  # by a feed that had the secret itself, not only by hearsay
    version: Annotated[int, Meta(ge=0)] = 0  # of this key's secret: an act is bound to it
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape


def undeclared(key_id: str) -> Key:
    """The safe defaults of a key that the catalogue does not know: protected, observed, nothing assumed."""
    return Key(key_id=key_id, protected=True)
