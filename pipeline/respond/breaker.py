"""The breaker: many owners' keys tripping at once are our fault, or an attack for people to judge as a whole.

While it is open nothing acts by itself but proofs, within their own small cap; what would have been done stays in the
queue, ranked (`keywatch respond queue`), and one approval acts on all of it (`respond bulk`). Only keys that are old
enough, of owners that are known, count: with keys made this morning nobody opens it. Only a person closes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pipeline.respond.ledger.entries import Proposed


@dataclass(frozen=True, slots=True)
class Opened:
    """The breaker is open since then."""

    offset: int
    at_us: int
    owners: tuple[str, ...]
    paged: bool = False
    kept_us: int = 0


@dataclass(frozen=True, slots=True)
class Trip:
    """One key that would have been acted on."""

    at_us: int
    owner: str
    key_id: str


@dataclass(slots=True)
class Breaker:
    """Real and simulated ones apart."""

    opened: dict[bool, Opened] = field(default_factory=dict)
    trips: dict[bool, list[Trip]] = field(default_factory=dict)

    def trip(self, wanted: Proposed, now_us: int, offset: int) -> None:
        """Count one proposal; perhaps it opens."""
        if not wanted.settled or not wanted.owner or not wanted.breaker_owners or wanted.cap == "proof":
            return
        start_us = now_us - int(wanted.breaker_s * 1e6)
        trips = [each for each in self.trips.get(wanted.simulated, ()) if each.at_us > start_us]
        trips.append(Trip(now_us, wanted.owner, wanted.key_id))
        self.trips[wanted.simulated] = trips
        owners = {each.owner for each in trips}
        if len(owners) >= wanted.breaker_owners and wanted.simulated not in self.opened:
            self.opened[wanted.simulated] = Opened(offset, now_us, tuple(sorted(owners)))

    def stops(self, wanted: Proposed) -> str:
        """Why it stops this one, or ""."""
        opened = self.opened.get(wanted.simulated)
        if opened is None or wanted.cap == "proof":
            return ""
        return f"open: keys of {len(opened.owners)} owners tripped at once; a person closes it"

    def paged(self, offset: int) -> None:
        """The page about this opening is out."""
        if (opened := self.opened.get(False)) and opened.offset == offset:
            self.opened[False] = replace(opened, paged=True)

    def keep(self, offset: int, at_us: int, owners: tuple[str, ...], now_us: int) -> None:
        """It is still open, said again."""
        known = self.opened.get(False) or Opened(offset, at_us, owners, paged=True)
        self.opened[False] = replace(known, kept_us=now_us)

    def close(self) -> None:
        """Both; what tripped before is forgotten."""
        self.opened.clear()
        self.trips.clear()
