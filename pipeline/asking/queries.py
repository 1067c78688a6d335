"""What people ask of ClickHouse, each as one query: a key's requests, errors, last use, places; incidents; the normal.

Values are bound on the server (`{name:Type}`), never pasted into SQL. Times are integer microseconds UTC. "The last n
days" end at the newest use of any key, so that a replayed log of last year shows its own last days. Tables are read
with FINAL; parts of a window (`schemas/rows.py`) add up by the same sum that adds up windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.sinks.connect import by_consequence
from schemas.control import MOST_EVENTS
from schemas.event import Event
from schemas.incident import Incident
from schemas.response import act_words

T = TypeVar("T", bound=msgspec.Struct)

DAY_US: Final = 86_400_000_000

# The order keys of the tables hold the partition's time, so FINAL needn't look across partitions.
_SETTINGS: Final = {"do_not_merge_across_partitions_select_final": 1}

_AS_OF: Final = "(SELECT max(last_used) FROM keys_last_used)"
HELD: Final = "outcome NOT IN ('invalid', 'expired', 'disabled')"
"""Of what is usual for a key: refused requests in its name can be sent by anybody, from anywhere, for weeks before."""
_SINCE: Final = f"window_start >= {_AS_OF} - toIntervalSecond({{seconds:UInt64}})"
_KEYS: Final = "(empty({keys:Array(String)}) OR key_id IN {keys:Array(String)})"


class KeyRequests(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one key in the period; `per_hour` over the hours in which it was used."""

    key_id: str
    requests: int
    bytes_in: int
    bytes_out: int
    active_hours: int
    per_hour: float
    busiest_hour: int
    mean_latency_ms: float


class KeyErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of one key in the period, as shares of its requests (0 to 1)."""

    key_id: str
    requests: int
    error_rate: float
    rate_401: float
    rate_403: float
    rate_404: float
    rate_429: float
    rate_4xx: float
    rate_5xx: float


class LastUse(msgspec.Struct, frozen=True, kw_only=True):
    """When and from where a key was used last."""

    key_id: str
    last_used_us: int
    first_used_us: int
    client_ip: str
    country: str
    asn: int
    environment: str


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One country and network of one key in the period; `prefixes` counts its /24 or /48."""

    key_id: str
    country: str
    asn: int
    requests: int
    share: float
    prefixes: int
    first_us: int
    last_us: int


class IncidentLine(msgspec.Struct, frozen=True, kw_only=True):
    """One incident at its newest revision."""

    incident_id: str
    key_id: str
    rule: str
    state: str
    severity: str
    rung: str
    opened_us: int
    last_us: int
    events: int
    return_period_days: float
    detectors: list[str]
    text: str


class EvidenceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One request of an incident's evidence."""

    at_us: int
    request_id: str
    method: str
    route: str
    status: int
    outcome: str
    client_ip: str
    country: str
    asn: int
    client: str


class ResponseLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit log."""

    at_us: int
    stage: str
    verdict: str
    rung: str
    reason: str
    direction: str = "apply"  # apply | undo
    by: str = ""  # of an undo, a bulk or a declined act: the person, or "time"

    @property
    def words(self) -> str:
        """What was decided or done, and who decided it; the reason is apart."""
        by = f" by {self.by}" if self.by and self.stage == "decided" else ""
        return f"{self.stage}: {act_words(self.rung, self.direction)} {self.verdict}{by}"


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """One value that is usual for a key, and the share of its requests that had it."""

    dimension: str  # country | network | client | route
    value: str
    share: float


class Normal(msgspec.Struct, frozen=True, kw_only=True):
    """A key before an incident: requests per active hour (5 %, half, 95 %) and what it is used for and from where."""

    days: int
    active_hours: int
    low: float
    median: float
    high: float
    usual: tuple[Usual, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One incident with all that speaks for or against it."""

    incident: Incident
    before: tuple[EvidenceLine, ...]  # the hour before it opened, newest requests only
    evidence: tuple[EvidenceLine, ...]
    responses: tuple[ResponseLine, ...]
    applied: tuple[Applied, ...]  # what people's words on it have changed
    normal: Normal


