"""The log in memory keeps the contract that Kafka keeps (tests/kafka/test_responder.py)."""

from __future__ import annotations

import pytest

from pipeline.errors import Fatal
from pipeline.respond.audit import Positioned
from pipeline.respond.ledger.decisions import Decisions
from tests.pipeline.respond import log_contract
from tests.pipeline.respond.ledger.test_ledger import proposed
from tests.pipeline.respond.memory_log import MemoryLog, MemoryPublisher, MemoryReader


async def test_the_log_in_memory_holds_the_contract() -> None:
    log = MemoryLog()

    async def reader() -> MemoryReader:
        return MemoryReader(log, "t")

    await log_contract.holds(MemoryPublisher(log), reader, "t")


async def test_two_responders_agree_on_the_log_in_memory() -> None:
    log = MemoryLog()

    async def reader() -> MemoryReader:
        return MemoryReader(log, "t")

    await log_contract.two_agree_on_verdicts(MemoryPublisher(log), reader, "t")


class BrokenReader:
    """Ends after the first mark."""

    def __init__(self, log: MemoryLog) -> None:
        self._reader, self._reads = MemoryReader(log, "t"), 0

    async def read(self) -> list[Positioned]:
        self._reads += 1
        if self._reads > 1:
            raise Fatal("the topic is gone")
        return list(await self._reader.read())


async def test_whoever_waits_for_a_verdict_hears_of_a_reader_that_ended() -> None:
    log = MemoryLog()
    decisions = Decisions(MemoryPublisher(log), BrokenReader(log), "t", "a")
    await decisions.start()
    with pytest.raises(Fatal, match="the topic is gone"):
        await decisions.write(proposed())
    await decisions.close()
