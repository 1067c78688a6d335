"""The observer's ratio of new routes is one: untouched visits reach b bits in at most one of 2^b."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import oracle, work
from pipeline.evaluation.oracle import perhaps, settled
from pipeline.evaluation.run import BURN_IN_DAYS, Job
from pipeline.evaluation.world import CLASSES, DAY_US, START_US, US, VISIT_US, World
from tests.evaluation import observer
from tests.real_data import FOLDER, real

Array = np.ndarray[Any, Any]
KEYS, SEED, VISITS = 90, 6, 40


@cache
def lives() -> tuple[World, work.Lives]:
    real("weblog-elastic-apache")
    world = work.make_world(FOLDER, "development", KEYS, 45, SEED)
    return world, work.lives_of(Job(SEED, 0, 1, 1, (40.0,), 40.0, ("bulk_read",), 0), world)


@cache
def watcher() -> observer.Observer:
    world, mine = lives()
    return observer.observer_of(world.keys, world, mine.calls)


@pytest.mark.parametrize("volume", range(3))
def test_untouched_visits_have_b_bits_of_new_routes_in_at_most_one_of_2_to_the_b(volume: int) -> None:
    world, mine = lives()
    rng = np.random.default_rng(1)
    most = []
    for key, known, calls in zip(world.keys, mine.known, mine.calls, strict=True):
        visit = calls["ts_us"] // VISIT_US
        first = np.unique(visit, return_index=True)[1]
        later = np.flatnonzero(calls["ts_us"][first] >= START_US + BURN_IN_DAYS * DAY_US)
        if key.volume != volume or not len(later):
            continue
        for number in rng.choice(later, min(VISITS, len(later)), replace=False):
            at = first[number]
            who, seen = settled(key, observer.seen(known), calls[:0], int(calls["ts_us"][at]))
            stretch = calls[at : np.searchsorted(visit, visit[at], side="right")]
            most.append(perhaps(watcher().routes(who, seen, world, stretch, int(number))).max())
    assert len(most) > 200, CLASSES[volume]
    for bits in range(2, 13, 2):
        due = len(most) * 2.0**-bits
        assert (np.array(most) >= bits).sum() <= due + 2 * np.sqrt(due) + 1, bits


def test_a_route_is_news_once_and_the_second_of_a_half_hour_is_told_apart() -> None:
    calls = lives()[1].calls[1][:5].copy()
    calls["operation"], calls["status"] = [1, 2, 1, 3, 4], 200
    calls["ts_us"] = START_US + np.array([0, 60, 120, 180, 3_600]) * US
    first, had = observer.news(calls)
    assert first.tolist() == [True, True, False, True, True]
    assert had.tolist() == [False, True, True, True, False]


def test_what_a_key_has_not_asked_for_so_far_is_news_to_the_observer_and_none_to_the_oracle() -> None:
    world, mine = lives()
    checked = 0
    for key, known, calls in zip(world.keys, mine.known, mine.calls, strict=True):
        unseen = known.own[~np.isin(known.own, known.routes[:, 0])]
        unseen = unseen[world.sources.sensitivity[unseen // 1_000] > 0]
        if not len(calls) or not len(unseen):
            continue
        call = calls[-1:].copy()
        call["operation"], call["status"] = unseen[0] // 1_000, unseen[0] % 1_000
        for habits, news in ((known, False), (observer.seen(known), True)):
            who, his = settled(key, habits, calls[:0], int(call["ts_us"][0]))
            by_oracle = oracle.parts(who, his, world, call, np.zeros(0, np.int64))["routes"].max()
            by_observer = watcher().routes(who, his, world, call, 500).max()
            assert (by_observer > 0) == news
            assert news or by_oracle == 0
        checked += 1
    assert checked > 5
