"""The real layers that keybench is made of, and their split into a development and a held-out half by hash.

addresses, agents, routes   elastic's Apache log: an address's own lines are a *donor* of routes, outcomes and sizes
rhythms                     `rhythms` (people: their weeks, in their own UTC offset), NAB's tweets and ELB (services)
gaps                        between the calls of the Azure trace, mean 1
payloads                    Stratus and invictus: order, time between, sensitivity and outcome of an attack's calls

Label leaks are left behind: of attack records nothing but those four is read; user agents, names, addresses, regions
and operations' names never reach an event. Where a scenario is about routes, they are drawn from the vocabulary that
innocent keys use too, by sensitivity; none that has a recorded pace is about refusals, so outcomes are not planted (the
leak audit would find them). The Apache log knows GET only, so what a route does is invented: popular ones are read, of
the others a fixed hash makes 12 % write, 6 % delete, 4 % admin, 3 % credential.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.routes import template
from pipeline.times import micros

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LINE: Final = re.compile(r'(\S+) \S+ \S+ \[[^\]]+\] "(\S+) (\S+)[^"]*" (\d+) (\S+) "[^"]*" "([^"]*)"')
FOLDERS: Final = (
    "weblog-elastic-apache", "rhythms", "nab", "azure-llm", "cloudtrail-stratus", "cloudtrail-invictus",
)  # fmt: skip
POPULAR: Final = 60
READ, WRITE, DELETE, ADMIN, CREDENTIAL = range(5)
METHOD_OF: Final = ("GET", "POST", "DELETE", "PUT", "POST")
PREFIX_OF: Final = ("", "", "", "/admin", "/v1/keys")
LEAST_EVENTS: Final = 30
"""Of a person whose weeks are used."""
SERIES: Final = ("realTweets/Twitter_volume_", "realAWSCloudwatch/elb_request_count_")


@dataclass(frozen=True, slots=True)
class Donor:
    """One address of the Apache log and its lines in order."""

    address: str
    agent: str
    operations: Ints  # index into Sources.operations
    status: Ints
    bytes_out: Ints
    objects: Ints  # 32-bit hash of the path as it was asked for


@dataclass(frozen=True, slots=True)
class Payload:
    """One recorded attack: per call seconds since the one before, sensitivity and whether it was refused."""

    name: str
    gaps_s: Floats
    sensitivity: Ints
    refused: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When one person worked: local hour since a Monday and the usual UTC offset in hours."""

    author: str
    hours: Floats
    offset_h: int


@dataclass(frozen=True)
class Sources:
    """One half of everything."""

    donors: list[Donor]
    operations: list[tuple[str, str]]  # method, route; common to both halves, as an API is
    sensitivity: Ints  # per operation
    popularity: Floats  # per operation, sums to 1
    answers: Ints  # (bytes, status, object) of the log's answers, by operation; common to both halves as operations are
    first_answer: Ints  # per operation and one more: where its answers begin
    rhythms: list[Rhythm]
    series: dict[str, Floats]  # per 5 min, from a Monday 00:00 on, UTC
    gaps: Floats
    payloads: list[Payload]

    @cached_property
    def by_sensitivity(self) -> list[Ints]:
        """Operations of each sensitivity."""
        return [np.flatnonzero(self.sensitivity == kind) for kind in range(5)]

    def answered(self, operations: Ints, rng: np.random.Generator) -> Ints:
        """(bytes, status, object) of one of each operation's answers, whoever asked: a route answers as itself."""
        first, last = self.first_answer[operations], self.first_answer[operations + 1]
        return self.answers[first + (rng.random(len(operations)) * (last - first)).astype(np.int64)]


def half(kind: str, name: str) -> str:
    """`development` or `held-out`: a fixed hash of kind and name."""
    return "held-out" if hashlib.blake2b(f"keybench/{kind}/{name}".encode()).digest()[0] & 1 else "development"


