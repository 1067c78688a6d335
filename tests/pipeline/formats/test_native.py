"""The quick way of a native record gives what the patient way gives, or leaves the record to it."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.format import BadValueError, Options
from pipeline.formats.native import event, sloppy, strict
from schemas.event import METHODS, OUTCOMES, Event

TEXTS = st.text(max_size=20) | st.sampled_from(["-", " x", "a\tb", "/v1/x?key=1", "sk_live_9aF3kQ0zXw7Lm2Pq8Rt5Vb6N"])
ADDRESSES = st.sampled_from(["", "-", "1.2.3.4", "1.2.3.400", "01.2.3.4", "1.2.3", "::1", "1.2.3.4:80", "host.example"])
RECORDS = st.fixed_dictionaries(
    {"key_id": st.sampled_from(["pk_a", "-", "", "x y"]), "ts_us": st.integers(10**15, 2 * 10**15)},
    optional={
        "client_ip": ADDRESSES,
        "method": st.sampled_from([*METHODS, "get"]),
        "route": TEXTS,
        "path": TEXTS,
        "status": st.integers(-1, 600),
        "outcome": st.sampled_from([*OUTCOMES, "", "Success"]),
        "latency_ms": st.floats(-1, 2e9),
        "bytes_out": st.integers(-1, 10**6),
        "user_agent": TEXTS,
        "fingerprint": TEXTS | st.sampled_from(["0" * 32, "A" * 32, "t13d1516h2_8daaf6152771_b186095e22b6"]),
        "environment": st.sampled_from(["", "live", "prod", "test"]),
        "scope": TEXTS,
        "request_id": TEXTS,
        "source": TEXTS,
        "position": TEXTS,
    },
)


@given(RECORDS)
def test_strict_is_what_sloppy_says_or_nothing(record: dict[str, Any]) -> None:
    quick = strict(record)
    if quick is None:
        return
    try:
        assert quick == sloppy(record, Options())
    except BadValueError as error:
        raise AssertionError(record) from error


def test_a_record_of_our_own_takes_the_quick_way() -> None:
    ours = Event(key_id="pk_a", ts_us=1_780_000_000_000_000, client_ip="9.9.9.9", outcome="success", source="native")
    record = msgspec.to_builtins(ours)
    assert strict(record) == event(record, Options()) == ours
