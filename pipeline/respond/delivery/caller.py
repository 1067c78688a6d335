"""One HTTP request to somebody else's server, and whatever the other side does is an answer, not an exception.

The name is resolved by us and the connection goes to the addresses that were judged (`address.py`), anew at every
request; redirects are failures and never followed, proxies of the environment are not used, a bounded part of
the answer is read and never shown. Source: reference/response.md, section 5.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from yarl import URL

from pipeline.respond.delivery.address import AddressError, CheckedResolver, LookUp, check_url, literal, system_look_up

MAX_ANSWER_BYTES: Final = 65_536
MAX_RETRY_AFTER_S: Final = 86_400.0
SLOW_DOWN: Final = frozenset({429, 502, 503, 504})
GONE: Final = 410
_HEADERS: Final = {"User-Agent": "keywatch", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one attempt. `status` 0: none came, `error` says why in words without any part of a body."""

    status: int = 0
    body: bytes = b""
    retry_after_s: float = 0.0
    error: str = ""
    refused_address: bool = False

    @property
    def ok(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300

    @property
    def passing(self) -> bool:
        """Nothing was decided and the next attempt may do better: no answer, 408, 425, 429, 5xx."""
        return not self.refused_address and (self.status in (0, 408, 425, 429) or self.status >= 500)

    @property
    def outcome(self) -> str:
        """The metric's label."""
        if self.ok:
            return "ok"
        if self.refused_address:
            return "refused_address"
        if self.status == GONE:
            return "gone"
        if self.status in SLOW_DOWN:
            return "slowed"
        return "redirected" if 300 <= self.status < 400 else "failed"

    @property
    def words(self) -> str:
        """For logs and the audit."""
        return self.error or f"answered {self.status}"


class Caller:
    """Calls one server. Raises `AddressError` at once where its URL is one that we never call.

    `allow_private`: a target in our own network, on any port; plain http is for loopback alone where `tls_only` is set.
    """

    def __init__(
        self,
        url: str,
        connect_timeout_s: float,
        total_timeout_s: float,
        *,
        allow_private: bool = False,
        tls_only: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        look_up: LookUp = system_look_up,
        tls: ssl.SSLContext | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        parts = check_url(url, allow_private)
        if tls_only and parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
            raise AddressError("only https: a credential goes with every request")
        self.url = url
        self._timeout = aiohttp.ClientTimeout(total=total_timeout_s, sock_connect=connect_timeout_s)
        self._allow_private, self._clock, self._look_up, self._tls = allow_private, clock, look_up, tls
        self._max_answer_bytes = max_answer_bytes

    async def call(self, method: str, headers: Mapping[str, str], body: bytes | None = None, path: str = "") -> Answer:
        """One request to `url` + `path` (already percent-encoded: it goes out as it is, since signatures cover it)."""
        resolver = CheckedResolver(self._allow_private, self._look_up)
        connector = aiohttp.TCPConnector(
            resolver=resolver, use_dns_cache=False, force_close=True, ssl=self._tls if self._tls else True
        )
        try:
            async with aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session, session.request(
                method, URL(self.url + path, encoded=True) if path else self.url, data=body,
                headers={**_HEADERS, **headers}, allow_redirects=False,
            ) as response:  # fmt: skip
                text = await _read_bounded(response.content, self._max_answer_bytes)
                return Answer(response.status, text, retry_after_s(response.headers, self._clock()))
        except TimeoutError:
            return Answer(error="gave no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _broken(error)


def _is_loopback(host: str) -> bool:
    address = literal(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _broken(error: BaseException) -> Answer:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressError):
            return Answer(error=str(cause), refused_address=True)
        cause = getattr(cause, "os_error", None) or cause.__cause__
    return Answer(error=f"could not be reached ({type(error).__name__})")


async def _read_bounded(stream: aiohttp.StreamReader, left: int) -> bytes:
    parts = []
    while left and (part := await stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds that `Retry-After` asks for (a number or a date), 0 where it is absent or nonsense; at most a day."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - now).total_seconds()), MAX_RETRY_AFTER_S)
