"""Delivering incident messages: a queue per endpoint, so that one that is slow or dead stalls no other.

Schedule after a failure: 5 s, 5 min, 30 min, 2, 5, 10, 14, 20, 24 h with jitter (Standard Webhooks, operational
guidance), then given up, loudly. 410 disables the endpoint until the next start; `Retry-After`, and failures in a row,
let the whole endpoint rest. A message that failed once, or that finds its endpoint resting or its queue long, is handed
over durably (`outbox.py`) and its incident is released: nothing waits for an endpoint longer than one attempt.
Order: a queue sends in the order of its incidents, but a message that is retried comes late; receivers order by
(incident_id, revision) and drop repeats by `webhook-id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from pipeline.metrics import METRICS
from pipeline.respond.ledger import HandedOver, Settled
from pipeline.respond.webhook import GONE, Answer, Poster, incident_body, incident_event
from schemas.incident import Incident, webhook_id

log = logging.getLogger(__name__)

HOUR_S: Final = 3600.0
SCHEDULE_S: Final = (
    0.0, 5.0, 300.0, 1800.0, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 14 * HOUR_S, 20 * HOUR_S, 24 * HOUR_S,
)  # fmt: skip
JITTER: Final = 0.1
MAX_WAITING: Final = 100  # in memory only; further ones are handed over at once
MAX_PENDING: Final = 10_000  # of one endpoint, 200 MB at most; further ones are given up
MAX_REST_S: Final = 300.0

Journal = Callable[[HandedOver | Settled], Awaitable[object]]
"""Writes one record to the decisions topic and returns once it is acknowledged."""


@dataclass(order=True, slots=True)
class Parcel:
    """One message to one endpoint. `attempts` made so far; `released` is set once its incident need not wait."""

    due_s: float
    number: int
    message_id: str = field(compare=False)
    body: bytes = field(compare=False)
    partition: int = field(compare=False)
    attempts: int = field(default=0, compare=False)
    durable: bool = field(default=False, compare=False)
    released: asyncio.Event = field(default_factory=asyncio.Event, compare=False)


class Mailbox:
    """One endpoint's queue and the task that empties it."""

    def __init__(
        self, poster: Poster, journal: Journal, now_s: Callable[[], float], schedule_s: tuple[float, ...] = SCHEDULE_S
    ) -> None:
        self.name = poster.endpoint.name
        self.wanted = frozenset(poster.endpoint.events)
        self.disabled = False
        self._poster, self._journal, self._now_s, self._schedule_s = poster, journal, now_s, schedule_s
        self._queue: list[Parcel] = []
        self._sending: Parcel | None = None  # taken out of the queue
        self._numbers = itertools.count()
        self._rest_until_s = 0.0
        self._failures = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name=f"webhook {self.name}")

    async def close(self) -> None:
        """Stop; what was not handed over belongs to incidents that are not committed."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def failed(self) -> BaseException | None:
        """What ended the sending task, if anything did."""
        task = self._task
        return task.exception() if task and task.done() and not task.cancelled() else None

    async def send(self, message_id: str, body: bytes, partition: int) -> asyncio.Event:
        """Take one message; the event is set once it is delivered, given up or handed over.

        One that was handed over before a crash may come again, with its incident: it is on its way already.
        """
        if known := self._known(message_id):
            return known.released
        parcel = Parcel(self._now_s(), next(self._numbers), message_id, body, partition)
        if self.disabled or len(self._queue) >= MAX_PENDING:
            await self._give_up(parcel, "the endpoint is disabled" if self.disabled else "its queue is full")
            return parcel.released
        if self._now_s() < self._rest_until_s or len(self._queue) >= MAX_WAITING:
            parcel.due_s = max(self._rest_until_s, parcel.due_s)
            await self._hand_over(parcel)
        self._push(parcel)
        return parcel.released

    def resume(self, record: HandedOver) -> None:
        """Go on with one that was handed over, by us or by another responder."""
        if self._known(record.message_id):
            return
        parcel = Parcel(
            record.next_at_us / 1e6, next(self._numbers), record.message_id, record.body.encode(), record.partition,
            record.attempts, durable=True,
        )  # fmt: skip
        parcel.released.set()
        self._push(parcel)

    def forget(self, partitions: Iterable[int]) -> None:
        """Another responder owns these now."""
        gone = set(partitions)
        self._queue = [parcel for parcel in self._queue if parcel.partition not in gone]
        heapq.heapify(self._queue)
        METRICS.webhook_pending.labels(self.name).set(len(self._queue))

    def _known(self, message_id: str) -> Parcel | None:
        parcels = (*self._queue, self._sending) if self._sending else self._queue
        return next((parcel for parcel in parcels if parcel.message_id == message_id), None)

    def _push(self, parcel: Parcel) -> None:
        heapq.heappush(self._queue, parcel)
        METRICS.webhook_pending.labels(self.name).set(len(self._queue))
        self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            wait_s = self._wait_s()
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):  # not wait_for: in Python 3.11 that may swallow a cancellation
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                continue
            parcel = self._sending = heapq.heappop(self._queue)
            answer = await self._poster.post(parcel.message_id, parcel.body)
            await self._settle(parcel, answer)
            self._sending = None
            METRICS.webhook_pending.labels(self.name).set(len(self._queue))

    def _wait_s(self) -> float:
        if not self._queue:
            return HOUR_S
        return max(self._queue[0].due_s, self._rest_until_s) - self._now_s()

    async def _settle(self, parcel: Parcel, answer: Answer) -> None:
        parcel.attempts += 1
        if answer.ok:
            self._failures = 0
            await self._finish(parcel, delivered=True)
        elif answer.status == GONE:
            await self._disable(parcel)
        elif parcel.attempts >= len(self._schedule_s):
            await self._give_up(parcel, f"{parcel.attempts} attempts, the last one {answer.words}")
        else:
            await self._retry_later(parcel, answer)

    async def _retry_later(self, parcel: Parcel, answer: Answer) -> None:
        self._failures += 1
        first = self._schedule_s[1] if len(self._schedule_s) > 1 else 0.0
        rest_s = max(answer.retry_after_s, min(first * 2 ** min(self._failures - 1, 10), MAX_REST_S))
        now = self._now_s()
        self._rest_until_s = now + rest_s
        parcel.due_s = now + max(jittered(self._schedule_s[parcel.attempts]), answer.retry_after_s)
        log.warning(
            "webhook %s: %s %s, again in %.0f s", self.name, parcel.message_id, answer.words, parcel.due_s - now
        )
        await self._hand_over(parcel)
        self._push(parcel)

    async def _hand_over(self, parcel: Parcel) -> None:
        body = "" if parcel.durable else parcel.body.decode()
        await self._journal(HandedOver(
            message_id=parcel.message_id, endpoint=self.name, partition=parcel.partition, attempts=parcel.attempts,
            next_at_us=int(parcel.due_s * 1e6), body=body,
        ))  # fmt: skip
        parcel.durable = True
        parcel.released.set()

    async def _disable(self, parcel: Parcel) -> None:
        self.disabled = True
        METRICS.webhook_disabled.labels(self.name).set(1)
        log.error("webhook %s answered 410 and is disabled until the next start", self.name)
        waiting, self._queue = [parcel, *self._queue], []
        for each in waiting:
            await self._give_up(each, "the endpoint is disabled")

    async def _give_up(self, parcel: Parcel, why: str) -> None:
        METRICS.webhook_deliveries.labels(self.name, "given_up").inc()
        log.error("webhook %s: %s is given up: %s", self.name, parcel.message_id, why)
        await self._finish(parcel, delivered=False)

    async def _finish(self, parcel: Parcel, *, delivered: bool) -> None:
        if parcel.durable:
            await self._journal(Settled(message_id=parcel.message_id, endpoint=self.name, delivered=delivered))
        parcel.released.set()


class Deliveries:
    """All endpoints' mailboxes."""

    def __init__(self, mailboxes: Iterable[Mailbox]) -> None:
        self.mailboxes = {mailbox.name: mailbox for mailbox in mailboxes}

    def start(self) -> None:
        """Begin to send."""
        for mailbox in self.mailboxes.values():
            mailbox.start()

    async def close(self) -> None:
        """Stop sending."""
        await asyncio.gather(*(mailbox.close() for mailbox in self.mailboxes.values()))

    async def send(self, incident: Incident, partition: int) -> list[asyncio.Event]:
        """One message to every endpoint that wants this change; each event as in `Mailbox.send`."""
        wanting = [each for each in self.mailboxes.values() if incident_event(incident) in each.wanted]
        if not wanting:
            return []
        body, message_id = incident_body(incident), webhook_id(incident.incident_id, incident.revision)
        return [await mailbox.send(message_id, body, partition) for mailbox in wanting]

    def resume(self, records: Iterable[HandedOver]) -> None:
        """Go on with what was handed over; an endpoint that is no longer configured is left as it is."""
        for record in records:
            if mailbox := self.mailboxes.get(record.endpoint):
                mailbox.resume(record)

    def forget(self, partitions: Iterable[int]) -> None:
        """These partitions went to another responder."""
        for mailbox in self.mailboxes.values():
            mailbox.forget(partitions)

    def check(self) -> None:
        """Raise what ended a sending task: without it nothing would be delivered any more."""
        for mailbox in self.mailboxes.values():
            if mailbox.failed:
                raise mailbox.failed


def jittered(delay_s: float) -> float:
    """Up to a tenth more or less, so that many messages don't come back at once."""
    return delay_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret
