"""`keywatch bench`: what one process of this machine does, and how near that is to what Kafka and Python allow.

One run, one machine, interleaved: each repetition fills a topic of its own, then measures consume and decode alone,
the whole worker, two workers of one group, and the peers (`pipeline/bench/peers.py`), each with the same detections
per event. Rates are over the log from its first fifth to its end; medians, with the lowest and highest repetition;
ratios are taken within a repetition. Then the time from an event to its incident at fixed loads, then the core's steps.
A part that fails is told and null, the others go on; without ceiling and worker there is nothing to tell.
Broker and ClickHouse run on the same processors, and count as they would there; but for scaling and latency rows go to
a server that only acknowledges them (`elsewhere.py`), since ClickHouse takes nearly as much for an event as a worker:
two workers and it are three on two processors. `--clickhouse-here` measures them with it all the same.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from rich.console import Console

from pipeline.bench import elsewhere, latency, load, peers, processes, profile, scaling, steps, whole
from pipeline.bench.attacks import Attacks
from pipeline.bench.clock import Pace
from pipeline.bench.report import Found, report, show
from pipeline.bench.trial import Trial, median_of
from pipeline.config.tree import ClickHouse, Config, Kafka
from pipeline.demo import broker, product
from pipeline.demo.children import Children
from pipeline.errors import ConfigError, Fatal
from pipeline.warm import warm_up

T = TypeVar("T")
PEERS_SHARE: Final = 0.02
"""Of the events, for the peers, which take that much longer for each."""
PEERS_LEAST: Final = 6_000
STEPS_SHARE: Final = 0.25
PARTS: Final = ("rates", "peers", "scaling", "latency", "steps")
SCALING: Final = (
    ("one_worker_eps", 1, False),
    ("two_workers_eps", 2, False),
    ("one_pinned_eps", 1, True),
    ("two_pinned_eps", 2, True),
)
"""Rate, workers, whether each has one processor and no more."""
LOADS: Final = (
    ("1,000/s", 1_000.0, 0.0), ("5,000/s", 5_000.0, 0.0), ("half", 0.5, 0.0), ("most", 0.9, 0.0), ("hot", 0.5, 0.3),
)  # fmt: skip
"""Name, events per second, or, up to 1, the share of what is sustained beside a live producer, share of one key in its
partition's traffic."""
SUSTAINED: Final = Attacks(count=1, seconds=12.0)
EMBEDDED_REBALANCE_S: Final = 3.0
"""The embedded broker waits half of it whenever somebody joins; Apache Kafka does not, and gets its default."""
ATTACKS: Final = Attacks(count=150, seconds=30.0)
"""A hundred requests of thieves a second. They were 533 once, so that at 1,000 events a second every third was."""


