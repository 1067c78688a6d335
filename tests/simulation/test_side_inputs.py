"""Side inputs that change behind a crash: what was published and is judged otherwise now is closed, never forgotten.

One worker at a time, so that nobody publishes who was thrown out of the group. KEYWATCH_SEED and KEYWATCH_SIMULATE_S as
in test_schedules.py.
"""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import pytest

from pipeline.core import Sides
from pipeline.flow import KeyCore
from schemas.incident import Incident
from schemas.key import Key
from tests.pipeline.log_of_requests import Declared
from tests.seeds import SEED, kept
from tests.simulation import loads
from tests.simulation.broker import Broker
from tests.simulation.loads import PARTITIONS, Judged, Truth, clean_pass, real_load, restored, told_by
from tests.simulation.schedule import Load, Schedule, scheduled
from tests.simulation.tables import Tables
from tests.simulation.topologies import topology_load

SECONDS: Final = float(os.environ.get("KEYWATCH_SIMULATE_S", "12"))
LEAST: Final = 12
Loads = Callable[[random.Random], Load]
FORTH: Final = {"run": 40, "fetch": 26, "passes": 14, "produce": 9, "settle": 7, "crash": 4, "declare": 4, "stop": 1}
BACK: Final = FORTH | {"crash": 6, "take_back": 4}


def sides_of(version: int) -> Sides:
    """Every other catalogue has a decoy among the keys in use, and comes with another geo database."""
    sides = loads.sides_of(version)
    declared = Declared([Key(key_id="pk_2", environment="live", decoy=version % 2 == 1, version=1)])
    declared.version = sides.catalogue.version
    return dataclasses.replace(sides, catalogue=declared)


def keys_load(rng: random.Random) -> Load:
    """The product's own core with these catalogues."""
    return dataclasses.replace(real_load(rng), sides_of=sides_of)


KINDS: Final[dict[str, tuple[Loads, dict[str, int]]]] = {
    "side-inputs": (keys_load, FORTH),
    "side-inputs-and-back": (keys_load, BACK),
    "side-inputs-sources": (partial(topology_load, "sources"), BACK),
    "side-inputs-lifecycle": (partial(topology_load, "lifecycle"), BACK),
}
"""By name in seeds.txt: what is worked on, and whether what is declared is also taken back."""


def run(kind: str, seed: int) -> Counter[str]:
    """One schedule, and what must hold at its end."""
    rng = random.Random(seed)
    make, weights = KINDS[kind]
    load = make(rng)
    with scheduled(load) as schedule:
        judged = Judged(schedule.broker)
        schedule.load = judged.watch(load)
        for name in rng.choices(list(weights), list(weights.values()), k=rng.randrange(100, 400)):
            if not schedule.processes:
                schedule.do("start", 0, 0)
            step(schedule, name, rng)
        for process in list(schedule.processes):
            schedule.crash(schedule.processes.index(process), 0)
        schedule.finish()
        seen = compare(load, schedule, clean_pass(load, schedule.broker, judged))
        seen["ambiguous"] = judged.ambiguous
    return seen


def step(schedule: Schedule, name: str, rng: random.Random) -> None:
    """What a worker that is gone has sent and got no answer to is lost."""
    if name == "crash":
        schedule.do(name, 0, 0)
        schedule.broker.repeated_with_other_words = False
    else:
        schedule.do(name, rng.randrange(64), rng.randrange(1, 12 if name == "run" else 64))
    schedule.late.clear()


def checkpointed(broker: Broker) -> list[bool]:
    """Whether each partition has a manifest."""
    return [broker.state_of(number).manifest is not None for number in range(PARTITIONS)]


def compare(load: Load, schedule: Schedule, truth: Truth) -> Counter[str]:
    """Each incident's newest message says what the clean pass's last one says, or closes what that does not know."""
    broker, seen = schedule.broker, Counter[str]()
    newest = {incident.incident_id: incident for incident in broker.newest_incidents()}
    wanted: dict[str, Incident] = {}
    for (ident, _), value in sorted(truth.incidents.items()):
        wanted[ident] = msgspec.json.decode(value, type=Incident)
    assert wanted.keys() <= newest.keys()
    for ident, incident in newest.items():
        seen[
            "orphans" if ident not in wanted else "higher" if incident.revision > wanted[ident].revision else "same"
        ] += 1
        if ident not in wanted or wanted[ident].state == "closed":
            assert incident.state == "closed", incident
        else:
            assert incident.state == "open", incident
        if ident in wanted and incident.state == "closed":
            assert msgspec.structs.replace(incident, revision=0) == msgspec.structs.replace(wanted[ident], revision=0)
    assert adoptions(broker.tables) == adoptions(truth.tables), "what a crash has undone is told of"
    rows = broker.tables.rows.get("incidents", {})
    assert {(ident, x.revision, x.state) for ident, x in newest.items()} == {
        (row["incident_id"], row["revision"], row["state"]) for row in rows.values()
    }
    cores: list[Any] = [restored(load, broker, number) for number in range(PARTITIONS)]
    open_ = {(x.incident_id, x.revision) for core in cores for x in open_in(core)}
    assert open_ == {(ident, x.revision) for ident, x in newest.items() if x.state == "open"}
    assert not any(told_by(core)["spent"] for core in cores)
    return seen


def open_in(core: Any) -> list[Incident]:
    """What the state takes for open."""
    if isinstance(core, KeyCore):
        return list(core.state.open.values())
    register = core.judge.episodes.register
    episodes = [register.get(name) for name in register]
    return [each.incident for each in episodes if each.incident.state == "open"]


