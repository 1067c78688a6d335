"""The same work as Bytewax's documentation shows it: Kafka source, `stateful_map`, a window folded per key and minute.

`python -m pipeline.bench.bytewax_flow BROKERS TOPIC PARTITIONS EVENTS`, with the extra `bench` installed (wheels
for Python 3.11 and 3.12). State is its own, with its recovery store on disk, a snapshot every 10 s. Per event it
does what `judge.py` says, writes nothing to ClickHouse, drops no repeats and opens no incident.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import msgspec
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from pipeline.bench.clock import Clock
from pipeline.bench.judge import Judge, Minute, add_to_minute
from schemas.event import Event

EPOCH: Any = timedelta(seconds=10)


class Dropped(StatelessSinkPartition[Any]):
    """What the windows bring goes nowhere."""

    def write_batch(self, items: list[Any]) -> None:
        """Drop them."""


class Nowhere(DynamicSink[Any]):
    """The end that every flow needs."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Dropped:
        """One for each worker."""
        return Dropped()


def make(source: Any, clock: Clock) -> Any:
    """The flow. `source` yields Kafka messages with `value` (JSON)."""
    decode = msgspec.json.Decoder(Event).decode
    judge, done = Judge(), 0

    def keyed(message: Any) -> tuple[str, Event]:
        request = decode(message.value)
        return request.key_id, request

    def judged(record: bytes | None, request: Event) -> tuple[bytes, Event]:
        nonlocal done
        after, _ = judge.judge(request, done, record or b"")
        done += 1
        clock.at(done)
        return after, request

    flow = Dataflow("judge")
    requests = op.map("decode", op.input("requests", flow, source), keyed)
    seen = op.stateful_map("judge", requests, judged)
    window = win.TumblingWindower(length=timedelta(minutes=1), align_to=datetime(2020, 1, 1, tzinfo=UTC))
    times = win.EventClock(_time_of, wait_for_system_duration=timedelta(seconds=10))
    minutes = win.fold_window("minutes", seen, times, window, list, add_to_minute, _merged)
    op.output("end", minutes.down, Nowhere())
    return flow


def _time_of(request: Event) -> datetime:
    return datetime.fromtimestamp(request.ts_us / 1e6, UTC)


def _merged(one: Minute, other: Minute) -> Minute:
    return [a + b for a, b in zip(one or [0, 0, 0], other or [0, 0, 0], strict=True)]


if __name__ == "__main__":
    brokers, topic, _, total = sys.argv[1:]
    clock = Clock(int(total))
    with tempfile.TemporaryDirectory(prefix="keywatch-bytewax-") as folder:
        init_db_dir(Path(folder), 1)
        source = KafkaSource(brokers.split(","), [topic], tail=False)
        cli_main(make(source, clock), epoch_interval=EPOCH, recovery_config=RecoveryConfig(folder))
    if clock.last[1] < clock.total:
        sys.exit(f"the flow ended after {clock.last[1]} of {clock.total} events")
    sys.stdout.write(clock.told())
