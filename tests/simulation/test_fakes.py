"""What the simulation puts in place of Kafka and ClickHouse keeps the contracts that the real ones keep."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from pipeline.core import Sides
from pipeline.errors import Retry
from schemas.rows import TABLES
from tests.contracts import group_contract, ports_contract
from tests.pipeline.counting_core import open_core
from tests.row_examples import rows_of
from tests.simulation.broker import Broker
from tests.simulation.loads import COUNTING, Version, counting_load
from tests.simulation.loop import Clock
from tests.simulation.process import Process
from tests.simulation.schedule import Schedule, scheduled
from tests.simulation.tables import LAYOUTS, Tables


class Nobody:
    """No group."""

    def commit(self, *_: Any) -> bool:
        """Refused."""
        return False


def run(work: Callable[[Process], Coroutine[Any, Any, None]]) -> Process:
    """One simulated process does it; whatever it sends arrives."""
    broker = Broker(COUNTING, Clock(), 1)
    process = Process("w", broker, Nobody(), COUNTING, open_core, lambda: Sides(Version(0), None, "0"), keeps=True)
    process.spawn(work(process)).add_done_callback(lambda _: done.append(True))
    done: list[bool] = []
    while not done:
        process.step()
        while process.pending:
            op = process.sent_first()[0]
            process.pending.remove(op)
            op.happen()
            process.step()
    if process.ended is not None:
        raise process.ended
    process.die()
    return process


def test_the_simulated_publisher_holds_the_contract() -> None:
    run(lambda process: ports_contract.publisher_holds(process, COUNTING.topics.responses))


def test_the_simulated_page_log_holds_the_contract() -> None:
    async def work(process: Process) -> None:
        async def read() -> dict[bytes, bytes]:
            return dict(process.broker.pages[0])

        await ports_contract.page_log_holds(process, read)

    run(work)


class Group:
    """The schedule's coordinator, with real workers for members."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.taken = schedule, 0
        schedule.broker.commit = self._take  # type: ignore[method-assign]  # these are covered by no state

    def _take(self, offsets: Mapping[int, int]) -> None:
        self.taken = offsets.get(0) or self.taken  # nought is the workers' own: nothing is judged here

    async def join(self) -> Process:
        self.schedule.start(0, 0)
        return self._joined()[-1]

    async def leave(self, member: Process) -> None:
        self.schedule.crash(self.schedule.processes.index(member), 0)
        self._joined()

    async def generation(self) -> int:
        return self.schedule.generation

    async def commit(self, member: Process, generation: int, offset: int) -> bool:
        return self.schedule.commit(member, generation, {0: offset})

    async def committed(self) -> int:
        return self.taken

    def _joined(self) -> list[Process]:
        """All have let go, and then all have loaded."""
        members = self.schedule.members
        while not all(each.ready_for_rebalance and not each.loading for each in members):
            self._all_run()
        self.schedule.settle(0, 0)
        while any(each.loading for each in self.schedule.members):
            self._all_run()
        assert self.schedule.members == members, "nobody was thrown out"
        return members

    def _all_run(self) -> None:
        for number in range(len(self.schedule.processes)):
            self.schedule.run(number, 12)


def test_the_simulated_group_holds_the_contract() -> None:
    with scheduled(counting_load(random.Random(1))) as schedule:
        work = group_contract.group_holds(Group(schedule))
        with pytest.raises(StopIteration):  # it never waits: the workers' loops are run inside
            work.send(None)


def test_a_write_that_fails_after_it_was_applied_is_there_all_the_same() -> None:
    broker = Broker(COUNTING, Clock(), 1)
    process = Process("w", broker, Nobody(), COUNTING, open_core, lambda: Sides(Version(0), None, "0"), keeps=True)
    seen: list[str] = []

    async def work() -> None:
        try:
            await process.write("findings", rows_of("findings", 1))
        except Retry as error:
            seen.append(str(error))

    process.spawn(work())
    process.step()
    (op,) = process.pending
    op.happen(answered=False)
    op.fail()
    process.step()
    assert seen == ["simulated"]
    assert broker.tables.column("findings", "finding_id") == ["x"]
    process.die()


def test_every_table_has_a_key_and_a_version_as_the_migrations_say() -> None:
    assert TABLES.keys() <= LAYOUTS.keys()
    for table, (key, version) in LAYOUTS.items():
        names = [name for name, _ in TABLES.get(table, (("key_id", ""), ("version", "")))]
        assert set(key) <= set(names), table
        assert version in ("", *names), table


async def test_the_newest_version_stays_in_whatever_order_writes_come() -> None:
    tables = Tables()
    for version, requests in ((2, 20), (1, 10), (3, 30), (2, 20)):
        await tables.write("requests_1m", rows_of("requests_1m", 1, version=[version], requests=[requests]))
    assert tables.column("requests_1m", "requests") == [30]
