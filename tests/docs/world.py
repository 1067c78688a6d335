"""A small world in which the documents' commands run: a broker, tables with a key and its incident, files, settings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from pipeline.catalogue import publish_keys
from pipeline.config import ClickHouse, Config, Kafka, Topics
from pipeline.demo import broker
from pipeline.sinks.clickhouse import ClickHouseSink
from schemas.key import Key
from tests.console import filled
from tests.docs.reading import ROOT
from tests.pipeline import key_rows
from tests.row_examples import rows_of

KONG: Final = ROOT / "schemas" / "examples" / "formats" / "kong" / "object.json"
LINES: Final = "".join(
    f"203.0.113.{number % 7} - anna [{1 + number // 24:02}/Sep/2026:{number % 24:02}:10:00 +0000] "
    '"GET /v1/orders HTTP/1.1" 200 512 "-" "acme-sdk/2.1"\n'
    for number in range(240)
)
FILES: Final = {
    "access.log": LINES,
    "kong.jsonl": json.dumps(json.loads(KONG.read_bytes())) + "\n",
    "keys.csv": "key_id,owner,environment,protected\nkey_warehouse_08,logistics,live,false\n",
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
        '[[respond.rules]]\nname = "stranger"\nrung = "fence"\n'
    )
    tables = ClickHouse(url=front, database="keywatch_docs", expire=False)
    filled.fill(tables)
    key_rows.fill(tables, key_rows.daily(filled.KEY, range(30), times=5))
    asyncio.run(_publish(front, embedded_broker))
    yield folder


async def _publish(url: str, brokers: str) -> None:
    await broker.create_topics(brokers, Topics(), partitions=1)
    config = Config(kafka=Kafka(brokers=brokers))
    await publish_keys(config, [Key(key_id=filled.KEY, owner="logistics", environment="live")])
    sink = ClickHouseSink(ClickHouse(url=url, database="keywatch_docs", expire=False))
    leak = rows_of("leaks", 1, leak_id=["ef" * 16], key_id=[filled.KEY], outcome=["matched"], feed=["manual"])
    await sink.write("leaks", leak)
    await sink.close()
