"""The same steps drawn by hypothesis, which shrinks a schedule that fails to the few steps that matter.

KEYWATCH_EXAMPLES says how many schedules; `make test KEYWATCH_SEED=n` chooses which, as for every test by hypothesis.
"""

from __future__ import annotations

import os
import random
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.simulation.loads import Judged, assert_equal, counting_load
from tests.simulation.schedule import scheduled

EXAMPLES: Final = int(os.environ.get("KEYWATCH_EXAMPLES", "40"))

numbers = st.integers(0, 63)
few = st.integers(1, 12)


class Workers(RuleBasedStateMachine):
    """Up to three workers with the counting core."""

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        """One worker."""
        self.load = counting_load(random.Random(seed))
        self.world = scheduled(self.load)
        self.schedule = self.world.__enter__()
        self.judged = Judged(self.schedule.broker)
        self.schedule.load = self.judged.watch(self.load)
        self.schedule.do("start", 0, 0)

    @rule(count=st.integers(1, 40))
    def requests_come_in(self, count: int) -> None:
        self.schedule.do("produce", count, 0)

    @rule(which=numbers, steps=few)
    def effects_happen(self, which: int, steps: int) -> None:
        self.schedule.do("run", which, steps)

    @rule(which=numbers, steps=few)
    def effects_happen_again(self, which: int, steps: int) -> None:
        self.schedule.do("run", which, steps)

    @rule(which=numbers, what=numbers)
    def an_effect_fails_before_or_after_it_happened(self, which: int, what: int) -> None:
        self.schedule.do("fail", which, what)

    @rule(which=numbers, how=numbers)
    def a_slice_is_fetched_or_lost_or_comes_twice(self, which: int, how: int) -> None:
        self.schedule.do("fetch", which, how)

    @rule(tenths=numbers)
    def time_passes(self, tenths: int) -> None:
        self.schedule.do("passes", 0, tenths)

    @rule(kind=numbers)
    def a_worker_starts(self, kind: int) -> None:
        self.schedule.do("start", kind, 0)

    @precondition(lambda self: self.schedule.rebalancing)
    @rule(turn=numbers)
    def a_rebalance_ends(self, turn: int) -> None:
        self.schedule.do("settle", turn, 0)

    @rule(which=numbers, sent=numbers)
    def a_worker_is_killed(self, which: int, sent: int) -> None:
        self.schedule.do("crash", which, sent)

    @precondition(lambda self: self.schedule.late)
    @rule()
    def what_a_dead_worker_sent_arrives(self) -> None:
        self.schedule.do("arrives", 0, 0)

    @rule(which=numbers)
    def a_worker_freezes_past_its_session(self, which: int) -> None:
        self.schedule.do("freeze", which, 0)

    @rule(which=numbers)
    def a_frozen_worker_comes_back(self, which: int) -> None:
        self.schedule.do("thaw", which, 0)

    @rule(which=numbers)
    def a_zombie_is_told(self, which: int) -> None:
        self.schedule.do("told", which, 0)

    @rule()
    def the_catalogue_changes(self) -> None:
        self.schedule.do("declare", 0, 0)

    @rule(which=numbers)
    def a_worker_is_stopped(self, which: int) -> None:
        self.schedule.do("stop", which, 0)

    @invariant()
    def no_commit_is_beyond_the_state(self) -> None:
        """What a worker that is assigned now would load: raises Fatal where it could not."""
        if hasattr(self, "schedule"):
            for number in range(self.load.partitions):
                self.schedule.broker.state_of(number)

    def teardown(self) -> None:
        """All is healed and worked off: the world is a clean pass's."""
        if hasattr(self, "schedule"):
            try:
                self.schedule.finish()
                assert_equal(self.load, self.schedule.broker, self.judged)
            finally:
                self.world.__exit__(None, None, None)


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=EXAMPLES, stateful_step_count=60)
