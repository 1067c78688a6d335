"""Keys that live as real people and services did, for incidents that somebody has described.

When: the hours of a person in `rhythms`. What: the lines of one address of elastic's Apache log, in their order; or
records of CloudTrail. From where: real addresses, by the shipped geo database. The rest of a test is the incident.
"""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import numpy as np

from pipeline.column import plain
from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.flow import open_core
from pipeline.formats import Options
from pipeline.history import ordered
from pipeline.times import micros
from schemas.event import Event
from schemas.incident import Incident
from schemas.key import Key
from tests.pipeline.log_of_requests import GEO, Declared, record, slices
from tests.real_data import real

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
KEY = "key"


@dataclass(frozen=True)
class Told:
    """What was told from the incident's first request on."""

    findings: list[dict[str, Any]]
    incidents: list[Incident]

    def bits(self, detector: str) -> float:
        """The largest of a detector's findings; 0 for none."""
        return max((each["bits"] for each in self.findings if each["detector"] == detector), default=0.0)

    def words(self, detector: str) -> str:
        """All that it said."""
        return "; ".join(each["text"] for each in self.findings if each["detector"] == detector)

    @property
    def opened(self) -> list[Incident]:
        """Incidents that opened."""
        return [each for each in self.incidents if each.change == "opened"]

    @property
    def reasons(self) -> set[str]:
        """The detectors that any incident named."""
        return {each.detector for incident in self.incidents for each in incident.findings}


@cache
def _rhythms() -> dict[str, list[tuple[int, int]]]:
    people: dict[str, list[tuple[int, int]]] = {}
    with gzip.open(real("rhythms/events.csv.gz"), "rt") as lines:
        for row in csv.DictReader(lines):
            zone = row["utc_offset"]
            offset_s = (int(zone[1:3]) * 3600 + int(zone[3:5]) * 60) * (-1 if zone[0] == "-" else 1)
            people.setdefault(row["author"], []).append((int(row["epoch_s"]), offset_s))
    return {author: sorted(rows) for author, rows in people.items()}


def hours_of(author: str, first: int, days: float) -> list[tuple[int, int]]:
    """(us, seconds from UTC) of what a person did in the days from his event number `first` on."""
    rows = _rhythms()[author][first:]
    return [(at * SECOND_US, offset) for at, offset in rows if at < rows[0][0] + days * 86_400]


@cache
def apache(address: str) -> list[Event]:
    """One address's lines, as a gateway would have attested them."""
    read = ordered([real("weblog-elastic-apache/apache_logs")], "combined", Options(key_field="address"), 0)
    mine = [each for each in read if isinstance(each, Event) and each.key_id == address]
    return [as_attested(each) for each in mine]


@cache
def cloudtrail(name: str) -> list[Event]:
    """The records of one file or folder."""
    path = real(name)
    read = ordered(sorted(path.glob("*.json")) if path.is_dir() else [path], "cloudtrail", Options(), 120 * SECOND_US)
    return [each for each in read if isinstance(each, Event)]


def as_attested(event: Event) -> Event:
    """By the key that a test watches; an access log has no word on the credential, a gateway has."""
    outcome = {401: "invalid", 403: "denied", 429: "rate_limited"}.get(event.status, "success")
    return msgspec.structs.replace(event, key_id=KEY, outcome=outcome, source="", position="", environment="live")


def series(name: str, share: float) -> list[int]:
    """Times of NAB's counts per 5 min, of which each is kept with this chance."""
    rng, out = np.random.default_rng(1), list[int]()
    with real(f"nab/data/{name}.csv").open() as lines:
        for stamp, count in list(csv.reader(lines))[1:]:
            start_us = micros(stamp.replace(" ", "T") + "Z")
            kept = rng.binomial(int(float(count)), share)
            out += sorted((start_us + rng.integers(0, 5 * MINUTE_US, kept)).tolist())
    return sorted(out)


def at(times_us: Iterable[int], lines: Sequence[Event], **changes: Any) -> list[Event]:
    """These lines in turn at these times, with other fields."""
    said = zip(times_us, itertools.cycle(lines), strict=False)
    return [msgspec.structs.replace(x, ts_us=t, request_id=f"{t}", **changes) for t, x in said]


def burst(start_us: int, lines: Sequence[Event], every_s: float = 5.0, count: int = 0, **changes: Any) -> list[Event]:
    """The lines one after another."""
    count = count or len(lines)
    return at([start_us + round(k * every_s * SECOND_US) for k in range(count)], lines, **changes)


def lived(hours: Iterable[tuple[int, int]], lines: Sequence[Event], **changes: Any) -> list[Event]:
    """A key's life: each time that its person did something brings three requests within a minute."""
    return at((us + k * 20 * SECOND_US for us, _ in hours for k in range(3)), lines, **changes)


def told(life: Sequence[Event], incident: Sequence[Event], *declared: Key) -> Told:
    """What the compiled pass and the rest of the core say of the incident after that life."""
    core = open_core(0, Config(), Sides(Declared(declared), GEO, "c1"), "epoch")
    log = sorted([*life, *incident], key=lambda each: each.ts_us)
    start_us = min(each.ts_us for each in incident)
    findings: list[dict[str, Any]] = []
    incidents: list[Incident] = []
    for part in slices([record(each) for each in log], range(0, len(log), 5_000)):
        effects = core.process(part)
        columns = {name: plain(column) for name, column in effects.rows.get("findings", {}).items()}
        findings += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        incidents += effects.incidents
    late = [each for each in findings if each["at"] >= start_us]
    return Told(late, [each for each in incidents if micros(each.last_at) >= start_us])
