"""The same work as Faust's documentation shows it: `async for event in stream`, one event at a time, tables for state.

`python -m pipeline.bench.plain_agent BROKERS TOPIC PARTITIONS EVENTS GROUP`. What is done per event is in `judge.py`.
It writes nothing to ClickHouse, drops no repeats and opens no incident, so it does less than the worker.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from typing import Any

import faust

from pipeline.bench.clock import Clock
from pipeline.bench.judge import Judge, add_to_minute


class Request(faust.Record, serializer="json"):
    """Event v1 as a Faust record."""

    key_id: str
    ts_us: int
    client_ip: str = ""
    method: str = ""
    route: str = ""
    path: str = ""
    status: int = 0
    outcome: str = "unknown"
    latency_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    user_agent: str = ""
    fingerprint: str = ""
    environment: str = ""
    request_id: str = ""
    source: str = ""


def make(
    brokers: str, topic: str, partitions: int, total: int, group: str, clock: Clock, folder: str
) -> tuple[Any, asyncio.Event]:
    """The application, whose data lie in `folder`, and what is set at its last event."""
    app: Any = faust.App(
        group, broker=f"kafka://{brokers}", store="memory://", topic_partitions=partitions, web_enabled=False,
        broker_rebalance_timeout=3.0, broker_session_timeout=20.0, consumer_auto_offset_reset="earliest",
        topic_replication_factor=1, topic_disable_leader=True, datadir=folder,
    )  # fmt: skip
    schema: Any = faust.Schema(key_type=str, value_type=bytes, key_serializer="raw", value_serializer="raw")
    states = app.Table("states", schema=schema, partitions=partitions)
    minutes = app.Table("minutes", key_type=str, default=list, partitions=partitions).tumbling(60.0, expires=600.0)
    requests = app.topic(topic, key_type=str, key_serializer="raw", value_type=Request, partitions=partitions)
    judge, finished = Judge(), asyncio.Event()

    async def agent(stream: Any) -> None:
        done = 0
        async for event in stream.events():
            request: Request = event.value
            record, _ = judge.judge(request, event.message.offset, states.get(request.key_id) or b"")
            states[request.key_id] = record
            window = minutes[request.key_id]
            minutes[request.key_id] = add_to_minute(window.value(), request)
            done += 1
            if clock.at(done):
                finished.set()

    app.agent(requests, name="judge")(agent)
    return app, finished


async def measure(brokers: str, topic: str, partitions: int, total: int, group: str) -> None:
    """Prints its pace and ends the process."""
    clock = Clock(total)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        app, finished = make(brokers, topic, partitions, total, group, clock, folder)
        await app.start()
        await finished.wait()
    sys.stdout.write(clock.told())
    sys.stdout.flush()
    os._exit(0)  # to stop Faust takes longer than what is measured


if __name__ == "__main__":
    brokers, topic, partitions, total, group = sys.argv[1:]
    asyncio.run(measure(brokers, topic, int(partitions), int(total), group))
