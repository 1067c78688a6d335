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


def test_a_route_is_new_once_and_others_of_its_visit_or_days_are_told_apart() -> None:
    calls = lives()[1].calls[1][:6].copy()
    calls["operation"], calls["status"] = [1, 2, 1, 3, 4, 5], 200
    calls["ts_us"] = START_US + np.array([0, 60, 120, 180, 3_600, 400_000]) * US
    first, had = new_routes.first_times(calls)
    assert first.tolist() == [True, True, False, True, True, True]
    assert had.tolist() == [0, 2, 2, 2, 1, 0]
    assert [len(each) for each in new_routes.first_times(calls[:0])] == [0, 0]


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
        for his, new in ((calls[:0], True), (call, False)):
            who, settled = oracle.settled(key, known, his, int(call["ts_us"][0]))
            assert (oracle.parts(who, settled, world, call, NOBODY)["routes"].max() > 0) == new
        checked += 1
    assert checked > 5


def test_who_brings_new_routes_in_the_first_visits_alone_has_more_bits_of_one_in_later_visits() -> None:
    world, mine = lives()
    key = next(key for key in world.keys if len(mine.calls[key.number]) > 400)
    calls = mine.calls[key.number][:400].copy()
    calls["ts_us"] = START_US + np.arange(400) * VISIT_US
    calls["operation"], calls["status"] = np.minimum(np.arange(400), 8), 200
    found = new_routes.counted([key], world, [calls])
    kind = world.sources.sensitivity[0]
    early, late, latest = (found.of(key.volume, visits)[0, kind, 0] for visits in (2, 50, 350))
    assert early == 0, "as frequent as an attack's"
    assert latest > late > 2
