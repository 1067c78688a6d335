"""Response v1: one decision of the responder and what became of it; on `api.responses`, the audit's truth."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from schemas.incident import Rung

VERSION: Final = 1

Stage = Literal["decided", "acting", "done", "failed", "enforced", "broken", "unproven"]
"""The last three come after `done`: what the stream shows of it (`pipeline/respond/enforcement.py`)."""
Verdict = Literal["allowed", "refused", "simulated", "waiting"]
"""waiting: for people's approval; a later `decided` says what came of it."""
Direction = Literal["apply", "undo"]


class GuardResult(msgspec.Struct, frozen=True, kw_only=True):
    """One guard's answer; `reason` is a sentence for the on-call and is given when passed, too."""

    guard: str
    passed: bool
    reason: str


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit. `response_id` = hash(incident_id, rung, key_version); stages of an act share it.

    So do those of its undo, under `direction`. `until` "" is without end; `before_hash` names what the undo restores.
    """

    response_id: str
    incident_id: str
    revision: int
    key_id: str
    key_version: int
    at: str
    stage: Stage
    verdict: Verdict
    rung: Rung
    reason: str
    guards: tuple[GuardResult, ...] = ()
    evidence_hash: str = ""
    policy_version: str = ""
    endpoint: str = ""
    outcome: str = ""  # what the target answered, in words; never a body
    direction: Direction = "apply"
    rule: str = ""  # of the policy
    until: str = ""  # when it ends by itself
    by: str = ""  # of an undo, a bulk or a declined act: the person, or "time"
    approvals: tuple[str, ...] = ()  # who approved
    ticket: str = ""  # by which people approve it, while it waits
    before_hash: str = ""
    new_key_id: str = ""  # rotate: the successor's public id
    v: int = VERSION
