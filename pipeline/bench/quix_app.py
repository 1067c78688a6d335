"""The same work as the documentation of Quix Streams shows it: a dataframe, `apply(..., stateful=True)`, a window.

`python -m pipeline.bench.quix_app BROKERS TOPIC PARTITIONS EVENTS GROUP`, with the extra `bench` installed. State is
its own store, RocksDB with a changelog topic, both by default; the minute is a tumbling window. Per event it does what
`judge.py` says, writes nothing to ClickHouse, drops no repeats and opens no incident.
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import timedelta
from typing import Any

import msgspec
from quixstreams import Application, State
from quixstreams.dataframe.windows import Count, Sum

from pipeline.bench.clock import Clock
from pipeline.bench.judge import Judge
from schemas.event import Event


def make(brokers: str, topic: str, group: str, clock: Clock, state_dir: str) -> Any:
    """The application; the process ends at the last event."""
    app: Any = Application(
        brokers, consumer_group=group, auto_offset_reset="earliest", state_dir=state_dir, loglevel="ERROR",
    )  # fmt: skip
    judge, done = Judge(), 0

    def judged(value: dict[str, Any], key: Any, timestamp: int, headers: Any, state: State) -> dict[str, int]:
        nonlocal done
        request = msgspec.convert(value, Event)
        record, _ = judge.judge(request, done, state.get_bytes("record", b""))
        state.set_bytes("record", record)
        done += 1
        if clock.at(done):
            _end(clock)
        return {"error": int(request.status >= 400), "size": request.bytes_out}

    requests = app.dataframe(app.topic(topic, key_deserializer="str", value_deserializer="json"))
    judged_requests = requests.apply(judged, stateful=True, metadata=True)
    minutes = judged_requests.tumbling_window(timedelta(minutes=1))
    minutes.agg(events=Count(), errors=Sum("error"), size=Sum("size")).final()
    return app


def _end(clock: Clock) -> None:
    sys.stdout.write(clock.told())
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    brokers, topic, _, total, group = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="keywatch-quix-") as folder:
        make(brokers, topic, group, Clock(int(total)), folder).run()