def load(data: Path, which: str) -> Sources:
    """The half `which` of the real data in `data`. Raises ConfigError where they are not there."""
    _check(data)
    lines = _lines(data)
    operations, numbers, popularity, sensitivity = _operations(lines)
    answers, first_answer = _answers(lines, numbers)
    donors = [
        _donor(address, rows, numbers)
        for address, rows in _by_address(lines).items()
        if half("address", address) == which
    ]
    return Sources(
        donors=donors, operations=operations, sensitivity=sensitivity, popularity=popularity,
        answers=answers, first_answer=first_answer,
        rhythms=[rhythm for rhythm in rhythms(data) if half("author", rhythm.author) == which],
        series={name: values for name, values in series(data).items() if half("series", name) == which},
        gaps=_gaps(data), payloads=[each for each in payloads(data) if half("technique", each.name) == which],
    )  # fmt: skip


def _check(data: Path) -> None:
    absent = [name for name in FOLDERS if not (data / name).is_dir()]
    if absent:
        raise ConfigError(
            f"the real logs are not at {data}: no {', '.join(absent)} there; name their folder with --data"
        )


def split_table(data: Path) -> dict[str, Any]:
    """What is in which half: names of series and techniques, number and digest of addresses and authors.

    Raises ConfigError as `load` does.
    """
    _check(data)
    table: dict[str, Any] = {}
    kinds = {
        "series": list(series(data)), "technique": [each.name for each in payloads(data)],
        "address": list(_by_address(_lines(data))), "author": [each.author for each in rhythms(data)],
    }  # fmt: skip
    for kind, names in kinds.items():
        for which in ("development", "held-out"):
            mine = sorted(name for name in names if half(kind, name) == which)
            digest = hashlib.sha256("\n".join(mine).encode()).hexdigest()
            few = {"names": mine} if kind in ("series", "technique") else {}
            table.setdefault(kind, {})[which] = {"count": len(mine), "sha256": digest, **few}
    return table


Line = tuple[str, str, int, int, str, int]


@cache
def _lines(data: Path) -> list[Line]:
    """(address, route, status, bytes, agent, hash of the path)."""
    found = []
    with (data / "weblog-elastic-apache" / "apache_logs").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if match := LINE.match(line):
                address, _, path, status, size, agent = match.groups()
                path = path.split("?")[0]
                size_bytes = int(size) if size.isdigit() else 0
                route, number = template(path)[:200], crc32(path.encode())
                found.append((address, route, int(status), size_bytes, agent[:500], number))
    return found


def _by_address(lines: Iterable[Line]) -> dict[str, list[Line]]:
    grouped: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        grouped[line[0]].append(line)
    return grouped


def _operations(lines: list[Line]) -> tuple[list[tuple[str, str]], dict[str, int], Floats, Ints]:
    """Operations by falling popularity, their numbers by the log's route, shares, sensitivities."""
    counts: dict[str, int] = defaultdict(int)
    for line in lines:
        counts[line[1]] += 1
    routes = sorted(counts, key=lambda route: (-counts[route], route))
    kinds = np.array([_kind(rank, route) for rank, route in enumerate(routes)])
    operations = [(METHOD_OF[kind], PREFIX_OF[kind] + route) for kind, route in zip(kinds, routes, strict=True)]
    share = np.array([counts[route] for route in routes], np.float64)
    return operations, {route: i for i, route in enumerate(routes)}, share / share.sum(), kinds


def _answers(lines: list[Line], numbers: dict[str, int]) -> tuple[Ints, Ints]:
    """(bytes, status, object) of the log's lines by operation, and where each operation's begin."""
    operation = np.array([numbers[line[1]] for line in lines])
    answer = np.array([(line[3], line[2], line[5]) for line in lines])
    order = np.argsort(operation, kind="stable")
    return answer[order], np.searchsorted(operation[order], np.arange(len(numbers) + 1))


def _kind(rank: int, route: str) -> int:
    if rank < POPULAR:
        return READ
    draw = hashlib.blake2b(route.encode()).digest()[0] / 256
    return (
        READ
        if draw < 0.75
        else WRITE
        if draw < 0.87
        else DELETE
        if draw < 0.93
        else ADMIN
        if draw < 0.97
        else CREDENTIAL
    )


def _donor(address: str, rows: list[Line], numbers: dict[str, int]) -> Donor:
    operations = np.array([numbers[row[1]] for row in rows])
    return Donor(
        address, rows[0][4], operations, np.array([row[2] for row in rows]), np.array([row[3] for row in rows]),
        np.array([row[5] for row in rows]),
    )  # fmt: skip


