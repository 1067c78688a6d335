"""Recovery of very many keys by a real worker from a real broker: `python -m tests.bench.recovery_kafka`.

One node of Apache Kafka (tests/kafka, needs Java and Maven) gets the pages of the grown state, then a worker on Faust
starts. Told are seconds from the start of the process until the last partition is loaded, of which start-up (imports,
compiled code, joining the group) is what an empty group takes too; the processor time of the worker, and its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Checkpoint, Directory
from pipeline.runners.import_state import write_state
from pipeline.sinks.topics import topic_id
from tests.bench.grown import Grown, print_json
from tests.kafka import cluster
from tests.kafka.deployment import PARTITIONS, Deployment, pid_of

MOST_S = 600.0


def started(deployment: Deployment) -> dict[str, Any]:
    """Start a worker, wait until all partitions are loaded, stop it."""
    began = time.monotonic()
    worker = deployment.start()
    while deployment.log_of(worker).count("next offset") < PARTITIONS:
        assert worker.poll() is None and time.monotonic() < began + MOST_S, deployment.log_of(worker)
        time.sleep(0.2)
    took, pid = time.monotonic() - began, pid_of(worker)
    times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    deployment.stop(worker)
    cpu_s = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return {"seconds": round(took, 1), "cpu_s": round(cpu_s, 1), "peak_rss_mib": peak_kib // 1024}


def write(deployment: Deployment, keys: int) -> None:
    """The pages of the grown state, a partition at a time."""
    grown, records, began = Grown(keys, PARTITIONS), 0, time.process_time()
    epoch = asyncio.run(topic_id(deployment.config.kafka, deployment.config.topics.requests))
    for core in grown.cores:
        writer = Checkpoint(core.partition, epoch, 1, "bench", Directory(), PARTITIONS)
        records += asyncio.run(write_state(deployment.config, writer, core))
    us = (time.process_time() - began) / records * 1e6
    print_json("write_pages", {"keys": keys, "records": records, "us_per_record": round(us)})


def main() -> None:
    """An empty group, then the keys."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keys", type=int, default=1_000_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        node = cluster.start(Path(folder))
        deployments = []
        try:
            for name, keys in (("empty", 0), ("full", chosen.keys)):
                room = {"max_keys_per_partition": max(1, chosen.keys)}
                deployments.append(Deployment(node.brokers, name, Path(folder) / name, "faust", room, core="real"))
                if keys:
                    write(deployments[-1], keys)
                print_json("recovery_kafka", {"keys": keys} | started(deployments[-1]))
        finally:
            for deployment in deployments:
                deployment.kill_all()
            node.stop()


if __name__ == "__main__":
    main()
