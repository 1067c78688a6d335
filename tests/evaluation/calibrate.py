"""Measures what ships of counted shares (detectors/shipped_counts.py): the real pass over innocent keys.

Run: `python -m tests.evaluation.calibrate ships` (half an hour; others by name, without names all in turn). It
prints, for each population, the rows of TABLES and what would alert with those that ship. Change a detector: run it,
put in PEAKS, REPETITION and EGRESS, run it again, put in EGRESS_SUM, and RETURNS of the second print: as they come
where incidents open (by the RETURNS of before, so a third run would differ by a little). Without, a sum that was told
stands above the slow rule's threshold for weeks and counts each week anew: the rule took a seventh of the budget for
its half. The other populations show how what ships transfers; nothing is taken from them.
ships: untouched keys over 60 days of the development half (pipeline/evaluation/world.py), of few visits, of some and of
many: what a row has counted bounds what it can say. With 1,500 keys of few visits the far half of what they do was a
straight line from a handful of runs, up to 3.5 bits off; with 1,540 of the others that of egress's sum lay 2.6 bits too
high at 12 bits, and that of a minute's crowd of steady keys up to 7 too low.
People: when they worked is real (`../shared/data/rhythms`, a quarter of 5,000 people; each record is drawn out into
1 to 8 calls); a changed UTC offset is a new country and network, since the data have nothing nearer to
one; another new network comes with 1/60 a visit. Clients are simulated as in reference/evidence.md, section 0: new with
1/60 a visit and .25 at a new place. Operations, objects and bytes are simulated: a few routes a key, Zipf, log-normal.
Services: 160 simulated keys over 40 days (steady, daily, nightly job, bursty) with deploys, errors, moved servers.
What this cannot say: real API keys are neither; re-measure on your own log (the partition's own counts do that).
"""

from __future__ import annotations

import csv
import gzip
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from detectors import DETECTORS, fuse, fusion
from detectors.counted import BINS, NODES
from detectors.detector import ERROR_NONE, NET_HOSTING, NET_KNOWN, config_record
from pipeline.evaluation import work
from pipeline.evaluation.world import events_of, history
from tests.detectors.streams import DAY_US, HOUR_US, START_US, blank, set_hours

Array = np.ndarray[Any, Any]
KEYS: Final = {seed: (6_000, 600, 200) if seed < 13 else (1_000, 600, 600) for seed in (11, 12, *range(14, 28))}
"""Seed -> keys of keybench, by volume class."""
SHIPS: Final = "+".join(f"keybench-{seed}" for seed in KEYS)
"""What `ships` stands for: their counts are added."""
DATA = Path(os.environ.get("KEYWATCH_DATA", "../shared/data")) / "rhythms" / "events.csv.gz"


def people(rng: np.random.Generator) -> Array:
    """Events of all people in time order; slot = person."""
    with gzip.open(DATA, "rt") as lines:
        rows = list(csv.DictReader(lines))
    rows = [row for row in rows if int(row["author"], 16) % 4 == 0]  # of 5,000; the pass is slow on sparse years
    slots = {name: slot for slot, name in enumerate(dict.fromkeys(row["author"] for row in rows))}
    slot = np.array([slots[row["author"]] for row in rows])
    at_us = np.array([int(row["epoch_s"]) for row in rows]) * 1_000_000
    zone = np.array([int(row["utc_offset"]) % 5000 for row in rows])
    calls = rng.integers(1, 9, len(rows))
    events = blank(int(calls.sum()))
    owner = np.repeat(np.arange(len(rows)), calls)
    events["slot"] = slot[owner]
    events["ts_us"] = at_us[owner] + rng.integers(0, 240_000_000, len(owner))
    events["country"] = 16_705 + zone[owner] % 600
    home = rng.integers(1, 2_000, len(slots))
    new = rng.random(len(rows)) < 1 / 60
    which = drawn(rng, slot, at_us, new)
    moved = new | new_values(slot, at_us, zone)
    chance = np.where(moved, 0.25, 1 / 60)
    events["client"] = (1 + 50 * (slot % 40) + drawn(rng, slot, at_us, rng.random(len(rows)) < chance))[owner]
    events["asn"] = (1 + home[slot] + 10_000 * (1 + zone % 97) + 1_000_000 * which)[owner]
    events["accuracy_km"] = 0.0
    events["address"] = events["asn"].astype("u8") << np.uint64(33)
    dress(events, rng, 0.01)
    return events


def drawn(rng: np.random.Generator, slot: Array, at_us: Array, new: Array) -> Array:
    """Which of its values a key uses at each time: 0 at first, one more at each `new`, else an old one again."""
    order = np.lexsort((at_us, slot))
    total = np.cumsum(new[order])
    first = np.searchsorted(slot[order], np.arange(int(slot.max()) + 1))
    had = np.empty(len(slot), np.int64)
    had[order] = total - (total[first] - new[order][first])[slot[order]]
    return np.where(new, had, np.floor(rng.random(len(slot)) ** 3 * (had + 1)).astype(np.int64))


