"""Where keybench's stories are placed: in keys with a past, beside an owner who calls where the story is about him."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation import placing, work
from pipeline.evaluation.attacks import ATTACKS
from pipeline.evaluation.innocents import INNOCENTS
from pipeline.evaluation.run import FRESH, Job, Placement
from pipeline.evaluation.world import DAY_US, START_US, VISIT_US, World
from tests.real_data import FOLDER, real

Array = np.ndarray[Any, Any]
KEYS, SEED = 30, 8
JOB = Job(SEED, 0, 1, 40, (20.0, 40.0), 40.0, (*ATTACKS, *INNOCENTS), 40)


@cache
def lives() -> tuple[World, work.Lives]:
    real("weblog-elastic-apache")
    world = work.make_world(FOLDER, "development", KEYS, 60, SEED)
    return world, work.lives_of(JOB, world)


@cache
def planned() -> list[Placement]:
    world, mine = lives()
    return placing.plan(JOB, world, mine.mine, mine.calls)


def calls_before_and_in(placement: Placement) -> tuple[Array, Array]:
    """Times of the key's untouched calls before the placement, and in it but for its last half day."""
    at = lives()[1].calls[placement.key]["ts_us"]
    end_us = placement.start_us + int((placement.days - placing.MARGIN_DAYS) * DAY_US)
    return at[at < placement.start_us], at[(at >= placement.start_us) & (at < end_us)]


def test_a_story_is_told_of_a_key_that_was_used_before_but_for_those_that_begin_anew() -> None:
    silent = [each for each in planned() if each.scenario not in FRESH and not len(calls_before_and_in(each)[0])]
    assert len(planned()) > 1_500
    assert not silent


@pytest.mark.parametrize("name", sorted(placing.VISITS))
def test_where_a_story_is_about_its_owner_he_calls_in_its_days(name: str) -> None:
    mine = [calls_before_and_in(each)[1] for each in planned() if each.scenario == name]
    assert len(mine) >= 40
    assert min(len(np.unique(at // VISIT_US)) for at in mine) >= placing.VISITS[name]


def test_an_innocent_story_needs_its_owner_as_much_as_an_attack_beside_him() -> None:
    assert set(placing.VISITS) >= set(INNOCENTS)
    assert {"leaked_abroad", "impossible_travel", "client_swap"} <= set(placing.VISITS)


def test_keys_of_few_calls_are_attacked_as_often_as_others_however_rarely_they_are_used() -> None:
    assert {placement.volume for placement in planned()} == {0, 1, 2}
    for name in placing.VISITS:
        counts = Counter(placement.volume for placement in planned() if placement.scenario == name)
        assert min(counts.values()) >= sum(counts.values()) / 8, (name, counts)


def test_a_story_lies_within_the_days_after_everybody_s_burn_in_and_has_its_key_s_class() -> None:
    world, _ = lives()
    for placement in planned():
        day = (placement.start_us - START_US) / DAY_US
        assert min(placing.FIRST_DAY, world.days - placement.days - 1) <= day <= world.days - placement.days
        assert placement.volume == world.keys[placement.key].volume


def test_what_all_keys_meet_together_begins_within_four_days() -> None:
    days = [(each.start_us - START_US) // DAY_US for each in planned() if each.scenario in placing.TOGETHER]
    assert max(days) - min(days) <= 3


def test_the_headline_strength_has_all_placements_others_a_third_and_innocents_one_strength() -> None:
    counts = Counter((each.scenario, each.wanted_bits) for each in planned())
    assert counts["bulk_read", 40.0] == counts["deploy", 0.0] == counts["placebo", 0.0] == 40
    assert counts["bulk_read", 20.0] == 13


def test_the_same_seed_places_the_same_stories() -> None:
    world, mine = lives()
    assert placing.plan(JOB, world, mine.mine, mine.calls) == planned()


def test_where_no_key_is_used_as_a_story_needs_it_the_error_says_what_to_do() -> None:
    world, mine = lives()
    nobody = [calls[:0] for calls in mine.calls]
    with pytest.raises(ConfigError, match="no key is used as the story leaked_abroad needs it: take more keys or days"):
        placing.plan(JOB, world, mine.mine, nobody)


def test_a_swapped_client_takes_turns_with_an_owner_who_comes_twice() -> None:
    twice = np.array([START_US // VISIT_US, (START_US + 21 * DAY_US) // VISIT_US, (START_US + 22 * DAY_US) // VISIT_US])
    for name, count in (("leaked_abroad", 2), ("client_swap", 1)):
        fitting = placing.fits(name, twice, np.array([19, 20, 21, 22]))
        assert fitting.tolist() == {2: [True, True, True, True], 1: [False, True, True, False]}[count], name
