"""Intake: what a raw message becomes, the lane of requests without a key, and that nothing moves on unacknowledged."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.tree import Config, Intake, Secret, Topics, Worker
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.formats import FORMATS, Options
from pipeline.formats.envelope import GZIP_MAGIC
from pipeline.intake.http import FIREHOSE_ID, FIREHOSE_KEY, MAX_BODY_BYTES, SHORT_BYTES, from_http, make_app
from pipeline.intake.run import (
    MOST_REFUSED,
    NoKeyLane,
    Outgoing,
    Pump,
    _partitioner,
    _read,
    batches_apart,
    check,
    from_files,
    outgoing,
    route,
    run,
    stream,
)
from pipeline.partitioner import PARTITIONERS
from pipeline.ports import Headers
from schemas.event import MAX_EVENT_BYTES, Event
from schemas.reasons import REASONS, Rejected
from tests.pipeline.formats.otlp import protobuf_of
from tests.schemas import examples

T = 1_764_000_000_000_000
FORMAT_EXAMPLES = [path for name in FORMATS for path in examples.inputs(examples.ROOT / "formats" / name)]


@dataclass
class Broker:
    """A `Publisher` that keeps what it acknowledged; `failures` publishes fail first."""

    failures: int = 0
    records: list[tuple[str, bytes, bytes, int | None]] = field(default_factory=list)
    gate: asyncio.Event | None = None  # acknowledgements wait for it
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), partition: int | None = None
    ) -> int:
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise Retry("the broker is away")
        self.records.append((topic, key, value, partition))
        return len(self.records) - 1

    def of(self, topic: str) -> list[tuple[bytes, bytes]]:
        return [(key, value) for name, key, value, _ in self.records if name == topic]


def native(key_id: str, **fields: Any) -> dict[str, Any]:
    return {"key_id": key_id, "ts_us": T, "client_ip": "203.0.113.7", **fields}


def of(*records: dict[str, Any], position: str = "gateway.raw/0/17") -> list[Outgoing]:
    return route(msgspec.json.encode(list(records)), "native", Options(), position)


def test_an_array_of_mixed_keys_is_split_and_keyed_by_key_id() -> None:
    out = of(native("a"), native("b", request_id="r-1"), native("a"))
    assert [each.lane for each in out] == ["requests"] * 3
    assert [each.key for each in out] == [b"a", b"b", b"a"]
    events = [msgspec.json.decode(each.value, type=Event) for each in out]
    assert [event.position for event in events] == [f"gateway.raw/0/17/{index}" for index in range(3)]
    assert [event.request_id for event in events] == ["gateway.raw/0/17/0", "r-1", "gateway.raw/0/17/2"]


def test_the_same_message_read_again_gives_the_same_records() -> None:
    assert of(native("a"), native("")) == of(native("a"), native(""))


def test_a_request_without_a_key_goes_to_the_lane_of_its_network_and_says_what_is_known() -> None:
    [out] = of(native("-", status=401, outcome="invalid", route="/v1/login"))
    assert (out.lane, out.key, out.reason, out.minute) == ("no_key", b"203.0.113.0/24", "no_key", T // 60_000_000)
    body = msgspec.json.decode(out.value, type=Rejected)
    assert (body.network, body.status, body.outcome, body.route) == ("203.0.113.0/24", 401, "invalid", "/v1/login")
    assert body.payload is None


def test_what_is_refused_goes_by_its_position_with_a_reason_and_a_payload_only_if_that_is_harmless() -> None:
    def body(raw: bytes, format: str = "native") -> Rejected:
        [out] = route(raw, format, Options(), "raw/0/1")
        assert (out.lane, out.key) == ("rejected", b"raw/0/1/0")
        return msgspec.json.decode(out.value, type=Rejected)

    assert body(b'{"key_id":"a","ts_us":1}').payload == b'{"key_id":"a","ts_us":1}'
    assert body(b'{"key_id":"a","ts_us":1,"path":"/a?key=b"}').payload is None
    assert body(b'{"key_id":"a","ts_us":1,"x":"' + examples.PLANTED[2] + b'"}').payload is None
    assert body(b"not json").payload is None
    assert body(b'{"hello":1}', "kong").payload is None
    assert body(b'{"key_id":"sk_live_EXAMPLE0000000000000","ts_us":1764000000000000}').reason == "secret"


def test_an_event_that_outgrows_the_limit_is_refused() -> None:
    out = outgoing(Event(key_id="a", ts_us=T, path="\x01" * MAX_EVENT_BYTES), "native")
    assert (out.lane, out.reason) == ("rejected", "too_large")


@given(st.binary(max_size=300), st.sampled_from(sorted(FORMATS)))
def test_any_message_becomes_records_with_a_key_and_a_known_reason(raw: bytes, format: str) -> None:
    for out in route(raw, format, Options(), "raw/0/1"):
        assert out.key
        assert out.reason in ("", *REASONS)
        assert out.lane == {"": "requests", "no_key": "no_key"}.get(out.reason, "rejected")


@pytest.mark.parametrize("path", FORMAT_EXAMPLES, ids=lambda path: "/".join(path.parts[-2:]))
def test_nothing_planted_in_an_example_is_in_any_record(path: Path) -> None:
    for out in route(path.read_bytes(), path.parent.name, examples.options(path), "raw/0/1"):
        assert not any(secret in out.value or secret in out.key for secret in examples.PLANTED)


def test_of_a_message_full_of_rubbish_so_many_refusals_are_written_and_the_rest_is_counted() -> None:
    """A hundred times a body's bytes would go to the topic of rejects: 300 MB for 300 kB in gzip."""
    raw = b"[" + msgspec.json.encode(native("a")) + b"," + b"{}," * 5000 + msgspec.json.encode(native("b")) + b"]"
    found = route(raw, "native", Options(), "p")
    assert [each.key for each in found if each.lane == "requests"] == [b"a", b"b"]
    rejects = [msgspec.json.decode(each.value, type=Rejected) for each in found if each.lane == "rejected"]
    assert len(rejects) == MOST_REFUSED + 1
    assert rejects[-1].position == "p/5000"
    assert rejects[-1].detail.endswith(f"with it {5000 - MOST_REFUSED} more records of this message are refused")


