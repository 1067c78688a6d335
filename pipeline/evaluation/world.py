"""keybench's innocent traffic: keys, their habits, and all of their calls over some weeks; seeded, vectorised.

A *key* has a rhythm (a person's real weeks, or a real service's series thinned to its class's volume), a few places
(addresses of the log), clients and donors of routes. A *visit* (half an hour of a key) takes one place, one client
and a block of consecutive lines of one donor, so that routes, outcomes and sizes belong together as they did.
What innocent keys bring anew comes by hazards per key-day, which differ between keys (log-normal, sigma 1):
 - a place, once in 460 days on average (people: .27 visits a day, .008 of them somewhere new; reference/evidence.md,
   sections 0 and 1); a new client with it for one in four; in seven of ten cases in a country the key knows; half of
   these places stay, half are trips of some days;
 - a client alone, once in 120 days; a route of the whole vocabulary, by its popularity, once in 20 days.
A person's weeks are consecutive ones from a random week on (from another where they end; empty months are passed
over), and records of one minute are one visit's: an import of a thousand commits is no thousand visits. A service's
days are resampled by type of day, and its level drifts by 10 % a week: nothing loops. `Vocabulary` holds every place,
client and operation as the real enrichment sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.detector import EVENT
from pipeline.column import constant
from pipeline.config.tree import Config
from pipeline.enrich import Enricher
from pipeline.evaluation.sources import Donor, Ints, Sources
from pipeline.fields import fields_of
from pipeline.formats import sees_of
from pipeline.geo.provider import open_geo
from schemas.event import OUTCOMES, Event

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

US: Final = 1_000_000
HOUR_US: Final = 3600 * US
DAY_US: Final = 24 * HOUR_US
VISIT_US: Final = HOUR_US // 2
START_US: Final = 1_741_564_800 * US
"""Monday 2025-03-10 00:00 UTC: the change to summer time in Europe, and back in Australia, lie within 60 days."""
CLASSES: Final = ("few", "some", "many")
CALLS_A_DAY: Final = (8.0, 40.0, 300.0)
SUCCESS: Final = OUTCOMES.index("success")
DENIED: Final = OUTCOMES.index("denied")
INVALID: Final = OUTCOMES.index("invalid")
LIMITED: Final = OUTCOMES.index("rate_limited")
GAP_S: Final = 8.0
"""Mean seconds between the calls of a person's visit."""

CALL: Final = np.dtype(
    [
        ("ts_us", "i8"), ("key", "i4"), ("bytes_out", "i4"), ("place", "i2"), ("client", "i2"), ("operation", "i2"),
        ("object", "u4"), ("status", "u2"), ("outcome", "u1"), ("planted", "u1"), ("zone_h", "i1"), ("turn", "u2"),
        ("request", "u4"), ("behind_us", "i8"),
    ]
)  # fmt: skip
"""One call; place, client and operation index the vocabularies; `object`: hash of the path.
`zone_h`: local minus UTC, 127: none declared. `turn`: which other address of the place's network, 0: the place's own.
`request`: number of its request among the key's, 0: one that comes once. `behind_us`: how much later than it happened
it comes in the log."""
NO_ZONE: Final = 127
LATENESS_US: Final = round(Config().worker.lateness_s * US)
ANOTHER: Final = np.uint64(0x9E3779B97F4A7C15)
"""Odd: multiples of it are different, so a network's addresses are."""


@dataclass(frozen=True)
class Vocabulary:
    """Every value there is, as EVENT records of the real enrichment; `siblings`: others of the same networks."""

    addresses: list[str]
    agents: list[str]
    operations: list[tuple[str, str]]
    empty: Array  # EVENT, one record
    places: Array  # EVENT, one per address; then one per sibling; then one per address under another network's name
    clients: Array
    routes: Array
    owner_of: dict[str, tuple[str, ...]]  # which fields come from places, clients, operations
    siblings: int  # index of the first sibling

    def country(self, place: Ints) -> Ints:
        """Countries as EVENT has them."""
        found: Ints = self.places["country"][place].astype(np.int64)
        return found

    def network(self, place: Ints) -> Ints:
        """Autonomous systems."""
        found: Ints = self.places["asn"][place].astype(np.int64)
        return found


@dataclass(frozen=True)
class Key:
    """One key's habits. `homes`, `clients`, `donors` with their shares; hazards per day."""

    number: int
    volume: int  # index into CLASSES
    source: str
    zone_h: int
    zone_declared: bool
    homes: Ints
    home_share: Floats
    clients: Ints
    donors: Ints
    place_hazard: float
    client_hazard: float
    route_hazard: float


@dataclass(frozen=True)
class World:
    """Sources, vocabularies, and the keys."""

    sources: Sources
    words: Vocabulary
    keys: list[Key]
    days: int


