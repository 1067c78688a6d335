"""What is done to keys comes in: from a key service, from CloudTrail; secrets and the worker's own words do not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tree import Config, Intake
from pipeline.errors import ConfigError
from pipeline.intake.key_events import of_files, route
from pipeline.intake.run import Outgoing, check, stream
from pipeline.intake.run import options_of as options
from schemas.key_event import KeyEvent

CREATED: dict[str, Any] = {
    "key_id": "key_1", "ts_us": 1_780_000_000_000_000, "kind": "created", "actor": "user_1", "actor_role": "member",
    "environment": "live", "client_ip": "198.51.100.7",
}  # fmt: skip
SECRET = "sk_live_EXAMPLE0000000000000"


def taken(raw: bytes, format: str = "key_events") -> list[KeyEvent]:
    return [msgspec.json.decode(out.value, type=KeyEvent) for out in route(raw, format, "raw/0/7") if _is_good(out)]


def _is_good(out: Outgoing) -> bool:
    return out.lane == "key_events"


def refused(raw: bytes) -> list[str]:
    return [out.reason for out in route(raw, "key_events", "raw/0/7") if out.lane == "rejected"]


def test_an_event_of_a_key_service_goes_on_under_its_keys_id() -> None:
    (out,) = route(json.dumps(CREATED).encode(), "key_events", "raw/0/7")
    assert (out.lane, out.key) == ("key_events", b"key_1")
    assert taken(json.dumps(CREATED).encode())[0].event_id == "raw/0/7/0"  # so that a repeat is known


def test_lines_arrays_and_gzip_are_read() -> None:
    two = [CREATED, CREATED | {"kind": "ended", "event_id": "e2"}]
    lines = b"\n".join(json.dumps(each).encode() for each in two)
    for raw in (json.dumps(two).encode(), lines, gzip.compress(lines)):
        assert [event.kind for event in taken(raw)] == ["created", "ended"]


@pytest.mark.parametrize("kind", ["used", "bulk"])
def test_what_the_worker_alone_may_say_is_refused(kind: str) -> None:
    assert refused(json.dumps(CREATED | {"kind": kind}).encode()) == ["invalid"]


def test_a_secret_as_key_id_is_refused_and_elsewhere_blanked() -> None:
    assert refused(json.dumps(CREATED | {"key_id": SECRET}).encode()) == ["secret"]
    (event,) = taken(json.dumps(CREATED | {"actor": SECRET, "scopes": ["read", SECRET]}).encode())
    assert (event.actor, event.scopes) == ("{secret}", ("read", "{secret}"))
    outs = route(json.dumps(CREATED | {"key_id": SECRET}).encode(), "key_events", "raw/0/7")
    assert not any(SECRET.encode() in out.value + out.key for out in outs)


def record(name: str, **more: Any) -> dict[str, Any]:
    return {
        "eventName": name, "eventTime": "2023-07-10T12:24:50Z", "eventID": "id-1", "sourceIPAddress": "192.168.10.20",
        "userIdentity": {"userName": "bert-jan", "accessKeyId": "AKIATFQR7NSC8Q4X20BJ"}, **more,
    }  # fmt: skip


def test_cloudtrail_says_who_made_a_key_for_whom_and_with_what() -> None:
    made = {"accessKey": {"accessKeyId": "AKIATFQR7NSCQLA2F4OD", "userName": "malicious-iam-user"}}
    (event,) = taken(json.dumps({"Records": [record("CreateAccessKey", responseElements=made)]}).encode(), CT)
    assert (event.key_id, event.kind, event.actor, event.actor_role, event.owner) == (
        "AKIATFQR7NSCQLA2F4OD", "created", "bert-jan", "key", "malicious-iam-user",
    )  # fmt: skip


CT = "cloudtrail_keys"


def test_cloudtrails_ends_count_and_everything_else_is_passed_over() -> None:
    key = {"accessKeyId": "AKIATFQR7NSCQLA2F4OD", "userName": "u"}
    records = [
        record("DeleteAccessKey", requestParameters=key),
        record("UpdateAccessKey", requestParameters=key | {"status": "Inactive"}),
        record("UpdateAccessKey", requestParameters=key | {"status": "Active"}),
        record("DeleteAccessKey", requestParameters=key, errorCode="AccessDenied"),
        record("ListBuckets"),
    ]
    assert [event.kind for event in taken(json.dumps({"Records": records}).encode(), CT)] == ["ended", "ended"]


def test_files_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    later = CREATED | {"ts_us": CREATED["ts_us"] + 5, "key_id": "key_2"}
    (tmp_path / "a.json").write_text(json.dumps(later))
    (tmp_path / "b.json").write_text(json.dumps(CREATED))
    assert [out.key for out in of_files([tmp_path], "key_events")] == [b"key_1", b"key_2"]
    with pytest.raises(ConfigError, match="No such file"):
        list(of_files([tmp_path / "none.json"], "key_events"))


@given(st.binary(max_size=300), st.sampled_from(["key_events", CT]))
def test_no_bytes_make_it_fail(raw: bytes, format: str) -> None:
    assert all(out.lane in ("key_events", "rejected") for out in route(raw, format, "p"))


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6,
)  # fmt: skip


@given(st.sampled_from([*CREATED, "scopes", "userIdentity", "requestParameters", "responseElements"]), _values)
def test_no_value_of_a_field_makes_it_fail(name: str, value: Any) -> None:
    both = CREATED | record("CreateAccessKey") | {name: value}
    for format in ("key_events", CT):
        assert all(out.lane in ("key_events", "rejected") for out in route(json.dumps(both).encode(), format, "p"))


def test_intake_knows_these_formats_and_leads_them_to_their_own_lane() -> None:
    config = Config(intake=Intake(format="key_events"))
    check(config, "http", ())
    (out,) = stream(json.dumps(CREATED).encode(), "key_events", options(config), "p")
    assert out.lane == "key_events"
    with pytest.raises(ConfigError, match="key_events"):
        check(Config(intake=Intake(format="no such")), "http", ())
