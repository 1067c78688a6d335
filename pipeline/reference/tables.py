"""Every ClickHouse table and view: columns, order, lifetime; from `schemas/rows.py` and the migrations."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import schemas
from pipeline.reference.words import comments, field_words, module_source, table
from schemas import rows
from schemas.event import Event
from schemas.incident import Finding, Incident
from schemas.key import Key
from schemas.response import Response
from schemas.rows import COPIES, TABLES

MIGRATIONS: Final = Path(schemas.__file__).parent / "clickhouse"
HEAD: Final = """# ClickHouse

`keywatch migrate` makes and changes the tables. Rows are full values: readers use the views (`v_...`), which take the
newest version of each row and sum over parts. `[clickhouse] expire = false` takes the lifetimes off.

"""

MESSAGES: Final[dict[str, type]] = {
    "requests": Event, "evidence": Event, "key_source_1h": Event, "keys_last_used": Event, "findings": Finding,
    "incidents": Incident, "withheld": Incident, "responses": Response, "keys": Key,
}  # fmt: skip
"""Table -> the message whose fields its columns are named after."""
USUAL: Final = {
    "key_id": "which key",
    "incident_id": "of which incident",
    "control_id": "of which word of people's",
    "at": "when",
    "ts": "when the gateway got the request",
    "country": "ISO 3166 alpha-2 of the caller's network",
    "asn": "number of the caller's network; 0 is not known",
    "client": "family of the user agent",
    "environment": "live or test, as declared or as the gateway says",
    "late": "1: came after its window had ended; stored, not judged",
    "one_in": "one row stands for so many (`clickhouse.sample_one_in`)",
    "epoch": "id of the topic; another one after it was made anew",
    "partition": "of the topic",
    "offset": "of the record",
    "part": "one life of this window in the worker's memory",
    "version": "the highest of one row counts",
    "window_start": "begin of the minute or hour",
    "requests": "how many",
    "first_ts": "of the first request",
    "last_ts": "of the last request",
    "detectors": "names of those that found it",
    "body": "JSON of the whole message",
    "text": "in words",
    "reason": "in words",
    "by": "who said it",
    "verdict": "expected or malicious",
}
"""What a column of this name is wherever it has no words of its own."""


@dataclass(frozen=True)
class Made:
    """What a migration says of a table or view."""

    name: str
    about: str  # the comment above it
    lifetime: str  # "14 days"; "" is for ever
    order: str
    select: str  # of a view


def page() -> str:
    """Markdown."""
    every = {made.name: made for made in statements()}
    tables = "\n".join(_table(every[name]) for name in TABLES)
    copies = [_copy(every[name]) for name in COPIES]
    views = [(f"`{made.name}`", f"`{made.select}`") for made in every.values() if made.select]
    copied = "\n## What ClickHouse fills by itself\n\n" + table(("table", "", "kept", "ordered by"), copies)
    return HEAD + tables + copied + "\n## Views\n\n" + table(("view", "reads"), views)


def statements() -> list[Made]:
    """Every `CREATE` of the migrations, in their order."""
    found = []
    pattern = re.compile(r"((?:^--[^\n]*\n)*)^CREATE (TABLE|VIEW) IF NOT EXISTS (\w+)(.*?);", re.DOTALL | re.MULTILINE)
    for path in sorted(MIGRATIONS.glob("*.sql")):
        for about, what, name, body in pattern.findall(path.read_text()):
            days = re.search(r"^TTL .*?INTERVAL (\d+) DAY", body, re.MULTILINE)
            order = re.search(r"^ORDER BY \(?([^)\n]*)\)?", body, re.MULTILINE)
            words = " ".join(line.removeprefix("--").strip() for line in about.splitlines())
            reads = re.search(r"\bFROM (\w+)", body)
            select = reads[1] if what == "VIEW" and reads else ""
            found.append(Made(name, words, f"{days[1]} days" if days else "", order[1] if order else "", select))
    return found


def column_words() -> dict[str, dict[str, str]]:
    """Name of a tuple in `schemas/rows.py` -> column -> its comment."""
    source = module_source("schemas.rows")
    said = comments(source)
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Tuple):
            words = found[node.target.id] = {}
            for item in node.value.elts:
                if isinstance(item, ast.Starred) and isinstance(item.value, ast.Name):
                    words |= found[item.value.id]
                elif isinstance(item, ast.Tuple) and isinstance(item.elts[0], ast.Constant):
                    words[str(item.elts[0].value)] = said.get(item.lineno, "")
    return found


def words_of(name: str) -> dict[str, str]:
    """Column of a table -> what it is: its own comment, else that of the message's field, else of such columns."""
    tuples = column_words()
    own = next(tuples[each] for each in tuples if getattr(rows, each) is TABLES[name])
    sent = field_words(MESSAGES[name]) if name in MESSAGES else {}
    return {column: text or sent.get(column, "") or USUAL.get(column, "") for column, text in own.items()}


def _copy(made: Made) -> tuple[str, str, str, str]:
    return f"`{made.name}`", made.about, made.lifetime or "for ever", made.order


def _table(made: Made) -> str:
    columns, words = TABLES[made.name], words_of(made.name)
    about = f"{made.about}\n\n" if made.about else ""
    kept = f"Kept {made.lifetime}" if made.lifetime else "Kept for ever"
    lines = [(f"`{name}`", kind, words[name]) for name, kind in columns]
    return f"## `{made.name}`\n\n{about}{kept}; ordered by {made.order}.\n\n" + table(("column", "type", ""), lines)
