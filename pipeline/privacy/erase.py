"""`keywatch erase`: what is kept of a key, or of all keys of an owner, goes; what stays is said, and for how long.

First the workers are told to forget the key (`Forget` on the control topic): its state and open windows go at the next
checkpoint, its open incident ends without its content, and what was said of it before is not known any more. Then its
rows go from every table, by mutations that rewrite the parts. Run again it finds nothing left; a worker that was away
may have written in between. What is written down of it: who asked, when, why, which key (`controls`, kind forget).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import moments
from pipeline.asking.queries import ask, rewrite
from pipeline.errors import Retry
from schemas.control import Control, Feedback, Forget, Mute, control_id

POLL_S: Final = 1.0
COUNT_S: Final = 600.0
INSTEAD: Final = r"\1(erased)\2"
OF_KEY: Final = "has({keys:Array(String)}, key_id)"
ERASED: Final[dict[str, str]] = {
    "requests": OF_KEY,
    "requests_1m": OF_KEY,
    "requests_1h": OF_KEY,
    "key_source_1h": OF_KEY,
    "keys_last_used": OF_KEY,
    "findings": OF_KEY,
    "incidents": OF_KEY,
    "evidence": OF_KEY,
    "withheld": OF_KEY,
    "evictions": OF_KEY,
    "leaks": OF_KEY,
    "keys": OF_KEY,
    "hours": OF_KEY,
    "places": OF_KEY,
    "days": OF_KEY,  # after what it is counted from, so that nothing is counted again
    "place_days": OF_KEY,
    "applied": f"{OF_KEY} AND verdict != 'forget'",
    "controls": f"kind != 'forget' AND ({OF_KEY}"
    " OR (kind = 'mute' AND {owner:String} != '' AND JSONExtractString(body, 'owner') = {owner:String}))",
}
"""Table -> which of its rows go."""

SUMS: Final = ("days", "place_days")
"""Tables that ClickHouse makes of others each hour."""

KEPT: Final[dict[str, str]] = {
    "responses": "the audit of what was done to keys: key id, rung and reason, no address, no request; for ever",
    "console_log": "who looked at what in the console: the key id stands in the path; 400 days",
    "adoptions": "names no key",
}
"""Table -> why it is left alone, and for how long it keeps."""

KEPT_ELSEWHERE: Final = (
    ("api.requests, gateway.raw, api.requests.rejected, api.sightings, api.key_events", "the broker's retention"),
    ("api.incidents", "the broker's retention; incidents of many keys (spray, fleet) name up to 50 of them"),
    ("api.decisions", "28 days, or for as long as an act stands"),
    ("api.responses", "for ever: the audit's truth"),
    ("api.control", "what was said of the key goes when the topic is compacted, 400 days after it was said"),
    ("keywatch.pages", "the pages' former versions, until the topic is compacted: 10 min by default"),
    ("keywatch.lifecycle", "what was done to the key, until 100,000 younger keys of its partition have come"),
    (
        "api.keys",
        "what you declared: a tombstone under the key's id, or `keywatch keys import` of a list without it",
    ),
    ("backups, and what webhooks and chats were told", "yours to say"),
)
"""What no command of ours can take back: (where, for how long)."""


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one table that are this key's or owner's."""

    table: str
    rows: int


class _Owned(msgspec.Struct, frozen=True):
    key_id: str


def keys_of(client: Client, owner: str) -> list[str]:
    """Those whose incidents name this owner; the catalogue may know more. Raises Retry or Fatal."""
    sql = "SELECT DISTINCT key_id FROM incidents WHERE owner = {owner:String} ORDER BY key_id"
    return [each.key_id for each in ask(client, _Owned, sql, {"owner": owner})]


