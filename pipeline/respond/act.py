"""Carrying out one granted act through an adapter: again and again, until it is final, too late or forbidden.

Over HTTP nobody can promise "exactly once", so an act is a state to be set, not an event: the adapter makes one
attempt at it (`adapters/adapter.py`), with the same `Idempotency-Key` (what is done to which version of which key) at
every attempt, from whichever responder. Before each the kill switch and the grant's age are asked anew.
Source: reference/delivery.md, section 7.

What an adapter wants noted before it changes anything is written down first (`note`), so that kill -9 right after the
change does not lose what an undo restores.

A `NullActor` is what replay and backfill get: it has no way to send anything, by type and not by a flag.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Protocol

from pipeline.respond.adapters.adapter import Adapter, Intent, NoteFirst, Outcome

INTENT_LIVES_S: Final = 900.0  # never carried out later than 15 min after it was granted (reference/delivery.md, 7)
RETRY_DELAYS_S: Final = (0.25, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # then every minute: a leaked key is in use meanwhile

Note = Callable[[str], Awaitable[str]]
"""Keeps what was before an act, durably; returns what is kept, which of two responders is the first one's. "": the act
is over by now, nothing is to be changed any more."""


async def unkept(before: str) -> str:
    """A `Note` for what needs none: an undo."""
    return before


class Actor(Protocol):
    """Who can act."""

    async def act(self, intent: Intent, note: Note = unkept) -> Outcome:
        """Bring it about, or tell why not; takes up to `INTENT_LIVES_S`. Never raises for what the target does."""


class NullActor:
    """Cannot act: for replay, backfill and simulation."""

    async def act(self, intent: Intent, note: Note = unkept) -> Outcome:
        """Nothing is sent."""
        return Outcome("failed", "not sent: this run has no way to act", "failed")


class Acting:
    """Acts through one adapter. `killed` is asked before every attempt and gives the reason, "" is go on."""

    def __init__(
        self,
        adapter: Adapter,
        killed: Callable[[], str],
        now_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.adapter = adapter
        self._killed, self._now_s, self._sleep = killed, now_s, sleep

    async def act(self, intent: Intent, note: Note = unkept) -> Outcome:
        """Attempts until the adapter has said something final, the intent has expired or the kill switch is on."""
        if intent.rung not in self.adapter.matrix:
            return Outcome("failed", f"{self.adapter.name} cannot {intent.rung}", "failed")
        if intent.direction == "undo" and not self.adapter.matrix[intent.rung].undo:
            return Outcome("failed", f"{self.adapter.name} cannot undo {intent.rung}", "failed")
        attempt, last = 0, ""
        while not (stop := self._stopped(intent, last)):
            answer = await self.adapter.attempt(intent)
            if isinstance(answer, Outcome):
                return replace(answer, ends_old=self._ends_old(intent, answer))
            if isinstance(answer, NoteFirst):
                if not (before := await note(answer.before)):
                    return Outcome("expired", "others have ended it meanwhile", "expired")
                intent = replace(intent, before=before)
                continue
            last = answer.words
            await self._sleep(min(max(delay_s(attempt), answer.retry_after_s), self._left_s(intent) + 1.0))
            attempt += 1
        return stop

    def _ends_old(self, intent: Intent, answer: Outcome) -> bool:
        rotated = (intent.rung, intent.direction, answer.result) == ("rotate", "apply", "done")
        another = answer.new_key_id not in ("", intent.key_id)  # or to revoke the old key would be to revoke both
        return rotated and another and self.adapter.matrix[intent.rung].ends_old == "keywatch"

    def _stopped(self, intent: Intent, last: str) -> Outcome | None:
        if killed := self._killed():
            return Outcome("expired" if last else "failed", f"stopped: {killed}", "failed")  # it may have been done
        if self._left_s(intent) < 0:
            said = f", the target last {last}" if last else ""
            return Outcome("expired", f"granted more than {INTENT_LIVES_S:.0f} s ago{said}", "expired")
        return None

    def _left_s(self, intent: Intent) -> float:
        return intent.granted_at_s + INTENT_LIVES_S - self._now_s()


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
