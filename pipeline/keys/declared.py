"""How requests break what the catalogue declares of their keys: DECLARED_* bits, for the detectors misuse and decoy.

Per key there is one row of numbers, so that most of it is a comparison of columns; only keys that declare scopes,
networks or countries are looked at one event at a time. An unknown place, scope or environment breaks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

import numpy as np

from detectors.detector import (
    DECLARED_COUNTRY,
    DECLARED_DECOY,
    DECLARED_ENDED,
    DECLARED_LEAKED,
    DECLARED_LIVE_TEST,
    DECLARED_NETWORK,
    DECLARED_OVERAGE,
    DECLARED_READ_ONLY,
    DECLARED_SCOPE,
    DECLARED_SUPERSEDED,
    DECLARED_SUSPENDED,
    DECLARED_TEST_LIVE,
)
from pipeline.column import Coded
from pipeline.config.tree import KeyLife
from pipeline.geo.provider import Place
from pipeline.operations import CHANGING
from pipeline.times import micros
from schemas.event import ENVIRONMENTS
from schemas.key import Key

Array = np.ndarray[Any, Any]

DAY_US: Final = 86_400_000_000
HOUR_US: Final = 3_600_000_000
AS_SHIPPED: Final = KeyLife()
NEVER_US: Final = 1 << 62
GRACE_US: Final = 60_000_000  # after `ended_at`: what gateways' caches still let in, and what clocks differ by
MOST_KEYS: Final = 1 << 16
LIVE: Final = ENVIRONMENTS.index("live")
TEST: Final = ENVIRONMENTS.index("test")
ROW: Final = np.dtype(
    [
        ("always", "u2"), ("environment", "u1"), ("read_only", "u1"), ("special", "u1"), ("due_us", "i8"),
        ("leaked_us", "i8"), ("over_us", "i8"), ("ended_us", "i8"),
    ]
)  # fmt: skip
"""always: bits of every event; due_us: over age from then on; over_us: superseded from then on; special: declares
scopes, networks or countries; leaked_us: its secret is public from then on; ended_us: revoked or expired."""
TIMES: Final = ("due_us", "leaked_us", "over_us", "ended_us")


@dataclass(frozen=True, slots=True)
class Rules:
    """What one key declares of scopes and places."""

    scopes: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...]
    countries: frozenset[str]

    def broken(self, scope: str, address: str, country: str) -> int:
        """The bits that a request breaks."""
        bits = DECLARED_SCOPE if scope and self.scopes and scope not in self.scopes else 0
        if self.networks and address and not _inside(self.networks, address):
            bits |= DECLARED_NETWORK
        if self.countries and country and country not in self.countries:
            bits |= DECLARED_COUNTRY
        return bits


class Declarations:
    """Rows of the keys that were asked for lately; a key that is declared anew is another object and has another."""

    def __init__(self, life: KeyLife = AS_SHIPPED) -> None:
        self._life = life
        self._test_networks = tuple(network for text in life.test_networks if (network := _network(text)) is not None)
        self._forget()

    def _forget(self) -> None:
        self._index: dict[int, int] = {id(None): 0}
        self._keys: list[Key | None] = [None]  # keeps each alive, so that no other gets its id
        self._rules: list[Rules | None] = [None]
        self._rows = np.zeros(1024, ROW)
        for name in TIMES:
            self._rows[0][name] = NEVER_US

    def leaked_h(self, declared: Coded[Key | None]) -> Array:
        """Since when each key's secret is public: hours since the epoch modulo 65,536, of keys of which it is."""
        rows = self._rows[self._codes(declared.values).take(declared.codes)]
        return rows["leaked_us"] // HOUR_US % 65_536

    def bits(
        self, declared: Coded[Key | None], live: Array, does: Array, ts_us: Array, scopes: Coded[str],
        addresses: Coded[str], places: Coded[Place],
    ) -> Array:  # fmt: skip
        """DECLARED_* per event; `live`: index into ENVIRONMENTS that the event names; `does`: OPERATION_*."""
        codes = self._codes(declared.values).take(declared.codes)
        rows = self._rows[codes]
        out = rows["always"].copy()
        out[(rows["environment"] == TEST) & (live == LIVE)] |= DECLARED_TEST_LIVE
        in_tests = (live == TEST) | self._in_tests(addresses)
        out[(rows["environment"] == LIVE) & in_tests] |= DECLARED_LIVE_TEST
        out[(rows["read_only"] == 1) & np.isin(does, CHANGING)] |= DECLARED_READ_ONLY
        out[ts_us >= rows["due_us"]] |= DECLARED_OVERAGE
        out[ts_us >= rows["over_us"]] |= DECLARED_SUPERSEDED
        out[ts_us >= rows["leaked_us"]] |= DECLARED_LEAKED
        out[ts_us >= rows["ended_us"]] |= DECLARED_ENDED
        for i in np.flatnonzero(rows["special"]).tolist():
            rules = self._rules[codes[i]]
            if rules is not None:
                out[i] |= rules.broken(scopes[i], addresses[i], places[i].country)
        return out

    def _in_tests(self, addresses: Coded[str]) -> Array:
        """Per event: whether it comes from a network in which tests run."""
        if not self._test_networks:
            return np.zeros(len(addresses.codes), np.bool_)
        inside = [bool(each) and _lies_in(self._test_networks, each) for each in addresses.values]
        return np.array(inside, np.bool_).take(addresses.codes)

    def _codes(self, declared: Sequence[Key | None]) -> Array:
        if len(self._keys) > MOST_KEYS:
            self._forget()
        index = self._index
        for key in {id(key): key for key in declared if id(key) not in index}.values():
            index[id(key)] = self._admit(key)
        return np.fromiter((index[id(key)] for key in declared), np.intp, len(declared))

    def _admit(self, key: Key | None) -> int:
        assert key is not None
        code = len(self._keys)
        if code == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        networks = tuple(network for text in key.allowed_networks if (network := _network(text)) is not None)
        rules = Rules(frozenset(key.scopes), networks, frozenset(key.allowed_countries))
        special = bool(rules.scopes or rules.networks or rules.countries)
        self._rows[code] = (
            _always(key), ENVIRONMENTS.index(key.environment), key.role == "read_only", special,
            _due_us(key, self._life.rotation_days), _leaked_us(key), _over_us(key, self._life.overlap_days),
            _ended_us(key),
        )  # fmt: skip
        self._keys.append(key)
        self._rules.append(rules)
        return code


