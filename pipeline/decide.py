"""From what the pass found to findings, and from findings to incidents in words.

The pass (detectors/fuse.py) decides WHEN an incident opens, grows and closes; here it gets its id, its evidence and
its text. Per key at most one incident is open. Everything follows the order of events in the log.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from detectors import DETECTORS, calibration
from detectors.detector import Context
from detectors.fuse import FOUND
from detectors.fusion import Settings
from pipeline.batch import Batch, held
from pipeline.control.controls import NO_CONTROLS, Controls, Rising
from pipeline.control.withhold import Withheld, rests_on
from pipeline.given import best, strongest_pair
from pipeline.state.partition import State
from pipeline.times import rfc3339
from schemas.event import OUTCOMES
from schemas.incident import SEVERITIES, Band, Change, Finding, Incident, Rung, Sample, incident_id

Array = np.ndarray[Any, Any]

CHANGES: Final[dict[int, Change]] = {1: "opened", 2: "extended", 3: "escalated", 4: "closed"}
ADOPTED: Final = 5  # tells that what goes on is learned: no change of the incident's evidence
RULES: Final = {1: "visit", 2: "slow", 3: "proof"}
MAX_FINDINGS: Final = 26  # per incident, the strongest of each detector are kept
EVIDENCE_EVENTS: Final = 500  # of an incident's events are copied into `evidence`
_ATTRIBUTES: Final = np.dtype((np.record, FOUND))  # np.void has no attributes, and detectors' words use them
PROOF_WORDS: Final = "a proof, no matter of chance"
COUNTED: Final = frozenset({"volume", "outcome"})
"""Families whose `observed` is a count that can be compared with its band."""
FINDING_BITS: Final = Settings().finding_bits
WHO: Final = ("network", "client")
"""Families that say who used the key rather than what was done: a finding of these is named first, in this order."""
STRONG_BITS: Final = 10.0  # a finding that counts towards an automatic act (DESIGN.md, issue 6)


@dataclass(slots=True)
class Decisions:
    """What a slice brought, in log order; `linked[i]` is finding i's incident id or ""."""

    incidents: list[Incident] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # whose finding i is
    ids: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    refused: list[bool] = field(default_factory=list)  # whether its event's caller did not hold the key
    evidence: list[tuple[str, int]] = field(default_factory=list)  # (incident id, index of the event)
    withheld: list[Withheld] = field(default_factory=list)  # what a mute, an exception or a plan kept from being told


