"""Raw keys of many kinds, in every place where a gateway may log one: not one is in anything that we write."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from pipeline import log as logs
from pipeline.config.tree import ClickHouse, Config, Topics, Worker
from pipeline.core import Slice
from pipeline.emit import Emitter
from pipeline.flow import KeyCore
from pipeline.formats import Options
from pipeline.intake.run import Pump, stream
from pipeline.metrics import METRICS, render
from pipeline.ports import Columns, Headers, Outgoing
from pipeline.respond.brief import brief
from pipeline.respond.delivery.notice import of_incident
from pipeline.respond.render import RENDERINGS
from pipeline.respond.render.standard import incident_body
from pipeline.rows import RowBuffer
from pipeline.runners.replay import incident_line
from pipeline.sinks.clickhouse import ClickHouseSink, FileSink
from pipeline.sinks.connect import connect
from pipeline.state.checkpoint import Checkpoint, Directory
from schemas.incident import Incident
from schemas.rows import TABLES
from tests.canaries.logs import CANARIES, messages
from tests.pipeline.log_of_requests import core, log

TOPICS = Topics()
ALL_PASS = Config(worker=Worker(max_reject_ratio=1.0, max_reject_run=1_000_000))


@dataclass
class World:
    """Topics, tables, pages, and the text of everything else that was written."""

    sinks: tuple[ClickHouseSink, FileSink]
    topics: dict[str, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    pages: list[bytes] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        self.topics.setdefault(topic, []).append((key, value))
        self.headers += [value for _, value in headers]
        return 0

    async def publish_all(self, topic: str, records: Sequence[Outgoing]) -> None:
        for record in records:
            await self.publish(topic, *record)

    async def send(self, partition: int, key: bytes, value: bytes | None) -> int:
        self.pages.append(key + (value or b""))
        return len(self.pages)

    async def send_all(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> int:
        return max([await self.send(partition, key, value) for key, value in records], default=-1)

    async def write(self, table: str, rows: Columns) -> None:
        for sink in self.sinks:
            await sink.write(table, rows)

    async def close(self) -> None:
        await self.sinks[0].close()


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """All log lines, down to DEBUG."""
    out, root = io.StringIO(), logging.getLogger()
    level, factory = root.level, logging.getLogRecordFactory()
    handler = logs.set_up("DEBUG", stream=out)
    yield out
    root.removeHandler(handler)
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


def as_slice(records: list[tuple[bytes, bytes]], first: int) -> Slice:
    keys, values = zip(*records, strict=True)
    return Slice(TOPICS.requests, 0, range(first, first + len(records)), keys, values, [1_790_000_000_000] * len(keys))


async def run(world: World) -> KeyCore:
    """Intake of every message, then the worker over what is on the topic, and over the raw messages themselves, too."""
    pump = Pump(Config(), world)
    for kind, secret in CANARIES.items():
        for number, (format, raw) in enumerate(messages(kind, secret)):
            await pump.take(stream(raw, format, Options(), f"gateway.raw/0/{number}"))
    raw_events = [
        (b"pk_1", raw) for kind, secret in CANARIES.items() for form, raw in messages(kind, secret) if form == "native"
    ]
    history = [(key or b"", value or b"") for key, value, _ in log(1)]
    judge = core(ALL_PASS)
    buffer = RowBuffer(world, 1.0, 1_000_000)
    emitter = Emitter(
        judge, Checkpoint(0, "id", 1, "m", Directory()), topics=TOPICS, publisher=world, rows=buffer, pages=world
    )
    first = 0
    for records in (history, world.topics[TOPICS.requests], raw_events, [(b"other", raw) for _, raw in raw_events]):
        await emitter.emit(judge.process(as_slice(records, first)))
        first += len(records)
    buffer.add(judge.due_rows())
    await buffer.flush()
    for array in judge.arrays:
        world.pages += [bytes(array.block_bytes(block)) for block in range(len(array.dirty))]
    world.pages += [msgspec.msgpack.encode(blobs.rows) for blobs in judge.blobs] + [judge.meta()]
    return judge


def texts_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_no_canary_is_in_topics_rows_files_state_webhooks_metrics_or_logs(
    tmp_path: Path,
    clickhouse: ClickHouse,
    lines: io.StringIO,
) -> None:
    world = World((ClickHouseSink(clickhouse), FileSink(tmp_path)))
    await run(world)
    await world.close()
    written: dict[str, bytes] = {
        topic: b"\n".join(key + b" " + value for key, value in records) for topic, records in world.topics.items()
    }
    incidents = [msgspec.json.decode(value, type=Incident) for _, value in world.topics[TOPICS.incidents]]
    written["webhooks"] = b"\n".join(map(incident_body, incidents))
    notices = [of_incident(incident, brief(incident, None)) for incident in incidents]
    for kind, rendering in RENDERINGS.items():
        written[f"as {kind}"] = b"\n".join(map(rendering.body, notices))
    written["replay"] = b"\n".join(map(incident_line, incidents))
    written["headers"], written["pages"] = b"\n".join(world.headers), b"\n".join(world.pages)
    written |= texts_of(tmp_path)
    client = connect(clickhouse, clickhouse.database)
    tables = {table: client.raw_query(f"SELECT * FROM {table}", fmt="TabSeparatedRaw") for table in TABLES}
    client.close()
    METRICS.events_consumed.labels("http").inc()
    written |= {"metrics": render(), "log": lines.getvalue().encode(), **tables}
    for what in (
        TOPICS.requests,
        TOPICS.rejected,
        TOPICS.incidents,
        "webhooks",
        "as slack",
        "pages",
        "requests",
        "findings",
    ):
        assert len(written[what]) > 200, f"{what} is empty: the test proves nothing"
    found = {(what, kind) for what, text in written.items() for kind, key in CANARIES.items() if key.encode() in text}
    assert found == set()


def test_each_canary_really_stands_in_what_is_sent() -> None:
    for kind, secret in CANARIES.items():
        sent = messages(kind, secret)
        assert len(sent) > 50
        assert all(secret.encode() in raw for _, raw in sent)
