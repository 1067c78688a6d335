"""`keywatch state export`: what a stopped group knows, out of the pages topic into one file.

Every partition's newest manifest is verified to the last byte, as a worker does when it starts. The log must have been
judged to its end, so that the file may be taken to other partitions; with `undrained` it is a backup that can go back
only to where it came from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from pipeline.config.tree import Config
from pipeline.errors import ConfigError, Fatal
from pipeline.progress import counted
from pipeline.runners.unjudged import first_unjudged
from pipeline.sinks.group import committed_offsets, refuse_members
from pipeline.sinks.kafka import log_starts, read_pages
from pipeline.sinks.topics import partitions_of, topic_id
from pipeline.state.keyfile import Batch, End, Frame, Head, Header, write
from pipeline.state.partition import State
from pipeline.state.recover import fill, load
from pipeline.state.repartition import Holder, frames, layout, tables

FILE_NAME: Final = "keywatch.state"
"""In a folder."""


def main(config: Config, path: Path, undrained: bool = False) -> int:
    """Write the file; returns the exit code. Raises ConfigError, Fatal."""
    path = path / FILE_NAME if path.is_dir() else path
    size = write(path, exported(config, undrained))
    typer.echo(f"{path}: {size:,} bytes")
    return 0


def exported(config: Config, undrained: bool) -> Iterator[Frame]:
    """The file's frames, one partition in memory at a time."""
    asyncio.run(refuse_members(config.kafka, "export"))
    partitions, topic = asyncio.run(_topic(config))
    plain, keys = tables(), 0
    yield Header(
        topic=config.topics.requests, topic_id=topic, partitions=partitions, partitioner=config.worker.partitioner,
        group=config.kafka.group, layout=layout(plain), tables=plain,
    )  # fmt: skip
    committed = asyncio.run(committed_offsets(config.kafka, config.topics.requests))
    for number in counted(range(partitions), "exporting", partitions):
        for frame in _partition(config, number, committed.get(number), topic, undrained):
            keys += len(frame.ids) if isinstance(frame, Batch) else 0
            yield frame
    asyncio.run(refuse_members(config.kafka, "export again: this file would be of two moments"))
    yield End(keys=keys, partitions=partitions)


async def _topic(config: Config) -> tuple[int, str]:
    """(partitions that there is state of, topic id). More partitions may have been added to the requests since."""
    names = config.topics
    found = await partitions_of(config.kafka, [names.requests, names.pages])
    for name in (names.requests, names.pages):
        if name not in found:
            raise ConfigError(f"there is no topic {name} at {config.kafka.brokers}: no state to export")
    epoch = config.worker.topic_epoch or await topic_id(config.kafka, names.requests) or names.requests
    return found[names.pages], epoch


def _partition(
    config: Config, number: int, committed: int | None, epoch: str, undrained: bool
) -> Iterator[Head | Batch]:
    pages = asyncio.run(read_pages(config.kafka, config.topics.pages, [number]))[number]
    loaded = load(number, pages, committed)
    state = State()
    holder: Any = Holder(state)
    fill(holder, loaded)
    if loaded.manifest is not None and loaded.manifest.topic_epoch != epoch:
        raise Fatal(
            f"partition {number}: its state is of topic id {loaded.manifest.topic_epoch!r}, {config.topics.requests} "
            f"is {epoch!r}. To export state of a topic that is gone, set worker.topic_epoch to that id"
        )
    drained = asyncio.run(_drained(config, number, loaded.next_offset))
    if not drained and not undrained:
        raise Fatal(
            f"partition {number}: events wait in the log beyond offset {loaded.next_offset}, which the state does not "
            "include. Stop the producers, let a worker read to the end (lag 0), stop it and export again; or take a "
            "backup that goes back to the same partitions only, with --undrained"
        )
    typer.echo(f"partition {number}: {len(state.slots):,} keys, next offset {loaded.next_offset}")
    yield from frames(number, state, loaded.epoch, drained)


async def _drained(config: Config, number: int, next_offset: int) -> bool:
    topic = config.topics.requests
    if next_offset < 0:
        next_offset = (await log_starts(config.kafka, topic, [number]))[number]
    return await first_unjudged(config.kafka, topic, {number: next_offset}) is None
