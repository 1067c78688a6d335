"""About 200 keys as their owners declare them, and how each is used: the clients of the demo's API.

Services call around the clock with a swing over the day, jobs at fixed minutes, offices in their declared hours in
ten time zones, people (apps, partners) in the evening and at weekends. Everything follows from one seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np

from pipeline.demo import networks, routes
from pipeline.demo.networks import Network
from schemas.key import BusinessHours, Key

Kind = Literal["service", "job", "office", "people"]


@dataclass(frozen=True, slots=True)
class Client:
    """One key, where it is used from, and its habits."""

    number: int
    key: Key
    kind: Kind
    time_zone: str
    addresses: tuple[str, ...]  # the first one is used most
    user_agent: str
    routes: tuple[int, ...]  # indices into ROUTES, the first one is used most
    visits_per_day: float  # jobs: how often a day
    calls_per_visit: float
    gap_s: float  # between the calls of a visit, on average
    missing_share: float  # calls for records that do not exist
    grows: bool = False
    country: str = ""  # of the people behind it; services sit in clouds
    first_days: float = math.inf  # the first use is at most so many days before the history's end
    last_days: float = 0.0  # used until so many days before the history's end; 0: to this day

    @property
    def key_id(self) -> str:
        """The key's public id."""
        return self.key.key_id


SERVICE_OWNERS: Final = ("checkout", "billing", "warehouse", "search", "analytics")
DEPLOYED: Final = "checkout"
"""The owner whose clients get a new version in the story."""
FENCED: Final = "key_search_06"
"""A key that much depends on: if it leaks, strangers are to be kept out and its owner is not to be stopped."""
REPLACED: Final = "key_job_23"
REPLACING: Final = "key_job_24"
"""A rotation without a gap: the old key goes on for two hours after the new one is first used."""
FELL_SILENT: Final = "key_job_22"
_USED: Final = {REPLACED: (math.inf, 0.75), REPLACING: (20 / 24, 0.0), FELL_SILENT: (math.inf, 9.0)}
"""From and until how many days before the history's end, where that is not all the time."""
SDK_VERSIONS: Final = ("2.3.0", "2.4.1", "2.5.0")
"""In the history, since nine days ago, and what the story deploys."""

OFFICES: Final = (
    ("Europe/Berlin", "DE", 11), ("America/New_York", "US", 10), ("America/Los_Angeles", "US", 8),
    ("Europe/London", "GB", 8), ("America/Sao_Paulo", "BR", 6), ("Asia/Kolkata", "IN", 6), ("Asia/Tokyo", "JP", 6),
    ("Australia/Sydney", "AU", 4), ("Africa/Johannesburg", "ZA", 4), ("Pacific/Honolulu", "US", 3),
)  # fmt: skip
"""Zone, country, keys. At any moment it is between 00:30 and 05:00 in one of them."""

_OFFICE_ROUTES: Final = ((3, 4, 5), (4, 7, 8), (0, 2, 4), (11, 12, 0), (7, 8, 11))
_PEOPLE_ROUTES: Final = ((6, 0, 2), (6, 2, 1), (0, 1, 9))
_BROWSERS: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Mac OS X 14_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
)
_APPS: Final = ("DemoShop/5.12 (iOS 18.1)", "DemoShop/5.12 (Android 15)", "partner-sync/1.8 python-requests/2.32.3")


def build(seed: int) -> tuple[Client, ...]:
    """The fleet: 200 clients, the same for the same seed."""
    rng = np.random.default_rng([seed, 1])
    clients: list[Client] = []
    for owner in SERVICE_OWNERS:
        clients += [_service(len(clients) + i, owner, i, rng) for i in range(14)]
    clients += [_job(len(clients) + i, i, rng) for i in range(25)]
    for zone, country, count in OFFICES:
        clients += [_office(len(clients) + i, zone, country, i, rng) for i in range(count)]
    clients += [_people(len(clients) + i, i, rng) for i in range(38)]
    clients.append(_growing(len(clients)))
    return tuple(clients)