class Decider:
    """Turns one slice's found and changed records into incidents; between slices all it knows is in the state."""

    def __init__(self, state: State, partition: int, simulated: frozenset[str] = frozenset()) -> None:
        """`simulated`: detectors whose findings are kept as rows, but are no part of any incident."""
        self.state = state
        self.partition = partition
        self.controls: Controls = NO_CONTROLS
        self._simulated = simulated
        self._touched: set[int] = set()  # slots whose open incident changed in this slice
        self._passed: dict[int, tuple[int, int]] = {}  # slot -> events that only count, latest time of them

    def decide(self, batch: Batch, keep: Array, found: Array, changed: Array) -> Decisions:
        """found, changed: records of `fuse.FOUND` and `fuse.CHANGED` by ascending event index."""
        out = Decisions()
        by_event: dict[int, list[Any]] = {}
        for record in found:
            by_event.setdefault(int(record["event"]), []).append(record)
        changes: dict[int, list[Any]] = {}
        for record in changed:
            changes.setdefault(int(record["event"]), []).append(record)
        slots = batch.events["slot"].tolist()  # one element of a numpy array costs as much as all of `_pass_by`
        under = self._pass_by_full(batch, self._under(batch, keep, changes), {slots[i] for i in {*by_event, *changes}})
        for i in sorted({*np.flatnonzero(under).tolist(), *by_event, *changes}):
            if i in by_event or i in changes:
                self._step(batch, i, by_event.get(i, []), changes.get(i, []), out)
            else:
                self._pass_by(int(batch.events["ts_us"][i]), i, slots[i], out)
        for slot in list(self._passed):
            self._settle(slot)
        for slot in self._touched & self.state.open.keys():
            self.state.set_incident(slot, self.state.open[slot])
        self._touched.clear()
        return out

    def _under(self, batch: Batch, keep: Array, changes: dict[int, list[Any]]) -> Array:
        """Which events are of keys whose incident is or becomes open."""
        slots = batch.events["slot"]
        watched = set(self.state.open) | {int(r["slot"]) for records in changes.values() for r in records}
        if not watched:  # late events count for no incident: whether it is still open then would depend on the slice
            return np.zeros(len(slots), np.bool_)
        under: Array = np.isin(slots, np.fromiter(watched, np.int64)) & (keep == 1) & (batch.events["late"] == 0)
        return under

    def _pass_by_full(self, batch: Batch, under: Array, steps: set[int]) -> Array:
        """`_pass_by` for all keys at once whose incident has its evidence and no step here; returns what is left."""
        full = [s for s, open_ in self.state.open.items() if open_.events >= EVIDENCE_EVENTS and s not in steps]
        slots, times = batch.events["slot"], batch.events["ts_us"]
        mine = under & np.isin(slots, np.array(full, np.int64))
        at = np.flatnonzero(mine)
        order = at[np.lexsort((times[at], slots[at]))]
        keys, first, counts = np.unique(slots[order], return_index=True, return_counts=True)
        last = times[order][first + counts - 1]
        self._passed |= dict(zip(keys.tolist(), zip(counts.tolist(), last.tolist(), strict=True), strict=True))
        return under & ~mine

    def _step(self, batch: Batch, i: int, found: list[Any], changed: list[Any], out: Decisions) -> None:
        slot = int(batch.events["slot"][i])
        self._settle(slot)
        for record in changed:
            if CHANGES.get(int(record["kind"])) == "closed":  # the old episode ends before the event is judged
                self._close(record, out)
        fresh = [self._finding(batch, i, record) for record in found]
        telling = [finding for finding in fresh if finding.detector not in self._simulated]
        now = [record for record in changed if CHANGES.get(int(record["kind"])) != "closed"]
        grown = [record for record in now if int(record["kind"]) != ADOPTED]
        grown = [record for record in grown if not self._withholds(batch, i, record, telling, out)]
        for record in grown:
            if slot not in self.state.open:
                self.state.open[slot] = self._new(record, batch, i)
        if (incident := self.state.open.get(slot)) is not None:
            self._extend(slot, incident, batch, i, telling, out)
        for record in grown:
            self._change(slot, record, batch, i, out)
        if any(record["adopted"] for record in now):
            self._adopt(slot, batch, i, out)
        for finding in fresh:
            told = incident is not None and finding.detector not in self._simulated
            self._log(batch, i, finding, incident.incident_id if incident and told else "", out)

    def _withholds(self, batch: Batch, i: int, record: Any, telling: list[Finding], out: Decisions) -> bool:
        """Whether people have said that this is not to be told; then a row says so."""
        event, declared, carrying = batch.source[i], batch.declared[i], rests_on(telling)
        rule, change = RULES[int(record["rule"])], CHANGES[int(record["kind"])]
        rising = Rising(
            event.key_id, event.ts_us, batch.routes[i], (declared.environment if declared else "") or event.environment,
            declared, int(record["severity"]), rule == "proof" or any(f.proof for f in telling), carrying,
            change == "opened" or int(batch.events["slot"][i]) in self.state.open,
        )  # fmt: skip
        control = self.controls.withholds(rising)
        if control is None:
            return False
        out.withheld.append(Withheld(
            control=control, key_id=event.key_id, ts_us=event.ts_us, rule=rule, change=change,
            severity=SEVERITIES[rising.severity], bits=float(record["score"]),
            return_period_days=float(record["return_days"]), detectors=tuple(f.detector for f in carrying),
            text=", ".join(f.text for f in carrying), offset=int(batch.events["offset"][i]),
        ))  # fmt: skip
        return True

    def _pass_by(self, ts_us: int, i: int, slot: int, out: Decisions) -> None:
        """One more event of a key whose incident is open, and nothing else: most events under a flood."""
        incident = self.state.open.get(slot)
        if incident is None:
            return
        more, last_us = self._passed.get(slot, (0, 0))
        if incident.events + more < EVIDENCE_EVENTS:
            out.evidence.append((incident.incident_id, i))
        self._passed[slot] = (more + 1, ts_us if ts_us > last_us else last_us)

    def _settle(self, slot: int) -> None:
        """Add to the open incident what `_pass_by` has counted."""
        more, last_us = self._passed.pop(slot, (0, 0))
        if more:
            incident = self.state.open[slot]
            self.state.open[slot] = msgspec.structs.replace(
                incident, events=incident.events + more, last_at=max(incident.last_at, rfc3339(last_us))
            )
            self._touched.add(slot)

    def _extend(
        self, slot: int, incident: Incident, batch: Batch, i: int, fresh: list[Finding], out: Decisions
    ) -> None:
        if incident.events < EVIDENCE_EVENTS:
            out.evidence.append((incident.incident_id, i))
        last_at = max(incident.last_at, rfc3339(int(batch.events["ts_us"][i])))
        self.state.open[slot] = msgspec.structs.replace(
            incident, events=incident.events + 1, last_at=last_at, findings=merge(incident.findings, fresh)
        )
        self._touched.add(slot)

    def _log(self, batch: Batch, i: int, finding: Finding, incident: str, out: Decisions) -> None:
        event = batch.source[i]
        text = f"{event.key_id}\0{finding.detector}\0{event.ts_us}\0{int(batch.events['request'][i]):x}"
        out.findings.append(finding)
        out.keys.append(event.key_id)
        out.ids.append(hashlib.blake2b(text.encode(), digest_size=16, person=b"kw-finding").hexdigest())
        out.linked.append(incident)
        out.offsets.append(int(batch.events["offset"][i]))
        out.refused.append(not held(batch.events[i]))

    def _finding(self, batch: Batch, i: int, record: Any) -> Finding:
        detector = DETECTORS[int(record["detector"])]
        event = batch.source[i]
        return Finding(
            detector=detector.name, family=detector.family, bits=float(record["bits"]), at=rfc3339(event.ts_us),
            observed=float(record["observed"]), unit=detector.unit,
            expected=Band(low=float(record["low"]), median=float(record["median"]), high=float(record["high"])),
            text=detector.explain(record.view(_ATTRIBUTES), self._context(batch, i)),
            authenticated=bool(batch.events["authenticated"][i]), sample=sample(batch, i), proof=bool(record["proof"]),
        )  # fmt: skip

    def _context(self, batch: Batch, i: int) -> Context:
        event = batch.source[i]
        return Context(
            key_id=event.key_id, method=event.method, route=batch.routes[i], status=event.status,
            client_ip=event.client_ip, country=batch.places[i].country, asn=batch.places[i].asn,
            network=batch.places[i].network, client=batch.clients[i], local_time=batch.local_time(i),
            time_zone=batch.zone(i), seen_days=_seen_days(batch, i),
        )  # fmt: skip

    def _change(self, slot: int, record: Any, batch: Batch, i: int, out: Decisions) -> None:
        base = self.state.open[slot]
        severity = SEVERITIES[max(int(record["severity"]), SEVERITIES.index(base.severity))]
        incident = msgspec.structs.replace(
            base, revision=base.revision + 1, severity=severity, adopted=base.adopted or bool(record["adopted"]),
            change=CHANGES[int(record["kind"])] if base.revision else "opened",  # it may have been withheld until now
            rung=rung(base.findings), bits=max(base.bits, float(record["score"])),
            return_period_days=max(base.return_period_days, float(record["return_days"])),
            offset=int(batch.events["offset"][i]),
        )  # fmt: skip
        incident = msgspec.structs.replace(incident, text=words(incident))
        self.state.open[slot] = incident
        out.incidents.append(incident)

    def _new(self, record: Any, batch: Batch, i: int) -> Incident:
        event, slot = batch.source[i], int(batch.events["slot"][i])
        rule = RULES[int(record["rule"])]
        declared = self.state.identities.declared[slot]
        at = rfc3339(event.ts_us)
        ident = incident_id(event.key_id, rule, event.ts_us, f"{int(batch.events['request'][i]):x}")
        return Incident(
            incident_id=ident, key_id=event.key_id, rule=rule,
            revision=self.state.meta.spent.get(ident, (0, 0))[0], change="opened", state="open", severity="medium",
            rung="observe", opened_at=at, last_at=at, seen_days=round(_seen_days(batch, i), 2),
            environment=(declared.environment if declared else "") or event.environment,
            owner=declared.owner if declared else "", role=declared.role if declared else "",
            key_version=declared.version if declared else 0, geo_build=self.state.meta.geo,
            config_version=self.state.meta.config, partition=self.partition,
        )  # fmt: skip

    def _close(self, record: Any, out: Decisions) -> None:
        slot = int(record["slot"])
        incident = self.state.open.get(slot)
        if incident is None:
            return
        closed = msgspec.structs.replace(
            incident, revision=incident.revision + 1, change="closed", state="closed",
            closed_at=rfc3339(int(record["at_us"])), adopted=incident.adopted or bool(record["adopted"]),
        )  # fmt: skip
        self.state.set_incident(slot, None)
        if closed.severity == "medium" and not closed.adopted:
            self.state.keep_closed(slot, closed)
        out.incidents.append(closed)

    def _adopt(self, slot: int, batch: Batch, i: int, out: Decisions) -> None:
        """What an incident withheld is learned from this event on: its own next revision says so, open or closed.

        Where people kept all of it from being told, nobody is told of this either.
        """
        known = self.state.open.get(slot) or self.state.closed.get(slot)
        if known is None or known.adopted:
            return
        spent = self.state.meta.spent.get(known.incident_id, (0, 0))[0]
        told = msgspec.structs.replace(
            known, revision=max(known.revision, spent) + 1, change="extended" if known.state == "open" else "closed",
            adopted=True, last_at=max(known.last_at, rfc3339(int(batch.events["ts_us"][i]))),
            offset=int(batch.events["offset"][i]),
        )  # fmt: skip
        self.state.set_incident(slot, told if told.state == "open" else None)
        out.incidents.append(told)

    def close_due(self, changed: Array) -> list[Incident]:
        """Incidents that the watermark closed after the slice."""
        out = Decisions()
        for record in changed:
            self._close(record, out)
        return out.incidents


