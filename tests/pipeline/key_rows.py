"""Requests with known answers, as the worker's rows: what the tests of the life of keys fill ClickHouse with."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.tree import ClickHouse
from pipeline.formats.values import network
from pipeline.sinks.clickhouse import ClickHouseSink
from tests.row_examples import rows_of

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
NOON_US = 1_790_000_000_000_000 // DAY_US * DAY_US + 12 * HOUR_US
"""2026-09-21T12:00:00Z, a Monday; "now" of these tests."""


@dataclass(frozen=True)
class Use:
    """Requests of one key within one minute."""

    key: str
    at_us: int
    ip: str = "198.51.100.7"
    asn: int = 64_500
    country: str = "DE"
    client: str = "python-requests"
    method: str = "GET"
    route: str = "/v1/orders"
    path: str = ""
    outcome: str = "success"
    bytes_out: int = 100
    environment: str = "live"
    scope: str = ""
    times: int = 1

    @property
    def hour(self) -> tuple[Any, ...]:
        """The sort key of `key_source_1h`."""
        return (
            self.key, self.at_us // HOUR_US * 3_600, network(self.ip), self.asn, self.country, self.client, self.route,
            self.outcome,
        )  # fmt: skip


def fill(config: ClickHouse, uses: Sequence[Use], **tables: dict[str, list[Any]]) -> None:
    """The rows of all uses, and of other tables as they are given."""
    asyncio.run(_fill(config, uses, tables))


async def _fill(config: ClickHouse, uses: Sequence[Use], tables: dict[str, dict[str, list[Any]]]) -> None:
    sink = ClickHouseSink(config)
    if uses:
        for table, rows in (("requests", requests(uses)), ("key_source_1h", hours(uses)),
                            ("requests_1m", windows(uses, MINUTE_US)), ("requests_1h", windows(uses, HOUR_US)),
                            ("keys_last_used", last_used(uses))):  # fmt: skip
            await sink.write(table, rows)
    for table, rows in tables.items():
        await sink.write(table, rows)
    await sink.close()


def requests(uses: Sequence[Use]) -> dict[str, list[Any]]:
    each = [(use, number) for use in uses for number in range(use.times)]
    return rows_of(
        "requests", len(each), key_id=[u.key for u, _ in each], ts=[u.at_us + n for u, n in each],
        method=[u.method for u, _ in each], route=[u.route for u, _ in each],
        path=[u.path or u.route for u, _ in each], outcome=[u.outcome for u, _ in each],
        client_ip=[u.ip or "::" for u, _ in each], country=[u.country for u, _ in each], asn=[u.asn for u, _ in each],
        client=[u.client for u, _ in each], user_agent=[f"{u.client}/1" for u, _ in each],
        bytes_out=[u.bytes_out for u, _ in each], environment=[u.environment for u, _ in each],
        scope=[u.scope for u, _ in each], offset=list(range(len(each))),
    )  # fmt: skip


def hours(uses: Iterable[Use]) -> dict[str, list[Any]]:
    groups: dict[tuple[Any, ...], list[Use]] = {}
    for use in uses:
        groups.setdefault(use.hour, []).append(use)
    keys, some = list(groups), list(groups.values())
    names = ("key_id", "window_start", "prefix", "asn", "country", "client", "route", "outcome")
    columns = {name: [key[at] for key in keys] for at, name in enumerate(names)}
    return rows_of(
        "key_source_1h", len(keys), **columns, requests=[sum(u.times for u in group) for group in some],
        bytes_out=[sum(u.times * u.bytes_out for u in group) for group in some],
        bytes_in=[0] * len(keys), first_ts=[min(u.at_us for u in group) for group in some],
        last_ts=[max(u.at_us + u.times - 1 for u in group) for group in some],
    )  # fmt: skip


def windows(uses: Iterable[Use], size_us: int) -> dict[str, list[Any]]:
    counts: Counter[tuple[str, int]] = Counter()
    refused: Counter[tuple[str, int]] = Counter()
    for use in uses:
        counts[use.key, use.at_us // size_us * size_us // 1_000_000] += use.times
        refused[use.key, use.at_us // size_us * size_us // 1_000_000] += use.times if use.outcome == "invalid" else 0
    return rows_of(
        "requests_1m" if size_us == MINUTE_US else "requests_1h", len(counts), key_id=[key for key, _ in counts],
        window_start=[at for _, at in counts],
        requests=list(counts.values()), errors_401=[refused[each] for each in counts],
    )  # fmt: skip


def last_used(uses: Iterable[Use]) -> dict[str, list[Any]]:
    newest: dict[str, Use] = {}
    first: dict[str, int] = {}
    for use in uses:
        if use.key not in newest or use.at_us >= newest[use.key].at_us:
            newest[use.key] = use
        first[use.key] = min(first.get(use.key, use.at_us), use.at_us)
    some = list(newest.values())
    return rows_of(
        "keys_last_used", len(some), key_id=[u.key for u in some], last_used=[u.at_us for u in some],
        first_used=[first[u.key] for u in some], client_ip=[str(ipaddress.ip_address(u.ip or "::")) for u in some],
        version=[u.at_us * 4096 for u in some],
    )  # fmt: skip


def daily(key: str, days: Iterable[int], hour: int = 0, **fields: Any) -> list[Use]:
    """Once a day, so many days before now; `hour` is added to noon."""
    return [Use(key, NOON_US - day * DAY_US + hour * HOUR_US, **fields) for day in days]
