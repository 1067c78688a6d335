"""A secret in a field that holds 16 characters at most: no row, message or rejected payload shows it."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.core import Slice
from pipeline.decode import decode
from schemas.event import Event

SECRET = "sk_live_" + "EXAMPLE1"


def sent(key: bytes, **fields: str) -> Slice:
    event = Event(key_id="pk_0", ts_us=1_780_000_000_000_000, **fields)  # type: ignore[arg-type]
    return Slice("t", 0, [0], [key], [msgspec.json.encode(event)], [1_780_000_000_000])


@pytest.mark.parametrize("field", ["method", "environment", "outcome"])
def test_a_secret_in_a_short_field_is_blanked(field: str) -> None:
    (event,) = decode(sent(b"pk_0", **{field: SECRET})).events
    assert SECRET not in msgspec.json.encode(event).decode()


@pytest.mark.parametrize("field", ["method", "environment", "outcome"])
def test_a_refused_event_with_a_secret_in_a_short_field_goes_without_it(field: str) -> None:
    (refused,) = decode(sent(b"another", **{field: SECRET})).rejects
    assert refused.reason == "key_mismatch"
    assert SECRET.encode() not in (refused.payload or b"")
