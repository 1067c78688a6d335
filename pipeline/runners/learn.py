"""`keywatch learn`: what keys did before Keywatch came, from old logs or a range of a topic, into the workers' state.

The history is judged by the very core of the worker, so that what an incident was under isn't learned; nothing of it is
told: no incident, no row, no webhook. The state goes to the pages topic as a worker's first checkpoint would, and
workers go on in the requests topic at its start or the end that it had before; events there that are older than the
history's end, less the lateness, are stored and counted, but not judged again. Where the history is of that very topic,
they go on where it ended, or its last minutes would be judged twice. Only before the workers' first start: where state
is already, nothing is touched.
What is primed is all that a partition knows: its keys, and what they share (peers' priors, what routes answer to all,
fleet rates, calibration), to the byte as if it had seen the history live, but for what a person would have been told:
 - windows end with the history, and so does an incident that is open then; nobody was told of it, so if it goes on, it
   opens anew at once, and its adoption is counted from there (`settled`);
 - rows: ClickHouse has none of it, so `keys_last_used`, the report and the console begin with the first live event.
No other topology is: sources (spray), silence and outbreaks, and the life of keys begin cold with the first live
sighting or key event, so that a source that has long used keys of many owners is new to spray.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import typer

from detectors.fusion import NOTHING_BITS
from pipeline.config.tree import Config
from pipeline.control.topic import read_controls
from pipeline.core import Sides
from pipeline.errors import ConfigError, Fatal
from pipeline.formats import FORMATS, Refused
from pipeline.geo.provider import open_geo
from pipeline.history import files, ordered
from pipeline.intake.run import options_of
from pipeline.keys.catalogue import load_file, read_catalogue
from pipeline.progress import counted
from pipeline.runners import topic_range
from pipeline.runners.import_state import write_state
from pipeline.runners.parts import config_version
from pipeline.runners.replay import SLICE_EVENTS, Replay
from pipeline.sinks.group import refuse_members, set_offsets
from pipeline.sinks.kafka import fetched_highwaters, log_starts, read_pages
from pipeline.sinks.topics import ensure_topics
from pipeline.state.checkpoint import Checkpoint, Directory
from pipeline.state.partition import Meta, Pool, State
from pipeline.state.repartition import Holder
from pipeline.warm import warm_up

AT: Final = ("start", "end")


class LearnOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The command line. Paths or a topic, never both."""

    paths: tuple[Path, ...] = ()
    format: str = "native"
    key_from: str = ""
    keys: Path | None = None
    topic: str = ""
    from_: str = ""
    to: str = ""
    at: str = "start"


def main(config: Config, options: LearnOptions) -> int:
    """Judge the history, write the state; returns the exit code. Raises ConfigError, Fatal, Retry."""
    _check(options)
    asyncio.run(refuse_members(config.kafka, "learn"))
    partitions = asyncio.run(ensure_topics(config))
    asyncio.run(_refuse_state(config, partitions))
    topic = topic_range.describe(config, config.topics.requests)
    warm_up()
    history = topic_range.describe(config, options.topic) if options.topic else None
    ends = asyncio.run(topic_range.ends_of(config, history, options.to)) if history else {}
    own = options.topic == config.topics.requests
    # what comes while history is judged is live
    offsets = ends if own else asyncio.run(_edges(config, partitions, options.at))
    replay = _judged(config, options, partitions, topic.epoch, history, ends)
    keys = 0
    for number, core in enumerate(counted(replay.cores, "writing partitions", len(replay.cores))):
        keys += len(core.state.slots)
        holder = settled(core.state, offsets[number])
        writer = Checkpoint(number, topic.epoch, 1, os.urandom(6).hex(), Directory(), partitions)
        asyncio.run(write_state(config, writer, holder))
    asyncio.run(set_offsets(config.kafka, config.topics.requests, offsets))
    outcome = replay.outcome
    typer.echo(
        f"{outcome.events:,} events of {keys:,} keys learned, {sum(outcome.rejected.values()):,} rejected; "
        f"{len(outcome.incidents):,} incidents of the past were left out of what is normal, and told nobody"
    )
    if own:
        typer.echo(f"workers go on in {options.topic} where this history ended: its rows are not in ClickHouse")
    return 0


