"""The sample consumer as it stands in deploy/, on a broker: tells what should be looked at, goes on after a stop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from pipeline.config.tree import Topics
from pipeline.demo import broker

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "deploy" / "examples" / "consume_incidents.py"
OPENED: dict[str, Any] = json.loads((ROOT / "schemas/examples/incident/v1/opened.json").read_bytes())


OURS = {"0f0f0f0f0f0f", "abababababab", "cdcdcdcdcdcd"}


async def write(address: str, messages: Sequence[dict[str, Any]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address)
    await producer.start()
    for message in messages:
        await producer.send_and_wait("api.incidents", json.dumps(message).encode(), message["key_id"].encode())
    await producer.stop()


def told(address: str, lines: int) -> list[str]:
    """So many of the sample's lines about our incidents, then it is stopped; other tests write to this topic, too."""
    process = subprocess.Popen([sys.executable, str(SAMPLE), address, "of-the-test"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ours = (line.rstrip() for line in process.stdout if line[:12] in OURS)
        return list(islice(ours, lines))
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def revision(number: int, **fields: Any) -> dict[str, Any]:
    return OPENED | {"revision": number} | fields


def test_it_is_as_short_as_it_says() -> None:
    code = SAMPLE.read_text().partition('"""\n\n')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 25


def test_it_tells_what_should_be_looked_at_and_passes_over_fields_that_it_does_not_know(embedded_broker: str) -> None:
    asyncio.run(broker.create_topics(embedded_broker, Topics(), partitions=1))
    messages = [
        revision(1, severity="medium", text="only listed"),
        revision(2, change="escalated", a_field_of_tomorrow={"x": 1}),
        revision(3, change="extended", text="nothing new"),
        revision(1, key_id="key_2", incident_id="ab" * 16, text="the second"),
    ]
    asyncio.run(write(embedded_broker, messages))
    assert told(embedded_broker, 2) == [
        f"0f0f0f0f0f0f/2  high  {OPENED['key_id']}  {OPENED['text']}",
        "abababababab/1  high  key_2  the second",
    ]
    asyncio.run(write(embedded_broker, [revision(1, key_id="key_3", incident_id="cd" * 16, text="the third")]))
    again = told(embedded_broker, 1)  # the newest of those before may come twice: it was cut off
    assert again[0].endswith(("the second", "the third"))
