# ruff: noqa: S608  (the SQL is put together from constants of this folder; Grafana binds its own macros)
"""Incidents and responses: how many keys are watched, what became of findings, how fast, what was refused, how
right it was.
"""

from __future__ import annotations

from typing import Final

from deploy.grafana.panel import (
    ACT,
    CHOICES,
    CONSOLE,
    OF_INCIDENTS,
    OF_KEYS,
    Chart,
    Dashboard,
    Panel,
    Row,
    Variable,
)
from deploy.grafana.pipeline import quantiles

OF_KEY: Final = "$__conditionalAll(key_id IN (${key:singlequote}), $key)"
IN_TIME: Final = f"$__timeFilter(at)\n    AND {OF_KEY}\n    AND {OF_KEYS}"
OPENED: Final = f"$__timeFilter(opened_at)\n    AND {OF_KEY}\n    AND {OF_INCIDENTS}"
_USED: Final = f"SELECT key_id FROM v_keys_last_used WHERE last_used >= $__fromTime AND {OF_KEY}"

COVERAGE: Final = Row(
    "Which keys are watched",
    (
        Panel(
            "Used keys that are declared",
            "stat",
            f"SELECT countIf(key_id IN (SELECT key_id FROM v_keys)) / greatest(count(), 1) AS share FROM ({_USED})",
            (("share", "number"),),
            6,
            unit="percentunit",
            description="A key that nobody declared is protected: it is observed and never acted on.",
        ),
        Panel(
            "Keys, by what is known of them",
            "barchart",
            "SELECT 'declared and used' AS what, count() AS keys FROM v_keys\n"
            f"WHERE key_id IN ({_USED})\n    AND {OF_KEYS}\n"
            "UNION ALL SELECT 'declared, not used', count() FROM v_keys\n"
            f"WHERE key_id NOT IN ({_USED})\n    AND {OF_KEYS}\n"
            "UNION ALL SELECT 'used, not declared', count() FROM v_keys_last_used\n"
            f"WHERE key_id IN ({_USED}) AND key_id NOT IN (SELECT key_id FROM v_keys)\n"
            "UNION ALL SELECT 'with a finding', uniqExact(key_id) FROM v_findings\n"
            f"WHERE {IN_TIME}\n"
            "UNION ALL SELECT 'with an incident', uniqExact(key_id) FROM v_incidents\n"
            f"WHERE {OPENED}",
            (("what", "text"), ("keys", "number")),
            18,
            description="Used means used in the period. Undeclared keys are watched and never acted on. "
            "`keywatch coverage` lists those that a detector is blind to.",
        ),
    ),
)

DECIDED: Final = "stage = 'decided' AND key_id != '*'"
"""Of keys: what people say to all responders stands among the responses, too."""
_STEPS: Final = (
    ("1 findings", f"SELECT count() FROM v_findings WHERE {IN_TIME}"),
    ("2 in an incident", f"SELECT count() FROM v_findings WHERE incident_id != '' AND {IN_TIME}"),
    ("3 incidents", f"SELECT count() FROM v_incidents WHERE {OPENED}"),
    ("4 decided", f"SELECT uniqExact(response_id) FROM v_responses WHERE {DECIDED} AND {IN_TIME}"),
    (
        "5 allowed",
        f"SELECT uniqExact(response_id) FROM v_responses WHERE {DECIDED} AND verdict = 'allowed' AND {IN_TIME}",
    ),
    (
        "6 done",
        f"SELECT uniqExact(response_id) FROM v_responses WHERE stage = 'done' AND verdict = 'allowed' AND {IN_TIME}",
    ),
    ("7 seen to hold", f"SELECT uniqExact(response_id) FROM v_responses WHERE stage = 'enforced' AND {IN_TIME}"),
)

FUNNEL: Final = Row(
    "From finding to act",
    (
        Panel(
            "Funnel",
            "barchart",
            "\nUNION ALL\n".join(f"SELECT '{step}' AS step, toUInt64(({sql})) AS total" for step, sql in _STEPS),
            (("step", "text"), ("total", "number")),
            description="What became of the period's findings. Most stay silent: 3 to 7 are what people hear of.",
        ),
        Panel(
            "Incidents, by rule",
            "timeseries",
            "SELECT $__timeInterval(opened_at) AS time, rule, count() AS incidents\n"
            f"FROM v_incidents WHERE {OPENED}\nGROUP BY time, rule ORDER BY time, rule",
            (("time", "time"), ("rule", "text"), ("incidents", "number")),
            bars=True,
            description="visit: one visit was odd; slow: many were, a little; proof: a decoy, a dead or a leaked key.",
        ),
        Panel(
            "Decisions, by verdict",
            "timeseries",
            "SELECT $__timeInterval(at) AS time, verdict, uniqExact(response_id) AS decisions\n"
            f"FROM v_responses WHERE {DECIDED} AND {IN_TIME}\nGROUP BY time, verdict ORDER BY time, verdict",
            (("time", "time"), ("verdict", "text"), ("decisions", "number")),
            bars=True,
            description="Of the guards: allowed, refused (below: by which), waiting for approval, or only simulated.",
        ),
        Chart(
            "In force, waiting, held back",
            (
                ("sum by (rung) (keywatch_acts_in_force)", "in force: {{rung}}"),
                ("sum(keywatch_acts_waiting)", "waiting for people"),
                ("sum(keywatch_acts_queued)", "held back by caps or breaker"),
            ),
            8,
            8,
            description="Acts that stand now, and keys that wait for people. `keywatch respond queue` ranks them.",
        ),
        Chart(
            "Caps used",
            (("max by (cap, window) (keywatch_cap_used_ratio)", "{{cap}}, per {{window}}"),),
            4,
            8,
            "percentunit",
            description="At 100 % further keys wait for a person: KeywatchCapReached.",
            red_from=1,
        ),
    ),
)

