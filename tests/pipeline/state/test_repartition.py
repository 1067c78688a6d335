"""Key records go out into a file and into other partitions: each key's own bit for bit, what is shared by a rule."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.errors import ConfigError, Fatal
from pipeline.flow import KeyCore, open_core
from pipeline.partitioner import PARTITIONERS
from pipeline.runners.import_state import survey, targets
from pipeline.state import keyfile
from pipeline.state.checkpoint import Checkpoint, Directory
from pipeline.state.keyfile import Batch, End, Frame, Header
from pipeline.state.manifest import describe
from pipeline.state.partition import SHARED
from pipeline.state.recover import fill, load
from pipeline.state.repartition import frames, layout, tables
from pipeline.state.shares import Part, combine, fields, rules
from schemas.rows import TABLES
from tests.pipeline.log_of_requests import GEO, HOUR_US, START_US, Declared, Outcome, Record, log, slices

MURMUR2 = PARTITIONERS["murmur2"]
files = itertools.count()


def open_all(partitions: int, epoch: str = "old") -> list[KeyCore]:
    sides = Sides(Declared(), GEO, "c1")
    return [open_core(p, Config(), sides, epoch, partitions) for p in range(partitions)]


def judge(cores: list[KeyCore], records: Iterable[Record], at: dict[int, int]) -> Outcome:
    """Each record on its key's partition, offsets from `at` on; everything that came of it."""
    outcome, parts = Outcome(), [list[Record]() for _ in cores]
    for record in records:
        parts[MURMUR2(record[0] or b"", len(cores))].append(record)
    for number, part in enumerate(parts):
        if part:
            for piece in slices(part, range(0, len(part), 97), at.get(number, 0)):
                outcome.take(cores[number].process(piece))
            at[number] = at.get(number, 0) + len(part)
        outcome.finish(cores[number].due_rows())
    return outcome


def header(partitions: int, epoch: str) -> Header:
    plain = tables()
    return Header(
        topic="api.requests", topic_id=epoch, partitions=partitions, partitioner="murmur2", group="g",
        layout=layout(plain), tables=plain,
    )  # fmt: skip


def written(cores: list[KeyCore], epoch: str, folder: Path) -> Path:
    path = folder / f"{next(files)}.state"

    def all_frames() -> Iterator[Frame]:
        yield header(len(cores), epoch)
        keys = 0
        for core in cores:
            for frame in frames(core.partition, recovered(core).state, 1, True):
                keys += len(frame.ids) if isinstance(frame, Batch) else 0
                yield frame
        yield End(keys=keys, partitions=len(cores))

    keyfile.write(path, all_frames())
    return path


