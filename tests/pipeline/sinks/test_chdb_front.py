"""The front answers ClickHouse's clients as a server does, and keeps what it acknowledged."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import signal
import subprocess
import sys
import threading
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
import lz4.frame
import pyarrow
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData

from pipeline.sinks.chdb_engine import split_insert
from tests.clickhouse_front import FrontProcess


def _client(url: str, **options: Any) -> Client:
    address = urlsplit(url)
    return clickhouse_connect.get_client(host=address.hostname, port=address.port, **options)


@pytest.fixture
def client(front: str) -> Iterator[Client]:
    client = _client(front)
    yield client
    client.close()


def _post(url: str, body: bytes = b"", encoding: str = "", **query: Any) -> tuple[int, str, dict[str, str]]:
    headers = {"Content-Encoding": encoding} if encoding else {}
    request = urllib.request.Request(f"{url}/?{urlencode(query)}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def test_a_plain_get_answers_like_clickhouse(front: str) -> None:
    with urllib.request.urlopen(f"{front}/ping", timeout=10) as answer:
        assert answer.read() == b"Ok.\n"
    status, text, headers = _post(front, query="SELECT 1 AS a, 'b' AS c FORMAT JSONEachRow")
    assert (status, json.loads(text)) == (200, {"a": 1, "c": "b"})
    assert headers["X-ClickHouse-Format"] == "JSONEachRow"


@pytest.mark.parametrize(
    ("sql", "code", "status"),
    [("SELECT nope", 47, 400), ("SELECT * FROM nope", 60, 404), ("USE nope", 81, 404), ("SELEC 1", 62, 400)],
)
def test_an_error_carries_clickhouses_code(front: str, sql: str, code: int, status: int) -> None:
    found, text, headers = _post(front, query=sql)
    assert (found, headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert f"Code: {code}." in text


def test_parameters_are_bound_by_type_not_by_text(client: Client) -> None:
    evil = "x' OR 1=1 --\n\\"
    rows = client.query("SELECT {a:String}, {b:Array(UInt32)}", parameters={"a": evil, "b": [1, 2]}).result_rows
    assert [tuple(row) for row in rows] == [(evil, [1, 2])]


def test_a_setting_holds_for_one_statement_and_a_temporary_table_for_its_session(client: Client) -> None:
    client.command("CREATE TEMPORARY TABLE mine (a UInt8)")
    client.insert("mine", [[1]], column_names=["a"])
    assert client.query("SELECT a FROM mine", settings={"max_threads": 1}).result_rows == [(1,)]
    assert client.command("SELECT changed FROM system.settings WHERE name = 'max_threads'") == 0


def test_another_session_sees_no_temporary_table(client: Client, front: str) -> None:
    client.command("CREATE TEMPORARY TABLE private (a UInt8)")
    other = _client(front)
    with pytest.raises(DatabaseError, match="private"):
        other.query("SELECT * FROM private")
    other.close()


def test_an_unknown_setting_and_an_expired_session_are_refused(front: str) -> None:
    assert _post(front, query="SELECT 1", no_such_setting="1")[2]["X-ClickHouse-Exception-Code"] == "115"
    status, text, _ = _post(front, query="SELECT 1", session_id="never", session_check="1")
    assert (status, "372" in text) == (400, True)


def test_a_session_ends_after_its_time(front: str) -> None:
    session: dict[str, Any] = {"session_id": "short", "session_timeout": "0"}
    assert _post(front, query="CREATE TEMPORARY TABLE gone (a UInt8)", **session)[0] == 200
    assert _post(front, query="SELECT * FROM gone", **session)[0] == 404


def test_a_readonly_statement_leaves_its_session_usable(front: str) -> None:
    session: dict[str, Any] = {"session_id": "reader"}
    assert _post(front, query="CREATE DATABASE nobody", readonly="1", max_threads="1", **session)[0] != 200
    assert _post(front, query="SET max_threads = 2", **session)[0] == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4", ""])
def test_a_body_may_be_compressed_any_way_the_client_knows(front: str, encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "lz4": lz4.frame.compress, "": bytes, "zstd": _zstd}
    assert _post(front, pack[encoding](b"SELECT 1 + 1"), encoding)[:2] == (200, "2\n")


def _zstd(body: bytes) -> bytes:
    from backports import zstd

    return bytes(zstd.compress(body))


def test_an_lz4_body_of_several_frames_is_read_to_its_end(front: str) -> None:
    body = lz4.frame.compress(b"SELECT 1 ") + lz4.frame.compress(b"+ 1")
    assert _post(front, body, "lz4")[:2] == (200, "2\n")
    assert _post(front, body[:-5], "lz4")[0] == 400


def test_a_body_that_does_not_decode_is_refused(front: str) -> None:
    assert _post(front, b"not gzip", "gzip")[0] == 400
    assert _post(front, b"SELECT 1", "rot13")[0] == 400


def test_inserts_of_every_kind_arrive_whole(client: Client) -> None:
    client.command("CREATE OR REPLACE TABLE kinds (n UInt32, s LowCardinality(String)) ENGINE = MergeTree ORDER BY n")
    count = 40_000  # several blocks of the client
    client.insert("kinds", [[i, f"s{i % 9}"] for i in range(count)], column_names=["n", "s"])
    client.insert_arrow("kinds", pyarrow.table({"n": pyarrow.array([1, 2], pyarrow.uint32()), "s": ["a", "b"]}))
    client.raw_insert("kinds", ["n", "s"], b"7,c\n8,d\n", fmt="CSV")
    client.command("INSERT INTO kinds SELECT number, 'e' FROM numbers(3)")
    client.command("INSERT INTO kinds VALUES (1, 'f')")
    assert client.query("SELECT count(), uniqExact(n) FROM kinds").result_rows == [(count + 8, count)]


def test_a_truncated_insert_leaves_no_row(front: str, client: Client) -> None:
    client.command("CREATE OR REPLACE TABLE cut (n UInt32) ENGINE = MergeTree ORDER BY n")
    block = b"\x01\x04\x01n\x06UInt32" + b"\x01\x00\x00\x00" * 3  # 4 rows announced, 3 there
    status, text, _ = _post(front, b"INSERT INTO cut FORMAT Native\n" + block)
    assert status == 400, text
    assert client.command("SELECT count() FROM cut") == 0


def test_a_table_can_travel_with_a_query(client: Client) -> None:
    data = ExternalData(file_name="wanted", data=b"1\n3\n", fmt="TSV", structure=["n UInt32"])
    rows = client.query("SELECT number FROM numbers(5) WHERE number IN (SELECT n FROM wanted)", external_data=data)
    assert rows.result_rows == [(1,), (3,)]


async def test_the_async_client_runs_statements_side_by_side(front: str) -> None:
    address = urlsplit(front)
    client = await clickhouse_connect.get_async_client(host=address.hostname, port=address.port)
    try:
        answers = await asyncio.gather(*(client.query(f"SELECT {i}, sleep(0.2)") for i in range(3)))
    finally:
        await client.close()
    assert [answer.result_rows for answer in answers] == [[(i, 0)] for i in range(3)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"INSERT INTO t (a) FORMAT Native\n\n\x01", ("INSERT INTO t (a)", "Native", b"\n\x01")),
        (b"INSERT INTO t FORMAT CSV 1,2", ("INSERT INTO t", "CSV", b"1,2")),
        (b"insert into `select` (a)\nformat TSV\n1", ("insert into `select` (a)", "TSV", b"1")),
        (
            b"INSERT INTO t SETTINGS async_insert=0 FORMAT TSV\n1",
            ("INSERT INTO t SETTINGS async_insert=0", "TSV", b"1"),
        ),
        (b"INSERT INTO t SELECT 1 FORMAT Null", None),
        (b"INSERT INTO t VALUES (1)", None),
        (b"SELECT 'INSERT INTO t FORMAT CSV\n'", None),
    ],
)
def test_an_inserts_head_ends_where_its_data_begins(body: bytes, expected: tuple[str, str, bytes] | None) -> None:
    assert split_insert(body) == expected


def test_a_second_front_on_the_folder_says_so_and_ends(tmp_path: Path) -> None:
    first = FrontProcess(tmp_path)
    command = [sys.executable, "-m", "pipeline.sinks.chdb_front", "--path", str(tmp_path)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert first.stop() == 0
    assert (second.returncode, second.stdout) == (2, "")
    assert f"already open in process {first.process.pid}" in second.stderr


def test_a_password_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    process = FrontProcess(tmp_path, password="s3cret")
    try:
        assert _post(process.url, query="SELECT 1")[2]["X-ClickHouse-Exception-Code"] == "516"
        client = _client(process.url, username="default", password="s3cret")
        assert client.command("SELECT 1") == 1
        client.close()
    finally:
        process.stop()


def test_a_front_binds_loopback_only(front: str) -> None:
    assert urlsplit(front).hostname == "127.0.0.1"


def test_kill_9_under_writers_loses_no_acknowledged_row_and_cuts_no_block(tmp_path: Path) -> None:
    process = FrontProcess(tmp_path)
    _post(process.url, query="CREATE TABLE t (block UInt32, n UInt32) ENGINE = MergeTree ORDER BY (block, n)")
    acknowledged: list[int] = []
    enough = threading.Event()
    writers = [threading.Thread(target=_write_blocks, args=(process.url, w, acknowledged, enough)) for w in range(3)]
    for writer in writers:
        writer.start()
    assert enough.wait(60)
    process.stop(signal.SIGKILL)
    for writer in writers:
        writer.join()
    again = FrontProcess(tmp_path)
    text = _post(again.url, query="SELECT block, count() FROM t GROUP BY block FORMAT TSV")[1]
    assert again.stop() == 0
    found = {int(block): int(rows) for block, rows in (line.split() for line in text.splitlines())}
    assert set(acknowledged) <= found.keys()
    assert set(found.values()) == {BLOCK_ROWS}


BLOCK_ROWS = 2_000


def _write_blocks(url: str, writer: int, acknowledged: list[int], enough: threading.Event) -> None:
    for number in range(writer * 1_000_000, (writer + 1) * 1_000_000):
        data = "".join(f"{number}\t{n}\n" for n in range(BLOCK_ROWS)).encode()
        try:
            if _post(url, b"INSERT INTO t FORMAT TSV\n" + data)[0] != 200:
                return
        except (OSError, http.client.HTTPException):
            return
        acknowledged.append(number)
        if len(acknowledged) >= 30:
            enough.set()
