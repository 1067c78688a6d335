"""Sightings v1: what the worker of one key partition tells the others, on `api.sightings`; Keywatch writes it itself.

A sighting is keyed by its source (`source_of`), so that one partition sees all that one network does to all keys.
Beats and breaks are keyed by `FLEET`: one partition sees all of the fleet, however many partitions the requests have.
Each says something once true for ever, so to read it twice (after a crash of who wrote it) changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.event import KeyId, TimeUs

VERSION: Final = 1
FLEET: Final = "fleet"
"""Key of what concerns all keys."""

Kind = Literal["used", "first", "refused"]
"""used: the caller held the key; first: as well, in the key's first day; refused: it named the key and was refused."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="what", tag="sighting"):
    """A key was used from a network that is new to it, or named in a refused request."""

    key_id: KeyId  # which key
    ts_us: TimeUs  # when
    kind: Kind  # used | first | refused
    prefix: Annotated[str, Meta(max_length=64)] = ""  # the address' /24 or /48
    client_ip: Annotated[str, Meta(max_length=45)] = ""  # of the caller
    asn: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0  # number of its network; 0 is not known
    network: Annotated[str, Meta(max_length=256)] = ""  # its name, where the database has one
    country: Annotated[str, Meta(max_length=2)] = ""  # ISO 3166 alpha-2
    elsewhere: bool = False  # the network hosts servers or hides its users
    owner: Annotated[str, Meta(max_length=128)] = ""  # as declared; "" is not known
    client: Annotated[str, Meta(max_length=128)] = ""  # family of the user agent
    known_days: Annotated[int, Meta(ge=0)] = 0  # since the key's first request
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """One key was used at this time, for the first time in an hour."""

    key_id: KeyId  # which key
    ts_us: TimeUs  # when


class Beats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="what", tag="beats"):
    """Signs of life of many keys, in the order of the log."""

    beats: Annotated[tuple[Beat, ...], Meta(max_length=2000)]  # [key_id, ts_us] each
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape


class Break(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="what", tag="break"):
    """A key has an incident, or errors that are odd: how it came about, to see whether many have the same cause."""

    key_id: KeyId  # which key
    ts_us: TimeUs  # when
    incident_id: Annotated[str, Meta(max_length=64)]  # "" of a finding
    detectors: tuple[str, ...]  # the one with the most bits first
    route: Annotated[str, Meta(max_length=300)] = ""  # method and route of the request that opened it
    status: Annotated[int, Meta(ge=0, le=599)] = 0  # of that request
    asn: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0  # its network's number
    owner: Annotated[str, Meta(max_length=128)] = ""  # as declared
    stranger: bool = False  # its caller did not hold the key: anybody who knows its id
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape


Told = Sighting | Beats | Break
"""Everything that lies on the topic."""


def source_of(asn: int, prefix: str) -> str:
    """Name of a source, and the record's key: its network where it is known, so that its addresses come together."""
    return f"AS{asn}" if asn else prefix
