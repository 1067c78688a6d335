"""One signed attempt at one endpoint (Standard Webhooks 1.0.0).

The body is serialised once; the same bytes are signed and sent at every attempt, under the same `webhook-id`, with
the timestamp of the attempt. How it gets there: `caller.py`. Source: reference/response.md, section 4.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from pipeline.config.tree import Endpoint, Secret
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.respond.delivery.address import AddressError, LookUp, system_look_up
from pipeline.respond.delivery.caller import GONE, MAX_ANSWER_BYTES, SLOW_DOWN, Answer, Caller, retry_after_s
from pipeline.times import micros

__all__ = ["GONE", "MAX_ANSWER_BYTES", "SLOW_DOWN", "Answer", "Poster", "retry_after_s"]  # known from here

MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
_HEADERS: Final = {"Content-Type": "application/json"}


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
        self._signer, self._clock = Webhook(secret_of(endpoint)), clock
        self._old_signer = Webhook(_secret(endpoint, endpoint.old_secret)) if endpoint.old_secret else None
        self._old_until_us = micros(endpoint.old_secret_until)
        try:
            self._caller = Caller(
                endpoint.target, connect_timeout_s, total_timeout_s, allow_private=endpoint.allow_private, clock=clock,
                look_up=look_up, tls=tls,
            )  # fmt: skip
        except AddressError as error:
            raise ConfigError(f"respond.endpoints {endpoint.name!r}: {error}") from error

    async def post(self, message_id: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """One attempt. Never raises for anything that the other side does; a new connection and look-up each time."""
        name = self.endpoint.name
        with METRICS.webhook_seconds.labels(name).time():
            signed = {**_HEADERS, **(headers or {}), **self._signed(message_id, body)}
            answer = await self._caller.call("POST", signed, body)
        METRICS.webhook_deliveries.labels(name, answer.outcome).inc()
        return answer

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        now = self._clock().astimezone(UTC)
        signers = [self._signer]
        if self._old_signer and now.timestamp() * 1e6 < self._old_until_us:
            signers.append(self._old_signer)  # receivers take whichever they know
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(message_id, now, body.decode()) for signer in signers),
        }


def secret_of(endpoint: Endpoint) -> bytes:
    """The signing key's bytes. Raises `ConfigError` unless it is `whsec_` + base64 of 24 to 64 bytes."""
    return _secret(endpoint, endpoint.secret)


def _secret(endpoint: Endpoint, given: Secret) -> bytes:
    text = given.reveal()
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
