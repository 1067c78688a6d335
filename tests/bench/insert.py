"""An INSERT of a table's columns as `schemas/rows.py` has them: one more column breaks no bench."""

from __future__ import annotations

from typing import Final

from schemas.rows import TABLES

PLAIN: Final = {
    "DateTime64": "now64(6)",
    "DateTime(": "now()",
    "Nullable": "NULL",
    "Array": "[]",
    "IPv6": "toIPv6('::1')",
}


def insert(table: str, source: str, **columns: str) -> str:
    """An INSERT of all columns, those that are not given with a plain value."""
    if unknown := columns.keys() - dict(TABLES[table]).keys():
        raise ValueError(f"{table} has no {', '.join(sorted(unknown))}")
    values = [f"{columns.get(name) or _plain(kind)} AS {name}" for name, kind in TABLES[table]]
    names = ", ".join(name for name, _ in TABLES[table])
    return f"INSERT INTO {table} ({names}) SELECT {', '.join(values)} FROM {source}"


def _plain(kind: str) -> str:
    found = next((value for name, value in PLAIN.items() if kind.startswith(name)), "")
    return found or ("''" if "String" in kind else "1")
