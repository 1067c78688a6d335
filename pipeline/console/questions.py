"""What the console's pages ask of ClickHouse beyond `pipeline/asking/queries.py`."""

from __future__ import annotations

from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.queries import ask
from pipeline.console.charts import Bar
from schemas.response import act_words

PAGE: Final = 50


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One incident of the list, with the last thing that was done about it."""

    incident_id: str
    key_id: str
    owner: str
    environment: str
    rule: str
    state: str
    severity: str
    rung: str
    opened_us: int
    last_us: int
    events: int
    return_period_days: float
    text: str
    stage: str
    verdict: str
    acted_rung: str
    direction: str = "apply"  # apply | undo

    @property
    def act(self) -> str:
        """What was decided or done last: "fence", "undo of fence"."""
        return act_words(self.acted_rung, self.direction)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What the list shows; "" and 0 are all."""

    state: str = ""
    severity: str = ""
    about: str = ""  # a beginning of the key, or the owner
    before_us: int = 0


def incidents(client: Client, wanted: Filter) -> list[Line]:
    """The newest first, one page of them."""
    sql = """
        WITH chosen AS (
            SELECT * FROM incidents FINAL
            WHERE ({state:String} = '' OR state = {state:String})
                AND ({severity:String} = '' OR severity = {severity:String})
                AND ({about:String} = '' OR startsWith(key_id, {about:String}) OR owner = {about:String})
                AND ({before:Int64} = 0 OR opened_at < fromUnixTimestamp64Micro({before:Int64}, 'UTC'))
            ORDER BY opened_at DESC, incident_id LIMIT {limit:UInt32}
        )
        SELECT i.incident_id AS incident_id, i.key_id AS key_id, owner, environment, rule, state, severity,
            i.rung AS rung, toUnixTimestamp64Micro(opened_at) AS opened_us, toUnixTimestamp64Micro(last_at) AS last_us,
            events, return_period_days, text, r.stage AS stage, r.verdict AS verdict, r.acted_rung AS acted_rung,
            r.direction AS direction
        FROM chosen AS i LEFT JOIN (
            SELECT incident_id, argMax(stage, (at, partition, offset)) AS stage,
                argMax(verdict, (at, partition, offset)) AS verdict,
                argMax(rung, (at, partition, offset)) AS acted_rung,
                argMax(JSONExtractString(body, 'direction'), (at, partition, offset)) AS direction
            FROM responses WHERE incident_id IN (SELECT incident_id FROM chosen) GROUP BY incident_id
        ) AS r ON r.incident_id = i.incident_id
        ORDER BY opened_us DESC, incident_id"""
    values = {
        "state": wanted.state, "severity": wanted.severity, "about": wanted.about, "before": wanted.before_us,
        "limit": PAGE,
    }  # fmt: skip
    return ask(client, Line, sql, values)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the list."""

    key_id: str
    environment: str
    country: str
    asn: int
    last_used_us: int
    first_used_us: int
    open_incidents: int


def keys(client: Client, beginning: str, after: str = "") -> list[Key]:
    """Those whose id begins so, by id; one page."""
    sql = """
        WITH chosen AS (
            SELECT * FROM keys_last_used FINAL
            WHERE startsWith(key_id, {beginning:String}) AND key_id > {after:String}
            ORDER BY key_id LIMIT {limit:UInt32}
        )
        SELECT k.key_id AS key_id, environment, country, asn, toUnixTimestamp64Micro(last_used) AS last_used_us,
            toUnixTimestamp64Micro(first_used) AS first_used_us, i.n AS open_incidents
        FROM chosen AS k LEFT JOIN (
            SELECT key_id, count() AS n FROM incidents FINAL
            WHERE state = 'open' AND key_id IN (SELECT key_id FROM chosen) GROUP BY key_id
        ) AS i ON i.key_id = k.key_id
        ORDER BY key_id"""
    return ask(client, Key, sql, {"beginning": beginning, "after": after, "limit": PAGE})


class _Hour(msgspec.Struct, frozen=True):
    at_us: int
    requests: float
    errors: float


_UNTIL: Final = """{before:Int64} = 0 OR window_start <= toDateTime(intDiv({before:Int64}, 1000000), 'UTC')"""


def hours(client: Client, key: str, days: int, before_us: int = 0) -> list[Bar]:
    """Requests an hour in the last `days` of its use, or before a time; hours without use are absent."""
    sql = f"""
        WITH (
            SELECT max(window_start) FROM requests_1h WHERE key_id = {{key:String}} AND ({_UNTIL})
        ) AS newest
        SELECT toInt64(toUnixTimestamp(window_start)) * 1000000 AS at_us, toFloat64(sum(requests)) AS requests,
            toFloat64(sum(errors_401 + errors_403 + errors_404 + errors_429 + errors_4xx + errors_5xx)) AS errors
        FROM requests_1h FINAL
        WHERE key_id = {{key:String}} AND ({_UNTIL}) AND window_start > newest - toIntervalDay({{days:UInt16}})
        GROUP BY window_start ORDER BY window_start"""  # noqa: S608 (constants)
    found = ask(client, _Hour, sql, {"key": key, "days": days, "before": before_us})
    return [Bar(each.at_us, each.requests, each.errors) for each in found]


class _Cell(msgspec.Struct, frozen=True):
    weekday: int
    hour: int
    requests: float


def week(client: Client, key: str) -> list[tuple[int, int, float]]:
    """(weekday from Monday 0, hour UTC, requests) over the last 56 days of use."""
    sql = """
        WITH (SELECT max(window_start) FROM requests_1h WHERE key_id = {key:String}) AS newest
        SELECT toDayOfWeek(window_start) - 1 AS weekday, toHour(window_start) AS hour,
            toFloat64(sum(requests)) AS requests
        FROM requests_1h FINAL
        WHERE key_id = {key:String} AND window_start > newest - toIntervalDay(56)
        GROUP BY weekday, hour ORDER BY weekday, hour"""
    return [(each.weekday, each.hour, each.requests) for each in ask(client, _Cell, sql, {"key": key})]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The head of the list: open incidents by grade, and how fresh what is shown is."""

    critical: int
    high: int
    medium: int
    newest_use_us: int


def counts(client: Client) -> Counts:
    """Of now."""
    sql = """
        SELECT countIf(severity = 'critical') AS critical, countIf(severity = 'high') AS high,
            countIf(severity = 'medium') AS medium,
            (SELECT toUnixTimestamp64Micro(max(last_used)) FROM keys_last_used) AS newest_use_us
        FROM incidents FINAL WHERE state = 'open'"""
    [found] = ask(client, Counts, sql, {})
    return found


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit."""

    at_us: int
    key_id: str
    incident_id: str
    stage: str
    verdict: str
    rung: str
    reason: str
    policy_version: str
    direction: str = "apply"  # apply | undo

    @property
    def act(self) -> str:
        """What is decided or done: "fence", "undo of fence"."""
        return act_words(self.rung, self.direction)


def decisions(client: Client, key: str = "") -> list[Decision]:
    """The newest first; of one key or of all."""
    sql = """
        SELECT toUnixTimestamp64Micro(at) AS at_us, key_id, incident_id, stage, verdict, rung, reason,
            JSONExtractString(body, 'policy_version') AS policy_version,
            JSONExtractString(body, 'direction') AS direction
        FROM responses FINAL WHERE {key:String} = '' OR key_id = {key:String}
        ORDER BY at DESC, partition, offset DESC LIMIT {limit:UInt32}"""
    return ask(client, Decision, sql, {"limit": PAGE, "key": key})