def vocabulary(sources: Sources) -> Vocabulary:
    """The half's addresses with a known network, agents, and the API's operations, each enriched by the real code."""
    enricher = Enricher(open_geo(Config().geo), sees_of)
    named = [donor.address for donor in sources.donors]
    known = _enrich(enricher, [{"client_ip": address} for address in named])["asn"] > 0
    addresses = [address for address, good in zip(named, known, strict=True) if good]
    agents = sorted({donor.agent for donor in sources.donors if donor.agent not in ("", "-")})
    places = _enrich(enricher, [{"client_ip": a} for a in addresses + [_sibling(a) for a in addresses]])
    clients = _enrich(enricher, [{"user_agent": agent} for agent in agents])
    routes = _enrich(enricher, [{"method": method, "route": route} for method, route in sources.operations])
    empty = _enrich(enricher, [{}])
    places = np.concatenate([places, _renamed(places[: len(addresses)])])
    tables = (("places", places), ("clients", clients), ("routes", routes))
    owner = {name: _own_fields(table, empty) for name, table in tables}
    words = (addresses, agents, sources.operations)
    return Vocabulary(*words, empty, places, clients, routes, owner, len(addresses))


def _sibling(address: str) -> str:
    head, _, last = address.rpartition(".")
    return f"{head}.{(int(last) + 101) % 254 + 1}"


