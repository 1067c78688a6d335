"""What the Faust worker does between two assignments, without a broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.core import Sides
from pipeline.health import Health
from pipeline.runners.parts import Parts
from pipeline.runners.start import Ready
from pipeline.runners.worker import FaustWorker
from tests.pipeline.counting_core import SIDES, open_core


class Consumer:
    """Faust's consumer as far as a rebalance needs it."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def still_ours(self, tp: Any, offset: int) -> bool:
        self.asked.append(offset)
        return True

    async def commit(self) -> bool:
        return True

    def assignment(self) -> set[Any]:
        return set()


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


def arrays() -> Any:
    """A partition's arrays whose checkpoint has nothing to write."""

    async def checkpoint(*_: Any) -> None:
        return None

    emitter = SimpleNamespace(sound=True, writer=SimpleNamespace(bytes_written=0), checkpoint=checkpoint)
    return SimpleNamespace(emitter=emitter, generation=0, lock=None)


async def test_the_group_is_asked_nothing_while_it_is_joined_anew(worker: FaustWorker) -> None:
    """A commit then throws the member out that has just joined, and everybody joins once more, maybe for ever."""
    worker.shell.owned[0] = arrays()
    assert await worker._still_ours(0, 5)
    await worker._on_revoked(worker.app, [("api.requests", 0)])
    assert not await worker._still_ours(0, 5)
    await worker._load_assigned()
    assert await worker._still_ours(0, 5)
    assert worker.app.consumer.asked == [5, 5]


async def test_a_partition_that_goes_while_another_is_nudged_is_passed_over(
    worker: FaustWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudged: list[int] = []

    class Enough(Exception):
        """Ends the loop."""

    async def nudge(number: int, owned: Any) -> None:
        nudged.append(number)
        worker.shell.owned.clear()  # a rebalance

    async def recovery() -> None:
        if nudged:
            raise Enough

    worker.shell.owned |= {0: arrays(), 1: arrays()}
    monkeypatch.setattr(worker, "_nudge", nudge)
    monkeypatch.setattr(worker, "_nudge_recovery", recovery)
    monkeypatch.setattr(worker.shell, "waiting", lambda since_s: [0, 1])
    monkeypatch.setattr("pipeline.runners.worker.NUDGE_S", 0.0)
    with pytest.raises(Enough):
        await worker.keep_nudging()
    assert nudged == [0]
