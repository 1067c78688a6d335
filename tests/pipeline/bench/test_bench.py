"""The parts of `keywatch bench` that need no broker: its load, its clock, its steps, its report."""

from __future__ import annotations

import os
import socket
import time
from itertools import islice

import msgspec
import pytest

from pipeline.bench import load, processes, steps
from pipeline.bench.clock import Clock, cpu_s_of
from pipeline.bench.judge import Judge
from pipeline.bench.plain_agent import Request
from pipeline.bench.trial import parse
from pipeline.bench.whole import rows_of
from pipeline.config.tree import ClickHouse
from pipeline.secrets import is_clean
from pipeline.sinks.connect import connect
from schemas.event import Event

START_US = 1_780_000_000_000_000


def test_the_same_load_is_the_same_log() -> None:
    small = load.Load(events=500, keys=50)
    assert list(load.events(small, START_US)) == list(load.events(small, START_US))


def test_the_log_is_events_in_order_that_the_worker_takes() -> None:
    made = list(load.events(load.Load(events=2_000, keys=100), START_US))
    assert [event.ts_us for event in made] == sorted(event.ts_us for event in made)
    assert all(msgspec.json.decode(msgspec.json.encode(event), type=Event) == event for event in made)
    assert all(map(is_clean, made))
    assert len({event.request_id for event in made}) == len(made)


def test_the_clock_counts_from_the_first_fifth_on() -> None:
    clock = Clock(100)
    assert not clock.at(10)
    assert clock.first is None
    assert not clock.at(20)
    assert clock.at(100)
    assert clock.first is not None
    assert clock.first[1] == 20
    assert clock.per_s > 0


def test_the_clock_counts_processor_time_of_the_same_events() -> None:
    times = iter([1.0, 5.0])
    broker = iter([10.0, 10.4])
    clock = Clock(100, lambda: next(times), servers={"broker": lambda: next(broker)})
    assert not clock.at(20)
    assert not clock.at(60)
    assert clock.at(100)
    assert clock.pace.cpu_us == 50_000.0  # 4 s for the 80 events after the first 20
    assert clock.pace.servers_us == {"broker": 5_000.0}


def test_processor_time_of_a_process_is_what_it_says_itself() -> None:
    told = cpu_s_of(os.getpid())() or time.process_time()  # 0 where the system does not tell
    assert abs(told - time.process_time()) < 0.5
    assert cpu_s_of(2**22 + 1)() == 0.0


def test_a_server_is_found_by_the_port_that_it_listens_on() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert processes.listener(port) is None, "it does not listen yet"
        server.listen()
        assert processes.listener(port) == os.getpid()
        told = processes.servers(f"127.0.0.1:{port}", "http://127.0.0.1:1")
        assert told["broker"]() == pytest.approx(cpu_s_of(os.getpid())(), abs=0.5)
        assert told["clickhouse"]() == 0.0
    assert processes.per_event({"a": 1.0}, {"a": 3.0}, 1_000) == {"a": 2_000.0}


def test_slices_hold_the_whole_load_by_partition() -> None:
    settings = load.Load(events=8_000, keys=200, partitions=2)
    parts = steps.slices(settings, START_US)
    assert all(len(part.offsets) == steps.SLICE for part in parts)
    assert sum(len(part.offsets) for part in parts) > settings.events - 2 * steps.SLICE


def test_the_plain_agent_judges_one_event_at_a_time() -> None:
    judge, record = Judge(), b""
    for offset, event in enumerate(islice(load.events(load.Load(events=50, keys=1), START_US), 20)):
        request = Request(
            **{name: getattr(event, name) for name in ("key_id", "ts_us", "client_ip", "path", "outcome")}
        )
        before = record
        record, _ = judge.judge(request, offset, record)
        assert record != before


def test_progress_says_where_events_are_that_are_not_done() -> None:
    told = parse(
        'keywatch_events_consumed_total{topic="t"} 10.0\nkeywatch_events_duplicate_total 1.0\n'
        'keywatch_events_rejected_total{reason="future"} 2.0\nkeywatch_events_rejected_total{reason="invalid"} 1.0\n'
        'keywatch_clickhouse_insert_rows_total{table="requests"} 6.0\n'
    )
    assert told.done == 6
    assert told.told == "read 10, taken for repeats 1, rejected 3, rows acknowledged 6"


def test_the_rows_of_one_log_are_counted_apart(clickhouse: ClickHouse) -> None:
    client = connect(clickhouse, clickhouse.database)
    try:
        for epoch, ids in (("one", ("a", "b", "b")), ("other", ("c",))):
            rows = [[epoch, 0, offset, request_id] for offset, request_id in enumerate(ids)]
            client.insert("requests", rows, ["epoch", "partition", "offset", "request_id"])
    finally:
        client.close()
    assert rows_of(clickhouse, "one") == (3, 2)
