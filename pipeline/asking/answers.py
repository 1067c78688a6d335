"""`keywatch keys`, `incidents` and `explain`: the answers of `queries.py` as tables, or as JSON for machines.

Each function prints and returns the exit code: 0, or 1 where what was asked for isn't there.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
from clickhouse_connect.driver.client import Client
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.asking import queries, spreadsheet
from pipeline.config.tree import ClickHouse, Config
from pipeline.keys import told as told_of_key
from pipeline.sinks.connect import connect
from schemas.incident import Band, Finding, Incident

FLEET_LIMIT: Final = 50
FLEET_DAYS: Final = 1.0
KEY_DAYS: Final = 30.0
MISSING: Final = 1

FOLDED: Final = 28
"""Letters that a folding column needs to be read."""
SHORT_ID: Final = 12
"""Of the 32 letters of an incident's id: `explain` takes any beginning that only one has."""

Row = dict[str, Any]
Column = tuple[str, Callable[[Any], str]]
"""A field and how CSV writes it."""
Shown = tuple[str, Callable[[Row], str], Literal["left", "right"]]
"""A table's column: its head, its text of a row, its side."""


def print_keys(config: Config, key: str = "", as_json: bool = False, output: str = "table") -> int:
    """All keys' last day, or one key's last 30 days with its places. `output` is table, json or csv."""
    output = "json" if as_json else output
    with connected(config.clickhouse) as client:
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
    if len(rows) == FLEET_LIMIT:  # on stderr, since programs read what is on stdout
        sys.stderr.write(f"keywatch: the {FLEET_LIMIT} busiest keys only; the others by name, or in ClickHouse\n")
    if output != "table":
        return export_rows(rows, _KEY_COLUMNS, output)
    if not rows:
        return say_line("no key was used yet, or none in the last day of use")
    show_table("keys, their last day of use", rows, _FLEET)
    return say_line("more about one: keywatch keys KEY")


def _one_key(client: Client, key: str, output: str) -> int:
    last = queries.last_used(client, [key])
    if not last:
        sys.stderr.write(f"keywatch: no use of key {key!r} is known\n")
        return MISSING
    used = queries.requests_per_key(client, [key], KEY_DAYS)
    errors = queries.error_rates(client, [key], KEY_DAYS)
    places, declared = queries.places(client, [key], KEY_DAYS), told_of_key.declared_of(client, key)
    if output == "json":
        answer = {"key_id": key, "days": KEY_DAYS, "last_used": last[0], "requests": used, "errors": errors}
        answer["declared"] = declared
        return print_json({**answer, "places": places})
    row = {name: value for part in (used, errors, last) for item in part for name, value in _plain(item).items()}
    if output == "csv":
        export_rows([row], _KEY_COLUMNS, output)
        say_line("")
        return export_rows([_plain(place) for place in places], _PLACE_COLUMNS, output)
    say_line(_key_words(key, row, declared))
    show_table("used from", [_plain(place) for place in places], _PLACES)
    return say_line(f"its incidents: keywatch incidents --key {key}")


def _key_words(key: str, row: Row, declared: told_of_key.Declared | None) -> str:
    """One key's numbers; a key that was used last before the period has none but its last use."""
    environment = f" ({row['environment']})" if row["environment"] else ""
    lines = [f"{key}{environment}, last {KEY_DAYS:.0f} days", f"  declared   {told_of_key.words(declared)}"]
    if row.get("requests"):
        per_hour, busiest = _number(row["per_hour"]), _number(row["busiest_hour"])
        kinds = ", ".join(f"{name[5:]} {_share(row[name])}" for name in _ERROR_KINDS if row[name])
        lines += [
            f"  requests   {_number(row['requests'])}, {per_hour} in an active hour, {busiest} in the busiest",
            f"  errors     {_share(row['error_rate'])}" + (f" ({kinds})" if kinds else ""),
        ]
    used = f"{_when(row['last_used_us'])} from {row['client_ip']} ({_place(row)})"
    lines += [f"  last used  {used}", f"  first seen {_when(row['first_used_us'])}", ""]
    return "\n".join(folded for line in lines for folded in _folded(line, width()))


def print_incidents(
    config: Config, key: str = "", limit: int = 50, as_json: bool = False, output: str = "table"
) -> int:
    """The newest incidents, of one key or of all."""
    with connected(config.clickhouse) as client:
        rows = queries.newest_incidents(client, key, limit + 1)
    if len(rows) > limit:  # on stderr, since programs read what is on stdout
        sys.stderr.write(f"keywatch: the {limit:,} newest incidents only; --limit shows more\n")
        del rows[limit:]
    output = "json" if as_json else output
    if output != "table":
        return export_rows([_plain(row) for row in rows], _INCIDENT_COLUMNS, output)
    if not rows:
        return say_line(f"no incidents of {key}" if key else "no incidents")
    for row in rows:
        say_line(f"{row.incident_id[:SHORT_ID]}  {_when(row.opened_us)}  {row.severity}, {row.state}, rung {row.rung}")
        say_line("\n".join(_folded(f"  {row.text}", width())))
    return say_line("why: keywatch explain ID")


