"""An export in Protobuf is read as the same export in JSON; hostile ones are bounded."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats import Refused, decode, detect, otlp_proto, read_file
from pipeline.formats import envelope as unpacking
from pipeline.formats.otel import DEEPEST, MOST_SHARED
from pipeline.formats.otlp_proto import MAX_FIELDS, is_export
from schemas.event import Event
from tests.pipeline.formats.otlp import EXPORT, json_of, protobuf_of
from tests.schemas import examples

OTLP = [
    path
    for name in ("otel", "traefik", "envoy")
    for path in examples.inputs(examples.ROOT / "formats" / name)
    if b'"resourceLogs"' in path.read_bytes()
]
values: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(
        st.text(max_size=20).map(lambda value: {"stringValue": value}),
        st.booleans().map(lambda value: {"boolValue": value}),
        st.integers(-(1 << 63), (1 << 63) - 1).map(lambda value: {"intValue": str(value)}),
        st.floats(allow_nan=False, allow_infinity=False).map(lambda value: {"doubleValue": value}),
        st.just({"bytesValue": "AA=="}),
        st.just({}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda each: {"arrayValue": {"values": each}}),
        st.lists(st.fixed_dictionaries({"key": st.text(min_size=1, max_size=9), "value": inner}), max_size=3).map(
            lambda each: {"kvlistValue": {"values": each}}
        ),
    ),
    max_leaves=12,
)
attributes = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["api_key.id", "http.request.method", "url.path", "client.address", "x"]),
            "value": values,
        }
    ),
    max_size=5,
)
times = st.integers(1, (1 << 64) - 1).map(str)
records = st.lists(
    st.fixed_dictionaries(
        {"attributes": attributes},
        optional={"timeUnixNano": times, "observedTimeUnixNano": times, "body": values, "severityText": st.text()},
    ),
    max_size=3,
)
exports = st.lists(
    st.fixed_dictionaries(
        {"scopeLogs": st.lists(st.fixed_dictionaries({"logRecords": records}), max_size=2)},
        optional={"resource": st.fixed_dictionaries({"attributes": attributes}), "schemaUrl": st.text()},
    ),
    max_size=3,
).map(lambda each: {"resourceLogs": each})


@pytest.mark.parametrize("path", OTLP, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_example_gives_the_same_in_both_forms_and_packed(path: Path) -> None:
    raw = path.read_bytes()
    packed = protobuf_of(raw)
    said = list(decode(raw, path.parent.name, examples.options(path)))
    assert said
    assert list(decode(packed, path.parent.name, examples.options(path))) == said
    assert list(decode(gzip.compress(packed), path.parent.name, examples.options(path))) == said
    assert detect(packed) == path.parent.name


@given(exports)
def test_any_export_is_read_as_googles_own_reader_has_it(export: dict[str, Any]) -> None:
    packed = protobuf_of(msgspec.json.encode(export))
    same = list(unpacking.json_records(json_of(packed)))
    if packed:
        assert list(unpacking.json_records(packed)) == (same if any(export["resourceLogs"]) else [])


@given(st.data())
def test_a_cut_or_damaged_export_gives_what_came_before_and_one_refusal(data: st.DataObject) -> None:
    packed = protobuf_of((examples.ROOT / "formats/otel/batch_of_mixed_keys.json").read_bytes())
    end = data.draw(st.integers(1, len(packed) - 1))
    broken = bytearray(packed[:end])
    broken[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(0, 255))
    found = list(decode(bytes(broken), "otel"))
    assert found
    assert all(isinstance(each, (Event, Refused)) for each in found)


@pytest.mark.parametrize(
    "bad", [b"\x0b", b"\x09\x01", b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x00", b"\x2a"]
)
def test_a_broken_record_loses_no_other_and_is_told(bad: bytes) -> None:
    """A group, a time that is cut, a negative length, a field 0, no length: inside of what is framed well."""
    raw = protobuf_of((examples.ROOT / "formats/otel/object.json").read_bytes())
    good = list(decode(raw, "otel"))
    broken = _field(1, _field(2, _field(2, bad)))
    first, refused, *rest = decode(raw + broken + raw, "otel")
    assert [first, *rest] == [*good, *good]
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.detail) == ("undecodable", "a log record of the Protobuf export is broken")
    first, refused, *rest = decode(raw + _field(1, bad + b"\x0b") + raw, "otel")
    assert [first, *rest] == [*good, *good]
    assert isinstance(refused, Refused)


def test_a_file_of_one_export_is_read_and_says_where_each_record_stood(tmp_path: Path) -> None:
    path = tmp_path / "export.bin"
    path.write_bytes(protobuf_of((examples.ROOT / "formats/otel/batch_of_mixed_keys.json").read_bytes()))
    found = list(read_file(path, "otel"))
    assert [each.position.rpartition(":")[2] for each in found] == [str(number + 1) for number in range(len(found))]
    assert any(isinstance(each, Event) for each in found)


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=124, max_size=124)))
def test_lines_of_json_are_never_taken_for_an_export(lines: list[str]) -> None:
    """An empty line before lines of 123 characters has an export's outer form."""
    assert not is_export(b"\n" + b"\n".join(b'{"' + line.encode()[2:] for line in lines) + b"\n{}")
    assert not is_export(b"\n{" + b'"a":1'.ljust(123) + b"\n{}")
    assert not is_export(b"")


