"""Workers under random schedules of faults: afterwards incidents, rows, state and offsets are those of one clean pass.

KEYWATCH_SEED chooses the first schedule, KEYWATCH_SIMULATE_S how many seconds are spent on each core. Seeds that
failed once are in tests/seeds.txt and always run.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest

from tests.seeds import SEED, kept
from tests.simulation.loads import Judged, assert_equal, counting_load, real_load
from tests.simulation.schedule import Load, Schedule, scheduled

SECONDS: Final = float(os.environ.get("KEYWATCH_SIMULATE_S", "12"))
LOADS: Final[dict[str, Callable[[random.Random], Load]]] = {"counting": counting_load, "real": real_load}
LEAST: Final = {"counting": 60, "real": 12}
WEIGHTS: Final = {
    "run": 40, "fetch": 26, "passes": 14, "produce": 9, "settle": 7, "fail": 4, "start": 3, "crash": 2, "freeze": 2,
    "thaw": 2, "told": 2, "arrives": 2, "declare": 1, "stop": 1,
}  # fmt: skip
MOST_AT_ONCE: Final = 12
"""So many effects happen in one step at most."""


def run(core: str, seed: int) -> Schedule:
    """One schedule and its end."""
    rng = random.Random(seed)
    load = LOADS[core](rng)
    with scheduled(load) as schedule:
        judged = Judged(schedule.broker)
        schedule.load = judged.watch(load)
        schedule.do("start", 0, 0)
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for name in rng.choices(names, weights, k=rng.randrange(30, 250)):
            schedule.do(name, rng.randrange(64), rng.randrange(1, MOST_AT_ONCE if name == "run" else 64))
        schedule.finish()
        assert_equal(load, schedule.broker, judged)
        schedule.seen["ambiguous"] = judged.ambiguous
    return schedule


@pytest.mark.parametrize("core", LOADS)
def test_whatever_happens_all_ends_as_if_nothing_had(core: str, capsys: pytest.CaptureFixture[str]) -> None:
    began, seed, seen = time.monotonic(), SEED * 1_000_000, Counter[str]()
    while time.monotonic() - began < SECONDS or seed - SEED * 1_000_000 < LEAST[core]:
        try:
            seen.update(run(core, seed).seen)
        except BaseException:
            print(f"schedule {seed} of the {core} core failed: keep it in tests/seeds.txt")  # noqa: T201
            raise
        seed += 1
    done = seed - SEED * 1_000_000
    with capsys.disabled():
        rate = 60 * done / (time.monotonic() - began)
        print(f"\n{core} core, KEYWATCH_SEED={SEED}: {done} schedules, {rate:,.0f} a minute; {dict(seen)}")  # noqa: T201
    assert set(seen) >= {"crashed", "frozen", "zombies", "lost", "twice", "failed after", "arrived late", "stopped"}


@pytest.mark.parametrize(("core", "seed"), [(core, seed) for core in LOADS for seed in kept(f"schedules-{core}")])
def test_a_schedule_that_failed_once_goes_well(core: str, seed: int) -> None:
    run(core, seed)
