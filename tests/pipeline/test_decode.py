"""Whatever comes, decode gives an event or a reject for it, and a reject never carries what may be a secret."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.core import Slice
from pipeline.decode import decode
from schemas.event import Event
from schemas.reasons import REASONS

NOW_US = 1_780_000_000_000_000
SECRET = "sk_live_" + "9aF3kQ0zXw7Lm2Pq8Rt5Vb6N"


def batch(*records: tuple[bytes | None, bytes | None]) -> Slice:
    keys, values = zip(*records, strict=True)
    return Slice("t", 3, range(70, 70 + len(records)), keys, values, [NOW_US // 1000] * len(records))


def good(**fields: object) -> tuple[bytes, bytes]:
    event = Event(**{"key_id": "pk_a", "ts_us": NOW_US, **fields})  # type: ignore[arg-type]
    return event.key_id.encode(), msgspec.json.encode(event)


@pytest.mark.parametrize(
    ("reason", "record"),
    [
        ("undecodable", (b"pk_a", b"{")),
        ("undecodable", (b"pk_a", None)),
        ("undecodable", (b"pk_a", b'{"key_id":"\xff"}')),
        ("invalid", (b"pk_a", b"[" * 20_000)),
        ("invalid", (b"pk_a", b"[1]")),
        ("invalid", (b"pk_a", b'{"key_id":"pk_a"}')),
        ("invalid", (b"pk_a", b'{"key_id":"pk_a","ts_us":1780000000}')),
        ("invalid", (b"pk_a", b'{"key_id":"pk_a","ts_us":1780000000000000,"latency_ms":1e300}')),
        ("invalid", (b"pk_a", b'{"key_id":"","ts_us":1780000000000000}')),
        ("invalid", (b"pk_a", b'{"key_id":"pk a","ts_us":1780000000000000}')),
        ("invalid", (b"pk\n_a", b'{"key_id":"pk\\n_a","ts_us":1780000000000000}')),
        ("invalid", (b"pk_a\n", b'{"key_id":"pk_a\\n","ts_us":1780000000000000}')),
        ("invalid", ("pk_\u00e4".encode(), '{"key_id":"pk_\u00e4","ts_us":1780000000000000}'.encode())),
        ("too_large", (b"pk_a", b'{"key_id":"' + b"a" * 40_000 + b'"}')),
        ("unkeyed", (None, good()[1])),
        ("key_mismatch", (b"pk_b", good()[1])),
        ("future", good(ts_us=NOW_US + 6 * 60 * 1_000_000)),
        ("secret", good(key_id=SECRET)),
    ],
)
def test_each_fault_has_its_reason_and_spoils_nothing_beside_it(reason: str, record: tuple[bytes, bytes]) -> None:
    decoded = decode(batch(good(request_id="before"), record, good(request_id="after")))
    assert [event.request_id for event in decoded.events] == ["before", "after"]
    assert decoded.at.tolist() == [0, 2]
    (reject,) = decoded.rejects
    assert (reject.reason, reject.offset, reject.partition) == (reason, 71, 3)
    assert reason in REASONS


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8))
@example([b'{"key_id":1e999}'])
@example([b'{"key_id":"a","ts_us":NaN}'])
def test_random_bytes_are_rejects_never_exceptions(values: list[bytes]) -> None:
    decoded = decode(batch(*((b"k", value) for value in values)))
    assert len(decoded.events) + len(decoded.rejects) == len(values)


SHORT = "sk_live_9aF3kQ0z"


@pytest.mark.parametrize(
    "field",
    ["path", "user_agent", "fingerprint", "scope", "request_id", "route", "source", "method", "outcome", "environment"],
)
def test_a_secret_in_a_field_is_taken_out_and_the_event_kept(field: str) -> None:
    few = field in ("method", "outcome", "environment")
    value = f"/v1/keys/{SECRET}" if field in ("path", "route") else SHORT if few else SECRET
    decoded = decode(batch(good(**{field: value})))
    (event,) = decoded.events
    assert SECRET.encode() not in msgspec.json.encode(event)
    assert SHORT.encode() not in msgspec.json.encode(event)


@pytest.mark.parametrize(("said", "kept"), [("771,4865-4866,0-23,29,0", ""), ("unknown", ""), ("A" * 32, "A" * 32)])
def test_what_is_no_fingerprint_goes_and_the_event_stays(said: str, kept: str) -> None:
    (event,) = decode(batch(good(fingerprint=said))).events
    assert (event.fingerprint, event.key_id) == (kept, "pk_a")


def test_the_query_of_a_path_goes() -> None:
    (event,) = decode(batch(good(path=f"/v1/things?apikey={SECRET}"))).events
    assert event.path == "/v1/things"


def test_no_reject_carries_a_payload_that_may_hold_a_secret() -> None:
    raw = good(user_agent=SECRET)[1]
    rejects = decode(batch((b"pk_b", raw), (b"pk_a", b'{"key_id":"pk_a","token":"' + SECRET.encode() + b'"'))).rejects
    assert [reject.payload for reject in rejects] == [None, None]
    assert all(SECRET not in reject.detail for reject in rejects)


def test_ticks_are_passed_over() -> None:
    records = batch(good(), (b"", b""))
    ticking = Slice("t", 3, records.offsets, records.keys, records.values, records.timestamps_ms, frozenset([1]))
    decoded = decode(ticking)
    assert (len(decoded.events), decoded.rejects) == (1, [])


RECORDS = (
    good(request_id="r1"), good(request_id="r2", path=f"/v1/{SECRET}"), good(user_agent=SECRET), good(key_id=SECRET),
    good(scope="a" * 16 + SECRET), good(request_id=SECRET), good(client_ip="not-an-address-" * 2), good(route="/x?a=b"),
    good(ts_us=NOW_US + 10**12), (b"other", good()[1]), (None, good()[1]), (b"pk_a", None), (b"pk_a", b"{"),
    (b"pk_a", b"[1]"), (b"pk a", b'{"key_id":"pk a","ts_us":1780000000000000}'), (b"pk_a", b"\xff" * 40_000),
    (b"pk\na", b'{"key_id":"pk\\na","ts_us":1780000000000000}'), (b"pk_a", b"[" * 9_000),
)  # fmt: skip


@given(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=40))
def test_a_slice_judged_at_once_gives_what_its_records_give_one_by_one(records: list[tuple[bytes, bytes]]) -> None:
    whole, alone = decode(batch(*records)), [decode(batch(each)) for each in records]
    assert list(whole.events) == [event for each in alone for event in each.events]
    assert whole.at.tolist() == [i for i, each in enumerate(alone) if len(each.events)]
    assert [(r.offset - 70, r.reason, r.detail, r.payload) for r in whole.rejects] == [
        (i, r.reason, r.detail, r.payload) for i, each in enumerate(alone) for r in each.rejects
    ]


def test_a_rejects_payload_is_its_event_written_anew_and_nothing_else_of_the_record() -> None:
    raw = good(request_id="r")[1].replace(b"{", b'{"unknown":"field",', 1)
    (reject,) = decode(batch((b"pk_b", raw))).rejects
    assert (reject.reason, reject.payload) == ("key_mismatch", good(request_id="r")[1])


@pytest.mark.parametrize("field", ["source", "position", "user_agent", "path", "request_id"])
def test_a_reject_whose_event_holds_a_secret_anywhere_goes_without_payload(field: str) -> None:
    (reject,) = decode(batch((b"pk_b", good(**{field: SECRET})[1]))).rejects
    assert reject.payload is None
