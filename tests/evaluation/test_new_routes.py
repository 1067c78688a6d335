"""The oracle's ratio of new routes is one: untouched visits reach b bits in at most one of 2^b."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import new_routes, oracle, work
from pipeline.evaluation.run import BURN_IN_DAYS, Job
from pipeline.evaluation.world import CLASSES, DAY_US, START_US, US, VISIT_US, World
from tests.real_data import FOLDER, real

Array = np.ndarray[Any, Any]
KEYS, SEED, VISITS = 90, 6, 40
NOBODY = np.zeros(0, np.int64)


@cache
def lives() -> tuple[World, work.Lives]:
    real("weblog-elastic-apache")
    world = work.make_world(FOLDER, "development", KEYS, 45, SEED)
    return world, work.lives_of(Job(SEED, 0, 1, 1, (40.0,), 40.0, ("bulk_read",), 0), world)


@pytest.mark.parametrize("volume", range(3))
def test_untouched_visits_have_b_bits_of_new_routes_in_at_most_one_of_2_to_the_b(volume: int) -> None:
    world, mine = lives()
    rng = np.random.default_rng(1)
    most = []
    for key, known, calls in zip(world.keys, mine.known, mine.calls, strict=True):
        visit = calls["ts_us"] // VISIT_US
        first = np.unique(visit, return_index=True)[1]
        later = first[calls["ts_us"][first] >= START_US + BURN_IN_DAYS * DAY_US]
        if key.volume != volume or not len(later):
            continue
        for at in rng.choice(later, min(VISITS, len(later)), replace=False):
            who, his = oracle.settled(key, known, calls[:0], int(calls["ts_us"][at]))
            stretch = calls[at : np.searchsorted(visit, visit[at], side="right")]
            most.append(oracle.parts(who, his, world, stretch, NOBODY)["routes"].max())
    assert len(most) > 200, CLASSES[volume]
    for bits in range(2, 13, 2):
        due = len(most) * 2.0**-bits
        assert (np.array(most) >= bits).sum() <= due + 2 * np.sqrt(due) + 1, bits


def test_a_route_is_new_once_and_others_of_its_half_hour_or_days_are_told_apart() -> None:
    routes = new_routes.route([1, 2, 1, 3, 4, 5, 6], [200, 200, 200, 200, 404, 200, 200])
    first = new_routes.first_times(routes)
    assert first.tolist() == [True, True, False, True, True, True, True]
    at = START_US + np.array([0, 60, 120, 180, 3_600, 3_660, 400_000]) * US
    assert new_routes.states(at, at[first]).tolist() == [0, 4, 5, 5, 2, 6, 0]
    assert new_routes.states(at[:0], at[first]).tolist() == []


def test_what_a_key_may_ask_for_and_has_not_asked_for_so_far_is_new_to_the_oracle() -> None:
    """Its donors' lines, which nobody can know who sees requests."""
    world, mine = lives()
    checked = 0
    for key, known, calls in zip(world.keys, mine.known, mine.calls, strict=True):
        lines = [world.sources.donors[i] for i in key.donors]
        may = np.unique(np.concatenate([new_routes.route(each.operations, each.status) for each in lines]))
        sensitive = may[world.sources.sensitivity[may // 1_000] > 0]
        unseen = sensitive[~np.isin(sensitive, known.routes[:, 0])]
        if not len(calls) or not len(unseen):
            continue
        call = calls[-1:].copy()
        call["operation"], call["status"] = unseen[0] // 1_000, unseen[0] % 1_000
        late_us = int(call["ts_us"][0]) + 10 * DAY_US
        call["ts_us"] = late_us
        for his, new in ((calls[:0], True), (call, False)):
            who, settled = oracle.settled(key, known, his, late_us)
            assert (oracle.parts(who, settled, world, call, NOBODY)["routes"].max() > 0) == new
        checked += 1
    assert checked > 5


def test_a_new_route_among_many_speaks_for_the_owner_and_one_after_many_visits_without_for_another() -> None:
    world, mine = lives()
    key = next(key for key in world.keys if len(mine.calls[key.number]) > 400)
    calls, harmless = mine.calls[key.number][:400].copy(), np.flatnonzero(world.sources.sensitivity == 0)
    calls["ts_us"] = START_US + np.arange(400) * VISIT_US
    calls["operation"], calls["status"] = harmless[np.minimum(np.arange(400), 8)], 200
    found = new_routes.counted([key], world, [calls])
    among_many, after_many = found.of(key.volume, 5)[3, 0], found.of(key.volume, 200)[0, 0]
    assert among_many < -1
    assert after_many > 2
