"""Who comes through a proxy that has signed him in (oauth2-proxy, Pomerium, an ingress): by headers it adds.

Headers are a claim that anybody can send. They are believed only from a connection that comes from `proxy_addresses`
AND carries the secret that this proxy alone knows; one that stands twice is no word of the proxy's, since the client's
own may be the other one.

    oauth2-proxy  injectRequestHeaders: X-Forwarded-Email, X-Forwarded-Groups from claims, X-Keywatch-Proxy from a value
    Pomerium      pass_identity_headers and jwt_claims_headers; set_request_headers: X-Keywatch-Proxy
    NGINX         auth_request_set and proxy_set_header for each, so that what clients send is replaced
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.datastructures import Headers

from pipeline.config.tree import Console
from pipeline.console.visitor import ROLES, Role, Visitor
from pipeline.errors import ConfigError

HEADER: Final = "x-keywatch-proxy"
MAX_NAME: Final = 128


class Proxy:
    """What stands before the console. Raises ConfigError for addresses that are none."""

    def __init__(self, settings: Console) -> None:
        self._settings = settings
        self._secret = settings.proxy_secret.reveal()
        self._nonce = hashlib.sha256(self._secret.encode()).hexdigest()[:24]
        self._networks = [_network(each) for each in settings.proxy_addresses]

    def is_it(self, headers: Headers, peer: str) -> bool:
        """Whether this request came through the proxy."""
        said = headers.getlist(HEADER)
        known = len(said) == 1 and hmac.compare_digest(self._secret.encode(), said[0].encode("utf-8", "replace"))
        return bool(self._secret) and known and self._is_near(peer)

    def visitor(self, headers: Headers, peer: str) -> Visitor | None:
        """Whom it has signed in; None: nobody, or nobody who may come in."""
        if not self.is_it(headers, peer):
            return None
        name = _once(headers, self._settings.proxy_user_header)[:MAX_NAME]
        role = self._role(headers)
        return Visitor(name, role, nonce=self._nonce) if name and role else None

    def _role(self, headers: Headers) -> Role | None:
        if self._settings.proxy_groups:
            return max(self._roles(headers), key=ROLES.index, default=None)
        word = _once(headers, self._settings.proxy_role_header)
        return next((role for role in ROLES if role == word), "viewer")

    def _roles(self, headers: Headers) -> Iterator[Role]:
        for group in _once(headers, self._settings.proxy_groups_header).split(","):
            word = self._settings.proxy_groups.get(group.strip())
            yield from (role for role in ROLES if role == word)

    def _is_near(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)


def _once(headers: Headers, name: str) -> str:
    values = headers.getlist(name) if name else []
    return values[0].strip() if len(values) == 1 else ""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(f"console.proxy_addresses: {error}") from error