def _seen_days(batch: Batch, i: int) -> float:
    first = int(batch.first_us[i])
    return max(0.0, (int(batch.events["ts_us"][i]) - first) / 86_400e6) if first else 0.0


def merge(known: tuple[Finding, ...], fresh: list[Finding]) -> tuple[Finding, ...]:
    """The strongest findings of each detector, at most MAX_FINDINGS in all, in the order in which they are told.

    Those whose caller held the key first: only they count towards an act, and anybody can bring stronger others.
    """
    if not fresh:
        return known
    each = MAX_FINDINGS // len(DETECTORS)
    kept: list[Finding] = []
    for detector in DETECTORS:
        mine = [f for f in (*known, *fresh) if f.detector == detector.name]
        surprising = [f for f in mine if f.bits > 0.0 or f.proof]  # the others only carry on what a visit brought
        kept += sorted(surprising, key=lambda f: (not f.authenticated, -f.bits, f.at))[:each] or mine[:1]
    return tuple(sorted(kept, key=lambda f: (not f.proof, behind(f.family, f.bits), -f.bits, f.at, f.detector)))


def behind(family: str, bits: float) -> int:
    """How far back a finding is told: where from, with what, then what was done, by strength each.

    An intruder's refused requests are louder than the network they came from, and say less of what has happened; beside
    a new network a new client is hardly news (`novel_client`), however loud.
    """
    return WHO.index(family) if family in WHO and bits >= FINDING_BITS else len(WHO)


