"""`keywatch top`: what goes on now, renewed every two seconds: open incidents, and the keys that are used most.

"Now" is the newest minute that ClickHouse has; how old that is stands in the head, so that a lagging worker is not
taken for a quiet night.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline import moments
from pipeline.asking import queries
from pipeline.asking.answers import connected, print_json, printable
from pipeline.asking.queries import ask
from pipeline.config.tree import Config

ROWS: Final = 15
INCIDENTS: Final = 8
LATE_S: Final = 180.0
COLOURS: Final = {"critical": "bold red", "high": "red", "medium": "yellow"}


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """One key in the newest minutes: requests of the last whole minute, against its usual minute of the last hour."""

    key_id: str
    requests: int
    usual: float
    refused: int
    addresses: int
    countries: int
    bits: float
    detector: str


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """All that is shown."""

    newest_us: int
    requests: int
    keys: int
    open: int  # incidents, of which the newest are shown
    busy: list[Busy]
    incidents: list[queries.IncidentLine]


class _Head(msgspec.Struct, frozen=True):
    newest_us: int
    requests: int
    keys: int
    open: int


_NEWEST: Final = "(SELECT max(window_start) FROM requests_1m)"


def look(client: Client) -> Screen:
    """One look. Raises Retry or Fatal."""
    head = f"""
        SELECT toInt64(toUnixTimestamp({_NEWEST})) * 1000000 AS newest_us, sum(requests) AS requests,
            uniqExact(key_id) AS keys, (SELECT count() FROM incidents FINAL WHERE state = 'open') AS open
        FROM requests_1m FINAL WHERE window_start = {_NEWEST}"""  # noqa: S608 (constants)
    busy = f"""
        SELECT key_id, sumIf(w.requests, window_start = newest) AS requests,
            sumIf(w.requests, window_start < newest) / 60 AS usual,
            sumIf(w.errors_401 + w.errors_403 + w.errors_429, window_start = newest) AS refused,
            maxIf(w.addresses, window_start = newest) AS addresses,
            maxIf(w.countries, window_start = newest) AS countries,
            maxIf(w.top_bits, window_start = newest) AS bits,
            anyIf(toString(w.top_detector), window_start = newest) AS detector
        FROM requests_1m AS w FINAL CROSS JOIN (SELECT {_NEWEST} AS newest) AS n
        WHERE window_start > newest - toIntervalHour(1)
        GROUP BY key_id HAVING requests > 0 ORDER BY requests DESC, key_id LIMIT {{limit:UInt32}}"""  # noqa: S608
    [seen] = ask(client, _Head, head, {})
    return Screen(
        newest_us=seen.newest_us if seen.requests else 0, requests=seen.requests, keys=seen.keys,
        busy=ask(client, Busy, busy, {"limit": ROWS}),
        open=seen.open, incidents=queries.newest_incidents(client, limit=INCIDENTS, state="open"),
    )  # fmt: skip


def drawn(screen: Screen, now_s: float) -> Group:
    """The screen for a terminal; what callers chose can't steer it."""
    age_s = now_s - screen.newest_us / 1e6
    late = screen.newest_us and age_s > LATE_S
    words = f"{screen.requests:,} requests of {screen.keys:,} keys in the minute of {moments.of_us(screen.newest_us)}"
    head = Text(words if screen.newest_us else "nothing was judged yet", style="red" if late else "bold")
    if late:
        head.append(f": {age_s / 60:.0f} min ago. Idle, lagging or blind?")
    return Group(head, Text(""), _incidents(screen), Text(""), _busy(screen))


def _incidents(screen: Screen) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in ("open", "since", "id", "what"):
        table.add_column(name, no_wrap=name != "what", overflow="fold")
    for each in screen.incidents:
        since, words = moments.of_us(each.opened_us), Text(printable(each.text))
        table.add_row(Text(each.severity, style=COLOURS.get(each.severity, "")), since, each.incident_id[:12], words)
    if (more := screen.open - len(screen.incidents)) > 0:
        table.add_row("", "", "", f"and {more:,} more: keywatch incidents")
    if not screen.incidents:
        table.add_row("none", "", "", "")
    return table


def _busy(screen: Screen) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("key", overflow="fold")
    for name in ("a minute", "usual", "refused", "addresses", "countries", "bits"):
        table.add_column(name, justify="right")
    table.add_column("by")
    for each in screen.busy:
        numbers = (
            f"{each.requests:,}",
            f"{each.usual:,.1f}",
            *map(str, (each.refused, each.addresses, each.countries)),
        )
        bits = f"{each.bits:.1f}" if each.bits else ""
        table.add_row(Text(printable(each.key_id)), *numbers, bits, each.detector if each.bits else "")
    return table


def main(config: Config, once: bool, output: str, every_s: float, sleep: Callable[[float], None] = time.sleep) -> int:
    """Until Ctrl-C; `once` prints one look. Raises Retry and Fatal."""
    with connected(config.clickhouse) as client:
        if output == "json":
            return print_json(look(client))
        console = Console(highlight=False)
        if once:
            console.print(drawn(look(client), time.time()))
            return 0
        try:
            with Live(drawn(look(client), time.time()), console=console, screen=True, auto_refresh=False) as live:
                while True:
                    sleep(every_s)
                    live.update(drawn(look(client), time.time()), refresh=True)
        except KeyboardInterrupt:
            return 0
