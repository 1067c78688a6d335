"""`keywatch keys`, `incidents` and `explain`: the answers of `queries.py` as tables, or as JSON for machines.

Each function prints and returns the exit code: 0, or 1 where what was asked for isn't there.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import queries
from pipeline.config import ClickHouse, Config
from pipeline.sinks.connect import connect
from schemas.incident import Finding

FLEET_LIMIT: Final = 50
FLEET_DAYS: Final = 1.0
KEY_DAYS: Final = 30.0
MISSING: Final = 1

Column = tuple[str, Callable[[Any], str]]


def print_keys(config: Config, key: str = "", as_json: bool = False, output: str = "table") -> int:
    """All keys' last day, or one key's last 30 days with its places. `output` is table, json or csv."""
    output = "json" if as_json else output
    with _connected(config.clickhouse) as client:
        return _one_key(client, key, output) if key else _fleet(client, output)


def _fleet(client: Client, output: str) -> int:
    used = queries.requests_per_key(client, days=FLEET_DAYS, limit=FLEET_LIMIT)
    names = [row.key_id for row in used]
    errors = {row.key_id: row for row in queries.error_rates(client, names, FLEET_DAYS, FLEET_LIMIT)} if names else {}
    last = {row.key_id: row for row in queries.last_used(client, names, FLEET_LIMIT)} if names else {}
    rows = [
        {**_plain(row), **_plain(errors.get(row.key_id)), **_plain(last.get(row.key_id)), "requests": row.requests}
        for row in used
    ]
    return _show("keys, their last day of use", rows, _KEY_COLUMNS, output)


def _one_key(client: Client, key: str, output: str) -> int:
    last = queries.last_used(client, [key])
    if not last:
        sys.stderr.write(f"keywatch: no use of key {key!r} is known\n")
        return MISSING
    used = queries.requests_per_key(client, [key], KEY_DAYS)
    errors = queries.error_rates(client, [key], KEY_DAYS)
    places = queries.places(client, [key], KEY_DAYS)
    if output == "json":
        answer = {"key_id": key, "days": KEY_DAYS, "last_used": last[0], "requests": used, "errors": errors}
        return _write_json({**answer, "places": places})
    row = {name: value for part in (used, errors, last) for item in part for name, value in _plain(item).items()}
    _show(f"{key}, last {KEY_DAYS:.0f} days", [row], _KEY_COLUMNS, output)
    return _show("used from", [_plain(place) for place in places], _PLACE_COLUMNS, output)


def print_incidents(
    config: Config, key: str = "", limit: int = 50, as_json: bool = False, output: str = "table"
) -> int:
    """The newest incidents, of one key or of all."""
    with _connected(config.clickhouse) as client:
        rows = [_plain(row) for row in queries.newest_incidents(client, key, limit)]
    return _show("incidents, the newest first", rows, _INCIDENT_COLUMNS, "json" if as_json else output)


def print_explanation(config: Config, incident_id: str, as_json: bool = False) -> int:
    """One incident: the evidence in words and numbers, sample requests, what is normal for the key."""
    with _connected(config.clickhouse) as client:
        found = queries.explain_incident(client, incident_id)
    if found is None:
        sys.stderr.write(f"keywatch: no incident, or more than one, begins with {incident_id!r}\n")
        return MISSING
    if as_json:
        return _write_json(found)
    _explain(found)
    return 0


def _explain(found: queries.Explanation) -> None:
    incident, console = found.incident, Console()
    console.print(f"[bold]{escape(incident.text)}[/bold]")
    console.print(
        f"{incident.severity}, {incident.state}, rule {incident.rule}, recommends {incident.rung}; "
        f"{incident.opened_at} to {incident.last_at}, {incident.events} events; "
        f"rarer than once in about {incident.return_period_days:,.0f} days of this key, {incident.seen_days:.0f} seen"
    )
    _show("findings", [_finding(finding) for finding in incident.findings], _FINDING_COLUMNS, "table")
    console.print(_normal_words(found.normal), highlight=False)
    _show("requests of the evidence", [_plain(row) for row in found.evidence], _EVIDENCE_COLUMNS, "table")
    if found.responses:
        _show("responses", [_plain(row) for row in found.responses], _RESPONSE_COLUMNS, "table")


def _finding(finding: Finding) -> dict[str, Any]:
    band = finding.expected
    usual = f"{band.median:g} [{band.low:g}-{band.high:g}] {finding.unit}"
    return {**_plain(finding), "usual": usual, "request_id": finding.sample.request_id}


def _normal_words(normal: queries.Normal) -> str:
    """The normal in one line per dimension."""
    if not normal.active_hours:
        return f"normal for this key: no use in the {normal.days} days before\n"
    head = (
        f"normal for this key ({normal.days} days before): {normal.median:g} requests in an active hour "
        f"[{normal.low:g}-{normal.high:g}], {normal.active_hours} active hours"
    )
    lines = [head]
    for dimension in ("country", "network", "client", "route"):
        values = [f"{u.value or '-'} {u.share:.0%}" for u in normal.usual if u.dimension == dimension]
        lines.append(f"  {dimension}: {', '.join(values)}")
    return escape("\n".join(lines) + "\n")


@contextmanager
def _connected(config: ClickHouse) -> Iterator[Client]:
    client = connect(config, config.database)
    try:
        yield client
    finally:
        client.close()


def _plain(row: msgspec.Struct | None) -> dict[str, Any]:
    return {} if row is None else msgspec.structs.asdict(row)


def _show(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[Column], output: str) -> int:
    if output == "json":
        return _write_json(rows)
    if output == "csv":
        writer = csv.DictWriter(sys.stdout, [name for name, _ in columns], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({name: shown(row.get(name, "")) for name, shown in columns} for row in rows)
        return 0
    table = Table(title=title, title_justify="left", header_style="bold")
    for name, _ in columns:
        table.add_column(name.removesuffix("_us").replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(escape(shown(row[name])) if name in row else "" for name, shown in columns))
    Console().print(table)
    return 0


def _write_json(value: Any) -> int:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()
    return 0


def _when(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _share(value: float) -> str:
    return f"{value:.2%}"


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _network(asn: int) -> str:
    return f"AS{asn}" if asn else ""


def _list(values: Sequence[str]) -> str:
    return ", ".join(values)


_KEY_COLUMNS: Final[tuple[Column, ...]] = (
    ("key_id", str),
    ("environment", str),
    ("requests", _number),
    ("per_hour", _number),
    ("busiest_hour", _number),
    ("error_rate", _share),
    ("rate_401", _share),
    ("rate_403", _share),
    ("rate_404", _share),
    ("rate_429", _share),
    ("rate_5xx", _share),
    ("last_used_us", _when),
    ("client_ip", str),
    ("country", str),
    ("asn", _network),
)
_PLACE_COLUMNS: Final[tuple[Column, ...]] = (
    ("country", str),
    ("asn", _network),
    ("requests", _number),
    ("share", _share),
    ("prefixes", str),
    ("first_us", _when),
    ("last_us", _when),
)
_INCIDENT_COLUMNS: Final[tuple[Column, ...]] = (
    ("incident_id", str),
    ("opened_us", _when),
    ("severity", str),
    ("state", str),
    ("rung", str),
    ("detectors", _list),
    ("text", str),
)
_FINDING_COLUMNS: Final[tuple[Column, ...]] = (
    ("detector", str),
    ("at", str),
    ("bits", _number),
    ("observed", _number),
    ("usual", str),
    ("text", str),
    ("request_id", str),
)
_EVIDENCE_COLUMNS: Final[tuple[Column, ...]] = (
    ("at_us", _when),
    ("request_id", str),
    ("method", str),
    ("route", str),
    ("status", str),
    ("outcome", str),
    ("client_ip", str),
    ("country", str),
    ("asn", _network),
    ("client", str),
)
_RESPONSE_COLUMNS: Final[tuple[Column, ...]] = (
    ("at_us", _when),
    ("stage", str),
    ("verdict", str),
    ("rung", str),
    ("reason", str),
)