_OPENING: Final = "i.opened_at"
SPEED: Final = Row(
    "How fast",
    (
        Chart(
            "Time to detect: from the event to its incident",
            quantiles("keywatch_response_seconds", 'leg="event_to_incident"'),
            8,
            8,
            "s",
            description="From a request's own time to the message that tells of it.",
        ),
        Chart(
            "Time to effect: from the act to the first refusal seen",
            quantiles("keywatch_response_seconds", 'leg="act_to_effect"'),
            8,
            8,
            "s",
            description="Until the gateway was seen to refuse: what a thief still had.",
        ),
        Panel(
            "Seconds from an incident's opening",
            "table",
            "SELECT r.stage AS stage, r.rung AS rung, uniqExact(r.response_id) AS responses,\n"
            f"    quantileExact(0.5)(dateDiff('millisecond', {_OPENING}, r.at) / 1000) AS median_s,\n"
            f"    quantileExact(0.95)(dateDiff('millisecond', {_OPENING}, r.at) / 1000) AS p95_s\n"
            f"FROM (SELECT * FROM v_responses WHERE {IN_TIME}) AS r\n"
            "INNER JOIN (SELECT incident_id, opened_at FROM v_incidents) AS i ON i.incident_id = r.incident_id\n"
            "WHERE r.stage IN ('decided', 'done', 'failed', 'enforced', 'broken')\n"
            "GROUP BY stage, rung ORDER BY rung, median_s",
            (
                ("stage", "text"), ("rung", "text"), ("responses", "number"), ("median_s", "number"),
                ("p95_s", "number"),
            ),
            8,
            description="To each stage of its response, by rung: median and 95th percentile.",
        ),
    ),
)  # fmt: skip

REFUSED: Final = Row(
    "What was refused, and how right it was",
    (
        Panel(
            "Refusals, by guard",
            "table",
            "SELECT said.1 AS guard, uniqExact(response_id) AS refused, uniqExact(key_id) AS keys, max(at) AS last\n"
            "FROM (\n"
            "    SELECT response_id, key_id, at,\n"
            "        arrayJoin(JSONExtract(body, 'guards', 'Array(Tuple(guard String, passed Bool))')) AS said\n"
            f"    FROM v_responses WHERE {DECIDED} AND verdict = 'refused' AND {IN_TIME}\n"
            ") WHERE NOT said.2 GROUP BY guard ORDER BY refused DESC",
            (("guard", "text"), ("refused", "number"), ("keys", "number"), ("last", "time")),
            8,
            description="Several guards may refuse one act.",
        ),
        Panel(
            "What people said of incidents",
            "table",
            "SELECT i.rule AS rule, i.severity AS severity, uniqExact(i.incident_id) AS opened,\n"
            "    uniqExactIf(i.incident_id, said = 'malicious') AS malicious,\n"
            "    uniqExactIf(i.incident_id, said = 'expected') AS expected,\n"
            "    if(malicious + expected = 0, NULL, malicious / (malicious + expected)) AS precision\n"
            f"FROM (SELECT * FROM v_incidents WHERE {OPENED}) AS i\n"
            "LEFT JOIN (\n"
            "    SELECT incident_id, argMax(verdict, seq) AS said FROM v_controls WHERE kind = 'feedback'\n"
            "    GROUP BY incident_id\n"
            ") AS f ON f.incident_id = i.incident_id GROUP BY rule, severity ORDER BY rule, severity",
            (
                ("rule", "text"), ("severity", "text"), ("opened", "number"), ("malicious", "number"),
                ("expected", "number"), ("precision", "number"),
            ),
            8,
            description="By the newest word on each; precision is of the reviewed ones alone.",
        ),
        Panel(
            "Withheld",
            "table",
            "SELECT reason, by, rule, count() AS messages, uniqExact(key_id) AS keys, max(at) AS last\n"
            f"FROM v_withheld WHERE {IN_TIME}\nGROUP BY reason, by, rule ORDER BY messages DESC LIMIT 100",
            (
                ("reason", "text"), ("by", "text"), ("rule", "text"), ("messages", "number"), ("keys", "number"),
                ("last", "time"),
            ),
            8,
            description="Found and not told: mutes, plans, words that it was expected.",
        ),
        Panel(
            "Newest responses",
            "table",
            f"SELECT at, key_id, {ACT}, verdict, stage, reason, incident_id FROM v_responses\n"
            f"WHERE {IN_TIME}\nORDER BY at DESC LIMIT 200",
            (
                ("at", "time"), ("key_id", "text"), ("act", "text"), ("verdict", "text"), ("stage", "text"),
                ("reason", "text"), ("incident_id", "text"),
            ),
            24,
            description="The audit log of all keys. The incident's id leads to its page in the console.",
        ),
    ),
)  # fmt: skip

RESPONSES: Final = Dashboard(
    "keywatch-responses",
    "Keywatch: incidents and responses",
    (COVERAGE, FUNNEL, SPEED, REFUSED),
    (
        *CHOICES,
        Variable("key", "Key", f"SELECT DISTINCT key_id FROM v_incidents WHERE {OF_INCIDENTS}\nLIMIT 5000"),
        CONSOLE,
    ),
    span="now-7d",
    console="/",
)
