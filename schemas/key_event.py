"""Key event v1: what people and programs do to a key, on `api.key_events` under the key's id.

The key service (or a secrets manager's audit log) writes what was done: created, revealed, rotated, scopes changed, its
owner departed. The worker adds what was done with it then: used from a network that is new to it, read in bulk.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.event import KeyId, TimeUs

VERSION: Final = 1
MAX_KEY_EVENT_BYTES: Final = 16_384

DONE_TO_IT: Final = ("created", "revealed", "rotated", "scope_changed", "owner_departed", "ended")
DONE_WITH_IT: Final = ("used", "bulk")
"""Written by the worker alone: intake takes these from nobody."""

KeyEventKind = Literal["created", "revealed", "rotated", "scope_changed", "owner_departed", "ended", "used", "bulk"]
ActorRole = Literal["", "admin", "member", "service", "key"]


class KeyEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing done to or with a key. Times in microseconds UTC; "" is "not known"; never a secret."""

    key_id: KeyId  # which key
    ts_us: TimeUs  # when
    kind: KeyEventKind  # what; used and bulk are the worker's own
    event_id: Annotated[str, Meta(max_length=128)] = ""  # of the service's log; a repeat counts once
    actor: Annotated[str, Meta(max_length=128)] = ""  # who did it: a user's or key's id
    actor_role: ActorRole = ""  # of who did it
    owner: Annotated[str, Meta(max_length=128)] = ""  # of the key
    environment: Annotated[str, Meta(max_length=16)] = ""  # live | test | ""
    client_ip: Annotated[str, Meta(max_length=45)] = ""  # from where
    scopes: Annotated[tuple[str, ...], Meta(max_length=64)] = ()  # as they are from now on
    scopes_before: Annotated[tuple[str, ...], Meta(max_length=64)] = ()  # as they were
    bits: Annotated[float, Meta(ge=0, le=1000)] = 0.0  # of the bulk: how surprising it was
    v: Annotated[int, Meta(ge=1, le=1)] = VERSION  # version of this shape
