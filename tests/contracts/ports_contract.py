"""What `emit.py` relies on in a Publisher and a PageLog: checked on the simulation's and on Kafka's alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.ports import BulkPublisher, PageLog

Pages = dict[bytes, bytes]
ReadPages = Callable[[], Awaitable[Pages]]


async def publisher_holds(publisher: BulkPublisher, topic: str) -> None:
    """An acknowledgement is an offset, and offsets of a partition rise in the order in which was sent."""
    offsets = [await publisher.publish(topic, b"k", b"v%d" % n, [("h", b"1")], 0) for n in range(5)]
    assert offsets == sorted(set(offsets))
    together = await asyncio.gather(*[publisher.publish(topic, b"k", b"w%d" % n, (), 0) for n in range(20)])
    assert together == sorted(set(together))
    assert together[0] > offsets[-1]
    await publisher.publish_all(topic, [(b"k%d" % (n % 3), b"x%d" % n, [("h", b"1")]) for n in range(50)])
    await publisher.publish_all(topic, [])
    assert await publisher.publish(topic, b"k", b"last", (), 0) == together[-1] + 51, "all were there when it returned"


async def page_log_holds(pages: PageLog, read: ReadPages) -> None:
    """The last value of a key is what is read back, however many were on their way together; a tombstone removes."""
    assert await read() == {}
    offsets = await asyncio.gather(*[pages.send(0, b"k%d" % (n % 10), b"v%d" % n) for n in range(50)])
    assert offsets == sorted(set(offsets))
    assert await read() == {b"k%d" % n: b"v%d" % (40 + n) for n in range(10)}
    assert await pages.send_all(0, []) == -1
    assert await pages.send_all(0, [(b"k3", b"gone soon"), (b"k3", None)]) > offsets[-1]
    last = await pages.send(0, b"k4", b"last")
    assert last > offsets[-1]
    left = await read()
    assert b"k3" not in left
    assert left[b"k4"] == b"last"
    assert len(left) == 9
