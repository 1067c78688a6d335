"""When nothing acts after a change: what is one, for all partitions together, by the order on the topic alone."""

from __future__ import annotations

import pytest

from pipeline.respond.builds import MOST_TURNS, ROLL_OUT_US, Builds
from pipeline.respond.ledger.entries import Build

MIN_US = 60_000_000
DAY_US = 24 * 60 * MIN_US
LONG_AGO_US = DAY_US


def said(*heard: tuple[int, int, str]) -> Builds:
    """(minute, partition, build)."""
    builds = Builds()
    for minute, partition, name in heard:
        tell(builds, minute, partition, name)
    return builds


def tell(builds: Builds, minute: int, partition: int, name: str) -> None:
    builds.apply(Build(partition=partition, config_version=name, geo_build="g"), LONG_AGO_US + minute * MIN_US)


def changed_min(builds: Builds) -> int | None:
    return (builds.changed_us - LONG_AGO_US) // MIN_US if builds.changed_us else None


@pytest.mark.parametrize(
    ("heard", "changed"),
    [
        (((0, 3, "A"), (90, 5, "A"), (900, 0, "A")), None),  # the first start ever, partition by partition
        (((0, 3, "A"), (90, 5, "B")), 90),  # a partition that never spoke brings another one
        (((0, 3, "A"), (90, 3, "B")), 90),
        (((0, 3, "A"), (0, 5, "A"), (90, 3, "B"), (97, 5, "B"), (111, 0, "B")), 111),  # one roll-out: its end counts
        (((0, 3, "A"), (0, 5, "A"), (90, 3, "B"), (900, 5, "B"), (901, 0, "B")), 90),  # they only had nothing to say
        (((0, 3, "A"), (90, 3, "B"), (110, 3, "A")), 110),  # rolled back
        (((0, 3, "A"), (0, 5, "A"), (90, 3, "B"), (900, 3, "A")), 900),  # rolled back where 5 never left it
    ],
)
def test_another_build_than_the_fleet_has_is_a_change(
    heard: tuple[tuple[int, int, str], ...], changed: int | None
) -> None:
    assert changed_min(said(*heard)) == changed


def test_workers_that_disagree_for_ever_stop_counting_and_what_is_really_new_still_does() -> None:
    builds = said((0, 0, "A"))
    for turn in range(1, 200):
        tell(builds, turn * 5, 0, "AB"[turn % 2])
    assert changed_min(builds) == MOST_TURNS * 5
    tell(builds, 1000, 0, "C")
    assert changed_min(builds) == 1000


def test_once_they_have_come_to_rest_the_way_back_counts_again() -> None:
    builds = said((0, 0, "A"))
    for turn in range(1, 12):
        tell(builds, turn, 0, "AB"[turn % 2])
    tell(builds, 12 + ROLL_OUT_US // MIN_US, 0, "A")
    assert changed_min(builds) == 72


def test_a_policy_is_judged_by_itself_and_a_restart_with_the_same_one_is_no_change() -> None:
    builds = said((0, 0, "A"))
    for minute, version in ((1, "p1"), (200, "p1"), (300, "p2"), (500, "p2")):
        note = Build(partition=-1, config_version="", geo_build="", policy_version=version)
        builds.apply(note, LONG_AGO_US + minute * MIN_US)
        assert changed_min(builds) == (300 if minute >= 300 else None)
    assert builds.at == {0: ("A", "g")}


def test_what_is_said_again_says_all_of_it_and_is_no_change() -> None:
    before = said((0, 0, "A"), (1, 1, "A"), (90, 0, "B"))
    before.apply(Build(partition=-1, config_version="", geo_build="", policy_version="p1"), LONG_AGO_US + 91 * MIN_US)
    assert before.again(LONG_AGO_US + 3 * DAY_US - 1, 3 * DAY_US) is None
    again = before.again(LONG_AGO_US + 3 * DAY_US, 3 * DAY_US)
    assert again
    after = Builds()
    after.apply(again, LONG_AGO_US + 3 * DAY_US)
    assert (after.at, changed_min(after)) == ({0: ("B", "g"), 1: ("A", "g")}, 90)
    for other in (before, after):
        other.apply(again, LONG_AGO_US + 3 * DAY_US)
        assert other.again(LONG_AGO_US + 6 * DAY_US - 1, 3 * DAY_US) is None
        tell(other, 9000, 1, "B")
        assert changed_min(other) == 90, "it only had nothing to say"
        tell(other, 9001, 2, "A")
        assert changed_min(other) == 9001
