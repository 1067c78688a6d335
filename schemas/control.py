"""Control v1: what people tell Keywatch, on the topic `api.control` (one partition, compacted, kept for 400 days).

Four kinds in one topic, told apart by `type`: what an incident was (`feedback`), what shall not be told for a while
(`mute`), what is planned (`planned`), which key is to be forgotten (`forget`). The record's key is `control_id`: the
newest of one id counts. Nothing is taken back by a tombstone: a mute that is lifted is the same mute with its end now
and who lifted it, so that a replay of the topic knows from when to when it held. Only what was said of a forgotten key
is: no replay knows it any more. Times RFC 3339 with an offset; `until` "" is without end.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.event import Event, KeyId

VERSION: Final = 1
MOST_EVENTS: Final = 32

Text = Annotated[str, Meta(max_length=500)]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]
Who = Annotated[str, Meta(max_length=128)]
Time = Annotated[str, Meta(max_length=40, pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
Verdict = Literal["expected", "malicious"]


class Feedback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="feedback"):
    """What an incident was. `events`: one request for each value of its evidence, which `expected` admits.

    With `until`, what rests on these detectors alone, and on these values, is withheld until then: an exception.
    """

    incident_id: Hex32  # of which incident
    key_id: KeyId  # its key
    verdict: Verdict  # expected is learned, malicious never
    reason: Reason  # in words
    owner: Who  # of the exception; who gave the feedback where there is none
    at: Time  # when it was said
    opened_at: Time  # when the incident was
    until: Time = ""  # of the exception; "" is none
    rule: Text = ""  # of the incident
    bits: float = 0.0  # of the incident
    detectors: tuple[str, ...] = ()  # of its findings
    networks: tuple[int, ...] = ()  # ASNs
    countries: tuple[str, ...] = ()  # of its findings, ISO 3166 alpha-2
    clients: tuple[str, ...] = ()  # families of user agents
    operations: tuple[str, ...] = ()  # "GET /v1/users/{id}"
    events: Annotated[tuple[Event, ...], Meta(max_length=MOST_EVENTS)] = ()  # what is admitted
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape


class Mute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="mute"):
    """Incidents of this key, and this owner, and resting on this detector alone are not told; "" is any."""

    reason: Reason  # in words
    owner_of_mute: Who  # who said it
    at: Time  # when
    until: Time  # when it ends
    key_id: Annotated[str, Meta(max_length=128)] = ""  # "" is any
    detector: Annotated[str, Meta(max_length=64)] = ""  # "" is any
    owner: Who = ""  # of the key; "" is any
    ended_by: Who = ""  # who let it end before its time
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape


class Planned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="planned"):
    """An event that is planned: while it lasts, listed incidents of volume alone are not told. () is any."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]  # what is planned
    from_: Time = msgspec.field(name="from")  # when it begins
    to: Time  # when it ends
    reason: Reason  # in words
    at: Time  # when it was said
    by: Who = ""  # who said it
    roles: tuple[str, ...] = ()  # of keys; () is any
    owners: tuple[str, ...] = ()  # of keys; () is any
    environments: tuple[str, ...] = ()  # of keys; () is any
    routes: tuple[str, ...] = ()  # of the request that opened the incident; a trailing * stands for anything
    ended_by: Who = ""  # who let it end before its time
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape


class Forget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="forget"):
    """This key's state goes, and what was said of it before (`keywatch erase`). It begins anew if it is used again."""

    key_id: KeyId  # whose state goes
    at: Time  # when it was said
    reason: Reason  # why, for the audit; not what is erased
    by: Who = ""  # who said it
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # of this layout


Control = Feedback | Mute | Planned | Forget


def control_id(control: Control) -> str:
    """The record's key: the same thing said again replaces what was said before."""
    match control:
        case Feedback():
            return f"feedback/{control.incident_id}"
        case Mute():
            scope = "\0".join((control.key_id, control.detector, control.owner))
            return f"mute/{hashlib.blake2b(scope.encode(), digest_size=8).hexdigest()}"
        case Planned():
            return f"planned/{control.name}"
        case Forget():
            return f"forget/{control.key_id}"


_decoder: Final[msgspec.json.Decoder[Control]] = msgspec.json.Decoder(Control)


def decode(value: bytes) -> Control:
    """Raises msgspec.MsgspecError for what is none."""
    return _decoder.decode(value)


def encode(control: Control) -> bytes:
    """As it stands on the topic."""
    return msgspec.json.encode(control)
