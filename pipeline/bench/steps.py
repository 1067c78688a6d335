"""Nanoseconds of processor time per event and step: the core in this process, its own methods behind timers.

Nothing in the product knows of the timers. `rest` is what the core's `process` takes beside its steps; `insert` is
the row sink's own work in this process, not the server's.

What the profile said (cProfile with thread time; ns per event before -> after, the 5th percentile over slices, both
trees side by side on a busy machine): columns 3,355 -> 738, since rows are arrays and codes and no longer lists of
Python values; a slice as a whole 25,600 -> 20,600. Joining and encoding 20,000 events' rows with 20,000 due rows:
8,300 -> 6,100. Then half of decode and of `rest` was memory, 16 new texts per event made and freed: the compiled
scanner (`pipeline/scan.py`, 0.14 us where msgspec takes 1.7) makes none. What is left: half of enrich is addresses that
are new (one event in fifteen in this load, 12 us each). What is told to the other topologies (`pipeline/sight.py`)
takes 2.0 us an event while most keys are new (240 messages per 1,000 events) and 0.9 once they are known (60): 9 to
15 us a message, and 8 to 15 more to send it (`Producer.publish_all`; each by itself took 40).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pipeline import admit, flow
from pipeline.bench import load
from pipeline.config.tree import ClickHouse, Config
from pipeline.core import Sides, Slice
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from pipeline.partitioner import PARTITIONERS
from pipeline.records import flat
from pipeline.rows import RowBuffer
from pipeline.runners.start import settle_interpreter
from pipeline.sinks.clickhouse import ClickHouseSink

SLICE: Final = Config().worker.slice_events
DUE_EVERY: Final = 100_000
"""Events between two checkpoints: what a worker at full speed does in its 5 s."""
INSERT_EVERY: Final = 20_000
"""Events between two inserts, likewise."""

OF_CORE: Final = {
    "_ours": "decode", "_detect": "detect", "_aggregate": "aggregate", "_mark_top": "aggregate", "_emit": "columns",
    "_finish": "finish", "due_rows": "due_rows", "process": "process",
}  # fmt: skip
INNER: Final = ("decode", "admit", "enrich", "detect", "aggregate", "decide", "columns", "finish")


@dataclass(slots=True)
class Steps:
    """Nanoseconds by step, all events together."""

    ns: Counter[str] = field(default_factory=Counter)

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its processor time added up."""

        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                self.ns[step] += time.thread_time_ns() - began

        return run

    def wrap(self, core: flow.KeyCore) -> None:
        """Put timers around the steps of one core."""
        for name, step in OF_CORE.items():
            setattr(core, name, self.timed(step, getattr(core, name)))
        core._decider.decide = self.timed("decide", core._decider.decide)  # type: ignore[method-assign]
        core._enricher.columns = self.timed("enrich", core._enricher.columns)  # type: ignore[method-assign]

    @contextmanager
    def functions(self) -> Iterator[None]:
        """Timers around module functions, taken off at the end."""
        places = [(flow, "decode", "decode"), *((admit, n, "admit") for n in ("watermarks", "slots", "first_time"))]
        before = [(module, name, getattr(module, name)) for module, name, _ in places]
        for module, name, step in places:
            setattr(module, name, self.timed(step, getattr(module, name)))
        try:
            yield
        finally:
            for module, name, function in before:
                setattr(module, name, function)

    def per_event(self, events: int) -> dict[str, float]:
        """Nanoseconds per event by step."""
        self.ns["rest"] = self.ns.pop("process", 0) - sum(self.ns[step] for step in INNER)
        return {step: round(self.ns[step] / events, 1) for step in (*INNER, "rest", "due_rows", "insert")}


def slices(settings: load.Load, start_us: int) -> list[Slice]:
    """The log as a worker gets it."""
    home = PARTITIONERS["murmur2"]
    waiting: list[list[Any]] = [[] for _ in range(settings.partitions)]
    first = [0] * settings.partitions
    out = []
    for event in load.events(settings, start_us):
        key = event.key_id.encode()
        part = home(key, settings.partitions)
        waiting[part].append((key, msgspec.json.encode(event), event.ts_us // 1000))
        if len(waiting[part]) == SLICE:
            keys, values, times = zip(*waiting[part], strict=True)
            offsets = range(first[part], first[part] + SLICE)
            out.append(Slice("", part, offsets, flat(keys), flat(values), times))  # as `batches.py` cuts them
            first[part], waiting[part] = first[part] + SLICE, []
    return out


def measure(settings: load.Load, start_us: int, clickhouse: ClickHouse) -> tuple[dict[str, float], float]:
    """(nanoseconds per event by step, bytes of state per key); rows really go to that ClickHouse."""
    return asyncio.run(_measure(slices(settings, start_us), settings, clickhouse))


async def _measure(parts: list[Slice], settings: load.Load, clickhouse: ClickHouse) -> tuple[dict[str, float], float]:
    steps, sides = Steps(), Sides(Catalogue.empty(), open_geo(Config().geo), "")
    cores = [flow.open_core(p, Config(), sides, "steps", settings.partitions) for p in range(settings.partitions)]
    for core in cores:
        steps.wrap(core)
    sink, done = ClickHouseSink(clickhouse), 0
    rows = RowBuffer(sink, 1.0, 1 << 40)
    settle_interpreter()  # as the worker does
    with steps.functions():
        for part in parts:
            rows.add(cores[part.partition].process(part).rows)
            done += len(part.offsets)
            if done % DUE_EVERY < SLICE or part is parts[-1]:
                for core in cores:
                    rows.add(core.due_rows())
            if done % INSERT_EVERY < SLICE or part is parts[-1]:
                await _insert(rows, steps)
    await sink.close()
    keys = sum(len(core.state.slots) for core in cores)
    return steps.per_event(done), sum(core.state.size_bytes for core in cores) / keys


async def _insert(rows: RowBuffer, steps: Steps) -> None:
    began = time.process_time_ns()
    await rows.flush()
    steps.ns["insert"] += time.process_time_ns() - began
