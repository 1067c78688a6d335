"""ClickHouse away, slow and failing after it applied, clock steps, poison in every field, a backlog: with the real core
and ClickHouse the tables (FINAL) and incidents are those of one clean pass over the log."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import msgspec
import pytest

from pipeline.runners.ending import EXIT_FATAL
from schemas.event import Event
from tests.kafka.comparison import at_the_end, compare_tables, finish_tables, stop_all
from tests.kafka.conftest import either_runner, long
from tests.kafka.deployment import DRAIN_S, Deployment, pid_of, produce, read_topic
from tests.kafka.outside import AWAY_S, Outside
from tests.kafka.recovery import reached, until_caught_up
from tests.pipeline.log_of_requests import START_US, Record, log, record
from tests.seeds import SEED

pytestmark = pytest.mark.kafka

BACKLOG: Final = int(os.environ.get("KEYWATCH_BACKLOG", "12000"))
IDS: Final = int(os.environ.get("KEYWATCH_IDS", "100000"))
FLOOD_S: Final = IDS / 500
"""So slow a worker would be stuck."""
REBALANCING: Final = "because it is rebalancing"
"""What aiokafka says when a heartbeat tells it so."""
MOST_KEYS: Final = 10_000
DAY_S: Final = 86_400


@either_runner
def test_clickhouse_away_slow_and_failing_after_it_applied_changes_nothing(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    """Detection goes on meanwhile: incidents come out while no row can be written."""
    deployment = deploy_real(runner)
    records = log(SEED, events=2_000)
    first, second = 2 * len(records) // 5, 9 * len(records) // 10  # the attack lies between them
    produce(deployment, records[:first])
    worker = deployment.start()
    deployment.wait_drained()
    outside.stop()
    before, away_s = incidents_of(deployment), time.monotonic()
    produce(deployment, records[first:second])
    time.sleep(AWAY_S)
    deployment.wait(lambda: incidents_of(deployment) > before, "an incident while ClickHouse is away")
    outside.start()
    with until_caught_up(deployment, "ClickHouse is away", away_s):
        deployment.wait_drained()
    slow_s = time.monotonic()
    outside.spoil(["503", "500-after-apply", "timeout", "500-after-apply", "503"])
    produce(deployment, records[second:])
    outside.freeze(True)
    time.sleep(4.0)
    outside.freeze(False)
    with until_caught_up(deployment, "ClickHouse hangs, and fails after it applied", slow_s):
        deployment.wait_drained()
    compare_tables(deployment, outside, worker)


@pytest.mark.parametrize("runner", ["faust", "plain"])
def test_a_stop_whose_last_checkpoint_is_held_up_outlasts_a_rebalance(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    """ClickHouse hangs, a worker is to stop, and before it has written all another one is gone."""
    deployment, records = deploy_real(runner), log(SEED + 11, events=1_500)
    produce(deployment, records[:750])
    dies, stops = deployment.start(), deployment.start()
    deployment.wait_ready(dies)
    deployment.wait_ready(stops)
    deployment.wait_drained()
    outside.freeze(True)
    produce(deployment, records[750:])
    os.kill(pid_of(dies), signal.SIGKILL)
    os.kill(pid_of(stops), signal.SIGTERM)
    deployment.wait(lambda: REBALANCING in deployment.log_of(stops), "it hears of the rebalance")
    outside.freeze(False)
    assert stops.wait(DRAIN_S) == 0, deployment.log_of(stops)
    worker = deployment.start()
    deployment.wait_drained()
    compare_tables(deployment, outside, worker)


def incidents_of(deployment: Deployment) -> int:
    return len(deployment.run(read_topic(deployment.config, deployment.config.topics.incidents)))


@either_runner
def test_workers_whose_clocks_are_wrong_by_a_day_or_in_1970_change_nothing(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    """In 1970 is a machine without a battery until NTP has reached it."""
    deployment = deploy_real(runner)
    records = log(SEED + 1, events=1_000)
    third = len(records) // 3
    for number, shift_s in enumerate((DAY_S, -2 * DAY_S, -time.time())):
        produce(deployment, records[number * third : (number + 1) * third])
        deployment.environment["KW_CLOCK_S"] = str(shift_s)
        worker = deployment.start()
        deployment.wait_ready(worker)
        deployment.wait_drained()
        assert deployment.stop(worker) == 0, deployment.log_of(worker)
    finish_tables(deployment, outside)


@either_runner
def test_a_flood_after_hours_of_quiet_is_judged_as_in_one_pass(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    """Nothing for nine hours of the log's time, and then 4,000 events of six keys within two seconds of it."""
    deployment = deploy_real(runner)
    records = log(SEED + 10, events=1_000)
    produce(deployment, records)
    worker = deployment.start()
    deployment.wait_ready(worker)
    deployment.wait_drained()
    begin_us = records[-1][2] * 1_000 + 9 * 3_600_000_000
    burst = [Event(key_id=f"pk_{n % 6}", ts_us=begin_us + n * 500, client_ip="8.8.8.8", method="GET", path="/v1/things",
                   status=200, outcome="success", request_id=f"b{n}") for n in range(4_000)]  # fmt: skip
    with until_caught_up(deployment, "a flood after hours of quiet"):
        produce(deployment, map(record, burst))
        deployment.wait_drained()
    compare_tables(deployment, outside, worker)


