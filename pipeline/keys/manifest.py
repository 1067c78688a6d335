"""`keywatch keys manifest KEY`: what a key really does, as the policy that a gateway could hold it to.

Only what the holder did: outcomes that prove the key was held, outside of the hours of its incidents (but for those
that people called expected). A network, country, client or route is proposed that was there on two days or more, or in
one request of a hundred; the rest is listed as left out, since a list that admits every first visit admits the thief.
Rates: the busiest minute and hour, times `key_life.head_room`. What could not be seen is part of the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.hunt import as_of_us
from pipeline.asking.queries import ask
from pipeline.errors import ConfigError
from pipeline.times import rfc3339
from schemas.event import AUTHENTICATED
from schemas.key import Key

DAYS: Final = 30
FEWEST_DAYS: Final = 2
SMALL_SHARE: Final = 0.01
MOST_VALUES: Final = 500
FEW_DAYS: Final = 14
DIMENSIONS: Final = ("network", "country", "client", "route")
METHODS: Final = "method"


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one dimension: on how many days, in which share of the requests."""

    dimension: str
    value: str
    requests: int
    share: float
    days: int
    first_us: int
    last_us: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """The busiest minute and hour seen, and what is proposed."""

    busiest_minute: int
    busiest_hour: int
    busiest_day: int
    head_room: float
    per_minute: int
    per_hour: int
    per_day: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What to allow. Networks are CIDR (/24 or /48); hours of the day in UTC, weekdays from Monday, 0."""

    key_id: str
    owner: str
    looked_days: int
    used_days: int
    requests: int
    from_: str = msgspec.field(name="from")
    to: str
    networks: list[str]
    countries: list[str]
    clients: list[str]
    methods: list[str]
    routes: list[str]
    hours_utc: list[int]
    weekdays: list[int]
    rates: Rates
    left_out: list[Value]
    not_seen: list[str]


class _Hours(msgspec.Struct, frozen=True, kw_only=True):
    hours: list[int]
    weekdays: list[int]
    days: int
    requests: int
    busiest_hour: int
    first_us: int
    last_us: int


class _Peak(msgspec.Struct, frozen=True, kw_only=True):
    most: int


class _Methods(msgspec.Struct, frozen=True, kw_only=True):
    methods: list[str]
    sampled: int


def manifest(client: Client, key_id: str, declared: Key | None, days: int = DAYS, head_room: float = 2.0) -> Manifest:
    """Raises ConfigError where the key was not used in that time, Retry, Fatal."""
    end_us = as_of_us(client)
    values = {"key": key_id, "end_us": end_us, "days": days, "good": sorted(AUTHENTICATED), "most": MOST_VALUES}
    (hours,) = ask(client, _Hours, _HOURS, values)
    if not hours.requests:
        raise ConfigError(f"{key_id} was not used in the {days} days up to {rfc3339(end_us)[:16]}: nothing to go by")
    found = ask(client, Value, _VALUES, values)
    (methods,) = ask(client, _Methods, _METHODS, values)
    (minute,), (day,) = ask(client, _Peak, _MINUTE, values), ask(client, _Peak, _DAY, values)
    kept = {name: [row.value for row in found if row.dimension == name and usual(row)] for name in DIMENSIONS}
    return Manifest(
        key_id=key_id, owner=declared.owner if declared else "", looked_days=days, used_days=hours.days,
        requests=hours.requests, from_=rfc3339(hours.first_us), to=rfc3339(hours.last_us),
        networks=kept["network"], countries=kept["country"], clients=kept["client"], routes=kept["route"],
        methods=methods.methods, hours_utc=hours.hours, weekdays=hours.weekdays,
        rates=rates(minute.most, hours.busiest_hour, day.most, head_room),
        left_out=[row for row in found if row.value and not usual(row)],
        not_seen=_blind(found, methods, minute.most, hours.days),
    )  # fmt: skip


def usual(row: Value) -> bool:
    """Whether a value is proposed."""
    return bool(row.value) and (row.days >= FEWEST_DAYS or row.share >= SMALL_SHARE)


def rates(minute: int, hour: int, day: int, head_room: float) -> Rates:
    """The proposed limits: with head room, and never a longer one below a shorter one."""
    per_minute = max(1, math.ceil((minute or hour / 60) * head_room))
    per_hour = max(per_minute, math.ceil(hour * head_room))
    return Rates(
        busiest_minute=minute, busiest_hour=hour, busiest_day=day, head_room=head_room, per_minute=per_minute,
        per_hour=per_hour, per_day=max(per_hour, math.ceil(day * head_room)),
    )  # fmt: skip


def _blind(found: Sequence[Value], methods: _Methods, minute: int, days: int) -> list[str]:
    """What no policy can be drawn from, in sentences."""
    unknown = {row.dimension: row.share for row in found if not row.value}
    words = [f"no {name} in {share:.0%} of its requests" for name, share in sorted(unknown.items())]
    if days < FEW_DAYS:
        words.append(f"only {days} days of use: what it does once a month is missing")
    if not methods.methods:
        words.append("no methods: single requests are kept for 14 days")
    if methods.sampled:
        words.append("methods from a sample of the requests (clickhouse.sample_one_in)")
    if not minute:
        words.append("no busiest minute: minutes are kept for 30 days; the hour's sixtieth stands in")
    return [*words, "addresses only as /24 or /48; bursts within a minute; requests that never reached the gateway"]


# Hours in which an incident of the key went on, unless people called it expected: the thief's requests are in them. An
# incident's row is as of its last revision; how long it went on its evidence tells.
_CLEAN: Final = """
    toStartOfHour(w.window_start) NOT IN (
        SELECT arrayJoin(arrayMap(n -> toStartOfHour(i.opened_at) + toIntervalHour(n), range(least(9600, toUInt32(
            dateDiff('hour', toStartOfHour(i.opened_at), toStartOfHour(greatest(i.last_at, e.last))) + 1)))))
        FROM incidents AS i FINAL
        LEFT JOIN (
            SELECT incident_id, max(ts) AS last FROM evidence WHERE key_id = {key:String} GROUP BY incident_id
        ) AS e USING incident_id
        WHERE i.key_id = {key:String} AND i.rule IN ('visit', 'slow', 'proof', 'lifecycle') AND i.incident_id NOT IN (
            SELECT incident_id FROM controls WHERE kind = 'feedback' GROUP BY incident_id
            HAVING argMax(verdict, seq) = 'expected'))"""
_SINCE: Final = (
    "w.window_start > fromUnixTimestamp64Micro({end_us:Int64}, 'UTC') - toIntervalDay({days:UInt16})"
    " AND w.window_start <= fromUnixTimestamp64Micro({end_us:Int64}, 'UTC')"
)
_GOOD: Final = "outcome IN {good:Array(String)}"
_BY_HOUR: Final = f"""
    SELECT w.window_start AS hour, sum(w.requests) AS n, min(w.first_ts) AS first, max(w.last_ts) AS last
    FROM key_source_1h AS w FINAL WHERE key_id = {{key:String}} AND {_SINCE} AND {_GOOD} AND {_CLEAN} GROUP BY hour"""  # noqa: S608
_HOURS: Final = f"""
    SELECT arraySort(groupUniqArray(toHour(hour, 'UTC'))) AS hours,
        arraySort(groupUniqArray(toDayOfWeek(hour, 0, 'UTC') - 1)) AS weekdays, uniqExact(toDate(hour)) AS days,
        sum(n) AS requests, max(n) AS busiest_hour, toUnixTimestamp64Micro(min(first)) AS first_us,
        toUnixTimestamp64Micro(max(last)) AS last_us
    FROM ({_BY_HOUR})"""  # noqa: S608
_DAY: Final = f"SELECT max(n) AS most FROM (SELECT sum(n) AS n FROM ({_BY_HOUR}) GROUP BY toDate(hour))"  # noqa: S608
_MINUTE: Final = f"""
    SELECT max(n) AS most FROM (
        SELECT sum(w.requests - w.errors_401) AS n FROM requests_1m AS w FINAL
        WHERE key_id = {{key:String}} AND {_SINCE} AND {_CLEAN} GROUP BY w.window_start)"""  # noqa: S608
_VALUES: Final = f"""
    SELECT pair.1 AS dimension, pair.2 AS value, sum(w.requests) AS requests,
        requests / sum(requests) OVER (PARTITION BY dimension) AS share, uniqExact(toDate(w.window_start)) AS days,
        toUnixTimestamp64Micro(min(w.first_ts)) AS first_us, toUnixTimestamp64Micro(max(w.last_ts)) AS last_us
    FROM key_source_1h AS w FINAL
    ARRAY JOIN [('network', prefix), ('country', toString(country)), ('client', toString(client)),
        ('route', toString(route))] AS pair
    WHERE key_id = {{key:String}} AND {_SINCE} AND {_GOOD} AND {_CLEAN}
    GROUP BY dimension, value ORDER BY dimension, requests DESC, value LIMIT {{most:UInt32}} BY dimension"""  # noqa: S608
_METHODS: Final = f"""
    SELECT arraySort(groupUniqArrayIf(20)(method, method != '')) AS methods, max(one_in) > 1 AS sampled
    FROM (SELECT method, outcome, one_in, ts AS window_start FROM requests WHERE key_id = {{key:String}}) AS w
    WHERE {_SINCE} AND {_GOOD} AND {_CLEAN}"""  # noqa: S608


def neutral(found: Manifest) -> dict[str, Any]:
    """The manifest as a policy that names no product: what is allowed, and on what it rests."""
    allow = {
        "networks": found.networks, "countries": found.countries, "clients": found.clients, "methods": found.methods,
        "routes": found.routes, "hours_utc": found.hours_utc, "weekdays": found.weekdays,
    }  # fmt: skip
    limit = {
        "per_minute": found.rates.per_minute, "per_hour": found.rates.per_hour, "per_day": found.rates.per_day,
    }  # fmt: skip
    rests_on = {
        "looked_days": found.looked_days, "used_days": found.used_days, "requests": found.requests, "from": found.from_,
        "to": found.to, "head_room": found.rates.head_room, "not_seen": found.not_seen,
    }  # fmt: skip
    return {"key_id": found.key_id, "allow": allow, "limit": limit, "rests_on": rests_on}
