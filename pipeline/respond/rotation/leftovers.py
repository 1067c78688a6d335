"""Keys that were revoked at a gateway which only disables them: they are deleted by hand after 30 days.

Disabled, not deleted, since that can be taken back at the gateway if it was wrong. Somebody must be told when the time
has come, a month later: so it stands on the decisions topic, is said again each day, before the topic's retention (28
days) forgets it, and is told once. It is over when a person says so, or when the catalogue no longer has the key, or
has another version of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.ledger.entries import Finished, Proposed, Record
from pipeline.respond.night.records import Leftover, LeftoverGone, Told
from schemas.key import Key

log = logging.getLogger(__name__)

DAY_US: Final = 86_400_000_000
DELETE_AFTER_US: Final = 30 * DAY_US
RESTATE_US: Final = DAY_US  # well within the topic's retention
MAX_REVOKING: Final = 10_000
CATALOGUE: Final = "catalogue"
AGAIN: Final = "keywatch"  # says once more what somebody has said


class Keys(Protocol):
    """What the catalogue says now."""

    async def look_up(self, key_id: str) -> tuple[Key | None, int, str]:
        """(the key or None, number of active keys or 0, why the catalogue can't be read or "")."""


Name = tuple[str, int]
"""A key's id and version."""


@dataclass(slots=True)
class Left:
    """One of them, and when it was said last."""

    record: Leftover
    said_us: int

    @property
    def due_us(self) -> int:
        """When it is to be deleted."""
        return self.record.since_us + DELETE_AFTER_US

    @property
    def subject(self) -> str:
        """Of its message."""
        return subject_of(self.record.key_id, self.record.key_version)


@dataclass(slots=True)
class LeftoverBook:
    """`revoked`: what the topic tells of finished revocations; `left`: those of them that were found to leave a key."""

    left: dict[Name, Left] = field(default_factory=dict)
    revoked: dict[Name, Leftover] = field(default_factory=dict)
    gone: set[Name] = field(default_factory=set)
    crossed: set[Name] = field(default_factory=set)  # said once more behind the word that they are gone
    _revoking: dict[str, Proposed] = field(default_factory=dict)  # by act id

    def apply(self, at_us: int, record: Record | None) -> None:
        """Take the next record of the topic, in order, with the broker's time."""
        match record:
            case Proposed() if record.rung == "revoke" and not record.simulated:
                self._revoking[record.act_id] = record
                while len(self._revoking) > MAX_REVOKING:
                    del self._revoking[next(iter(self._revoking))]
            case Finished() if record.direction == "apply" and record.result == "done":
                self._finish(at_us, self._revoking.pop(record.act_id, None))
            case Leftover() if (name := (record.key_id, record.key_version)) in self.gone:
                self.crossed.add(name)
            case Leftover():
                name = record.key_id, record.key_version
                self.revoked[name] = record
                self.left[name] = Left(record, at_us)
            case LeftoverGone():
                name = record.key_id, record.key_version
                self.left.pop(name, None)
                self.gone.add(name)
                self.crossed.discard(name)
            case Told():
                for left in self.left.values():
                    if left.subject == record.subject:
                        left.record = msgspec.structs.replace(left.record, told=True)

    def _finish(self, at_us: int, of: Proposed | None) -> None:
        if of is not None:
            self.revoked.setdefault((of.key_id, of.key_version), Leftover(
                key_id=of.key_id, key_version=of.key_version, adapter=of.adapter, incident_id=of.incident_id,
                since_us=at_us,
            ))  # fmt: skip

    def due(self, now_us: int) -> Iterator[Left]:
        """What is to be told now."""
        return (left for left in self.left.values() if not left.record.told and now_us >= left.due_us)


def subject_of(key_id: str, version: int) -> str:
    """Names a leftover's message."""
    return f"leftover:{key_id}:{version}"


@dataclass
class Tidying:
    """What the owner of partition 0 writes of them. `keeps`: adapters whose gateway keeps a revoked key, disabled."""

    decisions: Decisions
    book: LeftoverBook
    keys: Keys
    keeps: frozenset[str]
    _looked: set[Name] = field(default_factory=set)  # revocations that were taken up, or leave nothing

    async def round(self) -> None:
        """New ones are taken up, those that are gone end, the others are said again in time."""
        for name, revoked in list(self.book.revoked.items()):
            new = name not in self._looked and name not in self.book.left and name not in self.book.gone
            if new and revoked.adapter in self.keeps:
                key, _, error = await self.keys.look_up(name[0])
                if error:
                    continue  # whether it is declared is not known: at the next round
                await self.decisions.write(msgspec.structs.replace(revoked, declared=key is not None))
            self._looked.add(name)
        for name in list(self.book.crossed):  # the word must be the last one, also when retention takes the first
            await self.decisions.write(LeftoverGone(key_id=name[0], key_version=name[1], by=AGAIN))
        for name, left in list(self.book.left.items()):
            if why := await self._gone(left):
                await self.decisions.write(LeftoverGone(key_id=name[0], key_version=name[1], by=CATALOGUE, why=why))
            elif self.decisions.ledger.now_us - left.said_us > RESTATE_US:
                await self.decisions.write(left.record)

    async def _gone(self, left: Left) -> str:
        if not left.record.declared:
            return ""
        key, _, error = await self.keys.look_up(left.record.key_id)
        if error:
            return ""
        if key is None:
            return "it is declared no more"
        return f"version {key.version} is declared" if key.version > left.record.key_version else ""
