# ruff: noqa: S608  (the SQL is put together from constants of this folder; Grafana binds its own macros)
"""The fleet: what all keys do, where from, which moved, and which ought to be looked after."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panel import (
    AT,
    CHOICES,
    CONSOLE,
    LONG_S,
    OF_INCIDENTS,
    OF_KEYS,
    Dashboard,
    Panel,
    Row,
    Variable,
    span,
)

_COUNTS: Final = "key_id, requests, refused, failed, other_4xx"
HOURS: Final = f"FROM {span('hours', 'days', _COUNTS)}\nWHERE {OF_KEYS}"
_LONG: Final = f"$__toTime - $__fromTime > {LONG_S}"
_FROM, _TO = (
    f"if({_LONG}, toStartOfDay(toDateTime({each}, 'UTC')), toDateTime({each}, 'UTC'))"
    for each in ("$__fromTime", "$__toTime")
)
_BEFORE: Final = f"{_FROM} - ({_TO} - {_FROM})"
_BORN: Final = "coalesce(last_rotated_at, created_at)"
_AGE: Final = f"dateDiff('day', {_BORN}, now())"
_OF_K: Final = OF_KEYS.replace("key_id IN", "k.key_id IN")
_DECLARED: Final = (
    "FROM v_keys AS k LEFT JOIN v_keys_last_used AS u ON u.key_id = k.key_id\n"
    f"WHERE k.status = 'active'\n    AND {_OF_K}"
)

AT_A_GLANCE: Final = Row(
    "At a glance",
    (
        Panel(
            "Requests", "stat", f"SELECT sum(requests) AS requests {HOURS}", (("requests", "number"),), 4, 4,
            description="All requests in the period, of declared and undeclared keys.",
        ),
        Panel(
            "Refused or failed", "stat",
            f"SELECT sum(refused + failed + other_4xx) / greatest(sum(requests), 1) AS share {HOURS}",
            (("share", "number"),), 4, 4, "percentunit", red_from=0.1,
            description="401, 403, 404, 429, other 4xx and 5xx, as a share of all requests.",
        ),
        Panel(
            "Keys in use", "stat", f"SELECT uniqExact(key_id) AS keys {HOURS}", (("keys", "number"),), 4, 4,
            description="Keys with at least one request in the period.",
        ),
        Panel(
            "Open incidents", "stat",
            f"SELECT countIf(state = 'open') AS open FROM v_incidents WHERE {OF_INCIDENTS}",
            (("open", "number"),), 4, 4, red_from=1,
            description="Open now, whenever they were opened. An incident closes when its key has been quiet.",
        ),
        Panel(
            "Keys acted on", "stat",
            "SELECT uniqExact(key_id) AS keys FROM v_responses\n"
            f"WHERE $__timeFilter(at) AND stage = 'done' AND verdict = 'allowed'\n    AND {OF_KEYS}",
            (("keys", "number"),), 4, 4,
            description="Keys that the responder took out of use or limited in the period.",
        ),
        Panel(
            "Keys over age", "stat",
            f"SELECT countIf({_AGE} > ${{over_age_days}}) AS keys FROM v_keys\n"
            f"WHERE status = 'active'\n    AND {OF_KEYS}",
            (("keys", "number"),), 4, 4, red_from=1,
            description="Made, or rotated last, more days ago than said above.",
        ),
    ),
)  # fmt: skip

TRAFFIC: Final = Row(
    "Traffic",
    (
        Panel(
            "Requests by environment",
            "timeseries",
            f"SELECT {AT} AS time,\n"
            "    sumIf(requests, key_id IN (SELECT key_id FROM v_keys WHERE environment = 'live')) AS live,\n"
            "    sumIf(requests, key_id IN (SELECT key_id FROM v_keys WHERE environment = 'test')) AS test,\n"
            f"    sum(requests) - live - test AS undeclared\n{HOURS}\nGROUP BY time ORDER BY time",
            (("time", "time"), ("live", "number"), ("test", "number"), ("undeclared", "number")),
            description="By the hour, and by the day over more than four days. The newest point is still growing.",
        ),
        Panel(
            "Errors",
            "timeseries",
            f"SELECT {AT} AS time, sum(refused) AS `401, 403, 429`,\n"
            f"    sum(other_4xx) AS `other 4xx`, sum(failed) AS `5xx`\n{HOURS}\nGROUP BY time ORDER BY time",
            (("time", "time"), ("401, 403, 429", "number"), ("other 4xx", "number"), ("5xx", "number")),
            description="Refusals are the gateway's, 5xx the API's own. Of all keys at once: an outage or a deploy.",
        ),
        Panel(
            "Incidents opened",
            "timeseries",
            "SELECT $__timeInterval(opened_at) AS time, countIf(severity = 'medium') AS medium,\n"
            "    countIf(severity = 'high') AS high, countIf(severity = 'critical') AS critical\n"
            f"FROM v_incidents WHERE $__timeFilter(opened_at)\n    AND {OF_INCIDENTS}\nGROUP BY time ORDER BY time",
            (("time", "time"), ("medium", "number"), ("high", "number"), ("critical", "number")),
            bars=True,
            description="By severity: high and critical page, medium is listed.",
        ),
        Panel(
            "Requests by country",
            "geomap",
            f"SELECT country, sum(requests) AS total FROM {span('places', 'place_days', 'country, key_id, requests')}\n"
            f"WHERE country != ''\n    AND {OF_KEYS}\n"
            "GROUP BY country ORDER BY total DESC LIMIT 250",
            (("country", "text"), ("total", "number")),
            description="Of the callers' addresses, by the geo database; those it does not know are left out.",
        ),
    ),
)

MOVES: Final = Row(
    "What moved",
    (
        Panel(
            "Top movers",
            "table",
            f"SELECT key_id, sumIf(requests, at >= {_FROM}) AS total, sum(requests) - total AS before,\n"
            "    toInt64(total) - toInt64(before) AS change\n"
            f"FROM {span('hours', 'days', 'key_id, requests', _BEFORE, _TO, long=_LONG)}\n"
            f"WHERE {OF_KEYS}\n"
            "GROUP BY key_id ORDER BY abs(change) DESC LIMIT 25",
            (("key_id", "text"), ("total", "number"), ("before", "number"), ("change", "number")),
            8,
            description="Requests in the period, and in the period of the same length before it; over more than four "
            "days of whole days, without today.",
        ),
        Panel(
            "Newest incidents",
            "table",
            "SELECT opened_at, severity, state, key_id, owner, rung, arrayStringConcat(detectors, ', ') AS detectors,\n"
            f"    text, incident_id FROM v_incidents WHERE $__timeFilter(opened_at)\n    AND {OF_INCIDENTS}\n"
            "ORDER BY opened_at DESC LIMIT 100",
            (
                ("opened_at", "time"), ("severity", "text"), ("state", "text"), ("key_id", "text"), ("owner", "text"),
                ("rung", "text"), ("detectors", "text"), ("text", "text"), ("incident_id", "text"),
            ),
            16,
            description="The id leads to the incident's page in the console, which explains it.",
        ),
    ),
)  # fmt: skip

CARE: Final = Row(
    "Keys to look after",
    (
        Panel(
            "New keys",
            "table",
            "SELECT key_id, first_used, country, environment FROM v_keys_last_used\n"
            f"WHERE $__timeFilter(first_used)\n    AND {OF_KEYS}\nORDER BY first_used DESC LIMIT 100",
            (("key_id", "text"), ("first_used", "time"), ("country", "text"), ("environment", "text")),
            8,
            description="First seen in the period.",
        ),
        Panel(
            "Dormant keys",
            "table",
            "SELECT k.key_id AS key_id, k.owner AS owner, if(u.key_id = '', NULL, u.last_used) AS last_used,\n"
            "    dateDiff('day', if(u.key_id = '', k.created_at, u.last_used), now()) AS days\n"
            f"{_DECLARED}\n"
            "    AND days > if(u.key_id = '', 14, ${dormant_days})\n"
            "ORDER BY days DESC LIMIT 200",
            (("key_id", "text"), ("owner", "text"), ("last_used", "time"), ("days", "number")),
            8,
            description="Active, and not used for so many days; or never used and older than 14 days.",
        ),
        Panel(
            "Keys to rotate",
            "table",
            f"SELECT key_id, owner, environment, {_BORN} AS born, {_AGE} AS days FROM v_keys\n"
            f"WHERE status = 'active' AND days > ${{over_age_days}}\n    AND {OF_KEYS}\nORDER BY days DESC LIMIT 200",
            (("key_id", "text"), ("owner", "text"), ("environment", "text"), ("born", "time"), ("days", "number")),
            8,
            description="Over age: the oldest first. A new key, rotated_to declared, then `keywatch keys rotations`.",
        ),
    ),
)

FLEET: Final = Dashboard(
    "keywatch-fleet",
    "Keywatch: fleet",
    (AT_A_GLANCE, TRAFFIC, MOVES, CARE),
    (
        *CHOICES,
        Variable("over_age_days", "Over age after days", text="365"),
        Variable("dormant_days", "Dormant after days", text="90"),
        CONSOLE,
    ),
    "SELECT opened_at AS time, text, rule AS title, concat(severity, ',', key_id) AS tags FROM v_incidents\n"
    f"WHERE $__timeFilter(opened_at) AND severity != 'medium'\n    AND {OF_INCIDENTS}\nLIMIT 500",
    console="/",
)
