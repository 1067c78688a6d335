# ruff: noqa: S608  (the SQL is put together from constants of this folder; Grafana binds its own macros)
"""One key: what it does against what is usual for it, where from, what was found and what was done."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panel import ACT, CHOICES, CONSOLE, OF_KEYS, Dashboard, Panel, Row, Variable
from schemas.rows import LATENCY_BOUNDS_MS

OF_KEY: Final = "key_id = ${key:singlequote}"
BAND_DAYS: Final = 28


def _quantile(share: float) -> str:
    """Upper bound of the histogram's class in which the share falls; 60 s stands for "above"."""
    bounds = ", ".join(str(bound) for bound in (*LATENCY_BOUNDS_MS, LATENCY_BOUNDS_MS[-1]))
    total = "greatest(arraySum(counts), 1)"
    return f"[{bounds}][greatest(arrayFirstIndex(c -> c >= {share} * {total}, arrayCumSum(counts)), 1)]"


def _grid(first: str, hours: str) -> str:
    return f"SELECT toStartOfHour(toDateTime({first}, 'UTC')) + INTERVAL number HOUR AS time FROM numbers({hours})"


_HOURS: Final = "least(dateDiff('hour', $__fromTime, $__toTime) + 1, 2400)"
_COUNTS: Final = f"SELECT window_start, requests FROM v_requests_1h WHERE {OF_KEY}"
_BAND: Final = (
    "SELECT toHour(time) AS hour, toDayOfWeek(time) > 5 AS weekend, quantile(0.05)(c.requests) AS low,\n"
    "        quantile(0.5)(c.requests) AS median, quantile(0.95)(c.requests) AS high\n"
    f"    FROM ({_grid(f'$__fromTime - INTERVAL {BAND_DAYS} DAY', str(24 * BAND_DAYS))}) AS g\n"
    f"    LEFT JOIN ({_COUNTS} AND window_start >= $__fromTime - INTERVAL {BAND_DAYS} DAY) AS c\n"
    "    ON c.window_start = g.time\n"
    f"    WHERE g.time >= (SELECT min(window_start) FROM v_requests_1h WHERE {OF_KEY}) GROUP BY hour, weekend"
)
WITH_BAND: Final = (
    "SELECT g.time AS time, r.requests AS requests, b.low AS low, b.median AS median, b.high AS high\n"
    f"FROM ({_grid('$__fromTime', _HOURS)}) AS g\n"
    f"LEFT JOIN ({_COUNTS} AND $__timeFilter(window_start)) AS r ON r.window_start = g.time\n"
    f"LEFT JOIN ({_BAND}) AS b\n    ON b.hour = toHour(g.time) AND b.weekend = (toDayOfWeek(g.time) > 5)\n"
    "ORDER BY time"
)
WEEK: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _over_time(title: str, name: str, what: str) -> Panel:
    """Requests by the eight commonest values of a column of `v_key_source_1h`; the others together."""
    top = (
        f"SELECT {name} FROM v_key_source_1h WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
        f"        GROUP BY {name} ORDER BY sum(requests) DESC LIMIT 8"
    )
    said = "if(asn = 0, 'unknown', concat('AS', toString(asn)))" if name == "asn" else f"toString({name})"
    return Panel(
        title,
        "timeseries",
        f"SELECT $__timeInterval(window_start) AS time, if({name} IN ({top}), {said}, 'others') AS value,\n"
        "    sum(requests) AS total\n"
        f"FROM v_key_source_1h WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
        "GROUP BY time, value ORDER BY time, value",
        (("time", "time"), ("value", "text"), ("total", "number")),
        description=f"{what}; the eight with most requests, the others together.",
    )


def _commonest(title: str, name: str, description: str) -> Panel:
    errors = "errors_401 + errors_403 + errors_404 + errors_429 + errors_4xx + errors_5xx"
    return Panel(
        title,
        "table",
        f"SELECT {name}, sum(requests) AS total, sum({errors}) / total AS errors, min(first_ts) AS first,\n"
        "    max(last_ts) AS last\n"
        f"FROM v_key_source_1h WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
        f"GROUP BY {name} ORDER BY total DESC LIMIT 100",
        ((name, "text"), ("total", "number"), ("errors", "number"), ("first", "time"), ("last", "time")),
        description=description,
    )


