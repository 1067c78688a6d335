"""In the middle of faults: what the commit covers is there, as a clean run gives it, and nothing is there that a clean
run does not give sooner or later.

The clean run goes along, a record at a time, so it knows every content that a row ever has. Of each row (`FINAL`, by
its table's own key, of which the part is one) the newest that the commit covers must be there, or a later one of the
clean run's; so with incidents on their topic. Of incidents that the responder's commit covers, too, its decisions are a
clean responder's; and what the audit's commit covers is in ClickHouse as on the topic. Side inputs stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pipeline.column import join_rows
from pipeline.core import Core, Rows
from pipeline.flow import open_core
from pipeline.records import of_records
from pipeline.sinks.connect import connect
from pipeline.sinks.group import committed_offsets
from pipeline.sinks.topics import topic_id
from schemas.incident import Incident
from tests.kafka.deployment import read_topic
from tests.kafka.outside import WORKERS
from tests.kafka.whole import Whole, decided

TOLD: Final = "told"
"""A database whose tables keep every content of a row."""
Row = tuple[str, int, int]
"""Its key, its version, and a hash of all that stands in it."""


@dataclass
class Judged:
    """What one record of the log brings about."""

    partition: int
    offset: int
    rows: tuple[Rows, ...]
    incidents: list[Incident]


@dataclass
class Covered:
    """Made before the first worker starts; `check` at any moment."""

    whole: Whole
    _cores: dict[int, Core] = field(default_factory=dict)
    _read: dict[int, int] = field(default_factory=dict)  # partition -> offset after the last record
    _ahead: list[Judged] = field(default_factory=list)  # no commit has covered it yet
    _contents: dict[str, dict[tuple[str, int], int]] = field(default_factory=lambda: {name: {} for name in WORKERS})
    _newest: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in WORKERS})  # versions
    _incidents: list[Incident] = field(default_factory=list)

    def __post_init__(self) -> None:
        outside, kafka = self.whole.outside, self.whole.config.kafka
        self._epoch = self.whole.run(topic_id(kafka, self.whole.config.topics.requests))
        self._told = msgspec.structs.replace(outside.clean, database=TOLD)
        self._client = connect(outside.clean, None)
        self._client.command(f"CREATE DATABASE IF NOT EXISTS {TOLD}")
        for name in WORKERS:
            self._client.command(f"DROP TABLE IF EXISTS {TOLD}.{name}")
            self._client.command(f"CREATE TABLE {TOLD}.{name} AS clean.{name} ENGINE = MergeTree ORDER BY tuple()")
        sql = "SELECT name, sorting_key, engine_full FROM system.tables WHERE database = 'clean'"
        self._keys = {
            name: (key, (re.findall(r"^ReplacingMergeTree\((\w+)\)", engine) or ["0"])[0])
            for name, key, engine in outside.query(sql)
        }
        self._sides = self.whole.sides_now()

    def check(self) -> None:
        """First the commits are asked for, then what came out, then the log."""
        whole, outside, topics = self.whole, self.whole.outside, self.whole.config.topics
        committed, handled, loaded = whole.committed(), self._commit(".respond"), self._commit(".respond-audit")
        found = self._rows(outside.config.database)
        audit = {tuple(at): body for *at, body in outside.query("SELECT partition, offset, body FROM responses FINAL")}
        responses = whole.responses(whole.config)
        published = whole.run(read_topic(whole.config, topics.incidents))
        self._judge(whole.run(read_topic(whole.config, topics.requests, self._read)))
        self._cover(committed)
        ahead = self._write(self._ahead)
        for name in WORKERS:
            known = {*self._contents[name].values(), *(content for *_, content in ahead[name])}
            assert_covered(name, self._newest[name], known, found[name])
        self._compare_incidents(published)
        self._compare_decisions(published, handled, responses)
        told = {(each.partition, each.offset): each.value.decode() for each in responses}
        due = {at: body for at, body in told.items() if at[1] < loaded.get(at[0], 0)}
        assert due.items() <= audit.items() <= told.items(), "the audit in ClickHouse is not the topic's"

    # --- the clean run

    def _judge(self, records: list[Any]) -> None:
        """One record at a time."""
        for record in records:
            number = record.partition
            if number not in self._cores:
                of = self.whole.config, self._sides, self._epoch, self.whole.partitions
                self._cores[number] = open_core(number, *of)
            core = self._cores[number]
            effects = core.process(of_records([record]).part("", number, 0, 1))
            self._ahead.append(Judged(number, record.offset, (effects.rows, core.due_rows()), effects.incidents))
            self._read[number] = record.offset + 1

    def _cover(self, committed: dict[int, int]) -> None:
        """These offsets are covered now."""
        now = [each for each in self._ahead if each.offset < committed.get(each.partition, 0)]
        self._ahead = [each for each in self._ahead if each.offset >= committed.get(each.partition, 0)]
        for name, rows in self._write(now).items():
            for key, version, content in rows:
                known = self._contents[name].setdefault((key, version), content)
                assert known == content, f"{name}: a clean run gives {key} two contents of version {version}"
                self._newest[name][key] = max(self._newest[name].get(key, 0), version)
        self._incidents += [incident for each in now for incident in each.incidents]

    # --- ClickHouse

    def _write(self, judged: list[Judged]) -> dict[str, list[Row]]:
        """All contents of rows that these records bring about, as ClickHouse has them."""
        by_table = {name: [rows[name] for each in judged for rows in each.rows if name in rows] for name in WORKERS}
        rows = {name: join_rows(columns) for name, columns in by_table.items() if columns}
        for name in rows:
            self._client.command(f"TRUNCATE TABLE {TOLD}.{name}")
        self.whole.outside.write_clean(rows, self._told)
        return self._rows(TOLD, rows)

    def _rows(self, database: str, names: Collection[str] = WORKERS) -> dict[str, list[Row]]:
        """Of all tables in one query: a look takes seconds where the machine is busy."""
        found: dict[str, list[Row]] = {name: [] for name in WORKERS}
        final = "" if database == TOLD else "FINAL"
        parts = [
            f"SELECT '{name}', toString(tuple({key})), toUInt64({version}), cityHash64(toString(tuple(*)))"
            f" FROM {database}.{name} {final}"
            for name, (key, version) in self._keys.items() if name in names
        ]  # fmt: skip
        for name, *row in self._client.query(" UNION ALL ".join(parts)).result_rows if parts else ():
            found[name].append(tuple(row))
        return found

    # --- comparisons

    def _compare_incidents(self, published: list[Any]) -> None:
        found = {record.value for record in published}
        covered = set(map(msgspec.json.encode, self._incidents))
        ahead = {msgspec.json.encode(incident) for each in self._ahead for incident in each.incidents}
        lost, strange = covered - found, found - covered - ahead
        assert not lost, f"{len(lost)} incidents are missing that the commit covers, as {min(lost)!r}"
        assert not strange, f"{len(strange)} incidents that a clean run never tells, as {min(strange)!r}"

    def _compare_decisions(self, published: list[Any], handled: dict[int, int], responses: list[Any]) -> None:
        truth = self.whole.decide_clean(self._incidents)
        seen = [
            msgspec.json.decode(record.value, type=Incident)
            for record in published
            if record.offset < handled.get(record.partition, 0)
        ]
        marks = {(each.incident_id, each.revision) for each in seen}
        made = decided(responses)
        covered = {mark[:2] for mark in truth}
        lost = {mark for mark in truth if mark[:2] in marks} - made
        strange = {mark for mark in made if mark[:2] in covered} - truth
        assert not lost, f"{len(lost)} decisions are missing that the responder's commit covers, as {min(lost)}"
        assert not strange, f"{len(strange)} decisions that a clean responder does not make, as {min(strange)}"

    def _commit(self, group: str) -> dict[int, int]:
        """Of the responder's group with this name's end, on what it reads."""
        topics = self.whole.config.topics
        kafka = msgspec.structs.replace(self.whole.config.kafka, group=self.whole.prefix + group)
        topic = topics.incidents if group == ".respond" else topics.responses
        return {number: at or 0 for number, at in self.whole.run(committed_offsets(kafka, topic)).items()}

    def check_all(self) -> None:
        """At the end: nothing is left that no commit covers."""
        self.check()
        self._client.close()
        assert not self._ahead, f"{len(self._ahead)} records are not covered at the end"


def assert_covered(name: str, newest: dict[str, int], known: set[int], found: list[Row]) -> None:
    """`newest`: key -> version that must be there, or a later one; `known`: all contents that a clean run gives."""
    versions = {key: version for key, version, _ in found}
    assert len(versions) == len(found), f"{name}: a key stands in two rows"
    strange = [key for key, _, content in found if content not in known]
    lost = [key for key, version in newest.items() if versions.get(key, -1) < version]
    assert not strange, f"{name}: {len(strange)} rows that a clean run never has, as {strange[:3]}"
    assert not lost, f"{name}: {len(lost)} rows are missing or old that the commit covers, as {lost[:3]}"
