"""Boundaries hold for every input that once broke one, for a few seconds of new ones, and for bombs."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import TestServer

from pipeline.config.tree import Config
from pipeline.formats import Options, Refused, decode, read_file
from pipeline.intake.http import make_app
from pipeline.intake.run import Pump, stream
from schemas.reasons import REASONS
from tests.fuzz import run
from tests.fuzz.run import CASES, fuzz
from tests.fuzz.targets import TARGETS, ensure
from tests.pipeline.intake.test_run import Broker

KEPT = sorted(CASES.rglob("*.bin"))
M = 1 << 20


@pytest.mark.parametrize("path", KEPT, ids=lambda path: "/".join(path.parts[-2:]))
def test_what_once_broke_a_boundary_no_longer_does(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_some_seconds_of_new_inputs_break_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.run.CASES", tmp_path)  # a failure shows itself; `make fuzz` keeps it
    done = fuzz(6.0, seed=1)
    assert all(outcome.tried for outcome in done.values())
    assert [path.read_bytes()[:200] for outcome in done.values() for path in outcome.failed] == []


def test_an_input_that_does_not_end_is_given_up_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CASES", tmp_path)
    monkeypatch.setattr(run, "GIVEN_UP_S", 0.2)
    endless, outcome = re.compile(r"(?:[0-9]{1,8})*"), run.Outcome()
    run.attempt("any", lambda raw: ensure(not endless.fullmatch(raw.decode()), "told"), b"1" * 90 + b"l", outcome)
    assert [path.read_bytes()[-2:] for path in outcome.failed] == [b"1l"]


BOMBS = {
    "nested arrays": b"[" * (8 * M),
    "empty arrays": b"[" + b"[]," * (6 * M) + b"[]]",
    "small numbers": b"[" + b"1," * (10 * M) + b"1]",
    "gzip of one byte": gzip.compress(b" " * (200 * M), 1),
    "gzip in gzip": gzip.compress(gzip.compress(b"[" + b"{}," * (30 * M) + b"{}]", 1)),
    "a long name": b'{"' + b"a" * (30 * M) + b'":1}',
    "many digits": b'{"key_id":"a","ts_us":' + b"9" * (5 * M) + b"}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_with_a_reason_within_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[name])
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.bomb", str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = msgspec.json.decode(ran.stdout)
    assert set(told["reasons"]) <= set(REASONS)
    assert told["reasons"]
    assert told["grown_mb"] < 700
    assert told["cpu_s"] < 60


def test_many_bombs_in_one_message_share_one_limit() -> None:
    import base64

    packed = base64.b64encode(gzip.compress(b"[" + b" " * (20 * M) + b"]", 9))
    raw = b"[" + b",".join([b'{"awslogs":{"data":"' + packed + b'"}}'] * 40) + b"]"
    reasons = Counter(each.reason for each in decode(raw, "native") if isinstance(each, Refused))
    assert reasons["too_large"] == 37  # three of 20 MB fit into 64


@pytest.mark.parametrize("raw", [b"{}\n" * 150, b"[" + b"{}," * 150 + b"{}]"])
def test_records_beyond_the_limit_are_one_reject(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.formats.envelope.MAX_RECORDS", 100)
    reasons = [each.reason for each in decode(raw, "native") if isinstance(each, Refused)]
    assert (len(reasons), reasons[-1]) == (101, "too_large")


def test_intake_makes_the_records_of_a_large_message_one_by_one() -> None:
    raw = b"[" + b",".join([b'{"key_id":"a","ts_us":1764000000000000}'] * 300_000) + b"]"
    records = stream(raw, "native", Options(), "raw/0/1")
    assert [next(records).lane for _ in range(3)] == ["requests"] * 3


def test_a_file_that_is_one_endless_line_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(100):
            file.write(b"a" * (2 * M))
    [only] = list(read_file(path, "combined"))
    assert isinstance(only, Refused)
    assert only.reason == "too_large"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = TestServer(make_app(Config(), Pump(Config(), Broker())))
    await server.start_server()
    yield str(server.make_url("/"))
    await server.close()


async def test_a_packed_http_body_that_is_a_bomb_is_refused(url: str) -> None:
    packed = gzip.compress(b"[" + b" " * (300 * M) + b"]", 9)
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(url, data=packed, headers={"Content-Encoding": "gzip"}) as answer:
                assert answer.status in (400, 413)
        except aiohttp.ClientOSError:  # refused while the rest was still being sent
            pass
        async with session.post(url, data=b'{"key_id":"a","ts_us":1764000000000000}') as answer:
            assert answer.status == 200