NOW: Final = Row(
    "What is known of it",
    (
        Panel(
            "Declared, and last used",
            "table",
            "SELECT k.environment AS environment, k.owner AS owner, k.role AS role,\n"
            "    k.status AS status, k.created_at AS created, k.last_rotated_at AS rotated,\n"
            "    u.first_used AS first_used, u.last_used AS last_used,\n"
            "    u.country AS last_country FROM (SELECT ${key:singlequote} AS key_id) AS one\n"
            f"LEFT JOIN (SELECT * FROM v_keys WHERE {OF_KEY}) AS k\n"
            f"    ON k.key_id = one.key_id LEFT JOIN (SELECT * FROM v_keys_last_used WHERE {OF_KEY}) AS u\n"
            "    ON u.key_id = one.key_id",
            (
                ("environment", "text"), ("owner", "text"), ("role", "text"), ("status", "text"), ("created", "time"),
                ("rotated", "time"), ("first_used", "time"), ("last_used", "time"), ("last_country", "text"),
            ),
            16,
            4,
            description="What the catalogue says of it, and its first and last use. Empty columns: nobody declared it.",
        ),
        Panel(
            "Requests", "stat",
            f"SELECT sum(requests) AS requests FROM v_requests_1h WHERE $__timeFilter(window_start) AND {OF_KEY}",
            (("requests", "number"),), 4, 4,
            description="In the period, by whole hours.",
        ),
        Panel(
            "Most bits of a finding", "stat",
            f"SELECT max(bits) AS bits FROM v_findings WHERE $__timeFilter(at) AND {OF_KEY}",
            (("bits", "number"),), 4, 4, red_from=20,
            description="The greatest surprise in the period. 20 bits: once in a million by the key's own forecast.",
        ),
    ),
)  # fmt: skip

