"""What rejected records cost the good ones: `python -m tests.bench.rejects [--every 20] [--json]`.

For each kind of reject: processor time of the core (`KeyCore.process`) over a log of good events, and over the same log
with one rejected record for so many good ones put between them, the two taken in turn, slice by slice, so that both see
the same machine. Two things are told apart: `own_ns` is what a reject costs by itself, measured with a log of nothing
else; `slowed` is what is left for the good ones, (time with rejects - rejects * own_ns) / time without. `ratio` is with
the rejects' own time. A figure is the least of the repetitions: noise of a busy machine only adds.

`--before 1000000`: the core has refused so many before the good ones come, and another none; what these then cost there
and here, and how much memory the rejects have left behind.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.bench import load
from pipeline.config.tree import Config, Worker
from pipeline.core import Sides, Slice
from pipeline.flow import KeyCore, open_core
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from schemas.event import Event

SLICE_EVENTS: Final = 1_000
KEYS: Final = 1_000
WARM_SLICES: Final = 10
ALONE_SLICES: Final = 6
"""Not counted: most of a log's first events are new keys, whose state is made; that would hide what rejects cost."""
START_US: Final = 1_780_000_000_000_000
REPETITION_US: Final = 86_400_000_000
SECRET: Final = "sk_live_" + "9aF3kQ0zXw7Lm2Pq8Rt5Vb6N"
NUMBER: Final = "@number@"
"""Stands in what is kept for a number of its own: a request that comes again is a repeat, and costs as one."""
ALL_PASS: Final = Config(worker=Worker(max_reject_ratio=1.0, max_reject_run=1_000_000_000))

Record = tuple[bytes | None, bytes | None, int]  # key, value, timestamp in ms


def kinds(good: Event, raw: bytes) -> dict[str, tuple[bytes | None, bytes]]:
    """Kind of reject -> (key, value) of a record that is refused for it."""
    key = good.key_id.encode()

    def changed(**fields: Any) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(good, **fields))

    return {
        "truncated": (key, raw[:-9]),
        "not UTF-8": (key, raw.replace(b"GET", b"G\xffT")),
        "nested": (key, b"[" * 5_000),
        "random bytes": (key, bytes(range(256))),
        "missing field": (key, b'{"key_id":"a"}'),
        "wrong type": (key, raw.replace(b'"ts_us":', b'"ts_us":"x","z":')),
        "too large": (key, raw + b" " * 33_000),
        "secret as key id": (SECRET.encode(), changed(key_id=SECRET)),
        "another key": (b"other", raw),
        "no record key": (None, raw),
        "from the future": (key, changed(ts_us=good.ts_us + 10**12)),
        "secret in path (kept)": (key, changed(path="/v1/" + SECRET, request_id=NUMBER)),
        "query in path (kept)": (key, changed(path="/v1/things?apikey=" + SECRET, request_id=NUMBER)),
    }


