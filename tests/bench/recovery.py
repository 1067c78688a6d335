"""Recovery and memory of a million keys: `python -m tests.bench.recovery`.

One process grows the state and writes checkpoints into a file, one of everything and then one after each of
`--intervals` of the model of `tests.bench.checkpoints` (120: the journal is as long as it gets); another one, as fresh
as a worker after a crash, reads it back through `pipeline.state.recover` (verify, decompress, fill, index) and then
goes on judging. `load_s` is for all partitions one after the other on one core, as a worker does it when all of them
are its own; `rss_mib` is the whole process: Python, numba's code, the geo database, the state.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.flow import KeyCore, open_core
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from pipeline.state.checkpoint import Checkpoint, Directory
from pipeline.state.recover import fill, load
from pipeline.warm import warm_up
from tests.bench.grown import DAY_US, EPOCH, START_US, Grown, config, cut, declared, print_json, rss_bytes, state_bytes

MIB: Final = 1 << 20
POOLS: Final = ("minutes", "hours", "sources")


def write(folder: Path, keys: int, partitions: int, catalogued: bool, events: int, intervals: int) -> None:
    """What the pages topic holds of each partition, and a piece of the log after the last checkpoint."""
    grown = Grown(keys, partitions, catalogued=catalogued)
    records, last_us, first = checkpoints(grown, intervals)
    for core in grown.cores:
        (folder / f"pages.{core.partition}").write_bytes(msgspec.msgpack.encode(list(records[core.partition].items())))
    log = list(cut(grown.traffic(events, grown.natural_per_s(), last_us), partitions, first))
    (folder / "log").write_bytes(msgspec.msgpack.encode([
        (part.partition, part.first, part.keys, part.values, part.timestamps_ms)
        for part in log
    ]))  # fmt: skip


def checkpoints(grown: Grown, intervals: int, epoch: str = EPOCH) -> tuple[list[dict[bytes, bytes]], int, list[int]]:
    """The compacted log of each partition after so many, the time then, and the next offsets."""
    seconds, per_s, first = Config().worker.checkpoint_s, grown.natural_per_s(), [0] * grown.partitions
    writers = [Checkpoint(core.partition, epoch, 1, "me", Directory()) for core in grown.cores]
    records: list[dict[bytes, bytes]] = [{} for _ in grown.cores]
    for n in range(intervals + 1):
        start_us = START_US + DAY_US + int(n * seconds * 1e6)
        if n:
            for part in cut(grown.traffic(int(per_s * seconds), per_s, start_us, seed=n), grown.partitions, first):
                grown.cores[part.partition].process(part)
        for core, writer in zip(grown.cores, writers, strict=True):
            core.due_rows()
            for key in writer.due:
                del records[core.partition][key]
            draft = writer.draft(writer.plan(core, 1))
            records[core.partition].update(draft.records())
            writer.accept(draft)
    return records, START_US + DAY_US + int((intervals + 1) * seconds * 1e6), first


def read(folder: Path, keys: int, partitions: int, catalogued: bool) -> dict[str, Any]:
    """Load, look at the memory, replay."""
    warm_up()
    sides = Sides(declared(keys) if catalogued else Catalogue.empty(), open_geo(Config().geo), "")
    gc.collect()
    gc.freeze()
    before, began, cores, pages = rss_bytes(), time.process_time(), [], 0
    for number in range(partitions):
        records = dict(
            msgspec.msgpack.decode((folder / f"pages.{number}").read_bytes(), type=list[tuple[bytes, bytes]])
        )
        pages += sum(map(len, records.values()))
        core = open_core(number, config(keys), sides, EPOCH, partitions)
        fill(core, load(number, records, None))
        core.adopt(sides)
        cores.append(core)
        del records
    load_s = time.process_time() - began
    gc.collect()
    figures = {
        "keys": sum(len(core.state.slots) for core in cores), "catalogued": catalogued, "load_s": round(load_s, 1),
        "pages_mib": round(pages / MIB), "rss_before_mib": round(before / MIB), "rss_mib": round(rss_bytes() / MIB),
        "state_mib": {name: round(size / MIB) for name, size in state_bytes(cores).items()},
    }  # fmt: skip
    return figures | replay(folder, cores)


def replay(folder: Path, cores: list[KeyCore]) -> dict[str, Any]:
    """The log after the checkpoint, judged; its windows weigh too."""
    from pipeline.core import Slice

    log = msgspec.msgpack.decode((folder / "log").read_bytes())
    began, events = time.process_time(), 0
    for part, start, keys, values, times in log:
        cores[part].process(Slice("", part, range(start, start + len(keys)), keys, values, times))
        events += len(keys)
    del log
    took = time.process_time() - began
    for core in cores:
        core.due_rows()
    gc.collect()
    return {
        "replay_events": events, "replay_s": round(took, 1), "rss_after_replay_mib": round(rss_bytes() / MIB),
        "windows_mib": {name: round(size / MIB) for name, size in state_bytes(cores).items() if name in POOLS},
    }  # fmt: skip


def main() -> None:
    """Both processes, or (with --folder) the second alone."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keys", type=int, default=1_000_000)
    options.add_argument("--partitions", type=int, default=8)
    options.add_argument("--events", type=int, default=100_000, help="of the log after the checkpoint")
    options.add_argument("--intervals", type=int, default=120, help="checkpoints whose rows lie in the journal")
    options.add_argument("--catalogued", action="store_true", help="every key is declared")
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.folder:
        print_json("recovery", read(chosen.folder, chosen.keys, chosen.partitions, chosen.catalogued))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), chosen.keys, chosen.partitions, chosen.catalogued, chosen.events, chosen.intervals)
        command = [sys.executable, "-m", "tests.bench.recovery", *sys.argv[1:], "--folder", folder]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
