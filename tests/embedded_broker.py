"""A broker for tests that need a topic and no cluster: Tansu, in memory, without Java.

Every test has the fixture (tests/conftest.py); the value is "127.0.0.1:port". It answers
`ListOffsets` wrongly (pipeline/demo/broker.py): tests of offsets belong into tests/kafka.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from pipeline.demo import broker

STOP_S = 10.0


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[str]:
    """Its address; one for all tests of the session."""
    address = f"127.0.0.1:{broker.free_port()}"
    url = f"tcp://{address}"
    process = subprocess.Popen(
        [broker.binary(), "broker", "--storage-engine", "memory://tansu/", "--listener-url", url,
         "--advertised-listener-url", url],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        asyncio.run(broker.wait_until_ready(address, 60.0))
        yield address
    finally:
        process.terminate()
        process.wait(STOP_S)
