"""Snapshots of the catalogue: from files, from a compacted topic, and their versions."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue, CatalogueReader, load_file, read_catalogue
from schemas.key import Key

TOPIC = Config().topics.keys
KEYS = st.lists(
    st.builds(Key, key_id=st.sampled_from("abcdef"), owner=st.sampled_from(["x", "y"])),
    unique_by=lambda key: key.key_id,
)


@dataclass
class Record:
    topic: str
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class Log:
    """A consumer over an in-memory topic of several partitions that gives a few records at a time."""

    logs: list[list[tuple[str, bytes | None]]] | None
    at: dict[int, int] = field(default_factory=dict)
    seen_end: dict[int, int] = field(default_factory=dict)

    async def partitions(self) -> int:
        return len(self.logs or [])

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.at = {tp.partition: -1 for tp in partitions}

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self.at |= {tp.partition: 0 for tp in partitions}

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        batches: dict[TopicPartition, list[Record]] = {}
        for number, log in enumerate(self.logs or []):
            start = self.at[number]
            self.seen_end[number] = len(log)
            records = [Record(TOPIC, start + i, k.encode(), v) for i, (k, v) in enumerate(log[start : start + 2])]
            self.at[number] += len(records)
            if records:
                batches[TopicPartition(TOPIC, number)] = records
        return batches

    def highwater(self, partition: TopicPartition) -> int | None:
        return self.seen_end.get(partition.partition)

    async def position(self, partition: TopicPartition) -> int:
        return self.at[partition.partition]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        yield self


def record(key: Key) -> tuple[str, bytes | None]:
    return key.key_id, msgspec.json.encode(key)


def test_nothing_declared_is_an_empty_catalogue() -> None:
    assert len(Catalogue.empty()) == 0
    assert Catalogue.empty().get("a") is None
    assert Catalogue.of([]).version == Catalogue.empty().version


@given(KEYS, st.randoms())
def test_the_version_names_the_content_in_any_order(keys: list[Key], random: Any) -> None:
    shuffled = list(keys)
    random.shuffle(shuffled)
    assert Catalogue.of(keys).version == Catalogue.of(shuffled).version
    assert dict(Catalogue.of(keys).items()) == {key.key_id: key for key in keys}


@given(KEYS, KEYS)
def test_the_version_after_changes_is_that_of_the_content(before: list[Key], after: list[Key]) -> None:
    changes: dict[str, Key | None] = {key.key_id: None for key in before}
    changes |= {key.key_id: key for key in after}
    changed = Catalogue.of(before).changed(changes)
    assert changed.version == Catalogue.of(after).version
    assert (changed.version == Catalogue.of(before).version) == (sorted(before, key=str) == sorted(after, key=str))


async def test_a_topic_is_read_to_its_end_with_the_last_value_of_each_key() -> None:
    a1, a2, b = Key(key_id="a", owner="x"), Key(key_id="a", owner="y"), Key(key_id="b")
    log = Log([[record(a1), record(Key(key_id="gone")), record(a2), ("gone", None), record(a2)], [record(b)], []])
    catalogue = await read_catalogue(Config(), log)
    assert dict(catalogue.items()) == {"a": a2, "b": b}


async def test_an_empty_topic_and_a_missing_one_are_empty(caplog: pytest.LogCaptureFixture) -> None:
    assert len(await read_catalogue(Config(), Log([[], []]))) == 0
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert len(await read_catalogue(Config(), Log(None))) == 0
    assert "does not exist" in caplog.text


async def test_what_is_no_key_leaves_its_key_undeclared(caplog: pytest.LogCaptureFixture) -> None:
    good = Key(key_id="a")
    log = Log([[record(good), ("b", b'{"key_id":"b","role":"king"}'), ("c", b"\xff"), ("d", record(good)[1])]])
    with caplog.at_level(logging.WARNING):
        catalogue = await read_catalogue(Config(), log)
    assert list(catalogue) == ["a"]
    assert len(caplog.records) == 3


async def test_refreshing_gives_the_same_object_until_something_changes() -> None:
    log = Log([[record(Key(key_id="a"))]])
    reader = CatalogueReader(Config(), log)
    first = await reader.open()
    assert log.logs is not None
    log.logs[0].append(record(Key(key_id="a")))
    assert await reader.refresh() is first
    log.logs[0].append(record(Key(key_id="a", protected=True)))
    second = await reader.refresh()
    assert second.version != first.version
    assert (first.get("a"), second.get("a")) == (Key(key_id="a"), Key(key_id="a", protected=True))
    await reader.close()


async def test_a_topic_that_appears_later_is_found() -> None:
    log = Log(None)
    reader = CatalogueReader(Config(), log)
    assert len(await reader.open()) == 0
    log.logs = [[record(Key(key_id="a"))]]
    assert len(await reader.refresh()) == 1


def test_a_file_of_json_lines_an_array_and_csv_give_the_same_keys(tmp_path: Path) -> None:
    keys = [Key(key_id="a", owner="x", protected=True), Key(key_id="b", environment="live", protected=True)]
    lines, array, table = tmp_path / "k.jsonl", tmp_path / "k.json", tmp_path / "k.csv"
    lines.write_bytes(b"\n".join(msgspec.json.encode(key) for key in keys) + b"\n\n")
    array.write_bytes(msgspec.json.encode(keys))
    table.write_text("key_id,owner,environment\na,x,\nb,,live\n")
    assert len({load_file(path).version for path in (lines, array, table)}) == 1


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    path.write_text('{"key_id":"a"}\n{"key_id":"b","role":"king"}\n')
    with pytest.raises(ConfigError, match="line 2"):
        load_file(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_file(tmp_path / "absent")