def strongest(findings: tuple[Finding, ...]) -> list[Finding]:
    """The best finding of each detector, in the order in which they are told.

    Of its holder's requests where there are any: louder refused ones in the key's name are no evidence against it.
    """
    best: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: (not f.proof, not f.authenticated)):
        best.setdefault(finding.detector, finding)
    return [finding for finding in findings if best[finding.detector] is finding]


def rung(findings: tuple[Finding, ...]) -> Rung:
    """What the evidence carries: revocation needs a proof or two families of attested evidence, strong given the other.

    Volume and errors are none, since every deploy brings both: they are one fact (`pipeline/given.py`).
    """
    if any(f.proof for f in findings):
        return "revoke"
    attested = best((f.family, f.bits) for f in findings if f.authenticated)
    pair = strongest_pair(attested)
    if pair and pair.weaker > STRONG_BITS:
        return "revoke"
    strong = {family for family, bits in attested.items() if bits > STRONG_BITS}
    return "throttle" if strong - {"volume"} else "flag" if strong else "observe"


def words(incident: Incident) -> str:
    """One sentence: the key, each detector's best finding, and how rare all of it is.

    A finding that lies within what is usual adds to the score, but said as evidence it would contradict itself.
    """
    best = strongest(incident.findings)
    telling = [f for f in best if f.proof or f.family not in COUNTED or f.observed > f.expected.high]
    parts = ", ".join(f.text for f in telling or best)
    rarity = PROOF_WORDS if incident.rule == "proof" else calibration.words(incident.return_period_days)
    return f"{incident.key_id}: {parts}: {rarity}"


def sample(batch: Batch, i: int) -> Sample:
    """The event as evidence shows it."""
    event = batch.source[i]
    return Sample(
        at=rfc3339(event.ts_us), request_id=event.request_id, method=event.method, route=batch.routes[i],
        status=event.status, outcome=OUTCOMES[int(batch.events["outcome"][i])], client_ip=event.client_ip,
        country=batch.places[i].country, asn=batch.places[i].asn, network=batch.places[i].network,
        client=batch.clients[i],
    )  # fmt: skip