def count(client: Client, keys: Sequence[str], owner: str = "") -> list[Gone]:
    """How many rows of each table there are, versions that were replaced included. Raises Retry or Fatal."""
    parts = [
        f"SELECT '{table}' AS table, count() AS rows FROM {table} WHERE {which}"  # noqa: S608 (constants)
        for table, which in ERASED.items()
    ]
    return ask(client, Gone, " UNION ALL ".join(parts), {"keys": list(keys), "owner": owner})


def erase(client: Client, keys: Sequence[str], owner: str = "") -> Iterator[str]:
    """Rewrite each table without them, one after the other; yields its name once that is done.

    Incidents of many keys stay, since they are of others, too; the key's id in their text and body does not.
    Raises Retry or Fatal.
    """
    values = {"keys": list(keys), "owner": owner}
    for table, which in ERASED.items():
        if table in SUMS:
            _counted(client)
        rewrite(client, f"ALTER TABLE {table} DELETE WHERE {which}", values)
        yield table
    for key in keys:
        rewrite(client, _UNNAMED, {"pattern": _pattern(key), "instead": INSTEAD})


def _counted(client: Client) -> None:
    """Until no sum is being made of rows as they were before: it would be written after the key's sums are gone.

    Raises Retry where that takes too long.
    """
    until_s = time.monotonic() + COUNT_S
    while ask(client, _Running, _RUNNING, {}):
        if time.monotonic() >= until_s:
            raise Retry("ClickHouse has been summing up days for 10 minutes (system.view_refreshes): run this again")
        time.sleep(POLL_S / 10)


class _Running(msgspec.Struct, frozen=True):
    view: str


_RUNNING: Final = """
    SELECT view FROM system.view_refreshes WHERE database = currentDatabase()
        AND status IN ('Running', 'RunningOnAnotherReplica', 'Scheduling')"""
_UNNAMED: Final = """
    ALTER TABLE incidents UPDATE text = replaceRegexpAll(text, {pattern:String}, {instead:String}),
        body = replaceRegexpAll(body, {pattern:String}, {instead:String})
    WHERE match(body, {pattern:String}) OR match(text, {pattern:String})"""


def _pattern(key: str) -> str:
    """The key's id as a word of its own: `k1`, not the beginning of `k12`. For RE2."""
    return f"(^|[^A-Za-z0-9_.-]){re.escape(key)}($|[^A-Za-z0-9_.-])"


def words(keys: Sequence[str], reason: str, person: str) -> list[Control]:
    """What the workers are told."""
    at = moments.text(moments.now())
    return [Forget(key_id=key, at=at, reason=reason, by=person) for key in keys]


def said_before(known: Sequence[Control], keys: Sequence[str], owner: str = "") -> list[str]:
    """Record keys on the control topic that a tombstone takes away: what was said of these keys, or of the owner's."""
    of = set(keys)
    said = (each for each in known if isinstance(each, Feedback | Mute))
    found = (each for each in said if each.key_id in of or (isinstance(each, Mute) and owner and each.owner == owner))
    return sorted({control_id(each) for each in found})


class _Forgotten(msgspec.Struct, frozen=True):
    key_id: str


def forgotten(client: Client, keys: Sequence[str], since_us: int) -> set[str]:
    """Of which keys a worker has said that their state is gone; one that had none says nothing."""
    sql = """
        SELECT DISTINCT a.key_id AS key_id FROM applied AS a INNER JOIN controls AS c
            ON a.control_id = c.control_id AND a.seq = c.seq
        WHERE c.kind = 'forget' AND has({keys:Array(String)}, a.key_id)
            AND c.at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"""
    return {each.key_id for each in ask(client, _Forgotten, sql, {"keys": list(keys), "since": since_us})}


def wait(client: Client, keys: Sequence[str], since_us: int, wait_s: float) -> set[str]:
    """The keys of which nobody has said so within the time: without state, or no worker runs."""
    until_s = time.monotonic() + wait_s
    while silent := set(keys) - forgotten(client, keys, since_us):
        if time.monotonic() >= until_s:
            return silent
        time.sleep(POLL_S)
    return set()
