"""Everything at once: under continuous load each fault there is, in random order, while catalogue and geo database
change and people give feedback and mute; afterwards tables (FINAL), incidents, decisions and audit equal a clean run's,
offsets are at the log's end and no worker took more memory than it may.

KEYWATCH_SEED chooses order and moments, KEYWATCH_FAULTS how many faults there are (`make test-faults`: all, twice, with
a generated load and with real logs). After each of KEYWATCH_KILLS kills what is committed is looked at (`covered.py`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.kafka import cluster, topics
from tests.kafka.conftest import long
from tests.kafka.covered import Covered
from tests.kafka.deployment import pid_of
from tests.kafka.loads import HISTORY
from tests.kafka.orchestrator import Orchestrator, under_load
from tests.kafka.outside import AWAY_S, Outside
from tests.kafka.recovery import reached
from tests.kafka.whole import Whole
from tests.seeds import SEED, kept

pytestmark = pytest.mark.kafka

FAULTS: Final = int(os.environ.get("KEYWATCH_FAULTS", "0"))
KILLS: Final = int(os.environ.get("KEYWATCH_KILLS", "20"))
FEW_KILLS: Final = 3
BACKLOG_S: Final = 10.0 * cluster.SLOWER
FEW_RECORDS: Final = 10
"""In each round, where a clean run goes along that takes a record at a time."""
_number = itertools.count()


class Breaker:
    """The faults, each a method."""

    def __init__(self, whole: Whole, fleet: Orchestrator, nodes: cluster.Cluster) -> None:
        self.whole, self.fleet, self.nodes, self.rng = whole, fleet, nodes, whole.rng
        self.swaps = 0
        self.next_node = itertools.cycle(self.rng.sample(nodes.nodes, len(nodes.nodes)))

    def worker_dies(self) -> None:
        self.fleet.kill_one(self.rng)

    def worker_freezes(self) -> None:
        """Past its session: it comes back as a zombie."""
        frozen = pid_of(self.rng.choice(self.fleet.running()))
        os.kill(frozen, signal.SIGSTOP)
        time.sleep(self.whole.config.kafka.session_timeout_s + 2.0)
        os.kill(frozen, signal.SIGCONT)

    def worker_is_replaced(self) -> None:
        self.all_ready()
        self.fleet.replace_one()

    def fleet_grows_is_replaced_and_shrinks(self) -> None:
        """1 to 3, each of the three is replaced (a rolling restart), and back to 1."""
        before = self.fleet.wanted
        self.all_scale(1)
        self.all_scale(3)
        for _ in range(3):
            self.fleet.replace_one()
            self.all_ready()
        self.all_scale(1)
        self.all_scale(before)

    def clock_steps(self) -> None:
        """A worker's, by an hour."""
        self.all_ready()
        self.whole.step_clock(self.fleet.running()[-1], self.rng.choice((-3_600, 3_600)))

    def responder_dies(self) -> None:
        os.kill(pid_of(self.whole.responder), signal.SIGKILL)
        self.whole.responder.wait(10)
        self.whole.start_responder()

    def broker_dies(self) -> None:
        """One after the other, so that the group's coordinator and the controller are among three of them."""
        node = next(self.next_node)
        node.kill()
        time.sleep(6.0 * cluster.SLOWER)
        node.start()
        self.nodes.wait()

    def clickhouse_is_away(self) -> None:
        self.whole.outside.stop()
        time.sleep(AWAY_S)
        self.whole.outside.start()

    def clickhouse_is_slow_and_fails_after_it_applied(self) -> None:
        self.whole.outside.spoil(["503", "500-after-apply", "timeout"])
        self.whole.outside.freeze(True)
        time.sleep(3.0)
        self.whole.outside.freeze(False)

    def changelog_takes_nothing(self) -> None:
        """One of the replicas that it asks for is missing; the other topics are content with two."""
        kafka, pages = self.whole.config.kafka, self.whole.config.topics.pages
        asyncio.run(topics.configure(kafka, pages, cleanup_policy="compact", min_insync_replicas="3"))
        self.broker_dies()
        asyncio.run(topics.configure(kafka, pages, cleanup_policy="compact"))

    def changelog_refuses_pages(self) -> None:
        """Too large, it says: workers end, and those that come after them; it is mended while none runs."""
        kafka, pages = self.whole.config.kafka, self.whole.config.topics.pages
        refused = f"pages were not written to {pages}: MessageSizeTooLarge"
        before = self.count_that_said(refused)
        asyncio.run(topics.configure(kafka, pages, cleanup_policy="compact", max_message_bytes="300"))
        self.whole.wait(lambda: self.count_that_said(refused) > before, "a worker ends")
        wanted = self.all_die()
        asyncio.run(topics.configure(kafka, pages, cleanup_policy="compact"))
        self.fleet.wanted = wanted

    def a_backlog_waits(self) -> None:
        """All workers are killed and nobody is there for a while."""
        wanted = self.all_die()
        time.sleep(BACKLOG_S)
        self.fleet.wanted = wanted

    def catalogue_changes(self) -> None:
        self.all_judged()
        self.whole.declare_anew()

    def people_speak(self) -> None:
        """Feedback, and a mute of a decoy."""
        self.all_judged()
        self.whole.speak()

    def geo_database_is_swapped(self) -> None:
        """With a clean stop, as the runbook says."""
        self.all_judged()
        wanted, self.swaps = self.fleet.wanted, self.swaps + 1
        self.fleet.scale(0)
        assert not self.whole.unsaved(), "a clean stop has left incidents outside a checkpoint"
        self.whole.swap_geo(self.swaps)
        self.fleet.wanted = wanted
        self.whole.wait(lambda: len(self.fleet.running()) == wanted, "started")
        self.all_ready()

    def all_die(self) -> int:
        """By SIGKILL, and none is started: how many were wanted is given back."""
        wanted, self.fleet.wanted = self.fleet.wanted, 0
        while self.fleet.running():
            with suppress(FileNotFoundError, ProcessLookupError):  # one has ended just now
                self.fleet.kill_one(self.rng)
        return wanted

    def count_that_said(self, words: str) -> int:
        """Of all workers that there have been."""
        return sum(words in self.whole.log_of(worker) for worker in list(self.whole.workers))

    def all_scale(self, wanted: int) -> None:
        """To so many workers, all of them loaded."""
        self.all_ready()
        self.fleet.scale(wanted)
        self.all_ready()

    def all_ready(self) -> None:
        """Before that a worker may be stopped by a signal that it does not handle yet; one that ends is replaced."""
        self.whole.wait(self._all_loaded, "all loaded")

    def all_judged(self) -> None:
        """All that a dead worker may have published is judged again with the side inputs of its time.

        With others it comes again in other words, above revisions that a clean run does not have: what must hold then
        is the simulation's part (test_side_inputs.py).
        """
        self.all_ready()
        ends = self.whole.ends()
        self.whole.wait(lambda: reached(self.whole.committed(), ends), "all judged")

    def _all_loaded(self) -> bool:
        running = self.fleet.running()
        loaded = ["next offset" in self.whole.log_of(worker) for worker in running]
        return len(running) == self.fleet.wanted and all(loaded)


