"""What people might say, for tests: short forms of the controls, and side inputs that hold them."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.control.controls import Controls, Said
from pipeline.core import Sides
from schemas.control import Control, Feedback, Forget, Mute, Planned, Verdict
from schemas.event import Event
from schemas.incident import Incident
from tests.pipeline.log_of_requests import GEO, catalogue

AT = "2026-05-28T20:00:00Z"
LATER = "2027-01-01T00:00:00Z"


def controls(*said: Control) -> Controls:
    return Controls.of("topic", [Said(seq, each) for seq, each in enumerate(said)], len(said))


def sides(*said: Control) -> Sides:
    return Sides(catalogue(), GEO, "c1", controls(*said))


def forget(key_id: str, **changes: Any) -> Forget:
    return Forget(**{"key_id": key_id, "reason": "they left", "at": AT, "by": "me"} | changes)


def mute(**scope: Any) -> Mute:
    return Mute(**{"reason": "because", "owner_of_mute": "me", "at": AT, "until": LATER} | scope)


def planned(**scope: Any) -> Planned:
    return Planned(**{"name": "sale", "from_": AT, "to": LATER, "reason": "sale", "at": AT} | scope)


def feedback(incident: Incident, verdict: Verdict, until: str = "", events: tuple[Event, ...] = ()) -> Feedback:
    from pipeline.control.operate import feedback_on

    return msgspec.structs.replace(feedback_on(incident, verdict, "because", "me", until, events), at=AT)