def requests_per_key(client: Client, keys: Sequence[str] = (), days: float = 1, limit: int = 50) -> list[KeyRequests]:
    """The busiest first. Raises `Retry` or `Fatal`, as all functions here."""
    sql = f"""
        SELECT key_id, sum(hour) AS requests, sum(inside) AS bytes_in, sum(outside) AS bytes_out,
            count() AS active_hours, requests / active_hours AS per_hour, max(hour) AS busiest_hour,
            sum(latency) / requests AS mean_latency_ms
        FROM (
            SELECT key_id, window_start, sum(r.requests) AS hour, sum(r.bytes_in) AS inside,
                sum(r.bytes_out) AS outside, sum(r.latency_sum_ms) AS latency
            FROM requests_1h AS r FINAL WHERE {_KEYS} AND {_SINCE} GROUP BY key_id, window_start
        )
        GROUP BY key_id ORDER BY requests DESC, key_id LIMIT {{limit:UInt32}}"""  # noqa: S608 (constants)
    return ask(client, KeyRequests, sql, _period(keys, days, limit))


def error_rates(client: Client, keys: Sequence[str] = (), days: float = 1.0, limit: int = 50) -> list[KeyErrors]:
    """The busiest first."""
    sql = f"""
        SELECT key_id, sum(r.requests) AS requests, rate_401 + rate_403 + rate_404 + rate_429 + rate_4xx + rate_5xx
                AS error_rate,
            sum(r.errors_401) / requests AS rate_401, sum(r.errors_403) / requests AS rate_403,
            sum(r.errors_404) / requests AS rate_404, sum(r.errors_429) / requests AS rate_429,
            sum(r.errors_4xx) / requests AS rate_4xx, sum(r.errors_5xx) / requests AS rate_5xx
        FROM requests_1h AS r FINAL WHERE {_KEYS} AND {_SINCE}
        GROUP BY key_id ORDER BY requests DESC, key_id LIMIT {{limit:UInt32}}"""  # noqa: S608
    return ask(client, KeyErrors, sql, _period(keys, days, limit))


def last_used(client: Client, keys: Sequence[str] = (), limit: int = 50) -> list[LastUse]:
    """The most recently used first; whatever its age."""
    sql = f"""
        SELECT key_id, toUnixTimestamp64Micro(u.last_used) AS last_used_us,
            toUnixTimestamp64Micro(u.first_used) AS first_used_us,
            replaceRegexpOne(toString(u.client_ip), '^::ffff:([0-9.]+)$', '\\\\1') AS client_ip,
            country, asn, environment
        FROM keys_last_used AS u FINAL WHERE {_KEYS}
        ORDER BY u.last_used DESC, key_id LIMIT {{limit:UInt32}}"""  # noqa: S608
    return ask(client, LastUse, sql, {"keys": list(keys), "limit": limit})


def places(client: Client, keys: Sequence[str] = (), days: float = 30.0, limit: int = 50) -> list[Place]:
    """Where keys are used from: per key, country and network, the most frequent first."""
    sql = f"""
        SELECT key_id, country, asn, sum(s.requests) AS requests,
            requests / sum(requests) OVER (PARTITION BY key_id) AS share, uniqExact(prefix) AS prefixes,
            toUnixTimestamp64Micro(min(s.first_ts)) AS first_us, toUnixTimestamp64Micro(max(s.last_ts)) AS last_us
        FROM key_source_1h AS s FINAL WHERE {_KEYS} AND {_SINCE} AND {HELD}
        GROUP BY key_id, country, asn ORDER BY requests DESC, key_id, country, asn
        LIMIT {{limit:UInt32}}"""  # noqa: S608
    return ask(client, Place, sql, _period(keys, days, limit))


# An incident's row is as of its last revision: what came since, under an attack that goes on, is in `evidence`.
_INCIDENT: Final = """
    SELECT incident_id, key_id, rule, state, severity, rung, toUnixTimestamp64Micro(opened_at) AS opened_us,
        toUnixTimestamp64Micro(greatest(i.last_at, e.last_at)) AS last_us, greatest(i.events, e.events) AS events,
        return_period_days, detectors, text
    FROM chosen AS i LEFT JOIN (
        SELECT incident_id, max(ts) AS last_at, count() AS events FROM evidence FINAL
        WHERE incident_id IN (SELECT incident_id FROM chosen) GROUP BY incident_id
    ) AS e USING incident_id"""


def newest_incidents(client: Client, key: str = "", limit: int = 50, state: str = "") -> list[IncidentLine]:
    """The newest first, of one key or of all; of one state or of all."""
    sql = f"""
        WITH chosen AS (
            SELECT * FROM incidents FINAL WHERE ({{key:String}} = '' OR key_id = {{key:String}})
                AND ({{state:String}} = '' OR state = {{state:String}})
            ORDER BY opened_at DESC, incident_id LIMIT {{limit:UInt32}}
        )
        {_INCIDENT} ORDER BY opened_us DESC, incident_id"""  # noqa: S608
    return ask(client, IncidentLine, sql, {"key": key, "limit": limit, "state": state})


