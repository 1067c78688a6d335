"""Events -> EVENT records: where from, by what client, on which route, at what local time.

The hot path: what is the same for many events (address, user agent, route, outcome) is worked out once per distinct
value and kept in bounded tables; per event there are a few dict look-ups, and numpy gathers the rest. Measured on
slices of 1,000 events with 5,000 addresses and 3,000 paths: about what decoding them takes, twice that
where every key declares zone and business hours. Nothing here depends on what is cached: the tables only spare work.
Texts go on as codes into those tables (`Coded`), so that rows and aggregates ask for each distinct one only once.

Hashes are the same in every process: blake2b for what is cached, a vectorised mixer for request ids, which are new
with every event. The mixer is no cryptography: who can choose request ids can repeat them as well, but not their times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np

from detectors.detector import (
    DECLARED_LEAKED,
    ERROR_5XX,
    ERROR_401,
    ERROR_403,
    ERROR_404,
    ERROR_429,
    ERROR_NONE,
    ERROR_OTHER_4XX,
    EVENT,
    OPERATION_UNKNOWN,
    UNKNOWN_NETWORKS,
)
from pipeline import spans
from pipeline.batch import Kind
from pipeline.clients import family, version
from pipeline.column import Coded, joint
from pipeline.config.tree import KeyLife
from pipeline.fields import Fields
from pipeline.geo.provider import Geo, Place
from pipeline.hours import Hours, utc_hour
from pipeline.keys.declared import AS_SHIPPED, Declarations
from pipeline.operations import COMBINED, of_method, of_route
from pipeline.routes import template, with_fewer_ids
from schemas.event import AUTHENTICATED, ENVIRONMENTS, METHODS, OUTCOMES
from schemas.key import Key

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Array = np.ndarray[Any, np.dtype[Any]]

TABLE_ROWS: Final = 1 << 16
"""Distinct values kept per kind and generation: about 15 MB for addresses, the dearest."""

PLACE: Final = np.dtype(
    [("address", "u8"), ("prefix", "u8"), ("asn", "u4"), ("lat", "f4"), ("lon", "f4"), ("accuracy_km", "f4"),
     ("country", "u2"), ("net_flags", "u1")]
)  # fmt: skip
CLIENT: Final = np.dtype([("client", "u4"), ("version", "u1")])
ROUTE: Final = np.dtype([("route", "u4"), ("names", "u1"), ("verb", "u1")])
KIND: Final = np.dtype(
    [("method", "u1"), ("outcome", "u1"), ("authenticated", "u1"), ("live", "u1"), ("sees", "u1"), ("does", "u1"),
     ("salt", "u4")]
)  # fmt: skip
"""What follows from method, outcome, environment and source, each of few values."""

_METHOD_INDEX: Final = {name: index for index, name in enumerate(METHODS)}
_OUTCOME_INDEX: Final = {name: index for index, name in enumerate(OUTCOMES)}
_LIVE_INDEX: Final = {name: index for index, name in enumerate(ENVIRONMENTS)}


def _error_classes() -> Array:
    """status -> ERROR_*; statuses run from 0 to 599."""
    classes = np.full(600, ERROR_NONE, "u1")
    classes[400:500] = ERROR_OTHER_4XX
    classes[500:] = ERROR_5XX
    classes[[401, 403, 404, 429]] = (ERROR_401, ERROR_403, ERROR_404, ERROR_429)
    return classes


ERROR_CLASS: Final = _error_classes()


class Table(Generic[K, V]):
    """Distinct values with their numbers (one row of a dtype) and their object, in two generations.

    When the table is full it begins anew; what is asked for again is taken over from the generation before.
    """

    def __init__(
        self, dtype: np.dtype[Any], work_out: Callable[[K], tuple[tuple[Any, ...], V]], rows: int,
        words: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`words`: attributes of the objects that are texts for rows, kept as lists of their own."""
        self._work_out = work_out
        self._most = rows
        self._rows = np.zeros(1024, dtype)
        self._index: dict[K, int] = {}
        self._objects: list[V] = []
        self.keys: list[K] = []  # by code
        self._words: dict[str, list[str]] = {name: [] for name in words}
        self._before: dict[K, tuple[tuple[Any, ...], V]] = {}

    def __len__(self) -> int:
        return len(self._index)

    def find(self, keys: Coded[K]) -> tuple[Array, Coded[V]]:
        """The rows and the objects of these keys, in their order."""
        found = self._find(keys.values).take(keys.codes)
        return self._rows.take(found), Coded(found, self._objects)

    def _find(self, keys: Sequence[K]) -> Array:
        try:
            return np.fromiter(map(self._index.__getitem__, keys), np.intp, len(keys))
        except KeyError:
            self._admit(keys)
            return np.fromiter(map(self._index.__getitem__, keys), np.intp, len(keys))

    def _admit(self, keys: Sequence[K]) -> None:
        missing = [key for key in dict.fromkeys(keys) if key not in self._index]
        if self._index and len(self._index) + len(missing) > self._most:
            self._turn()
            missing = list(dict.fromkeys(keys))
        before, work_out, first = self._before, self._work_out, len(self._objects)
        found = [before.get(key) or work_out(key) for key in missing]
        end = first + len(found)
        while end > len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[first:end] = [row for row, _ in found]
        self._index.update(zip(missing, range(first, end), strict=True))
        self._objects.extend([value for _, value in found])
        self.keys.extend(missing)
        for name, texts in self._words.items():
            texts.extend(map(attrgetter(name), self._objects[first:]))

    def _turn(self) -> None:
        """Begin anew; the lists are replaced, not emptied, since batches may still hold them."""
        rows = self._rows.tolist()
        self._before = {key: (rows[at], self._objects[at]) for key, at in self._index.items()}
        self._index, self._objects, self.keys = {}, [], []
        self._words = {name: [] for name in self._words}

    def words(self, codes: Array) -> dict[str, Coded[str]]:
        """The texts of what `find` has just found."""
        return {name: Coded(codes, texts) for name, texts in self._words.items()}


