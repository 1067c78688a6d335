"""Whose word a client's address is: one walk for every format, from the nearest hop to the first that is no proxy.

The gateway knows one address for certain: its peer's, who opened the connection. A proxy appends whom it heard to
`X-Forwarded-For`; all that stands before is what it was told, in the end by the caller, who writes what he likes. So
the walk begins with the peer, goes from right to left through the header as long as each hop lies in
`intake.trusted_proxies`, and takes the first that does not. By default none does: the peer counts, the header is not
read.
Where all are trusted, or what stands before is no address, the farthest hop that was reached is taken.
The same as NGINX's `set_real_ip_from` with `real_ip_recursive on`. A number of hops (Envoy's `xff_num_trusted_hops`) is
not offered: whoever comes past the proxies, or through a gateway that has resolved the address already, would write it.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pipeline.formats.format import Hops
from pipeline.formats.values import address, text

MOST_HOPS: Final = 16
"""Of a chain that are looked at, the nearest."""
_INNER: Final = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "::1/128",
    "fc00::/7", "fe80::/10",
)  # fmt: skip


class Hop(NamedTuple):
    """One hop that was looked at: its address ("" where it is none), and whether it is a trusted proxy."""

    address: str
    trusted: bool


def client_address(hops: Hops, proxies: Sequence[str]) -> str:
    """The canonical address of the caller; "" where the record names no peer."""
    if not proxies and type(hops.peer) is str and "," not in hops.peer:  # nearly all
        return address(text(hops.peer))
    found = ""
    for hop in walk(hops, proxies):
        found = hop.address or found
    return found


def walk(hops: Hops, proxies: Sequence[str]) -> Iterator[Hop]:
    """The hops from the peer on, up to the one that is taken, or to the first that is no address."""
    ranges = _ranges(tuple(proxies))
    for name in _nearest_first(hops):
        if not name:
            continue
        ip = address(name)
        trusted = bool(ip) and _lies_in(ip, ranges)
        yield Hop(ip, trusted)
        if not trusted:
            return


def _nearest_first(hops: Hops) -> Iterator[str]:
    peer = _line(hops.peer)
    if not peer.strip(", "):
        return  # who is known by the header alone is known by nobody's word
    chain = f"{_line(hops.forwarded)},{peer}"
    yield from (name.strip() for name in chain.rsplit(",", MOST_HOPS)[: -MOST_HOPS - 1 : -1])


def _line(value: Any) -> str:
    """A header that was sent several times is a list: one chain all the same."""
    return ",".join(map(text, value[-MOST_HOPS:])) if type(value) is list else text(value)


def is_inner(ip: str) -> bool:
    """Whether it is an address of inner networks: seldom a caller's, often a proxy's."""
    return _lies_in(ip, _ranges(_INNER))


Ranges = dict[int, tuple[list[int], list[int]]]
"""IP version -> first and last addresses of networks that do not overlap, in order."""


def _lies_in(ip: str, ranges: Ranges) -> bool:
    version, number = _number(ip)
    starts, ends = ranges[version]
    at = bisect(starts, number)
    return at > 0 and number <= ends[at - 1]


@lru_cache(maxsize=1 << 15)
def _number(ip: str) -> tuple[int, int]:
    parsed = ipaddress.ip_address(ip)
    return parsed.version, int(parsed)


@lru_cache(maxsize=8)
def _ranges(networks: tuple[str, ...]) -> Ranges:
    """Looked up by halves: a CDN names thousands of networks, and each new caller would be held against all."""
    of: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for each in map(_unmapped, map(ipaddress.ip_network, networks)):
        of[each.version].append((int(each.network_address), int(each.broadcast_address)))
    ranges: Ranges = {}
    for version, found in of.items():
        starts: list[int] = []
        ends: list[int] = []
        for start, end in sorted(found):  # two networks lie apart, or one in the other
            if not ends or start > ends[-1]:
                starts.append(start)
                ends.append(end)
            ends[-1] = max(ends[-1], end)
        ranges[version] = starts, ends
    return ranges


def _unmapped(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """IPv4 where it is written as IPv6, as `address` makes of addresses."""
    mapped = network.network_address.ipv4_mapped if network.version == 6 and network.prefixlen >= 96 else None
    return network if mapped is None else ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
