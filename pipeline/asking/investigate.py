"""What an investigation rests on: everything ClickHouse knows of one key in one span, and of the days before it.

A source is a network (by its number, by its /24 or /48 where it has none) and a client. It is strange where the key
was not used from that network, or by that client, in the 30 days before the span. What strangers touched is the scope;
where there are none, all of the span is. Objects (paths) and addresses are known for 14 days by `requests`, later by
the incidents' copied evidence alone.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.queries import DAY_US, HELD, Normal, ask, normal
from pipeline.times import micros, rfc3339
from schemas.incident import Incident

BEFORE_DAYS: Final = 30
HOUR_US: Final = 3_600_000_000
KEY_DAYS: Final = 7
MOST: Final = 50
MOST_FINDINGS: Final = 60
AFTER_US: Final = 7 * DAY_US
"""What was done is looked for up to a week after the span."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One network and client of the key in the span."""

    network: str  # its number; its /24 or /48 where it has none
    prefixes: list[str]
    asn: int
    country: str
    client: str
    requests: int
    succeeded: int
    refused: int
    bytes_out: int
    first_us: int
    last_us: int
    new_network: bool
    new_client: bool

    @property
    def strange(self) -> bool:
        """Not seen before, in network or client."""
        return self.new_network or self.new_client


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What was touched, by route and outcome."""

    route: str
    outcome: str
    requests: int
    bytes_in: int
    bytes_out: int
    first_us: int
    last_us: int


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """One object: a method and a path."""

    method: str
    path: str
    requests: int
    succeeded: int
    bytes_out: int


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One address of the scope."""

    client_ip: str
    asn: int
    country: str
    user_agent: str
    requests: int
    first_us: int
    last_us: int


class OtherKey(msgspec.Struct, frozen=True, kw_only=True):
    """Another key that was used from the strange networks in the span."""

    key_id: str
    networks: list[str]
    requests: int
    succeeded: int
    first_us: int
    last_us: int


class FindingLine(msgspec.Struct, frozen=True, kw_only=True):
    """One finding, told or silent."""

    at_us: int
    detector: str
    family: str
    bits: float
    text: str
    incident_id: str


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit log."""

    at_us: int
    incident_id: str
    stage: str
    verdict: str
    rung: str
    reason: str
    direction: str = "apply"


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What people said of one of the incidents."""

    at_us: int
    incident_id: str
    verdict: str
    by: str
    reason: str


class LeakLine(msgspec.Struct, frozen=True, kw_only=True):
    """One report that the key is public."""

    leak_id: str
    at_us: int
    feed: str
    url: str


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. Times in microseconds UTC; `oldest_request_us` 0: no single request of the span is kept."""

    key_id: str
    from_us: int
    to_us: int
    incident_id: str
    incidents: list[Incident]
    findings: list[FindingLine]
    sources: list[Source]
    routes: list[Route]
    things: list[Thing]
    things_from: str  # requests | evidence | ""
    addresses: list[Address]
    others: list[OtherKey]
    acts: list[Act]
    words: list[Word]
    leaks: list[LeakLine]
    normal: Normal
    findings_left: int = 0  # weaker ones that are not among `findings`

    @property
    def strangers(self) -> list[Source]:
        """The sources that were not there before."""
        return [source for source in self.sources if source.strange]


def span_of(incident: Incident) -> tuple[int, int]:
    """An incident's span in us, with the whole hour that it opened in."""
    opened, last = micros(incident.opened_at), micros(incident.last_at)
    return opened // HOUR_US * HOUR_US, max(opened, last) + 1


def investigate(client: Client, key_id: str, from_us: int, to_us: int, incident_id: str = "") -> Case:
    """Raises Retry or Fatal. A key that was never used gives an empty case."""
    values = _values(key_id, from_us, to_us)
    sources = ask(client, Source, _SOURCES, values)
    strange = [source for source in sources if source.strange]
    values |= {
        "networks": sorted({source.network for source in strange if source.new_network}),
        "asns": sorted({source.asn for source in strange if source.new_network and source.asn}),
        "clients": sorted({source.client for source in strange if source.new_client}),
        "all": int(not strange),
    }  # fmt: skip
    incidents = [msgspec.json.decode(row.body, type=Incident) for row in ask(client, _Body, _INCIDENTS, values)]
    values["incidents"] = [incident.incident_id for incident in incidents]
    things, kept = _things(client, values)
    findings = ask(client, FindingLine, _FINDINGS, values)
    return Case(
        key_id=key_id, from_us=from_us, to_us=to_us, incident_id=incident_id, incidents=incidents, sources=sources,
        findings=findings, routes=ask(client, Route, _ROUTES, values), things=things,
        things_from=kept, addresses=ask(client, Address, _addresses(kept), values) if kept else [],
        others=ask(client, OtherKey, _OTHERS, values) if values["networks"] else [],
        acts=ask(client, Act, _ACTS, values), words=ask(client, Word, _WORDS, values),
        leaks=ask(client, LeakLine, _LEAKS, values), normal=normal(client, key_id, rfc3339(from_us)),
        findings_left=ask(client, _Count, _ALL_FINDINGS, values)[0].count - len(findings),
    )  # fmt: skip