@cache
def rhythms(data: Path) -> list[Rhythm]:
    """People with enough events, sorted by id."""
    times: dict[str, list[float]] = defaultdict(list)
    offsets: dict[str, list[int]] = defaultdict(list)
    with gzip.open(data / "rhythms" / "events.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            zone = int(row["utc_offset"])
            minutes = (abs(zone) // 100 * 60 + abs(zone) % 100) * (1 if zone >= 0 else -1)
            times[row["author"]].append(int(row["epoch_s"]) / 3600 + minutes / 60 + 72)  # the epoch was a Thursday
            offsets[row["author"]].append(round(minutes / 60))
    return [
        Rhythm(author, np.sort(np.array(times[author])), int(np.median(offsets[author])))
        for author in sorted(times) if len(times[author]) >= LEAST_EVENTS
    ]  # fmt: skip


@cache
def series(data: Path) -> dict[str, Floats]:
    """NAB's counts per 5 min, cut to whole weeks' days from a Monday on."""
    found = {}
    for path in sorted((data / "nab" / "data").glob("*/*.csv")):
        name = f"{path.parent.name}/{path.name}"
        if not name.startswith(SERIES):
            continue
        with path.open() as lines:
            rows = list(csv.reader(lines))[1:]
        first = datetime.fromisoformat(rows[0][0])
        skip = (7 - first.weekday()) % 7 * 288 - (first.hour * 12 + first.minute // 5)
        found[name] = np.array([float(row[1]) for row in rows][max(0, skip) :])
    return found


@cache
def _gaps(data: Path) -> Floats:
    parts = []
    for path in sorted((data / "azure-llm").glob("*.csv")):
        with path.open() as lines:
            stamps = [row[0] for row in csv.reader(lines)][1:]
        at = np.array([micros(stamp[:26]) / 1e6 for stamp in stamps])
        gaps = np.diff(at)
        parts.append(gaps / gaps.mean())
    return np.concatenate(parts)


@cache
def payloads(data: Path) -> list[Payload]:
    """All recorded techniques, and invictus's attack by the hand of its tool, cut at pauses of a minute."""
    files = sorted((data / "cloudtrail-stratus").glob("*.json"))
    found = [_payload(path.stem, json.loads(path.read_bytes())) for path in files]
    records: list[dict[str, Any]] = []
    for path in sorted((data / "cloudtrail-invictus").glob("*.json")):
        records += json.loads(path.read_bytes())["Records"]
    mine = [record for record in records if str(record.get("userAgent", "")).startswith("stratus-red-team_")]
    return found + [_payload(f"invictus.{number:02d}", part) for number, part in enumerate(_bursts(mine))]


def seconds(record: dict[str, Any]) -> float:
    """Time of a CloudTrail record, in Unix seconds."""
    return micros(record["eventTime"]) / 1e6


def _bursts(records: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    records = sorted(records, key=seconds)
    parts: list[list[dict[str, Any]]] = []
    for record in records:
        if not parts or seconds(record) - seconds(parts[-1][-1]) > 60:
            parts.append([])
        parts[-1].append(record)
    return parts


def _payload(name: str, records: list[dict[str, Any]]) -> Payload:
    records = sorted(records, key=seconds)
    at = np.array([seconds(record) for record in records])
    kinds = [_sensitivity(record) for record in records]
    refused = [bool(record.get("errorCode")) for record in records]
    return Payload(name, np.diff(at, prepend=at[0]), np.array(kinds), np.array(refused))


def _sensitivity(record: dict[str, Any]) -> int:
    name = str(record["eventName"])
    if re.search(r"AccessKey|FederationToken|Secret|PasswordData|AssumeRole", name) and not name.startswith("List"):
        return CREDENTIAL
    if record.get("readOnly"):
        return READ
    if re.match(r"Delete|Stop|Terminate|Leave|Disable|Remove", name):
        return DELETE
    if re.search(r"Policy|Role|User|Permission|Attribute|Trail|Organization", name):
        return ADMIN
    return WRITE
