"""A small topic that is read whole, without a group, to its end: then what is new in it, again and again."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka import TopicPartition

from pipeline.config.tree import Kafka
from pipeline.errors import Fatal

READ_TIMEOUT_S: Final = 60.0
POLL_MS: Final = 200


class Source(Protocol):
    """Where the records come from."""

    async def partitions(self) -> int:
        """How many the topic has; 0 where there is no such topic."""

    def open(self) -> AbstractAsyncContextManager[Any]:
        """A consumer without a group, as `pipeline.sinks.kafka.side_consumer`."""


@dataclass(frozen=True)
class Brokers:
    """The topic on the configured broker. An unassigned consumer has no metadata of it, hence the admin's answer."""

    kafka: Kafka
    topic: str

    async def partitions(self) -> int:
        """Asked anew each time. Raises Fatal."""
        from pipeline.sinks.topics import partitions_of

        return (await partitions_of(self.kafka, [self.topic])).get(self.topic, 0)

    def open(self) -> AbstractAsyncContextManager[Any]:
        """Raises Fatal on entering where no broker answers."""
        from pipeline.sinks.kafka import side_consumer

        return side_consumer(self.kafka)


class Tail:
    """Keeps a consumer at the end of the topic. `open`, then `news` as often as you like, then `close`."""

    def __init__(self, topic: str, source: Source) -> None:
        self.topic = topic
        self.partitions: list[TopicPartition] = []
        self._source = source
        self._stack = AsyncExitStack()
        self._consumer: Any = None

    async def open(self) -> None:
        """Connect. Raises Fatal."""
        self._consumer = await self._stack.enter_async_context(self._source.open())
        await self._assign()

    async def close(self) -> None:
        """Disconnect."""
        await self._stack.aclose()

    async def news(self) -> list[Any]:
        """All records since the last call, in order within each partition; [] where there is no topic. Raises Fatal."""
        if not self.partitions:
            await self._assign()
        records: list[Any] = []
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await self._read(records)
        except TimeoutError as error:
            raise Fatal(f"topic {self.topic} could not be read to its end in {READ_TIMEOUT_S:.0f} s") from error
        return records

    async def _assign(self) -> None:
        count = await self._source.partitions()
        if count:
            self.partitions = [TopicPartition(self.topic, number) for number in range(count)]
            self._consumer.assign(self.partitions)
            await self._consumer.seek_to_beginning(*self.partitions)

    async def _read(self, records: list[Any]) -> None:
        """To the end as the fetch responses tell it; positions pass records that compaction took away."""
        behind = bool(self.partitions)
        while behind:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            for some in batches.values():
                records += some
            behind = bool(batches) or not await self._at_end()

    async def _at_end(self) -> bool:
        for partition in self.partitions:
            end = self._consumer.highwater(partition)
            if end is None or await self._consumer.position(partition) < end:
                return False
        return True