def print_explanation(config: Config, incident_id: str, as_json: bool = False) -> int:
    """One incident: the evidence in words and numbers, sample requests, what is normal for the key."""
    with connected(config.clickhouse) as client:
        found = queries.explain_incident(client, incident_id)
    if found is None:
        sys.stderr.write(
            f"keywatch: {incident_id!r} is not the beginning of exactly one incident's id: "
            "`keywatch incidents` lists them\n"
        )
        return MISSING
    if as_json:
        return print_json(found)
    say_line("\n".join(explanation_lines(found, width())))
    return 0


def explanation_lines(found: queries.Explanation, width: int) -> list[str]:
    """The whole explanation as lines of at most `width` characters, where words allow it."""
    incident = found.incident
    span = f"{_moment(incident.opened_at)} to {_moment(incident.last_at)}, {count_words(incident.events, 'event')}"
    lines = [
        incident.text,
        f"{incident.severity}, {incident.state}, rung {incident.rung} (a policy decides); {span}; key known for "
        f"{count_words(round(incident.seen_days), 'day')}; rule {incident.rule}; id {incident.incident_id}",
        *_learned_words(incident),
        *(f"{_when(each.at_us)} said {each.verdict}: {each.effect}" for each in found.applied),
        "", "found", *(_finding_words(finding) for finding in incident.findings),
        "", *_normal_words(found.normal),
        *(["", "requests in the hour before", *map(_evidence_words, found.before)] if found.before else []),
        "", f"requests of the evidence{' (none)' if not found.evidence else ''}",
        *(_evidence_words(row) for row in found.evidence),
    ]  # fmt: skip
    if found.responses:
        lines += ["", "responses", *(_response_words(row) for row in found.responses)]
    return [folded for line in lines for folded in _folded(line, width)]


def _learned_words(incident: Incident) -> list[str]:
    """What people said of it, or that nobody did and it is learned all the same."""
    if incident.label:
        return [f"people said: {incident.label}"]
    if incident.adopted:
        return ["adopted unreviewed: what goes on is learned since nobody objected for 7 days; say keywatch feedback"]
    return []


