"""How the shipped database is made: a tiny location.db of our own, and the tables beside it."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import maxminddb
import pytest

from detectors.detector import NET_ANYCAST
from pipeline.geo.build import build, read_source
from pipeline.geo.centroids import distance_km, middle, radius_km, write
from pipeline.geo.provider import DATA

NONE = 0xFFFFFFFF


def location_db(networks: dict[str, tuple[bytes, int, int]], names: dict[int, str]) -> bytes:
    """A libloc database of version 1: bit string of the prefix -> (country, autonomous system, flags)."""
    nodes: list[list[int]] = [[0, 0, NONE]]
    data = b""
    for number, (bits, (country, asn, flags)) in enumerate(networks.items()):
        at = 0
        for bit in bits:
            if not nodes[at][int(bit)]:
                nodes.append([0, 0, NONE])
                nodes[at][int(bit)] = len(nodes) - 1
            at = nodes[at][int(bit)]
        nodes[at][2] = number
        data += struct.pack(">2s2xIH2x", country, asn, flags)
    pool, systems = b"\0", b""
    for asn, name in sorted(names.items()):
        systems += struct.pack(">II", asn, len(pool))
        pool += name.encode() + b"\0"
    tree = b"".join(struct.pack(">3I", *node) for node in nodes)
    parts, offset, head = [systems, data, tree, b"", pool], 4096, b""
    for part in parts:
        head += struct.pack(">II", offset, len(part))
        offset += len(part)
    return (b"LOCDBXX\x01" + struct.pack(">Q3I", 1_600_000_000, 0, 0, 0) + head).ljust(4096, b"\0") + b"".join(parts)


def bits(address: str) -> str:
    """The prefix as a bit string; IPv4 under ::ffff:0:0/96."""
    import ipaddress

    network = ipaddress.ip_network(address)
    text = "".join(f"{byte:08b}" for byte in network.network_address.packed)[: network.prefixlen]
    return text if network.version == 6 else "0" * 80 + "1" * 16 + text


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "location.db"
    networks = {
        bits("20.0.0.0/8"): (b"US", 100, 0),
        bits("20.128.0.0/9"): (b"US", 100, 0),
        bits("20.1.0.0/16"): (b"DE", 24940, 4),
        bits("20.1.128.0/17"): (b"XX", 0, 0),
        bits("2a00::/16"): (b"FR", 100, 0),
        bits("2a00:1:2:3::/64"): (b"GB", 100, 0),
    }
    path.write_bytes(location_db(networks, {100: "One Hundred"}))
    return path


def test_what_holds_above_holds_below_until_something_closer_says_otherwise(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path / "geo.mmdb")
    with maxminddb.open_database(str(tmp_path / "geo.mmdb")) as base:
        assert base.get("20.9.9.9") == {"country": "US", "asn": 100, "name": "One Hundred"}
        assert base.get("20.1.2.3") == {"country": "DE", "asn": 24940, "flags": NET_ANYCAST}
        assert base.get("20.1.200.3") is None
        assert base.get("21.0.0.1") is None


def test_equal_neighbours_are_merged_and_ipv6_is_cut_at_48(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path / "geo.mmdb")
    with maxminddb.open_database(str(tmp_path / "geo.mmdb")) as base:
        assert base.get_with_prefix_len("20.200.0.1")[1] == 9
        assert base.get("2a00:1:2:3::1") == {"country": "FR", "asn": 100, "name": "One Hundred"}


def test_the_same_source_gives_the_same_bytes_with_its_own_date(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path / "one.mmdb")
    build(source, tmp_path / "two.mmdb")
    assert (tmp_path / "one.mmdb").read_bytes() == (tmp_path / "two.mmdb").read_bytes()
    with maxminddb.open_database(str(tmp_path / "one.mmdb")) as base:
        assert base.metadata().build_epoch == 1_600_000_000


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"LOCDBXX\x02" + bytes(5000))
    with pytest.raises(ValueError, match="is not a libloc database of version 1"):
        read_source(path)


def test_the_middle_of_cities_is_where_most_people_are(tmp_path: Path) -> None:
    cities = {
        "1": {"countrycode": "AA", "latitude": 10.0, "longitude": 179.0, "population": 1000},
        "2": {"countrycode": "AA", "latitude": 10.0, "longitude": -179.0, "population": 1000},
        "3": {"countrycode": "BB", "latitude": 0.0, "longitude": 0.0, "population": 0},
    }
    (tmp_path / "cities.json").write_text(json.dumps(cities))
    write(tmp_path / "cities.json", tmp_path / "countries.csv")
    rows = list(csv.DictReader((tmp_path / "countries.csv").read_text().splitlines()))
    assert [row["country"] for row in rows] == ["AA", "BB"]
    assert abs(abs(float(rows[0]["lon"])) - 180) < 0.1
    assert 100 < float(rows[0]["accuracy_km"]) < 120
    assert rows[1]["accuracy_km"] == "25"


def test_distances_on_the_sphere() -> None:
    assert distance_km(0, 0, 0, 0) == 0
    assert abs(distance_km(52.52, 13.40, 48.86, 2.35) - 878) < 3
    assert abs(distance_km(0, 0, 0, 180) - 20015) < 1
    assert radius_km([(0.0, 0.0, 10)], *middle([(0.0, 0.0, 10)])) == 25


def test_every_country_of_the_shipped_table_has_a_place() -> None:
    with (DATA / "countries.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) > 240
    assert all(-90 <= float(row["lat"]) <= 90 and -180 <= float(row["lon"]) <= 180 for row in rows)
    assert all(25 <= float(row["accuracy_km"]) <= 20_000 for row in rows)
