"""ClickHouse away, slow and failing after it applied, clock steps, poison in every field, a backlog: with the real core
and ClickHouse the tables (FINAL) and incidents are those of one clean pass over the log."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from pipeline.config import ClickHouse
from pipeline.migrate import migrate
from pipeline.runners.shell import EXIT_FATAL
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from schemas.event import Event
from schemas.rows import TABLES
from tests.clickhouse_front import FrontProcess
from tests.kafka.cluster import free_port
from tests.kafka.conftest import long
from tests.kafka.deployment import DRAIN_S, Deployment, read_topic
from tests.kafka.test_real_core import clean_rows, produce
from tests.pipeline.log_of_requests import START_US, Record, log, record
from tests.seeds import SEED

pytestmark = pytest.mark.kafka

AWAY_S: Final = float(os.environ.get("KEYWATCH_AWAY_S", "8"))
BACKLOG: Final = int(os.environ.get("KEYWATCH_BACKLOG", "12000"))
MOST_MEMORY_MB: Final = 900.0
"""Of a worker with the real core, compiled; measured 360 to 480 on an idle machine."""
COMPARED: Final = sorted(TABLES.keys() - {"responses", "adoptions"})


class Outside:
    """A ClickHouse of our own that can be stopped, frozen and spoiled; it comes back at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.start()
        self.config = ClickHouse(url=self.process.url, database="found", expire=False, timeout_s=2.0)
        self.clean = msgspec.structs.replace(self.config, database="clean", timeout_s=30.0)
        migrate(self.config)
        migrate(self.clean)

    def start(self) -> None:
        """Start it again."""
        self.process = FrontProcess(self._folder, "--faults", "--port", str(self._port))

    def spoil(self, faults: list[str]) -> None:
        """The next inserts fail so."""
        request = urllib.request.Request(f"{self.process.url}/faults", data=json.dumps(faults).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def tables(self, config: ClickHouse) -> dict[str, Any]:
        """Every table FINAL."""
        client = connect(config, config.database)
        try:
            return {name: client.query(f"SELECT * FROM {name} FINAL ORDER BY ALL").result_rows for name in COMPARED}
        finally:
            client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    outside = Outside(tmp_path_factory.mktemp("outside"))
    yield outside
    outside.process.stop(signal.SIGKILL)


@pytest.fixture
def outside(server: Outside) -> Iterator[Outside]:
    """With empty tables."""
    yield server
    if server.process.process.poll() is not None:
        server.start()
    client = connect(server.config, None)
    for database in ("found", "clean"):
        for name in COMPARED:
            client.command(f"TRUNCATE TABLE {database}.{name}")
    client.close()


def real(deploy: Callable[..., Deployment], outside: Outside, **settings: Any) -> Deployment:
    """A deployment with the real core and this ClickHouse."""
    deployment = deploy(**settings)
    deployment.core = "real"
    found = {name: getattr(outside.config, name) for name in ("url", "database", "timeout_s")}
    deployment.environment["KW_CLICKHOUSE"] = json.dumps(found)
    return deployment


def assert_clean(deployment: Deployment, outside: Outside) -> None:
    """Offsets at the end; incidents and tables as of one pass."""
    assert deployment.committed() == deployment.manifests() == deployment.ends()
    incidents, rows = clean_rows(deployment)

    async def write() -> None:
        sink = ClickHouseSink(outside.clean)
        for table, columns in rows.items():
            await sink.write(table, columns)
        await sink.close()

    asyncio.run(write())
    published = deployment.run(read_topic(deployment.config, deployment.config.topics.incidents))
    assert {record.value for record in published} == incidents
    found, clean = outside.tables(outside.config), outside.tables(outside.clean)
    assert len(clean["requests"]) > 100
    for name in COMPARED:
        assert found[name] == clean[name], name


def finish(deployment: Deployment, outside: Outside) -> None:
    """A worker ends the work, within its memory."""
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    assert deployment.most_memory_mb(worker) < MOST_MEMORY_MB
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    assert_clean(deployment, outside)


def test_clickhouse_away_slow_and_failing_after_it_applied_changes_nothing(
    deploy: Callable[..., Deployment], outside: Outside
) -> None:
    """Detection goes on meanwhile: incidents come out while no row can be written."""
    deployment = real(deploy, outside)
    records = log(SEED, events=2_000)
    first, second = 2 * len(records) // 5, 9 * len(records) // 10  # the attack lies between them
    produce(deployment, records[:first])
    worker = deployment.start()
    deployment.wait_drained()
    outside.process.stop(signal.SIGKILL)
    before = incidents_of(deployment)
    produce(deployment, records[first:second])
    time.sleep(AWAY_S)
    deployment.wait(lambda: incidents_of(deployment) > before, "an incident while ClickHouse is away")
    outside.start()
    deployment.wait_drained()
    outside.spoil(["503", "500-after-apply", "timeout", "500-after-apply", "503"])
    produce(deployment, records[second:])
    os.kill(outside.process.process.pid, signal.SIGSTOP)
    time.sleep(4.0)
    os.kill(outside.process.process.pid, signal.SIGCONT)
    deployment.wait_drained()
    assert deployment.most_memory_mb(worker) < MOST_MEMORY_MB
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    assert_clean(deployment, outside)


def incidents_of(deployment: Deployment) -> int:
    return len(deployment.run(read_topic(deployment.config, deployment.config.topics.incidents)))


def test_clock_steps_of_a_day_forth_and_back_change_nothing(
    deploy: Callable[..., Deployment], outside: Outside
) -> None:
    """Of the workers; what producers' clocks do is in the records' timestamps, and so in the log."""
    deployment = real(deploy, outside)
    records = log(SEED + 1, events=1_000)
    half = len(records) // 2
    for part, shift_s in ((records[:half], 86_400), (records[half:], -2 * 86_400)):
        produce(deployment, part)
        deployment.environment["KW_CLOCK_S"] = str(shift_s)
        worker = deployment.start()
        deployment.wait_ready(worker)
        deployment.wait_drained()
        assert deployment.stop(worker) == 0, deployment.log_of(worker)
    assert_clean(deployment, outside)


def poison(rng: random.Random, number: int) -> Record:
    """A good event with one field that is none: another type, a huge or odd value, or something no JSON has."""
    event = json.loads(record(Event(key_id="pk_0", ts_us=START_US + number, request_id=f"p{number}"))[1] or b"")
    field = rng.choice([each.name for each in msgspec.structs.fields(Event)])
    event[field] = rng.choice(
        [None, -1, 2**70, 1e308, "", "x" * 70_000, [], {}, True, "\ud800", "\x00", "nan", ["a"] * 9, {"a": {"b": [[]]}}]
    )
    return b"pk_0", json.dumps(event).encode(), START_US // 1000


def test_poison_in_every_field_loses_nothing_of_the_good_events(
    deploy: Callable[..., Deployment], outside: Outside
) -> None:
    deployment = real(deploy, outside)
    rng, records = random.Random(SEED), log(SEED + 2, events=1_000)
    for number in range(300):
        records.insert(rng.randrange(len(records)), poison(rng, number))
    produce(deployment, records)
    finish(deployment, outside)
    told = deployment.run(read_topic(deployment.config, deployment.config.topics.rejected))
    assert len({each.key for each in told}) > 50


def test_a_flood_of_poison_stops_the_worker_before_it_commits_it(
    deploy: Callable[..., Deployment], outside: Outside
) -> None:
    deployment = real(deploy, outside, max_reject_run=500)
    produce(deployment, [(b"pk_0", b"not json %d" % n, START_US // 1000) for n in range(2_000)])
    worker = deployment.start()
    assert worker.wait(DRAIN_S) == EXIT_FATAL, deployment.log_of(worker)
    assert "is a producer sending another format?" in deployment.log_of(worker)
    assert sum(deployment.committed().values()) <= 500


@long
def test_a_backlog_is_worked_off_within_bounded_memory(
    deploy: Callable[..., Deployment], outside: Outside, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = real(deploy, outside, slice_events=1000)
    records = log(SEED + 3, events=BACKLOG, keys=40)
    produce(deployment, records)
    began = time.monotonic()
    worker = deployment.start()
    deployment.wait_drained()
    took_s, memory_mb = time.monotonic() - began, deployment.most_memory_mb(worker)
    with capsys.disabled():
        print(f"\nbacklog of {len(records)}: start to its end {took_s:.1f} s, {memory_mb:.0f} MB at most")  # noqa: T201
    assert memory_mb < MOST_MEMORY_MB
    assert deployment.stop(worker) == 0, deployment.log_of(worker)
    assert_clean(deployment, outside)
