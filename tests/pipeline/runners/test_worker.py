"""What the Faust worker does between two assignments, without a broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.health import Health
from pipeline.runners.parts import Parts
from pipeline.runners.slices import FetchThread
from pipeline.runners.start import Ready
from pipeline.runners.worker import FaustWorker
from tests.pipeline.counting_core import SIDES, open_core


class Consumer:
    """Faust's consumer as far as a rebalance needs it."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.assigned: set[TP] = set()

    async def commit(self) -> bool:
        self.done.append("commit")
        return True

    def joining(self, joining: bool) -> None:
        self.done.append(joining)

    def assignment(self) -> set[TP]:
        return self.assigned


class Nothing:
    """Stands where nothing is sent or written."""

    async def close(self) -> None:
        """Nothing to release."""


async def _edges(partitions: list[int]) -> tuple[dict[int, int], dict[int, int]]:
    return {}, {}


async def _sides(config: Config) -> Sides:
    return SIDES


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> FaustWorker:
    nothing: Any = Nothing()
    parts = Parts(open_core, lambda config: nothing, _sides, lambda: None)
    made = FaustWorker(Ready(Config(), parts, nothing, _edges, nothing, SIDES, "epoch", 2, Health()))
    made.app.consumer = Consumer()

    async def committed(*_: Any) -> dict[int, int | None]:
        return {}

    monkeypatch.setattr("pipeline.runners.worker.committed_offsets", committed)
    return made


def arrays(unsaved: bool = False) -> Any:
    """A partition's arrays whose checkpoint has nothing to write, or (`unsaved`) may not be taken."""

    async def checkpoint(*_: Any) -> None:
        return None

    emitter = SimpleNamespace(sound=True, writer=SimpleNamespace(bytes_written=0), checkpoint=checkpoint)
    return SimpleNamespace(emitter=emitter, generation=0, lock=None, unsaved=unsaved)


async def test_nothing_is_committed_between_the_last_checkpoint_and_the_next_assignment(worker: FaustWorker) -> None:
    worker.shell.owned[0] = arrays()
    await worker._on_revoked(worker.app, [TP("api.requests", 0)])
    await worker._load_assigned()
    assert worker.app.consumer.done == ["commit", True, False]


async def test_a_stop_that_leaves_something_out_of_the_checkpoint_is_no_clean_one(worker: FaustWorker) -> None:
    """The group took no commit, so no checkpoint was taken; it used to say that there was one."""
    worker.shell.owned[0] = arrays()
    assert await worker._save(5.0, "stop")
    worker.shell.owned[1] = arrays(unsaved=True)
    assert not await worker._save(5.0, "stop")


async def test_a_thread_that_joins_the_group_sends_no_commit() -> None:
    """It would throw the member out that has just joined, and everybody would join once more, maybe for ever."""
    thread = FetchThread.__new__(FetchThread)
    thread.joining = True
    assert not await thread._commit({TP("api.requests", 0): 5})


async def test_a_load_that_a_rebalance_has_overtaken_does_not_open_the_way_for_commits() -> None:
    """Faust calls it some time after the assignment, and the next one may have begun."""
    thread = FetchThread.__new__(FetchThread)
    told: list[Any] = []

    async def assigned(*arguments: Any) -> None:
        told.append(arguments)

    thread.consumer = cast(Any, SimpleNamespace(threadsafe_partitions_assigned=assigned))
    thread.thread_loop = asyncio.get_running_loop()
    thread.let_go()
    thread.loaded()
    assert thread.joining
    await thread.on_partitions_assigned({TP("api.requests", 0)}, 7)
    assert thread.joining, "not before it is loaded"
    thread.loaded()
    assert not thread.joining
    assert [each[1:] for each in told] == [({TP("api.requests", 0)}, 7)]


async def test_a_stop_cuts_off_a_load(worker: FaustWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went on after everything had been stopped, and made a failure of a clean stop."""
    begun, loads = asyncio.Event(), 0

    async def take(*_: Any) -> bool:
        nonlocal loads
        loads += 1
        begun.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    monkeypatch.setattr(worker.shell, "take", take)
    recovering = asyncio.create_task(worker._on_recover())
    await begun.wait()
    await worker._before_stop()
    await asyncio.wait_for(recovering, 10)
    await worker._on_recover()
    assert loads == 1, "none begins after that"


async def test_two_recoveries_in_one_generation_load_one_after_the_other(
    worker: FaustWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wrote a checkpoint of one epoch, and every worker after them refused the partition."""
    begun, go_on, at_once = list[int](), asyncio.Event(), 0

    async def take(*_: Any) -> bool:
        nonlocal at_once
        at_once += 1
        begun.append(at_once)
        await go_on.wait()
        at_once -= 1
        return True

    monkeypatch.setattr(worker.shell, "take", take)
    recovering = [asyncio.create_task(worker._on_recover()) for _ in range(2)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert begun == [1]
    go_on.set()
    await asyncio.wait_for(asyncio.gather(*recovering), 10)
    assert begun == [1, 1]


async def test_a_partition_that_goes_while_another_is_nudged_is_passed_over(
    worker: FaustWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudged: list[int] = []

    class Enough(Exception):
        """Ends the loop."""

    async def nudge(number: int, owned: Any) -> None:
        nudged.append(number)
        worker.shell.owned.clear()  # a rebalance

    def waiting(since_s: float) -> list[int]:
        if nudged:
            raise Enough
        return [0, 1]

    worker.shell.owned |= {0: arrays(), 1: arrays()}
    monkeypatch.setattr(worker, "_nudge", nudge)
    monkeypatch.setattr(worker.shell, "waiting", waiting)
    monkeypatch.setattr("pipeline.runners.worker.NUDGE_S", 0.0)
    with pytest.raises(Enough):
        await worker.keep_nudging()
    assert nudged == [0]
