"""One worker in the simulation: the real Shell, Emitter, RowBuffer, Checkpoint and its timers; only Kafka is faked.

Everything that leaves the process waits at a gate (`Op`) until the schedule lets it happen, fails it before or after
it happened, or the process dies; then it may still happen later, as a packet that was already sent. In one lane
(topic and partition) things happen in the order in which they were sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.errors import Fatal, Retry
from pipeline.health import Health
from pipeline.ports import Columns, Headers, Outgoing
from pipeline.records import of_records
from pipeline.runners.lanes import Lanes, Told, fitting, joined
from pipeline.runners.owned import Fetched
from pipeline.runners.parts import OpenCore, Parts
from pipeline.runners.shell import Shell
from pipeline.runners.slices import Positions
from pipeline.runners.start import Edges, Ready
from schemas.incident import Incident
from tests.simulation.broker import Broker
from tests.simulation.loop import Inline, StepLoop

TOPIC_EPOCH: Final = "epoch"
LANES_FULL: Final = 2
"""One slice is being handled, one waits."""


class Killed(Exception):
    """The process is gone; nothing of it has an effect any more."""


@dataclass(eq=False)
class Op:
    """Something on its way out of a process."""

    lane: tuple[str, int | str]
    apply: Callable[[], Any]
    done: asyncio.Future[Any]
    failure: type[Exception] | None  # what the caller sees if it fails; None: it never does

    def happen(self, answered: bool = True) -> None:
        """It takes place; `answered`: the process hears of it."""
        result = self.apply()
        if answered and not self.done.done():
            self.done.set_result(result)

    def fail(self) -> None:
        """The process hears that it failed."""
        assert self.failure is not None
        if not self.done.done():
            self.done.set_exception(self.failure("simulated"))


class Group(Protocol):
    """What a process asks of its group."""

    def commit(self, process: Process, generation: int, offsets: Mapping[int, int]) -> bool:
        """False: not a member in this generation."""


@dataclass(eq=False)
class Process:
    """See the module. `keeps`: arrays are kept over a rebalance (as with Faust) or always loaded anew (plain)."""

    name: str
    broker: Broker
    group: Group
    config: Config
    open_core: OpenCore
    read_sides: Callable[[], Sides]
    keeps: bool
    generation: int = 0
    frozen: bool = False
    ended: BaseException | None = None
    clean: bool | None = None  # once stopped: all that was judged is in a checkpoint
    injected: bool = False  # a failure that must end it was simulated
    pending: list[Op] = field(default_factory=list)
    ready_for_rebalance: bool = True
    loading: bool = False
    joining: bool = False  # partitions were let go: until the next ones are known nothing is committed, as with Faust
    assigned: tuple[int, ...] = ()
    position: dict[int, int] = field(default_factory=dict)
    in_flight: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop = StepLoop(self.broker.clock)
        self.positions = Positions()
        parts = Parts(self.open_core, lambda config: self, self._sides, lambda: None)
        ready = Ready(
            self.config, parts, self, self._edges, self, self.read_sides(), TOPIC_EPOCH, self.broker.partitions,
            Health(self.broker.clock.monotonic), published=self._published,
        )  # fmt: skip
        self.shell = Shell(ready, lambda: self.generation, self._still_ours)
        self.shell.core_thread = self.shell.page_thread = Inline()  # type: ignore[assignment]
        self.lanes: Lanes[Told] = Lanes(self._slice, fitting(self.config), self._joined)
        self._load_task: asyncio.Task[None] | None = None
        for work in (
            self.shell.rows.run(), self.shell.keep_checkpointing(), self.shell.keep_adopting(),
            self.shell.keep_ticking(), self._keep_committing(),
        ):  # fmt: skip
            self.spawn(work)

    # --- time and death

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        """A task; what escapes from it ends the process, as `guarded` does."""
        task = self.loop.create_task(self._guarded(work))
        task.add_done_callback(lambda _: work.close())  # killed before its first step it would never be awaited
        return task

    async def _guarded(self, work: Awaitable[Any]) -> None:
        try:
            await work
        except Killed:
            return
        except Exception as error:  # noqa: BLE001  looked at by the schedule
            self.ended = self.ended or error

    def step(self) -> None:
        """Run what can run."""
        if not self.frozen and self.ended is None:
            self.loop.step()

    def die(self) -> list[Op]:
        """kill -9; returns what is on its way."""
        self.ended = self.ended or Killed()
        sent, self.pending = self.pending, []
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.step()
        self.loop.close()
        return sent

    def sent_first(self) -> list[Op]:
        """What may happen next: the first of each lane."""
        lanes: dict[tuple[str, int | str], Op] = {}
        for op in self.pending:
            lanes.setdefault(op.lane, op)
        return list(lanes.values())

    async def _gate(
        self, lane: tuple[str, int | str], apply: Callable[[], Any], failure: type[Exception] | None = None
    ) -> Any:
        if self.ended is not None:
            raise Killed
        op = Op(lane, apply, self.loop.create_future(), failure)
        self.pending.append(op)
        return await op.done

    # --- the ports

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        """Publisher."""
        lane = (topic, key.decode() if partition is None else partition)
        offset: int = await self._gate(
            lane, lambda: self.broker.publish(topic, key, value, headers, partition), failure=Retry
        )
        return offset

    async def publish_all(self, topic: str, records: Sequence[Outgoing]) -> None:
        """BulkPublisher: one key's in order, keys side by side."""
        by_key: dict[bytes, list[Outgoing]] = {}
        for record in records:
            by_key.setdefault(record[0], []).append(record)
        done = await asyncio.gather(*[self._in_order(topic, each) for each in by_key.values()], return_exceptions=True)
        for failure in filter(None, done):
            raise failure

    async def _in_order(self, topic: str, records: Sequence[Outgoing]) -> None:
        for record in records:
            await self.publish(topic, *record)

    async def send(self, partition: int, key: bytes, value: bytes | None) -> int:
        """PageLog."""
        offset: int = await self._gate(
            ("pages", partition), lambda: self.broker.send(partition, key, value), failure=Fatal
        )
        return offset

    async def send_all(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> int:
        """PageLog; one after the other in their lane."""
        offsets = await asyncio.gather(*[self.send(partition, key, value) for key, value in records])
        return offsets[-1] if offsets else -1

    async def write(self, table: str, rows: Columns) -> None:
        """RowSink; the rows are taken as they are now, since the caller may go on using its lists."""
        copy = {name: list(values) for name, values in rows.items()}
        await self._gate(("rows", table), lambda: self.broker.tables.apply(table, copy), failure=Retry)

    async def close(self) -> None:
        """RowSink."""

    async def _sides(self, config: Config) -> Sides:
        return self.read_sides()

    async def _published(self) -> list[Incident]:
        newest: list[Incident] = await self._gate(("read", -2), self.broker.newest_incidents)
        return newest

    async def _edges(self, partitions: list[int]) -> Edges:
        edges: Edges = await self._gate(("edges", 0), lambda: self.broker.edges(partitions))
        return edges

    # --- the group, as the runners do it

    def let_go(self) -> None:
        """A rebalance begins."""
        self.ready_for_rebalance = False
        self.spawn(self._let_go())

    async def _let_go(self) -> None:
        if self._load_task is not None:  # the runners' clients call one after the other
            await asyncio.wait([self._load_task])
        if self.assigned and self.shell.owned and not self.shell.stopping:
            self.shell.unsettle()
            await self.save()
        if not self.keeps:
            self.generation = -1
            for number in list(self.shell.owned):
                self.shell.drop(number)
        self.ready_for_rebalance = self.joining = True

    async def save(self) -> bool:
        """Checkpoint and commit what we own, within half the session or not at all; whether all that was judged is."""
        try:
            async with asyncio.timeout(self.config.kafka.session_timeout_s / 2):
                await self.shell.checkpoint_all()
                await self.commit()
        except TimeoutError:
            return False
        return self.shell.saved("simulated", 0.0)

    def assign(self, generation: int, partitions: tuple[int, ...]) -> None:
        """The rebalance is over."""
        self.generation, self.assigned, self.loading = generation, partitions, True
        for number in partitions:  # decided once, as FaustWorker._assigned does
            if not self.keeps or not self.shell.kept(number):
                self.shell.drop(number)
        self._load_task = self.spawn(self._load())

    async def _load(self) -> None:
        committed = dict(await self._gate(("read", -1), lambda: self.broker.committed))
        self.joining = False
        if await self.shell.take(self.assigned, self._read_pages, committed):
            for number in self.assigned:
                self.seek(number, self.shell.owned[number].expected)
            self.loading = False

    async def _read_pages(self, numbers: list[int]) -> AsyncGenerator[tuple[int, dict[bytes, bytes]], None]:
        for number in numbers:
            read = partial(self.broker.pages.__getitem__, number)
            yield number, dict(await self._gate(("read", number), read))

    def seek(self, partition: int, offset: int) -> None:
        """Set the position."""
        self.positions.broken(partition, offset)
        self.position[partition] = offset

    async def _still_ours(self, partition: int, offset: int) -> bool:
        generation = self.generation
        if self.joining:
            return False
        taken: bool = await self._gate(("commit", 0), lambda: self.group.commit(self, generation, {partition: offset}))
        return taken

    async def commit(self) -> None:
        """Commit what is covered."""
        covers = {number: self.shell.cover(number) for number in list(self.shell.owned)}
        offsets = {number: offset for number, offset in covers.items() if offset is not None}
        if offsets and not self.joining:
            generation = self.generation
            await self._gate(("commit", 0), lambda: self.group.commit(self, generation, offsets))

    async def _keep_committing(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self.commit()

    # --- slices

    def can_fetch(self) -> list[int]:
        """Partitions whose next records may be fetched now."""
        if self.loading or self.frozen or self.shell.stopping:
            return []
        return [n for n in self.assigned if n in self.shell.owned and self.in_flight.get(n, 0) < LANES_FULL]

    def fetch(self, partition: int, most: int, lost: bool = False, twice: bool = False) -> None:
        """A slice from the position on; `lost` on its way through Faust, or handed in `twice`."""
        start = self.position[partition]
        records = self.broker.requests[partition][start : start + most]
        self.shell.polled({partition: len(self.broker.requests[partition])})
        if not records:
            self._nudge(partition)
            return
        self.position[partition] = records[-1].offset + 1
        known, breaks = self.positions.delivered(partition, self.position[partition])
        after = records[0].offset if known is None else known
        whole = of_records(records).part(self.config.topics.requests, partition, 0, len(records))
        fetched = Fetched(whole, after, breaks)
        for _ in range(0 if lost else 2 if twice else 1):
            self.in_flight[partition] = self.in_flight.get(partition, 0) + 1
            self.spawn(self.lanes.put(partition, (self.generation, fetched)))

    def _nudge(self, partition: int) -> None:
        """At the log's end and the state is not: what the runners' `keep_nudging` finds."""
        owned = self.shell.owned[partition]
        if not self.in_flight.get(partition, 0) and owned.expected < len(self.broker.requests[partition]):
            self.seek(partition, owned.expected)

    def _joined(self, items: Sequence[Told]) -> Told:
        self.in_flight[items[0][1].records.partition] -= len(items) - 1
        return joined(items)

    async def _slice(self, item: Told) -> None:
        generation, fetched = item
        partition = fetched.records.partition
        await self._guarded(self._handle(generation, fetched))
        self.in_flight[partition] -= 1

    async def _handle(self, generation: int, fetched: Fetched) -> None:
        partition = fetched.records.partition
        if generation != self.generation or (not self.keeps and partition not in self.shell.owned):
            return
        fresh = fetched.breaks == self.positions.breaks(partition)
        seek = await self.shell.handle(fetched, fresh)
        if seek is not None:
            self.seek(partition, seek)

    # --- a clean stop

    def stop(self) -> asyncio.Task[None]:
        """SIGTERM: drain, checkpoint, commit."""
        return self.spawn(self._stop())

    async def _stop(self) -> None:
        await self.shell.drain()
        self.shell.stopping = True
        self.clean = await self.save()
        self.ended = Killed()

    def idle(self, tables: Iterable[str] = ()) -> bool:
        """Nothing is on its way and nothing is being handled."""
        return not self.pending and not any(self.in_flight.values())
