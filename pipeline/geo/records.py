"""One mapper per layout of MMDB records: ours, GeoIP2/GeoLite2 and DB-IP (nested), IPinfo and flat ones.

A mapper takes what it finds and leaves out the rest; a wrong type counts as missing, since these files are others'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from detectors.detector import NET_ANYCAST, NET_HOSTING, NET_PROXY, NET_SATELLITE

CITY_ACCURACY_KM: Final = 100.0
"""Where a city database states none: GeoIP2's usual radius outside of its own country's cities."""
EVENT_FLAGS: Final = NET_HOSTING | NET_PROXY | NET_ANYCAST | NET_SATELLITE

Record = Mapping[str, Any]


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What one database says of an address; empty is not known."""

    country: str = ""
    asn: int = 0
    network: str = ""
    flags: int = 0
    located: bool = False  # lat, lon and accuracy_km are given
    lat: float = 0.0
    lon: float = 0.0
    accuracy_km: float = 0.0

    def behind(self, other: Facts) -> Facts:
        """These facts, completed by another source's. A point counts only with its own source's country."""
        point = self if self.located or self.country else other
        return Facts(
            self.country or other.country,
            self.asn or other.asn,
            self.network if self.asn else other.network,
            self.flags | other.flags,
            point.located,
            point.lat,
            point.lon,
            point.accuracy_km,
        )


def mapper(database_type: str) -> Callable[[Record], Facts]:
    """The mapper for a database's stated type."""
    name = database_type.lower()
    if name.startswith("keywatch"):
        return ours
    return ipinfo if "ipinfo" in name else nested


def ours(record: Record) -> Facts:
    """The layout of `build.py`."""
    flags = record.get("flags", 0) & EVENT_FLAGS
    return Facts(record.get("country", ""), record.get("asn", 0), record.get("name", ""), flags)


def nested(record: Record) -> Facts:
    """GeoIP2, GeoLite2, DB-IP (country, city, ASN); falls back to flat keys as in dbip-city and geo-whois."""
    country = _letters(_part(record, "country").get("iso_code"))
    country = country or _letters(_part(record, "registered_country").get("iso_code"))
    country = country or _letters(record.get("country_code")) or _letters(record.get("country"))
    traits = {**_part(record, "traits"), **record}
    name = traits.get("autonomous_system_organization") or traits.get("organization") or traits.get("isp")
    return _point(
        Facts(country, _number(traits.get("autonomous_system_number")), _text(name), _traits(traits)),
        {**record, **_part(record, "location")},
    )


def ipinfo(record: Record) -> Facts:
    """IPinfo: country_code with the country's name, or country as a code; asn as "AS64500"."""
    country = _letters(record.get("country_code")) or _letters(record.get("country"))
    name = record.get("as_name") or record.get("name")
    return _point(Facts(country, _number(record.get("asn")), _text(name), _traits(record)), record)


def _point(facts: Facts, record: Record) -> Facts:
    lat = _degrees(record.get("latitude", record.get("lat")), 90.0)
    lon = _degrees(record.get("longitude", record.get("lng", record.get("lon"))), 180.0)
    if lat is None or lon is None:
        return facts
    radius_km = _degrees(record.get("accuracy_radius", record.get("radius")), 20_000.0) or CITY_ACCURACY_KM
    return msgspec.structs.replace(facts, located=True, lat=lat, lon=lon, accuracy_km=radius_km)


def _traits(record: Record) -> int:
    """The flags that the layouts know under their several names."""
    names: tuple[tuple[int, tuple[str, ...]], ...] = (
        (NET_HOSTING, ("is_hosting_provider", "hosting", "is_hosting")),
        (NET_PROXY, ("is_anonymous_proxy", "is_public_proxy", "is_anonymous_vpn", "is_tor_exit_node", "is_anonymous")),
        (NET_PROXY, ("proxy", "vpn", "tor", "relay")),
        (NET_ANYCAST, ("is_anycast", "anycast")),
        (NET_SATELLITE, ("is_satellite_provider", "is_satellite", "satellite")),
    )
    return sum({flag: flag for flag, keys in names if any(_true(record.get(key)) for key in keys)})


def _part(record: Record, name: str) -> Record:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def _true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _text(value: Any) -> str:
    return value[:128] if isinstance(value, str) else ""


def _letters(value: Any) -> str:
    return value.upper() if isinstance(value, str) and len(value) == 2 and value.isascii() and value.isalpha() else ""


def _number(value: Any) -> int:
    """An autonomous system: 64500, "64500" or "AS64500"; 0 where it is none."""
    digits = value.upper().removeprefix("AS") if isinstance(value, str) else str(value)
    return int(digits) if digits.isascii() and digits.isdigit() and int(digits) < 1 << 32 else 0


def _degrees(value: Any, limit: float) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) <= limit else None
