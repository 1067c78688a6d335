"""What is declared of keys reaches ClickHouse: all at the start, then changes, and what was taken back is gone."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.tree import ClickHouse
from pipeline.errors import Retry
from pipeline.keys.catalogue import Catalogue
from pipeline.respond.declared import DeclaredKeys, listed
from pipeline.sinks.clickhouse import ClickHouseSink, MemorySink
from pipeline.sinks.connect import connect
from schemas.key import Key

ONE = Key(
    key_id="k1", owner="shop", environment="live", role="limited", created_at="2024-02-03T04:05:06Z",
    secret_hash="hmac_" + "0" * 32,
)  # fmt: skip
TWO = Key(key_id="k2", owner="lab", environment="test", created_at="no time at all")


class World:
    """The catalogue as last read, and a clock that moves on."""

    def __init__(self, sink: Any, listed: Any = lambda: ()) -> None:
        self.catalogue: Catalogue | None = None
        self.now_us = 1
        self.declared = DeclaredKeys(lambda: self.catalogue, sink, listed, self._tick)

    def _tick(self) -> int:
        self.now_us += 1
        return self.now_us


async def test_nothing_is_written_before_the_catalogue_was_read_nor_while_it_stays_the_same() -> None:
    sink = MemorySink()
    world = World(sink)
    assert await world.declared.look() == 0
    world.catalogue = Catalogue.of([ONE, TWO])
    assert await world.declared.look() == 2
    assert await world.declared.look() == 0
    assert len(sink.rows["keys"]) == 2


async def test_only_changes_are_written_and_a_key_taken_back_is_gone() -> None:
    sink = MemorySink()
    world = World(sink)
    world.catalogue = Catalogue.of([ONE, TWO])
    await world.declared.look()
    world.catalogue = world.catalogue.changed({"k1": None, "k3": Key(key_id="k3", owner="new")})
    assert await world.declared.look() == 2
    assert [(row["key_id"], row["gone"]) for row in sink.rows["keys"][2:]] == [("k3", 0), ("k1", 1)]
    assert sink.rows["keys"][-1]["version"] > sink.rows["keys"][0]["version"]


async def test_a_secrets_hash_never_leaves_and_a_time_that_is_none_is_null() -> None:
    sink = MemorySink()
    world = World(sink)
    world.catalogue = Catalogue.of([ONE, TWO])
    await world.declared.look()
    assert "hmac_" not in str(sink.rows)
    assert [row["created_at"] for row in sink.rows["keys"]] == [1_706_933_106_000_000, None]


async def test_what_could_not_be_written_is_written_the_next_time() -> None:
    class Away(MemorySink):
        away = True

        async def write(self, table: str, rows: Any) -> None:
            if self.away:
                raise Retry("away")
            await super().write(table, rows)

    sink = Away()
    world = World(sink)
    world.catalogue = Catalogue.of([ONE])
    with pytest.raises(Retry):
        await world.declared.look()
    sink.away = False
    assert await world.declared.look() == 1


async def test_a_start_marks_what_was_taken_back_meanwhile(clickhouse: ClickHouse) -> None:
    first = World(ClickHouseSink(clickhouse), lambda: listed(clickhouse))
    first.catalogue = Catalogue.of([ONE, TWO])
    await first.declared.look()
    await first.declared.close()
    assert sorted(listed(clickhouse)) == ["k1", "k2"]
    second = World(ClickHouseSink(clickhouse), lambda: listed(clickhouse))
    second.now_us = 100
    second.catalogue = Catalogue.of([ONE])
    assert await second.declared.look() == 2
    await second.declared.close()
    client = connect(clickhouse, clickhouse.database)
    found = client.query("SELECT key_id, owner, toUnixTimestamp(created_at) FROM v_keys").result_rows
    client.close()
    assert found == [("k1", "shop", 1_706_933_106)]
