"""What holds for every format, whatever comes in; single values; capabilities."""

from __future__ import annotations

import gzip
import os
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.detector import SEES_BYTES, SEES_DENIED, SEES_OUTCOME
from pipeline.config.tree import Secret
from pipeline.formats import FORMATS, Options, Refused, decode, detect, sees_of
from pipeline.formats import envelope as unpacking
from pipeline.formats.format import BadValueError
from pipeline.formats.values import (
    address,
    environment,
    epoch_us,
    fingerprint,
    get,
    iso_us,
    log_us,
    network,
    number,
    text,
    whole,
)
from pipeline.secrets import is_clean
from schemas.event import Event
from schemas.reasons import REASONS
from tests.schemas import examples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SAMPLES = {name: examples.inputs(examples.ROOT / "formats" / name) for name in FORMATS}
strict = msgspec.json.Decoder(Event).decode


def check(records: list[Event | Refused]) -> None:
    """Events keep their limits and hold no secret; refusals have a known reason."""
    for record in records:
        if isinstance(record, Refused):
            assert record.reason in REASONS
        else:
            assert strict(msgspec.json.encode(record)) == record
            assert is_clean(record)


@pytest.mark.parametrize("name", FORMATS)
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | JSON.map(msgspec.json.encode))
def test_any_bytes_become_events_or_refusals_and_never_an_exception(name: str, raw: bytes) -> None:
    check(list(decode(raw, name)))
    check(list(decode(gzip.compress(raw), name)))


@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if not each.lines])
@given(data=st.data())
def test_a_record_with_one_value_replaced_by_anything_still_gives_an_answer(name: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([p for p in SAMPLES[name] if p.suffix == ".json" and "not_json" not in p.name]))
    record = msgspec.json.decode(path.read_bytes())
    target = record[0] if isinstance(record, list) else record
    keys = data.draw(st.sampled_from(_paths(target)))
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = data.draw(JSON)
    raw = msgspec.json.encode(record)
    check(list(decode(raw, name, Options(key_field=data.draw(st.sampled_from(["", "consumer"]))))))


def _paths(value: Any, head: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict):
        return [head]
    return [path for key, inner in value.items() for path in _paths(inner, (*head, key))] or [head or ("x",)]


@given(st.text(max_size=300), st.sampled_from(["", "address"]))
def test_any_line_is_answered_by_the_combined_format(line: str, key_field: str) -> None:
    check(list(decode(line.encode(), "combined", Options(key_field=key_field))))
    quoted = f'203.0.113.7 - ann [24/Nov/2025:16:00:00 +0000] "GET /{line} HTTP/1.1" 200 1 "-" "{line}"'
    check(list(decode(quoted.encode(), "combined", Options(key_field=key_field))))


def test_one_record_and_an_array_of_it_and_its_gzip_give_the_same_event() -> None:
    for name in ("native", "kong", "aws_apigateway", "cloudtrail"):
        path = next(p for p in SAMPLES[name] if p.stem in ("object", "nested", "record"))
        raw = path.read_bytes()
        one = list(decode(raw, name))
        assert len(one) == 1
        assert list(decode(b"[" + raw + b"," + raw + b"]", name)) == one * 2
        assert list(decode(gzip.compress(raw), name)) == one


@given(
    st.lists(JSON.filter(lambda value: isinstance(value, dict)), min_size=2, max_size=4),
    st.sampled_from(["", " ", "\t"]),
)
def test_objects_that_run_together_are_read_like_an_array_of_them(objects: list[Any], between: str) -> None:
    """So Firehose writes what CloudWatch sends it to S3."""
    each = [msgspec.json.encode(value) for value in objects]
    together, array = between.encode().join(each), b"[" + b",".join(each) + b"]"
    for name in ("native", "kong", "otel"):
        read = list(decode(together, name))
        assert read == list(decode(array, name))
        *same, last = decode(together + b'{"key_id', name)
        assert (same, isinstance(last, Refused)) == (read, True)


