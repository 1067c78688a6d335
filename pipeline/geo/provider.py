"""Address -> place, from MMDB files: the shipped one, or the user's own with the shipped one behind them.

Order of the sources: `city_db`, `country_db`, `asn_db` of the configuration, then the database of the package for what
they leave open. Each field is taken from the first source that has it. Layouts: see `records.py`.

Special-purpose addresses (private, loopback, documentation, shared, multicast) have no place, unless a configured
database knows them (the demo's does). The list is fixed here: `ipaddress.is_global` changes with Python's patch level,
and results must not. Country databases agree for 91 to 96 % of addresses only (reference/outputs.md, section 6), so a
swap of databases is a new `build`: a side input with a version, never travel.
"""

from __future__ import annotations

import bisect
import csv
import hashlib
import ipaddress
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import maxminddb
import msgspec

from detectors.detector import NET_HOSTING, NET_KNOWN, NET_PRIVATE
from pipeline.config import tree as config
from pipeline.errors import ConfigError, Fatal
from pipeline.geo import verify
from pipeline.geo.records import Facts, mapper

DATA: Final = Path(__file__).parent / "data"
SHIPPED_DB: Final = DATA / "keywatch-geo.mmdb"
SHIPPED: Final = "shipped"
DEMO_DB: Final = DATA / "demo.mmdb"
FAR_KM: Final = 20_000.0
"""Accuracy where nothing says where the country is: half the earth's circumference, so that no travel follows."""

SPECIAL: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/3", "::/96", "100::/64", "2001:2::/48", "2001:db8::/32", "3fff::/20", "fc00::/7", "fe80::/10"),
        *("fec0::/10", "ff00::/8"),
    )
)
"""IANA's special-purpose registries, as of 2025."""


def _ranges(version: int) -> tuple[list[bytes], list[bytes]]:
    """First and last addresses, packed and ascending; no two ranges overlap."""
    networks = sorted(
        (each for each in SPECIAL if each.version == version), key=lambda each: each.network_address.packed
    )
    return [each.network_address.packed for each in networks], [each.broadcast_address.packed for each in networks]


_RANGES: Final = {4: _ranges(4), 16: _ranges(6)}


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where one address is. No text is longer than its database's; all fields are empty where nothing is known."""

    text: str = ""  # canonical text of the address; "" where it is none
    address: bytes = b""  # packed: 4 or 16 bytes; IPv4 in IPv6 is IPv4
    prefix: str = ""  # its /24 or /48
    country: str = ""  # ISO 3166 alpha-2
    asn: int = 0
    network: str = ""  # name of the autonomous system, where the database has one
    flags: int = 0  # NET_*
    lat: float = 0.0  # degrees
    lon: float = 0.0
    accuracy_km: float = 0.0


_DAMAGED: Final = (
    *(maxminddb.InvalidDatabaseError, OSError, OverflowError, ValueError, TypeError, KeyError, AttributeError),
    *(IndexError, RecursionError, MemoryError),
)
"""What maxminddb and a mapper raise over bytes that are no database of the layout that its name promises."""

NOWHERE: Final = Place()
NOTHING: Final = Facts()


class Database(msgspec.Struct, frozen=True):
    """What `doctor` and `geo info` say of one file."""

    name: str
    path: str
    built_at: datetime
    description: str
    setting: str  # that names it: city, country or asn; "shipped" is the package's own

    @property
    def shipped(self) -> bool:
        """Whether it stands behind all others, and says nothing of special addresses."""
        return self.setting == SHIPPED

    @property
    def packaged(self) -> bool:
        """Whether it came with the package (this one, or the demo's) and grows old with it: nobody fetches it."""
        return Path(self.path).resolve().parent == DATA.resolve()


@dataclass(frozen=True)
class Source:
    """One open file and how its records read."""

    reader: Any  # maxminddb.Reader, whose C and Python versions are different types
    facts: Any  # Callable[[record], Facts]
    database: Database

    def ask(self, text: str) -> Facts | None:
        """What it says of an address. Raises Fatal where the file is damaged: a wrong place would be an alert."""
        try:
            record = self.reader.get(text)
            return None if record is None else self.facts(record)
        except _DAMAGED as error:
            raise Fatal(f"geo: {self.database.path} is damaged ({type(error).__name__}): fetch it again") from error