def _always(key: Key) -> int:
    return (DECLARED_DECOY if key.decoy else 0) | (DECLARED_SUSPENDED if key.status == "suspended" else 0)


def _ended_us(key: Key) -> int:
    """Since when its use is a proof: at all times where it has ended and nobody says, in time, since when."""
    if key.status not in ("revoked", "expired"):
        return NEVER_US
    ended_us = _us(key.ended_at)
    return -NEVER_US if ended_us == NEVER_US else ended_us + GRACE_US


def _due_us(key: Key, rotation_days: int) -> int:
    """When the key is over age; never where its dates say nothing."""
    made_us = _us(key.last_rotated_at or key.created_at)
    return made_us if made_us == NEVER_US else made_us + rotation_days * DAY_US


def _over_us(key: Key, overlap_days: int) -> int:
    """When its successor alone ought to be used; never where it has none, or nobody says since when."""
    made_us = _us(key.superseded_at) if key.rotated_to else NEVER_US
    return made_us if made_us == NEVER_US else made_us + overlap_days * DAY_US


def _leaked_us(key: Key) -> int:
    """When its secret became public; never where it has had another since."""
    leaked_us, rotated_us = _us(key.leaked_at), _us(key.last_rotated_at)
    return NEVER_US if leaked_us < rotated_us < NEVER_US else leaked_us


def _us(text: str) -> int:
    """Without an offset it is UTC, as everywhere: a key must not be judged by the zone of the worker's machine."""
    try:
        return micros(text, NEVER_US)
    except ValueError:
        return NEVER_US


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


@lru_cache(maxsize=1 << 14)
def _inside(networks: tuple[IPv4Network | IPv6Network, ...], address: str) -> bool:
    """What is no address is nowhere, and breaks nothing."""
    return not _is_address(address) or _lies_in(networks, address)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1 << 14)
def _lies_in(networks: tuple[IPv4Network | IPv6Network, ...], address: str) -> bool:
    """Whether it is an address of one of these."""
    return _is_address(address) and any(ip_address(address) in network for network in networks)