@pytest.mark.parametrize("bad", [b'{"key_id":"\\ud800","ts_us":1}', b'{"a":NaN}', b'{"a":1e999}'])
def test_an_object_that_is_no_json_among_others_is_refused_alone(bad: bytes) -> None:
    good = b'{"key_id":"k","ts_us":1764000000000000}'
    one, refused, two = decode(good + bad + good, "native")
    assert isinstance(one, Event)
    assert one == two
    assert isinstance(refused, Refused)


def test_many_objects_that_run_together_are_read_one_after_the_other() -> None:
    """100,000 of them, of which each would copy all that follow were the rest cut off anew each time."""
    one = b'{"key_id":"k","ts_us":1764000000000000}'
    assert sum(isinstance(each, Event) for each in decode(one * 100_000, "native")) == 100_000


def test_an_unpacked_gzip_is_bounded_and_broken_ones_are_refused() -> None:
    packed = gzip.compress(b"0" * 1000)
    assert unpacking.gunzip(packed + packed, 2000) == b"0" * 2000
    with pytest.raises(unpacking.TooLargeError):
        unpacking.gunzip(packed, 999)
    for broken in (packed[:-9], packed[:5], b"\x1f\x8b", packed[:12] + b"\xff" * 9):
        [refused] = decode(broken, "native")
        assert isinstance(refused, Refused)
        assert refused.reason == "undecodable"


def test_a_gzip_bomb_is_refused_as_too_large() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(65)) + packer.flush()
    [refused] = decode(bomb, "native")
    assert isinstance(refused, Refused)
    assert refused.reason == "too_large"


def test_deep_nesting_is_refused_and_not_followed() -> None:
    for raw in (b"[" * 50_000 + b"]" * 50_000, b'{"Records":[' * 9 + b"1" + b"]}" * 9):
        [refused] = decode(raw, "cloudtrail")
        assert isinstance(refused, Refused)
        assert refused.reason == "undecodable"


@pytest.mark.parametrize("name", FORMATS)
def test_a_sample_of_each_format_is_detected_even_when_it_is_cut(name: str) -> None:
    stems = ("object", "nested", "record", "users", "array_of_mixed_keys", "file")
    samples = [p.read_bytes() for p in SAMPLES[name] if p.name.partition(".")[0] in stems]
    assert samples
    assert {detect(raw) for raw in samples} == {name}
    assert detect(max(samples, key=len)[:500]) == name or name == "kong"  # Kong's own names come later in its objects


NAMELESS = {
    "cloudwatch_control",
    "no_cloudtrail",
    "time_missing",
    "not_json",
    "another_class",
    "native/short_circuited_401",
}
"""Examples of what has no name of its format in it."""


@pytest.mark.parametrize("name", FORMATS)
def test_every_example_is_named_by_its_own_format_whatever_it_comes_in(name: str) -> None:
    for path in SAMPLES[name]:
        stem = path.name.partition(".")[0]
        raw = path.read_bytes()
        found = detect(unpacking.gunzip(raw) if raw.startswith(unpacking.GZIP_MAGIC) else raw)
        assert found == (None if {stem, f"{name}/{stem}"} & NAMELESS else name), path


def test_a_sample_of_something_else_is_not_detected() -> None:
    assert [detect(raw) for raw in (b"", b"hello", b"{}", b"\xff\xfe", b"[1,2]", b"[")] == [None] * 6


def test_capabilities_follow_from_the_source_of_an_event() -> None:
    assert sees_of("") == sees_of("native") == sees_of("our-own-gateway") == 127
    assert not sees_of("tyk") & SEES_BYTES
    assert sees_of("aws_apigateway") & sees_of("cloudtrail") & SEES_BYTES  # of the answer: what egress reads
    assert not sees_of("combined") & SEES_OUTCOME
    assert not sees_of("aws_apigateway") & SEES_DENIED
    assert all(sees_of(name) == each.sees for name, each in FORMATS.items())