def _check(options: LearnOptions) -> None:
    if bool(options.paths) == bool(options.topic):
        raise ConfigError("name files or folders to learn from, or a --topic: one of the two")
    if options.format not in FORMATS:
        raise ConfigError(f"unknown format '{options.format}'; known are {', '.join(sorted(FORMATS))}")
    if options.at not in AT:
        raise ConfigError(f"unknown --at '{options.at}'; there are start and end")
    if options.paths:
        files(options.paths)  # what is missing is said before a broker is asked


async def _refuse_state(config: Config, partitions: int) -> None:
    """Raises ConfigError where a worker has been: its state knows more than the history."""
    pages = await read_pages(config.kafka, config.topics.pages, range(partitions))
    if any(pages.values()):
        raise ConfigError(
            f"{config.topics.pages} holds state already: history is learned before the workers' first start. To begin "
            "anew, stop them, delete that topic and learn again"
        )


def _judged(
    config: Config, options: LearnOptions, partitions: int, epoch: str, history: topic_range.Topic | None,
    ends: dict[int, int],
) -> Replay:  # fmt: skip
    catalogue = load_file(options.keys) if options.keys else asyncio.run(read_catalogue(config))
    controls = asyncio.run(read_controls(config))
    sides = Sides(catalogue, open_geo(config.geo), config_version(config), controls)
    replay = Replay(config, sides, partitions, config.worker.partitioner, SLICE_EVENTS, epoch)
    if history:
        asyncio.run(_feed_topic(config, history, options.from_, ends, replay))
    else:
        _feed_files(config, options, replay)
    replay.finish()
    if not replay.outcome.events:
        raise Fatal("no record was an event: nothing was learned; `keywatch doctor --sample FILE` names a log's format")
    return replay


def _feed_files(config: Config, options: LearnOptions, replay: Replay) -> None:
    lateness_us = round(config.worker.lateness_s * 1e6)
    read_as = msgspec.structs.replace(options_of(config), key_field=options.key_from)
    records = ordered(options.paths, options.format, read_as, lateness_us)
    for record in counted(records, "learning"):
        if isinstance(record, Refused):
            replay.outcome.rejected[record.reason] += 1
        else:
            replay.feed(record)


async def _feed_topic(
    config: Config, topic: topic_range.Topic, from_: str, ends: dict[int, int], replay: Replay
) -> None:  # fmt: skip
    async for batch in topic_range.read_range(config, topic, from_, ends=ends):
        for record in batch:
            replay.feed_keyed(record)


async def _edges(config: Config, partitions: int, at: str) -> dict[int, int]:
    topic, numbers = config.topics.requests, range(partitions)
    if at == "start":
        return await log_starts(config.kafka, topic, numbers)
    return await fetched_highwaters(config.kafka, topic, numbers)


def settled(state: State, next_offset: int) -> Holder:
    """The state as a worker takes it over: nothing open, no window, and the live log's next offset.

    Of what was not adopted yet nobody has heard: no incident of the past keeps a live one quiet (`rule_that_opens`)
    or lets it be adopted. Versions of side inputs are left empty: the worker adopts them, and writes that down, when
    it loads.
    """
    fusion, visit = state.keys.data["fusion"], state.keys.data["visit"]
    rang = (fusion["open"] == 1) | (visit["tainted"] == 1)  # tainted: an incident of before kept it quiet
    for name in ("best", "best_slow"):  # of a visit that goes on: or nothing less would be looked at
        fusion[name][rang] = NOTHING_BITS
    for name in ("visit_opened_us", "slow_opened_us", "series_us", "series_severity", "families"):
        fusion[name][fusion["taken"] == 0] = 0
    fusion["open"] = 0
    for slot in list(state.incidents.rows):
        state.set_incident(slot, None)
    for name, head in (("minutes", "head_1m"), ("hours", "head_1h"), ("sources", "")):
        pool: Pool = getattr(state, name)
        pool.array.data[:] = np.zeros((), pool.array.dtype)
        if head:
            state.book.data[head] = 0
    old = state.meta
    state.meta = Meta(
        next_offset=next_offset, watermark_us=old.watermark_us, heard=old.heard, heard_epoch=old.heard_epoch
    )
    return Holder(state)
