"""One endpoint's queue and the task that empties it: a slow or dead endpoint stalls no other.

Schedule after a failure: 5 s, 5 min, 30 min, 2, 5, 10, 14, 20, 24 h with jitter (Standard Webhooks, operational
guidance), then it is a dead letter. `Retry-After`, and failures in a row, let the whole endpoint rest. A message that
failed once, or that finds its endpoint resting or its queue long, is handed over durably (`outbox.py`) and its
incident is released: nothing waits for an endpoint longer than one attempt.

Order: messages of one incident (or case) go out in their order, so a revision waits while an older one is retried;
different ones overtake each other. Receivers drop repeats by the message's id: over HTTP nobody can promise that an
answer which was lost was not a yes.

When partitions move, what is under way here may end here or with the next owner, who follows the same topic: a parcel
that went away is neither handed over nor tried again; what its former owner handed over too late is taken on, or
settled at once where this one has delivered it; what another one settled is dropped. Only an attempt that was cut off
by the move itself, or whose success the topic did not yet tell of, may be made twice, under one message id.

410, or no success at all for a whole schedule, disables the endpoint: what waits for it and what comes becomes dead
letters. That stands on the decisions topic, so it survives restarts, is told by other channels (`night.py`), and ends
with `keywatch respond enable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from pipeline.metrics import METRICS
from pipeline.respond.delivery.caller import GONE, Answer
from pipeline.respond.delivery.channel import Channel
from pipeline.respond.delivery.notice import Notice
from pipeline.respond.ledger.entries import HandedOver, Settled
from pipeline.respond.night.records import EndpointSwitched
from pipeline.respond.render import RENDERINGS
from pipeline.tasks import cancel_and_wait

log = logging.getLogger(__name__)

HOUR_S: Final = 3600.0
SCHEDULE_S: Final = (
    0.0, 5.0, 300.0, 1800.0, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 14 * HOUR_S, 20 * HOUR_S, 24 * HOUR_S,
)  # fmt: skip
JITTER: Final = 0.1
MAX_WAITING: Final = 100  # in memory only; further ones are handed over at once
MAX_PENDING: Final = 10_000  # of one endpoint, 200 MB at most; further ones are given up
MAX_REST_S: Final = 300.0
MAX_DELIVERED: Final = 10_000  # message ids that are remembered, so that what is read again isn't sent again

Journal = Callable[[HandedOver | Settled | EndpointSwitched], Awaitable[object]]
"""Writes one record to the decisions topic and returns once it is acknowledged."""


@dataclass(order=True, slots=True)
class Parcel:
    """One message to one endpoint. `attempts` made so far; `released` is set once its incident need not wait."""

    due_s: float
    number: int
    message_id: str = field(compare=False)
    body: bytes = field(compare=False)
    partition: int = field(compare=False)
    thread: str = field(compare=False)
    attempts: int = field(default=0, compare=False)
    durable: bool = field(default=False, compare=False)
    gone: bool = field(default=False, compare=False)  # another responder owns it now
    released: asyncio.Event = field(default_factory=asyncio.Event, compare=False)


class Mailbox:
    """One endpoint's queue and the task that empties it."""

    def __init__(
        self, channel: Channel, journal: Journal, now_s: Callable[[], float], schedule_s: tuple[float, ...] = SCHEDULE_S
    ) -> None:
        self.name = channel.endpoint.name
        self.wanted = channel.endpoint.wanted
        self.disabled = False
        self._render = RENDERINGS[channel.endpoint.kind].body
        self._channel, self._journal, self._now_s, self._schedule_s = channel, journal, now_s, schedule_s
        self._parcels: dict[str, Parcel] = {}  # all of them, by message id
        self._lines: dict[str, deque[Parcel]] = {}  # by thread, in order; only the first of each is in the queue
        self._queue: list[Parcel] = []
        self._sending: Parcel | None = None  # taken out of the queue
        self._delivered: dict[str, None] = {}  # by us, the newest last
        self._writing: set[str] = set()  # message ids that we write records of just now
        self._numbers = itertools.count()
        self._rest_until_s = 0.0
        self._failures = 0  # in a row
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name=f"endpoint {self.name}")

    async def close(self) -> None:
        """Stop; what was not handed over belongs to incidents that are not committed."""
        await cancel_and_wait(self._task)

    @property
    def failed(self) -> BaseException | None:
        """What ended the sending task, if anything did."""
        task = self._task
        return task.exception() if task and task.done() and not task.cancelled() else None

    async def take(self, notice: Notice, partition: int) -> asyncio.Event:
        """Take one notice; the event is set once it is delivered, given up or handed over.

        One that was handed over before a crash may come again, with its incident: it is on its way already. So may one
        that was delivered, where its incident could not be committed before the partitions moved.
        """
        if known := self._parcels.get(notice.message_id):
            return known.released
        parcel = Parcel(
            self._now_s(), next(self._numbers), notice.message_id, self._render(notice), partition, notice.subject
        )
        if notice.message_id in self._delivered:
            parcel.released.set()
            return parcel.released
        if self.disabled or len(self._parcels) >= MAX_PENDING:
            await self._give_up(parcel, "the endpoint is disabled" if self.disabled else "its queue is full")
            return parcel.released
        if self._must_wait(parcel):
            parcel.due_s = max(self._rest_until_s, parcel.due_s)
            self._enter(parcel)  # before the await: what comes meanwhile stands behind it
            await self._hand_over(parcel)
        else:
            self._enter(parcel)
        return parcel.released

    def _must_wait(self, parcel: Parcel) -> bool:
        ahead = self._lines.get(parcel.thread)
        waiting = len(self._parcels) - (self._sending is not None)
        return self._now_s() < self._rest_until_s or waiting >= MAX_WAITING or bool(ahead and ahead[0].durable)

    def resume(self, record: HandedOver) -> None:
        """Go on with one that was handed over, by us or by another responder."""
        if record.message_id in self._parcels:
            return
        parcel = Parcel(
            record.next_at_us / 1e6, next(self._numbers), record.message_id, record.body.encode(), record.partition,
            record.thread or record.message_id, record.attempts, durable=True,
        )  # fmt: skip
        parcel.released.set()
        self._enter(parcel)

    def heard(self, record: HandedOver) -> None:
        """The topic says that this was handed over; if another responder wrote that, as it lost the partition: go on.

        What we are about to deliver ourselves is settled then, or it would be sent again after the next restart.
        """
        if record.message_id in self._writing:
            return
        if known := self._parcels.get(record.message_id):
            known.durable = True
            known.released.set()
        else:
            self.resume(record)

    def settled(self, message_id: str) -> None:
        """The topic says that this is delivered or given up; if another responder did that, it isn't sent again."""
        parcel = self._parcels.get(message_id)
        if message_id in self._writing or parcel is None or parcel is self._sending:
            return
        parcel.gone = True
        parcel.released.set()
        self._queue = [each for each in self._queue if each is not parcel]
        heapq.heapify(self._queue)
        self._leave(parcel)

    def forget(self, partitions: Iterable[int]) -> None:
        """Another responder owns these now."""
        gone = set(partitions)
        for parcel in [each for each in self._parcels.values() if max(each.partition, 0) in gone]:
            parcel.gone = True
            del self._parcels[parcel.message_id]
            self._lines.pop(parcel.thread, None)  # a thread is of one partition
        self._queue = [parcel for parcel in self._queue if not parcel.gone]
        heapq.heapify(self._queue)
        self._show()

    def switch(self, *, disabled: bool) -> None:
        """Take messages again, or none."""
        self.disabled = disabled
        self._failures, self._rest_until_s = 0, 0.0
        METRICS.webhook_disabled.labels(self.name).set(disabled)
        self._changed.set()

    def _enter(self, parcel: Parcel) -> None:
        self._parcels[parcel.message_id] = parcel
        line = self._lines.setdefault(parcel.thread, deque())
        line.append(parcel)
        if line[0] is parcel:
            self._push(parcel)
        self._show()

    def _leave(self, parcel: Parcel) -> None:
        if self._parcels.get(parcel.message_id) is parcel:  # not its successor, if the partition came back
            del self._parcels[parcel.message_id]
        line = self._lines.get(parcel.thread, deque())
        first = bool(line) and line[0] is parcel
        with contextlib.suppress(ValueError):
            line.remove(parcel)
        if first and line:
            self._push(line[0])
        elif first:
            del self._lines[parcel.thread]
        self._show()

    def _push(self, parcel: Parcel) -> None:
        heapq.heappush(self._queue, parcel)
        self._changed.set()

    def _show(self) -> None:
        METRICS.webhook_pending.labels(self.name).set(len(self._parcels))

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
            if parcel.message_id in self._delivered:  # by us, before another one's word of it came
                await self._finish(parcel, delivered=True)
            elif self.disabled:  # by another responder
                await self._give_up(parcel, "the endpoint is disabled")
            else:
                await self._settle(parcel, await self._channel.post(parcel.message_id, parcel.body))
            self._sending = None

    def _wait_s(self) -> float:
        if not self._queue:
            return HOUR_S
        return max(self._queue[0].due_s, self._rest_until_s) - self._now_s()

    async def _settle(self, parcel: Parcel, answer: Answer) -> None:
        parcel.attempts += 1
        if parcel.gone and not answer.ok:
            return  # its new owner tries again
        if answer.ok:
            self._failures = 0
            await self._finish(parcel, delivered=True)
        elif answer.status == GONE:
            await self._disable(parcel, "it answered 410 Gone")
        elif parcel.attempts < len(self._schedule_s):
            await self._retry_later(parcel, answer)
        elif self._failures + 1 >= len(self._schedule_s):
            await self._disable(parcel, f"nothing was delivered in {self._failures + 1} attempts: {answer.words}")
        else:
            await self._give_up(parcel, f"{parcel.attempts} attempts, the last one {answer.words}")

    async def _retry_later(self, parcel: Parcel, answer: Answer) -> None:
        self._failures += 1
        first = self._schedule_s[1] if len(self._schedule_s) > 1 else 0.0
        rest_s = max(answer.retry_after_s, min(first * 2 ** min(self._failures - 1, 10), MAX_REST_S))
        now = self._now_s()
        self._rest_until_s = now + rest_s
        parcel.due_s = now + max(jittered(self._schedule_s[parcel.attempts]), answer.retry_after_s)
        log.warning("%s: %s %s, again in %.0f s", self.name, parcel.message_id, answer.words, parcel.due_s - now)
        await self._hand_over(parcel)
        for behind in list(self._parcels.values()):
            if not (behind.durable or behind.gone):  # asked anew after each write: partitions may move meanwhile
                await self._hand_over(behind)  # their incidents must not wait for this endpoint's rest, or the schedule
        if not parcel.gone:
            self._push(parcel)

    async def _hand_over(self, parcel: Parcel) -> None:
        body = "" if parcel.durable else parcel.body.decode()
        await self._write(HandedOver(
            message_id=parcel.message_id, endpoint=self.name, partition=parcel.partition, attempts=parcel.attempts,
            next_at_us=int(parcel.due_s * 1e6), body=body, thread=parcel.thread,
        ))  # fmt: skip
        parcel.durable = True
        parcel.released.set()

    async def _write(self, record: HandedOver | Settled) -> None:
        self._writing.add(record.message_id)
        try:
            await self._journal(record)
        finally:
            self._writing.discard(record.message_id)

    async def _disable(self, parcel: Parcel, why: str) -> None:
        self.switch(disabled=True)
        log.error("%s is disabled until `keywatch respond enable %s`: %s", self.name, self.name, why)
        await self._journal(EndpointSwitched(endpoint=self.name, disabled=True, by="keywatch", why=why))
        waiting = [parcel, *(each for each in self._parcels.values() if each is not parcel)]
        self._queue, self._lines = [], {}
        for each in [each for each in waiting if not each.gone]:
            await self._give_up(each, "the endpoint is disabled")

    async def _give_up(self, parcel: Parcel, why: str) -> None:
        METRICS.webhook_deliveries.labels(self.name, "given_up").inc()
        log.error("%s: %s is given up: %s", self.name, parcel.message_id, why)
        if not parcel.durable:
            await self._hand_over(parcel)  # its body, to be sent again
        await self._finish(parcel, delivered=False, why=why)

    async def _finish(self, parcel: Parcel, *, delivered: bool, why: str = "") -> None:
        if delivered:
            self._remember(parcel.message_id)
        if parcel.durable:
            await self._write(Settled(message_id=parcel.message_id, endpoint=self.name, delivered=delivered, why=why))
        parcel.released.set()
        self._leave(parcel)

    def _remember(self, message_id: str) -> None:
        self._delivered[message_id] = None
        if len(self._delivered) > MAX_DELIVERED:
            del self._delivered[next(iter(self._delivered))]


def jittered(delay_s: float) -> float:
    """Up to a tenth more or less, so that many messages don't come back at once."""
    return delay_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret
