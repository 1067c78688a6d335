"""Grafana's macros and variables in a panel's SQL, as its ClickHouse plugin and its template service write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Chosen = Mapping[str, str | Sequence[str]]
"""What is chosen of a variable; a name that is missing has "All" chosen."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The time range in seconds, the width of a point, and what is chosen."""

    from_s: int
    to_s: int
    step_s: int = 60
    chosen: Chosen = field(default_factory=dict)


def expand(sql: str, asked: Asked) -> str:
    """The SQL that ClickHouse gets."""
    start, end = f"toDateTime({asked.from_s})", f"toDateTime({asked.to_s})"
    sql = _conditions(sql, asked.chosen)
    sql = re.sub(r"\$\{(\w+):singlequote\}", lambda found: _quoted(asked.chosen[found[1]]), sql)
    sql = re.sub(r"\$\{(\w+)\}", lambda found: str(asked.chosen[found[1]]), sql)
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 >= {start} AND \1 <= {end}", sql)
    interval = rf"toStartOfInterval(toDateTime(\1), INTERVAL {asked.step_s} second)"
    sql = re.sub(r"\$__timeInterval\(([\w.]+)\)", interval, sql)
    sql = sql.replace("$__fromTime", start).replace("$__toTime", end).replace("$__interval_s", str(asked.step_s))
    assert "$" not in sql, sql
    return sql


def _conditions(sql: str, chosen: Chosen) -> str:
    """$__conditionalAll(condition, $name): the condition, or 1=1 while "All" is chosen; the innermost one first."""
    macro = "$__conditionalAll("
    while macro in sql:
        head, _, rest = sql.rpartition(macro)
        inside, tail = _closing(rest)
        condition, _, name = inside.rpartition(",")
        sql = head + (condition if name.strip().removeprefix("$") in chosen else "1=1") + tail
    return sql


def _closing(text: str) -> tuple[str, str]:
    """(what stands before the bracket that closes, what follows)."""
    depth = 1
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:i], text[i + 1 :]
    raise AssertionError(f"no closing bracket: {text}")


def _quoted(value: str | Sequence[str]) -> str:
    values = [value] if isinstance(value, str) else value
    return ",".join("'" + each.replace("'", "\\'") + "'" for each in values)
