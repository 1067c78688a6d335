"""One use of the worker: a fresh group, fresh topics, empty state; the request log may be shared with other trials."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from pipeline import private
from pipeline.config.tree import Kafka, Topics
from pipeline.demo import broker
from pipeline.demo.children import Child, Children
from pipeline.sinks.topics import PAGES_CONFIG, TopicSpec, create_topics

ALLOW_S: Final = 300.0
"""No trial and no peer may take longer."""
_CONSUMED: Final = re.compile(r"^keywatch_events_consumed_total\{[^}]*\} (\S+)$", re.MULTILINE)
_ROWS: Final = re.compile(r'^keywatch_clickhouse_insert_rows_total\{table="([^"]+)"\} (\S+)$', re.MULTILINE)
_LAG: Final = re.compile(r"^keywatch_consumer_lag_records\{[^}]*\} (\S+)$", re.MULTILINE)
_REPEATS: Final = re.compile(r"^keywatch_events_duplicate_total (\S+)$", re.MULTILINE)
_REJECTED: Final = re.compile(r"^keywatch_events_rejected_total\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Progress:
    """What one worker's /metrics say. `rows`: acknowledged by ClickHouse, by table; `lag`: -1 if it does not answer."""

    consumed: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    lag: int = -1
    repeats: int = 0
    rejected: int = 0

    @property
    def done(self) -> int:
        """Events that were judged and whose row is acknowledged."""
        return min(self.consumed, self.rows.get("requests", 0))

    @property
    def told(self) -> str:
        """Where events are that are not done: not read, dropped, or read and without a row."""
        return (
            f"read {self.consumed}, taken for repeats {self.repeats}, rejected {self.rejected},"
            f" rows acknowledged {self.rows.get('requests', 0)}"
        )


def parse(metrics: str) -> Progress:
    """From Prometheus' text."""
    rows: dict[str, int] = {}
    for table, count in _ROWS.findall(metrics):
        rows[table] = rows.get(table, 0) + round(float(count))
    found = (_sum(each.findall(metrics)) for each in (_CONSUMED, _LAG, _REPEATS, _REJECTED))
    consumed, lag, repeats, rejected = found
    return Progress(consumed, rows, lag, repeats, rejected)


def _sum(found: Sequence[str]) -> int:
    return round(sum(float(each) for each in found))


async def metrics_of(session: aiohttp.ClientSession, port: int) -> str:
    """What the worker tells now. Raises ClientError."""
    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
        return await response.text()


async def ask(session: aiohttp.ClientSession, port: int) -> Progress:
    """One worker's progress; nothing while it does not answer."""
    try:
        return parse(await metrics_of(session, port))
    except aiohttp.ClientError:
        return Progress()


@dataclass(frozen=True, slots=True)
class Trial:
    """Names and addresses. `requests`: the log to read; "" is one of its own."""

    children: Children
    kafka: Kafka
    clickhouse_url: str
    requests: str = ""
    run: str = field(default_factory=lambda: f"bench-{os.urandom(4).hex()}")

    @property
    def log(self) -> str:
        """The request topic."""
        return self.requests or f"{self.run}.requests"

    @property
    def incidents(self) -> str:
        """The topic of incidents."""
        return f"{self.run}.incidents"

    async def create(self, *more: str) -> None:
        """All topics, and `more` with as many partitions as the log."""
        partitions = self.kafka.partitions
        small = [name for name in Topics.__struct_fields__ if name not in ("requests", "pages")]
        logs = [name for name in (*more, "" if self.requests else self.log) if name]
        specs = [TopicSpec(f"{self.run}.pages", partitions, PAGES_CONFIG)]
        specs += [TopicSpec(f"{self.run}.{name}", 1, {}) for name in small]
        await create_topics(self.kafka, [*specs, *(TopicSpec(name, partitions, {}) for name in logs)])

    async def start(self) -> tuple[Child, int]:
        """A worker as an operator runs it, and the port of its metrics."""
        port = broker.free_port()
        path = self.children.folder / f"{self.run}-{port}.toml"
        private.write(path, self.config_text(port).encode())
        worker = [sys.executable, "-m", "pipeline.cli.main", "worker", "--config", str(path)]
        return await self.children.start(f"worker-{port}", worker), port

    async def stop(self, child: Child) -> None:
        """End it and forget it."""
        await self.children.stop(child)
        self.children.all.remove(child)

    def config_text(self, port: int) -> str:
        """The worker's configuration: its defaults, but for names and addresses."""
        names = "\n".join(f'{name} = "{self.run}.{name}"' for name in Topics.__struct_fields__ if name != "requests")
        return f"""\
[kafka]
brokers = "{self.kafka.brokers}"
group = "{self.run}"
partitions = {self.kafka.partitions}
replication = {self.kafka.replication}
rebalance_timeout_s = {self.kafka.rebalance_timeout_s}

[topics]
requests = "{self.log}"
{names}

[clickhouse]
url = "{self.clickhouse_url}"

[worker]
metrics_port = {port}
"""


def median_of(values: Sequence[Any]) -> float | None:
    """None where nothing was measured."""
    kept = sorted(float(value) for value in values if value is not None)
    middle = len(kept) // 2
    return None if not kept else (kept[middle] if len(kept) % 2 else (kept[middle - 1] + kept[middle]) / 2)
