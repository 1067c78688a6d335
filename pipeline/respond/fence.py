"""The networks a key was used from before anything suspicious: what a fence lets it go on from.

All of them or none: a fence that leaves out a network that its owner works from is an outage that is recorded as a
success. So one more than can be in a fence is asked for, and whoever counts them refuses (`ladder.why_no_fence`).
Out of ClickHouse's `key_source_1h`: /24 and /48 prefixes with authenticated successes on at least 7 different days of
the 60 before the hour of the first suspicious event, and what the owner declared (`allowed_networks`). A thief who has
had the key for less than 7 days is outside, whatever he did. Where ClickHouse can't be asked, or only a
replica that lags, there is no fence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final, Protocol

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.config.tree import ClickHouse
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.replicas import refuse_behind
from pipeline.respond.adapters.adapter import MOST_NETWORKS
from pipeline.sinks.connect import connect
from pipeline.times import micros
from schemas.incident import Incident
from schemas.key import Key

DAYS: Final = 7
LOOK_BACK_DAYS: Final = 60
TIMEOUT_S: Final = 5.0
QUERY: Final = """
SELECT prefix FROM key_source_1h FINAL
WHERE key_id = {key:String} AND outcome = 'success'
  AND window_start < toStartOfHour(fromUnixTimestamp64Micro({before_us:Int64}))
  AND window_start >= fromUnixTimestamp64Micro({before_us:Int64}) - toIntervalDay({back:UInt32})
GROUP BY prefix HAVING uniqExact(toDate(window_start)) >= {days:UInt32} ORDER BY prefix LIMIT {most:UInt32}
"""


class Networks(Protocol):
    """Where a key was used from."""

    async def usual(self, key_id: str, before_us: int) -> tuple[tuple[str, ...], str]:
        """(CIDR, why it isn't known or ""). Never raises."""


@dataclass
class NoNetworks:
    """Where nothing may be asked."""

    async def usual(self, key_id: str, before_us: int) -> tuple[tuple[str, ...], str]:
        """Not known."""
        return (), "where the key was used from is not known"


@dataclass
class ClickHouseNetworks:
    """Asks ClickHouse, each time anew, within `TIMEOUT_S`."""

    config: ClickHouse

    async def usual(self, key_id: str, before_us: int) -> tuple[tuple[str, ...], str]:
        """(CIDR, why it isn't known or "")."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.to_thread(self._ask, key_id, before_us), ""
        except (ClickHouseError, OSError, ConfigError, Fatal, Retry) as error:  # TimeoutError is an OSError
            return (), f"ClickHouse cannot say where the key was used from ({type(error).__name__})"

    def _ask(self, key_id: str, before_us: int) -> tuple[str, ...]:
        with connect(self.config, self.config.database) as client:
            refuse_behind(client)
            return usual_networks(client, key_id, before_us)


def usual_networks(client: Client, key_id: str, before_us: int) -> tuple[str, ...]:
    """Prefixes used on at least `DAYS` days before, up to one more than a fence may have. Raises ClickHouseError."""
    rows = client.query(QUERY, parameters=asked(key_id, before_us)).result_rows
    return tuple(each for (each,) in rows if is_network(str(each)))


def asked(key_id: str, before_us: int) -> dict[str, str | int]:
    """What `QUERY` is asked with."""
    return {"key": key_id, "before_us": before_us, "back": LOOK_BACK_DAYS, "days": DAYS, "most": MOST_NETWORKS + 1}


def first_suspicious_us(incident: Incident) -> int:
    """When the oldest finding was made, or the incident was opened; 0 where neither has a readable time."""
    times = [_micros(each) for each in (incident.opened_at, *(finding.at for finding in incident.findings))]
    return min((each for each in times if each), default=0)


def suspects(incident: Incident) -> tuple[str, ...]:
    """The addresses that the authenticated evidence names."""
    found = {each.sample.client_ip for each in incident.findings if each.authenticated}
    return tuple(sorted(each for each in found if _is_address(each)))


def with_declared(networks: Iterable[str], key: Key | None) -> tuple[str, ...]:
    """These and what the owner declared, each once; 10.1.2.3/8 is 10.0.0.0/8, as it is to `keys/declared.py`."""
    declared = (_network(each) for each in (key.allowed_networks if key else ()))
    return tuple(dict.fromkeys([*networks, *(each for each in declared if each)]))


def is_network(text: str) -> bool:
    """Whether it is a CIDR."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _micros(text: str) -> int:
    try:
        return micros(text)
    except ValueError:
        return 0
