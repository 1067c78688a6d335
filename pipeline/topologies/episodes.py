"""Incidents of sources, of the fleet and of keys' lives: opened, grown and closed as those of keys are.

An incident's id follows from its subject, its rule and the first evidence, so that nothing that is read twice opens a
second one. It grows when the keys concerned have doubled or it became graver, and closes when nothing was added for
`quiet_us`, or sooner where `MOST` are known and others come. The same subject and rule opens one a day at most, unless
graver.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from pipeline.times import rfc3339
from pipeline.topologies.register import Register
from schemas.incident import KEYS_NAMED, SEVERITIES, Change, Finding, Incident, Rung, Severity, incident_id

QUIET_US: Final = 3_600_000_000
DAY_US: Final = 24 * 3_600_000_000
MOST: Final = 5_000
NOT_FOLLOWED: Final = f"Closed without its end: Keywatch follows {MOST:,} of these, and newer ones came."
LASTING: Final = "silence"
GIVEN_UP_US: Final = 30 * DAY_US
"""A silence ends when the key is used again; one that never is stays open for a month."""
NEVER_US: Final = 1 << 62


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an incident says at one moment."""

    subject: str  # e.g. "source:198.51.100.0/24"; of a key's life its id
    rule: str
    first_us: int  # time of the first evidence, and what tells it from another of that time
    first_id: str
    ts_us: int
    severity: Severity
    rung: Rung
    text: str
    findings: tuple[Finding, ...]
    keys: tuple[str, ...] = ()  # sorted by when they came
    keys_total: int = 0
    owner: str = ""
    environment: str = ""
    seen_days: float = 0.0


class Episode(msgspec.Struct):
    """One incident, open or closed less than a day ago."""

    incident: Incident
    opened_us: int
    last_us: int  # of the last evidence
    told: int  # keys when it was last told