@given(st.ip_addresses())
def test_every_address_lies_in_its_network(ip: Any) -> None:
    assert network(address(str(ip))) != ""


@pytest.mark.parametrize("missing", ["-", "", None, [], {}, True, "abc", "nan", "inf", "-1", -1, float("inf"), "1e400"])
def test_what_is_no_number_is_not_known(missing: Any) -> None:
    assert number(missing) == 0.0
    assert whole(missing) == 0


@given(st.integers(min_value=946_684_800_000_000, max_value=4_102_444_799_999_999))
def test_every_way_to_write_a_time_gives_the_same_microseconds(ts_us: int) -> None:
    moment = datetime.fromtimestamp(ts_us // 1_000_000, UTC)
    assert epoch_us(ts_us, "us") == epoch_us(str(ts_us), "us") == ts_us
    assert epoch_us(ts_us // 1000, "ms") == ts_us // 1000 * 1000
    assert epoch_us(f"{ts_us // 1000}.5", "ms") == ts_us // 1000 * 1000 + 500
    assert iso_us(moment.isoformat()) == iso_us(f"{moment:%Y-%m-%dT%H:%M:%SZ}") == ts_us // 1_000_000 * 1_000_000
    assert log_us(f"{moment:%d/%b/%Y:%H:%M:%S} +0000") == ts_us // 1_000_000 * 1_000_000


@pytest.mark.parametrize("value", ["", "-", None, "soon", "2025-13-01", {}, [], "99/Foo/2025:00:00:00 +0000"])
def test_what_is_no_time_is_said_to_be_none(value: Any) -> None:
    for read in (iso_us, log_us, lambda each: epoch_us(each, "ms")):
        with pytest.raises(BadValueError):
            read(value)


def test_names_of_stages_become_live_or_test() -> None:
    assert [environment(each) for each in ("prod", "Live", "STAGING", "sandbox", "blue", "-", None)] == [
        "live", "live", "test", "test", "", "", "",
    ]  # fmt: skip


def test_nested_flat_and_dotted_names_are_found() -> None:
    assert get({"a": {"b": {"c": 1}}}, "a.b.c") == get({"a.b.c": 1}, "a.b.c") == get({"a": {"b.c": 1}}, "a.b.c") == 1
    assert get({"a": [1]}, "a.b") is None


def test_values_of_otlp_are_plain_and_too_deep_ones_are_none() -> None:
    deep: dict[str, Any] = {"stringValue": "x"}
    for _ in range(40):
        deep = {"arrayValue": {"values": [deep]}}
    body = {
        "kvlistValue": {
            "values": [{"key": "a", "value": {"arrayValue": {"values": [{"intValue": "7"}, {"boolValue": True}]}}}]
        }
    }
    record = {
        "body": body,
        "attributes": [{"key": "deep", "value": deep}, {"key": "raw", "value": {"bytesValue": "AA=="}}],
    }
    [found] = unpacking.json_records(msgspec.json.encode({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}))
    assert found["body"] == {"a": ["7", True]}
    assert "x" not in str(found["attributes"]["deep"])
    assert found["attributes"]["raw"] is None
    assert unpacking.carried(found)["a"] == ["7", True]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("nginx", "http_x_api_key"), ("nginx", "http_apikey"), ("nginx", "http_authorization"), ("envoy", "x-api-key"),
        ("traefik", "request_X-Api-Key"), ("traefik", "request_Authorization"), ("aws_apigateway", "identity.apiKey"),
        ("otel", "http.request.header.x-api-key"), ("otel", "http.request.header.apikey"),
    ],
)  # fmt: skip
def test_a_header_with_the_key_itself_is_never_an_id_but_by_its_hmac(name: str, field: str) -> None:
    """Also of keys that don't look like one."""
    path = next(p for p in SAMPLES[name] if p.name in ("object.json", "nested.json"))
    [record] = unpacking.json_records(path.read_bytes())
    holder = record["attributes"] if name == "otel" else record
    holder[field] = "hunter2"
    plain = FORMATS[name].event(record, Options(key_field=field))
    hashed = FORMATS[name].event(record, Options(key_field=field, pepper=Secret("p")))
    assert "hunter2" not in str(plain) + str(hashed)
    assert isinstance(hashed, Event)
    assert hashed.key_id.startswith("hmac_")


