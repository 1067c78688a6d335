"""`keywatch report`: how Keywatch did in the last days, and what waits for a person.

Incidents against the budgets, precision by detector from feedback (Wilson's interval, 90 %), what was adopted without
anybody having reviewed it, rotations whose deadline is near, exceptions and mutes that end soon, what was withheld,
and the loudest findings that were told nobody ("near misses"). The span ends at the newest use of any key.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import moments
from pipeline.asking.answers import Shown, connected, print_json, say_line, show_table
from pipeline.asking.queries import ask
from pipeline.config.tree import Budget, Config
from pipeline.control.controls import Controls
from pipeline.control.operate import HOLDS, WORDS, holding
from pipeline.control.topic import read_controls
from pipeline.keys.catalogue import Catalogue, read_catalogue
from pipeline.keys.rotations import overdue_words, rotations

NEAR_MISSES: Final = 10
SERIES_DAYS: Final = 14  # 2 * `detectors.fusion.SERIES_US`: incidents of a key that are further apart are of two series
SOON: Final = timedelta(days=7)
Z_90: Final = 1.6449
_AS_OF: Final = "(SELECT max(last_used) FROM keys_last_used)"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Incidents opened in the span; key-days: keys by days on which they were used."""

    key_days: int
    listed: int
    paged: int
    proofs: int


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """Of one detector: incidents with it that people judged."""

    detector: str
    incidents: int
    malicious: int
    expected: int


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """An incident of a key whose new way is learned, though nobody has reviewed it."""

    incident_id: str
    key_id: str
    owner: str
    at_us: int
    text: str


class WithheldBy(msgspec.Struct, frozen=True, kw_only=True):
    """What one word has withheld in the span."""

    control_id: str
    by: str
    reason: str
    openings: int
    keys: int
    worst: str


class NearMiss(msgspec.Struct, frozen=True, kw_only=True):
    """One of the loudest findings that are part of no incident."""

    key_id: str
    at_us: int
    detector: str
    bits: float
    text: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    days: float
    counts: Counts
    budget: dict[str, dict[str, float]]
    precision: list[dict[str, Any]]
    adoptions: list[Adoption]
    expiring: list[dict[str, Any]]
    withheld: list[WithheldBy]
    near_misses: list[NearMiss]
    rotations: list[str] = []  # near or past their deadline, the old key still in use


def print_report(config: Config, last: str, output: str) -> int:
    """Raises ConfigError, Fatal, Retry."""
    days = moments.span(last, "--last").total_seconds() / 86_400
    controls, catalogue = asyncio.run(_said(config))
    soon = (moments.now() + SOON).timestamp()
    expiring = [row for row in holding(controls, moments.now().timestamp()) if moments.stamp(row["until"]) <= soon]
    with connected(config.clickhouse) as client:
        report = of(client, config.budget, days, expiring)
        late = overdue_words(rotations(client, catalogue, config.key_life))
        report = msgspec.structs.replace(report, rotations=late)
    return print_json(report) if output == "json" else _show(report)


async def _said(config: Config) -> tuple[Controls, Catalogue]:
    return await read_controls(config), await read_catalogue(config)


def of(client: Client, budget: Budget, days: float, expiring: list[dict[str, Any]]) -> Report:
    """The report out of ClickHouse's rows."""
    span = {"seconds": round(days * 86_400)}
    (counts,) = ask(client, Counts, _COUNTS, span)
    return Report(
        days=days, counts=counts, budget=against(counts, budget),
        precision=[rated(row) for row in ask(client, Precision, _PRECISION, span)],
        adoptions=ask(client, Adoption, _ADOPTIONS, span), expiring=expiring,
        withheld=ask(client, WithheldBy, _WITHHELD, span),
        near_misses=ask(client, NearMiss, _NEAR_MISSES, {**span, "limit": NEAR_MISSES}),
    )  # fmt: skip


def against(counts: Counts, budget: Budget) -> dict[str, dict[str, float]]:
    """Per 100,000 key-days, beside what chance alone may open; 90 % interval of the count as a Poisson's."""
    found = {}
    for name, number, allowed in (("listed", counts.listed, budget.listed), ("page", counts.paged, budget.page)):
        per = 1e5 / counts.key_days if counts.key_days else 0.0
        low, high = poisson_interval(number)
        found[name] = {"rate": number * per, "low": low * per, "high": high * per, "budget": allowed}
    return found


