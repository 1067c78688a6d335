"""Who may come in, as whom: tokens, sessions, roles, the forms' own tokens, and what a proxy in front says.

A session is a signed cookie and nothing on our side. Replicas that share `console.session_key` take one another's;
without one its key lives as long as the process, so that a restart signs everybody out. Every form carries a token made
of the cookie: another site can make a browser send the one, never the other.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from starlette.datastructures import Headers

from pipeline.config.tree import Console
from pipeline.console.proxy import Proxy
from pipeline.console.visitor import ROLES, Role, Visitor
from pipeline.errors import ConfigError

COOKIE: Final = "keywatch"
LEAST_TOKEN: Final = 20
LEAST_KEY: Final = 32
"""Bytes of `console.session_key`: as many as the hash has that it keys."""
MOST_FAILURES: Final = 10
"""Wrong tokens within a minute, of all callers together, after which wrong ones are answered slowly."""
MINUTE_S: Final = 60.0
SLOW_S: Final = 2.0
"""So late is a wrong token answered then."""
MOST_HELD: Final = 50
"""Answers that wait so at once: each keeps one of the server's 200 connections; the night shift has the others."""


@dataclass
class Door:
    """Signs in and recognises. `now_s`: Unix time."""

    settings: Console
    now_s: Callable[[], float]
    _key: bytes = field(init=False, repr=False)
    _failed_at_s: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_FAILURES))
    _held: int = 0
    _proxy: Proxy = field(init=False)

    def __post_init__(self) -> None:
        """Raises ConfigError where nobody could come in, or anybody."""
        people = self.settings.people
        self._proxy = Proxy(self.settings)
        self._key = self.settings.session_key.reveal().encode() or os.urandom(LEAST_KEY)
        if len(self._key) < LEAST_KEY:
            raise ConfigError(f"console.session_key has fewer than {LEAST_KEY} bytes")
        if not people and not self.settings.proxy_secret:
            raise ConfigError(
                "nobody may use the console: set [[console.people]] (name, role, token), or a proxy_secret"
            )
        if len({person.name for person in people}) != len(people):
            raise ConfigError("console.people: every person needs a name of its own")
        names: dict[str, str] = {}
        for person in people:
            other = names.setdefault(person.token.reveal(), person.name)
            if other != person.name:  # the log could not tell them apart, and a machine's would open pages
                raise ConfigError(f"console.people: {person.name} and {other} have the same token")
            if len(person.token.reveal()) < LEAST_TOKEN:
                raise ConfigError(f"console.people: the token of {person.name} has fewer than {LEAST_TOKEN} characters")

    def sign_in(self, token: str) -> Visitor | None:
        """The person of this token; None for a wrong one. A right one is taken however many wrong ones came: guesses
        at 20 random characters find nothing, and whoever floods this page must not keep the night shift out.
        """
        return self._of_token(token, machine=False)

    def machine(self, authorization: str) -> Visitor | None:
        """The program of this header, `Bearer TOKEN`; None for another, or for a person's token."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None  # no guess
        return self._of_token(token.strip(), machine=True)

    def _of_token(self, token: str, machine: bool) -> Visitor | None:
        now_s = self.now_s()
        found = [
            person
            for person in self.settings.people
            if hmac.compare_digest(person.token.reveal().encode(), token.encode("utf-8", "replace"))
            and person.machine == machine
        ]
        if not found:
            self._failed_at_s.append(now_s)
            return None
        role: Role = next(role for role in ROLES if role == found[0].role)
        return Visitor(found[0].name, role, now_s + self.settings.session_s, os.urandom(12).hex())

    @property
    def flooded(self) -> bool:
        """Whether so many wrong tokens came of late that the next wrong one is answered late."""
        failed = self._failed_at_s
        return len(failed) == MOST_FAILURES and failed[0] > self.now_s() - MINUTE_S

    async def hold_up(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Before a wrong token is answered: waits for `SLOW_S` where they flood, unless `MOST_HELD` do so already."""
        if not self.flooded or self._held >= MOST_HELD:
            return
        self._held += 1
        try:
            await sleep(SLOW_S)
        finally:
            self._held -= 1

    def cookie(self, visitor: Visitor) -> str:
        """The session."""
        body = base64.urlsafe_b64encode(msgspec.json.encode(visitor)).decode()
        return f"{body}.{self._sign_session(visitor.name, body)}"

    def recognise(self, cookie: str, headers: Headers, peer: str) -> Visitor | None:
        """Who this is, by the proxy's word or by the session; None is nobody. `peer`: the connection's address."""
        return self._proxy.visitor(headers, peer) or self._by_cookie(cookie)

    def address_of(self, headers: Headers, peer: str) -> str:
        """Whose request this is: the peer's, or who the proxy says it had before it."""
        told = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        return told[:64] if told and self._proxy.is_it(headers, peer) else peer

    def form_token(self, visitor: Visitor) -> str:
        """What the forms of this session carry."""
        return self._sign("form", f"{visitor.name}.{visitor.nonce}")

    def mark(self, visitor: Visitor, said: str) -> str:
        """Proves that these words are ours, to this session."""
        return self._sign("said", f"{visitor.name}.{visitor.nonce}.{said}")

    def is_own_form(self, visitor: Visitor, token: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(self.form_token(visitor).encode(), token.encode("utf-8", "replace"))

    def _by_cookie(self, cookie: str) -> Visitor | None:
        """A session outlives a restart where there is a session key, but not its person, role or token."""
        body, _, signature = cookie.rpartition(".")
        try:
            visitor = msgspec.json.decode(base64.urlsafe_b64decode(body), type=Visitor)
        except (msgspec.MsgspecError, binascii.Error, ValueError):
            return None
        wanted = self._sign_session(visitor.name, body).encode()
        if not hmac.compare_digest(wanted, signature.encode("utf-8", "replace")):
            return None
        return visitor if visitor.until_s > self.now_s() else None

    def _sign_session(self, name: str, body: str) -> str:
        known = [person for person in self.settings.people if person.name == name and not person.machine]
        stands = "\x00".join([*(f"{person.role}\x00{person.token.reveal()}" for person in known), body])
        return self._sign("session" if known else "nobody", stands)

    def _sign(self, use: str, text: str) -> str:
        return hmac.new(self._key, f"{use}\x00{text}".encode(), hashlib.sha256).hexdigest()