def good_records(events: int, start_us: int = START_US) -> tuple[list[Record], Event]:
    """A partition's log of good events, and one of them."""
    settings = load.Load(events=events, keys=KEYS, partitions=1)
    made = list(load.events(settings, start_us))
    return [(e.key_id.encode(), msgspec.json.encode(e), e.ts_us // 1000) for e in made], made[len(made) // 2]


def slices(records: Sequence[Record], size: int, first: int = 0) -> Iterator[Slice]:
    """The log in slices of `size` records, from this offset on."""
    for start in range(0, len(records), size):
        keys, values, times = zip(*records[start : start + size], strict=True)
        yield Slice("t", 0, range(first + start, first + start + len(keys)), keys, values, times)


def mixed(records: Sequence[Record], bad: tuple[bytes | None, bytes], every: int) -> list[Record]:
    """One rejected record after each `every` good ones."""
    out: list[Record] = []
    for number, record in enumerate(records, 1):
        out.append(record)
        if number % every == 0:
            out.append((*numbered(bad, number), record[2]))
    return out


def numbered(bad: tuple[bytes | None, bytes], number: int) -> tuple[bytes | None, bytes]:
    """The same with this number where it asks for one."""
    return bad[0], bad[1].replace(NUMBER.encode(), b"q%07d" % number)


def core() -> KeyCore:
    """A partition's core as the worker has it, without limits on rejects."""
    return open_core(0, ALL_PASS, Sides(Catalogue.empty(), open_geo(ALL_PASS.geo), ""), "bench", 1)


def process_ns(cores: Sequence[KeyCore], parts: Sequence[Slice], others: Sequence[Slice]) -> tuple[int, int]:
    """Processor time of two logs, each in a core of its own, a slice of the one and a slice of the other in turn."""
    spent = [0, 0]
    for number, pair in enumerate(zip(parts, others, strict=True)):
        for which, part in enumerate(pair):
            began = time.process_time_ns()
            cores[which].process(part)
            spent[which] += (time.process_time_ns() - began) * (number >= WARM_SLICES)
    return spent[0], spent[1]


def alone_ns(bad: tuple[bytes | None, bytes], repeats: int) -> float:
    """Processor time of one such record in a log of nothing else."""
    records = [(*numbered(bad, number), START_US // 1000) for number in range(ALONE_SLICES * SLICE_EVENTS)]
    parts, spent = list(slices(records, SLICE_EVENTS)), []
    for _ in range(repeats):
        one = core()
        one.process(parts[0])
        began = time.process_time_ns()
        for part in parts[1:]:
            one.process(part)
        spent.append((time.process_time_ns() - began) / (len(parts) - 1) / SLICE_EVENTS)
    return min(spent)


def after(before: int, events: int, repeats: int) -> dict[str, float]:
    """What a good event costs once so many rejects of all kinds have been, to what it costs without; MB they left."""
    _, one = good_records(1)
    bad = [each for name, each in kinds(one, msgspec.json.encode(one)).items() if "kept" not in name]
    cores, times = (core(), core()), (START_US // 1000,) * SLICE_EVENTS
    keys, values = zip(*islice(cycle(bad), SLICE_EVENTS), strict=True)
    for begin in range(0, before + SLICE_EVENTS, SLICE_EVENTS):  # the first is not counted
        if begin == SLICE_EVENTS:
            first_mb, began_ns = _resident_mb(), time.process_time_ns()
        told = cores[1].process(Slice("t", 0, range(begin, begin + SLICE_EVENTS), keys, values, times))
        assert len(told.rejects) == SLICE_EVENTS
    own_ns, grown_mb = (time.process_time_ns() - began_ns) / before, _resident_mb() - first_mb
    runs = []
    for number in range(repeats):
        good, _ = good_records(events + WARM_SLICES * SLICE_EVENTS, START_US + number * REPETITION_US)
        at = begin + SLICE_EVENTS + number * len(good)
        runs.append(process_ns(cores, *[list(slices(good, SLICE_EVENTS, at))] * 2))
    without, with_them = (min(run[which] for run in runs) for which in (0, 1))
    return {
        "rejects": before, "slowed": round(with_them / without, 3), "grown_mb": round(grown_mb, 1),
        "own_ns": round(own_ns), "good_ns": round(without / events),
    }  # fmt: skip


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)


def measure(events: int, every: int, repeats: int, only: str = "") -> dict[str, dict[str, float]]:
    """Kind -> slowed, ratio, own_ns and good_ns (processor time per good event without rejects)."""
    records, one = good_records(events + WARM_SLICES * SLICE_EVENTS)
    plain = list(slices(records, SLICE_EVENTS))
    process_ns((core(), core()), plain[:3], plain[:3])  # compiled and imported
    out = {}
    for kind, bad in kinds(one, msgspec.json.encode(one)).items():
        if only not in kind:
            continue
        spoiled = list(slices(mixed(records, bad, every), SLICE_EVENTS + SLICE_EVENTS // every))
        runs = [process_ns((core(), core()), plain, spoiled) for _ in range(repeats)]
        without, including = (min(run[which] for run in runs) for which in (0, 1))
        own_ns = alone_ns(bad, repeats)
        out[kind] = {
            "slowed": round((including - own_ns * (events // every)) / without, 3),
            "ratio": round(including / without, 3),
            "own_ns": round(own_ns),
            "good_ns": round(without / events),
        }
    return out


def main() -> int:
    """Print; 1 where a kind slows the good ones by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=20, help="good events for one reject")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kind", default="", help="only kinds whose name holds this")
    parser.add_argument("--before", type=int, default=0, help="so many rejects first, then good events alone")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.before:
        told = after(given.before, given.events, given.repeats)
        sys.stdout.write(json.dumps(told) + "\n")
        return int(told["slowed"] > 1.1)
    found = measure(given.events, given.every, given.repeats, given.kind)
    if given.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for kind, figures in found.items():
            row = f"{kind:24} {figures['slowed']:6.3f} x; with the rejects' own {figures['ratio']:6.3f} x, "
            costs = f"{figures['own_ns']:6.0f} ns a reject, {figures['good_ns']:6.0f} ns a good event"
            sys.stdout.write(f"{row}{costs}\n")
    return int(any(figures["slowed"] > 1.1 for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())