def nameless(minute: int = 0, network: bytes = b"203.0.113.0/24") -> Outgoing:
    value = msgspec.json.encode(Rejected(reason="no_key", network=network.decode()))
    return Outgoing(lane="no_key", key=network, value=value, reason="no_key", minute=minute)


def test_the_lane_lets_so_many_a_minute_pass_per_network_and_tells_what_it_held_back() -> None:
    lane = NoKeyLane(per_minute=2)
    assert [lane.admit(nameless()) is not None for _ in range(5)] == [True, True, False, False, False]
    assert lane.admit(nameless(network=b"198.51.100.0/24")) is not None
    later = lane.admit(nameless(minute=1))
    assert later is not None
    assert msgspec.json.decode(later.value, type=Rejected).suppressed == 3
    assert lane.suppressed == 3


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=200))
def test_the_lane_is_bounded_and_loses_no_count(arrivals: list[tuple[int, int]]) -> None:
    lane = NoKeyLane(per_minute=2, max_networks=3)
    told = passed = 0
    for minute, network in arrivals:
        admitted = lane.admit(nameless(minute, f"n{network}".encode()))
        if admitted is not None:
            passed += 1
            told += msgspec.json.decode(admitted.value, type=Rejected).suppressed
    waiting = sum(held for _, _, held in lane._seen.values())
    assert len(lane._seen) <= 3
    assert passed + lane.suppressed == len(arrivals)
    assert lane.suppressed == told + waiting + lane.lost


async def test_everything_reaches_its_topic_and_is_counted() -> None:
    broker = Broker()
    pump = Pump(Config(), broker)
    await pump.take(of(native("a"), native(""), {"key_id": "b"}))
    topics = Topics()
    assert [key for key, _ in broker.of(topics.requests)] == [b"a"]
    assert len(broker.of(topics.rejected)) == 2
    assert pump.counts == {"events": 1, "no_key": 1, "invalid": 1}


async def test_the_order_of_a_keys_events_is_kept() -> None:
    broker = Broker()
    await Pump(Config(), broker).take(of(*(native("a", request_id=str(number)) for number in range(2500))))
    ids = [msgspec.json.decode(value, type=Event).request_id for _, value in broker.of(Topics().requests)]
    assert ids == [str(number) for number in range(2500)]


