"""Incidents that belong together are one case, and one case is one page. Pure: state out of the ordered topic.

An incident joins the oldest open case that it shares something with (its key, its owner, the network or the client in
a network that was odd about it) if that case's last incident is at most `window_s` old; else it opens one. All of that
follows from the records on `api.decisions` and the broker's clock, so every responder, and every restart, has the same
cases. A case takes incidents within one span of three days (of a fixed grid, ends at 10:00 UTC) and is forgotten three
days after its last one, both within the topic's retention of seven: what a restart still reads of a case is always the
whole of it, and no case depends on one before. What goes on for longer is a new case, and so is told again by day.

What must be told follows from the state as well (`due`): a page when it opens, when it gets graver, when it has grown
tenfold, when nobody has acknowledged it for N minutes, when a snooze ends; and that it was acknowledged or is over. An
acknowledged case that gets graver or grows is open again, and so is any, closed too, on whose key a gateway lets
through what an act in force should stop: else whoever starts a harmless incident from his own network
first has bought silence for the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Final, Literal

from pipeline.config.night import Cases
from pipeline.respond.ledger.entries import Proposed
from pipeline.respond.night.records import ActSeen, CaseSaid, CaseSeen, DrillStarted, NightRecord, Verb
from schemas.incident import SEVERITIES, Finding, Incident, Severity
from schemas.key import Key

DAY_US: Final = 86_400_000_000
SPAN_US: Final = 3 * DAY_US
SPANS_END_US: Final = 10 * 3_600_000_000  # after midnight UTC: nobody is woken by the grid
MAX_LINKS: Final = 200  # of one case
MAX_KEYS: Final = 1000
GRACE_S: Final = 60.0  # a drill's last events are told so much later
GROWN: Final = (10, 100, 1000)  # keys
ODD: Final = frozenset({"network", "client"})
State = Literal["open", "acknowledged", "snoozed", "closed"]
BREAKER: Final = "breaker"
RANK: Final = {severity: rank for rank, severity in enumerate(SEVERITIES)}


@dataclass(slots=True)
class Case:
    """One case. Times are the broker's, in us."""

    case_id: str
    opened_us: int
    last_us: int
    partition: int  # of its first incident: who owns that tells
    severity: Severity
    lead: str  # the gravest incident, as JSON
    links: set[str]
    incidents: dict[str, tuple[int, bool]] = field(default_factory=dict)  # id -> (newest revision, closed)
    keys: list[str] = field(default_factory=list)
    state: State = "open"
    waiting_since_us: int = 0  # since when nobody has acknowledged it
    rounds: int = 0  # grows with each word on it and each grade: escalations of each round are told
    openings: int = 1
    assignee: str = ""
    by: str = ""
    until_us: int = 0  # snoozed
    broken: dict[str, str] = field(default_factory=dict)  # response id -> what goes through though it is in force
    broke: set[str] = field(default_factory=set)  # response ids and verdicts that have been heard of
    breaks: int = 0  # how often that has opened it
    drill: bool = False  # nothing but a decoy that is being abused on purpose


