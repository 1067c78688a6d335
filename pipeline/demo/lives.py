"""What the demo's key service declares of its keys' lives: when each was made and rotated, what replaced what.

Most keys are younger than a year. Some were never rotated and are over age, two were handed out and never used, one
has just replaced another, one fell silent: what the pages of keys to look after are for. When a key is used at all
(`Client.first_days`, `Client.last_days`) is the fleet's, so what is declared here fits what is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from pipeline.demo.fleet import REPLACED, REPLACING, Client
from pipeline.demo.routes import READ_SCOPES
from pipeline.moments import text
from schemas.key import Key

NEVER_ROTATED: Final = {"key_job_00": 1_140, "key_job_01": 780, "key_job_22": 410, "key_office_tokyo_00": 505}
"""Days since they were made; a year is allowed (`key_life.rotation_days`)."""
ROTATED: Final = {"key_billing_00": (900, 45), "key_search_06": (620, 200)}
"""Made, and rotated last, so many days ago: old keys, and in order."""
NEVER_USED: Final = {"key_trial_01": 120, "key_trial_02": 230}


def declared(fleet: Sequence[Client], now: datetime) -> list[Key]:
    """The whole catalogue at `now` (aware): the fleet's keys, and those that nobody ever used."""
    trials = [
        Key(key_id=key_id, environment="live", role="read_only", scopes=READ_SCOPES, owner="sales", exposure="partner",
            version=1, created_at=_ago(days, now))
        for key_id, days in NEVER_USED.items()
    ]  # fmt: skip
    return [_dated(client, now) for client in fleet] + trials


def _dated(client: Client, now: datetime) -> Key:
    key = client.key
    made = NEVER_ROTATED.get(key.key_id, 40 + client.number * 37 % 300)
    if key.key_id in ROTATED:
        made, rotated = ROTATED[key.key_id]
        return msgspec.structs.replace(key, created_at=_ago(made, now), last_rotated_at=_ago(rotated, now), version=2)
    if key.key_id == REPLACED:
        return msgspec.structs.replace(key, created_at=_ago(made, now), rotated_to=REPLACING)
    if key.key_id == REPLACING:
        return msgspec.structs.replace(key, created_at=_ago(client.first_days, now), rotated_from=REPLACED)
    return msgspec.structs.replace(key, created_at=_ago(made, now))


def _ago(days: float, now: datetime) -> str:
    return text(now - timedelta(days=days))
