"""`keywatch coverage`: keys that are not really watched, each with why, the critical ones first.

Why a key isn't: its state was evicted and it has not been used since (it would begin anew); somebody muted it; it is
too young, so that it is judged by its peers and first uses test nothing; its incident has been open for over a day,
and what is under it isn't learned; its requests don't tell the address, client or route that detectors need; a
detector abstains: geography where no address is of a network that the databases know (private ones, a proxy nobody
declared), egress where no answer has a size, and in the first week of the key's life; a key of hundreds of operations
has filled the filter that knows them (`detectors.novel_operation`), so that nothing is new any more. Off hours abstain
for a key that is used round the clock, which has none: that is no gap, and not listed.
Which format an event came by is not stored: what `intake.format` can't tell (refused requests, for errors) is said of
all keys at once, and not of each.
Undeclared keys are watched, but protected; keys that were declared and never used have nothing to watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import moments
from pipeline.asking.answers import Shown, connected, print_json, say_line, show_table
from pipeline.asking.queries import ask
from pipeline.config.tree import Config
from pipeline.control.controls import Controls
from pipeline.control.topic import read_controls
from pipeline.formats import sees_of
from pipeline.intake.sample import BLIND
from pipeline.keys.catalogue import Catalogue, read_catalogue
from pipeline.times import micros
from schemas.control import Mute
from schemas.key import CRITICALITIES

YOUNG_H: Final = 24  # `detectors.request_level.YOUNG_H` awake hours: at least as long by the clock
OPEN_H: Final = 24
DAYS: Final = 7
MOST_ROWS: Final = 200
WHY: Final = ("evicted", "muted", "young", "open", "blind", "abstaining")
EGRESS_H: Final = 7 * 24  # `detectors.egress.Egress.least_days`
OPERATIONS: Final = 485  # of which `detectors.novel_operation`'s filter is full on average, by its bits
SIZED: Final = 100  # accepted requests: a key of fewer may just not have read anything
OPERATION_DAYS: Final = 30  # it forgets nothing: what is seen lately is the least that it holds
_AS_OF: Final = "(SELECT max(last_used) FROM keys_last_used)"


class Unwatched(msgspec.Struct, frozen=True, kw_only=True):
    """One key and one reason."""

    key_id: str
    why: str
    detail: str


def print_coverage(config: Config, output: str) -> int:
    """All of them; as a table the first 200. Raises Fatal, Retry, ConfigError."""
    catalogue, controls = asyncio.run(_said(config))
    with connected(config.clickhouse) as client:
        used = keys_used(client)
        found = unwatched(client, controls, catalogue, moments.us_of(moments.now()))
    rows, untold = ranked(found, catalogue), untold_by(config.intake.format)
    if output == "json":
        count = {"keys_used": used, "declared": len(catalogue), "untold": untold}
        return print_json(count | {"unwatched": rows})
    keys = len({row["key_id"] for row in rows})
    say_line(f"{used:,} keys used in the last {DAYS} days, {len(catalogue):,} declared; not really watched: {keys:,}")
    for words in untold:
        say_line(f"of all keys: {config.intake.format} does not tell {words}")
    if len(rows) > MOST_ROWS:
        say_line(f"the first {MOST_ROWS} of {len(rows):,} reasons; all: keywatch coverage -o json")
    return show_table("not really watched", rows[:MOST_ROWS], _COLUMNS, len(_COLUMNS) - 1) if rows else 0


async def _said(config: Config) -> tuple[Catalogue, Controls]:
    return await read_catalogue(config), await read_controls(config)


def untold_by(format_name: str) -> list[str]:
    """What this format of logs can't tell of any key, in words."""
    sees = sees_of(format_name)
    return [words for bit, words in BLIND if not sees & bit]


class _Count(msgspec.Struct, frozen=True):
    keys: int
    as_of_us: int


def keys_used(client: Client) -> int:
    """In the last `DAYS` days of use."""
    sql = f"SELECT count() AS keys, 0 AS as_of_us FROM keys_last_used FINAL WHERE last_used > {_AS_OF} - INTERVAL {DAYS} DAY"  # noqa: S608, E501
    return ask(client, _Count, sql, {})[0].keys


def unwatched(client: Client, controls: Controls, catalogue: Catalogue, now_us: int = 0) -> list[Unwatched]:
    """Every key and reason, by what ClickHouse, the control topic and the catalogue know.

    now_us: the wall clock: a mute that was lifted since the newest use is over, whenever the next one comes.
    """
    sql = "SELECT 0 AS keys, toUnixTimestamp64Micro(max(last_used)) AS as_of_us FROM keys_last_used"
    as_of_us = ask(client, _Count, sql, {})[0].as_of_us
    return [
        *ask(client, Unwatched, _EVICTED, {}),
        *muted(controls, catalogue, max(as_of_us, now_us)),
        *ask(client, Unwatched, _YOUNG, {"hours": YOUNG_H}),
        *ask(client, Unwatched, _OPEN, {"hours": OPEN_H}),
        *ask(client, Unwatched, _BLIND, {"sized": SIZED}),
        *ask(client, Unwatched, _FEW_BYTES, {"young": YOUNG_H, "hours": EGRESS_H}),
        *ask(client, Unwatched, _FULL, {"operations": OPERATIONS, "days": OPERATION_DAYS}),
    ]


