"""The worker on Faust. Faust owns group membership, assignment and the moment of recovery; slices, order of effects,
offsets, state and the reading of it are ours (`slices.py`, `shell.py`). Exit codes: 0 stopped, 1 cannot start,
2 configuration, 70 fatal: the orchestrator starts it again and the log is replayed from the last checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import faust
from faust.types import TP
from mode import CrashingSupervisor

from pipeline import private
from pipeline.config.tree import Config, Kafka
from pipeline.errors import Fatal
from pipeline.faults import reach
from pipeline.runners.ending import EXIT_FATAL, end_process, guarded
from pipeline.runners.lanes import Lanes, Told, fitting, joined
from pipeline.runners.owned import Owned
from pipeline.runners.parts import Parts, production_parts
from pipeline.runners.shell import Shell
from pipeline.runners.slices import PageTable, PassThrough, transport_of, unless_revoked
from pipeline.runners.start import Ready, exit_code, prepare, tasks_of
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.kafka import REQUESTS_FETCH_BYTES, pages_in_turn
from pipeline.sinks.tls import ssl_context
from pipeline.tasks import cancel_and_wait

log = logging.getLogger(__name__)

SLICES_WAITING: Final = 4
"""Slices between transport and agent: at most 8 MB; each partition has as much as another one waiting in its lane."""
NUDGE_S: Final = 3.0
MOST_NUDGES: Final = 3


def credentials(kafka: Kafka) -> Any:
    """Faust's form of the same settings; None is plaintext."""
    context = ssl_context(kafka)
    if kafka.security.startswith("SASL"):
        return faust.SASLCredentials(
            mechanism=kafka.sasl_mechanism,
            username=kafka.username,
            password=kafka.password.reveal(),
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def settings(config: Config) -> dict[str, Any]:
    """Faust's settings; reasons in reference/faust.md, section 6."""
    kafka = config.kafka
    brokers = [broker.strip() for broker in kafka.brokers.split(",") if broker.strip()]
    return {
        "broker": ";".join(f"kafka://{broker}" for broker in brokers),
        "broker_credentials": credentials(kafka),
        "broker_client_id": kafka.client_id,
        "consumer_group_instance_id": kafka.instance_id or None,
        "broker_session_timeout": kafka.session_timeout_s,
        "broker_heartbeat_interval": kafka.heartbeat_s,
        "broker_rebalance_timeout": kafka.rebalance_timeout_s,
        "broker_request_timeout": max(90.0, kafka.session_timeout_s),
        "broker_max_poll_interval": 300.0,
        "broker_commit_interval": 1.0,
        "broker_commit_livelock_soft_timeout": 3600.0,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": REQUESTS_FETCH_BYTES,
        "stream_wait_empty": False,
        "stream_buffer_maxsize": SLICES_WAITING,
        "stream_processing_timeout": 3600.0,
        "agent_supervisor": CrashingSupervisor,
        "producer_acks": -1,
        "producer_request_timeout": 30.0,
        "processing_guarantee": "at_least_once",
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "store": "memory://",
        "datadir": str(private.own_folder(Path(tempfile.gettempdir()) / f"keywatch-faust-{os.getuid()}")),  # empty
        "web_enabled": False,
        "web_bind": "127.0.0.1",
        "key_serializer": "raw",
        "value_serializer": "raw",
        "Table": PageTable,
    }


class App(faust.App):
    """Faust's application with a stop that checkpoints before Faust stops what a checkpoint needs."""

    before_stop: Any = None
    after_rebalance: Any = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.saved = asyncio.Event()
        """The checkpoint of a stop is written and committed, or given up."""

    def on_rebalance_end(self) -> None:
        """Flow is resumed and queues are cleared: what was fetched before is lost, maybe with nothing behind it."""
        super().on_rebalance_end()
        if self.after_rebalance is not None:
            self.after_rebalance()

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        """A rebalance waits for the checkpoint of a stop: the group takes its commit until partitions are let go."""
        if self.should_stop:
            await self.saved.wait()
        await super()._on_partitions_revoked(revoked)

    def _on_rebalance_when_stopped(self) -> None:
        """Faust would close the connection by which that checkpoint is committed; it does so anyway when it stops."""
        if self.saved.is_set():
            super()._on_rebalance_when_stopped()

    async def _stop_consumer(self) -> None:
        if self.before_stop is not None:
            await self.before_stop()
        self.saved.set()
        await super()._stop_consumer()


class FaustWorker:
    """Ties Faust's callbacks to the shell."""

    def __init__(self, ready: Ready) -> None:
        self.config = ready.config
        self.app: Any = App(ready.config.kafka.group, **settings(ready.config))
        self.shell = Shell(ready, self._generation, self._still_ours)
        self.app.transport = transport_of(self.app, self.config, self.shell.cover, self.shell.polled)
        self.app.before_stop = self._before_stop
        self.app.after_rebalance = self._after_rebalance
        self.lanes: Lanes[Told] = Lanes(self._slice, fitting(ready.config), joined)
        self._seeks: set[asyncio.Task[None]] = set()
        self._loads: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()
        self.save_s = ready.config.worker.stop_s
        self._make_table(ready.partitions)
        topic = self.app.topic(self.config.topics.requests, schema=PassThrough(), partitions=ready.partitions)
        self.app.agent(topic, concurrency=1, name="slices")(self._slices)
        revoked: Any = self.app.on_partitions_revoked
        revoked.connect(self._on_revoked, weak=False)

    def _generation(self) -> int:
        return int(self.app.consumer_generation_id)

    async def _still_ours(self, number: int, offset: int) -> bool:
        return bool(await self.app.consumer.still_ours(TP(self.config.topics.requests, number), offset))

    def _make_table(self, partitions: int) -> None:
        PageTable.topic_name = self.config.topics.pages
        table: Any = self.app.Table(
            "pages", partitions=partitions, key_type=bytes, value_type=bytes, on_recover=self._on_recover
        )
        table.assigned = self._assigned
        self.table = table

    # --- recovery: Faust reads nothing (`PageTable`), tells what is assigned, and when to load it

    def _assigned(self, tp: TP) -> None:
        """Called at each assignment: the rule of generations decides here, once, which arrays are kept.

        What is kept is not read, so nothing may change that later: not a checkpoint that is on its way meanwhile.
        """
        if not self.shell.kept(tp.partition):
            self.shell.drop(tp.partition)
            self.shell.unsettle()

    async def _on_recover(self) -> None:
        """Faust swallows what is raised in here, so this ends the process itself; a stop cuts it off."""
        if self.shell.stopping:
            return
        load = asyncio.create_task(guarded(self._load_in_turn()))
        self._loads.add(load)
        load.add_done_callback(self._loads.discard)
        await asyncio.wait([load])

    async def _load_in_turn(self) -> None:
        """Two rebalances in a row may ask for it twice in the second's generation, at once.

        Then each read the same state and wrote with the same epoch: whoever came after them found the manifests of two
        writers and could not go on, for ever.
        """
        async with self._loading:
            await self._load_assigned()

    async def _load_assigned(self) -> None:
        kafka, topics, generation = self.config.kafka, self.config.topics, self._generation()
        numbers = [tp.partition for tp in self.app.consumer.assignment() if tp.topic == topics.requests]
        committed = await committed_offsets(kafka, topics.requests)
        if self._generation() != generation:
            return  # what is assigned now has a load of its own
        self.app.consumer.joining(False)
        await self.shell.take(numbers, partial(pages_in_turn, kafka, topics.pages), committed)

    # --- slices

    async def _slices(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self.lanes.put(event.message.tp.partition, (event.message.generation_id, event.message.value))

    async def _slice(self, told: Told) -> None:
        generation, fetched = told
        if generation != self.app.consumer_generation_id:
            return
        try:
            number = fetched.records.partition
            fresh = fetched.breaks == self.app.consumer.positions.breaks(number)
            seek = await self.shell.handle(fetched, fresh)
            if seek is not None:
                await self.app.consumer.seek_back(TP(self.config.topics.requests, number), seek)
        except Exception as error:  # noqa: BLE001
            end_process(error)

    def _after_rebalance(self) -> None:
        """Every partition goes on exactly where its state ends, whatever Faust fetched and lost meanwhile."""
        for number in self.shell.owned:
            task = asyncio.create_task(guarded(self._seek(number)))
            self._seeks.add(task)
            task.add_done_callback(self._seeks.discard)

    async def _seek(self, number: int) -> None:
        owned = self.shell.owned.get(number)
        if owned is not None:
            await self.app.consumer.seek_back(TP(self.config.topics.requests, number), owned.expected)

    async def keep_nudging(self) -> None:
        """A slice that Faust lost at the log's end has none behind it that would tell: look for lag without work."""
        while True:
            await asyncio.sleep(NUDGE_S / 3)
            for number in self.shell.waiting(NUDGE_S):
                owned = self.shell.owned.get(number)  # a rebalance may come while another one is nudged
                if owned is not None:
                    with unless_revoked():
                        await self._nudge(number, owned)

    async def _nudge(self, number: int, owned: Owned) -> None:
        position = await self.app.consumer.position(TP(self.config.topics.requests, number))
        if owned.nudges >= MOST_NUDGES and position is not None and position >= self.shell.ends[number]:
            log.warning("partition %d: no record lies in [%d, %d)", number, owned.expected, position)
            owned.empty_to = position  # read to the end several times
            return
        log.info("partition %d: records wait and none came for %.0f s, its position is set again", number, NUDGE_S)
        owned.nudges += 1
        owned.active_at = time.monotonic()
        await self._seek(number)

    # --- letting go

    async def _on_revoked(self, app: Any, revoked: Iterable[TP], **_: Any) -> None:
        if self.shell.stopping:
            return
        if revoked and self.shell.owned:
            reach("in_revoke")
            self.shell.unsettle()
            await self._save(self.config.kafka.session_timeout_s / 2, "partitions are revoked")
        self.app.consumer.joining(True)

    async def _before_stop(self) -> None:
        self.shell.stopping = True
        self.shell.health.stopping()
        for load in list(self._loads):  # nobody waits for it, and what it needs is stopped now
            load.cancel()
        if not await self._save(self.save_s, "stop"):
            end_process(Fatal(f"not all is in a checkpoint within worker.stop_s ({self.config.worker.stop_s} s)"))

    async def _save(self, within_s: float, why: str) -> bool:
        began = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                await self.shell.checkpoint_all()
                if not await self.app.consumer.commit():  # it only waited for another commit, maybe of less
                    await self.app.consumer.commit()
        except TimeoutError:
            log.warning("%s: no checkpoint within %.1f s; what follows the last one is replayed", why, within_s)
            return False
        except Exception as error:  # noqa: BLE001
            end_process(error)
        return self.shell.saved(why, time.monotonic() - began)


async def run(config: Config, parts: Parts) -> int:
    """Work until SIGTERM or SIGINT. Raises ConfigError and Fatal before the group is joined."""
    async with prepare(config, parts) as ready:
        worker = FaustWorker(ready)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        return await _until_stopped(worker, stop)


async def _until_stopped(worker: FaustWorker, stop: asyncio.Event) -> int:
    app, config = worker.app, worker.config
    works = [*tasks_of(worker.shell), worker.keep_nudging(), app.start()]
    tasks = [asyncio.create_task(guarded(work)) for work in works]
    stopped = asyncio.create_task(stop.wait())
    crashed = asyncio.create_task(app._crashed.wait())
    await asyncio.wait([stopped, crashed], return_when=asyncio.FIRST_COMPLETED)
    if crashed.done():
        end_process(Fatal(f"Faust crashed: {app.crash_reason!r}"))
    loop = asyncio.get_running_loop()
    loop.call_later(config.worker.stop_s + 15.0, end_process, Fatal("Faust did not stop in time"))
    worker.save_s = await worker.shell.drain()
    await app.stop()
    await worker.lanes.close()
    for task in [*tasks, crashed]:
        await cancel_and_wait(task)
    await worker.shell.close()
    log.info("stopped")
    return 0


def main(config: Config, parts: Parts | None = None) -> int:
    """Run the worker; returns the exit code. Errors before the start are one clear line."""
    return exit_code(run(config, parts or production_parts()))


__all__ = ["EXIT_FATAL", "main"]