def test_unknown_fields_are_passed_over_and_later_ones_count() -> None:
    packed = protobuf_of((examples.ROOT / "formats/otel/object.json").read_bytes())
    unknown = b"\x9a\x3e\x03abc" + b"\x98\x3e\x07" + b"\x9d\x3e0000" + b"\x99\x3e00000000"
    assert list(decode(packed + unknown, "otel")) == list(decode(packed, "otel"))


def test_strings_that_are_no_utf_8_spoil_nothing_else() -> None:
    packed = protobuf_of((examples.ROOT / "formats/otel/object.json").read_bytes())
    assert packed.count(b"acme-sdk") == 1
    [event] = decode(packed.replace(b"acme-sdk", b"acme\xff\xfe\xfdk"), "otel")
    assert isinstance(event, Event)
    assert event.user_agent.startswith("acme")


def _field(number: int, body: bytes) -> bytes:
    size, out = len(body), bytearray([number << 3 | 2])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + body


def test_nesting_is_followed_as_deep_as_in_json_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        value = _field(1, b"x")
        for _ in range(depth):
            value = _field(5, _field(1, value))
        return _field(1, _field(2, _field(2, _field(5, value))))

    for depth in (DEEPEST, DEEPEST + 1):
        [record] = unpacking.json_records(nested(depth))
        assert ("x" in str(record["body"])) == (depth <= DEEPEST)
    [record] = unpacking.json_records(nested(5000))
    assert "x" not in str(record["body"])


@pytest.mark.parametrize(
    "bomb",
    [
        b"\n\x00" * (MAX_FIELDS + 1),  # resources
        _field(1, b"\x12\x00" * (MAX_FIELDS + 1)),  # scopes
        _field(1, _field(2, b"\x12\x00" * (MAX_FIELDS + 1))),  # records
        _field(1, _field(2, _field(2, _field(5, _field(5, b"\n\x00" * (MAX_FIELDS + 1)))))),  # values of one
        _field(1, b"\x1a\x00" * (MAX_FIELDS + 1)),  # what nobody reads
    ],
    ids=["resources", "scopes", "records", "values", "unread"],
)
def test_two_bytes_each_do_not_become_a_hundred(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_proto._Room.__init__, "__defaults__", (50_000,))
    tracemalloc.start()
    [last] = deque(decode(bomb, "otel"), maxlen=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(last, Refused)
    assert last.reason == "too_large"
    assert peak < 4 << 20


def test_a_gzip_bomb_of_an_export_is_refused() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b"\n\x00" * (1 << 19)) for _ in range(65)) + packer.flush()
    [refused] = decode(bomb, "otel")
    assert isinstance(refused, Refused)
    assert refused.reason == "too_large"


def test_a_small_export_of_many_records_with_a_large_resource_stays_small() -> None:
    shared = b"".join(_field(1, _field(1, b"k%d" % each) + _field(2, _field(1, b"v"))) for each in range(5000))
    split = b"".join(_field(1, _field(1, _field(1, b"k%d" % each))) for each in range(5000))  # as many resources
    for resources in (_field(1, shared), split):
        raw = _field(1, resources + _field(2, b"\x12\x00" * 5000))
        tracemalloc.start()
        sizes = {len(record["attributes"]) for record in unpacking.json_records(raw)}
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sizes == {MOST_SHARED}
        assert peak < 4 << 20


def test_googles_reader_takes_what_is_made_here() -> None:
    """Else the bombs would be bombs of nothing."""
    assert len(EXPORT.FromString(b"\n\x00" * 3).resource_logs) == 3