def recovered(core: Any, epoch: str = "old", partitions: int = 0) -> KeyCore:
    """What a worker has after a restart."""
    writer = Checkpoint(0, epoch, 1, "me", Directory())
    again = open_core(getattr(core, "partition", 0), Config(), Sides(Declared(), GEO, "c1"), epoch, partitions)
    for array in core.arrays:
        array.dirty[:] = True
    for blobs in core.blobs:
        blobs.dirty.update(row // blobs.block_rows for row in blobs.rows)
    fill(again, load(0, dict(writer.draft(writer.plan(core, 1)).records()), None))
    return again


def move(cores: list[KeyCore], partitions: int, folder: Path, *, epoch: str = "old", to: str = "new") -> list[KeyCore]:
    """Export, import, restart. Offsets begin anew in another topic, and go on in the same one."""
    path = written(cores, epoch, folder)
    contents = survey(path, "murmur2", partitions)
    ends = {core.partition: max(core.next_offset, 0) for core in cores}
    offsets = {n: ends.get(n, 0) if to == epoch else 0 for n in range(partitions)}
    moved = []
    for number, holder in targets(path, contents, "murmur2", partitions, offsets, to):
        core = recovered(holder, to)
        core.partition = number
        moved.append(core)
    return moved


def records(cores: list[KeyCore]) -> dict[str, tuple[bytes, bytes, Any, Any]]:
    """Of every key: its own record, its book without the chains of windows, its identity, its open incident."""
    found: dict[str, tuple[bytes, bytes, Any, Any]] = {}
    for core in cores:
        state = core.state
        for key_id, slot in state.slots.items():
            book = state.book.data[slot : slot + 1].copy()
            book["head_1m"] = book["head_1h"] = 0
            own = state.keys.data[slot : slot + 1].tobytes()
            assert key_id not in found, "a key is in two partitions"
            found[key_id] = (own, book.tobytes(), state.identities.get(slot), state.open.get(slot))
    return found


def totals(cores: list[KeyCore]) -> np.ndarray[Any, Any]:
    """What the calibration has counted, all partitions together."""
    total: np.ndarray[Any, Any] = np.sum([core.state.shared.data["calibration"]["counts"][0] for core in cores], axis=0)
    return total


def windows(cores: list[KeyCore]) -> list[str]:
    """Open windows by key, without slots and chains."""
    found = []
    for core in cores:
        for pool in (core.state.minutes, core.state.hours, core.state.sources):
            rows = pool.rows[pool.rows["live"] == 1]
            for row in core.state.source_texts.in_words(rows) if pool is core.state.sources else rows:
                name = core.state.identities.key_ids[int(row["slot"])]
                plain = np.array([row])
                plain["slot"] = 0
                if "next" in (plain.dtype.names or ()):
                    plain["next"] = 0
                found.append(f"{name} {plain.tolist()}")  # fields: padding may differ
    return sorted(found)


@given(seed=st.integers(0, 50), n=st.integers(1, 6), m=st.integers(1, 9))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_there_and_back_keeps_every_keys_record_bit_for_bit(seed: int, n: int, m: int, tmp_path: Path) -> None:
    cores = open_all(n)
    judge(cores, log(seed, events=400, keys=25), {})
    before = records(cores)
    there = move(cores, m, tmp_path)
    for core in there:
        for key_id in core.state.slots:
            assert MURMUR2(key_id.encode(), m) == core.partition
    back = move(there, n, tmp_path, epoch="new", to="newer")
    assert records(there) == before == records(back)
    assert np.allclose(totals(back), totals(cores), rtol=1e-9, atol=0)


@given(seed=st.integers(0, 50), n=st.integers(1, 4))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_backup_that_goes_back_where_it_came_from_is_the_whole_state(seed: int, n: int, tmp_path: Path) -> None:
    cores = open_all(n)
    judge(cores, log(seed, events=400, keys=9), {})
    back = move(cores, n, tmp_path, to="old")
    assert records(back) == records(cores)
    assert windows(back) == windows(cores) != []
    for one, other in zip(cores, back, strict=True):
        assert other.state.shared.data["calibration"][0].tobytes() == one.state.shared.data["calibration"][0].tobytes()
        assert other.meta() == one.meta()


def test_what_is_judged_after_a_restore_is_what_would_have_been(tmp_path: Path) -> None:
    everything, at = log(5, events=1500, keys=9), dict[int, int]()
    half = len(everything) * 2 // 3
    cores = open_all(2)
    judge(cores, everything[:half], at)
    back, at_back = move(cores, 2, tmp_path, to="old"), dict(at)
    straight, restored = judge(cores, everything[half:], at), judge(back, everything[half:], at_back)
    assert straight.incidents
    assert restored.incidents == straight.incidents
    restored.rows.pop("adoptions", None)  # told again after a restart: rows that are there already
    straight.rows.pop("adoptions", None)
    assert restored.rows == straight.rows


def alone(key: str, seed: int) -> list[Record]:
    """One key's four days and its theft, under this name."""
    return [
        (key.encode(), (value or b"").replace(b'"pk_1"', b'"%s"' % key.encode()), at)
        for name, value, at in log(seed, events=600, keys=2)
        if name == b"pk_1"
    ]


def test_a_key_that_moved_gets_the_incidents_it_would_have_got(tmp_path: Path) -> None:
    """Bits, and with them the rule and the very second, may differ by what is shared; whether and when may not."""
    everything = sorted((r for k in range(8) for r in alone(f"key{k}", k)), key=lambda r: r[2])
    half = next(i for i, r in enumerate(everything) if r[2] * 1000 > START_US + 60 * HOUR_US)
    cores, at = open_all(3), dict[int, int]()
    judge(cores, everything[:half], at)
    moved = move(cores, 5, tmp_path)
    stayed, went = judge(cores, everything[half:], at), judge(moved, everything[half:], {})
    opened = {(x.key_id, x.opened_at[:16]) for x in stayed.incidents.values()}
    assert len({key for key, _ in opened}) == 8
    assert {(x.key_id, x.opened_at[:16]) for x in went.incidents.values()} == opened


def test_windows_that_are_open_at_the_move_add_up_over_their_parts(tmp_path: Path) -> None:
    everything, at = log(7, events=500, keys=9), dict[int, int]()
    cores, whole = open_all(2), open_all(2)
    truth = requests(judge(whole, everything, {}))
    cut = len(everything) // 2
    first = judge(cores, everything[:cut], at)
    second = judge(move(cores, 3, tmp_path), everything[cut:], {})
    both = requests(first)
    for key, count in requests(second).items():
        both[key] = both.get(key, 0) + count
    assert both == truth


def requests(outcome: Outcome) -> dict[tuple[str, str], int]:
    """Requests by key and minute, summed over parts as readers do."""
    column = [name for name, _ in TABLES["requests_1m"]].index("requests")
    found: dict[tuple[str, str], int] = {}
    for (key, start, _), row in outcome.rows["requests_1m"].items():
        found[key, start] = found.get((key, start), 0) + int(row[column])
    return found


def test_every_shared_field_has_a_rule() -> None:
    assert set(fields(SHARED)) == rules()


def test_a_file_that_is_cut_off_or_changed_anywhere_is_refused(tmp_path: Path) -> None:
    cores = open_all(2)
    judge(cores, log(1, events=200, keys=5), {})
    whole = written(cores, "old", tmp_path).read_bytes()
    path = tmp_path / "broken"
    for end in (*range(0, len(whole), 997), len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises((Fatal, ConfigError)):
            survey(path, "murmur2", 2)
    for at in range(len(keyfile.MAGIC), len(whole), 1009):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Fatal):
            survey(path, "murmur2", 2)


def test_an_older_layout_is_taken_over_by_name(tmp_path: Path) -> None:
    cores = open_all(1)
    judge(cores, log(1, events=200, keys=5), {})
    path = written(cores, "old", tmp_path)
    older = tmp_path / "older"

    def changed() -> Iterator[Frame]:
        keys = 0
        for frame in keyfile.read(path):
            if isinstance(frame, Header):
                book = np.dtype([("gone", "<f8"), *cores[0].state.book.dtype.descr])
                yield msgspec.structs.replace(frame, tables=frame.tables | {"book": describe(book)})
            elif isinstance(frame, Batch):
                rows = np.frombuffer(frame.book, cores[0].state.book.dtype)
                new = np.zeros(len(rows), book)
                for name in rows.dtype.names or ():
                    new[name] = rows[name]
                keys += len(frame.ids)
                yield msgspec.structs.replace(frame, book=new.tobytes())
            else:
                yield frame
        yield End(keys=keys, partitions=1)

    keyfile.write(older, changed())
    contents = survey(older, "murmur2", 1)
    ((_, holder),) = targets(older, contents, "murmur2", 1, {0: 0}, "new")
    assert records([recovered(holder, "new")]) == records(cores)


def test_a_file_is_for_its_owner_and_replaces_nothing(tmp_path: Path) -> None:
    path = written(open_all(1), "old", tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="exists"):
        keyfile.write(path, [End(keys=0, partitions=0)])
    assert list(tmp_path.glob("*.part")) == []


def test_a_partition_that_gets_no_key_begins_as_an_empty_one() -> None:
    target = np.zeros(1, SHARED)
    combine([], lambda source, number: -1, target)
    combine([Part(0, np.ones(1, SHARED)[0], 0.0)], lambda source, number: -1, target)
    assert not np.frombuffer(target.tobytes(), np.uint8).any()


def test_shared_knowledge_is_known_for_as_long_as_the_oldest_that_came() -> None:
    given, target = np.zeros(3, SHARED), np.zeros(1, SHARED)
    given["since_us"] = (0, 500, 300)  # 0: of a partition without an event
    combine([Part(i, given[i], 0.5) for i in range(3)], lambda source, number: -1, target)
    assert target["since_us"][0] == 300
