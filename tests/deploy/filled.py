"""A filled database, made by SQL: a fleet of `keys` keys over `days` days up to `now_s`, and what was found and done.

The rows are a function of their place alone, so every fill of one size is the same. Small for the tests of the
dashboards, 10,000 keys for 30 days for their bench; the shares are those of the model of scale in deploy/RUNBOOK.md
(0.28 key-hours and 0.61 source-hours an event, one key in twenty active in a minute).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from clickhouse_connect.driver.client import Client

from schemas.rows import LATENCY_BOUNDS_MS

ODD: Final = "it's"
"""The last key's id: a quote in a name must not end a query."""
_KEY: Final = "if(k = {keys} - 1, 'it\\'s', concat('key_', leftPad(toString(k), 5, '0')))"
_SPREAD: Final = "arrayMap(i -> toUInt32(requests * (i = 4) + (i < 3)), range({bounds}))"


@dataclass(frozen=True, slots=True)
class Fill:
    """How much."""

    keys: int
    days: int
    now_s: int
    minutes: int = 60  # so many last minutes have rows by minute
    every_h: int = 1  # the quietest keys: a row each so many hours
    incidents: int = 200
    at_once: int = 1_000

    @property
    def hour_s(self) -> int:
        """The current hour's start."""
        return self.now_s // 3600 * 3600


def fill(client: Client, size: Fill) -> None:
    """Write it all, `at_once` days with a statement."""
    for day in range(0, size.days, size.at_once):
        for sql in (_HOURS, _SOURCES):
            _run(client, sql, size, day, min(size.at_once, size.days - day))
    for sql in (_STRANGERS, _MINUTES, _KEYS, _LAST_USED, _FINDINGS, _INCIDENTS, _RESPONSES, _CONTROLS, _WITHHELD):
        _run(client, sql, size)


def count_days(client: Client) -> float:
    """What ClickHouse does each hour: sum up past days. Returns how long it took, in seconds."""
    began = time.monotonic()
    for view in ("to_days", "to_place_days"):
        client.command(f"SYSTEM REFRESH VIEW {view}")
        client.command(f"SYSTEM WAIT VIEW {view}")
    return round(time.monotonic() - began, 1)


def _run(client: Client, sql: str, size: Fill, day: int = 0, hours_of: int = 0) -> None:
    key = _KEY.format(keys=size.keys)
    counts = _SPREAD.format(bounds=len(LATENCY_BOUNDS_MS) + 1)
    client.command(
        sql.format(
            key=key, keys=size.keys, days=size.days, day=day, now=size.now_s, hour=size.hour_s, counts=counts,
            minutes=size.minutes, some=24 * hours_of, every=size.every_h, incidents=size.incidents,
        ),
        settings={"throw_on_max_partitions_per_insert_block": 0, "max_insert_threads": 1},
    )  # fmt: skip


# Zipf's tail is idle at most hours: key k has a row in one hour of 1 + k % every.
_ACTIVE: Final = "(h + k) % (1 + k % {every}) = 0"
_COLUMNS: Final = """key_id, window_start, part, version, requests, errors_401, errors_403, errors_404, errors_429,
    errors_4xx, errors_5xx, bytes_in, bytes_out, latency_sum_ms, latency_max_ms, latency_counts, addresses, countries,
    routes, first_ts, last_ts, top_bits, top_detector"""
_WINDOW: Final = """'e/0/0', 1, 5 + (k + h) % 40 + 20 * (h % 24 BETWEEN 8 AND 18) AS requests, (k + h) % 97 = 0,
    (k + h) % 31 = 0, (k + h) % 11 = 0, (k + h) % 53 = 0, (k + h) % 19 = 0, (k + h) % 71 = 0, 1000, 90000,
    40 * requests, 900, {counts}, 1 + k % 3, 1 + k % 2, 1 + k % 5, at, at + 3, (k + h) % 9, 'spike'"""
_HOURS: Final = f"""
INSERT INTO requests_1h ({_COLUMNS})
SELECT {{key}}, toDateTime(s, 'UTC'), {_WINDOW}
FROM (SELECT number % {{keys}} AS k, intDiv(number, {{keys}}) AS h, {{hour}} - 3600 * ({{day}} * 24 + h) AS s,
    toDateTime64(s, 6, 'UTC') AS at FROM numbers({{keys}} * {{some}})) WHERE {_ACTIVE}"""
_MINUTES: Final = f"""
INSERT INTO requests_1m ({_COLUMNS})
SELECT {{key}}, toDateTime(s, 'UTC'), {_WINDOW}
FROM (SELECT number % {{keys}} AS k, intDiv(number, {{keys}}) AS h, intDiv({{now}}, 60) * 60 - 60 * h AS s,
    toDateTime64(s, 6, 'UTC') AS at FROM numbers({{keys}} * {{minutes}})) WHERE {{keys}} < 1000 OR (k + h) % 20 = 0"""