@dataclass(slots=True)
class CaseBook:
    """All cases, the oldest first."""

    cases: dict[str, Case] = field(default_factory=dict)
    of_incident: dict[str, str] = field(default_factory=dict)
    drills: dict[str, int] = field(default_factory=dict)  # decoy -> until when its use is a drill
    now_us: int = 0

    def apply(self, at_us: int, record: NightRecord) -> None:
        """Take the next record, in the topic's order, with the broker's time."""
        self.now_us = max(self.now_us, at_us)
        self._forget()
        match record:
            case CaseSeen():
                self._see(record)
            case CaseSaid():
                self._say(record)
            case ActSeen() if record.broken:
                self._break(record)
            case ActSeen():
                for case in self.cases.values():  # its incident may have gone on to a later one
                    case.broken.pop(record.response_id, None)
            case DrillStarted():
                self.drills[record.key_id] = self.now_us + int((record.limit_s + GRACE_S) * 1e6)

    def case_of(self, incident_id: str) -> Case | None:
        """The case that an incident belongs to."""
        return self.cases.get(self.of_incident.get(incident_id, ""))

    def is_drill(self, of: Proposed, at_us: int) -> bool:
        """Whether this act was led to by nothing but a decoy's abuse on purpose: the drill tells of that."""
        return at_us <= self.drills.get(of.key_id, -1)

    def is_broken(self, response_id: str) -> bool:
        """Whether some case says that this act does not hold."""
        return any(response_id in case.broken for case in self.cases.values())

    def full(self, case: Case) -> bool:
        """Whether its span is over, and it takes nothing but ends: what goes on is a new case."""
        return span_of(case.opened_us) != span_of(self.now_us)

    def _see(self, seen: CaseSeen) -> None:
        case = self.case_of(seen.incident_id)
        if seen.closed and case is None:
            return  # its case is forgotten
        if case is None or (self.full(case) and not seen.closed):
            case = self._shared(seen) or self._open(seen)
        known = case.incidents.get(seen.incident_id)
        if known and seen.revision <= known[0]:
            return  # read again after a crash
        case.incidents[seen.incident_id] = (seen.revision, seen.closed)
        self.of_incident[seen.incident_id] = case.case_id
        self._update(case, seen)

    def _shared(self, seen: CaseSeen) -> Case | None:
        wanted, now = set(seen.links), self.now_us
        for case in self.cases.values():
            young = not self.full(case) and now - case.last_us <= seen.window_s * 1e6
            if case.state != "closed" and young and not wanted.isdisjoint(case.links):
                return case
        return None

    def _open(self, seen: CaseSeen) -> Case:
        case = Case(
            case_id_of(seen.incident_id, self.now_us), self.now_us, self.now_us, seen.partition, seen.severity,
            seen.body, set(), waiting_since_us=self.now_us, drill=self.now_us <= self.drills.get(seen.key_id, -1),
        )  # fmt: skip
        self.cases[case.case_id] = case
        return case

    def _update(self, case: Case, seen: CaseSeen) -> None:
        if not self.full(case):
            case.last_us = self.now_us
        before = len(case.keys)
        if seen.key_id not in case.keys and before < MAX_KEYS:
            case.keys.append(seen.key_id)
        for link in seen.links:
            if len(case.links) < MAX_LINKS:
                case.links.add(link)
        graver = RANK[seen.severity] > RANK[case.severity]
        if graver:
            case.severity = seen.severity
            case.rounds += 1
        if graver or not case.lead:
            case.lead = seen.body
        case.drill = case.drill and self.now_us <= self.drills.get(seen.key_id, -1)
        if graver or any(before < size <= len(case.keys) for size in GROWN):
            self._reopen(case, anew=graver)
        over = all(closed for _, closed in case.incidents.values())
        if over and case.state != "closed" and not (case.breaks and case.state == "open"):
            case.state, case.by = "closed", "keywatch"

    def _break(self, seen: ActSeen) -> None:
        """A gateway that does not obey is taken by a person, and neither time nor a quiet key closes it before."""
        case = self.case_of(seen.incident_id)
        if case is None or self.full(case):
            case = self._open(CaseSeen(
                incident_id=seen.incident_id, revision=0, key_id=seen.key_id, severity="critical", closed=False,
                at_us=self.now_us, links=(), window_s=0.0, partition=seen.partition, body=seen.body,
            ))  # fmt: skip
            case.incidents[seen.incident_id], case.keys = (0, False), [seen.key_id]
            self.of_incident[seen.incident_id] = case.case_id
        if seen.verdict_id in case.broke:
            return  # written again after a crash
        known = seen.response_id in case.broke
        case.broke |= {seen.verdict_id, seen.response_id}
        case.broken[seen.response_id] = seen.text
        case.severity, case.drill, case.last_us = "critical", False, self.now_us
        if known and case.state != "closed":
            return  # whoever has taken it knows that it comes and goes
        case.breaks += 1
        case.rounds += 1
        self._reopen(case, anew=True)

    def _reopen(self, case: Case, *, anew: bool) -> None:
        if anew or case.state != "open":
            case.openings += case.state == "closed"
            case.state, case.waiting_since_us = "open", self.now_us

    def _say(self, said: CaseSaid) -> None:
        case = self.cases.get(said.case_id)
        if case is None or not _changes(case, said.verb):
            return
        case.by = said.by
        case.rounds += 1
        match said.verb:
            case "ack":
                case.state = "acknowledged"
            case "assign":
                case.state, case.assignee = ("closed" if case.state == "closed" else "acknowledged"), said.to
            case "snooze":
                case.state, case.until_us = "snoozed", said.until_us
            case "close":
                case.state = "closed"
            case "unack" | "reopen":
                self._reopen(case, anew=True)

    def _forget(self) -> None:
        for case in [each for each in self.cases.values() if self.now_us - each.last_us > SPAN_US]:
            del self.cases[case.case_id]
            for incident_id in case.incidents:
                if self.of_incident.get(incident_id) == case.case_id:
                    del self.of_incident[incident_id]
        for key_id in [key_id for key_id, until_us in self.drills.items() if self.now_us > until_us + DAY_US]:
            del self.drills[key_id]


