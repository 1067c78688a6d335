"""`keywatch bench`: what one process of this machine does, and how near that is to what Kafka and Python allow.

One run, one machine, interleaved: each repetition fills a topic of its own, then measures consume and decode alone,
the whole worker and a plain Faust agent. All rates are over the log from its first fifth to its end. Medians, with
the lowest and highest repetition. Broker and ClickHouse run on the same processors, and count as they would there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from pipeline import private
from pipeline.bench import load, steps, whole
from pipeline.config import ClickHouse, Config, Kafka, Topics
from pipeline.demo import broker, product
from pipeline.demo.children import Children, last_words
from pipeline.errors import Fatal
from pipeline.sinks.topics import PAGES_CONFIG, TopicSpec, create_topics
from pipeline.warm import warm_up

AGENT_SHARE: Final = 0.02
"""Of the events, for the plain agent, which takes that much longer for each."""
STEPS_SHARE: Final = 0.25


@dataclass(slots=True)
class Rates:
    """Events per second, one of each per repetition."""

    ceiling: list[float] = field(default_factory=list)
    worker: list[float] = field(default_factory=list)
    faust: list[float] = field(default_factory=list)


class Bench:
    """One run: its processes and what it has measured."""

    def __init__(self, children: Children, settings: load.Load, brokers: str, clickhouse_url: str) -> None:
        self.children = children
        self.load = settings
        self.agent_load = msgspec.structs.replace(settings, events=max(2_000, round(settings.events * AGENT_SHARE)))
        self.kafka = Kafka(brokers=brokers, partitions=settings.partitions)
        self.clickhouse_url = clickhouse_url
        self.start_us = (time.time_ns() // 60_000_000_000 - 60) * 60_000_000
        self.rates = Rates()

    async def repeat(self) -> None:
        """One repetition, with topics and groups that nobody has used."""
        run = f"bench-{os.urandom(4).hex()}"
        port = broker.free_port()
        path = self.children.folder / f"{run}.toml"
        text = whole.config_text(self.kafka.brokers, self.clickhouse_url, run, self.load.partitions, port)
        private.write(path, text.encode())
        requests, agents = f"{run}.requests", f"{run}.agent"
        await self._create(run, requests, agents)
        await load.fill(self.kafka, requests, self.load, self.start_us)
        await load.fill(self.kafka, agents, self.agent_load, self.start_us)
        self.rates.ceiling.append(await self._ask("ceiling", requests, self.load.events))
        self.rates.worker.append(await whole.measure(self.children, path, port, self.load.events))
        self.rates.faust.append(await self._ask("plain_agent", agents, self.agent_load.events, f"{run}-agent"))

    async def _create(self, run: str, requests: str, agents: str) -> None:
        pages = TopicSpec(f"{run}.pages", self.load.partitions, PAGES_CONFIG)
        one = [
            TopicSpec(f"{run}.{name}", 1, {}) for name in Topics.__struct_fields__ if name not in ("requests", "pages")
        ]
        logs = [TopicSpec(name, self.load.partitions, {}) for name in (requests, agents)]
        await create_topics(self.kafka, [*logs, pages, *one])

    async def _ask(self, module: str, topic: str, total: int, *more: str) -> float:
        """A module of this package as a process of its own; the last line that it prints is the rate."""
        arguments = [self.kafka.brokers, topic, str(self.load.partitions), str(total), *more]
        child = await self.children.start(module, [sys.executable, "-m", f"pipeline.bench.{module}", *arguments])
        try:
            async with asyncio.timeout(whole.LIMIT_S):
                code = await child.process.wait()
        except TimeoutError:
            await self.children.stop(child)
            raise Fatal(f"{module} did not end in {whole.LIMIT_S:.0f} s: {last_words(child.log)}") from None
        finally:
            self.children.all.remove(child)
        if code:
            raise Fatal(f"{module} ended with code {code}: {last_words(child.log)}")
        return float(child.log.read_text().split()[-1])


def main(as_json: bool = False, given: str = "", events: int = 0, repeats: int = 3) -> int:
    """Measure and print; returns the exit code. Raises ConfigError without a broker, Fatal where a part fails."""
    settings = load.Load() if not events else load.Load(events=events)
    console = Console(stderr=as_json)
    folder = Path(tempfile.mkdtemp(prefix="keywatch-bench-"))
    try:
        result = asyncio.run(_run(Children(folder, {}), settings, given, repeats, console))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    else:
        show(result, console)
    return 0


async def _run(children: Children, settings: load.Load, given: str, repeats: int, console: Console) -> dict[str, Any]:
    console.print("Compiling, starting the broker and ClickHouse ...")
    await asyncio.to_thread(warm_up)
    try:
        brokers = given or (await broker.start(children))[1]
        url = await product.start_database(children)
        bench = Bench(children, settings, brokers, url)
        for number in range(repeats):
            console.print(f"repetition {number + 1} of {repeats} ...")
            await bench.repeat()
            console.print(_line(bench.rates))
        console.print("the core's steps ...")
        share = msgspec.structs.replace(settings, events=max(10_000, round(settings.events * STEPS_SHARE)))
        ns, size = await asyncio.to_thread(steps.measure, share, bench.start_us, ClickHouse(url=url))
        return report(bench, ns, size, "given" if given else "embedded")
    finally:
        await children.stop_all()


def _line(rates: Rates) -> str:
    return f"  ceiling {rates.ceiling[-1]:,.0f}/s, worker {rates.worker[-1]:,.0f}/s, agent {rates.faust[-1]:,.0f}/s"


def report(bench: Bench, ns: dict[str, float], bytes_per_key: float, where: str) -> dict[str, Any]:
    """All figures and what they were measured with."""
    rates = bench.rates
    ceiling, worker, agent = (statistics.median(each) for each in (rates.ceiling, rates.worker, rates.faust))
    return {
        "ceiling_eps": round(ceiling), "worker_eps": round(worker), "faust_eps": round(agent),
        "worker_over_ceiling": round(worker / ceiling, 3), "worker_over_faust": round(worker / agent, 1),
        "ns": ns, "bytes_per_key": round(bytes_per_key, 1),
        "spread": {
            "ceiling_eps": _spread(rates.ceiling),
            "worker_eps": _spread(rates.worker),
            "faust_eps": _spread(rates.faust),
        },
        "parameters": {
            **msgspec.to_builtins(bench.load), "agent_events": bench.agent_load.events, "repeats": len(rates.worker),
            "broker": where, "processors": os.cpu_count(), "slice_events": Config().worker.slice_events,
            "python": ".".join(map(str, sys.version_info[:3])),
        },
    }  # fmt: skip


def _spread(values: list[float]) -> list[int]:
    return [round(min(values)), round(max(values))]


def show(result: dict[str, Any], console: Console) -> None:
    """The report for people."""
    table = Table("", "events/s", "lowest - highest", box=None)
    for name, text in (
        ("ceiling_eps", "consume + decode alone"), ("worker_eps", "whole worker"), ("faust_eps", "plain Faust agent"),
    ):  # fmt: skip
        low, high = result["spread"][name]
        table.add_row(text, f"{result[name]:,}", f"{low:,} - {high:,}")
    console.print(table)
    console.print(
        f"worker = {result['worker_over_ceiling']} of consume + decode, {result['worker_over_faust']} x the plain agent"
    )
    console.print("ns per event: " + ", ".join(f"{step} {ns:,.0f}" for step, ns in result["ns"].items()))
    console.print(f"state: {result['bytes_per_key']:,} bytes per key")
    console.print("measured with: " + ", ".join(f"{name} {value}" for name, value in result["parameters"].items()))
