"""Carrying out one granted act: the signed webhook `key.revoke` to the service that owns the keys.

Over HTTP nobody can promise "exactly once", so the act is a state to be set, not an event: the same `Idempotency-Key`
(what is done to which version of which key) at every attempt, from whichever responder; "it is already so" (404, 409)
is success; a version that was replaced since is the target's to refuse. The target's contract: 2xx with
{"status": "revoked" | "scheduled" | "refused", "reason"?: text}. Source: reference/delivery.md, section 7.

A `NullActor` is what replay and backfill get: it has no way to send anything, by type and not by a flag.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from pipeline.respond.adapters.adapter import Intent, Outcome
from pipeline.respond.webhook import GONE, SLOW_DOWN, Answer, Poster

INTENT_LIVES_S: Final = 900.0  # never carried out later than 15 min after it was granted (reference/delivery.md, 7)
RETRY_DELAYS_S: Final = (0.25, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # then every minute: a leaked key is in use meanwhile
_TRY_AGAIN: Final = frozenset({0, 408, 425, 500}) | SLOW_DOWN
_ALREADY: Final = {404: "the target knows no such key", 409: "it was revoked already"}


class Actor(Protocol):
    """Who can act."""

    async def act(self, intent: Intent) -> Outcome:
        """Bring it about, or tell why not; takes up to `INTENT_LIVES_S`. Never raises for what the target does."""


class NullActor:
    """Cannot act: for replay, backfill and simulation."""

    async def act(self, intent: Intent) -> Outcome:
        """Nothing is sent."""
        return Outcome("failed", "not sent: this run has no way to act", "failed")


class WebhookActor:
    """Acts through one endpoint. `killed` is asked before every attempt and gives the reason, "" is go on."""

    def __init__(
        self,
        poster: Poster,
        killed: Callable[[], str],
        now_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._poster, self._killed, self._now_s, self._sleep = poster, killed, now_s, sleep
        self.gone = False

    async def act(self, intent: Intent) -> Outcome:
        """Attempts until the target has said something final, the intent has expired or the kill switch is on."""
        body, attempt, last = revoke_body(intent), 0, ""
        while True:
            if stop := self._stopped(intent, last):
                return stop
            answer = await self._poster.post(message_id(intent), body, {"Idempotency-Key": intent.act_id})
            if outcome := self._final(answer):
                return outcome
            last = answer.words
            await self._sleep(max(delay_s(attempt), answer.retry_after_s))
            attempt += 1

    def _stopped(self, intent: Intent, last: str) -> Outcome | None:
        if self.gone:
            return Outcome("failed", "the endpoint answered 410 and is disabled", "failed")
        if killed := self._killed():
            return Outcome("failed", f"stopped: {killed}", "failed")
        if self._now_s() - intent.granted_at_s > INTENT_LIVES_S:
            said = f", the target last {last}" if last else ""
            return Outcome("expired", f"granted more than {INTENT_LIVES_S:.0f} s ago{said}", "expired")
        return None

    def _final(self, answer: Answer) -> Outcome | None:
        if answer.ok:
            return read_answer(answer)
        if answer.status in _ALREADY:
            return Outcome("done", _ALREADY[answer.status], "revoked")
        if answer.refused_address:
            return Outcome("failed", answer.words, "failed")
        if answer.status in _TRY_AGAIN:
            return None
        self.gone = answer.status == GONE
        return Outcome("failed", answer.words, "failed")


def read_answer(answer: Answer) -> Outcome:
    """What a 2xx means. A body that doesn't keep the contract is taken for done, as the status says, and told so."""
    try:
        said = msgspec.json.decode(answer.body, type=_Said)
    except msgspec.MsgspecError:
        return Outcome("done", f"answered {answer.status} without a status: unproven", "revoked")
    if said.status == "refused":
        return Outcome("failed", "the target refused", "refused")
    words = {"revoked": "revoked", "scheduled": "scheduled by the target"}
    known = said.status in words
    text = words[said.status] if known else f"answered {answer.status} with an unknown status: unproven"
    return Outcome("done", text, said.status if known else "revoked")


class _Said(msgspec.Struct, frozen=True):
    status: str


def delay_s(attempt: int) -> float:
    """Seconds before the next attempt, with up to a fifth of jitter so that responders don't march in step."""
    return RETRY_DELAYS_S[min(attempt, len(RETRY_DELAYS_S) - 1)] * random.uniform(0.8, 1.0)  # noqa: S311  no secret


def act_id(key_id: str, key_version: int, rung: str = "revoke") -> str:
    """The idempotency key: 64 hex digits, the same for whoever does this to this version of this key."""
    return hashlib.sha256(f"{key_id}\x00{key_version}\x00{rung}".encode()).hexdigest()


def response_id(incident_id: str, rung: str, key_version: int) -> str:
    """32 hex digits: all stages of one incident's act on one version of its key share it."""
    text = f"{incident_id}\x00{rung}\x00{key_version}"
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"kw-response").hexdigest()


def message_id(intent: Intent) -> str:
    """The `webhook-id`, the same at every attempt."""
    return f"rsp_{intent.response_id}"


def revoke_body(intent: Intent) -> bytes:
    """The message; nothing in it depends on when or by whom it is sent, so that a resumed act sends equal bytes."""
    data = {
        "key_id": intent.key_id,
        "key_version": intent.key_version,
        "incident_id": intent.incident_id,
        "response_id": intent.response_id,
        "rung": "revoke",
        "reason": intent.reason,
    }
    return msgspec.json.encode({"type": "key.revoke", "timestamp": intent.granted_at, "data": data})
