"""A worker that lets its partitions go leaves nothing that was judged, and perhaps told, outside a checkpoint.

Whoever owns them next may have other side inputs: what he judges again comes in other words (`pipeline/disown.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.simulation.loads import PARTITIONS, Judged, counting_load
from tests.simulation.process import Process
from tests.simulation.schedule import Schedule, scheduled


@contextmanager
def working(keeps: bool) -> Iterator[tuple[Schedule, Process, Judged]]:
    """A worker that has one slice of each partition in hand, whose effects wait, and another one behind it."""
    load = counting_load(random.Random(5))
    with scheduled(load) as schedule:
        judged = Judged(schedule.broker)
        schedule.load = judged.watch(load)
        schedule.do("produce", len(load.requests), 0)
        schedule.do("start", 0 if keeps else 1, 0)
        worker = schedule.processes[0]
        until(schedule, worker, lambda: worker.ready_for_rebalance)
        schedule.do("settle", 0, 0)
        until(schedule, worker, lambda: not worker.loading)
        for number in range(PARTITIONS):
            for _ in range(2):
                worker.fetch(number, 12)
                worker.step()
        yield schedule, worker, judged


def until(
    schedule: Schedule, worker: Process, done: Callable[[], bool], hold: str = "", fetching: bool = False
) -> None:
    """What is on its way happens, but what goes to `hold`; time passes. `fetching`: each slice has one behind it."""
    for _ in range(200):
        while not done() and (first := [op for op in worker.sent_first() if op.lane[0] != hold]):
            for number in worker.can_fetch() if fetching else ():
                worker.fetch(number, 3)
            schedule._happen(worker, first[0])
        if done():
            return
        schedule.do("passes", 0, 1)
    raise AssertionError("it does not come to that")


def let_go_without_a_checkpoint(schedule: Schedule, worker: Process) -> None:
    """The coordinator answers no commit in time; all that came was judged, and is not in the last checkpoint."""
    until(schedule, worker, lambda: not worker.pending)
    until(schedule, worker, lambda: not worker.shell.lag(), hold="commit", fetching=True)
    schedule.do("start", 0, 0)
    until(schedule, worker, lambda: worker.ready_for_rebalance, hold="commit")


def left(schedule: Schedule, judged: Judged) -> set[tuple[int, int]]:
    """(partition, offset) of what was judged and is in no checkpoint."""
    return {place for place in judged.by if place[1] >= schedule.broker.state_of(place[0]).next_offset}


@pytest.mark.parametrize("keeps", [True, False])
def test_what_was_fetched_is_not_judged_any_more_once_partitions_are_let_go(keeps: bool) -> None:
    with working(keeps) as (schedule, worker, judged):
        assert left(schedule, judged)
        schedule.do("start", 0, 0)
        until(schedule, worker, lambda: worker.ready_for_rebalance, fetching=True)
        until(schedule, worker, lambda: not worker.pending)
        assert judged.by
        assert not left(schedule, judged)


def test_a_stop_waits_for_the_end_of_a_rebalance() -> None:
    """Before that nothing is committed, so no checkpoint is taken of what one that came too late has left."""
    with working(keeps=True) as (schedule, worker, judged):
        let_go_without_a_checkpoint(schedule, worker)
        worker.stop()
        schedule.do("passes", 0, 10)
        assert worker.ended is None
        assert left(schedule, judged)
        other = schedule.processes[-1]
        until(schedule, other, lambda: other.ready_for_rebalance)
        schedule.do("settle", 0, 0)
        until(schedule, worker, lambda: worker.ended is not None)
        assert worker.clean
        assert not {place for place in left(schedule, judged) if place[0] in worker.assigned}


def test_a_stop_in_a_rebalance_that_does_not_end_is_no_clean_one() -> None:
    with working(keeps=True) as (schedule, worker, judged):
        let_go_without_a_checkpoint(schedule, worker)
        worker.stop()
        until(schedule, worker, lambda: worker.ended is not None, hold="commit")
        assert left(schedule, judged)
        assert worker.clean is False
