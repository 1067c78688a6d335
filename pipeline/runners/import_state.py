"""`keywatch state import`: a file of key records into the pages topic, over as many partitions as the topic has.

Where each partition goes on (so that no event is lost or judged twice):
 - same topic: an old partition at the offset its state includes, a new one at the log's start. With another number of
   partitions every event beyond these offsets must lie where its key belongs now, else it is refused.
 - topic made anew: the file must be of a log that was judged to its end; the new log must be empty, or `--at` says
   whether it begins with events that nobody has judged (start) or holds what was judged already (end).
A partition's manifest, written last, makes its new state valid, under an epoch above all that lie there. One that was
not reached keeps a manifest that names the old number of partitions, which the worker refuses: import again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer

from pipeline.config.tree import Config
from pipeline.errors import ConfigError, Fatal
from pipeline.partitioner import PARTITIONERS
from pipeline.progress import counted
from pipeline.runners.export_state import FILE_NAME
from pipeline.runners.unjudged import unjudged
from pipeline.sinks.group import refuse_members, set_offsets
from pipeline.sinks.kafka import Producer, fetched_highwaters, log_starts, read_pages
from pipeline.sinks.topics import PAGES_CONFIG, TopicSpec, add_partitions, create_topics, partitions_of, topic_id
from pipeline.state import keyfile
from pipeline.state.checkpoint import PAGES_AT_ONCE, Checkpoint, Directory, Record
from pipeline.state.keyfile import Batch, Head, Header
from pipeline.state.manifest import Key, Manifest, read_key, read_manifest
from pipeline.state.repartition import Holder, Layouts, Target, homes, meta_of, same_meta, shared_of
from pipeline.state.shares import Part

KEYS_AT_ONCE: Final = 1_000_000
"""Keys of all targets that are filled in one pass over the file: 2.5 GB of memory."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The command line."""

    partitions: int
    at: str = ""  # start | end: a topic made anew that is not empty
    older: bool = False  # replace state that includes more than the file
    strays: bool = False  # events on a wrong partition may be rejected by the worker


@dataclass(slots=True)
class Contents:
    """What the first pass over the file finds."""

    header: Header
    heads: list[Head] = field(default_factory=list)
    moving: dict[tuple[int, int], int] = field(default_factory=dict)  # (source, target) -> keys

    def keys_to(self, target: int) -> int:
        """Of one target."""
        return sum(n for (_, to), n in self.moving.items() if to == target)


def main(config: Config, path: Path, choices: Choices) -> int:
    """Replace the group's state by the file's; returns the exit code. Raises ConfigError, Fatal."""
    path = path / FILE_NAME if path.is_dir() else path
    asyncio.run(refuse_members(config.kafka, "import"))
    contents = survey(path, config.worker.partitioner, choices.partitions)
    epoch = asyncio.run(_topics(config, choices.partitions))
    offsets = asyncio.run(_offsets(config, contents, choices, epoch))
    old = {n: asyncio.run(_existing(config, n, offsets[n], epoch, choices.older)) for n in range(choices.partitions)}
    asyncio.run(refuse_members(config.kafka, "import"))
    made = targets(path, contents, config.worker.partitioner, choices.partitions, offsets, epoch)
    for target, holder in counted(made, "writing partitions", choices.partitions):
        top = max((read_key(key).epoch for key in old[target]), default=0)
        writer = Checkpoint(target, epoch, top + 1, os.urandom(6).hex(), Directory(), choices.partitions)
        asyncio.run(write_state(config, writer, holder))
        typer.echo(f"partition {target}: {contents.keys_to(target):,} keys, goes on at offset {offsets[target]}")
    asyncio.run(set_offsets(config.kafka, config.topics.requests, offsets))
    asyncio.run(_tombstone(config, old))
    return 0


def survey(path: Path, partitioner: str, partitions: int) -> Contents:
    """Read the whole file once: everything in it is verified before anything is written."""
    contents, home = Contents(keyfile.header(path)), PARTITIONERS[partitioner]
    for frame in keyfile.read(path):
        if isinstance(frame, Head):
            contents.heads.append(frame)
        elif isinstance(frame, Batch):
            for target, chosen in homes(frame, home, partitions).items():
                way = (frame.partition, target)
                contents.moving[way] = contents.moving.get(way, 0) + len(chosen)
    return contents