FEW: Final = ("worker_dies", "catalogue_changes", "people_speak", "responder_dies", "geo_database_is_swapped")
ALL: Final = tuple(name for name in vars(Breaker) if not name.startswith(("_", "all_", "count_")))


@pytest.fixture
def whole(three: cluster.Cluster, outside: Outside, tmp_path: Path) -> Iterator[Callable[..., Whole]]:
    made: list[Whole] = []

    def make(runner: str, seed: int, real_logs: bool = False) -> Whole:
        name = f"whole{next(_number)}-{runner}-{seed}"
        made.append(Whole(three.brokers, name, tmp_path / "whole", runner))
        made[-1].prepare(outside, random.Random(seed), real_logs)
        return made[-1]

    yield make
    for each in made:
        each.kill_all()


def run(whole: Whole, nodes: cluster.Cluster, faults: tuple[str, ...]) -> None:
    """These faults in random order under load, then the end of it."""
    order = list(faults)
    whole.rng.shuffle(order)
    whole.produce(HISTORY)
    whole.start_responder()
    with under_load(whole, 2) as fleet:
        breaker = Breaker(whole, fleet, nodes)
        whole.wait(lambda: bool(whole.committed()), "first commit")
        for name in order:
            time.sleep(whole.rng.uniform(0.0, 4.0))
            with fleet.fault(name.replace("_", " ")):
                getattr(breaker, name)()
            whole.note_memory()
        breaker.all_ready()
        whole.wait(lambda: whole.produced > HISTORY + 400, "some decoys are touched")
    end(whole)


