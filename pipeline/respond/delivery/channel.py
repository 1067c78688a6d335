"""How each kind of endpoint is reached: one attempt with what was rendered, and with the secrets that it needs.

Secrets enter here and nowhere before: what waits on the decisions topic has none. All of them connect to addresses
that were judged a moment ago (`address.py`), follow no redirect, and end in time.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, Protocol

import msgspec

from pipeline.config.tree import Endpoint, Respond
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.respond.delivery import smtp
from pipeline.respond.delivery.address import AddressError, LookUp, check_smtp, system_look_up
from pipeline.respond.delivery.caller import Answer, Caller
from pipeline.respond.delivery.notice import one_line
from pipeline.respond.delivery.webhook import Poster
from pipeline.respond.render import RENDERINGS, mail

MAX_ADDRESS: Final = 254


class Channel(Protocol):
    """One endpoint, whatever its kind."""

    endpoint: Endpoint

    async def post(self, message_id: str, body: bytes) -> Answer:
        """One attempt with a rendered message. Never raises for anything that the other side does."""


def channel(respond: Respond, endpoint: Endpoint, look_up: LookUp = system_look_up) -> Channel:
    """The channel of an endpoint. Raises `ConfigError` at once for one that can't be used."""
    if endpoint.kind == "webhook" or endpoint.secret.reveal().startswith("whsec_"):
        poster = Poster(endpoint, respond.connect_timeout_s, respond.total_timeout_s, look_up=look_up)
        return poster if endpoint.kind == "webhook" else Signed(poster)
    if endpoint.kind == "email":
        return MailChannel(respond, endpoint, look_up)
    if endpoint.kind == "pagerduty":
        return PagerDuty(respond, endpoint, look_up)
    return Plain(respond, endpoint, look_up)


def _caller(respond: Respond, endpoint: Endpoint, look_up: LookUp) -> Caller:
    try:
        return Caller(
            endpoint.target, respond.connect_timeout_s, respond.total_timeout_s,
            allow_private=endpoint.allow_private, look_up=look_up,
        )  # fmt: skip
    except AddressError as error:
        raise ConfigError(f"respond.endpoints {endpoint.name!r}: {error}") from error


async def _measured(name: str, attempt: Awaitable[Answer]) -> Answer:
    with METRICS.webhook_seconds.labels(name).time():
        answer = await attempt
    METRICS.webhook_deliveries.labels(name, answer.outcome).inc()
    return answer


class Plain:
    """POST as it is, with a bearer token where there is one."""

    def __init__(self, respond: Respond, endpoint: Endpoint, look_up: LookUp) -> None:
        self.endpoint = endpoint
        self._caller = _caller(respond, endpoint, look_up)
        self._headers = {"Content-Type": RENDERINGS[endpoint.kind].content_type}
        if token := endpoint.secret.reveal():
            if not token.isascii() or not token.isprintable():
                raise ConfigError(f"respond.endpoints {endpoint.name!r}: secret is no token: one line of ASCII")
            self._headers["Authorization"] = f"Bearer {token}"

    async def post(self, message_id: str, body: bytes) -> Answer:
        """One attempt."""
        return await _measured(self.endpoint.name, self._caller.call("POST", self._headers, body))


class Signed:
    """Another kind's body with Standard Webhooks' signature over it: where the secret is a `whsec_` one."""

    def __init__(self, poster: Poster) -> None:
        self.endpoint, self._poster = poster.endpoint, poster

    async def post(self, message_id: str, body: bytes) -> Answer:
        """One attempt."""
        return await self._poster.post(message_id, body, {"Content-Type": RENDERINGS[self.endpoint.kind].content_type})


class PagerDuty:
    """The routing key goes in at the last moment."""

    def __init__(self, respond: Respond, endpoint: Endpoint, look_up: LookUp) -> None:
        self.endpoint = endpoint
        self._caller = _caller(respond, endpoint, look_up)

    async def post(self, message_id: str, body: bytes) -> Answer:
        """One attempt."""
        event = {"routing_key": self.endpoint.secret.reveal(), **msgspec.json.decode(body, type=dict)}
        call = self._caller.call("POST", {"Content-Type": "application/json"}, msgspec.json.encode(event))
        return await _measured(self.endpoint.name, call)


class MailChannel:
    """SMTP."""

    def __init__(self, respond: Respond, endpoint: Endpoint, look_up: LookUp) -> None:
        self.endpoint = endpoint
        for each in (endpoint.sender, *endpoint.recipients):
            _check_address(endpoint, each)
        try:
            host, port, tls_first = check_smtp(endpoint.target, endpoint.allow_private)
        except AddressError as error:
            raise ConfigError(f"respond.endpoints {endpoint.name!r}: {error}") from error
        self._server = smtp.Server(
            host, port, tls_first, endpoint.allow_private, endpoint.username, endpoint.secret.reveal(),
            respond.connect_timeout_s, respond.total_timeout_s, look_up,
        )  # fmt: skip

    async def post(self, message_id: str, body: bytes) -> Answer:
        """One attempt."""
        endpoint = self.endpoint
        made = mail.message(msgspec.json.decode(body, type=mail.Mail), endpoint.sender, endpoint.recipients)
        return await _measured(endpoint.name, smtp.send(self._server, made, endpoint.sender, endpoint.recipients))


def _check_address(endpoint: Endpoint, address: str) -> None:
    """A bare address, so that neither a header nor a command can hold anything else. Raises `ConfigError`."""
    local, at, domain = address.rpartition("@")
    clean = address.isascii() and not set(address) & set(' \t\r\n<>()[],;:\\"') and one_line(address) == address
    if not (clean and local and at and domain) or len(address) > MAX_ADDRESS:
        raise ConfigError(f"respond.endpoints {endpoint.name!r}: {address!r} is no bare mail address")
