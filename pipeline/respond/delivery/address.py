"""Where an outgoing request may go: the rules that keep a configured URL from reaching into our own network.

A name is resolved by us, every answer is judged, and the connection goes to the very addresses that were judged
(aiohttp connects to what its resolver returns), so a name server that answers differently a moment later, or mixes a
private address among public ones, gains nothing. Source: reference/response.md, section 5.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

MAX_URL_BYTES: Final = 2048
SMTP_PORTS: Final = frozenset({25, 465, 587, 2525})
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.ip_network("64:ff9b:1::/48")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LookUp = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to the addresses that name service gives for them. Raises `OSError`."""


class AddressError(OSError):
    """The target is one that we never connect to; the text says which rule. No retry changes it by itself."""


async def system_look_up(host: str, port: int) -> list[str]:
    """Addresses of a host as the system resolves it, IPv4 and IPv6, in the system's order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def check_url(url: str, allow_private: bool) -> SplitResult:
    """The parts of a URL that may be called. Raises `AddressError`; what its name resolves to is judged later."""
    if len(url.encode()) > MAX_URL_BYTES or not url.isprintable() or " " in url:
        raise AddressError(f"a URL has at most {MAX_URL_BYTES} bytes and no blanks")
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise AddressError("a URL must not carry a user or password: they end up in logs")
    if not parts.hostname or "%" in parts.hostname:
        raise AddressError("the URL names no host")
    try:
        port = parts.port
    except ValueError as error:
        raise AddressError("the URL's port is no number") from error
    if allow_private and parts.scheme in ("http", "https"):
        return parts
    if parts.scheme != "https" or port not in (None, 443):
        raise AddressError("only https on port 443 (allow_private = true for a target in your own network)")
    if literal(parts.hostname) is not None:
        raise AddressError("only names, no bare addresses (allow_private = true for a target in your own network)")
    return parts


def literal(host: str) -> Address | None:
    """The address if `host` is one, in any spelling that a resolver would take for one (127.1, 0x7f000001)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host)) if host[:1].isdigit() else None
    except OSError:
        return None


def is_public(text: str) -> bool:
    """Whether an address lies in the public internet, also after taking it out of every IPv6 wrapping."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner = unwrapped(address)
    return all(each.is_global and not each.is_multicast and not each.is_reserved for each in inner)


def unwrapped(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 one stands for (mapped, 6to4, Teredo, NAT64), or the address itself.

    The wrapping prefix itself is not judged: NAT64's is not `is_global`, and what is reached is the inner address.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    if address.sixtofour:
        return [address.sixtofour]
    if address.teredo:
        return list(address.teredo)
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    if address in _NAT64_LOCAL:
        return [ipaddress.IPv4Address(0)]  # translates as its operator likes: never public
    return [address]


class CheckedResolver(AbstractResolver):
    """aiohttp's resolver with the judgement in it: all answers good, or `AddressError`."""

    def __init__(self, allow_private: bool, look_up: LookUp = system_look_up) -> None:
        self._allow_private, self._look_up = allow_private, look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses to connect to, in the form that aiohttp asks for. `family` is ignored: both are judged."""
        addresses = await self._look_up(host, port)
        if not addresses:
            raise OSError(f"{host} has no address")
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AddressError(f"{host} resolves to an address inside a private or reserved network")
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Nothing to release."""


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)


def check_smtp(url: str, allow_private: bool) -> tuple[str, int, bool]:
    """(host, port, TLS from the first byte) of smtp://host[:587] or smtps://host[:465]. Raises `AddressError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or parts.path.strip("/") or parts.query:
        raise AddressError("e-mail needs smtp://host:587 (STARTTLS) or smtps://host:465")
    if parts.username is not None or parts.password is not None:
        raise AddressError("a URL must not carry a user or password: they end up in logs")
    try:
        port = parts.port or (465 if parts.scheme == "smtps" else 587)
    except ValueError as error:
        raise AddressError("the URL's port is no number") from error
    if not parts.hostname or not url.isprintable() or "%" in parts.hostname:
        raise AddressError("the URL names no host")
    if not allow_private and (port not in SMTP_PORTS or literal(parts.hostname) is not None):
        raise AddressError("only names, and ports 25, 465, 587 or 2525 (allow_private = true in your own network)")
    return parts.hostname, port, parts.scheme == "smtps"


def host_of(url: str, allow_private: bool) -> tuple[str, int]:
    """Host and port of any URL that an endpoint may have. Raises `AddressError`."""
    if url.startswith("smtp"):
        return check_smtp(url, allow_private)[:2]
    parts = check_url(url, allow_private)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


async def checked(host: str, port: int, allow_private: bool, look_up: LookUp = system_look_up) -> list[str]:
    """The addresses to connect to, all of them judged. Raises `AddressError`, `OSError`."""
    found = await CheckedResolver(allow_private, look_up).resolve(host, port)
    return [each["host"] for each in found]