class Episodes:
    """All of a partition."""

    def __init__(self, quiet_us: int = QUIET_US) -> None:
        self.register: Register[Episode] = Register("episodes", Episode, MOST)
        self.spent: dict[str, tuple[int, int]] = {}  # the core's: incident -> revision, offset of a crashed life
        self._quiet_us = quiet_us
        self._due_us = NEVER_US  # nothing ends before

    def tell(self, evidence: Evidence, offset: int, partition: int, out: list[Incident]) -> None:
        """Open or grow the incident of this subject and rule."""
        name = f"{evidence.rule}\0{evidence.subject}"
        episode = self.register.get(name)
        if episode is not None and not _opens_again(episode, evidence):
            self._grow(name, episode, evidence, offset, out)
            return
        if episode is not None:
            self.register.drop(name)
        if len(self.register) >= MOST:
            self._make_room(evidence.ts_us, out)
        incident = self._new(evidence, offset, partition)
        self.register.add(name, Episode(incident, evidence.ts_us, evidence.ts_us, evidence.keys_total))
        self._due_us = min(self._due_us, evidence.ts_us + self._quiet_us)
        out.append(incident)

    def _make_room(self, ts_us: int, out: list[Incident]) -> None:
        """Forget a tenth: closed ones first, then those longest without evidence, which are told to be closed.

        Forgotten while open, nothing would ever close it on the topic, on the console and for who is on call.
        """

        def rank(name: str) -> tuple[bool, int, str]:
            episode = self.register.get(name)
            assert episode is not None
            return episode.incident.state == "open", episode.last_us, name

        for name in sorted(self.register, key=rank)[: MOST // 10]:
            episode = self.register.get(name)
            assert episode is not None
            if episode.incident.state == "open":
                text = f"{episode.incident.text} {NOT_FOLLOWED}"
                out.append(_closed(msgspec.structs.replace(episode.incident, text=text), ts_us))
            self.register.drop(name)

    def _new(self, evidence: Evidence, offset: int, partition: int) -> Incident:
        at = rfc3339(evidence.ts_us)
        ident = incident_id(evidence.subject, evidence.rule, evidence.first_us, evidence.first_id)
        return Incident(
            incident_id=ident, key_id=evidence.subject, rule=evidence.rule,
            revision=self.spent.get(ident, (0, 0))[0] + 1, change="opened", state="open", severity=evidence.severity,
            rung=evidence.rung, opened_at=at, last_at=at, bits=_bits(evidence), seen_days=evidence.seen_days,
            text=evidence.text, findings=evidence.findings, events=evidence.keys_total,
            environment=evidence.environment, owner=evidence.owner, keys=evidence.keys[:KEYS_NAMED],
            keys_total=evidence.keys_total, partition=partition, offset=offset,
        )  # fmt: skip

    def _grow(self, name: str, episode: Episode, evidence: Evidence, offset: int, out: list[Incident]) -> None:
        """Tell it again where it has become graver or twice as large."""
        base = episode.incident
        if base.state == "closed":
            return
        episode.last_us = max(episode.last_us, evidence.ts_us)
        graver = SEVERITIES.index(evidence.severity) > SEVERITIES.index(base.severity)
        if graver or evidence.keys_total >= 2 * max(1, episode.told):
            kept = base if not graver else msgspec.structs.replace(base, severity=evidence.severity, rung=evidence.rung)
            episode.incident = _grown(kept, evidence, "escalated" if graver else "extended", offset)
            episode.told = evidence.keys_total
            out.append(episode.incident)
        self.register.touch(name)

    def close(self, subject: str, rule: str, ts_us: int, out: list[Incident]) -> None:
        """It is over, whatever the time."""
        name = f"{rule}\0{subject}"
        episode = self.register.get(name)
        if episode is not None and episode.incident.state == "open":
            self._close(name, episode, ts_us, out)

    def is_open(self, subject: str, rule: str) -> bool:
        """Whether there is an open incident of it."""
        episode = self.register.get(f"{rule}\0{subject}")
        return episode is not None and episode.incident.state == "open"

    def disown(self, published: Iterable[Incident], ts_us: int, at: int) -> list[Incident]:
        """After a crash: go on above what is on the topic, and close what is open there but not here.

        What records from offset `at` on may open again goes on above its closing, too.
        """
        closed = []
        for newest in published:
            name = f"{newest.rule}\0{newest.key_id}"
            episode = self.register.get(name)
            if episode is not None and episode.incident.incident_id == newest.incident_id:
                revision = max(episode.incident.revision, newest.revision)
                episode.incident = msgspec.structs.replace(episode.incident, revision=revision)
                self.register.touch(name)
                continue
            if newest.state == "open":
                newest = _closed(newest, ts_us)
                closed.append(newest)
            if newest.offset >= at:
                self.spent[newest.incident_id] = (newest.revision, newest.offset)
        return closed

    def pass_time(self, watermark_us: int, out: list[Incident]) -> None:
        """Close what was quiet for long enough, forget what was closed and is a day old."""
        if watermark_us < self._due_us:
            return
        for name in sorted(self.register):
            episode = self.register.get(name)
            assert episode is not None
            end_us = self._ends_us(episode)
            if episode.incident.state == "open" and end_us <= watermark_us:
                self._close(name, episode, end_us, out)
            elif episode.incident.state == "closed" and end_us <= watermark_us:
                self.register.drop(name)
        self.restored()

    def _close(self, name: str, episode: Episode, ts_us: int, out: list[Incident]) -> None:
        episode.incident = _closed(episode.incident, ts_us)
        self.register.touch(name)
        out.append(episode.incident)

    def restored(self) -> None:
        """Work out when the next one ends."""
        self._due_us = NEVER_US
        for name in self.register:
            episode = self.register.get(name)
            assert episode is not None
            self._due_us = min(self._due_us, self._ends_us(episode))

    def _ends_us(self, episode: Episode) -> int:
        """When an open one is closed, when a closed one is forgotten."""
        if episode.incident.state == "closed":
            return episode.opened_us + DAY_US
        return episode.last_us + (GIVEN_UP_US if episode.incident.rule == LASTING else self._quiet_us)


def _closed(base: Incident, ts_us: int) -> Incident:
    return msgspec.structs.replace(
        base, revision=base.revision + 1, change="closed", state="closed", closed_at=rfc3339(ts_us)
    )


def _opens_again(episode: Episode, evidence: Evidence) -> bool:
    if episode.incident.state == "open":
        return False
    graver = SEVERITIES.index(evidence.severity) > SEVERITIES.index(episode.incident.severity)
    return graver or evidence.ts_us >= episode.opened_us + DAY_US


def _grown(base: Incident, evidence: Evidence, change: Change, offset: int) -> Incident:
    return msgspec.structs.replace(
        base, revision=base.revision + 1, change=change, last_at=max(base.last_at, rfc3339(evidence.ts_us)),
        bits=max(base.bits, _bits(evidence)), text=evidence.text, findings=evidence.findings,
        events=evidence.keys_total, keys=evidence.keys[:KEYS_NAMED], keys_total=evidence.keys_total, offset=offset,
    )  # fmt: skip


def _bits(evidence: Evidence) -> float:
    return max((finding.bits for finding in evidence.findings), default=0.0)
