"""Response v1: one decision of the responder and what became of it; on `api.responses`, the audit's truth."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from schemas.incident import Rung

VERSION: Final = 1

Stage = Literal["decided", "acting", "done", "failed", "enforced", "broken", "unproven"]
"""The last three come after `done`: what the stream shows of it (`pipeline/respond/enforcement/proof.py`)."""
Verdict = Literal["allowed", "refused", "simulated", "waiting"]
"""waiting: for people's approval; a later `decided` says what came of it."""
Direction = Literal["apply", "undo"]


class GuardResult(msgspec.Struct, frozen=True, kw_only=True):
    """One guard's answer; `reason` is a sentence for the on-call and is given when passed, too."""

    guard: str  # its name
    passed: bool  # whether it lets the act through
    reason: str  # in words


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit. `response_id` = hash(incident_id, rung, key_version); stages of an act share it.

    So do those of its undo, under `direction`. `until` "" is without end; `before_hash` names what the undo restores.
    What a person says to all responders is a line, too: `switch`, of no incident (`respond/words.py`), of key "*" but
    for the last three, which are about one rotation: stop, go_on, simulate, enforce, raise_caps, sign_raise,
    close_breaker, promote, override_promotion, sign_promotion, extend, force_undo, sign_undo.
    """

    response_id: str  # of the act
    incident_id: str  # its ground
    revision: int  # of the incident
    key_id: str  # whose key
    key_version: int  # of the secret that was judged
    at: str  # RFC 3339 UTC
    stage: Stage  # how far it has come
    verdict: Verdict  # of the guards
    rung: Rung  # what is done
    reason: str  # in words
    guards: tuple[GuardResult, ...] = ()  # every guard's answer
    evidence_hash: str = ""  # of the findings that it rests on
    policy_version: str = ""  # hash of the policy in force
    endpoint: str = ""  # the adapter or endpoint that does it
    outcome: str = ""  # what the target answered, in words; never a body
    direction: Direction = "apply"  # apply | undo
    rule: str = ""  # of the policy
    until: str = ""  # when it ends by itself
    by: str = ""  # of an undo, a bulk, a declined act or a switch: the person, or "time"
    approvals: tuple[str, ...] = ()  # who approved
    ticket: str = ""  # by which people approve it, while it waits
    before_hash: str = ""  # of what was before
    new_key_id: str = ""  # rotate: the successor's public id
    switch: str = ""  # what was said to all: stop, go_on, simulate, promote, ...; "" is an act
    v: int = VERSION  # version of this shape


def act_words(rung: str, direction: str) -> str:
    """The lines of an undo have the rung that they take back: "undo of fence"."""
    return f"undo of {rung}" if direction == "undo" else rung
