"""What is already done to a key, or under way: what a message must say before it proposes anything more. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterable
from typing import Final, Literal

import msgspec

from pipeline.respond.ladder import LADDER
from pipeline.respond.ledger.acts import Act
from pipeline.times import rfc3339
from schemas.incident import Incident, Rung

ID_CHARS: Final = 12
UNDO: Final = "keywatch respond undo {response} --reason TEXT"
EXTEND: Final = "keywatch respond extend {key} --until WHEN --reason TEXT"
APPROVE: Final = "keywatch respond approve {ticket}"
State = Literal["waiting", "under way", "in force", "perhaps in force", "being undone", "revoked"]
STOPS: Final = frozenset({"waiting", "under way", "in force", "being undone", "revoked"})


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One act on the incident's key. `undo` "": there is nothing that takes it back, or it is being taken back."""

    response_id: str
    incident_id: str  # which led to it: perhaps another one
    rung: Rung
    state: State
    since: str  # RFC 3339; while it waits: since when
    until: str  # "" is without an end of its own
    by: str  # the rule, or who signed
    undo: str = ""
    approve: str = ""  # while it waits
    broken: bool = False  # the stream shows that the gateway does not obey
    this_key: bool = True  # and this version of it: else it stops nothing here

    @property
    def words(self) -> str:
        """One line for people."""
        since, until = clock(self.since), clock(self.until)
        if self.state == "waiting":
            return f"{self.rung} waits for approval since {since}, until {until}: {self.approve}"
        ends = f" until {until}" if until else ", without an end of its own"
        other = "" if self.this_key else " (on another key, or an earlier version of it)"
        if self.rung == "rotate":
            ends = (
                f", the old key ends {until} at the latest"
                if until
                else ", the old key ends when its traffic has moved"
            )
        ends = "" if self.state == "revoked" else ends
        broken = ", but THE GATEWAY DOES NOT OBEY" if self.broken else ""
        return f"{self.rung} is {self.now} since {since}{ends}, by {self.by}{other}{broken}"

    @property
    def now(self) -> str:
        """How it is, after "is"."""
        return {"revoked": "in force, for good", "waiting": "waiting for approval"}.get(self.state, self.state)


def standing(acts: Iterable[Act], incident: Incident, broken: Container[str] = ()) -> tuple[Standing, ...]:
    """What is of this incident or on its key and is not over, the highest rung first.

    `broken`: response ids of acts that the gateway does not obey.
    """
    found = [
        _of(act, state, incident, act.proposal.response_id in broken)
        for act in acts
        if incident.key_id == act.proposal.key_id or incident.incident_id == act.proposal.incident_id
        if (state := _state(act)) is not None
    ]
    return tuple(sorted(found, key=lambda each: -LADDER.index(each.rung)))


def enough(stands: Iterable[Standing], rung: Rung) -> Standing | None:
    """What makes this rung needless: the same one or a higher one, in force, under way or waiting."""
    rank = LADDER.index(rung)
    here = [each for each in stands if each.this_key and each.rung != "rotate" and each.state in STOPS]
    return next((each for each in here if LADDER.index(each.rung) >= rank), None)


def who(act: Act) -> str:
    """The rule that led to it, and who signed."""
    people = " and ".join(act.approved_by)
    if act.proposal.group:
        return people or "people"
    rule = f"rule {act.proposal.rule}" if act.proposal.rule else "the policy"
    return f"{rule}, approved by {people}" if people else f"{rule} alone"


def undo_of(act: Act) -> str:
    """The command that takes this very act back."""
    return UNDO.format(response=act.proposal.response_id[:ID_CHARS])


def extend_of(act: Act) -> str:
    """The command that puts a rotation's end off."""
    return EXTEND.format(key=shlex.quote(act.proposal.key_id))


def _state(act: Act) -> State | None:
    if act.proposal.simulated:
        return None
    if act.revoked:
        return "revoked"
    if act.undo and act.undo.stage == "open":
        return "being undone"
    if act.stands:
        return "perhaps in force" if act.stage == "expired" else "in force"
    states: dict[str, State] = {"pending": "waiting", "open": "under way"}
    return states.get(act.stage)


def _of(act: Act, state: State, incident: Incident, broken: bool) -> Standing:
    of = act.proposal
    until_us = act.lapses_us if state == "waiting" else act.until_us
    versions = {of.key_version, incident.key_version} - {0}
    return Standing(
        response_id=of.response_id, incident_id=of.incident_id, rung=msgspec.convert(of.rung, Rung), state=state,
        since=rfc3339(act.done_us or act.at_us), until=rfc3339(until_us) if until_us else "", by=who(act),
        undo=undo_of(act) if state in ("in force", "perhaps in force") and not act.used_us else "",
        approve=APPROVE.format(ticket=of.group or act.ticket) if state == "waiting" else "",
        broken=broken, this_key=of.key_id == incident.key_id and len(versions) < 2,
    )  # fmt: skip


def clock(text: str) -> str:
    """To the minute, as people read it."""
    return f"{text[:10]} {text[11:16]} UTC" if text else ""
