"""One deployment on the test cluster: topics of its own, worker processes, and what came out against the truth.

The truth is the counting core over the log, read from the topic in one pass: what a run without any fault gives.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from aiokafka import TopicPartition

from pipeline.config.tree import Config
from pipeline.records import of_records
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.kafka import Producer, fetched_highwaters, read_pages, side_consumer
from pipeline.sinks.topics import ensure_topics, partitions_of
from pipeline.state.recover import fill, load
from schemas.incident import Incident
from tests.kafka.cluster import PATIENCE
from tests.kafka.recovery import NOT_NOW
from tests.kafka.run_worker import config_of
from tests.pipeline.counting_core import SIDES, CountingCore
from tests.pipeline.log_of_requests import Record

T = TypeVar("T")
ROOT: Final = Path(__file__).parents[2]
PARTITIONS: Final = 4
BUSY: Final = 3
"""Partition 3 stays idle."""
DRAIN_S: Final = 120.0 * PATIENCE


@dataclass(frozen=True)
class Outcome:
    """What can be seen from outside: all must equal the truth."""

    counts: dict[str, int]
    incidents: dict[tuple[str, int], tuple[int, int]]  # (id, revision) -> (partition, offset)
    rows: dict[str, int]  # newest version of each key's row


@dataclass
class Deployment:
    """Topics under a prefix and the workers started on them."""

    brokers: str
    prefix: str
    folder: Path
    runner: str = "faust"
    settings: dict[str, Any] = field(default_factory=dict)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    produced: int = 0
    core: str = "counting"
    partitions: int = PARTITIONS
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run(ensure_topics(self.config))

    @property
    def config(self) -> Config:
        """As the workers have it."""
        return config_of(self.brokers, self.prefix, self.settings)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """A coroutine to its end."""
        return asyncio.run(work)

    def produce(self, count: int) -> None:
        """Records of 40 keys over the busy partitions, now and then poison."""
        self.run(self._produce(range(self.produced, self.produced + count)))
        self.produced += count

    def produce_until(self, done: Callable[[], bool]) -> None:
        """A few records at a time."""
        until = time.monotonic() + DRAIN_S
        while not done():
            assert time.monotonic() < until, f"not in time; {self.log_of(self.workers[-1])[-3000:]}"
            self.produce(60)
            time.sleep(0.2)

    async def _produce(self, numbers: range) -> None:
        producer = Producer(self.config.kafka)
        await producer.start()
        topic = self.config.topics.requests
        for start in range(numbers.start, numbers.stop, 500):
            part = range(start, min(start + 500, numbers.stop))
            await asyncio.gather(
                *[producer.publish(topic, b"k%d" % (n % 40), _value(n), partition=n % 40 % BUSY) for n in part]
            )
        await producer.close()

    def start(self, fault: str = "") -> subprocess.Popen[bytes]:
        """A worker process; with `fault` it kills itself there."""
        env = dict(os.environ) | {
            "KW_BROKERS": self.brokers,
            "KW_FOLDER": str(self.folder),
            "KW_RUNNER": self.runner,
            "KW_PREFIX": self.prefix,
            "KW_CORE": self.core,
            "KW_SETTINGS": json.dumps(self.settings),
            "KEYWATCH_FAULT": fault,
        }
        env |= self.environment
        command = ["timeout", "-s", "KILL", str(4 * DRAIN_S), sys.executable, "-m", "tests.kafka.run_worker"]
        with (self.folder / f"worker{len(self.workers)}.log").open("wb") as out:
            worker = subprocess.Popen(command, env=env, cwd=ROOT, stdout=out, stderr=out)
        self.workers.append(worker)
        return worker

    def step_clock(self, worker: subprocess.Popen[bytes], seconds: float) -> None:
        """A running worker's wall clock is set forth or back by so much, from where it is."""
        (self.folder / "clock").write_text(str(seconds))
        os.kill(pid_of(worker), signal.SIGUSR2)
        self.wait(lambda: not (self.folder / "clock").exists(), "the clock steps")

    def log_of(self, worker: subprocess.Popen[bytes]) -> str:
        """What a worker wrote."""
        return (self.folder / f"worker{self.workers.index(worker)}.log").read_text()

    def most_memory_mb(self, worker: subprocess.Popen[bytes]) -> float:
        """Highest resident size so far."""
        return _memory_mb(worker, "VmHWM")

    def memory_mb(self, worker: subprocess.Popen[bytes]) -> float:
        """Resident size now."""
        return _memory_mb(worker, "VmRSS")

    def wait_drained(self) -> None:
        """Until everything produced is committed."""
        self.wait(lambda: self.committed() == self.ends(), f"drained: {self.prefix}")

    def wait_session_over(self) -> None:
        """Until the broker has forgotten a killed member: the two runners' group protocols cannot share a group."""
        time.sleep(self.config.kafka.session_timeout_s + 1.0)

    def wait_ready(self, worker: subprocess.Popen[bytes]) -> None:
        """Until it has loaded what it was assigned."""
        self.wait(lambda: "next offset" in self.log_of(worker), "loaded")

    def wait(self, done: Callable[[], bool], what: str, most_s: float = DRAIN_S) -> None:
        """Until `done`, at most so long. A broker that does not answer just then is asked again."""
        until, trouble = time.monotonic() + most_s, ""
        while True:
            try:
                if done():
                    return
                trouble = ""
            except NOT_NOW as error:
                trouble = f" ({error})"
            if time.monotonic() > until:
                logs = "\n".join(f"--- {self.log_of(w)[-3000:]}" for w in self.workers)
                raise AssertionError(f"not in time: {what}{trouble}\n{logs}")
            time.sleep(0.2)

    def committed(self) -> dict[int, int]:
        """Offsets of the group, without those at 0."""
        found = self.run(committed_offsets(self.config.kafka, self.config.topics.requests))
        return {partition: offset for partition, offset in found.items() if offset}

    def ends(self) -> dict[int, int]:
        """Ends of the log, without empty partitions."""
        found = self.run(fetched_highwaters(self.config.kafka, self.config.topics.requests, range(self.partitions)))
        return {partition: end for partition, end in found.items() if end}

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        """SIGTERM; returns the exit code."""
        os.kill(pid_of(worker), signal.SIGTERM)
        return worker.wait(40 * PATIENCE)

    def kill_all(self) -> None:
        """Whatever still runs."""
        for worker in self.workers:
            if worker.poll() is None:
                os.kill(pid_of(worker), signal.SIGKILL)
                worker.wait(10)

    # --- what came out

    def manifests(self) -> dict[int, int]:
        """next_offset of each partition's newest manifest, without empty ones."""
        pages = self.run(read_pages(self.config.kafka, self.config.topics.pages, range(PARTITIONS)))
        found = {number: load(number, each, None).next_offset for number, each in pages.items()}
        return {number: offset for number, offset in found.items() if offset > 0}

    def seen(self) -> Outcome:
        """State from the pages topic, incidents from their topic, rows from the file."""
        pages = self.run(read_pages(self.config.kafka, self.config.topics.pages, range(PARTITIONS)))
        counts: dict[str, int] = {}
        for number, each in pages.items():
            core = CountingCore(number, self.config, SIDES, "")
            fill(core, load(number, each, None))
            counts |= core.counts()
        return Outcome(counts, self.seen_incidents(), self._rows())

    def seen_incidents(self) -> dict[tuple[str, int], tuple[int, int]]:
        """(id, revision) -> (partition, offset) as published."""
        values = self.run(read_topic(self.config, self.config.topics.incidents))
        incidents = [msgspec.json.decode(record.value, type=Incident) for record in values]
        return {(i.incident_id, i.revision): (i.partition, i.offset) for i in incidents}

    def _rows(self) -> dict[str, int]:
        newest: dict[str, tuple[int, int]] = {}
        for line in (self.folder / "rows.jsonl").read_text().splitlines():
            row = json.loads(line)
            mark = (row["version"], row["count"])
            assert newest.get(row["key_id"], (-1, 0))[0] != row["version"] or newest[row["key_id"]] == mark, row
            newest[row["key_id"]] = max(newest.get(row["key_id"], (-1, 0)), mark)
        return {key: count for key, (_, count) in newest.items()}

    def truth(self) -> Outcome:
        """The same three from one clean pass over the log."""
        by_partition: dict[int, list[Any]] = {}
        for record in self.run(read_topic(self.config, self.config.topics.requests)):
            by_partition.setdefault(record.partition, []).append(record)
        counts: dict[str, int] = {}
        incidents: dict[tuple[str, int], tuple[int, int]] = {}
        for number, records in by_partition.items():
            core = CountingCore(number, self.config, SIDES, "")
            effects = core.process(of_records(records).part("", number, 0, len(records)))  # knows ticks: no events
            counts |= core.counts()
            incidents |= {(i.incident_id, i.revision): (i.partition, i.offset) for i in effects.incidents}
        return Outcome(counts, incidents, dict(counts))


