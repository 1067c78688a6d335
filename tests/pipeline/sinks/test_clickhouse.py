"""The contract of a RowSink, over all of them, and what only the real one does."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config.tree import ClickHouse, Secret
from pipeline.console.reach import ping_of
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.migrate import migrate
from pipeline.ports import RowSink
from pipeline.sinks.clickhouse import ClickHouseSink, FileSink, MemorySink
from pipeline.sinks.connect import by_consequence, connect, connect_async
from schemas.rows import TABLES
from tests.clickhouse_front import FrontProcess
from tests.pipeline.respond.mail_server import certificate, contexts
from tests.row_examples import AT_US, rows_of
from tests.simulation.tables import Tables


def _sink(kind: str, folder: Path, config: ClickHouse) -> RowSink:
    if kind == "clickhouse":
        return ClickHouseSink(config)
    if kind == "simulated":
        return Tables(refuse_other_content=False)
    return FileSink(folder) if kind == "file" else MemorySink()


class Subject:
    """A sink and a way to read back what it holds: (key, one column's value) of a table, in order of the key."""

    def __init__(self, kind: str, folder: Path, config: ClickHouse) -> None:
        self.kind = kind
        self.folder = folder
        self.config = config
        self.sink = _sink(kind, folder, config)

    def column(self, table: str, name: str) -> list[Any]:
        """The values of one column."""
        if isinstance(self.sink, Tables):
            return self.sink.column(table, name)
        if isinstance(self.sink, MemorySink):
            return [row[name] for row in self.sink.rows.get(table, [])]
        if self.kind == "file":
            path = self.folder / f"{table}.jsonl"
            lines = path.read_text().splitlines() if path.exists() else []
            return [json.loads(line)[name] for line in lines]
        client = connect(self.config, self.config.database)
        values = [row[0] for row in client.query(f"SELECT {name} FROM {table} ORDER BY {name}").result_rows]
        client.close()
        return values


@pytest.fixture(params=["clickhouse", "file", "memory", "simulated"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path, front: str) -> AsyncIterator[Subject]:
    needs_server = request.param == "clickhouse"
    config = request.getfixturevalue("clickhouse") if needs_server else ClickHouse(url=front)
    subject = Subject(request.param, tmp_path, config)
    yield subject
    await subject.sink.close()


async def test_written_rows_are_there_when_write_returns(subject: Subject) -> None:
    await subject.sink.write("findings", rows_of("findings", 3, finding_id=["a", "b", "c"]))
    assert subject.column("findings", "finding_id") == ["a", "b", "c"]


async def test_no_rows_is_no_write(subject: Subject) -> None:
    await subject.sink.write("findings", rows_of("findings", 0))
    assert subject.column("findings", "finding_id") == []


async def test_every_table_can_be_written(subject: Subject) -> None:
    for table, columns in TABLES.items():
        await subject.sink.write(table, rows_of(table, 2))
        assert subject.column(table, columns[0][0]), table


async def test_columns_that_do_not_fit_are_fatal_and_named(subject: Subject) -> None:
    rows = rows_of("findings", 1)
    with pytest.raises(Fatal, match="surprise"):
        await subject.sink.write("findings", {**rows, "surprise": [1]})
    del rows["bits"]
    with pytest.raises(Fatal, match="bits"):
        await subject.sink.write("findings", rows)
    with pytest.raises(Fatal, match="unequal"):
        await subject.sink.write("findings", rows_of("findings", 1) | {"bits": [1.0, 2.0]})
    with pytest.raises(Fatal, match="no table"):
        await subject.sink.write("finding", rows)


async def test_writes_side_by_side_lose_nothing(subject: Subject) -> None:
    ids = [f"{i:03}" for i in range(20)]
    await asyncio.gather(*(subject.sink.write("findings", rows_of("findings", 1, finding_id=[i])) for i in ids))
    assert sorted(subject.column("findings", "finding_id")) == ids


@pytest.mark.parametrize("subject", ["clickhouse", "simulated"], indirect=True)
async def test_of_a_row_the_newest_version_is_read_in_whatever_order_writes_came(subject: Subject) -> None:
    for version, requests in ((2, 20), (1, 10), (3, 30), (2, 20)):
        await subject.sink.write("requests_1m", rows_of("requests_1m", 1, version=[version], requests=[requests]))
    assert subject.column("requests_1m FINAL" if subject.kind == "clickhouse" else "requests_1m", "requests") == [30]


async def test_a_closed_sink_may_be_closed_again(subject: Subject) -> None:
    await subject.sink.write("findings", rows_of("findings", 1))
    await subject.sink.close()
    await subject.sink.close()
    assert len(subject.column("findings", "finding_id")) == 1


# The real one


async def test_times_and_addresses_arrive_exactly(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(clickhouse)
    addresses = ["", "192.0.2.7", "2001:db8::1", "::ffff:198.51.100.1"]
    times = [AT_US + i for i in range(4)]
    await sink.write("requests", rows_of("requests", 4, client_ip=addresses, ts=times, offset=list(range(4))))
    await sink.write("requests_1m", rows_of("requests_1m", 1, window_start=[1_700_000_040]))
    closed = [None, AT_US + 5]
    await sink.write("incidents", rows_of("incidents", 2, incident_id=["a", "b"], closed_at=closed))
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    found = client.query("SELECT toString(client_ip), toUnixTimestamp64Micro(ts) FROM requests ORDER BY ts").result_rows
    window = client.command("SELECT toUnixTimestamp(window_start) FROM requests_1m")
    ends = client.query("SELECT toUnixTimestamp64Micro(closed_at) FROM incidents ORDER BY incident_id").result_rows
    client.close()
    expected = ["::", "::ffff:192.0.2.7", "2001:db8::1", "::ffff:198.51.100.1"]
    assert [tuple(row) for row in found] == list(zip(expected, times, strict=True))
    assert window == 1_700_000_040
    assert [row[0] for row in ends] == closed


async def test_more_rows_than_one_block_all_arrive(clickhouse: ClickHouse) -> None:
    count = 40_000
    sink = ClickHouseSink(clickhouse)
    await sink.write("requests", rows_of("requests", count, offset=list(range(count))))
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    found = client.command("SELECT uniqExact(offset) FROM requests")
    client.close()
    assert found == count


async def test_a_write_may_touch_more_days_than_a_server_allows_by_default(clickhouse: ClickHouse) -> None:
    days = [AT_US + day * 86_400_000_000 for day in range(150)]
    sink = ClickHouseSink(clickhouse)
    await sink.write("requests", rows_of("requests", 150, ts=days))
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    found = client.command("SELECT count() FROM requests")
    client.close()
    assert found == 150


async def test_writing_again_after_a_lost_answer_changes_nothing(clickhouse: ClickHouse) -> None:
    sink = ClickHouseSink(ClickHouse(url=clickhouse.url, database=clickhouse.database, timeout_s=1.0))
    rows = rows_of("requests_1m", 1, requests=[5])
    await sink.write("requests_1m", rows)
    for fault in ("503", "500-after-apply", "timeout"):
        _spoil_next_insert(clickhouse.url, fault)
        with pytest.raises(Retry):
            await sink.write("requests_1m", rows)
        await sink.write("requests_1m", rows)
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    found = client.command("SELECT sum(requests) FROM v_requests_1m")
    client.close()
    assert found == 5


async def test_a_row_that_is_twice_in_one_insert_counts_once_and_its_newest_version_stays(
    clickhouse: ClickHouse,
) -> None:
    sink = ClickHouseSink(clickhouse)
    rows = rows_of("requests_1m", 4, requests=[5, 7, 6, 1], version=[1, 3, 2, 3], key_id=["k", "k", "k", "other"])
    await sink.write("requests_1m", rows)
    await sink.close()
    client = connect(clickhouse, clickhouse.database)
    for across in (0, 1):  # as people's profile has it: a part by itself may be taken as it is, if it was merged
        settings = {"do_not_merge_across_partitions_select_final": across}
        found = client.query("SELECT key_id, requests FROM requests_1m FINAL ORDER BY key_id", settings=settings)
        assert found.result_rows == [("k", 7), ("other", 1)]
    client.close()


async def test_a_server_that_pins_how_inserts_are_searched_for_repeats_takes_rows_all_the_same(
    clickhouse: ClickHouse,
) -> None:
    """An administrator's constraint (CONST) shows as `readonly` in system.settings; the client then refuses to send."""
    sink = ClickHouseSink(clickhouse)
    client = await sink._connected()
    pinned = client.server_settings["optimize_on_insert"]
    client.server_settings["optimize_on_insert"] = pinned._replace(readonly=1, value="1")
    await sink.write("findings", rows_of("findings", 2, finding_id=["a", "b"]))
    await sink.close()


def _spoil_next_insert(url: str, fault: str) -> None:
    request = urllib.request.Request(f"{url}/faults", data=json.dumps([fault]).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


async def test_nobody_there_is_retry_and_the_sink_works_once_there_is(tmp_path: Path) -> None:
    process = FrontProcess(tmp_path)
    config = ClickHouse(url=process.url)
    sink = ClickHouseSink(config)
    process.stop()
    assert not await sink.ping()
    with pytest.raises(Retry, match="127"):
        await sink.write("findings", rows_of("findings", 1))
    await sink.close()


async def test_a_missing_table_is_fatal_and_says_what_to_do(front: str) -> None:
    sink = ClickHouseSink(ClickHouse(url=front, database="never_migrated"))
    with pytest.raises(Fatal, match="keywatch migrate"):
        await sink.write("findings", rows_of("findings", 1))
    await sink.close()


async def test_a_value_that_its_type_cannot_take_is_fatal(migrated: ClickHouse) -> None:
    sink = ClickHouseSink(migrated)
    for column, value in (("status", "abc"), ("client_ip", "not an address"), ("status", -1)):
        with pytest.raises(Fatal, match="requests"):
            await sink.write("requests", rows_of("requests", 1) | {column: [value]})
    await sink.close()


async def test_a_wrong_password_is_a_configuration_error_and_stays_unseen(tmp_path: Path) -> None:
    process = FrontProcess(tmp_path, password="right")
    sink = ClickHouseSink(ClickHouse(url=process.url, password=Secret("wrong-one")))
    try:
        with pytest.raises(ConfigError, match=r"refuses user 'default'") as caught:
            await sink.write("findings", rows_of("findings", 1))
    finally:
        await sink.close()
        process.stop()
    assert "wrong-one" not in str(caught.value)


async def test_a_password_that_is_changed_there_is_waited_for_by_who_was_let_in(tmp_path: Path) -> None:
    process = FrontProcess(tmp_path, password="right")
    config = ClickHouse(url=process.url, password=Secret("right"))
    migrate(config)
    sink = ClickHouseSink(config)
    try:
        await sink.write("findings", rows_of("findings", 1))
        process.stop()
        process = FrontProcess(tmp_path, "--port", process.url.rpartition(":")[2], password="another")
        with pytest.raises(Retry, match="rows wait until it is given back"):
            await sink.write("findings", rows_of("findings", 1))
        process.stop()
        process = FrontProcess(tmp_path, "--port", process.url.rpartition(":")[2], password="right")
        await sink.write("findings", rows_of("findings", 1))
    finally:
        await sink.close()
        process.stop()


@asynccontextmanager
async def behind_tls(front: str) -> AsyncIterator[str]:
    """The front's address by https, with a certificate that is signed by itself."""

    async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*front.removeprefix("http://").split(":"))
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))

    async with await asyncio.start_server(piped, "127.0.0.1", 0, ssl=contexts("localhost")[0]) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


async def test_a_server_whose_certificate_one_s_own_authority_signed_is_trusted_by_its_file_alone(
    migrated: ClickHouse, tmp_path: Path
) -> None:
    file = tmp_path / "ca.crt"
    file.write_bytes(certificate("localhost")[0])
    async with behind_tls(migrated.url) as url:
        strange = msgspec.structs.replace(migrated, url=url)
        trusted = msgspec.structs.replace(strange, ca_file=str(file))
        assert await asyncio.to_thread(migrate, trusted) == [], "nothing is left to do"
        sink = ClickHouseSink(trusted)
        await sink.write("findings", rows_of("findings", 2))
        await sink.close()
        assert await ping_of(url, str(file))()
        for refused in (lambda: asyncio.to_thread(migrate, strange), lambda: connect_async(strange, None)):
            with pytest.raises(Retry, match=r"is not trusted: certificate verify failed: .*; check clickhouse.ca_file"):
                await refused()


def test_a_missing_file_of_an_authority_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clickhouse.ca_file '.*none' is no file"):
        connect(ClickHouse(url="https://127.0.0.1:1", ca_file=str(tmp_path / "none")), None)


async def test_an_address_of_another_kind_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="https://"):
        await ClickHouseSink(ClickHouse(url="tcp://localhost:9000")).write("findings", rows_of("findings", 1))


@pytest.mark.parametrize("code", [241, 243, 252, 202, 159, 209])
def test_overload_is_retry(code: int) -> None:
    error = RuntimeError("overloaded")
    error.code = code  # type: ignore[attr-defined]
    assert isinstance(by_consequence("insert", error), Retry)
