"""The list of systems that rent out machines, held against the names in the databases that it was checked with."""

from __future__ import annotations

import re

import pytest

from detectors.detector import NET_HOSTING
from pipeline.config import tree as config
from pipeline.geo.provider import hosting_rows, open_geo

ROWS = hosting_rows()
SHIPPED = open_geo(config.Geo())
SAYS_NOTHING = {"limited", "gmbh", "llc", "ltd", "inc", "group", "services", "international", "internet", "europe"}


def words(name: str) -> set[str]:
    """What a name is told by: letters and digits in runs of two and more, without company forms."""
    return set(re.findall(r"[a-z0-9]{2,}", name.casefold())) - SAYS_NOTHING


def akin(ours: str, registered: str) -> bool:
    """Whether a word of our name is, or begins, one of the registered name, or the other way round."""
    theirs = words(registered)
    return any(a.startswith(b) or b.startswith(a) for a in words(ours) for b in theirs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"AS{row['asn']}")
def test_a_listed_system_is_registered_under_that_providers_name(row: dict[str, str]) -> None:
    assert akin(row["name"], row["as_name"])
    if row["example"]:
        place = SHIPPED.look_up(row["example"])
        assert (place.asn, place.network) == (int(row["asn"]), row["as_name"])
        assert place.flags & NET_HOSTING


def test_names_that_are_not_akin_are_told_apart() -> None:
    assert not akin("Pfcloud", "Platezhka LLC")
    assert not akin("Kirino Limited", "Other Limited")
    assert not akin("Hetzner", "Deutsche Telekom AG")


def test_the_list_is_long_sorted_and_says_what_it_was_checked_against() -> None:
    numbers = [int(row["asn"]) for row in ROWS]
    assert numbers == sorted(set(numbers))
    assert len([row for row in ROWS if row["example"]]) >= 90
