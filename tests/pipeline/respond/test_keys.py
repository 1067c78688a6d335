"""What the catalogue says at the moment of a decision: fresh, counted, and unknown rather than old."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import Fatal
from pipeline.keys.catalogue import Catalogue
from pipeline.respond.keys import MAX_AGE_S, FreshKeys
from schemas.key import Key
from tests.pipeline.respond.incidents import key


class Topic:
    """The keys topic and its readers; `broken` makes reading fail."""

    def __init__(self, *keys: Key) -> None:
        self.catalogue = Catalogue.of(keys)
        self.broken = False
        self.opened = 0
        self.reads = 0
        self.now_s = 100.0

    def reader(self) -> Topic:
        return self

    async def open(self) -> Catalogue:
        self.opened += 1
        return await self.refresh()

    async def refresh(self) -> Catalogue:
        self.reads += 1
        if self.broken:
            raise Fatal("no broker")
        return self.catalogue

    async def close(self) -> None:
        """Nothing to release."""


def fresh(topic: Topic) -> FreshKeys:
    clock: Callable[[], float] = lambda: topic.now_s  # noqa: E731
    return FreshKeys(topic.reader, clock)


async def test_only_active_keys_are_counted() -> None:
    topic = Topic(key("k1"), key("k2", status="revoked"), key("k3", protected=True))
    assert await fresh(topic).look_up("k1") == (key("k1"), 2, "")


async def test_a_copy_is_used_while_it_is_young_and_read_again_when_it_is_old() -> None:
    topic = Topic(key("k1"))
    keys = fresh(topic)
    await keys.look_up("k1")
    topic.catalogue = Catalogue.of([key("k1", protected=True)])
    topic.now_s += MAX_AGE_S
    assert (await keys.look_up("k1"))[0] == key("k1")
    topic.now_s += 0.1
    assert (await keys.look_up("k1"))[0] == key("k1", protected=True)
    assert (topic.opened, topic.reads) == (1, 2)


async def test_a_key_that_was_declared_a_moment_ago_is_found() -> None:
    topic = Topic()
    keys = fresh(topic)
    assert (await keys.look_up("k1"))[0] is None
    topic.catalogue = Catalogue.of([key("k1")])
    topic.now_s += 1.1
    assert (await keys.look_up("k1"))[0] == key("k1")


async def test_an_old_copy_is_no_knowledge_once_reading_fails() -> None:
    topic = Topic(key("k1"))
    keys = fresh(topic)
    await keys.look_up("k1")
    topic.broken = True
    topic.now_s += MAX_AGE_S + 1
    assert await keys.look_up("k1") == (None, 0, "no broker")
    topic.broken = False
    assert (await keys.look_up("k1"))[2] == ""
    assert topic.opened == 2  # a reader that failed is opened anew


async def test_a_broker_that_is_away_at_the_start_is_no_reason_not_to_start() -> None:
    topic = Topic(key("k1"))
    topic.broken = True
    keys = fresh(topic)
    await keys.start()
    assert (await keys.look_up("k1"))[2] == "no broker"
    await keys.close()
