"""How a request breaks what the catalogue declares of its key: DECLARED_* bits, for the detectors misuse and decoy.

What depends on the key and few values is worked out once per combination; addresses are looked at only for keys that
declare networks or countries, ages only at the time of the event.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final

from detectors.detector import (
    DECLARED_COUNTRY,
    DECLARED_DECOY,
    DECLARED_ENDED,
    DECLARED_LIVE_TEST,
    DECLARED_NETWORK,
    DECLARED_OVERAGE,
    DECLARED_READ_ONLY,
    DECLARED_SCOPE,
    DECLARED_SUSPENDED,
    DECLARED_TEST_LIVE,
)
from schemas.key import Key

DAY_US: Final = 86_400_000_000
READING: Final = frozenset({"", "GET", "HEAD", "OPTIONS", "TRACE"})
NEVER_US: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Rules:
    """One declared key, made ready."""

    key: Key
    always: int  # what holds for each of its events
    overage_us: int  # from when on it is too old
    networks: tuple[object, ...]

    @property
    def plain(self) -> bool:
        """Whether the address does not matter."""
        return not self.key.allowed_networks and not self.key.allowed_countries


def rules_of(key: Key, rotation_days: float) -> Rules:
    """`rotation_days`: how old a key may get; 0 is any age. An unreadable date or network declares nothing."""
    always = DECLARED_DECOY if key.decoy else 0
    if key.status in ("revoked", "expired"):
        always |= DECLARED_ENDED
    if key.status == "suspended":
        always |= DECLARED_SUSPENDED
    made_us = _time_us(key.last_rotated_at or key.created_at)
    overage_us = made_us + round(rotation_days * DAY_US) if made_us and rotation_days else NEVER_US
    return Rules(key, always, overage_us, tuple(filter(None, map(_network, key.allowed_networks))))


def by_request(rules: Rules, method: str, scope: str, environment: str) -> int:
    """The bits that follow from what was asked for."""
    key, bits = rules.key, rules.always
    if key.environment == "test" and environment == "live":
        bits |= DECLARED_TEST_LIVE
    if key.environment == "live" and environment == "test":
        bits |= DECLARED_LIVE_TEST
    if key.role == "read_only" and method not in READING:
        bits |= DECLARED_READ_ONLY
    if scope and key.scopes and scope not in key.scopes:
        bits |= DECLARED_SCOPE
    return bits


def by_place(rules: Rules, address: str, country: str) -> int:
    """The bits that follow from where it came from; an unknown place breaks nothing."""
    bits = 0
    if rules.networks and address:
        try:
            ip = ip_address(address)
        except ValueError:
            return 0
        if not any(ip in network for network in rules.networks):  # type: ignore[operator]
            bits |= DECLARED_NETWORK
    if rules.key.allowed_countries and country and country not in rules.key.allowed_countries:
        bits |= DECLARED_COUNTRY
    return bits


def by_age(rules: Rules, ts_us: int) -> int:
    """The bit that follows from when it came."""
    return DECLARED_OVERAGE if ts_us >= rules.overage_us else 0


def _time_us(text: str) -> int:
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1e6) if text else 0
    except ValueError:
        return 0


def _network(text: str) -> object | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
