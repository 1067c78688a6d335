# ruff: noqa: S608  (the SQL is put together from constants of this file; Grafana binds its own macros)
"""What the dashboard shows: each panel's SQL, in Grafana's macros, and the columns that it returns.

Views (`v_...`, schemas/clickhouse) already take the newest version of each row and sum over parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.rows import LATENCY_BOUNDS_MS

Columns = tuple[tuple[str, str], ...]
"""(name, kind); kind is time, number or text."""

OF_KEY: Final = "$__conditionalAll(key_id IN (${key:singlequote}), $key)"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its query, what the query returns and how wide and high it is drawn (in grid units)."""

    title: str
    kind: str  # stat | timeseries | table | geomap | barchart
    sql: str
    columns: Columns
    width: int
    height: int = 8
    unit: str = "short"
    description: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A headed group of panels, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]


def _quantile(share: float) -> str:
    """Upper bound of the histogram's class in which the share falls; 60 s stands for "above"."""
    bounds = ", ".join(str(bound) for bound in (*LATENCY_BOUNDS_MS, LATENCY_BOUNDS_MS[-1]))
    total = "greatest(arraySum(counts), 1)"
    return f"[{bounds}][greatest(arrayFirstIndex(c -> c >= {share} * {total}, arrayCumSum(counts)), 1)]"


FLEET: Final = Row(
    "Fleet",
    (
        Panel(
            "Requests",
            "stat",
            "SELECT sum(requests) AS requests FROM v_requests_1h WHERE $__timeFilter(window_start)",
            (("requests", "number"),),
            6,
            4,
        ),
        Panel(
            "Keys in use",
            "stat",
            "SELECT uniqExact(key_id) AS keys FROM v_requests_1h WHERE $__timeFilter(window_start)",
            (("keys", "number"),),
            6,
            4,
        ),
        Panel(
            "Open incidents",
            "stat",
            "SELECT countIf(state = 'open') AS open FROM v_incidents",
            (("open", "number"),),
            6,
            4,
        ),
        Panel(
            "Keys acted on",
            "stat",
            "SELECT uniqExact(key_id) AS keys FROM v_responses\n"
            "WHERE $__timeFilter(at) AND stage = 'done' AND verdict = 'allowed'",
            (("keys", "number"),),
            6,
            4,
            description="Keys that the responder took out of use or limited in the period.",
        ),
        Panel(
            "Requests per second by environment",
            "timeseries",
            "SELECT $__timeInterval(w.window_start) AS time, u.environment AS environment,\n"
            "    sum(w.requests) / greatest($__interval_s, 60) AS requests\n"
            "FROM v_requests_${resolution} AS w LEFT JOIN v_keys_last_used AS u ON u.key_id = w.key_id\n"
            "WHERE $__timeFilter(w.window_start) GROUP BY time, environment ORDER BY time, environment",
            (("time", "time"), ("environment", "text"), ("requests", "number")),
            12,
            unit="reqps",
        ),
        Panel(
            "Incidents opened, by severity",
            "timeseries",
            "SELECT $__timeInterval(opened_at) AS time, severity, count() AS incidents\n"
            "FROM v_incidents WHERE $__timeFilter(opened_at) GROUP BY time, severity ORDER BY time, severity",
            (("time", "time"), ("severity", "text"), ("incidents", "number")),
            12,
        ),
        Panel(
            "Newest incidents",
            "table",
            "SELECT opened_at, severity, state, key_id, rung, arrayStringConcat(detectors, ', ') AS detectors, text,\n"
            "    incident_id\n"
            "FROM v_incidents WHERE $__timeFilter(opened_at) ORDER BY opened_at DESC LIMIT 100",
            (
                ("opened_at", "time"),
                ("severity", "text"),
                ("state", "text"),
                ("key_id", "text"),
                ("rung", "text"),
                ("detectors", "text"),
                ("text", "text"),
                ("incident_id", "text"),
            ),
            24,
        ),
        Panel(
            "Busiest keys",
            "table",
            "SELECT key_id, sum(requests) AS total,\n"
            "    sum(errors_401 + errors_403 + errors_404 + errors_429 + errors_4xx + errors_5xx) / total AS errors,\n"
            "    max(last_ts) AS last\n"
            "FROM v_requests_1h WHERE $__timeFilter(window_start) GROUP BY key_id ORDER BY total DESC LIMIT 50",
            (("key_id", "text"), ("total", "number"), ("errors", "number"), ("last", "time")),
            8,
        ),
        Panel(
            "New keys, and keys back after two weeks",
            "table",
            "SELECT key_id, min(window_start) AS since, max(gap) AS days_silent FROM (\n"
            "    SELECT key_id, window_start, dateDiff('day', lagInFrame(window_start) OVER (\n"
            "        PARTITION BY key_id ORDER BY window_start ROWS BETWEEN 1 PRECEDING AND CURRENT ROW\n"
            "    ), window_start) AS gap\n"
            "    FROM v_requests_1h WHERE window_start >= $__fromTime - INTERVAL 90 DAY AND window_start <= $__toTime\n"
            ") WHERE $__timeFilter(window_start) AND gap >= 14 GROUP BY key_id ORDER BY since DESC LIMIT 50",
            (("key_id", "text"), ("since", "time"), ("days_silent", "number")),
            8,
            description="Silent for more than 14 days before, within the last 90; a very large number is a new key.",
        ),
        Panel(
            "Requests by country",
            "geomap",
            "SELECT country, sum(requests) AS total FROM v_key_source_1h\n"
            "WHERE $__timeFilter(window_start) AND country != '' GROUP BY country ORDER BY total DESC LIMIT 250",
            (("country", "text"), ("total", "number")),
            8,
        ),
    ),
)