def poisson_interval(count: int) -> tuple[float, float]:
    """Byar's approximation, 90 %: good to a few percent from 0 on (Breslow and Day 1987, 2.3)."""
    low = count * (1 - 1 / (9 * count) - Z_90 / (3 * math.sqrt(count))) ** 3 if count else 0.0
    more = count + 1
    return low, more * (1 - 1 / (9 * more) + Z_90 / (3 * math.sqrt(more))) ** 3


def rated(row: Precision) -> dict[str, Any]:
    """With its precision and Wilson's 90 % interval."""
    judged = row.malicious + row.expected
    low, high = wilson(row.malicious, judged)
    share = row.malicious / judged if judged else None
    return {**msgspec.structs.asdict(row), "precision": share, "low": low, "high": high}


def wilson(good: int, of_all: int) -> tuple[float, float]:
    """Of a share, 90 %; from nothing follows nothing: 0 to 1."""
    if not of_all:
        return 0.0, 1.0
    share, z2 = good / of_all, Z_90 * Z_90 / of_all
    middle = (share + z2 / 2) / (1 + z2)
    half = Z_90 * math.sqrt(share * (1 - share) / of_all + z2 / (4 * of_all)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def _show(report: Report) -> int:
    counts = report.counts
    say_line(f"the last {report.days:g} days of use: {counts.key_days:,} key-days, proofs {counts.proofs}")
    for name, row in report.budget.items():
        number = counts.listed if name == "listed" else counts.paged
        rate = (
            f"{row['rate']:,.0f} [{row['low']:,.0f}-{row['high']:,.0f}]" if counts.key_days else "nothing to divide by"
        )
        say_line(f"  {name:7} {number} incidents: {rate} in 100,000 key-days, budget {row['budget']:,.0f}")
    for title, rows, shown in (
        ("precision by detector, from feedback", report.precision, _PRECISE),
        ("adopted unreviewed: keywatch feedback ID expected|malicious", _plain(report.adoptions), _ADOPTED),
        ("ending within 7 days", report.expiring, HOLDS),
        ("withheld", _plain(report.withheld), _KEPT),
        ("near misses: the loudest that are part of no incident", _plain(report.near_misses), _MISSES),
    ):
        say_line("")
        if rows:
            show_table(title, rows, shown, WORDS if shown is HOLDS else 0)
        else:
            say_line(f"{title.partition(':')[0]}: none")
    say_line("")
    say_line(f"rotations near or past their deadline{'' if report.rotations else ': none'}")
    for line in report.rotations:
        say_line(f"  {line}")
    return 0


def _plain(rows: list[Any]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(row) for row in rows]


_SINCE: Final = f"{_AS_OF} - toIntervalSecond({{seconds:UInt64}})"
_COUNTS: Final = f"""
    SELECT (SELECT uniqExact(key_id, toDate(window_start)) FROM requests_1h WHERE window_start > {_SINCE}) AS key_days,
        countIf(rule IN ('visit', 'slow')) AS listed,
        countIf(rule IN ('visit', 'slow') AND severity != 'medium') AS paged,
        countIf(rule IN ('proof', 'leak')) AS proofs
    FROM incidents FINAL WHERE opened_at > {_SINCE}"""  # noqa: S608
_JUDGED: Final = (
    "SELECT incident_id, argMax(verdict, seq) AS verdict FROM controls WHERE kind = 'feedback' GROUP BY incident_id"
)
_PRECISION: Final = f"""
    SELECT detector, count() AS incidents, countIf(f.verdict = 'malicious') AS malicious,
        countIf(f.verdict = 'expected') AS expected
    FROM (SELECT incident_id, arrayJoin(detectors) AS detector FROM incidents FINAL WHERE opened_at > {_SINCE}) AS i
    LEFT JOIN ({_JUDGED}) AS f USING incident_id
    GROUP BY detector ORDER BY incidents DESC, detector"""  # noqa: S608
_ADOPTIONS: Final = f"""
    SELECT i.incident_id AS incident_id, i.key_id AS key_id, i.owner AS owner,
        toUnixTimestamp64Micro(i.last_at) AS at_us, i.text AS text
    FROM incidents AS i FINAL LEFT JOIN (
        SELECT key_id, groupArray((incident_id, parseDateTime64BestEffortOrZero(JSONExtractString(body, 'opened_at'), 6,
            'UTC'), at)) AS words
        FROM controls FINAL WHERE kind = 'feedback' GROUP BY key_id) AS said USING key_id
    WHERE i.last_at > {_SINCE} AND JSONExtractBool(i.body, 'adopted') AND NOT arrayExists(each ->
        each.1 = i.incident_id
        OR (each.3 >= i.last_at AND abs(dateDiff('second', each.2, i.opened_at)) <= {SERIES_DAYS * 86_400}), said.words)
    ORDER BY at_us DESC, incident_id"""  # noqa: S608
"""A word on the incident itself is of it, whenever said; one on another of its series (`feedback.in_series`) if said
since. A time that can't be read is 1970: of no series."""
_WITHHELD: Final = f"""
    SELECT control_id, argMax(by, at) AS by, argMax(reason, at) AS reason, countIf(change = 'opened') AS openings,
        uniqExact(key_id) AS keys,
        multiIf(has(groupArray(severity), 'critical'), 'critical', has(groupArray(severity), 'high'), 'high', 'medium')
            AS worst
    FROM withheld FINAL WHERE at > {_SINCE} GROUP BY control_id ORDER BY openings DESC, control_id"""  # noqa: S608
_NEAR_MISSES: Final = f"""
    SELECT f.key_id AS key_id, toUnixTimestamp64Micro(f.at) AS at_us, f.detector AS detector, f.bits AS bits,
        f.text AS text
    FROM findings AS f FINAL LEFT JOIN (
        SELECT key_id, groupArray((since, until)) AS told FROM (
            SELECT key_id, opened_at - INTERVAL 1 HOUR AS since, last_at AS until
            FROM incidents FINAL WHERE last_at > {_SINCE}
            UNION ALL SELECT key_id, at - INTERVAL 1 HOUR, at + INTERVAL 1 HOUR FROM withheld FINAL WHERE at > {_SINCE})
        GROUP BY key_id) AS i USING key_id
    WHERE f.at > {_SINCE} AND f.incident_id = '' AND NOT arrayExists(each -> f.at BETWEEN each.1 AND each.2, i.told)
    ORDER BY bits DESC, at_us, key_id LIMIT 1 BY key_id LIMIT {{limit:UInt16}}"""  # noqa: S608
"""Not what led up to an incident within the hour before: its visit was told. Nor what a word withheld, or what went
on with it (an incident ends an hour after its last evidence): that is listed as withheld."""


def _when(time_us: int) -> str:
    return moments.of_us(time_us)


_PRECISE: Final[tuple[Shown, ...]] = (
    ("detector", lambda row: str(row["detector"]), "left"),
    ("incidents", lambda row: str(row["incidents"]), "right"),
    ("malicious", lambda row: str(row["malicious"]), "right"),
    ("expected", lambda row: str(row["expected"]), "right"),
    (
        "precision",
        lambda row: "-" if row["precision"] is None else f"{row['precision']:.0%} [{row['low']:.0%}-{row['high']:.0%}]",
        "right",
    ),
)
_ADOPTED: Final[tuple[Shown, ...]] = (
    ("incident", lambda row: str(row["incident_id"])[:12], "left"),
    ("key", lambda row: str(row["key_id"]), "left"),
    ("owner", lambda row: str(row["owner"]), "left"),
    ("last seen", lambda row: _when(row["at_us"]), "left"),
)
_KEPT: Final[tuple[Shown, ...]] = (
    ("why", lambda row: str(row["reason"]), "left"),
    ("by", lambda row: str(row["by"]), "left"),
    ("incidents", lambda row: str(row["openings"]), "right"),
    ("keys", lambda row: str(row["keys"]), "right"),
    ("worst", lambda row: str(row["worst"]), "left"),
)
_MISSES: Final[tuple[Shown, ...]] = (
    ("what", lambda row: str(row["text"]), "left"),
    ("key", lambda row: str(row["key_id"]), "left"),
    ("at", lambda row: _when(row["at_us"]), "left"),
    ("bits", lambda row: f"{row['bits']:.1f}", "right"),
    ("detector", lambda row: str(row["detector"]), "left"),
)
