"""Recovery of very many keys by a real worker from a real broker: `python -m tests.bench.recovery_kafka`.

One node of Apache Kafka (tests/kafka, needs Java and Maven) gets the pages and the journal of the grown state as
`tests.bench.recovery` makes them, and the log: 10,000 events lie behind the state, as many as come in two intervals of
checkpoints with a million keys. Then a worker starts. Told are, in seconds of the clock (`_s`) and of its processor
(`_cpu_s`), both from the start of the process: until the last partition is loaded (of which imports, compiled code and
joining the group are what an empty group takes too), and until it has caught up, that is, the events are judged and
committed; and `peak_rss_mib`, the most memory it had by then. Then the kernel's mark is set back, as many events come
again, and `holding_peak_rss_mib` is the most that a worker has that holds the keys, judges and writes checkpoints.
Exit code 1 where either peak is over MOST_MIB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.sinks.kafka import Producer
from pipeline.sinks.topics import topic_id
from schemas.event import Event
from tests.bench.grown import Grown, print_json
from tests.bench.recovery import checkpoints
from tests.kafka import cluster
from tests.kafka.deployment import PARTITIONS, Deployment, pid_of

MOST_S: Final = 600.0
MOST_MIB: Final = 2_560
"""What a worker with a million keys may have, recovery included (issue 4)."""
REPLAYED: Final = 10_000


Events = list[tuple[int, Event]]
"""Partition and event."""


def started(deployment: Deployment, more: Events) -> dict[str, Any]:
    """Start a worker, wait until all partitions are loaded and the log is judged, then let `more` come; stop it."""
    began = time.monotonic()
    worker = deployment.start()
    while deployment.log_of(worker).count("next offset") < PARTITIONS:
        assert worker.poll() is None and time.monotonic() < began + MOST_S, deployment.log_of(worker)
        time.sleep(0.2)
    pid = pid_of(worker)
    figures = {"loaded_s": round(time.monotonic() - began, 1), "loaded_cpu_s": cpu_s(pid)}
    figures["loading_s"] = round(loading_s(deployment.log_of(worker)), 1)
    deployment.wait_drained()
    figures |= {"caught_up_s": round(time.monotonic() - began, 1), "caught_up_cpu_s": cpu_s(pid)}
    figures |= {"rss_mib": memory_mib(pid, "VmRSS"), "peak_rss_mib": memory_mib(pid, "VmHWM")}
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts from here
    asyncio.run(send_events(deployment, more))
    deployment.wait_drained()
    figures["holding_peak_rss_mib"] = memory_mib(pid, "VmHWM")
    assert deployment.stop(worker) == 0, deployment.log_of(worker)[-2000:]
    return figures


def cpu_s(pid: int) -> float:
    """Processor time of all its threads so far."""
    times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return round((int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"), 1)


def memory_mib(pid: int, name: str) -> int:
    """VmRSS, what is resident now, or VmHWM, the most that was."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) // 1024


def loading_s(log: str) -> float:
    """From the assignment to the last partition's arrays, by the worker's own log."""
    lines = log.splitlines()
    begin = max(i for i, line in enumerate(lines) if "state of" in line and "is read" in line)
    end = max(i for i, line in enumerate(lines) if "next offset" in line)
    return (at(lines[end]) - at(lines[begin])).total_seconds()


def at(line: str) -> datetime:
    """The time of a line of the log."""
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC)


def write(deployment: Deployment, keys: int, intervals: int) -> Events:
    """The pages of the grown state, a partition at a time, and the log that goes with them; returns what comes next."""
    grown = Grown(keys, PARTITIONS)
    config = deployment.config
    records, then_us, first = checkpoints(grown, intervals, asyncio.run(topic_id(config.kafka, config.topics.requests)))
    size = sum(len(key) + len(value) for each in records for key, value in each.items())
    print_json("written", {"keys": keys, "records": sum(map(len, records)), "mib": size >> 20, "log": sum(first)})
    events = list(grown.traffic(2 * REPLAYED, grown.natural_per_s(), then_us))
    asyncio.run(send(deployment, records, first))
    asyncio.run(send_events(deployment, events[:REPLAYED]))
    return events[REPLAYED:]


async def send(deployment: Deployment, pages: list[dict[bytes, bytes]], first: list[int]) -> None:
    """Pages in batches of ours; of the log before the state's offset only its length."""
    config = deployment.config
    producer = Producer(config.kafka).pages_to(config.topics.pages)
    await producer.start()
    began = time.process_time()
    for number, each in enumerate(pages):
        records = list(each.items())
        for start in range(0, len(records), 64):
            await producer.send_all(number, records[start : start + 64])
    us = (time.process_time() - began) * 1e6 / sum(map(len, pages))
    print_json("sent", {"cpu_us_per_record": round(us)})
    log = producer.pages_to(config.topics.requests)
    for number, count in enumerate(first):
        await log.send_all(number, [(b"", b"")] * count)
    await producer.close()


async def send_events(deployment: Deployment, events: Events) -> None:
    """As they come in."""
    log = Producer(deployment.config.kafka).pages_to(deployment.config.topics.requests)
    await log.start()
    for number in range(PARTITIONS):
        mine = [event for home, event in events if home == number]
        await log.send_all(number, [(event.key_id.encode(), msgspec.json.encode(event)) for event in mine])
    await log.close()


def main() -> int:
    """An empty group, then the keys."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keys", type=int, default=1_000_000)
    options.add_argument("--intervals", type=int, default=120, help="checkpoints whose rows lie in the journal")
    options.add_argument("--runner", choices=("faust", "plain"), default="faust")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        node = cluster.start(Path(folder))
        deployments, peaks = [], [0]
        try:
            for name, keys in (("empty", 0), ("full", chosen.keys)):
                room = {"max_keys_per_partition": max(1, chosen.keys), "checkpoint_s": 5.0, "slice_events": 1_000}
                place = Path(folder) / name
                deployments.append(Deployment(node.brokers, name, place, chosen.runner, room, core="real"))
                more = write(deployments[-1], keys, chosen.intervals) if keys else []
                figures = started(deployments[-1], more)
                peaks += [figures["peak_rss_mib"], figures["holding_peak_rss_mib"]]
                print_json("recovery_kafka", {"keys": keys} | figures)
        finally:
            for deployment in deployments:
                deployment.kill_all()
            node.stop()
    return int(max(peaks) > MOST_MIB)


if __name__ == "__main__":
    sys.exit(main())
