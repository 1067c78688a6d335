"""Makes `data/demo.mmdb`: documentation addresses mapped to invented networks, for the demo and for tests.

`python -m pipeline.geo.demo`. Networks are AS64496 to AS64511 and AS65536 to AS65551 (RFC 5398), addresses those of
RFC 5737 and RFC 3849: nobody's. A configured database that knows such an address wins over the rule that they have
no place.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Final

from mmdb_writer import MMDBWriter, TreeWriter
from netaddr import IPSet

from detectors.detector import NET_HOSTING, NET_PROXY, NET_SATELLITE
from pipeline.geo.build import DATA, metadata

BUILT_S: Final = 1_767_225_600  # 2026-01-01

BLOCKS: Final[tuple[tuple[str, str, int, int, str], ...]] = (
    ("192.0.2.0/26", "US", 64496, 0, "Example Telecom US"),
    ("192.0.2.64/26", "DE", 64497, 0, "Beispiel Telekom"),
    ("192.0.2.128/26", "GB", 64498, 0, "Sample Broadband UK"),
    ("192.0.2.192/26", "FR", 64499, 0, "Exemple Telecom"),
    ("198.51.100.0/26", "US", 64501, NET_HOSTING, "Example Cloud East"),
    ("198.51.100.64/26", "DE", 64502, NET_HOSTING, "Beispiel Cloud"),
    ("198.51.100.128/26", "IE", 64503, NET_HOSTING, "Sample Cloud Dublin"),
    ("198.51.100.192/26", "JP", 64504, 0, "Rei Net"),
    ("203.0.113.0/26", "RO", 64500, NET_HOSTING, "Exemplu Hosting"),
    ("203.0.113.64/27", "NL", 64505, NET_HOSTING, "Voorbeeld Servers"),
    ("203.0.113.96/27", "NL", 64506, NET_PROXY, "Anonymous Relay"),
    ("203.0.113.128/26", "BR", 64507, 0, "Exemplo Banda Larga"),
    ("203.0.113.192/27", "IN", 64508, 0, "Udaharan Mobile"),
    ("203.0.113.224/27", "US", 64509, NET_SATELLITE, "Example Satellite"),
    ("2001:db8::/36", "US", 64496, 0, "Example Telecom US"),
    ("2001:db8:1000::/36", "DE", 64497, 0, "Beispiel Telekom"),
    ("2001:db8:2000::/36", "GB", 64498, 0, "Sample Broadband UK"),
    ("2001:db8:3000::/36", "US", 64501, NET_HOSTING, "Example Cloud East"),
    ("2001:db8:4000::/36", "RO", 64500, NET_HOSTING, "Exemplu Hosting"),
    ("2001:db8:5000::/36", "AU", 64510, 0, "Sample Net Down Under"),
    ("2001:db8:6000::/36", "ZA", 64511, 0, "Sample Net Cape"),
    ("2001:db8:7000::/36", "JP", 65536, 0, "Rei Mobile"),
    ("2001:db8:8000::/36", "IN", 65537, 0, "Udaharan Fibre"),
    ("2001:db8:9000::/36", "AU", 65538, 0, "Sample Mobile Down Under"),
    ("2001:db8:a000::/36", "BR", 65539, 0, "Exemplo Movel"),
    ("2001:db8:b000::/36", "GB", 65540, 0, "Sample Mobile UK"),
    ("2001:db8:c000::/36", "ZA", 65541, 0, "Sample Mobile Cape"),
    ("2001:db8:d000::/36", "DE", 65542, 0, "Beispiel Mobil"),
    ("2001:db8:e000::/36", "US", 65543, 0, "Example Mobile US"),
    ("2001:db8:f000::/40", "JP", 65544, NET_HOSTING, "Rei Cloud"),
    ("2001:db8:f100::/40", "IN", 65545, NET_HOSTING, "Udaharan Servers"),
    ("2001:db8:f200::/40", "AU", 65546, NET_HOSTING, "Sample Cloud Down Under"),
    ("2001:db8:f300::/40", "BR", 65547, NET_HOSTING, "Exemplo Nuvem"),
    ("2001:db8:f400::/40", "GB", 65548, NET_HOSTING, "Sample Servers UK"),
    ("2001:db8:f500::/40", "ZA", 65549, NET_HOSTING, "Sample Cloud Cape"),
    ("2001:db8:f600::/40", "DE", 65550, NET_HOSTING, "Beispiel Server"),
    ("2001:db8:f700::/40", "US", 65551, NET_HOSTING, "Example Servers US"),
)
"""Network, country, autonomous system, flags, name."""


def write(target: Path = DATA / "demo.mmdb") -> None:
    """The demo's database: the blocks above and nothing else."""
    writer = MMDBWriter(6, "keywatch-demo", ["en"], "demo", ipv4_compatible=True)
    for network, country, asn, flags, name in BLOCKS:
        ipaddress.ip_network(network)
        body: dict[str, Any] = {"country": country, "asn": asn, "flags": flags, "name": name}
        writer.insert_network(IPSet([network]), {key: part for key, part in body.items() if part})
    TreeWriter(writer.tree, metadata("keywatch-demo", "Invented networks", BUILT_S)).write(str(target))


if __name__ == "__main__":
    write()