def targets(
    path: Path, contents: Contents, partitioner: str, partitions: int, offsets: Mapping[int, int], epoch: str
) -> Iterator[tuple[int, Holder]]:
    """Each new partition's whole state; as many at once as memory has room for."""
    for group in _groups(contents, partitions):
        layouts = Layouts(contents.header)
        filled = {n: Target(n, layouts, contents.keys_to(n)) for n in group}
        for frame in keyfile.read(path):
            if isinstance(frame, Batch):
                for number, chosen in homes(frame, PARTITIONERS[partitioner], partitions).items():
                    if number in filled:
                        here = number == frame.partition and epoch == contents.header.topic_id
                        filled[number].take(frame, chosen, windows=here)
        for number in group:
            target = filled.pop(number)
            target.share([_part(contents, head, number, partitions, layouts) for head in contents.heads])
            yield number, target.finish(_meta(contents, number, partitions, partitioner, offsets[number], epoch))


def _groups(contents: Contents, partitions: int) -> Iterator[list[int]]:
    group: list[int] = []
    for number in range(partitions):
        if group and sum(map(contents.keys_to, [*group, number])) > KEYS_AT_ONCE:
            yield group
            group = []
        group.append(number)
    yield group


def _part(contents: Contents, head: Head, target: int, partitions: int, layouts: Layouts) -> Part:
    """A partition without keys hands what it knows to one other."""
    share = contents.moving.get((head.partition, target), 0) / head.keys if head.keys else 0.0
    alone = not head.keys and head.partition % partitions == target
    return Part(head.partition, shared_of(head, layouts), 1.0 if alone else share)


def _meta(contents: Contents, target: int, partitions: int, partitioner: str, offset: int, epoch: str) -> Any:
    header = contents.header
    same = (header.topic_id, header.partitions, header.partitioner) == (epoch, partitions, partitioner)
    if same and contents.heads[target].next_offset >= 0:
        return same_meta(contents.heads[target])
    return meta_of([head for head in contents.heads if contents.moving.get((head.partition, target))], offset)


# -- the topics ----------------------------------------------------------------------------------------------------


async def _topics(config: Config, partitions: int) -> str:
    """Let the pages topic have as many partitions as the requests topic; returns the latter's id."""
    names, kafka = config.topics, config.kafka
    found = await partitions_of(kafka, [names.requests, names.pages])
    if found.get(names.requests) != partitions:
        raise ConfigError(
            f"{names.requests} has {found.get(names.requests, 0)} partitions, not {partitions}: state goes where its "
            "events are. Change the topic first (kafka-topics.sh --alter --partitions, or make it anew)"
        )
    if (pages := found.get(names.pages, 0)) > partitions:
        raise ConfigError(
            f"{names.pages} has {pages} partitions, more than {partitions}: they cannot be taken away. Delete this "
            "topic (the file has all that is in it) and import again"
        )
    if not pages:
        await create_topics(kafka, [TopicSpec(names.pages, partitions, PAGES_CONFIG)])
    elif pages < partitions:
        await add_partitions(kafka, names.pages, partitions)
    return config.worker.topic_epoch or await topic_id(kafka, names.requests) or names.requests


async def _offsets(config: Config, contents: Contents, choices: Choices, epoch: str) -> dict[int, int]:
    """First offset that each new partition's state does not include."""
    kafka, topic, numbers = config.kafka, config.topics.requests, range(choices.partitions)
    starts, ends = await log_starts(kafka, topic, numbers), await fetched_highwaters(kafka, topic, numbers)
    if contents.header.topic_id != epoch:
        return _of_new_topic(contents, choices, topic, starts, ends)
    offsets = starts | {h.partition: h.next_offset for h in contents.heads if h.next_offset >= 0}
    offsets = {number: offsets[number] for number in numbers}
    for number in numbers:
        if offsets[number] > ends[number]:
            raise Fatal(
                f"partition {number}: the log ends at {ends[number]}, the file includes it to {offsets[number]}"
            )
        if offsets[number] < starts[number]:
            typer.echo(f"partition {number}: the log begins at {starts[number]}: what lay before it is not judged")
    header = contents.header
    if (header.partitions, header.partitioner) != (choices.partitions, config.worker.partitioner):
        await _refuse_strays(config, offsets, choices)
    return offsets


