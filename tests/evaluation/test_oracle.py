"""keybench's oracle is a likelihood ratio: innocent traffic has b bits of it in at most one of 2^b visits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import oracle, volume, work
from pipeline.evaluation.exceedance import BITS, Found, exceedance, table
from pipeline.evaluation.measures import share
from pipeline.evaluation.new_routes import NewRoutes, counted, route
from pipeline.evaluation.world import DAY_US, START_US, US, VISIT_US, World, history, starts
from tests.real_data import FOLDER, real

Array = np.ndarray[Any, Any]
KEYS, SEED = 60, 34


@cache
def world() -> World:
    real("weblog-elastic-apache")
    return work.make_world(FOLDER, "development", KEYS, 36, SEED)


@cache
def calls_of(key: int) -> Array:
    return history(world().keys[key], world(), np.random.default_rng([SEED, 5, key]))


@cache
def new_routes() -> NewRoutes:
    return counted(world().keys, world(), [calls_of(key) for key in range(KEYS)])


@cache
def known_of(key: int) -> oracle.Habits:
    return oracle.habits(world().keys[key], world(), calls_of(key), new_routes())


@cache
def judged() -> Found:
    keys = range(KEYS)
    return exceedance(world().keys, [known_of(k) for k in keys], world(), [calls_of(k) for k in keys], 12, SEED)


@pytest.mark.parametrize("part", [*oracle.PARTS, "sum"])
def test_innocent_visits_have_b_bits_in_at_most_one_of_2_to_the_b(part: str) -> None:
    mine = {group: each for group, each in judged().items() if group[2] == part}
    assert len(mine) == 9
    assert sum(len(most) for _, most in mine.values()) > 1_000
    for group, (keys, most) in mine.items():
        for bits in BITS:
            found = share(keys.tolist(), (most >= bits).astype(np.float64))
            assert found["low"] <= 2.0**-bits, (group, bits, "\n".join(table(judged())))


@pytest.mark.parametrize("key", range(9))
def test_the_law_of_volume_holds_on_lives_that_it_was_not_made_from(key: int) -> None:
    rng = np.random.default_rng([1, key])
    lives = [starts(world().keys[key], world(), rng, known_of(key).calls_a_day) for _ in range(6)]
    for law, spans in ((known_of(key).visit, volume.VISIT_SPANS_S), (known_of(key).long, volume.LONG_SPANS_S)):
        counts = [
            np.concatenate([volume.within(each, span / 3600, 36 - (spans[-1] - span) / 86_400) for each in lives])
            for span in spans
        ]
        said = law.bits(np.stack(counts, axis=1).astype(np.float64))
        for bits in (3, 6, 9):
            assert (said >= bits).sum() <= 3 + 3 * len(said) * 2.0**-bits, (spans, bits)


def test_innocent_newcomers_have_b_bits_of_context_in_at_most_one_of_2_to_the_b_visits_beside_the_owner() -> None:
    """Planted is what a new place or client does within three days, the owner's is the rest."""
    most, visits = [], 0
    for number in range(KEYS):
        key, calls = world().keys[number], calls_of(number)
        first = np.unique(calls["ts_us"] // VISIT_US, return_index=True)[1]
        visits += len(first)
        homes, clients = set(key.homes.tolist()), set(key.clients.tolist())
        for at in first:
            place, client = int(calls["place"][at]), int(calls["client"][at])
            if place not in homes or client not in clients:
                stretch = calls[at : np.searchsorted(calls["ts_us"], calls["ts_us"][at] + 3 * DAY_US)]
                mine = np.zeros(len(stretch), np.bool_)
                mine |= (stretch["place"] == place) & (place not in homes)
                mine |= (stretch["client"] == client) & (client not in clients)
                settled = replace(key, homes=np.array(sorted(homes)), clients=np.array(sorted(clients)))
                owner_us = stretch["ts_us"][~mine]
                said = oracle.parts(settled, known_of(number), world(), stretch[mine], owner_us)
                most.append(float(said["context"].max()))
            homes.add(place)
            clients.add(client)
    assert visits > 20_000
    assert len(most) >= 15
    for bits in range(2, 16):
        due = visits * 2.0**-bits
        assert (np.array(most) >= bits).sum() <= due + 2 * np.sqrt(due) + 1, bits


@pytest.mark.parametrize("key", range(9))
def test_what_the_owner_had_until_a_time_is_what_his_calls_until_then_have(key: int) -> None:
    calls, nobody = calls_of(key), calls_of(key)[:0]
    rng = np.random.default_rng([2, key])
    for at in [0, len(calls), *rng.integers(0, len(calls) + 1, 20).tolist()]:
        until_us = int(calls["ts_us"][at]) if at < len(calls) else int(calls["ts_us"].max(initial=0)) + 1
        by_calls = oracle.settled(world().keys[key], known_of(key), calls[calls["ts_us"] < until_us], 0)
        by_habits = oracle.settled(world().keys[key], known_of(key), nobody, until_us)
        assert by_habits[0].homes.tolist() == by_calls[0].homes.tolist()
        assert by_habits[0].clients.tolist() == by_calls[0].clients.tolist()
        assert by_habits[1].own.tolist() == by_calls[1].own.tolist()


def planted(gap_s: float, count: int) -> Array:
    calls = np.repeat(calls_of(1)[:1], count)
    calls["ts_us"] = START_US + 20 * DAY_US + (np.arange(count) * gap_s * US).astype(np.int64)
    return calls


@pytest.mark.parametrize("key", range(6))
def test_more_calls_or_faster_ones_have_no_fewer_bits_of_volume(key: int) -> None:
    nobody = np.zeros(0, np.int64)

    def said(calls: Array) -> Array:
        return oracle.parts(world().keys[key], known_of(key), world(), calls, nobody)["volume"]

    slow, fast = said(planted(5.0, 400)), said(planted(0.5, 400))
    assert (np.diff(slow) >= 0).all()
    assert (fast >= slow).all()
    assert fast[-1] > 30, "what never comes innocently is seen"


def test_an_owner_s_own_calls_have_no_bits_of_routes_and_a_new_refused_deletion_has() -> None:
    scene, nobody = calls_of(1)[-20:].copy(), np.zeros(0, np.int64)
    until_us = int(scene["ts_us"][-1]) + 1
    key, known = oracle.settled(world().keys[1], known_of(1), scene[:0], until_us)
    assert np.isin(route(scene["operation"], scene["status"]), known.own).all()
    assert oracle.parts(key, known, world(), scene, nobody)["routes"].max() == 0
    deletions = world().sources.by_sensitivity[2]
    new = deletions[~np.isin(route(deletions, 403), known.own)]
    scene["operation"][5], scene["status"][5] = new[0], 403
    assert oracle.parts(key, known, world(), scene, nobody)["routes"][5] > 3
    key, known = oracle.settled(world().keys[1], known_of(1), scene[5:6], until_us)
    assert oracle.parts(key, known, world(), scene, nobody)["routes"].max() == 0, "its owner did so once"


def test_another_place_counts_once_and_another_client_each_time_the_owner_was_there() -> None:
    """A place again only in a half hour in which the owner calls between."""
    key, known = world().keys[1], known_of(1)
    calls = planted(3_600.0, 4)
    calls["place"], calls["client"] = key.homes[0], key.clients[0]
    abroad, swapped = calls.copy(), calls.copy()
    foreign = ~np.isin(world().words.network(np.arange(world().words.siblings)), world().words.network(key.homes))
    abroad["place"] = np.flatnonzero(foreign)[0]
    family = world().words.clients["client"]
    swapped["client"] = np.flatnonzero(~np.isin(family, family[key.clients]))[0]
    owner_us = calls["ts_us"] + 1_830 * US
    at_home, once, again = (oracle.parts(key, known, world(), c, owner_us)["context"] for c in (calls, abroad, swapped))
    assert at_home.max() == 0
    assert once[0] > 4
    assert once[-1] == once[0]
    assert np.allclose(again, again[0] * np.arange(1, 5))
    quick = abroad.copy()
    quick["ts_us"] = calls["ts_us"][0] + np.array([0, 20, 40, 60]) * US
    between = calls["ts_us"][0] + np.array([10, 30, 50]) * US
    beside = oracle.parts(key, known, world(), quick, between)["context"]
    assert np.allclose(beside, once[0] * np.array([1, 2, 2, 2]))
