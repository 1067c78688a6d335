"""Keys that nearly all come from one network are told, since no single event shows that a proxy stands between."""

from __future__ import annotations

import pytest

from pipeline.geo.provider import Place
from pipeline.one_network import FEWEST_KEYS, MOST_KEYS, Networks


def place(number: int, asn: int = 0) -> Place:
    return Place(prefix=f"10.0.{number}.0/24", asn=asn)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([place(1)] * 12, (12, 12)),  # a load balancer's inner network, of no autonomous system
        ([place(number, asn=13335) for number in range(12)], (12, 12)),  # a CDN has many
        ([place(number) for number in range(12)], (12, 1)),
        ([Place()] * 12, (12, 12)),  # no address at all
        ([place(1)] * (FEWEST_KEYS - 1), (0, 0)),
        ([], (0, 0)),
    ],
)
def test_it_counts_keys_by_autonomous_system_or_else_by_prefix(places: list[Place], told: tuple[int, int]) -> None:
    networks = Networks()
    networks.used(enumerate(places))
    assert networks.told == told


def test_keys_that_are_seldom_used_add_up_and_what_was_long_ago_is_forgotten() -> None:
    networks = Networks()
    for slot in range(MOST_KEYS):
        networks.used([(slot, place(1))])
    assert networks.told == (MOST_KEYS, MOST_KEYS)
    networks.used([(slot, place(slot)) for slot in range(20)])
    assert networks.told == (20, 1)
    networks.used([(0, place(1))])  # used again, from elsewhere
    assert networks.told == (20, 2)