def adoptions(tables: Tables) -> list[tuple[Any, ...]]:
    """Where each partition's side inputs change; there and back at one offset is no change."""
    changes: list[tuple[Any, ...]] = []
    rows = tables.rows.get("adoptions", {}).values()
    for each in sorted((row["partition"], row["input"], row["offset"], row["version_id"]) for row in rows):
        if not changes or changes[-1][:2] != each[:2] or changes[-1][3] != each[3]:
            changes.append(each)
    return changes


@pytest.mark.parametrize("kind", KINDS)
def test_no_incident_stays_open_that_the_changed_side_inputs_do_not_bring(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began, seed, seen = time.monotonic(), SEED * 1_000_000, Counter[str]()
    while time.monotonic() - began < SECONDS or seed - SEED * 1_000_000 < LEAST:
        try:
            seen.update(run(kind, seed))
        except BaseException:
            print(f"schedule {seed} failed: keep it in tests/seeds.txt as {kind}")  # noqa: T201
            raise
        seed += 1
    with capsys.disabled():
        print(f"\n{kind}, KEYWATCH_SEED={SEED}: {seed - SEED * 1_000_000} schedules; {dict(seen)}")  # noqa: T201
    assert seen["ambiguous"] and seen["same"] and seen["orphans"] + seen["higher"], "nothing was put to the test"


def open_ones(broker: Broker) -> set[str]:
    """Incidents that those who read the topic take for open."""
    return {each.incident_id for each in broker.newest_incidents() if each.state == "open"}


def until(schedule: Schedule, done: Callable[[], bool], fetch: bool = True) -> None:
    """The one worker does one thing after the other, as they were sent."""
    for _ in range(3_000):
        if done():
            return
        if not schedule.rebalancing and fetch:
            schedule.do("fetch", 0, 0)
            schedule.do("fetch", 0, 1)
        schedule.do("settle", 0, 0)
        schedule.do("run", 0, 1)
        schedule.do("passes", 0, 1)
    raise AssertionError("it does not come to that")


def started_with_a_decoy(schedule: Schedule, load: Load) -> Judged:
    """A worker of the catalogue with a decoy begins; what it judges is watched."""
    judged = Judged(schedule.broker)
    schedule.load, schedule.broker.catalogue = judged.watch(load), 1
    schedule.do("start", 0, 0)
    return judged


def opened_by_the_rest(schedule: Schedule, load: Load) -> set[str]:
    """All that is left of the log comes, until an incident of it is published."""
    schedule.do("produce", len(load.requests), 0)
    until(schedule, lambda: bool(open_ones(schedule.broker)))
    return open_ones(schedule.broker)


def test_what_others_side_inputs_have_closed_is_open_again_once_those_are_taken_back() -> None:
    """The one who closed it died before his manifest: the next finds a state that has adopted nothing else."""
    load = keys_load(random.Random(1))
    with scheduled(load) as schedule:
        broker, judged = schedule.broker, started_with_a_decoy(schedule, load)
        schedule.do("produce", 20, 0)
        until(schedule, lambda: all(checkpointed(broker)))
        published = opened_by_the_rest(schedule, load)
        schedule.do("crash", 0, 0)
        schedule.do("declare", 0, 0)
        schedule.do("start", 0, 0)
        until(schedule, lambda: not open_ones(broker) & published, fetch=False)
        schedule.do("crash", 0, 0)
        schedule.do("take_back", 0, 0)
        schedule.finish()
        compare(load, schedule, clean_pass(load, broker, judged))


def test_an_incident_of_a_worker_that_dies_in_its_first_second_is_closed_by_one_with_another_catalogue() -> None:
    """Nobody has checkpointed a slice yet: only what was written before the first one says that there is a past."""
    load = keys_load(random.Random(1))
    with scheduled(load) as schedule:
        broker, judged = schedule.broker, started_with_a_decoy(schedule, load)
        published = opened_by_the_rest(schedule, load)
        assert all(broker.state_of(number).next_offset < 0 for number in range(PARTITIONS))
        schedule.do("crash", 0, 0)
        schedule.do("declare", 0, 0)
        schedule.finish()
        compare(load, schedule, clean_pass(load, broker, judged))
        assert not open_ones(broker) & published


def test_closings_whose_rows_a_second_crash_has_lost_are_written_by_the_next_worker() -> None:
    """ClickHouse is away while a partition is loaded with another catalogue, and the worker dies before it is back."""
    load = keys_load(random.Random(1))
    with scheduled(load) as schedule:
        broker, judged = schedule.broker, started_with_a_decoy(schedule, load)
        published = opened_by_the_rest(schedule, load)
        schedule.do("crash", 0, 0)
        schedule.do("declare", 0, 0)
        schedule.do("start", 0, 0)
        schedule.do("settle", 0, 0)
        worker = schedule.processes[-1]
        for _ in range(300):
            for op in worker.sent_first():
                if op.lane[0] != "rows":
                    schedule._happen(worker, op)
            schedule.do("passes", 0, 1)
        assert not worker.loading, "it waits for ClickHouse"
        assert not open_ones(broker) & published
        schedule.do("crash", 0, 0)
        schedule.finish()
        compare(load, schedule, clean_pass(load, broker, judged))


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in KINDS for seed in kept(kind)])
def test_a_schedule_of_side_inputs_that_failed_once_goes_well(kind: str, seed: int) -> None:
    run(kind, seed)