class Bench:
    """One run: its processes and what it has measured."""

    def __init__(
        self, children: Children, settings: load.Load, brokers: str, url: str, elsewhere: str, embedded: bool = False
    ) -> None:
        """`url`: ClickHouse; `elsewhere`: where rows go in scaling and latency."""
        self.children = children
        self.load = settings
        few = max(PEERS_LEAST, round(settings.events * PEERS_SHARE))
        self.peer_load = msgspec.structs.replace(settings, events=few)
        replicas = min(3, brokers.count(",") + 1)  # as many as there are brokers, as in production
        self.kafka = Kafka(
            brokers=brokers, partitions=settings.partitions, replication=replicas,
            rebalance_timeout_s=EMBEDDED_REBALANCE_S if embedded else Kafka().rebalance_timeout_s,
        )  # fmt: skip
        self.clickhouse_url, self.elsewhere = url, elsewhere
        self.start_us = (time.time_ns() // 60_000_000_000 - 60) * 60_000_000
        self.found = Found(key_minutes_per_event=load.key_minutes(settings) / settings.events)

    def trial(self, requests: str = "", url: str = "") -> Trial:
        """A fresh one."""
        return Trial(self.children, self.kafka, url or self.clickhouse_url, requests)

    async def filled(self) -> Trial:
        """A trial whose log is written."""
        trial = self.trial()
        await trial.create()
        await load.fill(self.kafka, trial.log, load.events(self.load, self.start_us))
        return trial

    async def repeat(self, parts: Sequence[str]) -> None:
        """One repetition, with topics and groups that nobody has used."""
        trial = await self.filled()
        ceiling = [self.kafka.brokers, trial.log, str(self.load.partitions), str(self.load.events)]
        self._keep("ceiling_eps", await peers.ask(self.children, "ceiling", ceiling))
        servers = processes.servers(self.kafka.brokers, self.clickhouse_url)
        done = await whole.measure(trial, self.load.events, servers)
        self._keep("worker_eps", done.pace)
        self.found.start_s.append(done.start_s)
        self.found.rows_per_event.append(done.rows_per_event)
        if "scaling" in parts:
            await self._scaling(trial.log)
        if "peers" in parts:
            await self._peers(trial)

    async def _scaling(self, log: str) -> None:
        servers = processes.servers(self.kafka.brokers, self.elsewhere)
        for key, workers, pinned in SCALING:
            if pinned and not scaling.can_pin(2):
                continue
            trial = self.trial(log, self.elsewhere)
            await trial.create()
            done = await self._part(key, scaling.measure(trial, workers, self.load.events, servers, pinned))
            self.found.rates[key].append(done.per_s if done else None)
            spent = self.found.spent.setdefault(f"{workers} pinned" if pinned else str(workers), [])
            spent.append(done.cpu_us if done else {})

    async def _peers(self, trial: Trial) -> None:
        topic, events = f"{trial.run}.peers", self.peer_load.events
        await self.trial(trial.log).create(topic)
        await load.fill(self.kafka, topic, load.events(self.peer_load, self.start_us))
        for peer in filter(peers.installed, peers.PEERS):
            rate = peers.measure(self.children, peer, self.kafka.brokers, topic, self.load.partitions, events)
            self._keep(peer.key, await self._part(peer.key, rate))

    def _keep(self, key: str, pace: Pace | None) -> None:
        self.found.rates[key].append(pace.per_s if pace else None)
        self.found.cpu_us.setdefault(key, []).append(pace.cpu_us if pace else None)

    async def _part(self, name: str, work: Awaitable[T]) -> T | None:
        try:
            return await work
        except Fatal as error:
            self.found.failed[name] = str(error)
            return None

    async def latencies(self, console: Console) -> None:
        """At fixed rates and at shares of what is sustained."""
        worker = median_of(self.found.rates["worker_eps"]) or 0.0
        console.print("what is sustained while events are produced ...")
        sustained = await self._part("sustained", latency.sustained(self.trial(url=self.elsewhere), SUSTAINED, worker))
        self.found.sustained_eps = sustained
        for name, load_, hot in LOADS:
            if (per_s := load_ if load_ > 1 else load_ * (sustained or 0.0)) > 0:
                console.print(f"event to incident, {name} ...")
                work = latency.measure(self.trial(url=self.elsewhere), ATTACKS, per_s, hot)
                if (found := await self._part(f"latency {name}", work)) is not None:
                    self.found.latency[name] = found

    async def steps(self) -> None:
        """The core in this process."""
        share = msgspec.structs.replace(self.load, events=max(10_000, round(self.load.events * STEPS_SHARE)))
        url = ClickHouse(url=self.clickhouse_url)
        self.found.ns, self.found.bytes_per_key = await asyncio.to_thread(steps.measure, share, self.start_us, url)


def main(
    as_json: bool = False,
    given: str = "",
    events: int = 0,
    repeats: int = 3,
    only: str = "",
    profiled: bool = False,
    here: bool = False,
) -> int:
    """Measure and print; returns the exit code. Raises ConfigError without a broker, Fatal where a part fails."""
    parts = parts_of(only)
    settings = load.Load() if not events else load.Load(events=events)
    console = Console(stderr=as_json)
    folder = Path(tempfile.mkdtemp(prefix="keywatch-bench-"))
    children = Children(folder, {"TMPDIR": str(folder)})  # the peers leave their stores behind
    try:
        result = asyncio.run(_run(children, settings, given, repeats, console, () if profiled else parts, here))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    elif profiled:
        profile.show(result, console)
    else:
        show(result, console)
    return 0


def parts_of(only: str) -> tuple[str, ...]:
    """The parts to measure; "" is all, and `rates` always, since the others are told against it. Raises ConfigError."""
    chosen = [name.strip() for name in only.split(",") if name.strip()] or list(PARTS)
    if unknown := sorted(set(chosen) - set(PARTS)):
        raise ConfigError(f"--only: no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in chosen or name == "rates")


async def _run(
    children: Children,
    settings: load.Load,
    given: str,
    repeats: int,
    console: Console,
    parts: Sequence[str],
    here: bool,
) -> dict[str, Any]:
    console.print("Compiling, starting the broker and ClickHouse ...")
    await asyncio.to_thread(warm_up)
    try:
        brokers = given or (await broker.start(children))[1]
        url = await product.start_database(children)
        bench = Bench(
            children, settings, brokers, url, url if here else await elsewhere.start(children, url), not given
        )
        if not parts:
            return await profile.measure(await bench.filled(), settings.events)
        for number in range(repeats):
            console.print(f"repetition {number + 1} of {repeats} ...")
            await bench.repeat(parts)
            console.print(_line(bench.found))
        if "latency" in parts:
            await bench.latencies(console)
        if "steps" in parts:
            console.print("the core's steps ...")
            await bench.steps()
        where = {"broker": "given" if given else "embedded", "clickhouse": "here" if here else "elsewhere"}
        return report(bench.found, _parameters(bench, repeats, where))
    finally:
        await children.stop_all()


def _line(found: Found) -> str:
    last = {key: values[-1] for key, values in found.rates.items() if values}
    return "  " + ", ".join(f"{key} {value:,.0f}" for key, value in last.items() if value is not None)


def _parameters(bench: Bench, repeats: int, where: Mapping[str, str]) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(bench.load), "peer_events": bench.peer_load.events, "repeats": repeats, **where,
        "processors": os.cpu_count(), "slice_events": Config().worker.slice_events,
        "python": ".".join(map(str, sys.version_info[:3])),
    }  # fmt: skip
