"""The demo's networks are where the demo's geo database says they are."""

from __future__ import annotations

import pytest

from detectors.detector import NET_HOSTING
from pipeline.config.tree import Geo
from pipeline.demo import networks
from pipeline.demo.networks import Network
from pipeline.geo.provider import DEMO_DB, open_geo

ALL = (
    *networks.CLOUDS,
    networks.FOREIGN_HOSTING,
    *networks.HOME.values(),
    *networks.OTHER.values(),
    *networks.RENTED.values(),
)


@pytest.mark.parametrize("network", ALL, ids=lambda network: str(network.block))
def test_the_demos_database_knows_every_network_of_the_demo(network: Network) -> None:
    place = open_geo(Geo(country_db=str(DEMO_DB))).look_up(network.address(77))
    assert (place.country, place.asn) == (network.country, network.asn)
    assert bool(place.flags & NET_HOSTING) == network.hosting


def test_every_offices_country_has_another_network_and_servers_for_rent() -> None:
    assert set(networks.OTHER) == set(networks.RENTED)
    assert set(networks.OTHER) <= set(networks.HOME)