async def test_a_broker_that_comes_back_gets_all_of_it_at_least_once() -> None:
    broker = Broker(failures=1)
    await Pump(Config(), broker).persist(of(native("a"), native("b")))
    assert {key for key, _ in broker.of(Topics().requests)} == {b"a", b"b"}


async def test_a_broker_that_stays_away_ends_the_process() -> None:
    with pytest.raises(Fatal, match="did not acknowledge"):
        await Pump(Config(), Broker(failures=1 << 30)).persist(of(native("a")), give_up_s=0.0)


async def test_with_crc32_the_partition_is_the_one_the_worker_expects() -> None:
    broker = Broker()
    config = Config(worker=Worker(partitioner="crc32"))
    await Pump(config, broker, partition_of=_partitioner(config, 5)).take(of(native("a"), native("b")))
    assert [each[3] for each in broker.records] == [PARTITIONERS["crc32"](key, 5) for key in (b"a", b"b")]
    assert _partitioner(Config(), 5) is None


async def test_files_are_sent_in_the_order_of_their_times(tmp_path: Path) -> None:
    for name, offsets in (("one", (3, 1)), ("two", (2, 0))):
        records = [native("a", ts_us=T + offset) for offset in offsets]
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(records))
    broker = Broker()
    pump = Pump(Config(), broker)
    await from_files(Config(), [tmp_path], pump, asyncio.Event())
    times = [msgspec.json.decode(value, type=Event).ts_us - T for _, value in broker.of(Topics().requests)]
    assert times == [0, 1, 2, 3]


async def test_stopping_before_the_end_of_the_files_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_bytes(msgspec.json.encode(native("a")))
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(Fatal, match="before the end"):
        await from_files(Config(), [tmp_path], Pump(Config(), Broker()), stop)


