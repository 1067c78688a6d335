"""`keywatch keys rotations`: how far each rotation is: what still uses the old key, from where, and when it is safe.

A rotation is two catalogue entries: the old key says `rotated_to`, or the new one `rotated_from`. It began when the
new key was made (else when it was first used) and ought to end `key_life.overlap_days` later. The old key has drained
once it was quiet for twice the longest pause between two of its uses in the 60 days before, and for `key_life.quiet_h`
at least: a job that runs once a week must have had its turn. Time is the newest use of any key.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from pipeline import moments
from pipeline.asking.hunt import as_of_us
from pipeline.asking.queries import DAY_US, ask
from pipeline.config.tree import KeyLife
from pipeline.keys.catalogue import Catalogue
from pipeline.metrics import METRICS, ROTATION_STATES
from pipeline.times import micros
from schemas.event import AUTHENTICATED
from schemas.key import Key

SECOND_US: Final = 1_000_000
DUE_DAYS: Final = 3
GAP_DAYS: Final = 60
FROM_DAYS: Final = 7
MOST_SOURCES: Final = 20
PAUSES: Final = 2
"""A job may come half as often as it used to before it counts as gone."""


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a key's traffic has moved away. `since_us`: its last use; `safe_at_us`: when it is, if it stays quiet."""

    drained: bool
    since_us: int
    safe_at_us: int
    reason: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Who still uses an old key, in the last 7 days."""

    key_id: str
    prefix: str
    country: str
    asn: int
    client: str
    requests: int
    last_us: int


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """One rotation. `state`: draining | due (its deadline is within 3 days) | overdue | drained. 0 us: not known."""

    old: str
    new: str
    owner: str
    state: str
    began_us: int
    deadline_us: int
    old_requests_24h: int
    new_requests_24h: int
    old_share: float
    drain: Drain
    sources: list[Source]
    known_since_us: int = 0  # the first use of the old key that is known
    new_used_us: int = 0  # the new key's last


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation that the responder carried out itself: the catalogue need not know of it."""

    old: str
    new: str
    began_us: int
    deadline_us: int  # the end of the overlap, which the gateway keeps; 0: as key_life.overlap_days says


