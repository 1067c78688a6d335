"""`keywatch erase`, `keywatch privacy truncate`, `keywatch console-log`: what they do, in which order, and say."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final, cast

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import moments
from pipeline.asking.answers import Column, Shown, connected, export_rows, print_json, say_line, show_table
from pipeline.config.tree import Config
from pipeline.control.people import user
from pipeline.control.topic import read_controls, say
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import read_catalogue
from pipeline.privacy import erase, truncate
from pipeline.privacy.console_log import Line, console_lines

SETTLE_S: Final = 3.0
"""From a worker's word that a key is forgotten to its last row: it writes every `clickhouse.insert_s`."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The command line of `keywatch erase`."""

    key: str = ""
    owner: str = ""
    reason: str = ""
    dry_run: bool = False
    wait_s: float = 30.0
    as_json: bool = False


def erase_all(config: Config, wish: Wish) -> int:
    """Forget, erase, say what remains. Raises ConfigError, Retry and Fatal."""
    if bool(wish.key) == bool(wish.owner):
        raise ConfigError("name one KEY, or --owner")
    if not wish.dry_run and not wish.reason.strip():
        raise ConfigError("--reason is needed: it is all that is kept of it")
    with connected(config.clickhouse) as client:
        keys = [wish.key] if wish.key else _keys_of(config, client, wish.owner)
        if not wish.dry_run:
            _forget(config, client, keys, wish)
        before = erase.count(client, keys, wish.owner)
        if not wish.dry_run:
            for _ in erase.erase(client, keys, wish.owner):
                pass
        after = before if wish.dry_run else erase.count(client, keys, wish.owner)
    return _tell(wish, keys, before, after)


def _keys_of(config: Config, client: Client, owner: str) -> list[str]:
    declared = asyncio.run(read_catalogue(config))
    keys = {key_id for key_id, key in declared.items() if key.owner == owner} | set(erase.keys_of(client, owner))
    if not keys:
        raise ConfigError(f"no key of {owner!r} is declared, and none has had an incident")
    return sorted(keys)


def _forget(config: Config, client: Client, keys: Sequence[str], wish: Wish) -> None:
    since = moments.now()
    asyncio.run(_say(config, keys, wish))
    if silent := erase.wait(client, keys, int(since.timestamp()) * 1_000_000, wish.wait_s):
        words = (
            f"no worker has said that it forgot {_some(sorted(silent))}: it "
            "had no state of it, or none is running. What it writes later is erased by running this again."
        )
        _say_beside(words, wish.as_json)
    elif wish.wait_s:
        time.sleep(SETTLE_S)


def _say_beside(words: str, aside: bool) -> None:
    """On stdout; `aside`, where stdout is JSON, on stderr."""
    if aside:
        sys.stderr.write(f"{words}\n")
    else:
        say_line(words)


async def _say(config: Config, keys: Sequence[str], wish: Wish) -> None:
    known = [control for _, control in (await read_controls(config)).holding.values()]
    await say(config, erase.words(keys, wish.reason, user()))
    await _take_back(config, erase.said_before(known, keys, wish.owner))


async def _take_back(config: Config, names: Sequence[str]) -> None:
    from pipeline.sinks.kafka import Producer

    producer, tombstone = Producer(config.kafka), cast("bytes", None)
    await producer.start()
    try:
        for name in names:
            await producer.publish(config.topics.control, name.encode(), tombstone)
    finally:
        await producer.close()


def _tell(wish: Wish, keys: Sequence[str], before: Sequence[erase.Gone], after: Sequence[erase.Gone]) -> int:
    left = {each.table: each.rows for each in after}
    if wish.as_json:
        return print_json({
            "keys": keys, "dry_run": wish.dry_run, "rows": {each.table: each.rows for each in before},
            "left": left, "kept": erase.KEPT, "kept_elsewhere": dict(erase.KEPT_ELSEWHERE),
        })  # fmt: skip
    verb = "would be erased" if wish.dry_run else "erased"
    say_line(f"{len(keys)} key{'' if len(keys) == 1 else 's'}: {_some(keys)}")
    for each in sorted(before, key=lambda each: each.table):
        more = f", {left[each.table]} came meanwhile: run it again" if left[each.table] and not wish.dry_run else ""
        say_line(f"  {each.table}: {each.rows:,} rows {verb}{more}")
    say_line("What remains, and for how long:")
    for name, why in (*erase.KEPT.items(), *erase.KEPT_ELSEWHERE):
        say_line(f"  {name}: {why}")
    return 0


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")


def truncate_addresses(config: Config, days: int, dry_run: bool) -> int:
    """Cut what is older; `days` -1 is privacy.truncate_addresses_days. Raises ConfigError, Retry and Fatal."""
    days = config.privacy.truncate_addresses_days if days < 0 else days
    if not days:
        return say_line("privacy.truncate_addresses_days is 0: addresses stay whole for as long as their rows")
    with connected(config.clickhouse) as client:
        found = truncate.count(client, days) if dry_run else truncate.truncate(client, days)
    for each in found:
        say_line(f"  {each.table}: {each.rows:,} rows {'would be ' if dry_run else ''}cut to /24 or /48")
    return say_line(f"addresses older than {days} days {'stay as they are (dry run)' if dry_run else 'are cut'}")


def print_console_log(config: Config, since: str, person: str, about: str, output: str) -> int:
    """Who looked at what. Raises ConfigError, Retry and Fatal."""
    since_us = int(_back(since).timestamp() * 1e6)
    with connected(config.clickhouse) as client:
        rows = [msgspec.structs.asdict(each) for each in console_lines(client, since_us, person, about)]
    if output in ("json", "csv"):
        return export_rows(rows, LINE, output)
    return show_table("looked at in the console", rows, SHOWN, len(SHOWN) - 1) if rows else say_line("nothing")


def _back(since: str) -> datetime:
    if re.fullmatch(r"\d{1,5}[mhdw]", since):
        return moments.now() - moments.span(since, "--since")
    return moments.moment(since, "--since", moments.now())


LINE: Final[tuple[Column, ...]] = (
    ("at_us", lambda value: moments.of_us(int(value))),
    *((name, str) for name in Line.__struct_fields__[1:]),
)
SHOWN: Final[tuple[Shown, ...]] = (
    ("at", lambda row: moments.of_us(row["at_us"]), "left"),
    ("person", lambda row: f"{row['person'] or 'nobody'} ({row['role'] or '-'})", "left"),
    ("from", lambda row: str(row["address"]), "left"),
    ("status", lambda row: str(row["status"]), "right"),
    ("what", lambda row: f"{row['method']} {row['path']} {row['detail']}".rstrip(), "left"),
)
