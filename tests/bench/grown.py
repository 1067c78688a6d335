"""State of very many keys, grown from a few: the product's own core judges a day of a thousand keys, then each key's
record is given to many more ids (*copies*). What a key weighs, how well it packs and what it does is as in that log;
only ids differ. `Traffic` goes on with the log in the same way: each copy does what its original did, at its rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from pipeline.bench import load
from pipeline.config.tree import Config, Worker
from pipeline.core import Sides, Slice
from pipeline.flow import KeyCore, open_core
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from pipeline.partitioner import PARTITIONERS
from schemas.event import Event
from schemas.key import Key

START_US: Final = 1_780_000_000_000_000
DAY_US: Final = 86_400_000_000
SEED: Final = load.Load(events=40_000, keys=1_000, partitions=1, per_s=1, zipf=0.8)
"""Eleven hours of a thousand keys, 40 events each in the mean; the busiest have 700 times the last one's rate."""
EPOCH: Final = "bench"
SLICE: Final = 1_000
HOME: Final = PARTITIONERS["murmur2"]

Array = np.ndarray[Any, Any]


def key_id(number: int) -> str:
    """Copy n // 1,000 of the seed log's key n % 1,000."""
    return f"pk_{number:07d}"


def declared(keys: int) -> Catalogue:
    """A catalogue of all keys, each as an owner would declare it."""
    return Catalogue.of(
        Key(key_id=key_id(n), environment="live", owner=f"owner {n % 997}", role="full", version=1) for n in range(keys)
    )


def config(most_keys: int) -> Config:
    """The defaults, with room for so many keys in a partition."""
    return Config(worker=Worker(max_keys_per_partition=max(most_keys, 1)))


class Grown:
    """`keys` keys with state, in as many cores as there are partitions, and their further traffic."""

    def __init__(self, keys: int, partitions: int, *, catalogued: bool = False) -> None:
        self.keys, self.partitions = keys, partitions
        self.sides = Sides(declared(keys) if catalogued else Catalogue.empty(), open_geo(Config().geo), "")
        self.seed_events = list(load.events(SEED, START_US))
        self.cores = [open_core(p, config(keys), self.sides, EPOCH, partitions) for p in range(partitions)]
        self._home = np.zeros(keys, np.int64)
        self._fill(self._seed_core())

    def _seed_core(self) -> KeyCore:
        core = open_core(0, config(SEED.keys), Sides(Catalogue.empty(), self.sides.geo, ""), EPOCH)
        for part in cut(((0, event) for event in self.seed_events), 1, [0]):
            core.process(part)
        core.due_rows()
        return core

    def _fill(self, seed: KeyCore) -> None:
        slots = seed.state.slots
        originals = [slots.get(f"pk_{n:05d}", 0) for n in range(SEED.keys)]
        chosen: list[list[int]] = [[] for _ in self.cores]
        for number in range(self.keys):
            name = key_id(number)
            part = self._home[number] = HOME(name.encode(), self.partitions)
            self.cores[part].state.add_key(name, self.sides.catalogue.get(name))
            chosen[part].append(originals[number % SEED.keys])
        for core, rows in zip(self.cores, chosen, strict=True):
            _copy(core, seed, np.array(rows, np.int64))

    def traffic(self, events: int, per_s: float, start_us: int, seed: int = 1) -> Iterator[tuple[int, Event]]:
        """(partition, event) in order of time, `per_s` of all keys together."""
        rng = np.random.default_rng(seed)
        originals = rng.integers(0, len(self.seed_events), events).tolist()
        copies = rng.integers(0, max(1, self.keys // SEED.keys), events).tolist()
        times = (start_us + np.sort(rng.random(events)) * events / per_s * 1e6).astype(np.int64).tolist()
        for n, (original, copy, ts_us) in enumerate(zip(originals, copies, times, strict=True)):
            event = self.seed_events[original]
            number = copy * SEED.keys + int(event.key_id[3:])
            yield (
                int(self._home[number]),
                msgspec.structs.replace(event, key_id=key_id(number), ts_us=ts_us, request_id=f"{seed:x}.{n:x}"),
            )

    def natural_per_s(self) -> float:
        """The rate at which every key does as much as in the seed log."""
        return SEED.per_s * self.keys / SEED.keys


def cut(events: Iterator[tuple[int, Event]], partitions: int, first: list[int]) -> Iterator[Slice]:
    """Slices of `SLICE` records as a worker gets them, and what remains; `first` (next offsets) is kept up to date."""
    waiting: list[list[Any]] = [[] for _ in range(partitions)]
    for part, event in events:
        waiting[part].append((event.key_id.encode(), msgspec.json.encode(event), event.ts_us // 1000))
        if len(waiting[part]) == SLICE:
            yield _slice(part, waiting[part], first)
            waiting[part] = []
    for part, rest in enumerate(waiting):
        if rest:
            yield _slice(part, rest, first)


def _slice(part: int, records: list[Any], first: list[int]) -> Slice:
    keys, values, times = zip(*records, strict=True)
    offsets = range(first[part], first[part] + len(records))
    first[part] = offsets.stop
    return Slice("", part, offsets, keys, values, times)


def _copy(core: KeyCore, seed: KeyCore, chosen: Array) -> None:
    """Records without the open windows and incidents, which are of the partition."""
    state, n = core.state, len(chosen)
    state.keys.data[:n] = seed.state.keys.data[chosen]
    state.keys.data["fusion"]["open"][:n] = 0
    state.book.data[:n] = seed.state.book.data[chosen]
    for head in ("head_1m", "head_1h"):
        state.book.data[head][:n] = 0
    for array in (state.keys, state.book):
        array.touch(np.arange(n))
    state.shared.data[0] = seed.state.shared.data[0]
    state.shared.dirty[0] = True
    state.meta = msgspec.structs.replace(state.meta, next_offset=0, watermark_us=seed.state.meta.watermark_us)


def rss_bytes() -> int:
    """Resident memory of this process now."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) << 10


def state_bytes(cores: list[KeyCore]) -> dict[str, int]:
    """Bytes in use of each table, all cores together."""
    found: Counter[str] = Counter()
    for core in cores:
        state = core.state
        for array in (state.keys, state.book, state.shared):
            found[array.name] += array.used * array.dtype.itemsize
        for pool in (state.minutes, state.hours, state.sources):
            found[pool.array.name] += int((pool.rows["live"] == 1).sum()) * pool.array.dtype.itemsize
        for name, rows in (
            ("identities", state.identities.rows), ("incidents", state.incidents.rows),
            ("source_texts", state.source_texts.rows),
        ):  # fmt: skip
            found[name] += sum(len(raw) for raw in rows.values())
    return dict(found)


def print_json(name: str, figures: dict[str, Any]) -> None:
    """One line of JSON on stdout: what the runbook cites."""
    print(msgspec.json.encode({"bench": name} | figures).decode(), flush=True)  # noqa: T201