def new_values(slot: Array, at_us: Array, value: Array) -> Array:
    """Where a key has a value for the first time."""
    order = np.lexsort((at_us, slot))
    pairs = slot[order].astype(np.int64) * 100_000 + value[order]
    first = np.zeros(len(slot), np.bool_)
    first[order[np.unique(pairs, return_index=True)[1]]] = True
    return first


def services(rng: np.random.Generator, keys: int, days: int) -> Array:
    """Simulated service keys: rate by type and hour, deploys (a burst of calls with errors), rare moves."""
    parts = []
    for slot in range(keys):
        kind = slot % 4
        hour = np.arange(days * 24)
        shape = (np.ones(24), 1 + 0.8 * np.sin(np.arange(24) / 24 * 6.283), np.arange(24) == 2, np.ones(24))[kind]
        rate = np.exp(rng.normal(1.5, 1.0)) * shape[hour % 24] * (12 if kind == 2 else 1)
        if kind == 3:
            rate = rate * rng.gamma(0.7, 1 / 0.7, len(hour))
        rate = rate * np.where(rng.random(len(hour)) < 1 / (24 * 14), 4.0, 1.0)
        counts = rng.poisson(np.minimum(rate, 200.0))
        events = blank(int(counts.sum()))
        events["slot"] = slot
        events["ts_us"] = START_US + np.repeat(hour, counts) * HOUR_US + rng.integers(0, HOUR_US, len(events))
        events = events[np.argsort(events["ts_us"], kind="stable")]
        moves = np.cumsum(rng.random(len(events)) < days / 60 / max(1, len(events)))
        events["asn"] = 1 + rng.integers(0, 30) + moves * 1_000
        events["address"] = events["asn"].astype("u8") << np.uint64(33) | rng.integers(1, 6, len(events)).astype("u8")
        events["net_flags"] = NET_KNOWN | (NET_HOSTING if kind != 1 else 0)
        swaps = np.cumsum(rng.random(len(events)) < days / 120 / max(1, len(events)))
        events["client"] = 1 + 50 * (slot % 40) + swaps
        parts.append(events)
    joined = np.concatenate(parts)
    dress(joined, rng, 0.005)
    return joined


def dress(events: Array, rng: np.random.Generator, errors: float) -> None:
    """Routes and what they do, objects, bytes, errors in runs, hours."""
    route = rng.geometric(0.3, len(events))
    events["route"] = 1 + 1_000 * (events["slot"] % 7) + route
    events["operation"] = np.choose(route % 8, [1, 1, 1, 2, 1, 3, 4, 5])
    events["object"] = 1 + rng.zipf(1.6, len(events)) % 1_000_000 + 1_000_000 * route
    events["bytes_out"] = (2_000 * rng.lognormal(0.0, 1.2, len(events))).astype(np.int64)
    failed = rng.random(len(events)) < errors
    failed |= np.roll(failed, 1) & (rng.random(len(events)) < 0.5)
    events["error"] = np.where(failed, rng.choice([2, 3, 3, 4, 6], len(events)), ERROR_NONE)
    set_hours(events)


def judge(events: Array, **settings: float) -> tuple[Array, Array]:
    """Run the pass; returns shared knowledge and the changes."""
    events = events[np.argsort(events["ts_us"], kind="stable")]
    events["slot"] = np.unique(events["slot"], return_inverse=True)[1]
    keys = np.zeros(int(events["slot"].max()) + 1, fuse.key_dtype(DETECTORS))
    shared = np.zeros(1, fuse.shared_dtype(DETECTORS))
    found, changed = np.zeros(100_000, fuse.FOUND), np.zeros(100_000, fuse.CHANGED)
    run, parts, start = fuse.compile_pass(DETECTORS), [], 0
    run(keys, shared, events[:0], 0, fuse.configs(DETECTORS), config_record(fusion.Settings()), found, changed)
    began = time.process_time()
    config = config_record(fusion.Settings(**settings))
    while start < len(events):
        start, _, count = run(keys, shared, events, start, fuse.configs(DETECTORS), config, found, changed)
        parts.append(changed[:count].copy())
    spent_ns = (time.process_time() - began) / len(events) * 1e9
    say(f"  {len(events):,} events, {len(keys):,} keys, {spent_ns:,.0f} ns an event")
    return shared, np.concatenate(parts)


def key_days(events: Array) -> float:
    """Sum over keys of the days between first and last event."""
    slots, first = np.unique(events["slot"], return_inverse=True)
    low, high = np.full(len(slots), 2**62), np.zeros(len(slots), np.int64)
    np.minimum.at(low, first, events["ts_us"])
    np.maximum.at(high, first, events["ts_us"])
    return float(((high - low) / DAY_US).sum())


