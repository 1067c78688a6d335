"""What a caller, or who crafts a body, may try on the formats: raw keys, made-up ids, addresses, small bombs."""

from __future__ import annotations

import base64
import itertools
import json
import tracemalloc
from typing import Any

import msgspec
import pytest

from pipeline.config.tree import Secret
from pipeline.formats import FORMATS, Options, Refused, decode
from pipeline.formats import envelope as unpacking
from pipeline.formats.confluent import IN_HEADER, framed
from pipeline.formats.otel import MOST_SHARED
from pipeline.intake.run import route
from pipeline.secrets import key_id_of_secret
from schemas.event import Event
from schemas.reasons import Rejected
from tests.pipeline.formats.test_formats import SAMPLES

PEPPER = "p"
RAW = "hunter2"


def read(name: str, field: str, value: Any, status: int = 200, pepper: str = PEPPER) -> Event | Refused:
    path = next(p for p in SAMPLES[name] if p.name in ("object.json", "nested.json"))
    record = next(unpacking.json_records(path.read_bytes()))
    holder = record["attributes"] if name == "otel" else record
    holder[field] = value
    holder |= {each: status for each in ("status", "response_code", "DownstreamStatus") if each in holder}
    if name == "ocsf":
        record["http_response"] = {"code": status}
    return FORMATS[name].event(record, Options(key_field=field, pepper=Secret(pepper)))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("nginx", "http_api_key"), ("nginx", "arg_api_key"), ("nginx", "http_x_auth_token"), ("nginx", "api_key"),
        ("nginx", "http_x_access_token"), ("nginx", "http_cookie"), ("nginx", "http_proxy_authorization"),
        ("envoy", "Ocp-Apim-Subscription-Key"), ("envoy", "x-auth-key"), ("traefik", "request_X-Auth-Token"),
        ("traefik", "request_Api_key"), ("aws_apigateway", "authorizer.token"), ("otel", "http.request.header.api_key"),
        ("ocsf", "x-api-key"), ("ocsf", "authorization"),
    ],
)  # fmt: skip
def test_whatever_a_header_with_the_key_is_called_the_key_is_never_an_id(name: str, field: str) -> None:
    assert RAW not in str(read(name, field, RAW, pepper=""))
    event = read(name, field, RAW)
    assert isinstance(event, Event)
    assert event.key_id == key_id_of_secret(RAW, PEPPER)


@pytest.mark.parametrize(
    "sent", [RAW, f"Bearer {RAW}", f"bearer {RAW}", f"BEARER   {RAW}", f"ApiKey {RAW}", [RAW, RAW]]
)
def test_a_key_has_one_id_however_it_is_sent(sent: Any) -> None:
    """The id that `keywatch leaks hash` gives, by which a leaked key is found; a thief can not choose a new one."""
    event = read("nginx", "http_authorization", sent)
    assert isinstance(event, Event)
    assert event.key_id == key_id_of_secret(RAW, PEPPER)


@pytest.mark.parametrize("sent", [f"made-up, {RAW}", ["made-up", RAW], "AWS4-HMAC-SHA256 Credential=a, Signature=b"])
def test_a_header_that_says_more_than_one_thing_gives_no_id(sent: Any) -> None:
    refused = read("nginx", "http_x_api_key", sent)
    assert isinstance(refused, Refused)
    assert refused.reason == "no_key"


def test_of_an_id_in_a_header_that_was_sent_twice_the_caller_does_not_choose_which_counts() -> None:
    field = "http.request.header.x-api-key-id"
    assert isinstance(read("otel", field, ["key-of-a-victim", "key-7"]), Refused)
    event = read("otel", field, ["key-7"])
    assert isinstance(event, Event)
    assert event.key_id == "key-7"


@pytest.mark.parametrize("status", [401, 403, 429])
@pytest.mark.parametrize(
    ("name", "field"), [("nginx", "http_x_api_key"), ("envoy", "x-api-key"), ("traefik", "request_X-Api-Key")]
)
def test_a_made_up_key_that_was_not_let_in_makes_no_id(name: str, field: str, status: int) -> None:
    """A gateway may count requests before it looks at the key, and `rate_limited` opens a key's state."""
    assert isinstance(read(name, field, "made-up", status), Refused)


@pytest.mark.parametrize("status", [200, 404, 429])
@pytest.mark.parametrize("key_field", ["", "consumer"])
@pytest.mark.parametrize("name", ["kong", "apisix"])
def test_a_key_that_the_gateway_has_not_authenticated_makes_no_id_whatever_it_let_through(
    name: str, key_field: str, status: int
) -> None:
    """A route without such a plugin, or Kong's anonymous consumer: any made-up `apikey` comes through there."""
    record = json.loads(next(p for p in SAMPLES[name] if p.name == "route_without_auth.json").read_bytes())
    record["request"]["headers"] |= {"apikey": "made-up", "x-api-key": "made-up"}
    record["request"]["querystring"] = {"apikey": "made-up"}
    record["response"]["status"] = status
    if name == "kong":
        record["consumer"] = {"id": "c0ffee00-0000-4000-8000-000000000001", "username": "anonymous"}
    refused = FORMATS[name].event(record, Options(key_field=key_field, pepper=Secret(PEPPER)))
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.network) == ("no_key", "203.0.113.0/24")


def otlp(shared: int, records: int) -> bytes:
    attributes = [{"key": f"a{number}", "value": {"intValue": "1"}} for number in range(shared)]
    exported = [{"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": [{}] * records}]}]
    return json.dumps({"resourceLogs": exported}).encode()


