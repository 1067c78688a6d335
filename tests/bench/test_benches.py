"""Every bench still runs, a few keys at a time: a column, a table or a name more breaks none without being seen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from pipeline.asking.hunt import hunt as find
from pipeline.config.file import load
from pipeline.config.tree import ClickHouse
from pipeline.sinks.connect import connect
from schemas.rows import TABLES
from tests.bench import checkpoints, clickhouse_bytes, console, cost_per_event, grown, hot_key, hunt, rejects, start
from tests.bench.insert import insert
from tests.deploy import filled

FOLDER = Path(__file__).parent


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Keys of a log that is soon judged."""
    monkeypatch.setattr(grown, "SEED", msgspec.structs.replace(grown.SEED, events=2_000, keys=50))
    return 100


def test_no_bench_writes_a_tables_columns_by_their_order() -> None:
    raw = [path.name for path in FOLDER.glob("*.py") if re.search(r"INSERT INTO (?!\{table\} \()", path.read_text())]
    assert raw == [Path(__file__).name]


def test_a_column_that_a_table_does_not_have_is_said() -> None:
    with pytest.raises(ValueError, match="requests has no colour"):
        insert("requests", "numbers(1)", colour="'red'")


def more_rows(client: Client, fill: Callable[[], object]) -> Counter[str]:
    """What was filled in, by table: other benches' rows may be there."""

    def counted() -> Counter[str]:
        return Counter({table: int(str(client.command(f"SELECT count() FROM {table}"))) for table in TABLES})

    before = counted()
    fill()
    return counted() - before


@pytest.fixture
def client(database: ClickHouse) -> Iterator[Client]:
    client = connect(database, database.database)
    yield client
    client.close()


def test_the_hunts_rows_are_found_by_every_quarry(client: Client) -> None:
    hunt.fill(client, keys=400, days=22, each=1)
    found = {name: len(find(client, quarry)) for name, quarry in hunt.quarries(22).items()}
    assert found["a stranger's network"] == found["a stranger's client"] == found["a stranger's address"] == 300
    assert found["a route of every key"] == 400
    assert found["a client of every fourth key"] == 100


def test_the_consoles_rows_go_in(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "DAYS", 2)
    monkeypatch.setattr(console, "INCIDENTS", 30)
    found = more_rows(client, lambda: [client.command(statement) for statement in console.fills(10, 2)])
    assert found >= Counter(requests=30, requests_1h=40, key_source_1h=40, incidents=30, responses=30, findings=300)


def test_the_dashboards_rows_go_in(client: Client) -> None:
    size = filled.Fill(10, 2, 1_790_000_400, minutes=60, incidents=10, at_once=1)
    found = more_rows(client, lambda: filled.fill(client, size))
    assert found.keys() >= {"requests_1h", "requests_1m", "key_source_1h", "keys", "findings", "incidents", "responses"}


def test_what_the_worker_would_send_is_taken(client: Client, database: ClickHouse, few: int) -> None:
    sent: Counter[str] = Counter()
    found = more_rows(client, lambda: sent.update(clickhouse_bytes.fill(database, few, 30_000)))
    assert found.keys() >= {"requests_1m", "requests_1h", "key_source_1h", "keys_last_used"}
    assert sent >= found


def test_the_costs_of_an_event_are_told_by_step(few: int) -> None:
    told = cost_per_event.measure(few, 2, 5_000)
    assert told["steps"].keys() >= {"detect", "aggregate", "enrich", "due_rows"}
    assert all(np.isfinite(value) and value >= 0 for value in told["steps"].values())


def test_a_hot_key_has_slices_of_its_own(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_key, "KEYS", few)
    assert all(took > 0 for took in hot_key.slice_ms(3_000, hot_key.HOT))


def test_a_checkpoint_of_grown_keys_has_pages(few: int) -> None:
    writers = checkpoints.Writers(grown.Grown(few, 1))
    assert writers.checkpoint()["bytes"] > 0


def test_each_kind_of_reject_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejects, "WARM_SLICES", 1)
    found = rejects.measure(2_000, 20, 1, only="path")
    assert found.keys() == {"secret in path (kept)", "query in path (kept)"}


def test_what_rejects_leave_behind_is_measured() -> None:
    told = rejects.after(4_000, 2_000, 1)
    assert told["rejects"] == 4_000
    assert told["own_ns"] > 0
    assert told["slowed"] > 0


def test_the_workers_file_is_what_the_topics_are_made_by(tmp_path: Path) -> None:
    made, text = start.settings("127.0.0.1:9092", "start0")
    file = tmp_path / "keywatch.toml"
    file.write_text(text)
    read = load(file)
    assert (read.kafka, read.topics) == (made.kafka, made.topics)
