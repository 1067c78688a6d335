"""Rows of any table out of a few given columns; the rest gets plain values that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.rows import TABLES

AT_US = 1_700_000_000_000_000


def _plain(kind: str, index: int) -> Any:
    if kind.startswith("DateTime64"):
        return AT_US + index
    if kind.startswith("DateTime("):
        return AT_US // 1_000_000
    if kind.startswith("Nullable"):
        return None
    if kind.startswith("Array"):
        return []
    if kind == "IPv6":
        return "192.0.2.1"
    if kind.startswith("Float"):
        return 0.5
    return 1 if "Int" in kind else "x"


def rows_of(table: str, count: int, **columns: Sequence[Any]) -> dict[str, list[Any]]:
    """`count` rows of `table`; `columns` replaces whole columns and must have that length."""
    rows = {name: [_plain(kind, i) for i in range(count)] for name, kind in TABLES[table]}
    unknown = columns.keys() - rows.keys()
    assert not unknown, unknown
    return rows | {name: list(values) for name, values in columns.items()}
