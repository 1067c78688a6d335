"""What comes first when a worker starts, and what a rebalance does to one that is loading state."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numba
import pytest
from aiokafka.errors import KafkaConnectionError

from pipeline.config.tree import Config, Kafka, Worker
from pipeline.core import Sides
from pipeline.errors import Fatal
from pipeline.health import Health
from pipeline.runners import start
from pipeline.runners.parts import Parts
from pipeline.runners.shell import Shell
from pipeline.runners.start import EDGE_TRIES, Edges, Ready, edges_of, prepare
from tests.pipeline.counting_core import SIDES, open_core
from tests.pipeline.state.test_checkpoint import Log, checkpoint, count, first_writer, new_core, staged
from tests.pipeline.test_emit import Outside


async def sides(config: Config) -> Sides:
    return SIDES


async def test_a_broker_that_is_not_there_is_told_before_anything_is_compiled() -> None:
    """A thread that compiles can't be stopped: the line came a minute late on a machine without a cache."""
    compiled: list[str] = []
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = Config(kafka=Kafka(brokers=f"127.0.0.1:{nobody.getsockname()[1]}"))
        parts = Parts(open_core, lambda config: Outside(), sides, lambda: compiled.append("all"))
        with pytest.raises(Fatal, match=r"no Kafka broker answers at 127\.0\.0\.1"):
            async with prepare(config, parts):
                pass
    assert compiled == []


@pytest.mark.parametrize("kept", [True, False])
def test_a_start_says_why_code_is_not_kept_and_that_it_compiles(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "run.nbc").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(start, "CACHED", kept)
    monkeypatch.setattr(start, "REFUSED", [] if kept else ["/cache: others could put code there"])
    with caplog.at_level("INFO", start.__name__):
        start._tell_of_compiled_code()
    told = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert told == ([] if kept else [
        ("WARNING", "compiled code is not kept in /cache: others could put code there"),
        ("INFO", "no compiled code of this version is found: compiling takes some minutes of a core"),
    ])  # fmt: skip


@pytest.mark.parametrize("failures", [EDGE_TRIES - 1, EDGE_TRIES])
async def test_edges_that_are_not_told_are_asked_for_again_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    answers: list[dict[int, int] | Exception] = [KafkaConnectionError(), Fatal("no broker"), KafkaConnectionError()]
    answers = [*answers[:failures], {0: 7}]

    async def starts(*_: Any) -> dict[int, int]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ends(*_: Any) -> dict[int, int]:
        return {0: 9}

    monkeypatch.setattr(start, "log_starts", starts)
    monkeypatch.setattr(start, "fetched_highwaters", ends)
    monkeypatch.setattr(start, "EDGE_RETRY_S", 0.0)
    ask = edges_of(Config(worker=Worker(topic_epoch="id")), "id")
    if failures < EDGE_TRIES:
        assert await ask([0]) == ({0: 7}, {0: 9})
    else:
        with pytest.raises(Fatal, match="not told"):
            await ask([0])


def state() -> dict[bytes, bytes]:
    log: Log = []
    core, writer = new_core(), first_writer()
    count(core, [1, 2, 3])
    checkpoint(writer, core, log)
    return staged(log)


class Group:
    """The generation as the runner tells it, and two partitions' pages."""

    def __init__(self) -> None:
        self.generation = 7
        self.read: list[int] = []
        outside: Any = Outside()
        parts = Parts(open_core, lambda config: outside, sides, lambda: None)
        ready = Ready(Config(), parts, outside, self._edges, outside, SIDES, "id", 0, Health())
        self.shell = Shell(ready, lambda: self.generation, self._still_ours)

    async def _edges(self, partitions: list[int]) -> Edges:
        return dict.fromkeys(partitions, 0), dict.fromkeys(partitions, 100)

    async def _still_ours(self, partition: int, offset: int) -> bool:
        return True

    async def pages(self, numbers: list[int]) -> AsyncGenerator[tuple[int, dict[bytes, bytes]], None]:
        for number in numbers:
            self.read.append(number)
            yield number, state() if number == 0 else {}


async def test_state_is_loaded_one_partition_after_the_other_and_what_is_kept_is_not_read_again() -> None:
    group = Group()
    assert await group.shell.take([0], group.pages, {0: 3})
    kept = group.shell.owned[0]
    group.generation = 8
    assert await group.shell.take([1, 0], group.pages, {0: 3})
    assert group.read == [0, 1]
    assert group.shell.owned[0] is kept
    assert {number: owned.generation for number, owned in group.shell.owned.items()} == {0: 8, 1: 8}
    assert group.shell.owned[0].expected == 3
    await group.shell.close()


async def test_what_somebody_else_may_have_owned_meanwhile_is_read_anew() -> None:
    group = Group()
    assert await group.shell.take([0], group.pages, {0: 3})
    before = group.shell.owned[0]
    group.generation += 2
    assert await group.shell.take([0], group.pages, {0: 3})
    assert group.read == [0, 0]
    assert group.shell.owned[0] is not before
    await group.shell.close()


async def test_state_that_was_read_before_a_rebalance_is_not_taken_after_it() -> None:
    """Another worker may have owned the partition meanwhile, and have written a newer checkpoint."""
    group = Group()

    async def rebalance(numbers: list[int]) -> AsyncGenerator[tuple[int, dict[bytes, bytes]], None]:
        async for number, pages in group.pages(numbers):
            group.generation += 1
            yield number, pages

    assert not await group.shell.take([0, 1], rebalance, {0: 3})
    assert group.read == [0], "the rest is read when the next assignment is taken"
    assert group.shell.owned == {}
    assert not group.shell.settled
    await group.shell.close()