def _memory_mb(worker: subprocess.Popen[bytes], name: str) -> float:
    status = Path(f"/proc/{pid_of(worker)}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def produce(deployment: Deployment, records: Iterable[Record]) -> None:
    """Keyed as producers do it, with the event's time as timestamp."""

    async def send() -> None:
        producer = Producer(deployment.config.kafka)
        await producer.start()
        topic = deployment.config.topics.requests
        for key, value, timestamp_ms in records:
            await producer._producer.send(topic, value, key=key, timestamp_ms=timestamp_ms)
        await producer.close()

    asyncio.run(send())


def _value(number: int) -> bytes:
    return b"poison" if number % 301 == 300 else b"k%d %d" % (number % 40, number)


def pid_of(worker: subprocess.Popen[bytes]) -> int:
    """The worker itself, under the guard that bounds its life."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return int(children[0]) if children else worker.pid


def last_words(deployment: Deployment, worker: subprocess.Popen[bytes]) -> str:
    """The critical line; there must be one, and no traceback beside it."""
    text = deployment.log_of(worker)
    lines = [line for line in text.splitlines() if " CRITICAL " in line]
    assert len(lines) == 1, text[-3000:]
    assert "Traceback" not in text.split(lines[0])[1], text[-3000:]
    return lines[0]


async def read_topic(config: Config, topic: str, since: Mapping[int, int] | None = None) -> list[Any]:
    """All records from these offsets on (partition -> offset, 0 by default), in order within each partition."""
    since = since or {}
    count = (await partitions_of(config.kafka, [topic]))[topic]
    ends = await fetched_highwaters(config.kafka, topic, range(count))
    records: list[Any] = []
    waiting = {TopicPartition(topic, partition) for partition, end in ends.items() if end > since.get(partition, 0)}
    if not waiting:  # a consumer that is stopped as soon as it starts raises
        return records
    async with side_consumer(config.kafka) as consumer:
        consumer.assign(list(waiting))
        await consumer.seek_to_beginning()
        for tp in waiting:
            if tp.partition in since:
                consumer.seek(tp, since[tp.partition])
        while waiting:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
            waiting = {tp for tp in waiting if await consumer.position(tp) < ends[tp.partition]}
    return records
