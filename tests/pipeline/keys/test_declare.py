"""`keywatch keys import` beside the embedded broker: shows the difference, asks, writes, is idempotent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pipeline.config.tree import Config, Kafka
from pipeline.demo import broker
from pipeline.demo.children import Children
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import read_catalogue
from pipeline.keys.declare import import_keys
from pipeline.sinks.topics import TopicSpec, create_topics

TABLE = "key_id,owner,environment,role\na,anna,live,full\nb,bert,test,read_only\n"


@pytest_asyncio.fixture
async def config(tmp_path: Path) -> AsyncIterator[Config]:
    """A configuration whose broker runs and has the keys topic."""
    children = Children(tmp_path, {})
    try:
        child, address = await broker.start(children)
        settings = Config(kafka=Kafka(brokers=address))
        await create_topics(settings.kafka, [TopicSpec(settings.topics.keys, 1)])
        yield settings
        await children.stop(child)
    finally:
        await children.stop_all()


async def test_an_import_shows_writes_and_then_finds_nothing_to_do(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.csv"
    file.write_text(TABLE)
    assert await asyncio.to_thread(import_keys, config, file, "csv", True) == 0
    assert capsys.readouterr().out.splitlines() == [
        "+ a",
        "+ b",
        "2 new, 0 changed, 0 as they were, 0 declared but not in this import",
        "2 keys written to api.keys",
    ]
    assert sorted(await read_catalogue(config)) == ["a", "b"]
    file.write_text(TABLE.replace("anna", "anne").replace("b,bert,test,read_only\n", ""))
    assert await asyncio.to_thread(import_keys, config, file, "csv", True) == 0
    shown = capsys.readouterr().out
    assert "~ a  owner: 'anna' -> 'anne'" in shown
    assert "? b" in shown
    assert await asyncio.to_thread(import_keys, config, file, "csv", True) == 0
    assert "0 new, 0 changed, 1 as they were" in capsys.readouterr().out


async def test_nothing_is_written_where_nobody_agreed(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "keys.csv"
    file.write_text(TABLE)
    with pytest.raises(ConfigError, match="say --yes"):
        await asyncio.to_thread(import_keys, config, file, "csv", False)
    assert len(await read_catalogue(config)) == 0
    with pytest.raises(ConfigError, match="unknown kind of import"):
        await asyncio.to_thread(import_keys, config, file, "xml", True)