def test_a_small_export_of_many_records_with_a_large_resource_stays_small() -> None:
    """20,000 attributes times 20,000 records in a megabyte were 400 million."""
    raw = otlp(20_000, 20_000)
    tracemalloc.start()
    found = sum(1 for _ in itertools.islice(decode(raw, "otel"), 20_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 20_000
    assert peak < 40 << 20


def test_of_a_resource_so_many_attributes_are_read() -> None:
    first, second = unpacking.json_records(otlp(MOST_SHARED + 1, 2))
    assert len(first["attributes"]) == len(second["attributes"]) == MOST_SHARED


PACKED = {
    "firehose": {"requestId": "r", "records": [{"data": base64.b64encode(b'{"path":"/a?api_key=b"}').decode()}]},
    "otlp": {
        "resourceLogs": [{
            "scopeLogs": [{
                "logRecords": [{
                    "timeUnixNano": "1",
                    "attributes": [{"key": "http.request.header.x-api-key", "value": {"stringValue": RAW}}],
                }],
            }],
        }],
    },
    "log record": {"timeUnixNano": "1", "attributes": {"http.request.header.x-api-key": RAW}},
}  # fmt: skip


@pytest.mark.parametrize("name", ["native", "cloudtrail"])
@pytest.mark.parametrize("packed", PACKED)
def test_a_record_that_is_refused_leaves_nothing_of_what_an_envelope_held(name: str, packed: str) -> None:
    [out] = route(json.dumps(PACKED[packed]).encode(), name, Options(), "raw/0/1")
    body = msgspec.json.decode(out.value, type=Rejected)
    assert (body.reason, body.payload) == ("invalid", None)
    assert body.payload_hash


def test_a_broken_first_line_costs_no_other_line_of_a_packed_record() -> None:
    lines = [b'{"key_id": "a", "ts_', *(b'{"key_id":"%d","ts_us":1764000000000000}' % each for each in range(2))]
    packed = {"requestId": "r", "records": [{"data": base64.b64encode(b"\n".join(lines)).decode()}]}
    refused, *events = decode(json.dumps(packed).encode(), "native")
    assert isinstance(refused, Refused)
    assert [each.key_id for each in events if isinstance(each, Event)] == ["0", "1"]


def test_objects_that_run_together_are_read_inside_an_envelope_too() -> None:
    one = b'{"key_id":"a","ts_us":1764000000000000}'
    packed = {"requestId": "r", "records": [{"data": base64.b64encode(one * 2 + end).decode()} for end in (b"", b"x")]}
    found = list(decode(json.dumps(packed).encode(), "native"))
    assert [type(each) for each in found] == [Event, Event, Event, Event, Refused]


def test_envelopes_in_objects_that_run_together_do_not_nest_without_end() -> None:
    raw = b'{"key_id":"a","ts_us":1764000000000000}'
    for _ in range(20):
        raw = json.dumps(
            {"specversion": "1.0", "type": "t", "data_base64": base64.b64encode(raw + b"{}").decode()}
        ).encode()
    found = list(decode(raw, "native"))
    assert found
    assert all(isinstance(each, Refused) for each in found)


def test_a_packed_record_over_several_lines_is_one() -> None:
    pretty = json.dumps([{"key_id": "a", "ts_us": 1_764_000_000_000_000}], indent=1).replace("\n  ", "").encode()
    assert pretty.splitlines()[1].strip().startswith(b"{")
    packed = {"requestId": "r", "records": [{"data": base64.b64encode(pretty).decode()}]}
    [event] = decode(json.dumps(packed).encode(), "native")
    assert isinstance(event, Event)


@pytest.mark.parametrize("name", ["kong", "apisix", "nginx", "envoy", "native"])
@pytest.mark.parametrize("join", [b"[%s,%s,%s]", b"%s\n%s\n%s\n", b"%s%s%s"])
def test_a_byte_that_is_no_utf_8_hides_neither_its_request_nor_those_sent_with_it(name: str, join: bytes) -> None:
    """Gateways write a caller's bytes as they come (NGINX's $uri of `/%ff`, headers in cjson): one would be a cloak."""
    path = next(p for p in SAMPLES[name] if p.name == "object.json")
    good = json.dumps(next(unpacking.json_records(path.read_bytes()))).encode()
    agents = {each.user_agent for each in decode(good, name) if isinstance(each, Event)}
    assert len(agents) == 1
    agent = agents.pop().encode()
    bad = good.replace(agent, agent[:2] + b"\xff\xc3" + agent[2:])
    assert bad != good
    found = list(decode(join % (good, bad, good), name))
    assert [each.user_agent for each in found if isinstance(each, Event)] == [
        agent.decode(), f"{agent[:2].decode()}\ufffd\ufffd{agent[2:].decode()}", agent.decode(),
    ]  # fmt: skip
    packed = {"requestId": "r", "records": [{"data": base64.b64encode(b"[%s,%s]" % (good, bad)).decode()}]}
    assert [type(each) for each in decode(json.dumps(packed).encode(), name)] == [Event, Event]


@pytest.mark.parametrize("header", [b"{", b"\x00\x00", b"\x01" + bytes(15), b"7"])
def test_a_kafka_header_that_is_no_schema_id_does_not_spoil_a_plain_record(header: bytes) -> None:
    assert framed(b"{}", [(IN_HEADER, header)]) == b"{}"
