"""Two million distinct key ids against one partition's bounds: `python -m tests.bench.distinct_ids`.

A quarter of the events are of good keys that were there before; the others name an id that never came before: junk
(refused, so no state) and ids that authenticate once (so state, then eviction by recency). Told are memory, how many
keys have state, what was evicted, and whether every good key still has the record it began with.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.flow import open_core
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from schemas.event import Event
from tests.bench.grown import EPOCH, START_US, config, cut, print_json, rss_bytes

GOOD_KEYS = 2_000
US_PER_EVENT = 2_000
MIB = 1 << 20


def events(ids: int, admitted: float, seed: int = 3) -> Iterator[tuple[int, Event]]:
    """Good keys in turn, with three new ids between each two of their events."""
    rng = np.random.default_rng(seed)
    real = (rng.random(ids) < admitted).tolist()
    for n in range(ids):
        if n % 3 == 0:
            good = n // 3 % GOOD_KEYS
            yield 0, _event(f"good_{good}", n, "success", f"52.10.{good % 250}.7")
        yield 0, _event(f"id_{n}", n, "success" if real[n] else "invalid", f"91.7.{n % 250}.9")


def _event(key_id: str, n: int, outcome: Any, address: str) -> Event:
    return Event(
        key_id=key_id, ts_us=START_US + n * US_PER_EVENT, client_ip=address, method="GET", path="/v1/orders",
        status=200 if outcome == "success" else 401, outcome=outcome, latency_ms=12.0, request_id=f"{key_id}-{n:x}",
        user_agent="curl/8.7.1", source="native",
    )  # fmt: skip


def main() -> None:
    """One core, one pass."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--ids", type=int, default=2_000_000)
    options.add_argument("--admitted", type=float, default=0.2, help="share of the ids that authenticate")
    options.add_argument("--most-keys", type=int, default=Config().worker.max_keys_per_partition)
    chosen = options.parse_args()
    core = open_core(0, config(chosen.most_keys), Sides(Catalogue.empty(), open_geo(Config().geo), ""), EPOCH)
    counts: Counter[str] = Counter()
    most_keys, peaks, began, slots = 0, list[int](), time.process_time(), dict[str, int]()
    for n, part in enumerate(cut(events(chosen.ids, chosen.admitted), 1, [0])):
        counts.update(core.process(part).counts)
        most_keys = max(most_keys, len(core.state.slots))
        if n % 200 == 0:
            core.due_rows()
            peaks.append(rss_bytes() // MIB)
        if len(slots) < GOOD_KEYS:
            slots = {key: slot for key, slot in core.state.slots.items() if key.startswith("good_")}
    kept = sum(core.state.slots.get(key) == slot for key, slot in slots.items())
    judged = int(sum(core.state.keys.data["visit"]["events"][slot] > 1 for slot in slots.values()))
    seconds = time.process_time() - began
    print_json("distinct_ids", {
        "ids": chosen.ids, "admitted": chosen.admitted, "events": counts["events"], "evicted": counts["evicted"],
        "most_keys": most_keys, "limit": chosen.most_keys, "good_keys": len(slots), "good_keys_kept": kept,
        "good_keys_judged": judged, "rss_mib_first_middle_last": [peaks[0], peaks[len(peaks) // 2], peaks[-1]],
        "rss_mib_max": max(peaks), "us_per_event": round(seconds / counts["events"] * 1e6, 1),
    })  # fmt: skip


if __name__ == "__main__":
    main()