def _of_new_topic(
    contents: Contents, choices: Choices, topic: str, starts: dict[int, int], ends: dict[int, int]
) -> dict[int, int]:
    header = contents.header
    if waiting := [head.partition for head in contents.heads if not head.drained]:
        raise Fatal(
            f"the file is of {header.topic} with id {header.topic_id}, another topic than {topic} is now, and events "
            f"of partition {waiting[0]} were not judged when it was written: they would be lost. Export it drained"
        )
    if choices.at:
        return starts if choices.at == "start" else ends
    if full := [number for number in starts if starts[number] < ends[number]]:
        raise ConfigError(
            f"{topic} was made anew and partition {full[0]} has events already: say --at start if they are new (nobody "
            "has judged them), --at end if they were copied from the old topic, where they were judged"
        )
    return ends


async def _refuse_strays(config: Config, offsets: dict[int, int], choices: Choices) -> None:
    """Events that were written for another number of partitions would be judged without what is known of their key."""
    home, strays, example = PARTITIONERS[config.worker.partitioner], 0, ""
    async for event in unjudged(config.kafka, config.topics.requests, offsets):  # to its end, so it closes itself
        if event.key is not None and home(event.key, choices.partitions) != event.partition:
            strays += 1
            example = example or f"partition {event.partition}, offset {event.offset}"
    if strays and not choices.strays:
        raise Fatal(
            f"{strays} events wait on a partition that is not their key's with {choices.partitions} (the first: "
            f"{example}): they were written for another number. Nothing was changed. Have them sent again and say "
            f"--reject-strays: the worker then puts these copies into {config.topics.rejected}"
        )


# -- what lies in the pages topic ------------------------------------------------------------------------------------


async def _existing(config: Config, number: int, offset: int, epoch: str, older: bool) -> list[bytes]:
    """Keys of all records of one partition. Raises Fatal if state there includes more than the file does."""
    pages = (await read_pages(config.kafka, config.topics.pages, [number]))[number]
    keys = {raw: read_key(raw) for raw in pages}
    newest = max(((k.epoch, k.version, raw) for raw, k in keys.items() if k.kind == "manifest"), default=None)
    manifest = None if newest is None else _manifest(keys[newest[2]], pages[newest[2]])
    if manifest is not None and manifest.topic_epoch == epoch and manifest.next_offset > offset and not older:
        raise Fatal(
            f"partition {number}: the state there includes the log to {manifest.next_offset}, the file only to "
            f"{offset}. Export again, or say --older to go back: what follows is then judged once more, and gives "
            "the same incidents"
        )
    return list(pages)


def _manifest(key: Key, value: bytes) -> Manifest | None:
    try:
        return read_manifest(key, value)
    except Fatal as error:  # a damaged one is what a backup is for
        typer.echo(f"replaced: {error}")
        return None


async def write_state(config: Config, writer: Checkpoint, holder: Any) -> int:
    """One partition's checkpoint, as `emit` writes it: pages, directories, and the manifest alone and last.

    Returns the number of records.
    """
    producer = Producer(config.kafka).pages_to(config.topics.pages)
    await producer.start()
    try:
        draft = writer.draft(writer.plan(holder, 0))
        sent = 0
        for pack in draft.batches():
            sent += await _send(producer, writer.partition, pack())
        return sent + await _send(producer, writer.partition, [draft.manifest()])
    finally:
        await producer.close()


async def _send(producer: Producer, partition: int, records: Sequence[Record | tuple[bytes, None]]) -> int:
    await producer.send_all(partition, records)
    return len(records)


async def _tombstone(config: Config, old: dict[int, list[bytes]]) -> None:
    """What lay there before: nothing names it any more."""
    producer = Producer(config.kafka).pages_to(config.topics.pages)
    await producer.start()
    try:
        for partition, keys in old.items():
            for start in range(0, len(keys), PAGES_AT_ONCE):
                await _send(producer, partition, [(key, None) for key in keys[start : start + PAGES_AT_ONCE]])
    finally:
        await producer.close()