@pytest.mark.parametrize(
    ("config", "source", "paths", "words"),
    [
        (Config(), "ftp", [], "unknown source"),
        (Config(intake=Intake(format="squid")), "kafka", [], "intake.format 'squid' is unknown"),
        (Config(), "files", [], "give paths"),
        (Config(), "http", [Path("x")], "give paths"),
    ],
)
def test_what_can_not_work_is_refused_with_a_reason(config: Config, source: str, paths: list[Path], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(config, source, paths)


async def test_a_missing_broker_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_bytes(b"{}")
    config = msgspec.structs.replace(Config(), kafka=msgspec.structs.replace(Config().kafka, brokers="127.0.0.1:9"))
    with pytest.raises(Fatal, match="no Kafka broker answers at 127"):
        await run(config, "files", [tmp_path / "one.json"], asyncio.Event())


def listening(
    broker: Broker, token: str = "", format: str = "native"
) -> AbstractAsyncContextManager[tuple[aiohttp.ClientSession, str]]:
    """The endpoint on a free port of loopback, and a client's session."""

    @asynccontextmanager
    async def opened() -> Any:
        config = Config(intake=Intake(http_port=0, http_token=Secret(token), format=format))
        stop, bound = asyncio.Event(), asyncio.get_running_loop().create_future()
        server = asyncio.create_task(from_http(config, Pump(config, broker), stop, bound))
        try:
            async with asyncio.timeout(20), aiohttp.ClientSession() as session:
                yield session, f"http://127.0.0.1:{await bound}/"
        finally:
            stop.set()
            await server

    return opened()


async def test_http_answers_200_once_everything_is_acknowledged() -> None:
    broker = Broker(gate=asyncio.Event())
    async with listening(broker) as (session, url):
        answer = asyncio.create_task(session.post(url, json=[native("a"), native("b")]))
        await broker.asked.wait()
        assert not answer.done()
        assert broker.gate is not None
        broker.gate.set()
        assert (await answer).status == 200
    assert [key for key, _ in broker.of(Topics().requests)] == [b"a", b"b"]


async def test_http_answers_503_while_the_broker_is_away_and_a_repeat_has_the_same_request_ids() -> None:
    broker = Broker(failures=1)
    async with listening(broker) as (session, url):
        statuses = [(await session.post(url, json=native("a"))).status for _ in range(3)]
    assert statuses == [503, 200, 200]
    one, two = broker.of(Topics().requests)
    assert one == two


async def test_http_takes_the_right_token_only() -> None:
    broker = Broker()
    async with listening(broker, "correct") as (session, url):
        for headers, status in (
            ({}, 401), ({"X-Keywatch-Token": "wrong"}, 401), ({"Authorization": "Bearer wrong"}, 401),
            ({"X-Keywatch-Token": "correct"}, 200), ({"Authorization": "Bearer correct"}, 200),
        ):  # fmt: skip
            assert (await session.post(url, json=native("a"), headers=headers)).status == status
    assert len(broker.records) == 2


@pytest.mark.parametrize("protobuf", [True, False])
@pytest.mark.parametrize("packed", [True, False])
async def test_http_takes_what_an_otlp_exporter_sends_and_answers_in_its_encoding(protobuf: bool, packed: bool) -> None:
    broker = Broker(failures=1)
    raw = (examples.ROOT / "formats/otel/object.json").read_bytes()
    body, kind = (protobuf_of(raw), "application/x-protobuf") if protobuf else (raw, "application/json")
    headers = {"Content-Type": kind} | ({"Content-Encoding": "gzip"} if packed else {})
    sent, said = gzip.compress(body) if packed else body, []
    async with listening(broker, format="otel") as (session, url):
        for _ in range(2):
            async with session.post(f"{url}v1/logs", data=sent, headers=headers) as told:
                said.append((told.status, told.content_type, await told.read()))
                assert ("Retry-After" in told.headers) == (told.status == 503)
    words = b"the broker did not acknowledge; send it again"
    refused = b"\x12" + bytes([len(words)]) + words if protobuf else b'{"message":"%s"}' % words
    assert said == [(503, kind, refused), (200, kind, b"" if protobuf else b"{}")]
    assert [key for key, _ in broker.of(Topics().requests)] == [b"key-7"]


@pytest.mark.parametrize("packed", [True, False])
async def test_while_a_body_is_unpacked_others_are_served(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes may take seconds of one core; the loop has the others' answers, and /healthz."""
    begun, let_go = threading.Event(), threading.Event()

    def slow(raw: bytes, *args: Any) -> Iterator[Outgoing]:
        if len(raw) > 1000 or raw.startswith(GZIP_MAGIC):
            begun.set()
            assert let_go.wait(5), "nobody was served meanwhile"
        yield from stream(raw, *args)

    monkeypatch.setattr("pipeline.intake.http.stream", slow)
    body = msgspec.json.encode([native("a")]) + b" " * SHORT_BYTES
    async with listening(Broker()) as (session, url):
        large = asyncio.create_task(session.post(url, data=io.BytesIO(gzip.compress(body) if packed else body)))
        await asyncio.to_thread(begun.wait)
        assert (await session.post(url, json=native("b"))).status == 200
        assert not large.done()
        let_go.set()
        assert (await large).status == 200


async def test_whoever_gives_up_waits_for_the_thread_that_unpacks_for_him() -> None:
    """Else one who sends a slow body again and again would have as many threads as he likes."""
    begun, let_go = threading.Event(), threading.Event()

    def slow() -> Iterator[Outgoing]:
        begun.set()
        let_go.wait(20)
        yield nameless()

    async def take() -> None:
        async for _ in batches_apart(slow()):
            pass

    task = asyncio.create_task(take())
    await asyncio.to_thread(begun.wait)
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_http_answers_firehose_in_its_own_words_and_knows_a_second_attempt_by_its_records() -> None:
    """It counts a 200 without its request's id as a failure, and may date and name the second attempt anew."""
    broker = Broker(failures=1)
    data = base64.b64encode(b"\n".join(msgspec.json.encode(native(key)) for key in "ab")).decode()
    sent = {"requestId": "ed4acda5-034f", "timestamp": 1_578_090_901_599, "records": [{"data": data}]}
    headers = {FIREHOSE_ID: "ed4acda5-034f", FIREHOSE_KEY: "correct"}
    async with listening(broker, "correct") as (session, url):
        for wrong in ({FIREHOSE_ID: "x"}, {FIREHOSE_ID: "x", FIREHOSE_KEY: "wrong"}):
            async with session.post(url, json=sent, headers=wrong) as answer:
                assert (answer.status, (await answer.json())["errorMessage"]) == (401, "the token is missing or wrong")
        for status, dated in ((503, 1), (200, 2), (200, 3)):
            async with session.post(url, json=sent | {"timestamp": dated}, headers=headers) as answer:
                told = await answer.json()
                assert (answer.status, answer.content_type) == (status, "application/json")
                assert (told["requestId"], "errorMessage" in told) == ("ed4acda5-034f", status != 200)
                assert isinstance(told["timestamp"], int)
    ids = [msgspec.json.decode(value, type=Event).request_id for _, value in broker.of("api.requests")]
    assert len(ids) >= 4
    assert len(set(ids)) == 2


async def test_http_knows_firehoses_records_under_another_request_id_and_other_records_under_the_same() -> None:
    """Its specification keeps the id of a request "in a best-effort manner"."""
    broker = Broker()
    async with listening(broker) as (session, url):
        for request, key in (("r1", "a"), ("r2", "a"), ("r2", "b")):
            data = base64.b64encode(msgspec.json.encode(native(key) | {"request_id": ""})).decode()
            sent = {"requestId": request, "timestamp": 1, "records": [{"data": ""}, {"data": data}]}
            async with session.post(url, json=sent, headers={FIREHOSE_ID: request}) as answer:
                assert (answer.status, (await answer.json())["requestId"]) == (200, request)
    assert not broker.of(Topics().rejected)
    first, repeated, other = (msgspec.json.decode(value, type=Event) for _, value in broker.of(Topics().requests))
    assert first.request_id == repeated.request_id != other.request_id


async def test_http_tells_firehose_of_a_body_that_is_too_large_so_that_it_keeps_the_records() -> None:
    """By its specification a 413 is final, and no backup is made; any other error is tried again and then backed up."""
    async with listening(Broker()) as (session, url):
        body = io.BytesIO(b" " * (MAX_BODY_BYTES + 1))
        async with session.post(url, data=body, headers={FIREHOSE_ID: "a-request"}) as answer:
            told = await answer.json()
            assert (answer.status, told["requestId"]) == (400, "a-request")
            assert "larger than" in told["errorMessage"]


async def test_http_takes_any_bytes_for_the_id_of_a_request_of_firehoses() -> None:
    broker = Broker()
    async with listening(broker) as (_, url):
        body = msgspec.json.encode(native("a"))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2].strip("/")))
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s: \xff\xfe\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (FIREHOSE_ID.encode(), len(body)) + body)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(broker.records) == 1


