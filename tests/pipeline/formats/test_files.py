"""Files: by line, as JSON lines, as one document, in gzip; positions; what is broken comes out as a value."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.formats import Refused, read_file
from pipeline.formats.format import MAX_LINE_BYTES
from schemas.event import Event
from schemas.reasons import REASONS

LINE = b'203.0.113.7 - ann [24/Nov/2025:16:00:00 +0000] "GET /a HTTP/1.1" 200 12 "-" "curl/8"'


def native(number: int) -> dict[str, object]:
    return {"key_id": f"key_{number}", "ts_us": 1_764_000_000_000_000 + number}


def read(path: Path, format: str = "native") -> list[Event | Refused]:
    return list(read_file(path, format))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", ["lines", "array", "pretty", "one line", "no last line feed"])
def test_the_same_events_are_read_from_every_shape_of_file(tmp_path: Path, shape: str, packed: bool) -> None:
    each = [msgspec.json.encode(native(number)) for number in range(3)]
    array = b"[" + b",".join(each) + b"]"
    raw = {
        "lines": b"\n".join(each) + b"\n",
        "array": array + b"\n",
        "pretty": msgspec.json.format(array, indent=2),
        "one line": array,
        "no last line feed": b"\n".join(each),
    }[shape]
    path = tmp_path / "events.json"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    events = [event for event in read(path) if isinstance(event, Event)]
    assert [event.key_id for event in events] == ["key_0", "key_1", "key_2"]
    assert [event.position for event in events] == [f"{tmp_path.name}/events.json:{n}" for n in (1, 2, 3)]
    assert [event.request_id for event in events] == [event.position for event in events]


def test_records_of_one_line_have_positions_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "arrays.jsonl"
    two = msgspec.json.encode([native(1), native(2)])
    path.write_bytes(two + b"\n" + two + b"\n")
    assert [event.position.rpartition(":")[2] for event in read(path)] == ["1", "1/1", "2", "2/1"]


def test_a_request_id_that_the_gateway_gave_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(msgspec.json.encode(native(1) | {"request_id": "r-1"}))
    [event] = read(path)
    assert isinstance(event, Event)
    assert event.request_id == "r-1"


def test_a_broken_line_is_refused_where_it_stands_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(LINE + b"\nrubbish\n\n" + LINE + b"\n")
    good, bad, last = read(path, "combined")
    assert (good.position[-2:], bad.position[-2:], last.position[-2:]) == (":1", ":2", ":4")
    assert isinstance(bad, Refused)
    assert bad.reason == "invalid"


def test_a_line_without_end_is_refused_and_the_next_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(LINE + b"x" * (3 * MAX_LINE_BYTES) + b"\n" + LINE + b"\n")
    long, good = read(path, "combined")
    assert isinstance(long, Refused)
    assert long.reason == "too_large"
    assert isinstance(good, Event)


@pytest.mark.parametrize(("format", "raw"), [("combined", LINE + b"\n"), ("native", b'{"key_id":"k","ts_us":1}\n')])
def test_a_gzip_that_ends_in_the_middle_gives_what_is_there_and_a_refusal(
    tmp_path: Path, format: str, raw: bytes
) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(raw * 20_000)[:-20])
    last = read(path, format)[-1]
    assert isinstance(last, Refused)
    assert last.reason in ("undecodable", "invalid")


def test_a_file_that_is_not_there_or_a_format_that_is_not_known_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "missing")
    with pytest.raises(ConfigError, match="unknown format 'squid'; known are native"):
        read(tmp_path / "missing", "squid")


@settings(max_examples=60)
@given(raw=st.binary(max_size=400), packed=st.booleans())
def test_any_file_is_read_to_its_end(tmp_path_factory: pytest.TempPathFactory, raw: bytes, packed: bool) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    for format in ("native", "combined"):
        refused = [each for each in read(path, format) if isinstance(each, Refused)]
        assert {each.reason for each in refused} <= {*REASONS}
