"""A small world in which the documents' commands run: a broker, tables with a key and its incident, files, settings."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from pipeline.config.tree import ClickHouse, Config, Intake, Kafka, Leaks, Secret, Topics
from pipeline.demo import broker
from pipeline.intake.http import from_http
from pipeline.intake.run import Pump
from pipeline.keys.catalogue import publish_keys
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.kafka import Producer
from schemas.key import Key
from tests.console import filled
from tests.docs.reading import ROOT
from tests.pipeline import key_rows
from tests.row_examples import rows_of

PEPPER: Final = "pepper-of-the-documents-0123456789ab"
TOKEN: Final = "token-of-the-documents-0123456789"
KONG: Final = ROOT / "schemas" / "examples" / "formats" / "kong" / "object.json"
LINES: Final = "".join(
    f"203.0.113.{number % 7} - anna [{1 + number // 24:02}/Sep/2026:{number % 24:02}:10:00 +0000] "
    '"GET /v1/orders HTTP/1.1" 200 512 "-" "acme-sdk/2.1"\n'
    for number in range(240)
)
FILES: Final = {
    "access.log": LINES,
    "kong.jsonl": json.dumps(json.loads(KONG.read_bytes())) + "\n",
    "keys.csv": "key_id,owner,environment,protected\n203.0.113.5,logistics,live,false\n",
    "revoked.csv": "key_id,owner,environment,rotated_to,status,ended_at\n"
    "key_warehouse_08,logistics,live,key_warehouse_09,revoked,2026-12-01T09:00:00Z\n",
    "decoy.csv": "key_id,environment,decoy,protected\nkey_decoy_01,live,true,false\n",
    "rotated.csv": "key_id,owner,environment,rotated_from,rotated_to,created_at\n"
    "key_warehouse_08,logistics,live,,key_warehouse_09,\n"
    "key_warehouse_09,logistics,live,key_warehouse_08,,2026-09-21T00:00:00Z\n",
    "key-auths.json": json.dumps(
        {"data": [{"id": "3f1e0c7a-57f1-4c8e", "consumer": {"id": "c0ffee"}, "created_at": 1_700_000_000}]}
    ),
    "other.toml": "[budget]\nlisted = 30.0\n\n[detectors.off_hours]\nsimulate = true\n",
}  # fmt: skip


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, front: str, embedded_broker: str) -> Iterator[Path]:
    """The folder; `keywatch.toml` in it is the configuration."""
    folder = tmp_path_factory.mktemp("documents")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "keywatch.toml").write_text(
        f'[kafka]\nbrokers = "{embedded_broker}"\npartitions = 1\n\n'
        f'[clickhouse]\nurl = "{front}"\ndatabase = "keywatch_docs"\nexpire = false\n\n'
        '[respond.policy]\nadapter = "keys"\n\n'
        '[[respond.endpoints]]\nname = "keys"\nurl = "http://127.0.0.1:9/hooks"\nallow_private = true\n'
        'secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"\n\n'
        '[[respond.rules]]\nname = "stranger"\nrung = "fence"\n\n'
        f'[intake]\npepper = "{PEPPER}"\n\n[leaks]\ntoken = "{TOKEN}"\nurl = "http://127.0.0.1:{{port}}/leaks"\n'
    )
    tables = ClickHouse(url=front, database="keywatch_docs", expire=False)
    filled.fill(tables)
    key_rows.fill(tables, key_rows.daily(filled.KEY, range(30), times=5))
    asyncio.run(_publish(front, embedded_broker))
    settings = Config(
        kafka=Kafka(brokers=embedded_broker, partitions=1), clickhouse=tables,
        intake=Intake(http_port=0, pepper=Secret(PEPPER)),
        leaks=Leaks(enabled=True, token=Secret(TOKEN), look_every_s=0.0),
    )  # fmt: skip
    with intake(settings) as port:
        path = folder / "keywatch.toml"
        path.write_text(path.read_text().replace("{port}", str(port)))
        yield folder


@contextmanager
def intake(config: Config) -> Iterator[int]:
    """One that takes events and reports of leaks, in a thread with a loop of its own; its port."""
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def serve() -> None:
        producer, stop = Producer(config.kafka), asyncio.Event()
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        bound.add_done_callback(lambda _: told.put((bound.result(), asyncio.get_running_loop(), stop)))
        await producer.start()
        try:
            await from_http(config, Pump(config, producer), stop, bound)
        finally:
            await producer.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    port, loop, stop = told.get(timeout=60)
    yield int(port)
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)


async def _publish(url: str, brokers: str) -> None:
    await broker.create_topics(brokers, Topics(), partitions=1)
    config = Config(kafka=Kafka(brokers=brokers))
    await publish_keys(config, [Key(key_id=filled.KEY, owner="logistics", environment="live")])
    sink = ClickHouseSink(ClickHouse(url=url, database="keywatch_docs", expire=False))
    leak = rows_of("leaks", 1, leak_id=["ef" * 16], key_id=[filled.KEY], outcome=["matched"], feed=["manual"])
    await sink.write("leaks", leak)
    await sink.close()