@dataclass(frozen=True, slots=True)
class EnrichedBatch:
    """The records (slot -1 and late 0, for `admit` to fill) and, per event, what rows and words need as text."""

    columns: Array  # EVENT
    places: Coded[Place]
    prefixes: Array  # 64-bit hash of each address's prefix
    clients: Coded[str]  # family of the user agent, "" is none
    routes: Coded[str]  # the gateway's route or the path's template, "" is none; without method
    words: dict[str, Coded[str]]  # what rows say of an event, by column of `schemas.rows.REQUESTS`


class Enricher:
    """One per partition (not thread-safe); `sees_of` maps an event's `source` to its format's SEES_* bits."""

    def __init__(
        self, geo: Geo, sees_of: Callable[[str], int], table_rows: int = TABLE_ROWS, life: KeyLife = AS_SHIPPED
    ) -> None:
        self.geo = geo
        self._sees_of = sees_of
        self._hours = Hours()
        self._declarations = Declarations(life)
        self._places: Table[str, Place] = Table(PLACE, self._place, table_rows, ("text", "country"))
        self._clients: Table[str, str] = Table(CLIENT, _client, table_rows)
        self._routes: Table[str, str] = Table(ROUTE, _route, table_rows)
        self._kinds: Table[tuple[str, ...], Kind] = Table(
            KIND, self._kind, table_rows, ("method", "environment", "scope")
        )

    def columns(self, told: Fields, offsets: Sequence[int] | Array, declared: Coded[Key | None]) -> EnrichedBatch:
        """All of equal length; `declared[i]`: the catalogue's word on the key of event i."""
        out = np.zeros(len(told), EVENT)
        self._measures(out, told, offsets)
        known, places = self._places.find(told.coded("client_ip"))
        _spread(out, known)
        numbers, clients = self._clients.find(told.coded("user_agent"))
        _spread(out, numbers)
        out["fingerprint"] = _fingerprints(told.coded("fingerprint"))
        said, kinds = self._kinds.find(joint([told.coded(name) for name in Kind._fields]))
        _spread(out, said)
        routes, does = self._operations(out, told, said)
        out["declared"] = self._declarations.bits(
            declared, said["live"], does, out["ts_us"], told.coded("scope"), told.coded("client_ip"), places
        )
        if (out["declared"] & DECLARED_LEAKED).any():
            out["leaked_h"] = np.where(out["declared"] & DECLARED_LEAKED, self._declarations.leaked_h(declared), 0)
        self._times(out, declared)
        words = self._kinds.words(kinds.codes) | self._places.words(places.codes)
        words["client_ip"] = words.pop("text")
        words |= {"client": clients, "user_agent": Coded(clients.codes, self._clients.keys), "route": routes}
        prefixes = np.ascontiguousarray(known["prefix"])  # of one event it is so anyway, and compiled code tells apart
        return EnrichedBatch(out, places, prefixes, clients, routes, words)

    def _measures(self, out: Array, told: Fields, offsets: Sequence[int] | Array) -> None:
        out["offset"] = offsets
        for name in ("ts_us", "bytes_in", "bytes_out", "status"):
            out[name] = told.number(name)
        out["latency_ms"] = told.latency_ms
        out["error"] = ERROR_CLASS[out["status"]]
        out["request"] = request_hashes(told)
        out["object"] = _hashes(told, "path") >> np.uint64(32)
        out["slot"] = -1

    def _times(self, out: Array, declared: Coded[Key | None]) -> None:
        seconds = out["ts_us"] // 1_000_000
        clock = self._hours.clock(seconds, declared)
        out["utc_hour"] = utc_hour(seconds)
        out["local_hour"] = clock.local_hour
        out["in_hours"] = clock.in_hours
        out["live"] = np.where(out["live"] == 0, clock.live, out["live"])

    def _place(self, address: str) -> tuple[tuple[Any, ...], Place]:
        place = self.geo.look_up(address)
        country = ord(place.country[0]) * 256 + ord(place.country[1]) if place.country else 0
        number = hash64(place.address) if place.address else 0
        prefix = hash64(place.prefix.encode())
        network = place.asn or (UNKNOWN_NETWORKS + country if country else 0)
        return (number, prefix, network, place.lat, place.lon, place.accuracy_km, country, place.flags), place

    def _kind(self, key: tuple[str, ...]) -> tuple[tuple[Any, ...], Kind]:
        kind = Kind(*key)
        return (
            _METHOD_INDEX.get(kind.method, 0), _OUTCOME_INDEX.get(kind.outcome, 0),
            1 if kind.outcome in AUTHENTICATED else 0, _LIVE_INDEX.get(kind.environment, 0),
            self._sees_of(kind.source), of_method(kind.method), hash32(kind.method.encode()),
        ), kind  # fmt: skip

    def _operations(self, out: Array, told: Fields, said: Array) -> tuple[Coded[str], Array]:
        """Routes, and what method or verb does.

        In `out` are the route's number with the method's, and the operation's class.
        """
        known, routes = self._routes.find(_given_or_path(told))
        mixed = _finalise(known["route"].astype("u8") << np.uint64(32) | said["salt"]) >> np.uint64(32)
        out["route"] = np.where(known["route"] == 0, 0, np.maximum(mixed, 1))
        does = np.where(said["does"] == OPERATION_UNKNOWN, known["verb"], said["does"])
        out["operation"] = COMBINED[known["names"], does]
        return routes, does