def _folded(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    fill = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return fill.wrap(line) or [""]


def _finding_words(finding: Finding) -> str:
    request = f", request {finding.sample.request_id}" if finding.sample.request_id else ""
    bits = f"{_number(finding.bits)} bits" if finding.bits else "evidence of its visit"
    when = f"{bits}; {_moment(finding.at)}{request}"
    return f"  {finding.detector}: {finding.text} ({_compared(finding)}{when})"


def _compared(finding: Finding) -> str:
    """Observed against usual; an hour of the day is in the finding's own words."""
    if finding.family == "time" or not finding.bits:
        return ""
    observed, band = _number(finding.observed), _band(finding.expected)
    if finding.unit in OF_OTHERS:
        return f"{observed} {finding.unit}, {band} {OF_OTHERS[finding.unit]}; "
    return f"observed {observed}, usual {band} {finding.unit}; "


def _band(band: Band) -> str:
    return f"{_number(band.median)} [{_number(band.low)}-{_number(band.high)}]"


def _evidence_words(row: queries.EvidenceLine) -> str:
    request = f", request {row.request_id}" if row.request_id else ""
    what = f"{row.status} {row.outcome}: {row.method} {row.route}"
    return f"  {_when(row.at_us)} {what} from {row.client_ip} ({_place(_plain(row))}), {row.client or '-'}{request}"


def _response_words(row: queries.ResponseLine) -> str:
    return f"  {_when(row.at_us)} {row.words}, {row.reason}"


def _normal_words(normal: queries.Normal) -> list[str]:
    """The normal in one line per dimension."""
    if not normal.active_hours:
        return [f"normal for this key: no use in the {normal.days} days before"]
    head = (
        f"normal for this key ({normal.days} days before): {normal.median:g} requests in an active hour "
        f"[{normal.low:g}-{normal.high:g}], {normal.active_hours} active hours"
    )
    lines = [head]
    for dimension in ("country", "network", "client", "route"):
        values = [f"{u.value or '-'} {u.share:.0%}" for u in normal.usual if u.dimension == dimension]
        lines.append(f"  {dimension}: {', '.join(values)}")
    return lines


@contextmanager
def connected(config: ClickHouse) -> Iterator[Client]:
    """ClickHouse, for as long as it takes."""
    client = connect(config, config.database)
    try:
        yield client
    finally:
        client.close()


def _plain(row: msgspec.Struct | None) -> Row:
    return {} if row is None else msgspec.structs.asdict(row)


def export_rows(rows: Sequence[Row], columns: Sequence[Column], output: str) -> int:
    """JSON as the queries give it; CSV with plain numbers, shares from 0 to 1 and RFC 3339 times."""
    if output == "json":
        return print_json(rows)
    cells = ({name: shown(row.get(name, "")) for name, shown in columns} for row in rows)
    spreadsheet.write([name for name, _ in columns], cells, "\r\n")
    return 0


def show_table(title: str, rows: Sequence[Row], columns: Sequence[Shown], folds: int = 0) -> int:
    """A table on the terminal; where it is too narrow, the column number `folds` folds, or each row has its own lines.

    Nothing is ever cut off: an id that lost its end can neither be copied nor found by `grep`.
    """
    cells = [[printable(shown(row)) for _, shown, _ in columns] for row in rows]
    console = Console(highlight=False)
    if _needs(cells, [name for name, _, _ in columns], folds) > console.width:
        return _stacked(title, cells, [name for name, _, _ in columns])
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, (name, _, justify) in enumerate(columns):
        table.add_column(name, overflow="fold", justify=justify, no_wrap=number != folds)
    for row in cells:
        table.add_row(*map(escape, row))
    console.print(table)
    return 0


def _needs(cells: Sequence[Sequence[str]], names: Sequence[str], folds: int) -> int:
    """How wide the table is with its folding column at `FOLDED` letters, or less."""
    widths = [max(cell_len(each) for each in column) for column in zip(names, *cells, strict=True)]
    return sum(min(width, FOLDED) if at == folds else width for at, width in enumerate(widths)) + 2 * (len(names) - 1)


def _stacked(title: str, cells: Sequence[Sequence[str]], names: Sequence[str]) -> int:
    sys.stdout.write(title + "\n")
    for row in cells:
        words = "  ".join(f"{name} {cell}".strip() for name, cell in zip(names, row, strict=True) if cell)
        lines = textwrap.wrap(words, width(), subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def printable(text: str) -> str:
    """What a caller of the API chose can't steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def say_line(text: str) -> int:
    """A line or more, printable."""
    sys.stdout.write(printable(text) + "\n")
    return 0


def width() -> int:
    return max(40, Console().width)


def print_json(value: Any) -> int:
    """As programs read it."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()
    return 0


def _when(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _minute(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%MZ")


def _share(value: float) -> str:
    return f"{value:.2%}"


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _network(asn: int) -> str:
    return f"AS{asn}" if asn else ""


def _list(values: Sequence[str]) -> str:
    return " ".join(values)


def _place(row: Row) -> str:
    return " ".join(part for part in (row.get("country", ""), _network(row.get("asn", 0))) if part) or "no place"


def count_words(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _moment(text: str) -> str:
    """RFC 3339 with microseconds, as people read it."""
    return _when(round(datetime.fromisoformat(text).timestamp() * 1e6))


def _iso(time_us: int | str) -> str:
    return _when(time_us).replace(" ", "T") if isinstance(time_us, int) else ""


OF_OTHERS: Final = {
    "visits from this network": "from those that it knows", "visits by this client": "by those that it knows",
}  # fmt: skip
"""Units whose band is no forecast of what was observed: it is of the networks, or clients, that the key knows."""
_ERROR_KINDS: Final = ("rate_401", "rate_403", "rate_404", "rate_429", "rate_4xx", "rate_5xx")
_FLEET: Final[tuple[Shown, ...]] = (
    ("key", lambda row: str(row["key_id"]), "left"),
    ("requests", lambda row: _number(row["requests"]), "right"),
    ("per hour", lambda row: _number(row["per_hour"]), "right"),
    ("errors", lambda row: _share(row.get("error_rate", 0.0)), "right"),
    ("last used", lambda row: _minute(row["last_used_us"]) if "last_used_us" in row else "", "left"),
    ("from", _place, "left"),
)
_PLACES: Final[tuple[Shown, ...]] = (
    ("place", _place, "left"),
    ("requests", lambda row: _number(row["requests"]), "right"),
    ("share", lambda row: _share(row["share"]), "right"),
    ("first", lambda row: _minute(row["first_us"]), "left"),
    ("last", lambda row: _minute(row["last_us"]), "left"),
)
_KEY_COLUMNS: Final[tuple[Column, ...]] = (
    *((name, str) for name in ("key_id", "environment", "requests", "per_hour", "busiest_hour", "error_rate")),
    *((name, str) for name in _ERROR_KINDS),
    ("last_used_us", _iso),
    *((name, str) for name in ("client_ip", "country", "asn")),
)
_PLACE_COLUMNS: Final[tuple[Column, ...]] = (
    *((name, str) for name in ("country", "asn", "requests", "share", "prefixes")),
    ("first_us", _iso),
    ("last_us", _iso),
)
_INCIDENT_COLUMNS: Final[tuple[Column, ...]] = (
    *((name, str) for name in ("incident_id", "key_id")),
    ("opened_us", _iso),
    ("last_us", _iso),
    *((name, str) for name in ("severity", "state", "rung", "events", "return_period_days")),
    ("detectors", _list),
    ("text", str),
)
