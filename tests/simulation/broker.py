"""Everything that outlives a process: Kafka's topics, the group's coordinator, ClickHouse's tables, the catalogue.

`tests/contracts/ports_contract.py` holds it to what the real ones do. Each method is one thing that happens at once;
when it happens, and whether its answer arrives, is decided in `process.py` and by the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.config.tree import Config
from pipeline.core import TICK_HEADER
from pipeline.ports import Headers
from pipeline.sinks.kafka import stage
from pipeline.state.recover import load
from schemas.incident import Incident
from tests.simulation.loop import Clock
from tests.simulation.tables import Tables

Mark = tuple[str, int]
"""(incident_id, revision)"""


@dataclass(slots=True)
class Record:
    """One record of the requests topic, as aiokafka shows it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Broker:
    """See the module."""

    config: Config
    clock: Clock
    partitions: int
    tables: Tables = field(default_factory=Tables)
    requests: dict[int, list[Record]] = field(default_factory=dict)
    pages: dict[int, dict[bytes, bytes]] = field(default_factory=dict)  # compacted
    page_ends: dict[int, int] = field(default_factory=dict)
    incidents: dict[Mark, bytes] = field(default_factory=dict)
    rejects: dict[bytes, bytes] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    catalogue: int = 0
    repeated_with_other_words: bool = False  # allowed: events were judged again with other side inputs

    def __post_init__(self) -> None:
        for number in range(self.partitions):
            self.requests[number], self.pages[number], self.page_ends[number] = [], {}, 0

    def produce(self, partition: int, key: bytes | None, value: bytes | None, timestamp_ms: int) -> None:
        """A request comes in."""
        log = self.requests[partition]
        log.append(Record(len(log), timestamp_ms, key, value))

    def publish(self, topic: str, key: bytes, value: bytes, headers: Headers, partition: int | None) -> int:
        """A record is appended; incidents and rejects are kept by id, and a repeat must be equal."""
        topics = self.config.topics
        if topic == topics.requests:
            log = self.requests[partition or 0]
            log.append(Record(len(log), int(self.clock.now_s * 1000), key, value, headers))
            assert headers[0][0] == TICK_HEADER
            return len(log) - 1
        if topic == topics.incidents:
            self._keep_incident(value)
        elif topic == topics.rejected:
            assert self.rejects.setdefault(key, value) == value, "a reject was told twice, with other words"
        self.others[topic] = self.others.get(topic, -1) + 1
        return self.others[topic]

    def _keep_incident(self, value: bytes) -> None:
        incident = msgspec.json.decode(value, type=Incident)
        mark = (incident.incident_id, incident.revision)
        same = self.incidents.setdefault(mark, value) == value
        assert same or self.repeated_with_other_words, f"{mark} was published twice, with other content"

    def newest_incidents(self) -> list[Incident]:
        """The highest revision of each."""
        newest: dict[str, Incident] = {}
        for (ident, revision), value in self.incidents.items():
            if ident not in newest or newest[ident].revision < revision:
                newest[ident] = msgspec.json.decode(value, type=Incident)
        return list(newest.values())

    def send(self, partition: int, key: bytes, value: bytes | None) -> int:
        """A page is appended."""
        stage(self.pages[partition], key, value)
        self.page_ends[partition] += 1
        return self.page_ends[partition] - 1

    def commit(self, offsets: Mapping[int, int]) -> None:
        """The coordinator takes the offsets of a member: never back, never beyond what a manifest includes."""
        for partition, offset in offsets.items():
            assert offset >= self.committed.get(partition, 0), "a commit went back"
            if offset != self.committed.get(partition, 0):
                covered = load(partition, self.pages[partition], None).next_offset
                assert offset <= covered, f"partition {partition}: {offset} committed, state includes {covered}"
            self.committed[partition] = offset

    def edges(self, partitions: list[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Starts and ends of the log."""
        return dict.fromkeys(partitions, 0), {number: len(self.requests[number]) for number in partitions}

    def state_of(self, partition: int) -> Any:
        """The newest checkpoint, verified."""
        return load(partition, self.pages[partition], self.committed.get(partition))