class _Body(msgspec.Struct, frozen=True):
    body: str


def explain_incident(client: Client, incident_id: str, evidence: int = 20) -> Explanation | None:
    """One incident by its id or by a beginning that only it has; None where there is none or more than one."""
    incident = find_incident(client, incident_id)
    if incident is None:
        return None
    return Explanation(
        incident=brought_up_to_date(client, incident),
        before=tuple(_before(client, incident.key_id, incident.opened_at, evidence)),
        evidence=tuple(_evidence(client, incident.incident_id, evidence)),
        responses=tuple(responses_to(client, incident.incident_id)),
        applied=tuple(applied_to(client, incident.incident_id)),
        normal=normal(client, incident.key_id, incident.opened_at),
    )


def find_incident(client: Client, incident_id: str) -> Incident | None:
    """One incident at its newest revision; None where none or more than one begins like this."""
    sql = "SELECT body FROM incidents FINAL WHERE startsWith(incident_id, {id:String}) LIMIT 2"
    found = ask(client, _Body, sql, {"id": incident_id}) if incident_id else []
    return msgspec.json.decode(found[0].body, type=Incident) if len(found) == 1 else None


class _Since(msgspec.Struct, frozen=True):
    events: int
    last_at: str


def brought_up_to_date(client: Client, incident: Incident) -> Incident:
    """With the events and the time of the newest evidence: the body is as of the last revision."""
    sql = """
        SELECT count() AS events, formatDateTime(max(ts), '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC') AS last_at
        FROM evidence FINAL WHERE incident_id = {id:String}"""
    [since] = ask(client, _Since, sql, {"id": incident.incident_id})
    if not since.events:
        return incident
    last_at = max(incident.last_at, since.last_at)
    return msgspec.structs.replace(incident, events=max(incident.events, since.events), last_at=last_at)


_REQUEST: Final = """
    SELECT toUnixTimestamp64Micro(ts) AS at_us, request_id, method, route, status, outcome,
        replaceRegexpOne(toString(r.client_ip), '^::ffff:([0-9.]+)$', '\\\\1') AS client_ip, country, asn, client"""


def _evidence(client: Client, incident_id: str, limit: int) -> list[EvidenceLine]:
    sql = f"""{_REQUEST} FROM evidence AS r FINAL WHERE incident_id = {{id:String}}
        ORDER BY ts, epoch, partition, offset LIMIT {{limit:UInt32}}"""
    return ask(client, EvidenceLine, sql, {"id": incident_id, "limit": limit})


def evidence_events(client: Client, incident: Incident, limit: int = MOST_EVENTS) -> list[Event]:
    """One request of the evidence for each network, client and operation, the first ones: what `expected` admits.

    Of the incident's time only requests whose network, country, client and operation its findings name: beside the
    owner there may have been another stranger, whom nobody has judged.
    """
    sql = r"""
        SELECT key_id, toUnixTimestamp64Micro(ts) AS ts_us,
            replaceRegexpOne(toString(r.client_ip), '^::(ffff:)?([0-9.]*)$', '\2') AS client_ip,
            method, route, path, status, outcome, user_agent, fingerprint, environment, scope, request_id
        FROM evidence AS r FINAL WHERE incident_id = {id:String}
            AND (asn, country, client) IN (
                SELECT each.1, each.2, each.3
                FROM (SELECT arrayJoin(arrayZip({asns:Array(UInt32)}, {countries:Array(String)},
                    {clients:Array(String)})) AS each))
            AND (method, route) IN (
                SELECT each.1, each.2
                FROM (SELECT arrayJoin(arrayZip({methods:Array(String)}, {routes:Array(String)})) AS each))
        ORDER BY ts, epoch, partition, offset LIMIT 1 BY asn, country, client, method, route LIMIT {limit:UInt32}"""
    named = [finding.sample for finding in incident.findings]
    values = {
        "id": incident.incident_id, "limit": limit, "asns": [each.asn for each in named],
        "countries": [each.country for each in named], "clients": [each.client for each in named],
        "methods": [each.method for each in named], "routes": [each.route for each in named],
    }  # fmt: skip
    return ask(client, Event, sql, values)


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a feedback has changed, and from which offset on."""

    control_id: str
    seq: int
    key_id: str
    verdict: str
    at_us: int
    effect: str
    partition: int
    offset: int


def applied_to(client: Client, incident_id: str) -> list[Applied]:
    """What people's words on one incident have changed, in the order in which they were said."""
    sql = """
        SELECT control_id, seq, key_id, verdict, toUnixTimestamp64Micro(at) AS at_us, effect, partition, offset
        FROM applied FINAL WHERE incident_id = {id:String} ORDER BY at, seq, partition"""
    return ask(client, Applied, sql, {"id": incident_id})