KEY: Final = Row(
    "Key $key",
    (
        Panel(
            "Requests per minute",
            "timeseries",
            "SELECT $__timeInterval(window_start) AS time, key_id,\n"
            "    sum(requests) * 60 / greatest($__interval_s, 60) AS value\n"
            f"FROM v_requests_${{resolution}} WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
            "GROUP BY time, key_id ORDER BY time, key_id",
            (("time", "time"), ("key_id", "text"), ("value", "number")),
            12,
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
            12,
            unit="percentunit",
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
            12,
            unit="ms",
            description="Upper bounds of histogram classes.",
        ),
        Panel(
            "Addresses, countries and routes per window",
            "timeseries",
            "SELECT $__timeInterval(window_start) AS time, max(addresses) AS most_addresses,\n"
            "    max(countries) AS most_countries, max(routes) AS most_routes\n"
            f"FROM v_requests_${{resolution}} WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
            "GROUP BY time ORDER BY time",
            (("time", "time"), ("most_addresses", "number"), ("most_countries", "number"), ("most_routes", "number")),
            12,
        ),
        Panel(
            "Surprise, by detector",
            "timeseries",
            "SELECT $__timeInterval(at) AS time, detector, max(bits) AS value\n"
            f"FROM v_findings WHERE $__timeFilter(at) AND {OF_KEY} GROUP BY time, detector ORDER BY time, detector",
            (("time", "time"), ("detector", "text"), ("value", "number")),
            12,
            description="Bits: -log2 of how likely it was. Bits of different detectors don't add.",
        ),
        Panel(
            "Requests by hour of the week (UTC)",
            "barchart",
            "SELECT concat(['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'][toDayOfWeek(window_start)], ' ',\n"
            "    leftPad(toString(toHour(window_start)), 2, '0')) AS hour, sum(requests) AS total\n"
            f"FROM v_requests_1h WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
            "GROUP BY hour, toDayOfWeek(window_start), toHour(window_start)\n"
            "ORDER BY toDayOfWeek(window_start), toHour(window_start)",
            (("hour", "text"), ("total", "number")),
            12,
        ),
        Panel(
            "Used from",
            "table",
            "SELECT key_id, country, concat('AS', toString(asn)) AS network, sum(requests) AS total,\n"
            "    min(first_ts) AS first, max(last_ts) AS last\n"
            f"FROM v_key_source_1h WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
            "GROUP BY key_id, country, network ORDER BY total DESC LIMIT 100",
            (
                ("key_id", "text"),
                ("country", "text"),
                ("network", "text"),
                ("total", "number"),
                ("first", "time"),
                ("last", "time"),
            ),
            12,
        ),
        Panel(
            "Networks never seen before",
            "table",
            "SELECT key_id, country, concat('AS', toString(asn)) AS network, min(first_ts) AS since,\n"
            "    sum(requests) AS total\n"
            f"FROM v_key_source_1h WHERE {OF_KEY}\n"
            "GROUP BY key_id, country, network HAVING $__timeFilter(since) ORDER BY since DESC LIMIT 100",
            (("key_id", "text"), ("country", "text"), ("network", "text"), ("since", "time"), ("total", "number")),
            12,
            description="First use of the key from there in 400 days lies in the period.",
        ),
        Panel(
            "Routes",
            "table",
            "SELECT route, outcome, sum(requests) AS total,\n"
            "    sum(errors_401 + errors_403 + errors_404 + errors_429 + errors_4xx + errors_5xx) / total AS errors\n"
            f"FROM v_key_source_1h WHERE $__timeFilter(window_start) AND {OF_KEY}\n"
            "GROUP BY route, outcome ORDER BY total DESC LIMIT 100",
            (("route", "text"), ("outcome", "text"), ("total", "number"), ("errors", "number")),
            12,
        ),
        Panel(
            "What was decided and done",
            "table",
            "SELECT at, key_id, rung, verdict, stage, reason FROM v_responses\n"
            f"WHERE $__timeFilter(at) AND {OF_KEY} ORDER BY at DESC LIMIT 100",
            (
                ("at", "time"),
                ("key_id", "text"),
                ("rung", "text"),
                ("verdict", "text"),
                ("stage", "text"),
                ("reason", "text"),
            ),
            12,
        ),
    ),
)

ROWS: Final = (FLEET, KEY)

KEY_VARIABLE: Final = "SELECT key_id FROM v_keys_last_used ORDER BY last_used DESC LIMIT 5000"
ANNOTATION: Final = (
    "SELECT opened_at AS time, text, rule AS title, concat(severity, ',', rung) AS tags FROM v_incidents\n"
    f"WHERE $__timeFilter(opened_at) AND {OF_KEY} LIMIT 1000"
)
