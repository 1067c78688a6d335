"""What both runners do before they join the group, in order, and the tasks that run beside the slices."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numba
from aiokafka.errors import KafkaError

from detectors.compile import CACHED, REFUSED
from pipeline import memory
from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.errors import ConfigError, Fatal
from pipeline.health import Health, serve
from pipeline.metrics import REGISTRY, process_started, reader_started
from pipeline.ports import BulkPublisher, PageLog, RowSink
from pipeline.runners import batches, measure
from pipeline.runners.parts import Parts
from pipeline.runners.published import Published, newest_incidents
from pipeline.runners.recovering import tell_recovery
from pipeline.sinks.kafka import Producer, fetched_highwaters, log_starts
from pipeline.sinks.topics import ensure_topics, partitions_of, topic_id
from schemas.reasons import REASONS

if TYPE_CHECKING:
    from pipeline.runners.shell import Shell


class Link(BulkPublisher, PageLog, Protocol):
    """Both ways to Kafka in one."""


log = logging.getLogger(__name__)

Edges = tuple[dict[int, int], dict[int, int]]
"""Of each partition of the requests topic: first offset the log still has, and its end."""


EDGE_TRIES: Final = 3
EDGE_RETRY_S: Final = 1.0

RECOVERY_STUCK: Final = 5
"""A recovery may take this many times as long as a slice (`worker.stuck_s`): 10 minutes by default."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything a runner needs, connected and checked."""

    config: Config
    parts: Parts
    producer: Link
    edges: Callable[[list[int]], Awaitable[Edges]]
    rows: RowSink
    sides: Sides
    topic_epoch: str
    partitions: int
    health: Health
    count_partitions: Callable[[], Awaitable[int]] | None = None
    """Asks how many the requests topic has now; None where they cannot change."""
    published: Published | None = None
    """Reads what stands on the topic of incidents; None where that cannot be."""


@asynccontextmanager
async def prepare(config: Config, parts: Parts) -> AsyncIterator[Ready]:
    """Connect, check topics, compile, read the side inputs to their end. Raises ConfigError or Fatal.

    Brokers first: compiling takes a minute where no code is cached, a thread can't be stopped, and whoever has
    mistyped an address would be told only then.
    """
    memory.few_arenas()
    log.info("topics are asked for at %s", config.kafka.brokers)
    partitions = await ensure_topics(config)
    _tell_of_compiled_code()
    compiling = asyncio.create_task(asyncio.to_thread(parts.warm_up))
    epoch = await topic_epoch(config)
    health = Health()
    process_started()
    reader_started(REASONS)
    server = await serve(health, REGISTRY, config.worker.metrics_host, config.worker.metrics_port, parts.section)
    producer = Producer(config.kafka).pages_to(config.topics.pages)
    await producer.start()
    rows = parts.open_rows(config)
    try:
        sides = await parts.read_sides(config)
        measure.sides_read(sides)
        await compiling
        await asyncio.to_thread(batches.warm_up)
        log.info("compiled code, side inputs and topics are there: joining group %s", config.kafka.group)
        settle_interpreter()
        count = partitions_now(config)
        yield Ready(
            config, parts, producer, edges_of(config, epoch), rows, sides, epoch, partitions, health, count,
            newest_incidents(config),
        )  # fmt: skip
    finally:
        await rows.close()
        await parts.close()
        await producer.close()
        await server.close()


def _tell_of_compiled_code() -> None:
    """What will be slow, and why."""
    for trouble in REFUSED:
        log.warning("compiled code is not kept in %s", trouble)
    if not (CACHED and any(Path(numba.config.CACHE_DIR).glob("*/*.nbc"))):  # type: ignore[attr-defined]
        log.info("no compiled code of this version is found: compiling takes some minutes of a core")


YOUNG_OBJECTS: Final = 50_000
"""Objects that are made between two looks of the garbage collector, instead of Python's 700: a slice of 1,000 events
makes some 10,000 that live as long as it does. Looks took 9 % of the worker's time, hardly 1 % with this."""


SWITCH_S: Final = 0.000_5
"""After how long a thread that computes lets another have the GIL. With Python's 5 ms a slice, which gives it up for
every longer compiled function, waited so long for it each time while rows were encoded or a fetch was taken apart."""


def settle_interpreter() -> None:
    """Threads take turns sooner; what is loaded now, compiler and libraries, is never looked at by a collection.

    The compiler itself has done its work.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    memory.unmap_code("libllvmlite.so")
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


async def topic_epoch(config: Config) -> str:
    """What makes the offsets of the requests topic unmistakable. Raises Fatal."""
    topic = config.topics.requests
    return config.worker.topic_epoch or await topic_id(config.kafka, topic) or topic


def edges_of(config: Config, epoch: str) -> Callable[[list[int]], Awaitable[Edges]]:
    """Ask the broker for the edges of the requests topic. Raises Fatal if it is not the one that had this epoch."""

    async def edges(partitions: list[int]) -> Edges:
        kafka, topic = config.kafka, config.topics.requests
        for tries_left in reversed(range(EDGE_TRIES)):
            try:
                now, starts, ends = await asyncio.gather(
                    topic_epoch(config), log_starts(kafka, topic, partitions),
                    fetched_highwaters(kafka, topic, partitions),
                )  # fmt: skip
            except (Fatal, KafkaError) as error:
                if not tries_left:
                    raise Fatal(f"the edges of {topic} were not told, {EDGE_TRIES} times: {error}") from error
                log.warning("the edges of %s were not told, asking again: %s", topic, error)
                await asyncio.sleep(EDGE_RETRY_S)
            else:
                break
        if now != epoch:
            raise Fatal(f"topic {topic} was made anew while the worker ran: its offsets mean something else")
        return starts, ends

    return edges


def partitions_now(config: Config) -> Callable[[], Awaitable[int]]:
    """Ask the broker how many partitions the requests topic has."""

    async def count() -> int:
        return (await partitions_of(config.kafka, [config.topics.requests])).get(config.topics.requests, 0)

    return count


def tasks_of(shell: Shell) -> list[Coroutine[Any, Any, None]]:
    """Checkpoints, rows, ticks, side inputs, the watchdog and the word on how far a recovery is."""
    return [
        shell.rows.run(),
        shell.keep_checkpointing(),
        shell.keep_ticking(),
        shell.keep_adopting(),
        watch(shell),
        tell_recovery(shell),
    ]


def exit_code(running: Coroutine[Any, Any, int]) -> int:
    """Run a runner to its end; what stops it from outside is one clear line and the code of it."""
    try:
        return asyncio.run(running)
    except ConfigError as error:
        log.critical("%s", error)
        return 2
    except Fatal as error:
        log.critical("%s", error)
        return 1


async def watch(shell: Shell) -> None:
    """End a process that has records to do and does none: Faust's agents and fetchers can hang silently."""
    stuck_s = shell.config.worker.stuck_s
    while True:
        await asyncio.sleep(stuck_s / 10)
        idle_s = time.monotonic() - shell.progress_at
        if not shell.settled and not shell.stopping:
            if idle_s > RECOVERY_STUCK * stuck_s:
                raise Fatal(f"no assignment was loaded for {idle_s:.0f} s")
        elif shell.lag() == 0 or shell.rows.full:
            shell.progress_at = time.monotonic()
        elif idle_s > stuck_s:
            raise Fatal(f"{shell.lag()} records wait and no slice was done for {stuck_s:.0f} s")
