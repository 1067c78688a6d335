"""`make bench`: `keywatch bench` on the Apache Kafka of these tests, one node or, with `--nodes 3`, three.

Where Java or Maven are missing it says so and takes the embedded broker; with `--broker` it takes that one. All other
arguments are those of `keywatch bench`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.kafka import cluster

LIFE_S: Final = 7_200
"""Bench and broker end by then, whatever happens."""


def bench(arguments: Sequence[str]) -> int:
    """Run it as an operator would; returns its exit code."""
    return subprocess.run([sys.executable, "-m", "pipeline.cli.main", "bench", *arguments], timeout=LIFE_S).returncode


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code of the bench."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    parser.add_argument("--broker", default="")
    ours, others = parser.parse_known_args(arguments)
    if ours.broker or "--help" in others:
        return bench(["--broker", ours.broker, *others])
    if reason := cluster.why_not():
        sys.stderr.write(f"no Apache Kafka to measure with ({reason}): the embedded broker is taken instead\n")
        return bench(others)
    with tempfile.TemporaryDirectory(prefix="keywatch-kafka-") as folder:
        running = cluster.start(Path(folder), ours.nodes, life_s=LIFE_S)
        try:
            return bench(["--broker", running.brokers, *others])
        finally:
            running.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the node ends with us
    sys.exit(main(sys.argv[1:]))