def _changes(case: Case, verb: Verb) -> bool:
    """Whether the word makes sense of a case in this state."""
    if verb == "unack":
        return case.state in ("acknowledged", "snoozed")
    return verb == "assign" or (case.state == "closed") == (verb == "reopen")


def due(case: Case, told: frozenset[str], now_us: int, rules: Cases) -> Iterator[str]:
    """The steps that are to be told now and were not, in the order of telling."""
    for step in _steps(case, told, now_us, rules):
        if step not in told:
            yield step


def _steps(case: Case, told: frozenset[str], now_us: int, rules: Cases) -> Iterator[str]:
    paged = [_told_as(step) for step in told if step.startswith(("page:", "broken:"))]
    if case.drill or (not paged and RANK[case.severity] < RANK[_grade(rules.page_from)]):
        return
    if case.state == "closed":
        if paged:
            yield f"closed:{case.openings}"
        return
    if case.breaks and case.state == "open" and f"broken:{case.breaks}" not in told:
        yield f"broken:{case.breaks}"
        return
    if all(RANK[grade] < RANK[case.severity] for grade in paged):
        yield f"page:{case.severity}"
    for size in GROWN:
        if len(case.keys) >= size:
            yield f"grown:{size}"
    if case.state == "snoozed" and now_us >= case.until_us:
        yield f"again:{case.rounds}"
    elif case.state != "open":
        yield f"acknowledged:{case.rounds}"
        return
    if paged:
        yield from _late(case, now_us, rules)


def _late(case: Case, now_us: int, rules: Cases) -> Iterator[str]:
    since_us = case.until_us if case.state == "snoozed" else case.waiting_since_us
    for number in range(1, rules.escalations + 1):
        if now_us - since_us >= number * rules.escalate_after_s * 1e6:
            yield f"late:{case.rounds}.{number}"


def _told_as(step: str) -> Severity:
    """As how grave a step called somebody."""
    name, _, detail = step.partition(":")
    return "critical" if name == "broken" else _grade(detail)


def _grade(text: str) -> Severity:
    return next(each for each in SEVERITIES if each == text)


STEP_WORDS: Final = {
    "page": "it is {}", "grown": "it has grown to {} keys", "again": "its snooze is over", "closed": "it is over",
    "acknowledged": "it was acknowledged", "late": "nobody has acknowledged it",
    "broken": "the gateway does not obey",
}  # fmt: skip


def words(step: str) -> str:
    """Why it is told, for people."""
    name, _, detail = step.partition(":")
    return STEP_WORDS[name].format(detail)


def span_of(at_us: int) -> int:
    """The number of the span of three days that a time lies in."""
    return (at_us - SPANS_END_US) // SPAN_US


def case_id_of(incident_id: str, opened_us: int) -> str:
    """From its first incident and span: the same in every responder."""
    text = f"{incident_id}\0{span_of(opened_us)}"
    return "case_" + hashlib.blake2b(text.encode(), digest_size=8, person=b"kw-case").hexdigest()


def links_of(incident: Incident, key: Key | None) -> tuple[str, ...]:
    """What others may share with it: its keys, its owner, and where it came from if that was odd.

    That automatic acts have stopped is a case of its own: nobody's acknowledgement of another one may cover it.
    """
    if incident.rule == BREAKER:
        return (f"key:{incident.key_id}",)
    owner = (key.owner if key else "") or incident.owner
    found = [f"key:{each}" for each in (incident.key_id, *incident.keys)]
    found += [f"owner:{owner}"] if owner else []
    for each in incident.findings:
        if each.family in ODD:
            found += _origin(each)
    return tuple(dict.fromkeys(found))[:MAX_LINKS]


def _origin(found: Finding) -> list[str]:
    sample = found.sample
    origin = []
    if network := _network(sample.client_ip):
        origin.append(f"net:{network}")
    if sample.asn and sample.client:
        origin.append(f"client:AS{sample.asn}/{sample.client}")
    return origin


def _network(address: str) -> str:
    """Its /24 or /48, as `sources` counts them; "" for none."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    return str(ip_network(f"{parsed}/{24 if parsed.version == 4 else 48}", strict=False))
