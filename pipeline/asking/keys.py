"""`keywatch keys audit`, `manifest`, `rotations` and `keywatch hunt` as tables, JSON or CSV.

Each function prints and returns the exit code: 0, or 1 where a check that the caller named found a fault.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline import moments
from pipeline.asking import hunt
from pipeline.asking.answers import Column, Shown, connected, count_words, export_rows, print_json, say_line, show_table
from pipeline.asking.hunt import Quarry, Touched
from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.keys import audit as audit_keys
from pipeline.keys import manifest_policies, rotations
from pipeline.keys.audit import CHECKS, GRADES
from pipeline.keys.catalogue import Catalogue, read_catalogue
from pipeline.keys.departures import read_departures
from pipeline.keys.manifest import DAYS, manifest
from schemas.key_event import KeyEvent

FOUND: Final = 1
MOST_ROWS: Final = 200
DEFAULT_SPAN: Final = timedelta(days=14)


def print_audit(config: Config, checks: Sequence[str], fail_on: Sequence[str], output: str) -> int:
    """The faults of all keys, or those of some checks. Raises ConfigError, Fatal, Retry."""
    _known(checks, CHECKS, "--check")
    _known(fail_on, (*GRADES, *CHECKS), "--fail-on")
    catalogue, gone = asyncio.run(_said(config))
    with connected(config.clickhouse) as client:
        faults = audit_keys.audit(audit_keys.look(client, catalogue), catalogue, gone, config.key_life)
    faults = [fault for fault in faults if not checks or fault.check in checks]
    code = FOUND if audit_keys.failing(faults, fail_on) else 0
    rows = [msgspec.structs.asdict(fault) for fault in faults]
    if output != "table":
        export_rows(rows, _FAULT_COLUMNS, output)
        return code
    keys = len({fault.key_id for fault in faults})
    say_line(f"{len(catalogue):,} keys declared; {len(faults):,} faults of {keys:,} keys")
    if len(rows) > MOST_ROWS:
        say_line(f"the first {MOST_ROWS}; all: keywatch keys audit -o json")
    if rows:
        show_table("what to mend, the worst first", rows[:MOST_ROWS], _FAULTS, len(_FAULTS) - 1)
    return code


def _known(words: Sequence[str], allowed: Sequence[str], option: str) -> None:
    for word in words:
        if word not in allowed:
            raise ConfigError(f"{option} {word!r} is unknown; there are {', '.join(allowed)}")


async def _said(config: Config) -> tuple[Catalogue, dict[str, KeyEvent]]:
    return await read_catalogue(config), await read_departures(config)


def print_manifest(config: Config, key_id: str, form: str, days: int, head_room: float) -> int:
    """The policy on stdout, what it leaves open on stderr, so that the one can be piped into a gateway's tool."""
    if form not in manifest_policies.FORMATS:
        raise ConfigError(f"unknown gateway '{form}'; there are {', '.join(manifest_policies.FORMATS)}")
    catalogue = asyncio.run(read_catalogue(config))
    declared = catalogue.get(key_id)
    with connected(config.clickhouse) as client:
        found = manifest(client, key_id, declared, days or DAYS, head_room or config.key_life.head_room)
    owned = sum(key.owner == found.owner for _, key in catalogue.items()) - 1 if found.owner else 0
    notes = [
        f"{found.requests:,} requests on {found.used_days} of the last {found.looked_days} days",
        *manifest_policies.shortcomings(found, form, owned),
        *(f"not seen: {words}" for words in found.not_seen),
        *(
            f"left out: {row.dimension} {row.value} ({row.requests:,} requests on {row.days} days)"
            for row in found.left_out
        ),
    ]
    sys.stderr.write("".join(f"keywatch: {_printable(note)}\n" for note in notes))
    return print_json(manifest_policies.rendered(found, form))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def print_rotations(config: Config, fail_on: Sequence[str], metrics: Path | None, output: str) -> int:
    """All rotations; `metrics`: a file for Prometheus' textfile collector. Raises ConfigError, Fatal, Retry."""
    _known(fail_on, ("due", "overdue", "drained"), "--fail-on")
    catalogue = asyncio.run(read_catalogue(config))
    with connected(config.clickhouse) as client:
        found = rotations.rotations(client, catalogue, config.key_life)
    if metrics is not None:
        rotations.write_metrics(found, metrics)
    code = FOUND if any(row.state in fail_on for row in found) else 0
    if output == "json":
        print_json(found)
        return code
    rows = [rotations.plain(row) for row in found]
    if output == "csv":
        export_rows(rows, _ROTATION_COLUMNS, output)
        return code
    if not rows:
        say_line("no rotation goes on: declare rotated_from or rotated_to in the catalogue")
        return code
    show_table("rotations, by their deadline", rows, _ROTATIONS, len(_ROTATIONS) - 1)
    for row in found:
        if row.sources:
            sources = [msgspec.structs.asdict(source) for source in row.sources]
            show_table(f"still on {row.old}, last 7 days", sources, _SOURCES)
    return code


def quarry_of(words: dict[str, str], as_of_us: int) -> Quarry:
    """The command's options; a span reaches back from the newest use. Raises ConfigError."""
    end = moments.moment(words["to"], "--to", moments.at_us(as_of_us)) if words["to"] else moments.at_us(as_of_us)
    begin = _begin(words["from"], end)
    asn = words["asn"].upper().removeprefix("AS")
    if asn and not (asn.isdecimal() and int(asn) < 1 << 32):
        raise ConfigError(f"--asn {words['asn']!r}: give a number, or AS64500")
    if begin >= end:
        raise ConfigError("--from must lie before --to")
    return Quarry(
        ip=words["ip"], asn=int(asn or 0), client=words["client"], route=words["route"],
        from_us=moments.us_of(begin), to_us=moments.us_of(end) + 1,
    )  # fmt: skip


