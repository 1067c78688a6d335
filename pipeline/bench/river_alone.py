"""A detector of River alone, event by event, without Kafka: `python -m pipeline.bench.river_alone EVENTS`.

Half-space trees over numbers of the event, scaled first, scored before they learn, as River's documentation shows it.
One model of all keys: with its 10 trees of height 8 a model of each key would take some MB of each.
"""

from __future__ import annotations

import sys
from typing import Any

from river import anomaly, compose, preprocessing

from pipeline.bench import load
from pipeline.bench.clock import Clock
from pipeline.enrich import hash32
from schemas.event import Event

START_US = 1_780_000_000_000_000


def model() -> Any:
    """River's own example."""
    return compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=42))


def features(request: Event) -> dict[str, float]:
    """The numbers of one event; addresses and clients by hash, as trees split anything."""
    return {
        "bytes_in": request.bytes_in, "bytes_out": request.bytes_out, "latency_ms": request.latency_ms,
        "status": request.status, "hour": request.ts_us // 3_600_000_000 % 24,
        "address": hash32(request.client_ip.encode()), "client": hash32(request.user_agent.encode()),
        "route": hash32(request.path.encode()),
    }  # fmt: skip


def measure(settings: load.Load) -> Clock:
    """A clock that has run; the features are made before the clock starts."""
    vectors = [features(event) for event in load.events(settings, START_US)]
    detector, clock = model(), Clock(len(vectors))
    for done, vector in enumerate(vectors, 1):
        detector.score_one(vector)
        detector.learn_one(vector)
        clock.at(done)
    return clock


if __name__ == "__main__":
    sys.stdout.write(measure(load.Load(events=int(sys.argv[1]))).told())
