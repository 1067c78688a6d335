"""What the responder relies on in a log, checked on the one in memory and on Kafka alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.ports import Publisher
from pipeline.respond.audit import Positioned
from pipeline.respond.ledger.decisions import Decisions, LogReader
from pipeline.respond.ledger.ledger import Proposed, encode
from tests.pipeline.respond.ledger.test_ledger import proposed

NewReader = Callable[[], Awaitable[LogReader]]


async def read(reader: LogReader, count: int) -> list[Positioned]:
    """So many records."""
    records: list[Positioned] = []
    async with asyncio.timeout(30):
        while len(records) < count:
            records.extend(await reader.read())
    return records


async def holds(publisher: Publisher, new_reader: NewReader, topic: str) -> None:
    """An acknowledged write has the offset under which every reader finds it, in one order, with rising times."""
    offsets = [await publisher.publish(topic, b"", f"v{i}".encode(), partition=0) for i in range(5)]
    assert offsets == sorted(set(offsets))
    both = [await read(await new_reader(), 5) for _ in "ab"]
    assert both[0] == both[1]
    assert [(each.offset, each.value) for each in both[0]] == [(o, f"v{i}".encode()) for i, o in enumerate(offsets)]
    times = [each.timestamp_us for each in both[0]]
    assert times == sorted(times)
    assert times[0] > 0


async def two_agree_on_verdicts(publisher: Publisher, new_reader: NewReader, topic: str) -> None:
    """Both propose at once; each reads the same verdicts back, three in all, also one that comes later."""
    pair = [Decisions(publisher, await new_reader(), topic, name) for name in "ab"]
    for each in pair:
        await each.start()
    wanted: list[Proposed] = [proposed(f"k{i}", responder="ab"[i % 2]) for i in range(8)]
    verdicts = await asyncio.gather(*(pair[i % 2].write(record) for i, record in enumerate(wanted)))
    assert sum(verdict.granted for verdict in verdicts) == 3
    late = Decisions(publisher, await new_reader(), topic, "c")
    await late.start()
    for each in (*pair, late):
        await each.catch_up()
        assert each.ledger.acts == late.ledger.acts
        assert each.ledger.used(3_600_000_000) == 3
        await each.close()
    assert encode(wanted[0])
