"""What is declared of one key, from ClickHouse's `keys`, where the responder writes what it reads: for `keywatch keys`.

It is for people to read: what judges or acts goes by the catalogue itself.
"""

from __future__ import annotations

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.queries import ask
from pipeline.moments import second_of_us


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What is declared of a key, as the responder last read it."""

    owner: str
    status: str
    criticality: str
    protected: bool
    decoy: bool
    ended_us: int  # since when it is revoked or expired; 0 where nobody says


def declared_of(client: Client, key: str) -> Declared | None:
    """None where nobody declares it, or no responder has read that yet."""
    sql = """
        SELECT owner, status, criticality, protected = 1 AS protected, decoy = 1 AS decoy,
            ifNull(toUnixTimestamp64Micro(ended_at), 0) AS ended_us
        FROM keys FINAL WHERE key_id = {key:String} AND gone = 0"""
    return next(iter(ask(client, Declared, sql, {"key": key})), None)


def words(declared: Declared | None) -> str:
    """In one line."""
    if declared is None:
        return "by nobody, or no responder has read it yet"
    since = f" since {second_of_us(declared.ended_us)}" if declared.ended_us else ""
    flags = (name for name in ("protected", "decoy") if getattr(declared, name))
    told = (f"{declared.status}{since}", f"owner {declared.owner or 'not declared'}", declared.criticality, *flags)
    return ", ".join(told)
