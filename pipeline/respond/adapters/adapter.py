"""What an adapter is: one gateway's way to carry out rungs of the ladder, and to undo them.

An adapter makes ONE attempt at a state to be set ("this version of this key is fenced to these networks"); the loop
around it (`pipeline/respond/act.py`) asks the kill switch before each, waits between them, and gives up in time. Over
HTTP nobody can promise "exactly once", so an attempt that finds the state already there is `done`. What was there
before is the adapter's to tell (`Outcome.before`) and comes back to it in the intent of the undo, which restores
exactly that, and nothing that somebody changed meanwhile. Most peers hold a mark of ours, written with the change
itself; where one can't, what is there is told before anything is changed (`NoteFirst`), kept by the loop where kill -9
does not reach it, and comes back with the next attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from schemas.incident import Rung

Granularity = Literal["key", "consumer", "account"]
Direction = Literal["apply", "undo"]
MOST_NETWORKS: Final = 256
"""In one fence. A key that goes on from fewer networks than it has is an outage, so one that has more gets no fence."""


@dataclass(frozen=True, slots=True)
class Support:
    """One rung's row of an adapter's matrix; a rung without a row is not supported."""

    granularity: Granularity  # what is hit: more than the key is refused where the catalogue knows others of it
    delay_s: float  # usual time until every node of the gateway obeys; proof of enforcement counts from then on
    undo: bool
    most_networks: int = MOST_NETWORKS  # fence: so many fit
    ends_old: Literal["", "gateway", "keywatch"] = ""  # rotate: who ends the old key when the overlap is over
    own_scopes: tuple[str, ...] = ()  # deny: what is denied where the rule names no scopes; without these it must
    by_route: bool = False  # deny: its scopes are patterns (`s3:Get*`) of what events have as their route


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be done; all of it comes from the granted proposal, so that a resumed act is the same act."""

    act_id: str  # = Idempotency-Key: of this rung and direction on this version of this key
    response_id: str
    incident_id: str
    key_id: str
    key_version: int
    granted_at: str  # RFC 3339, the broker's time
    granted_at_s: float
    reason: str
    rung: Rung = "revoke"
    direction: Direction = "apply"
    until_s: float = 0.0  # Unix time at which it is undone by itself; 0 is never
    networks: tuple[str, ...] = ()  # fence: CIDR from which the key goes on working
    scopes: tuple[str, ...] = ()  # deny: what it may not do any more
    limit_per_s: float = 0.0  # throttle
    before: str = ""  # undo: what the adapter told when it applied; apply: what an earlier attempt asked to note


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. `done`: it is so now, or will be (`scheduled`); else `failed`, or `expired` before it was sent."""

    result: Literal["done", "failed", "expired"]
    words: str
    label: str  # of the metric: done | scheduled | refused | failed | expired
    before: str = ""  # what the undo needs to restore; never a secret
    new_key_id: str = ""  # rotate: the successor's public id
    ends_old: bool = False  # rotate: the old key is ours to end; the loop tells it, by the adapter's matrix
    answered_s: float = 0.0  # when the target had said so, Unix time; the adapter need not tell


@dataclass(frozen=True, slots=True)
class NoteFirst:
    """Nothing is changed yet: keep what is there now, then attempt again with it as the intent's `before`."""

    before: str  # what the undo will need; never a secret

    @property
    def words(self) -> str:
        """For a log."""
        return "what is there now is to be noted first"


@dataclass(frozen=True, slots=True)
class TryAgain:
    """This attempt came to nothing, the next one may: time-outs, 429, 5xx."""

    words: str
    retry_after_s: float = 0.0


class Adapter(Protocol):
    """One gateway. `matrix`: what it can do; asked before anything is proposed."""

    name: str
    matrix: Mapping[Rung, Support]

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        """One attempt. Never raises for what the peer does, and never loops."""

    async def check(self) -> list[str]:
        """What is wrong with its configuration, rights or peer, each with what to do; for `keywatch doctor`."""
