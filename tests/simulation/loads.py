"""What is worked on in a simulation, and what must come out: one clean pass over the same log.

The counting core is for breadth (any lost or doubled effect is a wrong number), the real core for depth.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import msgspec

from pipeline.config.tree import ClickHouse, Config, Kafka, Worker
from pipeline.control.controls import Controls, Said
from pipeline.core import Core, Effects, Sides, Slice
from pipeline.flow import KeyCore
from pipeline.geo.provider import Place
from pipeline.partitioner import PARTITIONERS
from pipeline.records import of_records
from pipeline.state.recover import fill
from pipeline.topologies.core import TopologyCore
from schemas.control import Control, Verdict
from schemas.incident import Incident
from schemas.key import Key
from tests.pipeline import said
from tests.pipeline.counting_core import CountingCore
from tests.pipeline.log_of_requests import GEO, Declared, log
from tests.simulation.broker import Broker, Mark
from tests.simulation.process import TOPIC_EPOCH
from tests.simulation.schedule import SESSION_S, Load
from tests.simulation.tables import Tables

PARTITIONS: Final = 2
PLACES: Final = {"head_1m", "head_1h", "next"}
KAFKA: Final = Kafka(session_timeout_s=SESSION_S, heartbeat_s=1.0, partitions=PARTITIONS)
ROWS: Final = ClickHouse(insert_s=0.5, max_pending_rows=400)
COUNTING: Final = Config(kafka=KAFKA, clickhouse=ROWS, worker=Worker(checkpoint_s=1.0))
REAL: Final = Config(kafka=KAFKA, clickhouse=ROWS, worker=Worker(checkpoint_s=1.0, ticks=False))


class Version:
    """A catalogue of the counting core: only its version matters."""

    def __init__(self, number: int) -> None:
        self.version = f"v{number}"

    def get(self, key_id: str) -> Key | None:
        """Nobody is in it."""
        return None


def counting_load(rng: random.Random) -> Load:
    """Some 200 records of a few keys, now and then poison."""
    requests: list[tuple[int, bytes | None, bytes | None, int]] = []
    for number in range(rng.randrange(20, 300)):
        partition = rng.randrange(PARTITIONS)
        value = b"poison" if rng.random() < 0.03 else b"p%d-%d %d" % (partition, rng.randrange(12), number)
        requests.append((partition, None, value, number))
    return Load(COUNTING, PARTITIONS, requests, _counting_core, lambda version: Sides(Version(version), None, "0"))


def _counting_core(partition: int, config: Config, sides: Sides, epoch: str, partitions: int = 0) -> Core:
    return CountingCore(partition, config, sides, epoch)


class Moved:
    """A geo database of another build, in which everybody abroad is elsewhere."""

    build = "moved"

    def look_up(self, address: str) -> Place:
        """The shipped one's answer to another address."""
        return GEO.look_up("9.9.9.9" if address.startswith("185.") else address)


def sides_of(version: int, told: tuple[Incident, ...] = ()) -> Sides:
    """The catalogue's versions: owners and environments come and go; odd ones come with another geo database.

    With each version people have said one thing more about the incidents `told`, and about keys.
    """
    keys = [Key(key_id=f"pk_{n}", environment="live", owner=f"o{version}", version=version) for n in range(version % 4)]
    declared = Declared(keys)
    declared.version = f"v{version}"
    geo: Any = GEO if version % 2 == 0 else Moved()
    return Sides(declared, geo, "c1", said_by(version, told))


