"""Where the demo's clients sit: blocks of the documentation ranges that the demo's geo database gives a place.

Addresses of RFC 5737 and RFC 3849 and systems of RFC 5398 belong to nobody. The same blocks as `pipeline/geo/demo.py`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Network:
    """A block of addresses of one provider in one country."""

    block: str
    country: str
    asn: int
    hosting: bool = False

    def address(self, host: int) -> str:
        """The address number `host` of the block; wraps around in small blocks."""
        network = ipaddress.ip_network(self.block)
        return str(network[1 + host % min(network.num_addresses - 2, 1 << 32)])


CLOUDS: Final = (
    Network("198.51.100.0/26", "US", 64501, hosting=True),
    Network("198.51.100.64/26", "DE", 64502, hosting=True),
    Network("198.51.100.128/26", "IE", 64503, hosting=True),
    Network("203.0.113.64/27", "NL", 64505, hosting=True),
)
FOREIGN_HOSTING: Final = Network("203.0.113.0/26", "RO", 64500, hosting=True)

HOME: Final = {
    "US": Network("192.0.2.0/26", "US", 64496),
    "DE": Network("192.0.2.64/26", "DE", 64497),
    "GB": Network("192.0.2.128/26", "GB", 64498),
    "FR": Network("192.0.2.192/26", "FR", 64499),
    "JP": Network("198.51.100.192/26", "JP", 64504),
    "BR": Network("203.0.113.128/26", "BR", 64507),
    "IN": Network("203.0.113.192/27", "IN", 64508),
    "AU": Network("2001:db8:5000::/36", "AU", 64510),
    "ZA": Network("2001:db8:6000::/36", "ZA", 64511),
}
"""The fixed-line network that offices and homes of a country use."""

OTHER: Final = {
    "JP": Network("2001:db8:7000::/36", "JP", 65536),
    "IN": Network("2001:db8:8000::/36", "IN", 65537),
    "AU": Network("2001:db8:9000::/36", "AU", 65538),
    "BR": Network("2001:db8:a000::/36", "BR", 65539),
    "GB": Network("2001:db8:b000::/36", "GB", 65540),
    "ZA": Network("2001:db8:c000::/36", "ZA", 65541),
    "DE": Network("2001:db8:d000::/36", "DE", 65542),
    "US": Network("2001:db8:e000::/36", "US", 65543),
}
"""A second provider of the same country."""

RENTED: Final = {
    "JP": Network("2001:db8:f000::/40", "JP", 65544, hosting=True),
    "IN": Network("2001:db8:f100::/40", "IN", 65545, hosting=True),
    "AU": Network("2001:db8:f200::/40", "AU", 65546, hosting=True),
    "BR": Network("2001:db8:f300::/40", "BR", 65547, hosting=True),
    "GB": Network("2001:db8:f400::/40", "GB", 65548, hosting=True),
    "ZA": Network("2001:db8:f500::/40", "ZA", 65549, hosting=True),
    "DE": Network("2001:db8:f600::/40", "DE", 65550, hosting=True),
    "US": Network("2001:db8:f700::/40", "US", 65551, hosting=True),
}
"""Servers for rent in the same country: nobody of the fleet is there."""
