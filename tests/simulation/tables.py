"""ClickHouse in memory: ReplacingMergeTree as FINAL reads it, with the keys and versions of the migrations themselves.

Two writes of one row with the same version must be equal: ClickHouse would keep either. Not so adoptions: at one offset
another version may be adopted than right before a crash, with what is declared by then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.column import Column, plain
from pipeline.errors import Fatal
from pipeline.ports import Columns
from pipeline.sinks.clickhouse import checked
from schemas.rows import COPIES, TABLES

MIGRATIONS: Final = Path(__file__).parents[2] / "schemas" / "clickhouse"
TABLE: Final = re.compile(
    r"CREATE TABLE IF NOT EXISTS (\w+)\n.*?ENGINE = ReplacingMergeTree(?:\((\w+)\))?.*?ORDER BY \(?([\w, ]+)\)?", re.S
)

Row = tuple[Any, ...]
Identity = tuple[Any, ...]


def layouts() -> dict[str, tuple[tuple[str, ...], str]]:
    """table -> (columns of its key, column of its version or "") as the migrations say."""
    text = "\n".join(path.read_text() for path in sorted(MIGRATIONS.glob("*.sql")) if ".down" not in path.name)
    found = TABLE.findall(text)
    return {name: (tuple(key.split(", ")), version) for name, version, key in found if name not in COPIES}


LAYOUTS: Final = layouts() | {"counts": (("key_id",), "version")}  # the counting core's


@dataclass
class Tables:
    """What has been written, by table and key: the newest version. Implements RowSink, each write in one go."""

    rows: dict[str, dict[Identity, dict[str, Any]]] = field(default_factory=dict)
    refuse_other_content: bool = True

    async def write(self, table: str, rows: Columns) -> None:
        """As ClickHouseSink: raises Fatal where the columns don't fit."""
        self.apply(table, rows)

    async def close(self) -> None:
        """Nothing to release."""

    def apply(self, table: str, rows: Columns) -> None:
        """Merge rows in."""
        if table in TABLES:
            names, columns = checked(table, rows)
        elif table in LAYOUTS:
            names, columns = list(rows), list(rows.values())
        else:
            raise Fatal(f"no table {table!r} in schemas/rows.py")
        key, version = LAYOUTS[table]
        held = self.rows.setdefault(table, {})
        for values in zip(*map(_values, columns), strict=True):
            row = dict(zip(names, values, strict=True))
            identity = tuple(row[name] for name in key)
            old = held.get(identity)
            older = old is not None and bool(version) and row[version] < old[version]
            same = old is not None and (not version or row[version] == old[version])
            if same and self.refuse_other_content and table != "adoptions":
                assert row == old, f"{table}: one row, one version, other content: {row} after {old}"
            if not older:
                held[identity] = row

    def column(self, table: str, name: str) -> list[Any]:
        """One column as FINAL gives it, in its own order."""
        return sorted(row[name] for row in self.rows.get(table, {}).values())


def _values(column: Column) -> list[Any]:
    """The values as Python's own, so that rows can be compared."""
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in plain(column)]
