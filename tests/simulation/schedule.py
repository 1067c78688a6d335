"""A schedule: what happens in which order to a group of simulated workers. Random, or drawn by hypothesis.

Every step is a name and two numbers, so that a schedule can be written down. `finish` heals everything and works the
log off to its end; `Oracle` is one clean pass over the same log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.runners import shell as shell_module
from pipeline.runners.parts import OpenCore
from tests.simulation.broker import Broker
from tests.simulation.process import Killed, Op, Process

MOST_PROCESSES: Final = 3
SESSION_S: Final = 10.0


@dataclass
class Load:
    """The requests of one schedule: (partition, key, value, timestamp), and what judges them."""

    config: Config
    partitions: int
    requests: list[tuple[int, bytes | None, bytes | None, int]]
    open_core: OpenCore
    sides_of: Callable[[int], Sides]  # by version of the catalogue


@dataclass
class Schedule:
    """See the module. Implements `Group`."""

    load: Load
    broker: Broker
    processes: list[Process] = field(default_factory=list)
    members: list[Process] = field(default_factory=list)
    generation: int = 0
    rebalancing: bool = False
    late: list[Op] = field(default_factory=list)  # of dead processes, on their way
    produced: int = 0
    started: int = 0
    steps: list[tuple[str, int, int]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    # --- the coordinator

    def commit(self, process: Process, generation: int, offsets: Mapping[int, int]) -> bool:
        """As Kafka's coordinator: only from a member of this generation."""
        if process not in self.members or generation != self.generation:
            return False
        self.broker.commit(offsets)
        return True

    def _begin_rebalance(self) -> None:
        if not self.rebalancing:
            self.rebalancing = True
            for process in self.members:
                process.let_go()
                process.step()

    def _end_rebalance(self, turn: int) -> None:
        """Who has not let go by now is out, and does not know it."""
        self.rebalancing = False
        self.generation += 1
        self.members = [p for p in self.members if p.ready_for_rebalance and not p.loading and not p.frozen]
        for process in self.members:
            mine = [n for n in range(self.load.partitions) if self._owner(n, turn) is process]
            process.assign(self.generation, tuple(mine))
            process.step()

    def _owner(self, partition: int, turn: int) -> Process:
        return self.members[(partition + turn) % len(self.members)]

    # --- what can happen

    def do(self, name: str, a: int, b: int) -> None:
        """One step; where it makes no sense now nothing happens."""
        self.steps.append((name, a, b))
        getattr(self, name)(a, b)
        self._bury()

    def _living(self) -> list[Process]:
        return [process for process in self.processes if process.ended is None]

    def _some(self, a: int, frozen: bool = False) -> Process | None:
        living = [process for process in self._living() if process.frozen == frozen]
        return living[a % len(living)] if living else None

    def produce(self, a: int, b: int) -> None:
        """The next requests come in."""
        for partition, key, value, timestamp_ms in self.load.requests[self.produced : self.produced + a]:
            self.broker.produce(partition, key, value, timestamp_ms)
        self.produced = min(self.produced + a, len(self.load.requests))

    def start(self, a: int, b: int) -> None:
        """A worker starts and joins, be it the only one."""
        if len(self._living()) >= MOST_PROCESSES:
            return
        self.started += 1
        process = Process(
            f"w{self.started}", self.broker, self, self.load.config, self.load.open_core,
            lambda: self.load.sides_of(self.broker.catalogue), keeps=a % 2 == 0,
        )  # fmt: skip
        self.processes.append(process)
        self.members.append(process)
        process.step()
        self._begin_rebalance()

    def settle(self, a: int, b: int) -> None:
        """The rebalance ends, whoever is ready."""
        if self.rebalancing and any(p.ready_for_rebalance and not p.loading and not p.frozen for p in self.members):
            self._end_rebalance(a)

    def run(self, a: int, b: int) -> None:
        """Up to `b` things of one worker happen, any order between lanes."""
        process = self._some(a)
        for turn in range(b):
            if process is None or not process.pending or process.ended is not None:
                return
            first = process.sent_first()
            self._happen(process, first[(a + turn) % len(first)])

    def _happen(self, process: Process, op: Op, answered: bool = True) -> None:
        process.pending.remove(op)
        op.happen(answered)
        process.step()

    def fail(self, a: int, b: int) -> None:
        """Something fails: after it happened, or before."""
        process = self._some(a)
        first = [op for op in process.sent_first() if op.failure is not None] if process else []
        if process is None or not first:
            return
        op = first[b % len(first)]
        process.pending.remove(op)
        process.injected |= op.lane[0] == "pages"
        if a % 2:
            op.happen(answered=False)
        op.fail()
        self._count("failed after" if a % 2 else "failed before")
        process.step()

    def fetch(self, a: int, b: int) -> None:
        """One worker gets a slice; now and then it is lost on the way, or comes twice."""
        process = self._some(a)
        numbers = process.can_fetch() if process else []
        if process is not None and numbers:
            lost, twice = b % 11 == 10, b % 11 == 9
            process.fetch(numbers[b % len(numbers)], 1 + b % 37, lost, twice)
            self._count("lost" if lost else "twice" if twice else "slices")
            process.step()

    def passes(self, a: int, b: int) -> None:
        """Time passes, in tenths of a second."""
        self.broker.clock.now_s += b / 10
        for process in self._living():
            process.step()

    def crash(self, a: int, b: int) -> None:
        """kill -9 of one worker; what it has sent may still arrive, all or a part, now or later."""
        process = self._some(a)
        if process is None:
            return
        self.late += process.die()[: b % 8]
        self._count("crashed")
        self._leave(process)

    def arrives(self, a: int, b: int) -> None:
        """Something that a dead worker sent arrives."""
        if self.late:
            self.late.pop(0).apply()
            self._count("arrived late")

    def freeze(self, a: int, b: int) -> None:
        """SIGSTOP, past the session: the group goes on without it."""
        process = self._some(a)
        if process is None or len(self._living()) < 2 or self._some(0, frozen=True):
            return
        process.frozen = True
        self.broker.clock.now_s += SESSION_S + 1
        self._count("frozen")
        self._leave(process)
        self.passes(0, 0)

    def thaw(self, a: int, b: int) -> None:
        """SIGCONT. It does what was due; the coordinator tells it only later (`told`)."""
        process = self._some(a, frozen=True)
        if process is not None:
            process.frozen = False
            process.step()

    def told(self, a: int, b: int) -> None:
        """A zombie hears that it was thrown out: lets go of what it had, and joins again."""
        zombies = [p for p in self._living() if p not in self.members and not p.frozen and not p.loading]
        if not zombies:
            return
        process = zombies[a % len(zombies)]
        if process.ready_for_rebalance:
            process.let_go()
            process.step()
        self._count("zombies")
        self.members.append(process)
        self._begin_rebalance()

    def declare(self, a: int, b: int) -> None:
        """The catalogue changes."""
        self.broker.catalogue += 1
        self._count("catalogues")

    def take_back(self, a: int, b: int) -> None:
        """The catalogue is as it was before its last change."""
        if self.broker.catalogue:
            self.broker.catalogue -= 1
            self._count("taken back")

    def stop(self, a: int, b: int) -> None:
        """SIGTERM to one worker."""
        process = self._some(a)
        if process is not None and not process.shell.stopping:
            process.stop()
            process.step()
            self._count("stopped")

    # --- what follows from it

    def _leave(self, process: Process) -> None:
        if process in self.members:
            self.members.remove(process)
            if self.members:
                self._begin_rebalance()
            else:
                self.rebalancing = False

    def _bury(self) -> None:
        """Workers that have ended leave the group; only what was simulated may have ended them."""
        for process in [p for p in self.processes if p.ended is not None]:
            error = process.ended
            if not isinstance(error, Killed) and not process.injected and not self._may_end(process):
                raise AssertionError(f"{process.name} ended: {error!r}") from error
            self.processes.remove(process)
            if not process.loop.is_closed():
                self.late += process.die()[:4]
            self._leave(process)

    def _may_end(self, process: Process) -> bool:
        """A zombie may end itself: it is not the partitions' owner."""
        return process not in self.members or process.generation != self.generation

    def _count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1

    # --- the end

    def finish(self) -> None:
        """All requests come in; all workers die but a new one, which works the log off, and stops cleanly."""
        self.produce(len(self.load.requests), 0)
        for process in self._living():
            self.late += process.die()[:2]
            self.members = [p for p in self.members if p is not process]
            self.processes.remove(process)
        self.rebalancing = False
        while self.late:
            self.arrives(0, 0)
        self.start(0, 0)
        last = self.processes[-1]
        self._flow(last, lambda: self._settled(last), fetch=False)
        self._flow(last, lambda: last.idle() and self._judged(last), fetch=True)
        last.stop()
        self._flow(last, lambda: last.ended is not None, fetch=False)
        self._bury()

    def _settled(self, last: Process) -> bool:
        if self.rebalancing and last.ready_for_rebalance:
            self._end_rebalance(0)
        return bool(last.assigned) and not last.loading

    def _judged(self, last: Process) -> bool:
        return all(owned.expected == len(self.broker.requests[n]) for n, owned in last.shell.owned.items())

    def _flow(self, last: Process, done: Callable[[], bool], fetch: bool) -> None:
        for _ in range(5_000):
            if done():
                return
            last.step()
            while last.pending and last.ended is None:
                self._happen(last, last.pending[0])
            for number in last.can_fetch() if fetch else ():
                last.fetch(number, 50)
            self.broker.clock.now_s += 0.05
            if last.ended is not None and not isinstance(last.ended, Killed):
                raise AssertionError(f"the last worker ended: {last.ended!r}") from last.ended
        raise AssertionError("the last worker does not come to an end")


@contextmanager
def scheduled(load: Load) -> Iterator[Schedule]:
    """A schedule in a world of its own; the shell's clock is the simulation's meanwhile."""
    from tests.simulation.loop import Clock

    clock = Clock()
    schedule = Schedule(load, Broker(load.config, clock, load.partitions))
    stand_in: Any = clock
    with mock.patch.object(shell_module, "time", stand_in):
        try:
            yield schedule
        finally:
            for process in schedule.processes:
                if not process.loop.is_closed():
                    process.die()