def said_by(version: int, told: tuple[Incident, ...]) -> Controls:
    """Feedback on each incident in turn, this way and that, and mutes that come and end."""
    words: list[Control] = []
    for number in range(version if told else 0):
        incident = told[number // 2 % len(told)]
        muted = said.mute(key_id=f"pk_{number % 3}", until=said.AT if number % 4 == 3 else said.LATER)
        verdict: Verdict = "malicious" if number % 6 == 2 else "expected"
        words.append(muted if number % 2 else said.feedback(incident, verdict))
    return Controls.of("said", [Said(seq, word) for seq, word in enumerate(words)], len(words))


@functools.lru_cache(8)
def incidents_of(seed: int) -> tuple[Incident, ...]:
    """What a pass that nobody says anything to would tell."""
    found: dict[str, Incident] = {}
    for number in range(PARTITIONS):
        core = KeyCore(number, REAL, sides_of(0), TOPIC_EPOCH, PARTITIONS)
        records = [record for record in _requests(seed) if record[0] == number]
        if records:
            offsets = range(len(records))
            _, keys, values, times = zip(*records, strict=True)
            effects = core.process(Slice("api.requests", number, offsets, keys, values, times))
            found |= {incident.incident_id: incident for incident in effects.incidents}
    return tuple(found[name] for name in sorted(found))


@functools.lru_cache(8)
def _requests(seed: int) -> list[tuple[int, bytes | None, bytes | None, int]]:
    home = PARTITIONERS["murmur2"]
    return [(home(key or b"", PARTITIONS), key, value, at_ms) for key, value, at_ms in log(seed, events=150)]


def real_load(rng: random.Random) -> Load:
    """A log with an attack, late and double events and junk; the product's own core."""
    seed = rng.randrange(6)
    told = incidents_of(seed)
    return Load(REAL, PARTITIONS, _requests(seed), KeyCore, lambda version: sides_of(version, told))


@dataclass
class Judged:
    """By which version of the side inputs each offset was judged, and whether it was more than one."""

    broker: Broker
    by: dict[tuple[int, int], str] = field(default_factory=dict)
    ambiguous: bool = False

    def watch(self, load_: Load) -> Load:
        """The same load, watched."""
        judged = self

        def open_core(*arguments: Any) -> Core:
            core: Core = load_.open_core(*arguments)
            process = core.process

            def watched(batch: Slice) -> Effects:
                judged.note(core, batch)
                return process(batch)

            core.process = watched  # type: ignore[method-assign]
            return core

        return Load(load_.config, load_.partitions, load_.requests, open_core, load_.sides_of)

    def note(self, core: Any, batch: Slice) -> None:
        """A slice is judged."""
        version = version_of(core)
        for offset in batch.offsets:
            if offset >= core.next_offset and self.by.setdefault((core.partition, offset), version) != version:
                self.by[core.partition, offset] = version
                self.ambiguous = True
                self.broker.repeated_with_other_words = True
                self.broker.tables.refuse_other_content = False


def version_of(core: Any) -> str:
    """Of the catalogue that it judges with; other topologies have only a geo database."""
    if isinstance(core, TopologyCore):
        return core._meta.geo
    return core.state.meta.catalogue if isinstance(core, KeyCore) else core._meta.catalogue


@dataclass
class Truth:
    """What a clean pass brings about."""

    incidents: dict[Mark, bytes] = field(default_factory=dict)
    rejects: dict[int, list[int]] = field(default_factory=dict)
    tables: Tables = field(default_factory=Tables)
    cores: dict[int, Core] = field(default_factory=dict)


def clean_pass(load_: Load, broker: Broker, judged: Judged) -> Truth:
    """One core per partition, in one slice for each version of the side inputs."""
    truth = Truth()
    for number, records in broker.requests.items():
        versions = [judged.by[number, record.offset] for record in records]
        core = load_.open_core(number, load_.config, load_.sides_of(int((versions or ["v0"])[0][1:])), TOPIC_EPOCH, 2)
        for version, run in groupby(zip(versions, records, strict=True), key=lambda pair: pair[0]):
            _take(truth, core.adopt(load_.sides_of(int(version[1:]))))
            some = of_records([record for _, record in run])
            effects = core.process(some.part("api.requests", number, 0, len(some)))
            truth.incidents |= {(i.incident_id, i.revision): msgspec.json.encode(i) for i in effects.incidents}
            truth.rejects.setdefault(number, []).extend(reject.offset for reject in effects.rejects)
            _take(truth, effects.rows)
        _take(truth, core.due_rows())
        last = version_of(restored(load_, broker, number))
        _take(truth, core.adopt(load_.sides_of(int(last[1:]))))  # after the last record
        truth.cores[number] = core
    return truth


def _take(truth: Truth, rows: dict[str, Any]) -> None:
    for table, columns in rows.items():
        truth.tables.apply(table, columns)


def assert_equal(load_: Load, broker: Broker, judged: Judged) -> None:
    """The world after a schedule is the clean pass's; where events were judged twice with other side inputs, only in
    what does not depend on them. What must hold of incidents then: test_side_inputs.py."""
    truth = clean_pass(load_, broker, judged)
    assert {n: len(records) for n, records in broker.requests.items() if records} == {
        n: offset for n, offset in broker.committed.items() if offset
    }
    assert _offsets(broker) == truth.rejects
    assert broker.tables.rows.get("requests", {}).keys() == truth.tables.rows.get("requests", {}).keys()
    if judged.ambiguous and load_.open_core is KeyCore:
        return
    assert broker.incidents == truth.incidents
    for table in (truth.tables.rows.keys() | broker.tables.rows.keys()) - {"adoptions", "controls"}:
        assert broker.tables.rows.get(table, {}) == truth.tables.rows.get(table, {}), table
    for number, core in truth.cores.items():
        assert_same_state(load_, broker, number, core)


def contents(rows: Any) -> list[bytes]:
    """An array's rows by content; which row of its pool a window got depends on where slices ended."""
    names = [name for name in rows.dtype.names if name not in PLACES]
    if "live" in names:
        rows = rows[rows["live"] == 1]
    columns = [[cell.tobytes() for cell in rows[name]] for name in names]
    found = [b"|".join(row) for row in zip(*columns, strict=True) if any(map(any, row))]
    return sorted(found) if "live" in names else found


def _offsets(broker: Broker) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {number: [] for number, records in broker.requests.items() if records}
    for key in broker.rejects:
        _, partition, offset = key.decode().rsplit("/", 2)
        found[int(partition)].append(int(offset))
    return {number: sorted(offsets) for number, offsets in found.items()}


def restored(load_: Load, broker: Broker, number: int) -> Core:
    """The core of a partition as the last checkpoint has it."""
    core = load_.open_core(number, load_.config, load_.sides_of(0), TOPIC_EPOCH, 2)
    fill(core, broker.state_of(number))
    return core


def told_by(core: Core) -> dict[str, Any]:
    """What is in no array, but for how often side inputs changed at one offset: none was judged with those between."""
    meta: dict[str, Any] = msgspec.msgpack.decode(core.meta())
    return {name: value for name, value in meta.items() if name != "again"}


def assert_same_state(load_: Load, broker: Broker, number: int, wanted: Any) -> None:
    """What the last checkpoint holds is what the clean pass's arrays hold."""
    core: Any = restored(load_, broker, number)
    assert told_by(core) == told_by(wanted)
    for mine, clean in zip(core.arrays, wanted.arrays, strict=True):
        told, true = (
            contents(each.state.source_texts.in_words(rows.data) if rows.name == "sources" else rows.data)
            for each, rows in ((core, mine), (wanted, clean))
        )
        assert told == true, f"partition {number}: {mine.name}"
    for blobs, clean_blobs in zip(core.blobs, wanted.blobs, strict=True):
        if blobs.name != "source_texts":  # which number a text has depends on where slices ended
            assert blobs.rows == clean_blobs.rows, blobs.name