def test_text_is_one_line() -> None:
    assert text("a\r\nb\x00") == "a b"
    assert text(["first", "second"]) == "first"


DATA = Path(os.environ.get("KEYWATCH_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.skipif(not DATA.is_dir() and os.environ.get("CI") != "true", reason=f"no real data in {DATA}")
@pytest.mark.parametrize(
    ("folder", "name", "key_field", "events", "refused"),
    [
        ("cloudtrail-invictus", "cloudtrail", "", 2815, {"no_key": 85}),
        ("cloudtrail-stratus", "cloudtrail", "", 167, {"no_key": 1}),
        ("weblog-elastic-apache", "combined", "address", 10_000, {}),
        ("weblog-elastic-apache", "combined", "", 0, {"no_key": 10_000}),
    ],
)
def test_every_record_of_the_real_logs_is_accounted_for(
    folder: str, name: str, key_field: str, events: int, refused: dict[str, int]
) -> None:
    files = [p for p in sorted((DATA / folder).iterdir()) if p.name != "LICENSE"]
    records = [each for p in files for each in decode(p.read_bytes(), name, Options(key_field=key_field))]
    check(records[::7])
    reasons = [each.reason for each in records if isinstance(each, Refused)]
    assert len(records) - len(reasons) == events
    assert {reason: reasons.count(reason) for reason in reasons} == refused
    assert {detect(p.read_bytes()) for p in files} == {name}


JA3, JA4 = "e7d705a3286e19ea42f587b344ee6865", "t13d1516h2_8daaf6152771_b186095e22b6"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (JA3, JA3), (JA3.upper(), JA3), (JA4, JA4), ([JA4], JA4), (f" {JA4}", JA4), (f"q{JA4[1:]}", f"q{JA4[1:]}"),
        ("-", ""), ("unknown", ""), (None, ""), (7, ""), (JA4[:-1], ""), (f"{JA3}0", ""), ("771,4865-4866,0-23", ""),
        (f"{JA3}, {JA3}", ""), ("\u0660" * 32, ""), ("sk_live_9aF3kQ0zXw7Lm2Pq8Rt5Vb6N", ""),
    ],
)  # fmt: skip
def test_a_fingerprint_is_a_ja4_or_a_ja3_and_all_else_none(value: Any, read: str) -> None:
    assert fingerprint({"said": value}, "missing", "said") == read


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("envoy", "tls_ja4_fingerprint"), ("kong", "request.headers.cf-ja4"), ("nginx", "http_ssl_ja4"),
        ("apisix", "request.headers.cloudfront-viewer-ja4-fingerprint"), ("traefik", "request_Cf-Ja4"),
    ],
)  # fmt: skip
def test_a_gateway_that_logs_the_fingerprint_gives_it_by_ja4_first(name: str, field: str) -> None:
    record = msgspec.json.decode((examples.ROOT / "formats" / name / "object.json").read_bytes())
    [event] = decode(msgspec.json.encode(record), name)
    assert isinstance(event, Event) and event.fingerprint == JA4
    target = record
    for key in field.split(".")[:-1]:
        target = target[key]
    del target[field.split(".")[-1]]
    [event] = decode(msgspec.json.encode(record), name)
    assert isinstance(event, Event) and event.fingerprint == (JA3 if name in ("envoy", "kong") else "")