def sources_of(client: Client, key_id: str, from_us: int, to_us: int) -> list[Source]:
    """The key's sources in the span alone, the first first. Raises Retry or Fatal."""
    return ask(client, Source, _SOURCES, _values(key_id, from_us, to_us))


def _values(key_id: str, from_us: int, to_us: int) -> dict[str, Any]:
    return {
        "key": key_id, "from_us": from_us, "to_us": to_us, "from_s": from_us // HOUR_US * 3_600,
        "before_s": (from_us - BEFORE_DAYS * DAY_US) // 1_000_000, "after_us": to_us + AFTER_US, "most": MOST,
        "findings": MOST_FINDINGS,
    }  # fmt: skip


def _things(client: Client, values: dict[str, Any]) -> tuple[list[Thing], str]:
    """Of `requests`, as long as it has any of the span; else of the evidence."""
    for table in ("requests", "evidence"):
        found = ask(client, Thing, _of_table(_THINGS, table), values)
        if found:
            return found, table
    return [], ""


def _addresses(table: str) -> str:
    return _of_table(_ADDRESSES, table)


def _of_table(sql: str, table: str) -> str:
    rows = {
        "requests": "requests AS r FINAL WHERE",
        "evidence": "evidence AS r FINAL WHERE incident_id IN {incidents:Array(String)} AND",
    }
    return sql.replace("ROWS WHERE", rows[table])


class _Count(msgspec.Struct, frozen=True):
    count: int


class _Body(msgspec.Struct, frozen=True):
    body: str


_NETWORK: Final = "if(asn = 0, prefix, concat('AS', toString(asn)))"
_PREFIX: Final = r"""if(startsWith(toString(r.client_ip), '::ffff:'),
    replaceRegexpOne(toString(r.client_ip), '^::ffff:([0-9]+[.][0-9]+[.][0-9]+)[.][0-9]+$', '\\1.0/24'),
    concat(toString(tupleElement(IPv6CIDRToRange(r.client_ip, 48), 1)), '/48'))"""
_HOURS: Final = """
    w.window_start >= toDateTime({from_s:Int64}, 'UTC')
    AND w.window_start < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')"""
_BEFORE: Final = f"""key_id = {{key:String}} AND window_start < toDateTime({{from_s:Int64}}, 'UTC')
    AND window_start >= toDateTime({{before_s:Int64}}, 'UTC') AND {HELD}"""
_SOURCES: Final = f"""
    SELECT {_NETWORK} AS network, arraySort(groupUniqArray(20)(prefix)) AS prefixes, asn, country, client,
        sum(w.requests) AS requests, sumIf(w.requests, outcome = 'success') AS succeeded,
        sumIf(w.requests, outcome IN ('denied', 'invalid', 'expired', 'disabled')) AS refused,
        sum(w.bytes_out) AS bytes_out, toUnixTimestamp64Micro(min(w.first_ts)) AS first_us,
        toUnixTimestamp64Micro(max(w.last_ts)) AS last_us,
        network NOT IN (SELECT DISTINCT {_NETWORK} FROM key_source_1h WHERE {_BEFORE}) AS new_network,
        client NOT IN (SELECT DISTINCT client FROM key_source_1h WHERE {_BEFORE}) AS new_client
    FROM key_source_1h AS w FINAL WHERE key_id = {{key:String}} AND {_HOURS}
    GROUP BY network, asn, country, client ORDER BY first_us, network, client LIMIT 500"""  # noqa: S608 (constants)
_STRANGE: Final = """({all:UInt8} = 1 OR network IN {networks:Array(String)} OR client IN {clients:Array(String)})"""
_ROUTES: Final = f"""
    SELECT route, outcome, sum(w.requests) AS requests, sum(w.bytes_in) AS bytes_in, sum(w.bytes_out) AS bytes_out,
        toUnixTimestamp64Micro(min(w.first_ts)) AS first_us, toUnixTimestamp64Micro(max(w.last_ts)) AS last_us
    FROM (SELECT *, {_NETWORK} AS network FROM key_source_1h FINAL WHERE key_id = {{key:String}}) AS w
    WHERE {_HOURS} AND {_STRANGE}
    GROUP BY route, outcome ORDER BY requests DESC, route, outcome LIMIT {{most:UInt32}}"""  # noqa: S608
