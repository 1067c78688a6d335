"""From the start of a real worker to its first judged event: `python -m tests.bench.start`.

One node of Apache Kafka (tests/kafka, needs Java and Maven) with topics made and events waiting, compiled code in the
cache, no state to load and no ClickHouse (rows wait): `keywatch worker` as an operator starts it, several times. Told
are seconds since the process was made: `imported` (it asks the broker for the first time), `compiled`, `joined` (state
is asked for), `loaded`, and `first_event` as its metrics tell it; and its processor time until then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from datetime import time as time_of_day
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from pipeline.config.tree import Config, Kafka, Topics
from pipeline.sinks.kafka import Producer
from pipeline.sinks.topics import ensure_topics
from schemas.event import Event
from tests.bench.grown import START_US, print_json
from tests.kafka import cluster
from tests.kafka.deployment import pid_of

MOST_S: Final = 120.0
STEPS: Final = {
    "imported": r"topics are asked for",
    "compiled": r"compiled code, side inputs and topics are there",
    "joined": r"state of \d+ partitions is read",
    "loaded": r"next offset",
}
EVENTS: Final = 1_000


def free_port() -> int:
    """Nobody listens on it now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def settings(brokers: str, prefix: str) -> tuple[Config, str]:
    """Topics of their own, as code and as the file that the worker reads."""
    names = {field.name: f"{prefix}.{field.name}" for field in msgspec.structs.fields(Topics)}
    kafka: dict[str, str | int] = {"brokers": brokers, "group": prefix, "partitions": 4, "replication": 1}
    sections: dict[str, Mapping[str, str | int]] = {"kafka": kafka, "topics": names}
    lines = [f"[{name}]\n" + "".join(f"{k} = {v!r}\n" for k, v in each.items()) for name, each in sections.items()]
    away = f'[clickhouse]\nurl = "http://127.0.0.1:{free_port()}"\n'
    return Config(kafka=msgspec.convert(kafka, Kafka), topics=Topics(**names)), "".join(lines).replace("'", '"') + away


async def fill(config: Config) -> None:
    """Topics, and events that wait."""
    await ensure_topics(config)
    producer = Producer(config.kafka)
    await producer.start()
    for number in range(EVENTS):
        event = Event(key_id=f"pk_{number % 50}", ts_us=START_US + number * 1_000, outcome="success")
        await producer.publish(config.topics.requests, event.key_id.encode(), msgspec.json.encode(event))
    await producer.close()


def started(file: Path, folder: Path) -> dict[str, float]:
    """Start it, wait for the first event, stop it."""
    port, log = free_port(), folder / "worker.log"
    env = dict(os.environ) | {"KEYWATCH_WORKER__METRICS_PORT": str(port)}
    command = ["timeout", "-s", "KILL", str(MOST_S), sys.executable, "-m", "pipeline.cli.main", "worker", "--config"]
    began = time.time()
    with log.open("wb") as out:
        worker = subprocess.Popen([*command, str(file)], env=env, stdout=out, stderr=out)
    try:
        while not judged(port):
            assert worker.poll() is None, log.read_text()
            time.sleep(0.02)
        took = time.time() - began
        steps = {name: first(log.read_text(), words, began) for name, words in STEPS.items()}
        return steps | {"first_event": took, "cpu_s": cpu_s(pid_of(worker))}
    finally:
        worker.terminate()
        worker.wait(60)


def metrics(port: int) -> str:
    """What the worker tells, "" while it doesn't listen."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""


def judged(port: int) -> bool:
    """Whether a slice is done."""
    return bool(re.search(r"^keywatch_events_consumed_total\{.*\} [1-9]", metrics(port), re.MULTILINE))


def cpu_s(pid: int) -> float:
    """Processor time of the process: what a machine that does nothing else needs at least."""
    times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def first(log: str, words: str, began: float) -> float:
    """Seconds until the first line with these words."""
    line = next(line for line in log.splitlines() if re.search(words, line))
    at = time_of_day.fromisoformat(line[:12])
    return datetime.combine(datetime.fromtimestamp(began, UTC).date(), at, UTC).timestamp() - began


def main() -> None:
    """The median of several starts, after one that fills the cache."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        node = cluster.start(Path(folder))
        try:
            each = [once(node.brokers, Path(folder), number) for number in range(chosen.times + 1)][1:]
        finally:
            node.stop()
    print_json("start", {name: round(median(one[name] for one in each), 2) for name in each[0]})
    print_json("start_each", {"first_event": sorted(round(one["first_event"], 2) for one in each)})


def once(brokers: str, folder: Path, number: int) -> dict[str, float]:
    """A group and topics of its own: no session of a former member is waited for."""
    config, text = settings(brokers, f"start{number}")
    file = folder / f"{number}.toml"
    file.write_text(text)
    asyncio.run(fill(config))
    return started(file, folder)


if __name__ == "__main__":
    main()
