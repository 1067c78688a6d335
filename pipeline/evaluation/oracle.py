"""How strong a planted attack is: log2 of its likelihood under an attack's generator over the innocent one's.

The oracle knows both generators (`world`, `attacks`) and each key's rates, but not what only the draws say that a key
was made by: which routes it may yet ask for. Every part is a likelihood ratio of which an innocent visit has the mean 1
at most, so that a product of them reaches 2^b in at most one of 2^b innocent visits, whenever it is read
(Markov, Ville); tests/evaluation/test_oracle.py holds each part and their sum to that on untouched traffic, and the
benchmark prints it of its own keys (`exceedance`).

context  The place's hazard, once per network (during a trip the owner's own visits are from either place) and again in
         each half hour in which the owner called in between: innocent half hours have one place, so that any value
         holds. The client's too, and each time the owner came between: a change lasts a day at least, at every place.
routes   Operation and status that the key never had, once each, by how rarely such keys bring such (`new_routes`). Own
         operations are as likely in an attack that does what the owner does, half as likely in one that has routes of
         its own.
sizes    Four times as large and 4,000 more (what attacks on sizes do) against the key's own, by half hour, where any
         of the half hour's calls, the owner's too, may be the planted one.
volume   `volume`: counts of each day's first visit, days multiplied (visits of one day swell together); or since the
         first call of all. What is due of the owner in that time is added.
hours    The hour that each day's first visit begins in, against an intruder who knows none.

Networks, client families and routes that the owner had before, or has in these days, are the key's own (`settled`).
Not knowing whether a part says anything costs a bit of each that does. Identities are not counted: which foreign place,
which operation of a kind, which object of what size. Nor is the silence before a first call.
`cut` keeps the first calls that reach the wanted bits; what a scenario cannot reach is reported as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.new_routes import NewRoutes, cells, first_times, route, states
from pipeline.evaluation.sources import Sources
from pipeline.evaluation.volume import LONG_SPANS_S, VISIT_SPANS_S, Law, laws
from pipeline.evaluation.world import DAY_US, HOUR_US, NO_ZONE, US, VISIT_US, Key, World

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

LEAST_RATE: Final = 0.02
"""Calls an hour: what an owner may always do, ten times a month at odd hours."""
BINS: Final = np.arange(4.5, 22.5, 0.5)
"""Edges of ln(bytes + 100)."""
PARTS: Final = ("context", "routes", "sizes", "volume", "hours")


@dataclass(frozen=True, slots=True)
class Habits:
    """What the oracle knows of one key."""

    visits_a_day: float
    calls_a_day: float
    hourly: Floats  # calls per hour by hour of the day, UTC
    begins: Floats  # share of its visits by hour of the day, UTC
    visits_us: npt.NDArray[np.int64]  # when they began, sorted
    new_routes: NewRoutes
    larger: Floats  # by bin: density of larger sizes over that of the own
    visit: Law  # of its calls within VISIT_SPANS_S
    long: Law  # and LONG_SPANS_S
    places: npt.NDArray[np.int64]  # (n, 2): each place of its owner's, and when he was there first, us
    clients: npt.NDArray[np.int64]  # (n, 2): each client likewise
    routes: npt.NDArray[np.int64]  # (n, 2): each route likewise
    own: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # routes until a time (`settled`)
    visits: int = 0  # until then


def habits(key: Key, world: World, calls: Array, new_routes: NewRoutes) -> Habits:
    """From the key's untouched calls through all days, and from its generator."""
    days = float(world.days)
    hour = (calls["ts_us"] // HOUR_US % 24).astype(np.int64)
    first = np.unique(calls["ts_us"] // VISIT_US, return_index=True)[1]
    calls_a_day = max(0.1, len(calls) / days)
    begins = np.bincount(hour[first], minlength=24) + 1.0
    visit, long = laws(key, world, calls_a_day)
    return Habits(
        max(0.05, len(first) / days), calls_a_day,
        np.maximum(np.bincount(hour, minlength=24) / max(1.0, days), LEAST_RATE), begins / begins.sum(),
        calls["ts_us"][first].astype(np.int64), new_routes, _larger(calls, first, world.sources),
        visit, long, _firsts(calls["place"], calls["ts_us"]), _firsts(calls["client"], calls["ts_us"]),
        _firsts(route(calls["operation"], calls["status"]), calls["ts_us"]),
    )  # fmt: skip


def _firsts(values: Array, at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n, 2): each value and when it came first; looked up at its turns alone, which are few."""
    turns = np.flatnonzero(np.diff(values.astype(np.int64), prepend=-1))
    each, first = np.unique(values[turns], return_index=True)
    return np.stack([each.astype(np.int64), at[turns[first]]], axis=1)


def settled(key: Key, known: Habits, calls: Array, start_us: int) -> tuple[Key, Habits]:
    """The key and its habits with every place, client and route that its owner had before `start_us` or in `calls`.

    What he had once, on an earlier trip, say, is no evidence when it comes again: he may be back.
    """

    def joined_by(own: npt.ArrayLike, firsts: npt.NDArray[np.int64], his: npt.ArrayLike) -> npt.NDArray[np.int64]:
        before = firsts[firsts[:, 1] < start_us, 0]
        return np.unique(np.concatenate([np.asarray(own, np.int64), before, np.asarray(his, np.int64)]))

    return (
        replace(key, homes=joined_by(key.homes, known.places, calls["place"]),
                clients=joined_by(key.clients, known.clients, calls["client"])),
        replace(known, own=joined_by((), known.routes, route(calls["operation"], calls["status"])),
                visits=int(np.searchsorted(known.visits_us, start_us))),
    )  # fmt: skip


def _larger(calls: Array, first: npt.NDArray[np.int64], sources: Sources) -> Floats:
    """Scaled so that the mean over the key's visits of their calls' mean is 1."""
    if not len(calls):
        return np.ones(len(BINS) + 1)
    length = np.diff(np.append(first, len(calls)))
    weight = np.repeat(1.0 / length / len(first), length)
    sizes = calls["bytes_out"].astype(np.float64)
    everyone = _density(sources.answers[:, 0].astype(np.float64), None)
    attack = 0.9 * _density(4 * sizes + 4000, weight) + 0.1 * everyone
    ratio = attack / (0.9 * _density(sizes, weight) + 0.1 * everyone)
    return np.asarray(ratio / (ratio[_bin(sizes)] * weight).sum())


def _bin(sizes: Floats) -> npt.NDArray[np.int64]:
    return np.digitize(np.log(sizes + 100.0), BINS)


def _density(sizes: Floats, weight: Floats | None) -> Floats:
    """Shares by bin, each with a quarter of its neighbours' and nowhere 0."""
    shares = np.bincount(_bin(sizes), weight, minlength=len(BINS) + 1).astype(np.float64)
    spread = np.convolve(np.pad(shares, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid") + 1e-6
    return np.asarray(spread / spread.sum())


def bits(key: Key, known: Habits, world: World, planted: Array, owner_us: npt.NDArray[np.int64]) -> Floats:
    """Bits after each planted call (sorted by time); `owner_us`: times of the owner's calls, sorted."""
    return np.asarray(sum(parts(key, known, world, planted, owner_us).values(), np.zeros(len(planted))))


def parts(key: Key, known: Habits, world: World, planted: Array, owner_us: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """The same by part (PARTS): the most that each has said so far."""
    if not len(planted):
        return {name: np.zeros(0) for name in PARTS}
    return {
        "context": _context(key, known, world, planted, owner_us),
        "routes": perhaps(_routes(key, known, world, planted)),
        "sizes": perhaps(_sizes(known, planted, owner_us)),
        "volume": perhaps(_visits(known, planted, owner_us), _since_first(known, planted, owner_us)),
        "hours": perhaps(_hours(known, planted)),
    }


def perhaps(*said: Floats) -> Floats:
    """The ratio of an attack of which one of these, or nothing, is true; the highest so far."""
    odds = np.stack([np.zeros(len(said[0])), *said])
    most = odds.max(axis=0)
    return np.asarray(np.maximum.accumulate(most + np.log2(np.mean(2.0 ** (odds - most), axis=0))).clip(0.0))


def _context(key: Key, known: Habits, world: World, planted: Array, owner_us: npt.NDArray[np.int64]) -> Floats:
    """Place and client; each costs a bit for not knowing whether it would be another."""
    back, beside = _returns(planted["ts_us"], owner_us)
    network = world.words.network(planted["place"])
    foreign = ~np.isin(network, world.words.network(key.homes))
    abroad = ~np.isin(world.words.country(planted["place"]), world.words.country(key.homes))
    fresh = np.zeros(len(planted), np.bool_)
    fresh[np.unique(network, return_index=True)[1]] = True
    hazard = np.minimum(0.5, key.place_hazard / known.visits_a_day * np.where(abroad, 0.3, 0.7))
    place = np.where(foreign & (fresh | beside), -np.log2(hazard) - 1.0, 0.0)
    family = world.words.clients["client"]
    strange = ~np.isin(family[planted["client"]], family[key.clients])
    apart = min(0.5, key.client_hazard / known.visits_a_day)
    client = -np.log2(np.where(foreign & fresh, 0.25, apart)) - 1.0
    said = np.where(foreign[0], place, 0.0) + np.where(strange & (back | beside) & strange[0], client, 0.0)
    return np.asarray(np.cumsum(said))


def _returns(
    at: npt.NDArray[np.int64], owner_us: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Per planted call: a visit before which the owner came, the first call too; a half hour's first after the owner's.

    The latter only where planted calls were before: what changes back within a half hour has changed twice.
    """
    turn = np.searchsorted(owner_us, at)
    between = np.append(True, turn[1:] != turn[:-1])
    back = between & np.append(True, np.diff(at) > VISIT_US)
    last_us = np.append(owner_us, 0)[turn - 1]
    mixed = np.flatnonzero(between & (turn > 0) & (last_us // VISIT_US == at // VISIT_US))
    mixed = mixed[mixed > 0]
    beside = np.zeros(len(at), np.bool_)
    beside[mixed[np.unique(at[mixed] // VISIT_US, return_index=True)[1]]] = True
    return back, beside


def _routes(key: Key, known: Habits, world: World, planted: Array) -> Floats:
    """Of an attack with routes of its own: what is new has its bits once, what is the key's own costs a bit."""
    routes = route(planted["operation"], planted["status"])
    own, at = np.isin(routes, known.own), planted["ts_us"].astype(np.int64)
    first = first_times(routes) & ~own
    came_us = np.unique(np.concatenate([known.routes[:, 1], at[first]]))  # the owner's, these days' too, and these
    new = known.new_routes.of(key.volume, known.visits)[states(at, came_us), cells(world, routes)]
    return np.asarray(np.cumsum(np.where(own, -1.0, np.where(first, new, 0.0))))


def _sizes(known: Habits, planted: Array, owner_us: npt.NDArray[np.int64]) -> Floats:
    """Per half hour the mean ratio of its calls, the owner's being 1 in the mean."""
    ratio = known.larger[_bin(planted["bytes_out"].astype(np.float64))]
    half_hours, begins, which = np.unique(planted["ts_us"] // VISIT_US, return_index=True, return_inverse=True)
    owner = np.diff(np.searchsorted(owner_us, np.stack([half_hours, half_hours + 1]) * VISIT_US), axis=0)[0][which]
    first = begins[which]
    running = np.cumsum(ratio)
    planted_so_far = np.arange(len(planted)) - first + 1
    return _by_visit(first, np.log2((owner + running - (running - ratio)[first]) / (owner + planted_so_far)))


def _first_visits(planted: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Per call the index of its visit's first, and whether that visit is the first of a day."""
    at = planted["ts_us"]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(at) > VISIT_US) + 1])
    of_day = np.unique(at[begins] // DAY_US, return_index=True)[1]
    which = np.searchsorted(begins, np.arange(len(at)), side="right") - 1
    return begins[which], np.isin(which, of_day)


def _visits(known: Habits, planted: Array, owner_us: npt.NDArray[np.int64]) -> Floats:
    """The counts of each day's first visit, days multiplied; a visit may be as any."""
    first, of_day = _first_visits(planted)
    said = known.visit.bits(_counts(known, planted["ts_us"], first, VISIT_SPANS_S, owner_us))
    visit = np.where(of_day, np.log2(0.5 + 0.5 * 2.0 ** np.minimum(said, 900.0)), 0.0)
    return _by_visit(first, visit)


def _by_visit(first: npt.NDArray[np.int64], said: Floats) -> Floats:
    """What groups of calls (beginning at `first`) say so far, added up."""
    begins = np.unique(first)
    last = np.append(begins[1:], len(first)) - 1
    ended = np.concatenate([[0.0], np.cumsum(said[last])])
    return np.asarray(ended[np.searchsorted(begins, first)] + said)


def _since_first(known: Habits, planted: Array, owner_us: npt.NDArray[np.int64]) -> Floats:
    """The counts since the first call."""
    at = planted["ts_us"]
    return known.long.bits(_counts(known, at, np.zeros(len(at), np.int64), LONG_SPANS_S, owner_us))


def _counts(
    known: Habits, at: npt.NDArray[np.int64], first: npt.NDArray[np.int64], spans_s: tuple[int, ...],
    owner_us: npt.NDArray[np.int64],
) -> Floats:  # fmt: skip
    """(calls, spans): planted calls from `first` on so far, within each span, and what is due of an owner who calls."""
    since = (at - at[first]) / US
    number = np.arange(len(at)) - first + 1
    rate = np.where(since < 21_600, known.hourly[(at // HOUR_US % 24).astype(np.int64)], known.calls_a_day / 24)
    rate = rate if len(owner_us) else np.zeros(len(at))
    counts = np.zeros((len(at), len(spans_s)))
    for column, span in enumerate(spans_s):
        inside = np.searchsorted(at, at[first] + span * US, side="right") - first
        counts[:, column] = np.minimum(number, inside) + rate * np.minimum(since, span) / 3600
    return counts


def _hours(known: Habits, planted: Array) -> Floats:
    """When each day's first visit begins."""
    first, of_day = _first_visits(planted)
    counts = of_day & (first == np.arange(len(planted)))
    share = known.begins[(planted["ts_us"] // HOUR_US % 24).astype(np.int64)]
    return np.asarray(np.cumsum(np.where(counts, np.log2(0.5 + 0.5 / 24 / share), 0.0)))


def cut(
    key: Key, known: Habits, world: World, planted: Array, owner_us: npt.NDArray[np.int64], wanted: float
) -> tuple[Array, float]:
    """The first calls that together have `wanted` bits (or all there are), and the bits they have."""
    after = bits(key, known, world, planted, owner_us)
    enough = np.flatnonzero(after >= wanted)
    count = int(enough[0]) + 1 if len(enough) else len(planted)
    return planted[:count], float(after[count - 1]) if count else 0.0


def zone(key: Key) -> int:
    """What CALL says of the key's zone."""
    return key.zone_h if key.zone_declared else NO_ZONE