def keybench(keys: tuple[int, int, int], days: int, seed: int, half: str = "development") -> Array:
    """Untouched keys of one of keybench's halves, so many of each volume class."""
    made = work.make_world(DATA.parents[1], half, len(keys) * max(keys), days, seed)
    chosen = [key for key in made.keys if key.number // len(keys) < keys[key.volume]]
    calls = [history(key, made, np.random.default_rng([seed, 5, key.number])) for key in chosen]
    whole = np.concatenate(calls)
    return events_of(whole, made.words, np.repeat(np.arange(len(chosen)), [len(each) for each in calls]))


def _untouched(seed: int, rng: np.random.Generator) -> Array:
    return keybench(KEYS[seed], 60, seed)


def nodes(counts: Array, visits: float) -> Array:
    """log2 of the share of visits at 0, 4, .. 64 bits; past the last node with two exceedances a straight line.

    The line falls by the mean excess there, taken for three bits at least and twelve at most: shorter ones, from a few
    exceedances, were wrong six times at a return period of 10,000 (reference/forecasting.md, section 7).
    """
    above = counts[::-1].cumsum()[::-1][1:]  # [j]: at the edge of 2 j bits
    at = np.minimum(np.arange(NODES) * 2, BINS - 2)
    found = np.log2((above[at] + 0.5) / (visits + 1.0))
    last = int(np.flatnonzero(above[at[:-1]] >= 2)[-1]) if (above[at[:-1]] >= 2).any() else 0
    beyond = counts[2 * last + 1 :]
    excess = float((beyond * (2.0 * np.arange(len(beyond)) + 1.0)).sum() / max(1.0, beyond.sum()))
    slope = 1.4427 / min(12.0, max(3.0, excess))
    found[last + 1 :] = found[last] - slope * 4.0 * np.arange(1, NODES - last)
    return np.minimum.accumulate(np.minimum(0.0, found))


TABLES: Final = {
    "PEAKS": ("spike", "visits", "peaks"), "REPETITION": ("spike", "same_visits", "same_peaks"),
    "RETURNS": ("calibration", "visits", "counts"), "EGRESS": ("egress", "visits", "peaks"),
    "EGRESS_SUM": ("egress", "sum_visits", "sum_peaks"),
}  # fmt: skip
"""What is printed, and where it is counted."""


def tell(shared: Array, *titles: str) -> None:
    """The rows of these TABLES, or of all, that this population gives."""
    for title in titles or TABLES:
        part, total, name = TABLES[title]
        visits, counts = shared[part][0][total], shared[part][0][name]
        for place in np.ndindex(*visits.shape):
            row = ", ".join(f"{value:.1f}" for value in nodes(counts[place], float(visits[place])))
            say(f"  {title}{list(place)}: [{row}],  # {visits[place]:,.0f} visits")


def say(text: str) -> None:
    """To the terminal, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


POPULATIONS: Final[dict[str, Callable[[np.random.Generator], Array]]] = {
    **{f"keybench-{seed}": partial(_untouched, seed) for seed in KEYS},
    "held-out": lambda rng: keybench(KEYS[11], 60, 13, "held-out"),
    "people": people,
    "services": lambda rng: services(rng, 160, 40),
}


def added(parts: list[Array]) -> Array:
    """What several partitions have counted, together."""
    whole = parts[0].copy()
    for part, *names in TABLES.values():
        for field in names:
            whole[part][0][field] = sum(each[part][0][field] for each in parts)
    return whole


def main() -> None:
    """Print the rows of each population that the command line names (`A+B`: of both together), or of all.

    And how many incidents what ships gives.
    """
    for name in sys.argv[1:] or POPULATIONS:
        say(name)
        every, judged, days = [], [], 0.0
        for each in (SHIPS if name == "ships" else name).split("+"):
            events = POPULATIONS[each](np.random.default_rng(20_261_124))
            every.append(judge(events, listed_days=1e15, page_days=1e16)[0])  # every visit counts
            judged.append(judge(events))
            days += key_days(events)
            del events  # before the next ones are made: two gigabytes
        tell(added(every))
        say("  as shipped, where what an incident told is used up:")
        tell(added([shared for shared, _ in judged]), "RETURNS")
        changed = np.concatenate([told for _, told in judged])
        opened = changed[changed["kind"] == fusion.OPENED]
        for days_wanted in (1_000.0, 10_000.0):
            count = int((opened["return_days"] >= days_wanted).sum())
            say(f"  as shipped: {count} incidents at {days_wanted:,.0f} days in {days:,.0f} key-days")


if __name__ == "__main__":
    main()