def _renamed(places: Array) -> Array:
    """The same addresses as another database might place them: each where another one of the list is."""
    other = np.roll(places, len(places) // 2)
    other["address"] = places["address"]
    return other


def _enrich(enricher: Enricher, fields: list[dict[str, str]]) -> Array:
    plain = {"key_id": "k", "ts_us": START_US, "status": 200, "outcome": "success", "request_id": "r"}
    events = [msgspec.convert(plain | each, Event) for each in fields]
    return enricher.columns(fields_of(events), [0] * len(events), constant(None, len(events))).columns


def _own_fields(table: Array, empty: Array) -> tuple[str, ...]:
    """The fields that this vocabulary decides, whatever EVENT will have: those that differ from an empty event's."""
    names = EVENT.names or ()
    return tuple(name for name in names if name != "pad" and (table[name] != empty[name]).any())


def keys_of(sources: Sources, words: Vocabulary, count: int, rng: np.random.Generator) -> list[Key]:
    """`count` keys, a third of each volume class."""
    place_of = {address: i for i, address in enumerate(words.addresses)}
    donors = np.array([i for i, donor in enumerate(sources.donors) if donor.address in place_of])
    weight = np.array([len(sources.donors[i].operations) for i in donors], np.float64)
    country = words.country(np.arange(words.siblings))
    return [_key(i, sources, words, donors, weight / weight.sum(), country, rng) for i in range(count)]


def _key(
    number: int, sources: Sources, words: Vocabulary, donors: Ints, weight: Floats, country: Ints,
    rng: np.random.Generator,
) -> Key:  # fmt: skip
    volume = number % 3
    person = volume == 0
    rhythm = sources.rhythms[int(rng.integers(len(sources.rhythms)))]
    name = rhythm.author if person else sorted(sources.series)[int(rng.integers(len(sources.series)))]
    first = int(rng.integers(words.siblings))
    near = np.flatnonzero(country == country[first])
    more = rng.choice(near, min(len(near), int(rng.geometric(0.6)) - 1), replace=False)
    homes = np.unique(np.concatenate([[first], more]))
    share = 1.0 / np.arange(1, len(homes) + 1)
    return Key(
        number=number, volume=volume, source=name,
        zone_h=rhythm.offset_h if person else int(rng.integers(-8, 10)), zone_declared=bool(rng.random() < 0.5),
        homes=homes, home_share=share / share.sum(),
        clients=rng.choice(len(words.agents), int(rng.geometric(0.7)), replace=False),
        donors=rng.choice(donors, min(6, int(rng.geometric(0.35)) + 1), p=weight, replace=False),
        place_hazard=float(np.exp(rng.normal())) / 760, client_hazard=float(np.exp(rng.normal())) / 120,
        route_hazard=float(np.exp(rng.normal())) / 20,
    )  # fmt: skip


def starts(key: Key, world: World, rng: np.random.Generator, calls_a_day: float = 0.0) -> Floats:
    """Hours since the start, UTC, of the key's calls, sorted; at a service's level where one is given."""
    if key.volume == 0:
        return _person_hours(key, world, rng)
    counts = rng.poisson(hourly_rate(key, world, rng, calls_a_day))
    total = int(counts.sum())
    gaps = rng.choice(world.sources.gaps, total)
    hour = np.repeat(np.arange(len(counts)), counts)
    running = np.cumsum(gaps)
    begin = np.cumsum(counts) - counts
    before = np.concatenate([[0.0], running])[begin]
    span = np.concatenate([[0.0], running])[begin + counts] - before
    within: Floats = (running - before[hour]) / np.maximum(span[hour], 1e-9) * rng.uniform(0.9, 1.0, len(counts))[hour]
    return np.asarray(hour + np.clip(within, 0.0, 0.9999), np.float64)


def _person_hours(key: Key, world: World, rng: np.random.Generator) -> Floats:
    """Consecutive weeks of one person's real life; a minute with records becomes some calls, paced as Azure's."""
    hours = next(rhythm.hours for rhythm in world.sources.rhythms if rhythm.author == key.source)
    hours = np.unique(np.floor(hours * 60)) / 60
    used = np.unique(hours // 168)
    weeks = np.unique(np.concatenate([used, used + 1, used + 2, used + 3]))  # with pauses of up to three weeks
    at_week, parts = int(rng.integers(len(weeks))), []
    for week in range(-(-world.days // 7)):
        chosen = weeks[at_week]
        at_week = at_week + 1 if at_week + 1 < len(weeks) else int(rng.integers(len(weeks)))
        inside = hours[(hours >= chosen * 168) & (hours < chosen * 168 + 168)]
        parts.append(inside - chosen * 168 + week * 168 - key.zone_h)
    at = np.sort(np.concatenate(parts))
    sizes = rng.geometric(1 / 5.0, len(at))
    gaps = rng.choice(world.sources.gaps, int(sizes.sum())) * GAP_S / 3600
    running = np.cumsum(gaps)
    begin = np.repeat(np.cumsum(sizes) - sizes, sizes)
    found: Floats = np.sort(np.repeat(at, sizes) + running - running[begin])
    return found[(found >= 0) & (found < world.days * 24)]


def hourly_rate(key: Key, world: World, rng: np.random.Generator, calls_a_day: float = 0.0) -> Floats:
    """Expected calls per hour of a service: days of its series by type, a drifting level, its class's volume.

    `calls_a_day`: its own level, where that is known.
    """
    counts = world.sources.series[key.source]
    whole = len(counts) // 288
    by_day = counts[: whole * 288].reshape(whole, 24, 12).sum(axis=2)
    weekend = np.arange(whole) % 7 >= 5
    day = np.arange(world.days)
    chosen = np.where(
        day % 7 >= 5, rng.choice(np.flatnonzero(weekend), world.days), rng.choice(np.flatnonzero(~weekend), world.days)
    )
    level = np.exp(np.cumsum(rng.normal(0.0, 0.1 / np.sqrt(7), world.days)))
    target = calls_a_day or CALLS_A_DAY[key.volume] * np.exp(rng.normal(0.0, 0.5))
    rate = by_day[chosen] / by_day.sum(axis=1).mean() * target * level[:, None]
    turned: Floats = np.roll(rate.reshape(-1), -key.zone_h)
    return turned


def history(key: Key, world: World, rng: np.random.Generator) -> Array:
    """All calls of one key (CALL), sorted by time."""
    at = START_US + (starts(key, world, rng) * HOUR_US).astype(np.int64)
    return dress(key, world, at, rng)


def dress(key: Key, world: World, at_us: Ints, rng: np.random.Generator) -> Array:
    """The innocent context of calls at these times (sorted): per visit place, client and a block of a donor's lines."""
    calls = np.zeros(len(at_us), CALL)
    if not len(at_us):
        return calls
    calls["ts_us"], calls["key"] = at_us, key.number
    calls["zone_h"] = key.zone_h if key.zone_declared else NO_ZONE
    visit = at_us // VISIT_US
    numbers, first, which = np.unique(visit, return_index=True, return_inverse=True)
    place, client = _contexts(key, world, numbers, rng)
    calls["place"], calls["client"] = place[which], client[which]
    _routes(key, world, calls, which, first, rng)
    return calls


def _contexts(key: Key, world: World, visits: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Place and client of each visit; what is new stays or is a trip."""
    place = rng.choice(key.homes, len(visits), p=key.home_share)
    client = rng.choice(key.clients, len(visits)) if rng.random() < 0.5 else np.full(len(visits), key.clients[0])
    days = (visits[-1] - visits[0]) * VISIT_US / DAY_US
    for _ in range(rng.poisson(key.place_hazard * days)):
        begin, end = _stay(visits, rng)
        moved = slice(begin, end)
        place[moved] = np.where(rng.random(end - begin) < 0.7, new_place(key, world, rng), place[moved])
        if rng.random() < 0.25:
            client[moved] = rng.integers(len(world.words.agents))
    for _ in range(rng.poisson(key.client_hazard * days)):
        begin, end = _stay(visits, rng)
        client[begin:end] = rng.integers(len(world.words.agents))
    return place, client


def _stay(visits: Ints, rng: np.random.Generator) -> tuple[int, int]:
    """A stretch of visits: from a random time on, for good or for one to eight days."""
    at = visits[0] + rng.random() * (visits[-1] - visits[0])
    length = np.inf if rng.random() < 0.5 else rng.uniform(1, 8) * DAY_US / VISIT_US
    return int(np.searchsorted(visits, at)), int(np.searchsorted(visits, at + length))


def new_place(key: Key, world: World, rng: np.random.Generator, *, abroad: bool | None = None) -> int:
    """A place in another network than the key's; in three of ten cases (or as `abroad` says) in another country."""
    words = world.words
    every = np.arange(words.siblings)
    other = ~np.isin(words.network(every), words.network(key.homes))
    foreign = ~np.isin(words.country(every), words.country(key.homes))
    wanted = (rng.random() < 0.3) if abroad is None else abroad
    fitting = np.flatnonzero(other & (foreign == wanted))
    return int(rng.choice(fitting if len(fitting) else np.flatnonzero(other)))


def _routes(key: Key, world: World, calls: Array, which: Ints, first: Ints, rng: np.random.Generator) -> None:
    """What the key's visits ask for; sometimes a route it has never used, with an answer and an object of that."""
    own_routes(key, world, calls, which, first, rng)
    days = (calls["ts_us"][-1] - calls["ts_us"][0]) / DAY_US
    fresh = rng.integers(0, len(calls), rng.poisson(key.route_hazard * days))
    calls["operation"][fresh] = rng.choice(len(world.sources.operations), len(fresh), p=world.sources.popularity)
    answers = world.sources.answered(calls["operation"][fresh].astype(np.int64), rng)
    for column, name in enumerate(("bytes_out", "status", "object")):
        calls[name][fresh] = answers[:, column]
    calls["outcome"] = np.where(calls["status"] == 403, DENIED, SUCCESS)


def own_routes(key: Key, world: World, calls: Array, which: Ints, first: Ints, rng: np.random.Generator) -> None:
    """Into `calls` per visit (`which`, beginning at `first`) consecutive lines of one of the key's donors."""
    lines = [world.sources.donors[i] for i in key.donors]
    lengths = np.array([len(donor.operations) for donor in lines])
    begin = np.cumsum(lengths) - lengths
    share = 1.0 / np.arange(1, len(lines) + 1)
    chosen = rng.choice(len(lines), len(first), p=share / share.sum())
    offset = rng.integers(0, 1 << 30, len(first))
    row = begin[chosen[which]] + (offset[which] + np.arange(len(calls)) - first[which]) % lengths[chosen[which]]
    calls["operation"] = joined(lines, "operations")[row]
    calls["status"] = joined(lines, "status")[row]
    calls["bytes_out"] = joined(lines, "bytes_out")[row]
    calls["object"] = joined(lines, "objects")[row]
    calls["outcome"] = np.where(calls["status"] == 403, DENIED, SUCCESS)


def joined(donors: list[Donor], name: str) -> Ints:
    """One column of several donors' lines."""
    return np.concatenate([getattr(donor, name) for donor in donors])


def events_of(calls: Array, words: Vocabulary, slots: Ints) -> Array:
    """CALL, in the log's order -> EVENT: the vocabularies' records, the hours, the requests' numbers.

    Late is what comes later than the lateness: the watermark is with the log, as other keys and ticks move it.
    """
    events = np.repeat(words.empty, len(calls))
    for table, column in ((words.places, "place"), (words.clients, "client"), (words.routes, "operation")):
        name = {"place": "places", "client": "clients", "operation": "routes"}[column]
        for field in words.owner_of[name]:
            events[field] = table[field][calls[column]]
    events["ts_us"], events["slot"] = calls["ts_us"], slots
    for field in ("bytes_out", "status", "outcome", "object"):
        events[field] = calls[field]
    events["authenticated"] = np.isin(calls["outcome"], (SUCCESS, DENIED, LIMITED))
    events["error"] = error_class(calls["status"])
    events["address"] ^= calls["turn"] * ANOTHER
    events["request"] = np.where(calls["request"] > 0, calls["request"], np.arange(1, len(calls) + 1))
    events["utc_hour"] = (calls["ts_us"] // HOUR_US + 72) % 168
    local = (events["utc_hour"].astype(np.int64) + calls["zone_h"]) % 168
    events["local_hour"] = np.where(calls["zone_h"] == NO_ZONE, -1, local)
    events["late"] = calls["behind_us"] > LATENESS_US
    return events


def error_class(status: Array) -> Array:
    """ERROR_* of statuses, by the enrichment's own table."""
    from pipeline.enrich import ERROR_CLASS

    classes: Array = ERROR_CLASS[status]
    return classes