@either_runner
def test_a_running_workers_clock_that_steps_forth_and_back_changes_nothing(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    """Timers and sessions run on: nothing of ours, Faust's or aiokafka's waits for the wall clock."""
    deployment = deploy_real(runner)
    records = log(SEED + 4, events=1_500)
    worker = deployment.start()
    deployment.wait_ready(worker)
    for part, step_s in enumerate((DAY_S, -2 * DAY_S, DAY_S + 3_600, 0)):
        produce(deployment, records[part * len(records) // 4 : (part + 1) * len(records) // 4])
        deployment.step_clock(worker, step_s)
        with until_caught_up(deployment, "the worker's clock steps"):
            deployment.wait_drained()
    compare_tables(deployment, outside, worker)


@either_runner
def test_a_gateways_clock_that_steps_forth_and_back_changes_nothing(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    """Two hours ahead, then right again: what comes then is late until time has caught up, and stays accounted for."""
    deployment = deploy_real(runner)
    records = log(SEED + 5, events=1_500)
    third = len(records) // 3
    stepped = [ahead(each, 7_200) for each in records[third : 2 * third]]
    worker = deployment.start()
    for part in (records[:third], stepped, records[2 * third :]):
        produce(deployment, part)
        with until_caught_up(deployment, "the gateway's clock steps by two hours"):
            deployment.wait_drained()
    compare_tables(deployment, outside, worker)
    late = sum(row[0] for row in outside.query("SELECT late FROM requests FINAL"))
    assert late > 10


def ahead(sent: Record, by_s: int) -> Record:
    """The same record from a gateway whose clock is ahead, as its producer's is, which is on the same machine."""
    key, value, timestamp_ms = sent
    try:
        event = msgspec.json.decode(value or b"", type=Event)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return sent
    later = msgspec.structs.replace(event, ts_us=event.ts_us + by_s * 1_000_000)
    return key, msgspec.json.encode(later), timestamp_ms + by_s * 1_000


def poison(rng: random.Random, number: int) -> Record:
    """A good event with one field that is none: another type, a huge or odd value, or something no JSON has."""
    event = json.loads(record(Event(key_id="pk_0", ts_us=START_US + number, request_id=f"p{number}"))[1] or b"")
    field = rng.choice([each.name for each in msgspec.structs.fields(Event)])
    event[field] = rng.choice(
        [None, -1, 2**70, 1e308, "", "x" * 70_000, [], {}, True, "\ud800", "\x00", "nan", ["a"] * 9, {"a": {"b": [[]]}}]
    )
    return b"pk_0", json.dumps(event).encode(), START_US // 1000


@either_runner
def test_poison_in_every_field_loses_nothing_of_the_good_events(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    deployment = deploy_real(runner)
    rng, records = random.Random(SEED), log(SEED + 2, events=1_000)
    for number in range(300):
        records.insert(rng.randrange(len(records)), poison(rng, number))
    produce(deployment, records)
    finish_tables(deployment, outside)
    told = deployment.run(read_topic(deployment.config, deployment.config.topics.rejected))
    assert len({each.key for each in told}) > 50


@either_runner
def test_a_flood_of_poison_stops_the_worker_before_it_commits_it_and_is_worked_off_once_it_may_be(
    deploy_real: Callable[..., Deployment], outside: Outside, runner: str
) -> None:
    deployment = deploy_real(runner, max_reject_run=500)
    records = log(SEED + 8, events=1_000)
    half = len(records) // 2
    produce(deployment, records[:half])
    produce(deployment, [(b"pk_0", b"not json %d" % n, START_US // 1000) for n in range(2_000)])
    worker = deployment.start()
    assert worker.wait(DRAIN_S) == EXIT_FATAL, deployment.log_of(worker)
    assert "is a producer sending another format?" in deployment.log_of(worker)
    assert sum(deployment.committed().values()) <= half + 500
    deployment.settings |= {"max_reject_run": 5_000, "max_reject_ratio": 1.0}
    produce(deployment, records[half:])
    finish_tables(deployment, outside)


@long
@either_runner
def test_a_backlog_is_worked_off_within_bounded_memory(
    deploy_real: Callable[..., Deployment], outside: Outside, capsys: pytest.CaptureFixture[str], runner: str
) -> None:
    deployment = deploy_real(runner, slice_events=1000)
    records = log(SEED + 3, events=BACKLOG, keys=40)
    produce(deployment, records)
    began = time.monotonic()
    with until_caught_up(deployment, f"a backlog of {len(records)}, from the worker's start"):
        worker = deployment.start()
        deployment.wait_drained()
    took_s, memory_mb = time.monotonic() - began, deployment.most_memory_mb(worker)
    with capsys.disabled():
        print(f"\nbacklog of {len(records)}: start to its end {took_s:.1f} s, {memory_mb:.0f} MB at most")  # noqa: T201
    compare_tables(deployment, outside, worker)


def flood(ids: int) -> Iterator[Record]:
    """Each event is another key's, and authenticated: every one of them gets state."""
    for number in range(ids):
        ts_us = START_US + number * 1_000
        yield record(
            Event(
                key_id=f"flood_{number}", ts_us=ts_us, client_ip="8.8.8.8", method="GET", path="/v1/things", status=200,
                outcome="success", request_id=f"f{number}",
            )
        )  # fmt: skip


@long
@pytest.mark.timeout(6_000)
@either_runner
def test_a_flood_of_distinct_key_ids_is_judged_and_written_within_bounded_memory(
    deploy_real: Callable[..., Deployment], outside: Outside, capsys: pytest.CaptureFixture[str], runner: str
) -> None:
    """Once each partition has all the keys that it may have, more of them take nothing more."""
    deployment = deploy_real(runner, slice_events=1_000, max_keys_per_partition=MOST_KEYS)
    worker = deployment.start()
    deployment.wait_ready(worker)
    began_s, records, used_mb = time.monotonic(), flood(IDS), list[float]()
    first = max(5 * MOST_KEYS, IDS // 4)
    for ids in (first, IDS - first):
        for begin in range(0, ids, 20_000):
            produce(deployment, islice(records, min(20_000, ids - begin)))
        with until_caught_up(deployment, f"{ids} distinct key ids", began_s):
            deployment.wait(lambda: reached(deployment.committed(), deployment.ends()), "drained", FLOOD_S)
        used_mb.append(deployment.memory_mb(worker))
    with capsys.disabled():
        print(f"\n{IDS} distinct key ids: after {first} and all of them {used_mb} MB")  # noqa: T201
    assert used_mb[1] < used_mb[0] + 64
    stop_all(deployment, worker)
    at_the_end(deployment)
    assert outside.query("SELECT count(), uniqExact(key_id) FROM requests FINAL") == [(IDS, IDS)]
    assert outside.query("SELECT count() FROM evictions FINAL")[0][0] >= IDS - 4 * MOST_KEYS
