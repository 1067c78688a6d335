"""Delivering notices: a queue per endpoint (`mailbox.py`), and what an incident becomes before it is queued.

Before an incident is told it is looked up (`prepare`: its case, its key's owner, numbers), which may take a second; so
incidents of one key are prepared one after the other, those of different keys side by side, and nobody's act waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from pipeline.respond.delivery.mailbox import Mailbox
from pipeline.respond.delivery.notice import Notice, of_incident
from pipeline.respond.delivery.outbox import Outbox
from pipeline.respond.ledger.entries import HandedOver, Record, Settled
from pipeline.respond.night.records import EndpointSwitched, Resent
from schemas.incident import Incident

Prepare = Callable[[Incident, int], Awaitable[Notice]]
"""An incident and its partition to what is told of it."""


class Deliveries:
    """All endpoints' mailboxes. `owned`: partitions of incidents whose deliveries are ours."""

    def __init__(self, mailboxes: Iterable[Mailbox], prepare: Prepare | None = None) -> None:
        self.mailboxes = {mailbox.name: mailbox for mailbox in mailboxes}
        self.owned: set[int] = set()
        self.letting_go: list[Callable[[set[int]], None]] = []  # of those who tell through us
        self.checks: list[Callable[[], None]] = []  # of those who tell through us; each raises what ended it
        self._prepare = prepare
        self._lanes: dict[str, asyncio.Task[None]] = {}  # by key: the newest incident being prepared
        self._running: dict[asyncio.Task[None], int] = {}  # all of them, and what waits for mailboxes; its partition
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin to send."""
        for mailbox in self.mailboxes.values():
            mailbox.start()

    async def close(self) -> None:
        """Stop sending."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*(mailbox.close() for mailbox in self.mailboxes.values()))

    async def send(self, incident: Incident, partition: int) -> list[asyncio.Event]:
        """One message to every endpoint that wants this change; each event as in `Mailbox.send`."""
        if self._prepare is None:
            return await self.tell(of_incident(incident), partition)
        released = asyncio.Event()
        lane = self._in_lane(self._lanes.get(incident.key_id), incident, partition, released)
        task = self._run(lane, incident, partition)
        self._lanes[incident.key_id] = task
        return [released]

    def _run(self, work: Coroutine[None, None, None], incident: Incident, partition: int) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"notice {incident.incident_id}")
        self._running[task] = max(partition, 0)
        task.add_done_callback(lambda done: self._leave(incident.key_id, done))
        return task

    async def _in_lane(
        self, before: asyncio.Task[None] | None, incident: Incident, partition: int, released: asyncio.Event
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        assert self._prepare is not None  # `send` has looked
        events = await self.tell(await self._prepare(incident, partition), partition)
        self._run(_all(events, released), incident, partition)  # the lane is free: the mailboxes keep the order

    def _leave(self, name: str, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if self._lanes.get(name) is task:
            del self._lanes[name]
        if not task.cancelled() and (error := task.exception()):
            self._error = error

    async def tell(self, notice: Notice, partition: int, only: Iterable[str] = ()) -> list[asyncio.Event]:
        """A notice to every endpoint that wants its kind (of `only` these, where given)."""
        chosen = set(only)
        wanting = [
            mailbox
            for mailbox in self.mailboxes.values()
            if notice.event in mailbox.wanted and (not chosen or mailbox.name in chosen)
        ]
        return [await mailbox.take(notice, partition) for mailbox in wanting]

    def own(self, partitions: Iterable[int]) -> None:
        """These partitions are ours now."""
        self.owned |= set(partitions)

    def resume(self, records: Iterable[HandedOver]) -> None:
        """Go on with what was handed over; an endpoint that is no longer configured is left as it is."""
        for record in records:
            if mailbox := self.mailboxes.get(record.endpoint):
                mailbox.resume(record)

    def forget(self, partitions: Iterable[int]) -> None:
        """These partitions went to another responder: what is being looked up for their messages isn't told by us."""
        gone = set(partitions)
        self.owned -= gone
        for let_go in self.letting_go:
            let_go(gone)
        for task in [task for task, partition in self._running.items() if partition in gone]:
            task.cancel()
        for mailbox in self.mailboxes.values():
            mailbox.forget(gone)

    def remember(self, outbox: Outbox) -> None:
        """Which endpoints are disabled, at the start."""
        for name in outbox.disabled:
            if mailbox := self.mailboxes.get(name):
                mailbox.switch(disabled=True)

    def follow(self, outbox: Outbox, record: Record | None) -> None:
        """What others write to the decisions topic; `outbox` has applied it."""
        if isinstance(record, EndpointSwitched):
            if mailbox := self.mailboxes.get(record.endpoint):
                mailbox.switch(disabled=record.disabled)
        elif isinstance(record, Resent):
            again = outbox.pending.get((record.endpoint, record.message_id))
            if again and max(again.partition, 0) in self.owned:
                self.resume([again])
        elif isinstance(record, HandedOver) and max(record.partition, 0) in self.owned:
            pending = outbox.pending.get((record.endpoint, record.message_id))
            if pending and (mailbox := self.mailboxes.get(record.endpoint)):
                mailbox.heard(pending)
        elif isinstance(record, Settled) and (mailbox := self.mailboxes.get(record.endpoint)):
            mailbox.settled(record.message_id)

    def check(self) -> None:
        """Raise what ended a sending or preparing task: without it nothing would be delivered any more."""
        if self._error:
            raise self._error
        for check in self.checks:
            check()
        for mailbox in self.mailboxes.values():
            if mailbox.failed:
                raise mailbox.failed


async def _all(events: list[asyncio.Event], released: asyncio.Event) -> None:
    for event in events:
        await event.wait()
    released.set()
