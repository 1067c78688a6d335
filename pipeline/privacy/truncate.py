"""`keywatch privacy truncate`: addresses of callers that are older than so many days are cut to their /24 or /48.

Tables that keep addresses for longer than that have them cut by mutations, which rewrite the one column of the parts
that hold such rows: ClickHouse's column TTL can only empty a column, and a TTL that sets values groups rows together.
Run it daily; a run with nothing to do touches no part. What is asked afterwards finds the network where it asked for
the address: `keywatch hunt` goes by the network anyway for what is older than `requests`.
"""

from __future__ import annotations

from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.queries import ask, rewrite

_CUT_COLUMN: Final = "toIPv6(cutIPv6(client_ip, 10, 1))"
"""A /48 of an IPv6, a /24 of an IPv4 within it."""

_IN_JSON: Final = {
    "v4": (r'"client_ip":"((?:::ffff:)?\d+\.\d+\.\d+)\.\d+"', r'"client_ip":"\1.0"'),
    "v6": (r'"client_ip":"([0-9a-f]{1,4}:[0-9a-f]{1,4}:[0-9a-f]{1,4}):[0-9a-f:.]+"', r'"client_ip":"\1::"'),
    "short": (r'"client_ip":"([0-9a-f]{1,4}(?::[0-9a-f]{1,4})?)::[0-9a-f][0-9a-f:.]*"', r'"client_ip":"\1::"'),
}
"""Addresses within JSON, wherever they stand; one whose `::` comes early is cut to what stands before it."""


def _cut_text(column: str) -> str:
    text = column
    for name in _IN_JSON:
        text = f"replaceRegexpAll({text}, {{{name}:String}}, {{{name}_cut:String}})"
    return text


CUT: Final[dict[str, tuple[str, str, str]]] = {
    "requests": ("client_ip", _CUT_COLUMN, "ts"),
    "evidence": ("client_ip", _CUT_COLUMN, "ts"),
    "keys_last_used": ("client_ip", _CUT_COLUMN, "last_used"),
    "findings": ("sample", _cut_text("sample"), "at"),
    "incidents": ("body", _cut_text("body"), "last_at"),
    "controls": ("body", _cut_text("body"), "at"),
}
"""Table -> (column that holds addresses, what is left of it, the row's time)."""

WITHOUT: Final[dict[str, str]] = {
    "requests_1m": "counts addresses",
    "requests_1h": "counts addresses",
    "key_source_1h": "keeps the /24 or /48 from the start",
    "hours": "counts requests",
    "places": "countries",
    "days": "counts requests",
    "place_days": "countries",
    "keys": "what is declared of keys",
    "responses": "no address; fences name networks",
    "adoptions": "no address",
    "applied": "no address",
    "withheld": "no address",
    "evictions": "no address",
    "leaks": "where a secret was seen, not who used it",
    "console_log": "addresses of your own people, for 400 days",
}
"""Table -> why no caller's address has to be cut there."""


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one table whose address is older and not cut yet."""

    table: str
    rows: int


def _where(table: str) -> str:
    column, cut, at = CUT[table]
    return f"{at} < now64(6) - toIntervalDay({{days:UInt32}}) AND {column} != {cut}"


def _values(days: int) -> dict[str, object]:
    patterns = {name: pattern for name, (pattern, _) in _IN_JSON.items()}
    return {"days": days, **patterns, **{f"{name}_cut": cut for name, (_, cut) in _IN_JSON.items()}}


def count(client: Client, days: int) -> list[Whole]:
    """What a run would cut, versions of rows that were replaced included. Raises Retry or Fatal."""
    parts = [
        f"SELECT '{table}' AS table, count() AS rows FROM {table} WHERE {_where(table)}"  # noqa: S608 (constants)
        for table in CUT
    ]
    return ask(client, Whole, " UNION ALL ".join(parts), _values(days))


def truncate(client: Client, days: int) -> list[Whole]:
    """Cut them, table by table, and wait until it is done; returns what was cut. Raises Retry or Fatal."""
    found = [each for each in count(client, days) if each.rows]
    for each in found:
        column, cut, _ = CUT[each.table]
        rewrite(client, f"ALTER TABLE {each.table} UPDATE {column} = {cut} WHERE {_where(each.table)}", _values(days))
    return sorted(found, key=lambda each: each.table)
