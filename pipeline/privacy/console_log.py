"""What `console_log` knows: who looked at which page of the console, and did what."""

from __future__ import annotations

from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.queries import ask

MOST_LINES: Final = 1000


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One request to the console."""

    at_us: int
    person: str
    role: str
    method: str
    path: str
    status: int
    address: str
    detail: str


def console_lines(
    client: Client, since_us: int, person: str = "", about: str = "", limit: int = MOST_LINES
) -> list[Line]:
    """Who looked at what, the newest first; `about`: a part of the path, such as a key's id."""
    sql = """
        SELECT toUnixTimestamp64Micro(at) AS at_us, person, role, method, path, status, address, detail
        FROM console_log
        WHERE at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')
            AND ({person:String} = '' OR person = {person:String})
            AND ({about:String} = '' OR position(path, {about:String}) > 0)
        ORDER BY at DESC, person, path LIMIT {limit:UInt32}"""
    return ask(client, Line, sql, {"since": since_us, "person": person, "about": about, "limit": limit})