class _Traffic(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    day: int
    first_us: int
    last_us: int


class _Gap(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    longest_s: int


def drained(last_used_us: int, began_us: int, now_us: int, longest_pause_s: float, quiet_s: float) -> Drain:
    """May the old key go? `last_used_us` 0: never used. Pure: the responder's policy may ask it, too.

    `longest_pause_s`: between two uses, before; a key seen once only has none, and waits for `quiet_s` alone.
    """
    wait_s = max(quiet_s, PAUSES * longest_pause_s)
    since_us = max(last_used_us, began_us)
    safe_us = since_us + round(wait_s * SECOND_US)
    quiet = _span((now_us - since_us) / SECOND_US)
    if now_us >= safe_us:
        words = f"quiet for {quiet}, {_span(wait_s)} are enough"
        return Drain(drained=True, since_us=since_us, safe_at_us=safe_us, reason=words)
    why = f"its longest pause was {_span(longest_pause_s)}" if PAUSES * longest_pause_s > quiet_s else "at the least"
    return Drain(
        drained=False, since_us=since_us, safe_at_us=safe_us,
        reason=f"quiet for {quiet}; {_span(wait_s)} are needed: {why}",
    )  # fmt: skip


def _span(seconds: float) -> str:
    hours = max(0.0, seconds) / 3_600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def pairs(catalogue: Catalogue, begun: Iterable[Begun] = ()) -> list[tuple[Key, Key]]:
    """(old, new) of every rotation whose old key is still active; a new key that nobody declared is its id alone."""
    olds = {each.old: each.new for each in begun}
    for key_id, key in catalogue.items():
        if key.rotated_from:
            olds.setdefault(key.rotated_from, key_id)
        if key.rotated_to:
            olds[key_id] = key.rotated_to
    found = ((catalogue.get(old), catalogue.get(new) or Key(key_id=new)) for old, new in sorted(olds.items()))
    return [(old, new) for old, new in found if old is not None and old.status == "active"]


def rotations(client: Client, catalogue: Catalogue, rules: KeyLife) -> list[Rotation]:
    """All that go on, those nearest to their deadline first. Raises Retry or Fatal."""
    return look(client, catalogue, rules)[1]


def look(
    client: Client, catalogue: Catalogue, rules: KeyLife, begun: Sequence[Begun] = ()
) -> tuple[int, list[Rotation]]:
    """(the newest use of any key in us, 0: none; all rotations, also those of `begun`). Raises Retry or Fatal."""
    found = pairs(catalogue, begun)
    as_of = as_of_us(client)
    if not found:
        return as_of, []
    values = {"keys": [key.key_id for pair in found for key in pair], "good": sorted(AUTHENTICATED)}
    traffic = {row.key_id: row for row in ask(client, _Traffic, _TRAFFIC, values)}
    gaps = {row.key_id: row.longest_s for row in ask(client, _Gap, _GAPS, values)}
    sources = ask(client, Source, _SOURCES, values)
    now_us = as_of or round(moments.now().timestamp() * SECOND_US)
    ours = {each.old: each for each in begun}
    rows = [
        _rotation(old, new, traffic, gaps.get(old.key_id, 0), now_us, rules, ours.get(old.key_id)) for old, new in found
    ]
    rows = [msgspec.structs.replace(row, sources=[s for s in sources if s.key_id == row.old]) for row in rows]
    return as_of, sorted(rows, key=lambda row: (row.state == "drained", row.deadline_us or 1 << 62, row.old))


def _rotation(
    old: Key, new: Key, traffic: dict[str, _Traffic], longest_s: int, now_us: int, rules: KeyLife, ours: Begun | None
) -> Rotation:
    before, after = traffic.get(old.key_id), traffic.get(new.key_id)
    began = ours.began_us if ours else began_us(old, new, after.first_us if after else 0)
    drain = drained(before.last_us if before else 0, began, now_us, longest_s, rules.quiet_h * 3_600)
    deadline = (ours.deadline_us if ours else 0) or (began + rules.overlap_days * DAY_US if began else 0)
    old_day, new_day = before.day if before else 0, after.day if after else 0
    return Rotation(
        old=old.key_id, new=new.key_id, owner=old.owner, began_us=began,
        deadline_us=deadline, state=state(drain, deadline, now_us), old_requests_24h=old_day, new_requests_24h=new_day,
        old_share=old_day / (old_day + new_day) if old_day + new_day else 0.0, drain=drain, sources=[],
        known_since_us=before.first_us if before else 0, new_used_us=after.last_us if after else 0,
    )  # fmt: skip


def began_us(old: Key, new: Key, first_used_us: int) -> int:
    """When the new key was made, as declared; else when it was first used; else when the old one says; 0: unknown.

    A new key that is older than the old one began nothing when it was made or first used.
    """
    made_us = _or_none(old.created_at)
    for found_us in (_or_none(new.created_at), _or_none(new.last_rotated_at), first_used_us):
        if found_us > made_us:
            return found_us
    return _or_none(old.last_rotated_at if old.rotated_to else "")


def _or_none(text: str) -> int:
    try:
        return micros(text)
    except ValueError:
        return 0


def state(drain: Drain, deadline_us: int, now_us: int) -> str:
    """One of `ROTATION_STATES`."""
    if drain.drained:
        return "drained"
    if deadline_us and now_us >= deadline_us:
        return "overdue"
    return "due" if deadline_us and deadline_us - now_us < DUE_DAYS * DAY_US else "draining"


def write_metrics(rows: Iterable[Rotation], path: Path) -> None:
    """The number of rotations by state, for Prometheus' textfile collector; the file is replaced as a whole."""
    counts = dict.fromkeys(ROTATION_STATES, 0)
    for row in rows:
        counts[row.state] += 1
    registry = CollectorRegistry()
    gauge = Gauge(METRICS.rotations._name, METRICS.rotations._documentation, ("state",), registry=registry)
    for name, count in counts.items():
        gauge.labels(name).set(count)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as file:
        file.write(generate_latest(registry))
    Path(temporary).chmod(0o644)  # the node exporter is another user
    Path(temporary).replace(path)


def overdue_words(rows: Sequence[Rotation]) -> list[str]:
    """One line for each rotation that nears or passed its deadline, for the report."""
    return [
        f"{row.old} -> {row.new}: {row.state}, deadline {moments.of_us(row.deadline_us)}, "
        f"{row.old_requests_24h:,} requests a day still on the old key"
        for row in rows
        if row.state in ("due", "overdue")
    ]


_AS_OF: Final = "(SELECT max(last_used) FROM keys_last_used)"
_OF: Final = "key_id IN {keys:Array(String)} AND outcome IN {good:Array(String)}"
_TRAFFIC: Final = f"""
    SELECT key_id, sumIf(w.requests, w.last_ts > {_AS_OF} - INTERVAL 1 DAY) AS day,
        toUnixTimestamp64Micro(min(w.first_ts)) AS first_us, toUnixTimestamp64Micro(max(w.last_ts)) AS last_us
    FROM key_source_1h AS w FINAL WHERE {_OF} GROUP BY key_id"""  # noqa: S608 (constants)
_GAPS: Final = f"""
    SELECT key_id, toInt64(max(gap)) AS longest_s FROM (
        SELECT key_id, dateDiff('second', lagInFrame(hour, 1, hour) OVER (
            PARTITION BY key_id ORDER BY hour ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), hour) AS gap
        FROM (SELECT DISTINCT key_id, window_start AS hour FROM key_source_1h
            WHERE {_OF} AND window_start > {_AS_OF} - INTERVAL {GAP_DAYS} DAY)
    ) GROUP BY key_id"""  # noqa: S608
_SOURCES: Final = f"""
    SELECT key_id, prefix, country, asn, client, sum(w.requests) AS requests,
        toUnixTimestamp64Micro(max(w.last_ts)) AS last_us
    FROM key_source_1h AS w FINAL WHERE {_OF} AND window_start > {_AS_OF} - INTERVAL {FROM_DAYS} DAY
    GROUP BY key_id, prefix, country, asn, client ORDER BY key_id, requests DESC LIMIT {MOST_SOURCES} BY key_id"""  # noqa: S608


def plain(row: Rotation) -> dict[str, Any]:
    """One row of a table: the drain's fields beside the others."""
    return {**msgspec.structs.asdict(row), **msgspec.structs.asdict(row.drain)}