def _before(client: Client, key: str, opened_at: str, limit: int) -> list[EvidenceLine]:
    """The last requests of the hour before an incident opened: what led up to it, while `requests` still has them."""
    moment = "parseDateTime64BestEffort({opened:String}, 6, 'UTC')"
    sql = f"""{_REQUEST} FROM requests AS r FINAL
        WHERE key_id = {{key:String}} AND ts < {moment} AND ts >= {moment} - toIntervalHour(1)
        ORDER BY ts DESC, epoch DESC, partition DESC, offset DESC LIMIT {{limit:UInt32}}"""
    return ask(client, EvidenceLine, sql, {"key": key, "opened": opened_at, "limit": limit})[::-1]


def responses_to(client: Client, incident_id: str) -> list[ResponseLine]:
    """What was done about one incident, the oldest first."""
    sql = """
        SELECT toUnixTimestamp64Micro(at) AS at_us, stage, verdict, rung, reason,
            JSONExtractString(body, 'direction') AS direction, JSONExtractString(body, 'by') AS by
        FROM responses FINAL WHERE incident_id = {id:String} ORDER BY at, partition, offset LIMIT 1000"""
    return ask(client, ResponseLine, sql, {"id": incident_id})


class _Band(msgspec.Struct, frozen=True):
    active_hours: int
    low: float
    median: float
    high: float


def normal(client: Client, key: str, before: str, days: int = 30) -> Normal:
    """What was usual for the key in the `days` before `before` (RFC 3339)."""
    values = {"key": key, "before": before, "days": days, "each": 3}
    moment = "parseDateTime64BestEffort({before:String}, 6, 'UTC')"
    when = f"""key_id = {{key:String}} AND window_start < toStartOfHour({moment})
        AND window_start >= {moment} - toIntervalDay({{days:UInt16}})"""
    band = f"""
        SELECT count() AS active_hours, ifNotFinite(quantileExact(0.05)(hour), 0) AS low,
            ifNotFinite(quantileExact(0.5)(hour), 0) AS median, ifNotFinite(quantileExact(0.95)(hour), 0) AS high
        FROM (SELECT toFloat64(sum(requests)) AS hour FROM requests_1h FINAL WHERE {when} GROUP BY window_start)"""  # noqa: S608
    usual = f"""
        SELECT pair.1 AS dimension, pair.2 AS value,
            sum(requests) / sum(sum(requests)) OVER (PARTITION BY dimension) AS share
        FROM (
            SELECT requests, arrayJoin([
                ('country', toString(country)), ('network', concat('AS', toString(asn))),
                ('client', toString(client)), ('route', toString(route))]) AS pair
            FROM key_source_1h FINAL WHERE {when} AND {HELD}
        )
        GROUP BY dimension, value ORDER BY dimension, share DESC, value LIMIT {{each:UInt8}} BY dimension"""  # noqa: S608
    found = ask(client, _Band, band, values)[0]
    return Normal(days=days, usual=tuple(ask(client, Usual, usual, values)), **msgspec.structs.asdict(found))


def _period(keys: Sequence[str], days: float, limit: int) -> dict[str, Any]:
    return {"keys": list(keys), "seconds": round(days * 86_400), "limit": limit}


def ask(client: Client, kind: type[T], sql: str, values: dict[str, Any]) -> list[T]:
    """Rows as structs of `kind`, matched by column name."""
    try:
        found = client.query(sql, parameters=values, settings=_SETTINGS)
    except (ClickHouseError, OSError) as error:
        raise by_consequence("query", error) from error
    names = found.column_names
    return [msgspec.convert(dict(zip(names, row, strict=True)), kind, strict=False) for row in found.result_rows]


def rewrite(client: Client, sql: str, values: dict[str, Any]) -> None:
    """A mutation to its end, on every replica. Raises Retry (also where a replica is away) or Fatal."""
    try:
        client.command(sql + " SETTINGS mutations_sync = 2", parameters=values)
    except (ClickHouseError, OSError) as error:
        raise by_consequence("rewriting rows", error) from error
