"""What checkpoints cost under a stated activity: `python -m tests.bench.checkpoints`.

Model: 1 million keys in 8 partitions, about 5 % of them active in a minute (unequal as by Zipf, see `grown`), a
checkpoint of each partition every `worker.checkpoint_s` of event time; after as many as `--intervals` says its journal
is as long as it gets (`journal.FOLD_AFTER`). `plan_ms` is the copy between two slices (the
core waits), `pack_ms` the compression (a thread of its own), both processor time; sending is not in it: it is
measured with the real worker (`python -m tests.bench.recovery_kafka`). `share` is plan and pack over the time between
two checkpoints. Replay after a crash is at most the events of one interval, plus those of the one being written.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from statistics import median
from typing import Any

from pipeline.config.tree import Config
from pipeline.core import Slice
from pipeline.state.checkpoint import Checkpoint, Directory
from pipeline.state.manifest import read_key
from tests.bench.grown import DAY_US, START_US, Grown, cut, print_json

ACTIVE_PER_MINUTE: float = 0.05


class Writers:
    """One writer per partition; what they write is only counted."""

    def __init__(self, grown: Grown) -> None:
        self.cores = grown.cores
        self.writers = [Checkpoint(core.partition, "bench", 1, "me", Directory()) for core in grown.cores]

    def checkpoint(self) -> dict[str, Any]:
        """One of every partition."""
        cost: Counter[str] = Counter()
        for core, writer in zip(self.cores, self.writers, strict=True):
            began = time.thread_time()
            plan = writer.plan(core, 1)
            planned = time.thread_time()
            draft = writer.draft(plan)
            for pack in draft.batches():
                _count(cost, pack())
            _count(cost, [draft.manifest()])
            cost["tombstones"] += len(writer.due)
            writer.accept(draft)
            parts = [part for piece in plan.rows for part in piece]
            cost["raw_bytes"] += sum(len(raw) for _, _, raw in plan.raw) + sum(len(raw) for _, _, raw in parts)
            cost.update(f"blocks_{table}" for table, _, _ in plan.raw)
            for table, numbers, _ in parts:
                cost[f"rows_{table}"] += len(numbers) // 4
            cost["plan_us"] += round((planned - began) * 1e6)
            cost["pack_us"] += round((time.thread_time() - planned) * 1e6)
        return dict(cost)


def _count(cost: Counter[str], records: list[tuple[bytes, bytes]]) -> None:
    cost["records"] += len(records)
    for key, value in records:
        cost["bytes"] += len(key) + len(value)
        cost[f"bytes_{read_key(key).kind}"] += len(key) + len(value)


def judge(grown: Grown, log: list[Slice]) -> float:
    """Seconds of processor time that the core takes for them, due rows included."""
    began = time.thread_time()
    for part in log:
        grown.cores[part.partition].process(part)
    for core in grown.cores:
        core.due_rows()
    return time.thread_time() - began


def main() -> None:
    """A full checkpoint, then one after each interval of the model."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keys", type=int, default=1_000_000)
    options.add_argument("--partitions", type=int, default=8)
    options.add_argument("--intervals", type=int, default=12)
    options.add_argument("--seconds", type=float, default=Config().worker.checkpoint_s)
    options.add_argument("--per-s", type=float, default=0.0, help="events per second; 0: every key as before")
    chosen = options.parse_args()
    grown = Grown(chosen.keys, chosen.partitions)
    writers, per_s = Writers(grown), chosen.per_s or grown.natural_per_s()
    full = writers.checkpoint()
    print_json("checkpoint_full", {"keys": chosen.keys, "bytes_per_key": round(full["bytes"] / chosen.keys)} | full)
    count, first, start_us, each = int(per_s * chosen.seconds), [0] * chosen.partitions, START_US + DAY_US, []
    core_s, seen = 0.0, set()
    for n in range(chosen.intervals):
        events = list(grown.traffic(count, per_s, start_us + int(n * chosen.seconds * 1e6), seed=n + 1))
        seen |= {event.key_id for _, event in events}
        core_s += judge(grown, list(cut(iter(events), chosen.partitions, first)))
        each.append(writers.checkpoint())
    print_json("checkpoint", summary(chosen, each, core_s, len(seen), count))
    print_json("journal", {
        "rows": sum(piece.rows for writer in writers.writers for piece in writer.directory.pieces),
        "pieces": sum(len(writer.directory.pieces) for writer in writers.writers),
        "manifest_bytes": len(writers.writers[0].draft(writers.writers[0].plan(grown.cores[0], 1)).manifest()[1]),
    })  # fmt: skip


def summary(chosen: Any, each: list[dict[str, Any]], core_s: float, seen: int, events: int) -> dict[str, Any]:
    """Medians over the intervals."""
    middle = {name: median(cost.get(name, 0) for cost in each) for name in each[-1]}
    seconds = (middle["plan_us"] + middle["pack_us"]) / 1e6
    return {
        "keys": chosen.keys, "interval_s": chosen.seconds, "events": events,
        "active_per_minute": round(seen / chosen.keys * 60 / (chosen.seconds * chosen.intervals), 3),
        "plan_ms": middle["plan_us"] / 1e3, "pack_ms": middle["pack_us"] / 1e3,
        "share": round(seconds / chosen.seconds, 4), "core_s": round(core_s / chosen.intervals, 3), **middle,
    }  # fmt: skip


if __name__ == "__main__":
    main()
