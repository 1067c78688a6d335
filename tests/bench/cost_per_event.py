"""The core's processor time per event from 1,000 to 1,000,000 keys: `python -m tests.bench.cost_per_event`.

All keys have state before the clock starts, and every key goes on as before (`grown`): with a thousand times the keys
come a thousand times the events in a second of event time, so an event has as many key-minutes of its own whatever
the number of keys. What grows is what must be in memory. `steps` are nanoseconds of processor time per event, as
`keywatch bench` names them, without ClickHouse.
"""

from __future__ import annotations

import argparse
import gc
from typing import Any, Final

from pipeline.bench.steps import Steps
from pipeline.rows import count_rows
from tests.bench.grown import DAY_US, START_US, Grown, cut, print_json

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
WARM: Final = 0.25
"""Share of the log that runs before the clock."""
DUE_EVERY: Final = 50
"""Slices between two checkpoints' rows: 50,000 events."""


def measure(keys: int, partitions: int, events: int) -> dict[str, Any]:
    """Nanoseconds per event by step, and rows per event."""
    grown, steps = Grown(keys, partitions), Steps()
    first = [0] * partitions
    log = list(cut(grown.traffic(events, grown.natural_per_s(), START_US + DAY_US), partitions, first))
    gc.collect()
    gc.freeze()
    warm = int(len(log) * WARM)
    done = rows = minutes = 0
    for part in log[:warm]:
        grown.cores[part.partition].process(part)
    for core in grown.cores:
        core.due_rows()
        steps.wrap(core)
    with steps.functions():
        for n, part in enumerate(log[warm:], 1):
            rows += count_rows(grown.cores[part.partition].process(part).rows)
            done += len(part.offsets)
            if n % DUE_EVERY == 0 or n == len(log) - warm:
                due = [core.due_rows() for core in grown.cores]
                rows += sum(map(count_rows, due))
                minutes += sum(len(each.get("requests_1m", {}).get("key_id", ())) for each in due)
    cost = steps.per_event(done)
    gc.unfreeze()
    core_ns = sum(ns for step, ns in cost.items() if step not in ("due_rows", "insert"))
    return {
        "keys": keys, "events": done, "core_ns": round(core_ns), "rows_per_event": round(rows / done, 2), "steps": cost,
    }  # fmt: skip


def main() -> None:
    """All sizes in one run, each against the smallest."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=200_000)
    options.add_argument("--partitions", type=int, default=4)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    chosen = options.parse_args()
    found: list[dict[str, Any]] = []
    for keys in chosen.sizes:
        found.append(measure(keys, chosen.partitions, chosen.events))
        print_json("cost_per_event", found[-1])
    ratios = {
        step: {str(f["keys"]): round(f["steps"][step] / found[0]["steps"][step], 2) for f in found}
        for step in ("detect", "aggregate", "enrich", "due_rows")
    }
    core = {str(f["keys"]): round(f["core_ns"] / found[0]["core_ns"], 2) for f in found}
    print_json("cost_per_event_ratio", {"core": core} | ratios)


if __name__ == "__main__":
    main()