def _service(number: int, owner: str, i: int, rng: np.random.Generator) -> Client:
    cloud = networks.CLOUDS[int(rng.integers(len(networks.CLOUDS)))]
    used = (routes.ORDERS, *(int(r) for r in rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 12], 4, replace=False)))
    key = _key(f"key_{owner}_{i:02d}", owner, used, environment="test" if i >= 12 else "live", exposure="server")
    if key.key_id == FENCED:
        key = msgspec.structs.replace(key, criticality="critical")
    return Client(
        number, key, "service", "UTC", _addresses(cloud, number, 1 + i % 3), sdk_agent(SDK_VERSIONS[1]), used,
        visits_per_day=float(rng.uniform(12, 36)), calls_per_visit=2.0, gap_s=4.0, missing_share=0.01,
    )  # fmt: skip


def _job(number: int, i: int, rng: np.random.Generator) -> Client:
    cloud = networks.CLOUDS[i % len(networks.CLOUDS)]
    used = (int(rng.choice([0, 3, 6, 7])), 12)
    key = _key(f"key_job_{i:02d}", "platform", used, exposure="ci", role="read_only")
    first_days, last_days = _USED.get(key.key_id, (math.inf, 0.0))
    return Client(
        number, key, "job", "UTC", _addresses(cloud, number, 1), "curl/8.11.0", used,
        visits_per_day=96.0 if i < 8 else 24.0, calls_per_visit=2.0, gap_s=0.8, missing_share=0.0,
        first_days=first_days, last_days=last_days,
    )  # fmt: skip


def _office(number: int, zone: str, country: str, i: int, rng: np.random.Generator) -> Client:
    used = _OFFICE_ROUTES[int(rng.integers(len(_OFFICE_ROUTES)))]
    city = zone.rpartition("/")[2].lower()
    hours = BusinessHours(start_min=480, end_min=1140)
    key = _key(f"key_office_{city}_{i:02d}", f"{city}-desk", used, zone=zone, hours=hours, exposure="browser")
    return Client(
        number, key, "office", zone, _addresses(networks.HOME[country], number, 1 + i % 2), _BROWSERS[i % 3], used,
        visits_per_day=float(rng.uniform(4, 8)), calls_per_visit=8.0, gap_s=35.0, missing_share=0.015, country=country,
    )  # fmt: skip


def _people(number: int, i: int, rng: np.random.Generator) -> Client:
    zone, country, _ = OFFICES[int(rng.integers(len(OFFICES)))]
    used = _PEOPLE_ROUTES[i % 3]
    partner = i % 3 == 2
    key = _key(
        f"key_{'partner' if partner else 'app'}_{i:02d}", f"partner-{i:02d}" if partner else "mobile-app", used,
        zone=zone if i % 2 else "", exposure="partner" if partner else "mobile",
    )  # fmt: skip
    places = _addresses(networks.HOME[country], number, 2) + _addresses(networks.OTHER[country], number, 2)
    return Client(
        number, key, "people", zone, places, _APPS[i % 3], used,
        visits_per_day=float(rng.uniform(4, 10)), calls_per_visit=7.0, gap_s=20.0, missing_share=0.02, country=country,
    )  # fmt: skip


def _growing(number: int) -> Client:
    used = (routes.ORDERS, 6, 2, 1)
    key = _key("key_newcustomer_01", "newcustomer", used, exposure="server")
    return Client(
        number, key, "service", "UTC", _addresses(networks.CLOUDS[2], number, 2), sdk_agent(SDK_VERSIONS[1]), used,
        visits_per_day=1_800.0, calls_per_visit=2.0, gap_s=3.0, missing_share=0.01, grows=True,
    )  # fmt: skip


def _key(
    key_id: str, owner: str, used: tuple[int, ...], *, environment: Literal["live", "test"] = "live",
    role: Literal["limited", "read_only"] = "limited", zone: str = "", hours: BusinessHours | None = None,
    exposure: Literal["server", "ci", "mobile", "browser", "partner"],
) -> Key:  # fmt: skip
    """What the key service declares. Each key may read everything and write where its owner's work needs it."""
    needed = {routes.ROUTES[route].scope for route in used}
    scopes = tuple(sorted(needed | set(routes.READ_SCOPES)))
    return Key(
        key_id=key_id, environment=environment, role=role, scopes=scopes, owner=owner, time_zone=zone,
        business_hours=hours, exposure=exposure, version=1,
    )  # fmt: skip


def _addresses(network: Network, number: int, count: int) -> tuple[str, ...]:
    return tuple(network.address(number * 3 + i) for i in range(count))


def sdk_agent(version: str) -> str:
    """The user agent of the demo's client library in one version."""
    return f"demo-sdk-python/{version} (python 3.12; linux)"
