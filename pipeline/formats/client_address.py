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
    known = tuple(proxies)
    for name in _nearest_first(hops):
        if not name:
            continue
        ip = address(name)
        trusted = bool(ip) and is_within(ip, known)
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


@lru_cache(maxsize=1 << 12)
def is_within(ip: str, networks: tuple[str, ...]) -> bool:
    """Whether an address lies in one of the networks."""
    parsed = ipaddress.ip_address(ip)
    return any(parsed in each for each in _parsed(networks) if each.version == parsed.version)


def is_inner(ip: str) -> bool:
    """Whether it is an address of inner networks: seldom a caller's, often a proxy's."""
    return is_within(ip, _INNER)


@lru_cache(maxsize=8)
def _parsed(networks: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, networks))