async def test_http_refuses_a_body_that_is_not_what_its_encoding_says() -> None:
    async with listening(Broker()) as (session, url):
        headers = {"Content-Encoding": "gzip", FIREHOSE_ID: "r"}
        async with session.post(url, data=b"no gzip", headers=headers) as answer:
            assert (answer.status, (await answer.json())["requestId"]) == (400, "r")


async def test_http_refuses_a_body_that_is_too_large_and_keeps_rubbish_as_a_reject() -> None:
    broker = Broker()
    async with listening(broker) as (session, url):
        assert (await session.post(url, data=io.BytesIO(b" " * (MAX_BODY_BYTES + 1)))).status == 413
        assert (await session.post(url, data=b"\xff")).status == 200
    [(_, value)] = broker.of(Topics().rejected)
    assert msgspec.json.decode(value, type=Rejected).reason == "undecodable"


def test_an_open_address_without_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set intake\.http_token"):
        make_app(Config(intake=Intake(http_host="0.0.0.0")), Pump(Config(), Broker()))


async def test_a_port_that_is_taken_is_one_clear_line() -> None:
    async with listening(Broker()) as (_, url):
        config = Config(intake=Intake(http_port=int(url.rpartition(":")[2].strip("/"))))
        with pytest.raises(ConfigError, match="can not listen on"):
            await from_http(config, Pump(config, Broker()), asyncio.Event())


async def test_the_endpoints_health_is_told_on_a_port_of_its_own(unused_port: int) -> None:
    config = Config(intake=Intake(http_port=0, metrics_port=unused_port))
    stop, pump = asyncio.Event(), Pump(Config(), Broker())
    task = asyncio.create_task(_read(config, "http", (), pump, stop))
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        while pump.health.why_not_ready() and not task.done():
            await asyncio.wait([task], timeout=0.05)
        assert (await session.get(f"http://127.0.0.1:{unused_port}/readyz")).status == 200
    stop.set()
    await task


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
