"""The watched keys' partitions are read from the confirmation on, and no others; what they show is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka import TopicPartition

from pipeline.respond.enforcement.proof import Enforcement, Verdict
from pipeline.respond.enforcement.witness import Witness
from schemas.event import Event
from tests.pipeline.respond.enforcement.test_proof import AFTER_S, SKEW_S, request, watch
from tests.pipeline.respond.incidents import NOW_S

TOPIC = "api.requests"


class Record(NamedTuple):
    offset: int
    timestamp: int  # ms
    key: bytes
    value: bytes


@dataclass
class Log:
    """Two partitions in memory, and a consumer of them as aiokafka's behaves."""

    records: dict[int, list[Record]] = field(default_factory=lambda: {0: [], 1: []})
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    handed_out: int = 0
    late: bool = False  # a broker that has not answered yet

    def append(self, event: Event, value: bytes | None = None) -> None:
        of = self.records[partition_of(event.key_id.encode())]
        body = msgspec.json.encode(event) if value is None else value
        of.append(Record(len(of), event.ts_us // 1000, event.key_id.encode(), body))

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.positions = {each: self.positions.get(each, 0) for each in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self.positions[partition]

    async def offsets_for_times(self, timestamps: dict[TopicPartition, int]) -> Mapping[TopicPartition, Any]:
        return {
            tp: next((each for each in self.records[tp.partition] if each.timestamp >= from_ms), None)
            for tp, from_ms in timestamps.items()
        }

    async def ends(self, partitions: list[int]) -> Mapping[int, int]:
        return {each: len(self.records[each]) for each in partitions}

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Sequence[Any]]:
        if self.late:
            return {}
        found = {tp: self.records[tp.partition][at:] for tp, at in self.positions.items()}
        for tp, records in found.items():
            self.positions[tp] += len(records)
            self.handed_out += len(records)
        return found


def partition_of(key: bytes) -> int:
    return 1 if key == b"far" else 0


@dataclass
class World:
    log: Log = field(default_factory=Log)
    enforcement: Enforcement = field(default_factory=lambda: Enforcement(SKEW_S))
    now_s: float = NOW_S
    told: list[Verdict] = field(default_factory=list)

    def witness(self) -> Witness:
        async def tell(verdict: Verdict) -> None:
            self.told.append(verdict)

        return Witness(self.log, TOPIC, partition_of, self.log.ends, self.enforcement, tell, lambda: self.now_s)

    @property
    def words(self) -> list[str]:
        return [verdict.word for verdict in self.told]


async def test_nothing_is_read_while_nothing_is_watched() -> None:
    world = World()
    world.log.append(request(AFTER_S))
    await world.witness().round()
    assert (world.log.handed_out, world.told) == (0, [])


async def test_reading_begins_at_the_confirmation_and_on_the_keys_partition_alone() -> None:
    world = World()
    for ago_s in (-3600.0, -60.0):
        world.log.append(request(ago_s))
    world.log.append(request(AFTER_S, key_id="far"))
    world.log.append(request(AFTER_S))
    world.enforcement.watch(watch())
    await world.witness().round()
    assert (world.log.handed_out, world.words) == (1, ["broken"])


async def test_a_key_watched_later_on_the_same_partition_does_not_miss_what_was_read_already() -> None:
    world = World()
    world.enforcement.watch(watch())
    witness = world.witness()
    await witness.round()
    world.log.append(request(AFTER_S, key_id="k2"))
    world.log.append(request(AFTER_S + 1))
    await witness.round()
    world.enforcement.watch(watch(response_id="r2", key_id="k2"))
    await witness.round()
    assert [(verdict.watch.key_id, verdict.word) for verdict in world.told] == [("k1", "broken"), ("k2", "broken")]


async def test_a_new_partition_is_added_without_losing_the_place_on_the_old_one() -> None:
    world = World()
    world.enforcement.watch(watch())
    witness = world.witness()
    world.log.append(request(AFTER_S, 403))
    await witness.round()
    world.enforcement.watch(watch(response_id="r2", key_id="far"))
    world.log.append(request(AFTER_S, key_id="far"))
    await witness.round()
    assert world.words == ["enforced", "broken"]
    assert world.log.handed_out == 2
    world.enforcement.ended("r1")
    world.enforcement.ended("r2")
    await witness.round()
    assert world.log.positions == {}


async def test_a_restarted_responder_sees_all_of_it_again() -> None:
    world = World()
    world.enforcement.watch(watch())
    world.log.append(request(AFTER_S))
    await world.witness().round()
    again = World(log=world.log)
    again.enforcement.watch(watch())
    await again.witness().round()
    assert [each.message_id for each in again.told] == [each.message_id for each in world.told]


async def test_what_the_ledger_has_in_force_is_watched_without_being_told_and_dropped_with_its_undo() -> None:
    world, in_force = World(), [watch()]

    async def tell(verdict: Verdict) -> None:
        world.told.append(verdict)

    log = world.log
    witness = Witness(
        log, TOPIC, partition_of, log.ends, world.enforcement, tell, lambda: world.now_s, lambda: in_force
    )
    log.append(request(AFTER_S))
    await witness.round()
    assert world.words == ["broken"]
    in_force.clear()
    await witness.round()
    assert (world.enforcement.watched(), log.positions) == ((), {})


async def test_silence_is_told_when_its_time_has_come() -> None:
    world = World()
    world.enforcement.watch(watch())
    witness = world.witness()
    await witness.round()
    world.now_s += 2000
    await witness.round()
    assert world.words == ["unproven"]


async def test_after_a_restart_nothing_is_called_unproven_before_the_log_is_read_to_where_it_ends_now() -> None:
    world = World()
    world.log.append(request(60.0, 403))
    world.now_s += 2000
    world.enforcement.watch(watch())
    witness = world.witness()
    late, world.log.late = world.log, True
    await witness.round()
    assert world.words == []
    late.late = False
    await witness.round()
    world.now_s += 10
    await witness.round()
    assert world.words == ["enforced"]


async def test_silence_before_records_that_are_not_read_yet_is_told_once_they_are_and_say_nothing() -> None:
    world = World()
    world.log.append(request(60.0, key_id="another"))
    world.enforcement.watch(watch())
    world.now_s += 2000
    witness = world.witness()
    world.log.late = True
    await witness.round()
    assert world.words == []
    world.log.late = False
    world.now_s += 10
    await witness.round()
    assert world.words == ["unproven"]


@pytest.mark.parametrize("value", [b"", b"no json", b"[]", b'{"key_id": "k1"}'])
async def test_a_record_that_is_no_event_is_passed_over(value: bytes) -> None:
    world = World()
    world.enforcement.watch(watch())
    world.log.append(request(AFTER_S), value)
    world.log.append(request(AFTER_S))
    await world.witness().round()
    assert world.words == ["broken"]
