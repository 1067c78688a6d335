"""What is scanned is what msgspec decodes from the same bytes, and what is packed is what was there."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detectors import fuse
from pipeline import admit, aggregate, decode, fields, flow, routes, scan, sight, spans, warm
from pipeline.config.tree import Config, Geo
from pipeline.core import Effects, Sides, Slice
from pipeline.geo.provider import open_geo
from schemas.event import Event

AT_US = 1_780_000_000_000_000
TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters='"\\'), max_size=70)
EVENTS = st.builds(
    Event,
    key_id=st.from_regex(r"[!-~]{1,20}", fullmatch=True).filter(lambda text: '"' not in text and "\\" not in text),
    ts_us=st.integers(946_684_800_000_000, 4_102_444_799_999_999),
    client_ip=st.ip_addresses().map(str), route=TEXT, path=TEXT, user_agent=TEXT, request_id=TEXT,
    fingerprint=TEXT.map(lambda t: t[:64]),
    method=st.sampled_from(["", "GET", "BREW"]), outcome=st.sampled_from(["unknown", "success", "denied"]),
    status=st.integers(0, 599), bytes_in=st.integers(0, 1 << 50), bytes_out=st.integers(0, 1 << 50),
    latency_ms=st.integers(0, 10**12).map(lambda n: n / 1000) | st.floats(0, 1e9),
    environment=st.sampled_from(["", "live"]), scope=TEXT.map(lambda t: t[:64]), source=TEXT.map(lambda t: t[:64]),
    position=TEXT,
)  # fmt: skip


def records(*values: bytes, key: bytes = b"k") -> Slice:
    keys = []
    for value in values:
        try:
            keys.append(msgspec.json.decode(value, type=Event).key_id.encode())
        except (msgspec.MsgspecError, ValueError):
            keys.append(key)
    return Slice("t", 0, range(len(values)), keys, values, [-1] * len(values))


def scanned(*values: bytes) -> list[Event | None]:
    told, good = decode._scanned(records(*values))
    return [told.event(i) if good[i] else None for i in range(len(values))]


@given(st.lists(EVENTS, min_size=1, max_size=6), st.booleans())
def test_an_event_as_msgspec_or_json_writes_it_is_read_without_loss(events: list[Event], spaced: bool) -> None:
    written = [msgspec.json.encode(event) for event in events]
    if spaced:
        written = [json.dumps(json.loads(value), indent=1).encode() for value in written]
    for event, found in zip(events, scanned(*written), strict=True):
        assert found in (event, None)
        exponent = "e" in json.dumps(event.latency_ms)
        assert found == event or exponent or len(json.dumps(event.latency_ms)) > 16


MEMBERS = st.sampled_from(
    [
        '"key_id":"k"', '"key_id":"k"', '"ts_us":1780000000000000', '"ts_us":1780000000000000', '"ts_us":17', '"v":1',
        '"v":2', '"v":1.0', '"status":0200', '"status":200', '"status":-1', '"status":600', '"status":2e2',
        '"status":"200"', '"status":null', '"status":true', '"latency_ms":1.50', '"latency_ms":.5', '"latency_ms":5.',
        '"latency_ms":1e3', '"latency_ms":00.1', '"latency_ms":1000000001', '"latency_ms":0.1234567890123456789',
        '"path":"/a\\u0020b"', '"path":"/\u00e4"', '"path":"/a\\"b"', '"path":"/a"', '"path":5',
        '"method":"A234567890123456"', '"method":"A2345678901234567"', '"unknown":"x"', '"unknown":17',
        '"unknown":{"a":1}', '"":"x"',
        '"user_agentX":"x"', '"request_xx":"x"', '"bytes_in":9223372036854775808', '"bytes_in":1125899906842624',
        '"bytes_in":1125899906842625',
        '"path":"a\tb"', '"path":"\x7f"', '"scope":"' + "s" * 64 + '"', '"scope":"' + "s" * 65 + '"',
    ]
)  # fmt: skip
NOISE = st.sampled_from(["", "", "", " ", ",", "}", "{", '"', "\n\t", "null", "[1]"])


@given(st.lists(st.lists(MEMBERS, max_size=7), min_size=1, max_size=5), NOISE, NOISE, NOISE)
@example([['"key_id":"k"', '"ts_us":1780000000000000'], ['"key_id":"k"']], "", "", "")
def test_what_is_read_from_odd_json_is_what_msgspec_reads(
    objects: list[list[str]], before: str, between: str, after: str
) -> None:
    values = [(before + "{" + ("," + between).join(members) + "}" + after).encode() for members in objects]
    for value, found in zip(values, scanned(*values), strict=True):
        try:
            expected: Event | None = msgspec.json.decode(value, type=Event)
        except (msgspec.MsgspecError, ValueError):
            expected = None
        assert found in (expected, None)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6))
def test_random_bytes_are_never_read_as_what_msgspec_refuses(values: list[bytes]) -> None:
    for value, found in zip(values, scanned(*values), strict=True):
        assert found is None or found == msgspec.json.decode(value, type=Event)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_record_that_was_cut_off_does_not_go_on_in_the_next(cut: int) -> None:
    whole = msgspec.json.encode(Event(key_id="k", ts_us=AT_US, path="/a"))
    first, second = scanned(whole[:cut], whole)
    assert (first is None) == (cut < len(whole))
    assert second is not None


def test_a_key_id_that_is_not_the_records_key_is_left_to_the_judge() -> None:
    value = msgspec.json.encode(Event(key_id="k", ts_us=AT_US))
    _, good = decode._scanned(Slice("t", 0, range(3), [b"k", b"kk", None], [value] * 3, [-1] * 3))
    assert good.tolist() == [True, False, False]


@given(st.lists(st.text(max_size=150), max_size=12))
def test_texts_are_coded_and_packed_without_loss(texts: list[str]) -> None:
    told = fields.fields_of([Event(key_id="k", ts_us=AT_US, path=text) for text in texts])
    assert list(told.coded("path")) == texts
    assert list(told.texts("path")) == texts
    assert len(set(told.coded("path").values)) == len(told.coded("path").values)
    some = np.arange(0, len(texts), 2)
    assert list(told.texts("path", some)) == texts[::2]
    assert list(told.take(some).coded("path")) == texts[::2]


@given(st.text(max_size=60), st.lists(st.integers(0, 2**63 - 1), max_size=8))
def test_numbered_texts_are_prefix_and_number(prefix: str, numbers: list[int]) -> None:
    if len(prefix.encode()) <= 108:
        expected = [f"{prefix}{number}" for number in numbers]
        assert list(fields.numbered(prefix, np.array(numbers, np.int64))) == expected
    else:
        with pytest.raises(ValueError, match="too long"):
            fields.numbered(prefix, np.array(numbers, np.int64))


def test_no_kind_of_slice_makes_numba_compile_anew() -> None:
    """It would take seconds, with all partitions waiting."""
    warm.warm_up()
    good = msgspec.json.encode(Event(key_id="k", ts_us=AT_US, outcome="success", path="/a/1", request_id="r"))
    odd = msgspec.json.encode(Event(key_id="k", ts_us=AT_US, outcome="success", path="/\u00e4/1", user_agent='"'))
    warmed = {each: list(each.signatures) for each in _compiled(admit, aggregate, sight, fuse)}
    core = flow.open_core(0, Config(), Sides(warm.Undeclared(), open_geo(Geo()), ""), "")
    for values in ([good], [odd], [good, odd, b"{"], [b"{"], [good, good, good]):
        at = max(core.next_offset, 0)
        core.process(Slice("", 0, range(at, at + len(values)), [b"k"] * len(values), values, [-1] * len(values)))
    core.state.open[0] = cast(Any, None)  # an incident that may end: only its slot is asked for
    core._close_due(AT_US, Effects())
    core.due_rows()
    assert {aggregate.add_sources, sight.sight, fuse.sweep} <= warmed.keys()
    assert [each for each, before in warmed.items() if list(each.signatures) != before] == []
    once = _compiled(scan, spans, routes)
    assert [f"{each.__name__}: {each.signatures}" for each in once if len(each.signatures) > 1] == []


def _compiled(*modules: Any) -> list[Any]:
    return [each for module in modules for each in vars(module).values() if hasattr(each, "signatures")]