USE: Final = Row(
    "Use",
    (
        Panel(
            "Requests an hour, and what is usual",
            "timeseries",
            WITH_BAND,
            (("time", "time"), ("requests", "number"), ("low", "number"), ("median", "number"), ("high", "number")),
            24,
            between=("low", "high"),
            description="The band is the middle 90 % of this hour of day, on workdays and at weekends, in the 28 days"
            " before the period. Red marks: incidents. It is a picture: detectors judge by forecasts of their own.",
        ),
        Panel(
            "Errors, share of requests",
            "timeseries",
            "SELECT $__timeInterval(window_start) AS time, sum(errors_401) / sum(requests) AS `401`,\n"
            "    sum(errors_403) / sum(requests) AS `403`, sum(errors_404) / sum(requests) AS `404`,\n"
            "    sum(errors_429) / sum(requests) AS `429`, sum(errors_4xx) / sum(requests) AS `other 4xx`,\n"
            "    sum(errors_5xx) / sum(requests) AS `5xx`\n"
            f"FROM v_requests_${{resolution}} WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
            "GROUP BY time ORDER BY time",
            (("time", "time"), *((name, "number") for name in ("401", "403", "404", "429", "other 4xx", "5xx"))),
            unit="percentunit",
            description="401 and 403 from new places are guessing or probing, 404 on many routes is a scan.",
        ),
        Panel(
            "Latency",
            "timeseries",
            "SELECT time, "
            + ", ".join(f"{_quantile(share)} AS {name}" for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")))
            + "\nFROM (\n"
            "    SELECT $__timeInterval(window_start) AS time, sumForEach(latency_counts) AS counts\n"
            f"    FROM v_requests_${{resolution}} WHERE $__timeFilter(window_start) AND {OF_KEY} GROUP BY time\n"
            ") ORDER BY time",
            (("time", "time"), ("p50", "number"), ("p90", "number"), ("p99", "number")),
            unit="ms",
            description="Upper bounds of histogram classes.",
        ),
        Panel(
            "Requests by hour of the week (UTC)",
            "heat",
            f"SELECT [{', '.join(repr(day) for day in WEEK)}][day] AS day_of_week, "
            + ", ".join(f"toUInt64(sumIf(requests, hour = {hour})) AS `{hour:02}`" for hour in range(24))
            + "\nFROM (SELECT arrayJoin(range(1, 8)) AS day) AS d LEFT JOIN (\n"
            "    SELECT toDayOfWeek(window_start) AS day, toHour(window_start) AS hour, requests FROM v_requests_1h\n"
            f"    WHERE window_start >= $__toTime - INTERVAL {BAND_DAYS} DAY AND window_start <= $__toTime\n"
            f"        AND {OF_KEY}\n"
            ") AS r ON r.day = d.day GROUP BY d.day AS day ORDER BY day",
            (("day_of_week", "text"), *((f"{hour:02}", "number") for hour in range(24))),
            24,
            9,
            description="Of the 28 days up to the period's end.",
        ),
    ),
)

WHERE: Final = Row(
    "Where from, what for",
    (
        _over_time("Countries", "country", "Where the callers' addresses are, by the geo database"),
        _over_time("Networks", "asn", "Autonomous systems of the callers' addresses"),
        Panel(
            "Networks never seen before",
            "table",
            "SELECT country, concat('AS', toString(asn)) AS network, min(first_ts) AS since, sum(requests) AS total\n"
            f"FROM v_key_source_1h WHERE {OF_KEY}\n"
            "GROUP BY country, network HAVING $__timeFilter(since) ORDER BY since DESC LIMIT 100",
            (("country", "text"), ("network", "text"), ("since", "time"), ("total", "number")),
            description="The key's first use from there in 400 days lies in the period.",
        ),
        _commonest("Routes", "route", "The hundred most used in the period, with their share of errors."),
        _commonest("Clients", "client", "Families of user agents, as callers name themselves: anybody can send any."),
        Panel(
            "Incidents",
            "table",
            "SELECT opened_at, rule, severity, state, bits, text, incident_id FROM v_incidents\n"
            f"WHERE $__timeFilter(opened_at) AND {OF_KEY} ORDER BY opened_at DESC LIMIT 100",
            (
                ("opened_at", "time"), ("rule", "text"), ("severity", "text"), ("state", "text"), ("bits", "number"),
                ("text", "text"), ("incident_id", "text"),
            ),
            description="The incident's id leads to its page in the console.",
        ),
    ),
)  # fmt: skip

FOUND: Final = Row(
    "What was found and done",
    (
        Panel(
            "Surprise, by detector",
            "timeseries",
            "SELECT $__timeInterval(at) AS time, detector, max(bits) AS value\n"
            f"FROM v_findings WHERE $__timeFilter(at) AND {OF_KEY} GROUP BY time, detector ORDER BY time, detector",
            (("time", "time"), ("detector", "text"), ("value", "number")),
            description="Bits: -log2 of how likely it was. Bits of different detectors don't add.",
        ),
        Panel(
            "Findings",
            "table",
            "SELECT at, detector, bits, observed, low, median, high, text, incident_id FROM v_findings\n"
            f"WHERE $__timeFilter(at) AND {OF_KEY} ORDER BY at DESC LIMIT 200",
            (
                ("at", "time"), ("detector", "text"), ("bits", "number"), ("observed", "number"), ("low", "number"),
                ("median", "number"), ("high", "number"), ("text", "text"), ("incident_id", "text"),
            ),
            description="What each detector found odd, against the band of what is usual. Without an incident: silent.",
        ),
        Panel(
            "What was decided and done",
            "table",
            f"SELECT at, {ACT}, verdict, stage, reason, incident_id FROM v_responses\n"
            f"WHERE $__timeFilter(at) AND {OF_KEY} ORDER BY at DESC LIMIT 100",
            (
                ("at", "time"), ("act", "text"), ("verdict", "text"), ("stage", "text"), ("reason", "text"),
                ("incident_id", "text"),
            ),
            24,
            description="The audit log: decided by the guards, done by the gateway, then seen to hold or broken.",
        ),
    ),
)  # fmt: skip

KEY: Final = Dashboard(
    "keywatch-key",
    "Keywatch: key",
    (NOW, USE, WHERE, FOUND),
    (
        *CHOICES,
        Variable(
            "key", "Key", f"SELECT key_id FROM v_keys_last_used WHERE {OF_KEYS}\nORDER BY last_used DESC LIMIT 5000",
            many=False,
        ),
        Variable("resolution", "Resolution", words=("1h", "1m"), many=False),
        CONSOLE,
    ),
    "SELECT opened_at AS time, closed_at AS timeEnd, text, rule AS title, concat(severity, ',', rung) AS tags\n"
    f"FROM v_incidents WHERE $__timeFilter(opened_at) AND {OF_KEY} LIMIT 1000",
    "now-7d",
    "/keys/${key:percentencode}",
)  # fmt: skip
