"""What `api.decisions` holds beside acts: endpoints, dead letters, cases, what was told, what Keywatch missed, drills.

Why not on `api.control`: each record there is a version of a side input that every worker adopts at a checkpoint, it
is read by those who judge, and is kept for 400 days; an acknowledgement at night is none of that. Here it stands in
one order with the acts and the incidents' cases, under the broker's clock, and is forgotten after the topic's 28 days.
Who may write here may act, so people use the responder's credentials for it (deploy/SECURITY.md).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.incident import Severity

Verb = Literal["ack", "assign", "snooze", "close", "unack", "reopen"]


class EndpointSwitched(msgspec.Struct, frozen=True, kw_only=True, tag="endpoint_switched"):
    """An endpoint gets nothing any more (it answered 410, or nothing for the whole schedule), or is back."""

    endpoint: str
    disabled: bool
    by: str
    why: str = ""


class Resent(msgspec.Struct, frozen=True, kw_only=True, tag="resent"):
    """A dead letter is to be tried again from the schedule's start."""

    message_id: str
    endpoint: str
    by: str


class CaseSeen(msgspec.Struct, frozen=True, kw_only=True, tag="case_seen"):
    """One revision of an incident, as much of it as cases need. `window_s`: every reader groups by the same numbers."""

    incident_id: str
    revision: int
    key_id: str
    severity: Severity
    closed: bool
    at_us: int  # event time of its newest event
    links: tuple[str, ...]  # key:, owner:, net:, client: what others may share with it
    window_s: float
    partition: int
    body: str = ""  # the incident, weaker findings left out


class CaseSaid(msgspec.Struct, frozen=True, kw_only=True, tag="case_said"):
    """What a person says of a case."""

    case_id: str
    verb: Verb
    by: str
    to: str = ""  # assign
    until_us: int = 0  # snooze
    reason: str = ""


class ActSeen(msgspec.Struct, frozen=True, kw_only=True, tag="act_seen"):
    """What the stream shows of an act in force: broken opens its incident's case again, as critical."""

    response_id: str
    incident_id: str
    key_id: str
    verdict_id: str  # the same for the same request, however often it is read
    broken: bool  # False: the gateway obeys after all
    text: str
    partition: int
    body: str = ""  # broken: the incident, for a case that is forgotten
    no_act: bool = True


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="told"):
    """A notice was delivered or handed over: of this subject this step is not told again."""

    subject: str
    step: str


class Protection(msgspec.Struct, frozen=True, kw_only=True, tag="protection"):
    """Keywatch was seen to be blind or late, or to see again."""

    lost: bool
    since_us: int
    why: str = ""


class DrillStarted(msgspec.Struct, frozen=True, kw_only=True, tag="drill_started"):
    """A decoy is about to be abused through the gateway: it must be seen (and acted on) within the limit."""

    drill_id: str
    key_id: str
    at_us: int
    limit_s: float
    act: bool
    by: str


class DrillEnded(msgspec.Struct, frozen=True, kw_only=True, tag="drill_ended"):
    """What became of a drill. The first of these counts."""

    drill_id: str
    passed: bool
    words: str
    began_us: int = 0  # of the newest one that passed, said again before retention forgets it; 0 is news


class Leftover(msgspec.Struct, frozen=True, kw_only=True, tag="leftover"):
    """A revoked key that its gateway only disabled: to be deleted by hand after 30 days. Said again until then."""

    key_id: str
    key_version: int
    adapter: str
    incident_id: str
    since_us: int  # when it was disabled
    declared: bool = False  # the catalogue had it
    told: bool = False  # that the time has come


class LeftoverGone(msgspec.Struct, frozen=True, kw_only=True, tag="leftover_gone"):
    """It was deleted: a person says so, or the catalogue has it no more."""

    key_id: str
    key_version: int
    by: str
    why: str = ""


class RotationSeen(msgspec.Struct, frozen=True, kw_only=True, tag="rotation_seen"):
    """A rotation is near its deadline, or past it, and its old key has not drained."""

    old: str
    new: str
    owner: str
    deadline_us: int
    state: str  # due | overdue | held (over, and the old key was to be ended and is not)
    requests_24h: int
    reason: str = ""  # why it has not drained
    sources: tuple[str, ...] = ()
    end: str = ""  # what Keywatch does at the deadline, or why it did not


class RotationOver(msgspec.Struct, frozen=True, kw_only=True, tag="rotation_over"):
    """What `RotationSeen` said of this deadline is over: its message is resolved, once, where it was told."""

    old: str
    new: str
    deadline_us: int
    why: str
    no_act: bool = True


NightRecord = (
    EndpointSwitched
    | Resent
    | CaseSeen
    | CaseSaid
    | ActSeen
    | Told
    | Protection
    | DrillStarted
    | DrillEnded
    | Leftover
    | LeftoverGone
    | RotationSeen
    | RotationOver
)