@dataclass(frozen=True)
class Geo:
    """All sources together. Reading is thread-safe; nothing is cached here (`enrich` does)."""

    sources: tuple[Source, ...]
    centres: dict[str, tuple[float, float, float]]  # country -> lat, lon, accuracy_km
    hosting: frozenset[int]
    build: str

    def look_up(self, address: str) -> Place:
        """The place of an address in text; `NOWHERE` where the text is no address."""
        packed = pack(address)
        if not packed:
            return NOWHERE
        text = text_of(packed)
        special = is_special(packed)
        facts = self._facts(text, special)
        if not (facts.country or facts.asn):
            flags = NET_PRIVATE if special else 0
            return Place(text=text, address=packed, prefix=prefix_of(packed), flags=flags)
        return self._place(text, packed, facts)

    def _facts(self, text: str, special: bool) -> Facts:
        """Each field from the first source that has it; the shipped database says nothing of special addresses."""
        merged: Facts | None = None
        for source in self.sources:
            if special and source.database.shipped:
                continue
            facts = source.ask(text)
            if facts is not None:
                merged = facts if merged is None else merged.behind(facts)
        return merged or NOTHING

    def _place(self, text: str, packed: bytes, facts: Facts) -> Place:
        lat, lon, accuracy_km = self.centres.get(facts.country, (0.0, 0.0, FAR_KM))
        if facts.located:
            lat, lon, accuracy_km = facts.lat, facts.lon, facts.accuracy_km
        flags = NET_KNOWN | facts.flags | (NET_HOSTING if facts.asn in self.hosting else 0)
        return Place(
            text, packed, prefix_of(packed), facts.country, facts.asn, facts.network, flags, lat, lon, accuracy_km
        )  # fmt: skip

    def databases(self) -> list[Database]:
        """The files in use, first asked first."""
        return [source.database for source in self.sources]


def pack(address: str) -> bytes:
    """4 or 16 bytes; b"" where the text is no address. IPv4 within IPv6 becomes IPv4; a zone (%eth0) is dropped."""
    try:
        return socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        pass
    try:
        packed = ipaddress.IPv6Address(address.partition("%")[0]).packed
    except ValueError:
        return b""
    return packed[12:] if packed.startswith(b"\0" * 10 + b"\xff\xff") else packed


def text_of(packed: bytes) -> str:
    """The canonical text."""
    if len(packed) == 4:
        return socket.inet_ntoa(packed)
    return ipaddress.IPv6Address(packed).compressed


def is_special(packed: bytes) -> bool:
    """Whether the address belongs to nobody's place on earth."""
    firsts, lasts = _RANGES[len(packed)]
    at = bisect.bisect_right(firsts, packed) - 1
    return at >= 0 and packed <= lasts[at]


def prefix_of(packed: bytes) -> str:
    """The /24 or /48 as text."""
    if len(packed) == 4:
        return f"{packed[0]}.{packed[1]}.{packed[2]}.0/24"
    return f"{ipaddress.IPv6Address(packed[:6] + bytes(10)).compressed}/48"


def open_geo(settings: config.Geo) -> Geo:
    """Open every configured database and the shipped one; raises ConfigError where a file can't be read."""
    named = {"city": settings.city_db, "country": settings.country_db, "asn": settings.asn_db}
    sources = [_open(Path(path), setting) for setting, path in named.items() if path]
    sources.append(_open(SHIPPED_DB, SHIPPED))
    return Geo(tuple(sources), _centres(), _hosting(), _build(sources))


def _open(path: Path, setting: str) -> Source:
    try:
        reader = maxminddb.open_database(str(path), verify.reading_mode(path))
        about = reader.metadata()
        built_at, words = datetime.fromtimestamp(about.build_epoch, UTC), dict(about.description).get("en", "")
        database = Database(str(about.database_type), str(path), built_at, str(words), setting)
    except _DAMAGED as error:
        raise ConfigError(f"geo: {path} can't be read as an MMDB file ({error}); check config geo.*_db") from error
    return Source(reader, mapper(database.name), database)


def _build(sources: list[Source]) -> str:
    """Names every input that can change a place: the databases' build ids and the two tables of the package."""
    tables = b"".join((DATA / name).read_bytes() for name in ("countries.csv", "hosting.csv"))
    ids = [f"{source.database.name}-{source.database.built_at:%Y%m%d%H%M%S}" for source in sources]
    return "+".join([*ids, hashlib.blake2b(tables, digest_size=3).hexdigest()])


def _centres() -> dict[str, tuple[float, float, float]]:
    with (DATA / "countries.csv").open(newline="") as lines:
        return {
            row["country"]: (float(row["lat"]), float(row["lon"]), float(row["accuracy_km"]))
            for row in csv.DictReader(lines)
        }


def _hosting() -> frozenset[int]:
    return frozenset(int(row["asn"]) for row in hosting_rows())


def hosting_rows() -> list[dict[str, str]]:
    """The systems that rent out machines: asn, name, as_name, example. Lines with # say where the list is from."""
    lines = (DATA / "hosting.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))