_SOURCES: Final = f"""
INSERT INTO key_source_1h
SELECT {{key}}, toDateTime(s, 'UTC'), concat('198.51.', toString(k % 250), '.0/24'), 64496 + k % 9 + 100 * n,
    ['DE', 'US', 'FR', 'BR', 'JP', 'IN'][1 + (k + n) % 6], if(k % 3 = 0, 'demo-sdk/2.5', 'curl/8'),
    ['/v1/orders', '/v1/orders/{{{{id}}}}', '/v1/users'][1 + (k + n) % 3], 'success', 'e/0/0', 1,
    3 + (k + h) % 20, 0, 0, (k + h) % 11 = 0, 0, 0, (k + h) % 71 = 0, 500, 40000, at, at + 3
FROM (SELECT number % {{keys}} AS k, intDiv(number, {{keys}}) % {{some}} AS h, intDiv(number, {{keys}} * {{some}}) AS n,
    {{hour}} - 3600 * ({{day}} * 24 + h) AS s, toDateTime64(s, 6, 'UTC') AS at FROM numbers({{keys}} * {{some}} * 2))
WHERE {_ACTIVE}"""
_STRANGERS: Final = """
INSERT INTO key_source_1h
SELECT {key}, toDateTime({hour} - 3600, 'UTC'), '203.0.113.0/24', 64999, 'KP', 'curl/8', '/v1/users', 'success',
    'e/0/0', 1, 4, 0, 0, 0, 0, 0, 0, 500, 40000, toDateTime64({hour} - 3600, 6, 'UTC'),
    toDateTime64({hour} - 3000, 6, 'UTC')
FROM (SELECT number AS k FROM numbers({keys}))"""
# One key in ten was declared years ago; one in seven of these has been silent for 100 days, one in 13 was never used.
_KEYS: Final = """
INSERT INTO keys
SELECT {key}, if(k % 5 = 4, 'test', 'live'), concat('team-', toString(k % 20)),
    ['limited', 'read_only', 'full'][1 + k % 3], if(k % 50 = 49, 'suspended', 'active'), NULL, 'normal', 'server', 0, 0,
    toDateTime64({now} - 86400 * (3 + 47 * (k % 10)), 6, 'UTC'), NULL, '', '', NULL, 0, 1
FROM (SELECT number AS k FROM numbers({keys}))"""
_LAST_USED: Final = """
INSERT INTO keys_last_used
SELECT {key}, toDateTime64({now} - if(k % 7 = 3, 8640000, 60 * (k % 600)), 6, 'UTC'),
    toDateTime64({now} - if(k % 17 = 2, 40000, 17280000), 6, 'UTC'),
    toIPv6('198.51.100.7'), ['DE', 'US', 'FR', 'BR'][1 + k % 4], 64496, if(k % 5 = 4, 'test', 'live'), 1
FROM (SELECT number AS k FROM numbers({keys})) WHERE k % 13 != 5"""
_FINDINGS: Final = """
INSERT INTO findings
SELECT concat('f', toString(number)), if(number % 4 = 0, hex(number % {incidents}), ''), {key},
    toDateTime64({now} - 60 * (number % ({days} * 1440)) - 30, 6, 'UTC'), d, ['novelty', 'volume'][1 + number % 2],
    4 + number % 30, 12, 0, 1, 4, concat(d, ': 12 against 1'), '{{}}', 'e', 0, 1
FROM (SELECT number, number % {keys} AS k, ['geography', 'spike', 'errors', 'off_hours'][1 + number % 4] AS d
    FROM numbers({incidents} * 20))"""
_INCIDENTS: Final = """
INSERT INTO incidents
SELECT hex(number), {key}, ['visit', 'slow', 'proof'][1 + number % 3], 1 + number % 3,
    if(number % 3 = 0, 'open', 'closed'), ['medium', 'high', 'critical'][1 + number % 3], opened, opened + 120,
    if(number % 3 = 0, NULL, opened + 3600), 20 + number % 20, 900, 'from a network never seen', 'suspend',
    if(k % 5 = 4, 'test', 'live'), concat('team-', toString(k % 20)), 'limited', 12, ['geography', 'errors'], '{{}}', 1
FROM (SELECT number, number * 7 % {keys} AS k,
    toDateTime64({now} - (number * {days} * 86400 / {incidents}) - 1200, 6, 'UTC') AS opened
    FROM numbers({incidents}))"""
_RESPONSES: Final = """
INSERT INTO responses
SELECT concat('r', hex(number)), hex(number), 1, {key}, opened + stage.2, stage.1, verdict, 'suspend',
    if(verdict = 'allowed', 'rule stranger', 'cap: 3 of 3 an hour'),
    concat('{{"guards":[{{"guard":"mode","passed":true,"reason":""}},{{"guard":"',
        ['cap', 'protected', 'age'][1 + number % 3], '","passed":',
        if(verdict = 'allowed', 'true', 'false'), ',"reason":"x"}}]}}'), 0, number * 10 + stage.2
FROM (SELECT number, number * 7 % {keys} AS k, if(number % 4 = 1, 'refused', 'allowed') AS verdict,
    arrayJoin([('decided', 2), ('acting', 3), ('done', 4), ('enforced', 9)]) AS stage,
    toDateTime64({now} - (number * {days} * 86400 / {incidents}) - 1200, 6, 'UTC') AS opened FROM numbers({incidents}))
WHERE verdict = 'allowed' OR stage.1 = 'decided'"""
_CONTROLS: Final = """
INSERT INTO controls
SELECT concat('c', toString(number)), number, 'feedback', '', hex(number * 2),
    if(number % 5 = 0, 'expected', 'malicious'), [], 'ada', 'seen',
    toDateTime64({now} - (number * 2 * {days} * 86400 / {incidents}), 6, 'UTC'), NULL, '{{}}', 1
FROM numbers(intDiv({incidents}, 2))"""
_WITHHELD: Final = """
INSERT INTO withheld
SELECT concat('w', toString(number)), 'c1', {key}, toDateTime64({now} - 3000 * number - 5, 6, 'UTC'), 'visit', 'opened',
    'high', 21, 800, ['spike'], 'muted', 'load test', 'ada', 0, 1
FROM (SELECT number, number % {keys} AS k FROM numbers(20))"""
