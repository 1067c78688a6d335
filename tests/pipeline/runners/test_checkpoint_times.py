"""Each partition has a time of its own for its checkpoint."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.tree import Config, Worker
from pipeline.runners.shell import Shell

EVERY_S = 0.2


def shell_of(partitions: int, done: list[tuple[int, float]], began_s: float) -> Any:
    shell: Any = object.__new__(Shell)
    shell.config = Config(worker=Worker(checkpoint_s=EVERY_S))
    shell.owned = {number: SimpleNamespace(number=number) for number in range(partitions)}

    async def checkpoint(owned: Any) -> None:
        done.append((owned.number, asyncio.get_running_loop().time() - began_s))

    shell._checkpoint = checkpoint
    return shell


async def until(count: int, done: list[tuple[int, float]], shell: Any) -> None:
    keeping = asyncio.create_task(shell.keep_checkpointing())
    async with asyncio.timeout(20):
        while len(done) < count:  # noqa: ASYNC110  (a task appends)
            await asyncio.sleep(0.01)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_checkpoints_of_a_workers_partitions_are_spread_over_their_interval() -> None:
    done: list[tuple[int, float]] = []
    await until(8, done, shell_of(4, done, asyncio.get_running_loop().time()))
    assert [number for number, _ in done[:8]] == [0, 1, 2, 3, 0, 1, 2, 3]
    slack_s = 0.005  # of the loop's clock
    assert all(at_s >= EVERY_S * (place + 1) / 4 - slack_s for place, (_, at_s) in enumerate(done[:8]))


async def test_a_partition_that_went_meanwhile_gets_no_checkpoint() -> None:
    done: list[tuple[int, float]] = []
    shell = shell_of(2, done, 0.0)
    kept = shell._checkpoint

    async def checkpoint(owned: Any) -> None:
        shell.owned[1] = SimpleNamespace(number=7)  # another life of it, before its turn comes
        await kept(owned)

    shell._checkpoint = checkpoint
    await until(3, done, shell)
    assert 1 not in [number for number, _ in done]