def _given_or_path(told: Fields) -> Coded[str]:
    """The gateway's route, else the path with fewer ids behind a line feed, which marks it as a path."""
    given = told.coded("route")
    if "" not in given.values:
        return given
    short = with_fewer_ids(*told.span("path"))
    paths = ["\n" + text for text in short.values]
    none = given.values.index("")
    return Coded(np.where(given.codes == none, short.codes, len(paths) + given.codes), [*paths, *given.values])


def _spread(out: Array, rows: Array) -> None:
    """Copy every field of `rows` that `out` has."""
    for name in set(rows.dtype.names or ()).intersection(out.dtype.names or ()):
        out[name] = rows[name]


def _route(key: str) -> tuple[tuple[Any, ...], str]:
    given = template(key[1:]) if key.startswith("\n") else key
    return (_route_hash(given), *of_route(given)), given


def _client(user_agent: str) -> tuple[tuple[Any, ...], str]:
    name = family(user_agent)
    return (hash32(name.encode()) if name else 0, version(user_agent)), name


def _fingerprints(texts: Coded[str]) -> Array:
    """Hash of each; not kept, since callers can send a new one with each connection."""
    return np.array([hash32(text.lower().encode()) if text else 0 for text in texts.values], "u4").take(texts.codes)


@lru_cache(maxsize=1 << 14)  # many paths, few routes
def _route_hash(route: str) -> int:
    return hash32(route.encode()) if route else 0


def hash64(raw: bytes) -> int:
    """Stable 64 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest()) or 1


def hash32(raw: bytes) -> int:
    """Stable 32 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=4).digest()) or 1


_canonical = msgspec.msgpack.Encoder()
_WORD_SEEDS: Final = np.random.default_rng(0x6B657977).integers(1, 1 << 63, 512, np.uint64)  # 1,024 characters of UTF-8


def request_hashes(told: Fields) -> Array:
    """Identity of each event, never 0: of its request id, its time and what was asked and answered; or where it has no
    id, of all that it says.

    Many gateways log the id that the caller has sent (`X-Request-Id`), and times in whole seconds: by these alone all
    that a thief does in a second under one id would be one request, a refused one perhaps. A line that is delivered
    twice says all of it twice.
    """
    hashes = _hashes(told, "request_id")
    _, _, lengths = told.span("request_id")
    nameless = np.flatnonzero(lengths == 0).tolist()
    if nameless:
        whole = [hashlib.blake2b(_canonical.encode(told.event(i)), digest_size=16).digest() for i in nameless]
        hashes[nameless] = mix64(whole)
    hashes ^= _finalise(told.ts_us.astype("u8")) ^ _asked_and_answered(told)
    hashes[hashes == 0] = 1
    return hashes


def _asked_and_answered(told: Fields) -> Array:
    """Of path, status, sizes and duration."""
    mixed = _hashes(told, "path")
    for numbers in (*map(told.number, ("status", "bytes_in", "bytes_out")), np.ascontiguousarray(told.latency_ms)):
        mixed = _finalise(mixed ^ numbers.view("u8"))
    return mixed


def _hashes(told: Fields, name: str) -> Array:
    """64 bits of each text; 0 where there is none."""
    data, starts, lengths = told.span(name)
    hashes = np.empty(len(told), "u8")
    spans.mix64(data, starts, lengths, _WORD_SEEDS, hashes)
    return hashes * (lengths > 0)


def mix64(texts: Sequence[bytes]) -> Array:
    """`spans.mix64` of texts that are there already."""
    lengths, hashes = np.array([len(text) for text in texts], np.int64), np.empty(len(texts), "u8")
    spans.mix64(spans.buffer(texts), np.cumsum(lengths) - lengths, lengths, _WORD_SEEDS, hashes)
    return hashes


def _finalise(words: Array) -> Array:
    """splitmix64's last steps, per element."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = words ^ (words >> np.uint64(31))
    return mixed
