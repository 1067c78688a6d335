"""Where addresses are: the shipped database, the demo's, others' layouts, and addresses without a place."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from detectors.detector import NET_ANYCAST, NET_HOSTING, NET_KNOWN, NET_PRIVATE, NET_PROXY, NET_SATELLITE
from pipeline.config import tree as config
from pipeline.errors import ConfigError
from pipeline.geo.demo import BLOCKS
from pipeline.geo.provider import DEMO_DB, NOWHERE, SHIPPED_DB, SPECIAL, Geo, is_special, open_geo, pack, prefix_of

SHIPPED = open_geo(config.Geo())
DEMO = open_geo(config.Geo(country_db=str(DEMO_DB)))


def written(folder: Path, database_type: str, networks: dict[str, dict[str, Any]]) -> str:
    """An MMDB file of someone else."""
    writer = MMDBWriter(6, database_type, ["en"], "test", ipv4_compatible=True, int_type="u32")
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    path = folder / f"{database_type}.mmdb"
    writer.to_db_file(str(path))
    return str(path)


def test_the_shipped_database_knows_country_network_and_hosting() -> None:
    place = SHIPPED.look_up("5.9.1.1")
    assert (place.country, place.asn, place.prefix) == ("DE", 24940, "5.9.1.0/24")
    assert place.network == "Hetzner Online GmbH"
    assert place.flags == NET_KNOWN | NET_HOSTING
    assert abs(place.lat - 51) < 2
    assert 100 < place.accuracy_km < 600


def test_the_shipped_database_knows_ipv6_and_anycast() -> None:
    place = SHIPPED.look_up("2606:4700:4700::1111")
    assert (place.asn, place.prefix) == (13335, "2606:4700:4700::/48")
    assert place.flags & NET_ANYCAST


def test_the_shipped_database_is_small_and_names_its_date_and_licence() -> None:
    assert SHIPPED_DB.stat().st_size < 12_000_000
    database = SHIPPED.databases()[0]
    assert f"{database.built_at:%Y-%m-%d}" == "2022-10-29"
    assert "CC BY-SA 4.0" in database.description
    assert "libloc-database" in (SHIPPED_DB.parent / "NOTICE").read_text()


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "::1", "192.0.2.7", "2001:db8::7", "fe80::1%eth0", "100.64.1.1"]
)
def test_private_and_documentation_addresses_have_no_place(address: str) -> None:
    place = SHIPPED.look_up(address)
    assert (place.flags, place.country, place.asn) == (NET_PRIVATE, "", 0)
    assert place.text
    assert place.prefix


@pytest.mark.parametrize("address", ["", "-", "localhost", "1.2.3", "1.2.3.4:443", "s3.example.com", "::1::2"])
def test_what_is_no_address_is_nowhere(address: str) -> None:
    assert SHIPPED.look_up(address) == NOWHERE


def test_ipv4_within_ipv6_is_ipv4() -> None:
    assert SHIPPED.look_up("::ffff:5.9.1.1") == SHIPPED.look_up("5.9.1.1")


@pytest.mark.parametrize("block", BLOCKS)
def test_the_demo_database_makes_documentation_addresses_known(block: tuple[str, str, int, int, str]) -> None:
    network, country, asn, flags, name = block
    place = DEMO.look_up(str(ipaddress.ip_network(network)[5]))
    assert (place.country, place.asn, place.network, place.flags) == (country, asn, name, NET_KNOWN | flags)


def test_behind_the_demo_database_stands_the_shipped_one() -> None:
    assert DEMO.look_up("5.9.1.1") == SHIPPED.look_up("5.9.1.1")
    assert DEMO.build != SHIPPED.build
    assert SHIPPED.build in DEMO.build


@given(st.ip_addresses())
def test_every_address_has_text_and_prefix_and_packs_back(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    packed = pack(str(address))
    place = SHIPPED.look_up(str(address))
    assert pack(place.text) == packed == place.address
    assert ipaddress.ip_address(packed) in ipaddress.ip_network(prefix_of(packed))
    assert not (place.flags & NET_KNOWN and place.flags & NET_PRIVATE)


@given(st.sampled_from(SPECIAL), st.integers(min_value=0))
def test_the_edges_of_special_ranges_are_special(network: Any, number: int) -> None:
    assert is_special(network[0].packed) == is_special(network[-1].packed) == True  # noqa: E712
    assert is_special(network[number % network.num_addresses].packed)


def test_geolite2_layout_with_city_and_network(tmp_path: Path) -> None:
    city = written(
        tmp_path,
        "GeoLite2-City",
        {
            "8.8.8.0/24": {
                "country": {"iso_code": "CH"},
                "location": {"latitude": 47.4, "longitude": 8.5, "accuracy_radius": 20},
            }
        },
    )
    asn = written(
        tmp_path,
        "GeoLite2-ASN",
        {"8.8.8.0/24": {"autonomous_system_number": 64500, "autonomous_system_organization": "Own"}},
    )
    place = open_geo(config.Geo(city_db=city, asn_db=asn)).look_up("8.8.8.8")
    assert (place.country, place.asn, place.network) == ("CH", 64500, "Own")
    assert (round(place.lat, 1), round(place.lon, 1), place.accuracy_km) == (47.4, 8.5, 20.0)


def test_ipinfo_layout(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "ipinfo generic_lite",
        {
            "8.8.8.0/24": {
                "country_code": "AT",
                "country": "Austria",
                "asn": "AS64501",
                "as_name": "Wien",
                "vpn": "true",
            }
        },
    )
    place = open_geo(config.Geo(country_db=path)).look_up("8.8.8.8")
    assert (place.country, place.asn, place.network) == ("AT", 64501, "Wien")
    assert place.flags & NET_PROXY


def test_flat_layout_and_traits(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "dbip-city",
        {
            "8.8.8.0/24": {
                "country_code": "NO",
                "latitude": "59.9",
                "longitude": "10.7",
                "traits": {"is_satellite_provider": True},
            }
        },
    )
    place = open_geo(config.Geo(city_db=path)).look_up("8.8.8.8")
    assert (place.country, round(place.lat, 1), place.asn) == ("NO", 59.9, 15169)
    assert place.flags & NET_SATELLITE


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.mmdb"
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"broken\.mmdb can't be read as an MMDB file.*geo\.\*_db"):
        open_geo(config.Geo(country_db=str(path)))
    with pytest.raises(ConfigError, match="absent"):
        open_geo(config.Geo(asn_db=str(tmp_path / "absent.mmdb")))


def test_the_same_files_give_the_same_build() -> None:
    again: Geo = open_geo(config.Geo())
    assert again.build == SHIPPED.build
    assert again.build.startswith("keywatch-libloc-20221029")