def run_kills(whole: Whole, nodes: cluster.Cluster, kills: int) -> None:
    """Kills of workers, and now and then of the responder; what is committed is looked at after each."""
    whole.produce(HISTORY)
    covered = Covered(whole)
    whole.start_responder()
    with under_load(whole, 2, FEW_RECORDS) as fleet:
        breaker = Breaker(whole, fleet, nodes)
        whole.wait(lambda: bool(whole.committed()), "first commit")
        for number in range(kills):
            time.sleep(whole.rng.uniform(0.5, 7.0))  # in recovery, at work, in a rebalance, in a checkpoint
            with fleet.fault("kill -9, all looked at"):
                breaker.responder_dies() if number % 3 == 2 else breaker.worker_dies()
            covered.check()
            whole.note_memory()
    end(whole, covered)


def end(whole: Whole, covered: Covered | None = None) -> None:
    whole.wait_session_over()
    last = whole.start()
    whole.wait_ready(last)
    whole.wait_drained()
    whole.note_memory()
    assert whole.stop(last) == 0, whole.log_of(last)
    whole.wait_responder()
    assert whole.stop(whole.responder) == 0
    if covered is not None:
        covered.check_all()
    whole.assert_all_as_if_nothing_had_happened()


def test_after_a_few_faults_all_of_the_product_is_as_if_nothing_had_happened(
    three: cluster.Cluster, whole: Callable[..., Whole]
) -> None:
    run(whole("faust", SEED), three, FEW)


@pytest.mark.timeout(900)  # the clean run beside it takes a record at a time
def test_after_each_of_a_few_kills_all_that_is_committed_is_as_if_nothing_had_happened(
    three: cluster.Cluster, whole: Callable[..., Whole]
) -> None:
    """With real logs for its load."""
    run_kills(whole("faust", SEED, real_logs=True), three, FEW_KILLS)


@long
@pytest.mark.parametrize("seed", [SEED, *kept("covered")])
@pytest.mark.parametrize("runner", ["faust", "plain"])
def test_after_each_kill_all_that_is_committed_is_as_if_nothing_had_happened(
    three: cluster.Cluster, whole: Callable[..., Whole], runner: str, seed: int
) -> None:
    run_kills(whole(runner, seed), three, KILLS)


@long
@pytest.mark.parametrize("seed", [SEED, *kept("whole")])
@pytest.mark.parametrize("runner", ["faust", "plain"])
@pytest.mark.parametrize("real_logs", [False, True], ids=["generated", "real"])
def test_after_every_fault_all_of_the_product_is_as_if_nothing_had_happened(
    three: cluster.Cluster, whole: Callable[..., Whole], runner: str, seed: int, real_logs: bool
) -> None:
    faults = ALL * 2 if not FAULTS else (ALL * (1 + FAULTS // len(ALL)))[:FAULTS]
    run(whole(runner, seed, real_logs), three, faults)
