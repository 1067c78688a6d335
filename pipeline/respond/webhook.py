"""One signed attempt at one endpoint (Standard Webhooks 1.0.0), and the message that an incident becomes.

The body is serialised once; the same bytes are signed and sent at every attempt, under the same `webhook-id`, with
the timestamp of the attempt. Redirects are failures and never followed, proxies of the environment are not used,
at most 64 KB of the answer are read and never shown. Source: reference/response.md, sections 4 and 5.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import msgspec
from standardwebhooks import Webhook

from pipeline.config import Endpoint
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.respond.address import AddressError, CheckedResolver, LookUp, check_url, system_look_up
from schemas.incident import Incident

MAX_BODY_BYTES: Final = 20_000
MAX_ANSWER_BYTES: Final = 65_536
MAX_RETRY_AFTER_S: Final = 86_400.0
SLOW_DOWN: Final = frozenset({429, 502, 503, 504})
GONE: Final = 410
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "keywatch", "Accept-Encoding": "identity"}


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


class Poster:
    """Sends to one endpoint. Raises `ConfigError` at once where the endpoint's secret or URL cannot be used."""

    def __init__(
        self,
        endpoint: Endpoint,
        connect_timeout_s: float,
        total_timeout_s: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        look_up: LookUp = system_look_up,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._signer = Webhook(secret_of(endpoint))
        self._timeout = aiohttp.ClientTimeout(total=total_timeout_s, sock_connect=connect_timeout_s)
        self._clock, self._look_up, self._tls = clock, look_up, tls
        try:
            check_url(endpoint.url, endpoint.allow_private)
        except AddressError as error:
            raise ConfigError(f"respond.endpoints {endpoint.name!r}: {error}") from error

    async def post(self, message_id: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """One attempt. Never raises for anything that the other side does; a new connection and look-up each time."""
        name = self.endpoint.name
        with METRICS.webhook_seconds.labels(name).time():
            answer = await self._attempt({**_HEADERS, **(headers or {}), **self._signed(message_id, body)}, body)
        METRICS.webhook_deliveries.labels(name, answer.outcome).inc()
        return answer

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        now = self._clock().astimezone(UTC)
        signature = self._signer.sign(message_id, now, body.decode())
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }

    async def _attempt(self, headers: dict[str, str], body: bytes) -> Answer:
        resolver = CheckedResolver(self.endpoint.allow_private, self._look_up)
        connector = aiohttp.TCPConnector(
            resolver=resolver, use_dns_cache=False, force_close=True, ssl=self._tls if self._tls else True
        )
        try:
            async with aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session, session.post(
                self.endpoint.url, data=body, headers=headers, allow_redirects=False
            ) as response:  # fmt: skip
                text = await _read_bounded(response.content)
                return Answer(response.status, text, retry_after_s(response.headers, self._clock()))
        except TimeoutError:
            return Answer(error="gave no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _broken(error)


def _broken(error: BaseException) -> Answer:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressError):
            return Answer(error=str(cause), refused_address=True)
        cause = getattr(cause, "os_error", None) or cause.__cause__
    return Answer(error=f"could not be reached ({type(error).__name__})")


async def _read_bounded(stream: aiohttp.StreamReader) -> bytes:
    parts, left = [], MAX_ANSWER_BYTES
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


def secret_of(endpoint: Endpoint) -> bytes:
    """The signing key's bytes. Raises `ConfigError` unless it is `whsec_` + base64 of 24 to 64 bytes."""
    text = endpoint.secret.reveal()
    wrong = f"respond.endpoints {endpoint.name!r}: secret must be whsec_ and the base64 of 24 to 64 random bytes"
    if not text.startswith("whsec_"):
        raise ConfigError(wrong)
    try:
        secret = base64.b64decode(text.removeprefix("whsec_") + "==")
    except (binascii.Error, ValueError) as error:
        raise ConfigError(wrong) from error
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise ConfigError(wrong)
    return secret


def incident_event(incident: Incident) -> str:
    """The message's type: incident.opened, .extended, .escalated, .closed."""
    return f"incident.{incident.change}"


def incident_body(incident: Incident) -> bytes:
    """The message under 20,000 bytes; if longer, samples go first, then the weakest findings, told in `trimmed`."""
    data: dict[str, Any] = msgspec.to_builtins(incident)
    findings = sorted(data["findings"], key=lambda finding: -float(finding["bits"]))
    body = _envelope(incident, data)
    for finding in reversed(findings):
        if len(body) < MAX_BODY_BYTES:
            return body
        finding.pop("sample", None)
        data["trimmed"] = "samples"
        body = _envelope(incident, data)
    while len(body) >= MAX_BODY_BYTES and findings:
        findings.pop()
        data |= {"findings": findings, "trimmed": f"{len(incident.findings) - len(findings)} findings and all samples"}
        body = _envelope(incident, data)
    return body


def _envelope(incident: Incident, data: dict[str, Any]) -> bytes:
    at = incident.closed_at or incident.last_at
    return msgspec.json.encode({"type": incident_event(incident), "timestamp": at, "data": data})