def _begin(text: str, end: Any) -> Any:
    return moments.past(text, "--from", end) if text else end - DEFAULT_SPAN


def print_hunt(config: Config, words: dict[str, str], output: str) -> int:
    """Every key touched, the first one first. Raises ConfigError, Fatal, Retry."""
    with connected(config.clickhouse) as client:
        quarry = quarry_of(words, hunt.as_of_us(client) or moments.us_of(moments.now()))
        found = hunt.hunt(client, quarry)
    if len(found) == hunt.MOST_KEYS:
        sys.stderr.write(f"keywatch: the first {hunt.MOST_KEYS:,} keys only: narrow the span\n")
    rows = [msgspec.structs.asdict(row) for row in found]
    if output != "table":
        return export_rows(rows, _TOUCHED_COLUMNS, output)
    span = f"from {moments.of_us(quarry.from_us)} to {moments.of_us(quarry.to_us)}"
    if not rows:
        return say_line(f"no key was touched {span}")
    say_line(f"{count_words(len(rows), 'key')} touched {span}{_by_words(found)}")
    rows.sort(key=lambda row: row["by"] == "network")  # what is certain first
    if len(rows) > hunt.SHOWN_KEYS:
        say_line(f"the first {hunt.SHOWN_KEYS}; all: -o json or -o csv")
    return show_table("keys, by their first touch", rows[: hunt.SHOWN_KEYS], _TOUCHED)


def _by_words(found: Sequence[Touched]) -> str:
    wide, exact = (sum(row.by == by for row in found) for by in ("network", "address"))
    if not wide:
        return ""
    return (
        f"; {exact:,} of them by this very address, {wide:,} from its /24 or /48 (no request of theirs with this "
        "address is kept; single requests are, for 14 days)"
    )


def _outcomes(row: dict[str, Any]) -> str:
    return " ".join(f"{name} {count:,}" for name, count in sorted(row["outcomes"].items(), key=lambda each: -each[1]))


def _iso(time_us: int) -> str:
    return moments.of_us(time_us).replace(" ", "T") if time_us else ""


_FAULTS: Final[tuple[Shown, ...]] = (
    ("key", lambda row: str(row["key_id"]), "left"),
    ("grade", lambda row: str(row["grade"]), "left"),
    ("check", lambda row: str(row["check"]), "left"),
    ("owner", lambda row: str(row["owner"]), "left"),
    ("why, and what to do", lambda row: f"{row['reason']}: {row['todo']}", "left"),
)
_FAULT_COLUMNS: Final[tuple[Column, ...]] = tuple(
    (name, str) for name in ("key_id", "check", "grade", "owner", "criticality", "reason", "todo")
)
_ROTATIONS: Final[tuple[Shown, ...]] = (
    ("old", lambda row: str(row["old"]), "left"),
    ("new", lambda row: str(row["new"]), "left"),
    ("state", lambda row: str(row["state"]), "left"),
    ("on the old", lambda row: f"{row['old_share']:.0%}", "right"),
    ("deadline", lambda row: moments.of_us(row["deadline_us"]) if row["deadline_us"] else "not known", "left"),
    ("safe to revoke", lambda row: ("now: " if row["drained"] else "no: ") + str(row["reason"]), "left"),
)
_ROTATION_COLUMNS: Final[tuple[Column, ...]] = (
    *((name, str) for name in ("old", "new", "owner", "state")),
    ("began_us", _iso), ("deadline_us", _iso),
    *((name, str) for name in ("old_requests_24h", "new_requests_24h", "old_share", "drained")),
    ("since_us", _iso), ("safe_at_us", _iso), ("reason", str),
)  # fmt: skip
_SOURCES: Final[tuple[Shown, ...]] = (
    ("network", lambda row: str(row["prefix"]) or "not known", "left"),
    ("place", lambda row: f"{row['country']} AS{row['asn']}".strip(), "left"),
    ("client", lambda row: str(row["client"]) or "-", "left"),
    ("requests", lambda row: f"{row['requests']:,}", "right"),
    ("last", lambda row: moments.of_us(row["last_us"]), "left"),
)
_TOUCHED: Final[tuple[Shown, ...]] = (
    ("key", lambda row: str(row["key_id"]), "left"),
    ("first", lambda row: moments.of_us(row["first_us"]), "left"),
    ("last", lambda row: moments.of_us(row["last_us"]), "left"),
    ("requests", lambda row: f"{row['requests']:,}", "right"),
    ("routes", lambda row: f"{row['routes']:,}", "right"),
    ("outcomes", _outcomes, "left"),
    ("by", lambda row: str(row["by"]), "left"),
)
_TOUCHED_COLUMNS: Final[tuple[Column, ...]] = (
    *((name, str) for name in ("key_id", "by", "requests", "succeeded")),
    ("outcomes", lambda outcomes: " ".join(f"{name}={count}" for name, count in sorted(outcomes.items()))),
    *((name, str) for name in ("bytes_out", "routes")), ("first_us", _iso), ("last_us", _iso),
)  # fmt: skip