_SINGLE: Final = f"""
    FROM (
        SELECT *, if(asn = 0, {_PREFIX}, concat('AS', toString(asn))) AS network
        FROM ROWS WHERE key_id = {{key:String}} AND ts >= fromUnixTimestamp64Micro({{from_us:Int64}}, 'UTC')
            AND ts < fromUnixTimestamp64Micro({{to_us:Int64}}, 'UTC')
    ) AS s WHERE {_STRANGE}"""  # noqa: S608
_THINGS: Final = f"""
    SELECT method, if(s.path = '', s.route, s.path) AS path, sum(one_in) AS requests,
        sumIf(one_in, outcome = 'success') AS succeeded, sum(s.bytes_out) AS bytes_out
    {_SINGLE} GROUP BY method, path ORDER BY succeeded DESC, requests DESC, path LIMIT {{most:UInt32}}"""
_ADDRESSES: Final = f"""
    SELECT replaceRegexpOne(toString(s.client_ip), '^::(ffff:)?([0-9.]*)$', '\\\\2') AS client_ip, any(s.asn) AS asn,
        any(s.country) AS country, any(s.user_agent) AS user_agent, sum(one_in) AS requests,
        toUnixTimestamp64Micro(min(ts)) AS first_us, toUnixTimestamp64Micro(max(ts)) AS last_us
    {_SINGLE} GROUP BY client_ip ORDER BY requests DESC, client_ip LIMIT {{most:UInt32}}"""
_OTHERS: Final = f"""
    SELECT key_id, arraySort(groupUniqArray(5)(network)) AS networks, sum(n) AS requests,
        sumIf(n, outcome = 'success') AS succeeded,
        toUnixTimestamp64Micro(min(first)) AS first_us, toUnixTimestamp64Micro(max(last)) AS last_us
    FROM (
        SELECT key_id, outcome, {_NETWORK} AS network, w.requests AS n, w.first_ts AS first, w.last_ts AS last
        FROM key_source_1h AS w FINAL
        WHERE {_HOURS} AND (asn IN {{asns:Array(UInt32)}} OR (asn = 0 AND prefix IN {{networks:Array(String)}}))
            AND key_id != {{key:String}}
    )
    GROUP BY key_id ORDER BY succeeded DESC, requests DESC, key_id LIMIT {{most:UInt32}}"""  # noqa: S608
_INCIDENTS: Final = """
    SELECT body FROM incidents FINAL
    WHERE key_id = {key:String} AND opened_at < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
        AND last_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
    ORDER BY opened_at, incident_id LIMIT {most:UInt32}"""
_OF_FINDINGS: Final = """FROM findings FINAL
    WHERE key_id = {key:String} AND at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
        AND at < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')"""
_FINDINGS: Final = f"""
    SELECT at_us, detector, family, bits, text, incident_id FROM (
        SELECT toUnixTimestamp64Micro(at) AS at_us, detector, family, bits, text, incident_id, finding_id
        {_OF_FINDINGS}
        ORDER BY incident_id = '', bits DESC, at, finding_id LIMIT {{findings:UInt32}}
    ) ORDER BY at_us, finding_id"""  # noqa: S608 (constants)
_ALL_FINDINGS: Final = f"SELECT count() AS count {_OF_FINDINGS}"
_ACTS: Final = """
    SELECT toUnixTimestamp64Micro(at) AS at_us, incident_id, stage, verdict, rung, reason,
        JSONExtractString(body, 'direction') AS direction
    FROM responses FINAL
    WHERE key_id = {key:String} AND at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
        AND at < fromUnixTimestamp64Micro({after_us:Int64}, 'UTC')
    ORDER BY at, partition, offset LIMIT 500"""
_WORDS: Final = """
    SELECT toUnixTimestamp64Micro(at) AS at_us, incident_id, verdict, by, reason FROM controls FINAL
    WHERE kind = 'feedback' AND incident_id IN {incidents:Array(String)} ORDER BY at, seq LIMIT {most:UInt32}"""
_LEAKS: Final = """
    SELECT leak_id, toUnixTimestamp64Micro(at) AS at_us, feed, url FROM leaks FINAL
    WHERE key_id = {key:String} ORDER BY at, leak_id LIMIT {most:UInt32}"""
