"""`keywatch hunt`: every key that a network, an address, a client or a route has touched, and when.

Networks, clients and routes are asked of `key_source_1h` (400 days, by the hour). An address is asked of `requests`
(14 days, by the request) and, for what is older, its /24 or /48 of `key_source_1h`: the line says which of the two.
Where `privacy.truncate_addresses_days` is less than 14, the second begins there: a cut address is no match of a whole.
The sort keys begin with the key: skip indices (`schemas/clickhouse/008_key_life.sql`) leave the granules that can hold
what is asked for. A stranger stands in few; of what every key does all are read. Measured: `tests/bench/hunt.py`.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline.asking.queries import ask
from pipeline.errors import ConfigError
from pipeline.formats.values import network

SHOWN_KEYS: Final = 50
MOST_KEYS: Final = 10_000
HOUR_US: Final = 3_600_000_000


class Quarry(msgspec.Struct, frozen=True, kw_only=True):
    """What is hunted; all that is given must fit one request. `client` and `route` may end in `*`. Times in us UTC."""

    ip: str = ""
    asn: int = 0
    client: str = ""
    route: str = ""
    from_us: int = 0
    to_us: int = 0


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `by`: address | network (only its /24 or /48 is known to fit) | source (what was asked for fits)."""

    key_id: str
    by: str
    requests: int
    succeeded: int
    outcomes: dict[str, int]
    bytes_out: int
    routes: int
    first_us: int
    last_us: int


def hunt(client: Client, quarry: Quarry, limit: int = MOST_KEYS) -> list[Touched]:
    """The keys touched, by their first touch. Raises `Retry` or `Fatal`; ConfigError where nothing is asked for."""
    if not any((quarry.ip, quarry.asn, quarry.client, quarry.route)):
        raise ConfigError("say what to hunt: --ip, --asn, --client or --route")
    found = ask(client, Touched, _of_hours(quarry), _values(quarry, limit))
    if quarry.ip:
        exact = ask(client, Touched, _of_requests(quarry), _values(quarry, limit))
        known = {row.key_id for row in exact}
        found = sorted([*exact, *(row for row in found if row.key_id not in known)], key=lambda row: row.first_us)
    return found[:limit]


def _values(quarry: Quarry, limit: int) -> dict[str, Any]:
    """Bound on the server. The hour that `from` falls into counts, too."""
    return {
        "ip": _mapped(quarry.ip), "prefix": prefix_of(quarry.ip), "asn": quarry.asn, "limit": limit,
        "client": quarry.client.removesuffix("*"), "route": quarry.route.removesuffix("*"),
        "from_us": quarry.from_us, "to_us": quarry.to_us,
        "from_s": quarry.from_us // HOUR_US * 3_600, "to_s": -(-quarry.to_us // 1_000_000),
    }  # fmt: skip


def _mapped(ip: str) -> str:
    """As `requests` keeps it: IPv4 within IPv6. Raises ConfigError for what is no address."""
    try:
        address = ipaddress.ip_address(ip) if ip else ipaddress.IPv6Address(0)
    except ValueError:
        raise ConfigError(f"--ip {ip!r} is no address") from None
    return f"::ffff:{address}" if address.version == 4 else str(address)


def prefix_of(ip: str) -> str:
    """The /24 or /48 as `key_source_1h` has it; "" for none."""
    return network(ip) if ip else ""


def _wanted(quarry: Quarry, address: str) -> str:
    """The conditions of all that is asked for, `address` for the address."""
    parts = [address] if quarry.ip else []
    if quarry.asn:
        parts.append("asn = {asn:UInt32}")
    for name in ("client", "route"):
        text = getattr(quarry, name)
        if text:
            parts.append(
                f"startsWith({name}, {{{name}:String}})" if text.endswith("*") else f"{name} = {{{name}:String}}"
            )
    return " AND ".join(parts)


_SUMMED: Final = """
    sum(n) AS requests, sumIf(n, outcome = 'success') AS succeeded,
    CAST(sumMap(map(toString(outcome), n)), 'Map(String, UInt64)') AS outcomes, sum(bytes) AS bytes_out,
    uniqExact(route) AS routes, toUnixTimestamp64Micro(min(first)) AS first_us,
    toUnixTimestamp64Micro(max(last)) AS last_us
"""


def _of_hours(quarry: Quarry) -> str:
    by = "network" if quarry.ip else "source"
    return f"""
        SELECT key_id, '{by}' AS by, {_SUMMED}
        FROM (
            SELECT key_id, route, outcome, sum(w.requests) AS n, sum(w.bytes_out) AS bytes, min(w.first_ts) AS first,
                max(w.last_ts) AS last
            FROM key_source_1h AS w FINAL
            WHERE window_start >= toDateTime({{from_s:Int64}}, 'UTC')
                AND window_start < toDateTime({{to_s:Int64}}, 'UTC')
                AND {_wanted(quarry, "prefix = {prefix:String}")}
            GROUP BY key_id, route, outcome
        )
        GROUP BY key_id HAVING last_us >= {{from_us:Int64}} AND first_us < {{to_us:Int64}}
        ORDER BY first_us, key_id LIMIT {{limit:UInt32}}"""  # noqa: S608 (constants)


def _of_requests(quarry: Quarry) -> str:
    return f"""
        SELECT key_id, 'address' AS by, {_SUMMED}
        FROM (
            SELECT key_id, route, outcome, sum(toUInt64(one_in)) AS n, sum(w.bytes_out * one_in) AS bytes,
                min(ts) AS first, max(ts) AS last
            FROM requests AS w FINAL
            WHERE ts >= fromUnixTimestamp64Micro({{from_us:Int64}}, 'UTC')
                AND ts < fromUnixTimestamp64Micro({{to_us:Int64}}, 'UTC')
                AND {_wanted(quarry, "client_ip = toIPv6({ip:String})")}
            GROUP BY key_id, route, outcome
        )
        GROUP BY key_id ORDER BY first_us, key_id LIMIT {{limit:UInt32}}"""  # noqa: S608


class _Span(msgspec.Struct, frozen=True):
    as_of_us: int


def as_of_us(client: Client) -> int:
    """The newest use of any key; 0 where none was used."""
    sql = "SELECT toUnixTimestamp64Micro(max(last_used)) AS as_of_us FROM keys_last_used"
    return max(0, ask(client, _Span, sql, {})[0].as_of_us)
