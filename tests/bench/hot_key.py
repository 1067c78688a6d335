"""One key with 30 % of a partition's traffic does not delay the others: `python -m tests.bench.hot_key`.

The same log twice, in slices as a worker cuts them: once as it is, once with 30 % of the events given to one key. Told
is how long a slice takes (the time that any event waits for those before it in its slice), in processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import msgspec
import numpy as np

from schemas.event import Event
from tests.bench.grown import DAY_US, START_US, Grown, cut, print_json

HOT = 0.3
KEYS = 10_000


def hot(events: Iterator[tuple[int, Event]], share: float, seed: int = 5) -> Iterator[tuple[int, Event]]:
    """That share of the events is one key's."""
    rng, chosen = np.random.default_rng(seed), None
    for part, event in events:
        chosen = chosen or event
        if rng.random() < share:
            same = {name: getattr(chosen, name) for name in ("key_id", "client_ip", "user_agent")}
            yield part, msgspec.structs.replace(event, **same)
        else:
            yield part, event


def slice_ms(events: int, share: float) -> list[float]:
    """Milliseconds of each slice, the first tenth left out."""
    grown = Grown(KEYS, 1)
    log = list(cut(hot(grown.traffic(events, 200.0, START_US + DAY_US), share), 1, [0]))
    took = []
    for part in log:
        began = time.thread_time()
        grown.cores[0].process(part)
        took.append(1000 * (time.thread_time() - began))
    return took[len(took) // 10 :]


def main() -> None:
    """Both logs, and the ratio."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=100_000)
    chosen = options.parse_args()
    even, uneven = slice_ms(chosen.events, 0.0), slice_ms(chosen.events, HOT)
    figures = {
        name: {"p50_ms": round(float(np.percentile(took, 50)), 2), "p99_ms": round(float(np.percentile(took, 99)), 2)}
        for name, took in (("without", even), ("with", uneven))
    }
    ratio = {p: round(figures["with"][p] / figures["without"][p], 2) for p in ("p50_ms", "p99_ms")}
    print_json("hot_key", {"share": HOT, "ratio": ratio} | figures)


if __name__ == "__main__":
    main()