def muted(controls: Controls, catalogue: Catalogue, as_of_us: int) -> Iterable[Unwatched]:
    """Keys under a mute that holds for what comes next; a mute of a detector alone leaves the others."""
    for _, control in controls.holding.values():
        if not isinstance(control, Mute) or control.detector or micros(control.until) <= as_of_us:
            continue
        detail = f"until {moments.of_us(micros(control.until))} by {control.owner_of_mute}: {control.reason}"
        if control.key_id:
            yield Unwatched(key_id=control.key_id, why="muted", detail=detail)
            continue
        for key_id, key in catalogue.items():
            if key.owner == control.owner:
                yield Unwatched(key_id=key_id, why="muted", detail=detail)


def ranked(found: list[Unwatched], catalogue: Catalogue) -> list[dict[str, Any]]:
    """Critical keys first, then by reason."""
    rows = []
    for each in found:
        key = catalogue.get(each.key_id)
        criticality, owner = (key.criticality, key.owner) if key else ("undeclared", "")
        rows.append({"criticality": criticality, "owner": owner, **msgspec.structs.asdict(each)})
    rank = {name: -i for i, name in enumerate(("undeclared", *CRITICALITIES))}
    return sorted(rows, key=lambda row: (rank[row["criticality"]], WHY.index(row["why"]), row["key_id"]))


_EVICTED: Final = """
    SELECT e.key_id AS key_id, 'evicted' AS why,
        concat('its state made room at ', formatDateTime(e.at, '%Y-%m-%d %H:%iZ', 'UTC'),
            '; not used since: raise worker.max_keys_per_partition') AS detail
    FROM evictions AS e FINAL LEFT JOIN (SELECT key_id, last_used FROM keys_last_used FINAL) AS u USING key_id
    WHERE u.last_used <= e.last_used ORDER BY key_id"""
_YOUNG: Final = f"""
    SELECT key_id, 'young' AS why,
        concat('first used ', formatDateTime(first_used, '%Y-%m-%d %H:%iZ', 'UTC'), ': judged by its peers') AS detail
    FROM keys_last_used FINAL
    WHERE first_used > {_AS_OF} - toIntervalHour({{hours:UInt16}}) ORDER BY key_id"""  # noqa: S608
_OPEN: Final = f"""
    SELECT key_id, 'open' AS why,
        concat('incident ', substring(incident_id, 1, 12), ' is open since ',
            formatDateTime(opened_at, '%Y-%m-%d %H:%iZ', 'UTC'), ': nothing is learned; keywatch feedback') AS detail
    FROM incidents FINAL
    WHERE state = 'open' AND rule IN ('visit', 'slow', 'proof')
        AND opened_at < {_AS_OF} - toIntervalHour({{hours:UInt16}}) ORDER BY key_id"""  # noqa: S608
_BLIND: Final = f"""
    SELECT key_id, lack.1 AS why, lack.2 AS detail FROM (
        SELECT key_id, arrayFilter(x -> x.2 != '', [
            ('blind', if(max(prefix) != '' AND max(client) != '' AND max(route) != '', '',
                concat('its requests tell no ', arrayStringConcat(arrayFilter(x -> x != '', [
                    if(max(prefix) = '', 'address', ''), if(max(client) = '', 'client', ''),
                    if(max(route) = '', 'route', '')]), ', no ')))),
            ('abstaining', if(max(prefix) = '' OR max(asn) > 0, '',
                'geography: its addresses are of no known network; behind a proxy set intake.trusted_proxies')),
            ('abstaining', if(sumIf(requests, outcome = 'success') < {{sized:UInt16}} OR max(bytes_out) > 0, '',
                concat('egress: none of ', toString(sumIf(requests, outcome = 'success')), ' answers has a size')))
        ]) AS lacks
        FROM key_source_1h AS s FINAL WHERE s.window_start > {_AS_OF} - INTERVAL {DAYS} DAY GROUP BY key_id)
    ARRAY JOIN lacks AS lack ORDER BY key_id"""  # noqa: S608
_FEW_BYTES: Final = f"""
    SELECT key_id, 'abstaining' AS why,
        concat('egress: first used ', formatDateTime(first_used, '%Y-%m-%d %H:%iZ', 'UTC'),
            ', bytes are judged after a week') AS detail
    FROM keys_last_used FINAL
    WHERE first_used > {_AS_OF} - toIntervalHour({{hours:UInt16}})
        AND first_used <= {_AS_OF} - toIntervalHour({{young:UInt16}}) ORDER BY key_id"""  # noqa: S608
_FULL: Final = f"""
    SELECT key_id, 'abstaining' AS why,
        concat('novel_operation: over ', toString(uniqExact(route)), ' operations, its filter is full') AS detail
    FROM key_source_1h WHERE window_start > {_AS_OF} - toIntervalDay({{days:UInt16}}) AND outcome = 'success'
    GROUP BY key_id HAVING uniqExact(route) >= {{operations:UInt16}} ORDER BY key_id"""  # noqa: S608
_COLUMNS: Final[tuple[Shown, ...]] = (
    ("key", lambda row: str(row["key_id"]), "left"),
    ("criticality", lambda row: str(row["criticality"]), "left"),
    ("owner", lambda row: str(row["owner"]), "left"),
    ("why", lambda row: str(row["why"]), "left"),
    ("", lambda row: str(row["detail"]), "left"),
)
