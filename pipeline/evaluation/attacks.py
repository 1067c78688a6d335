"""The 16 attacks of keybench: who plants which calls into one key's traffic, before the oracle cuts them to strength.

Every function takes a `Stage` and gives a `Plan`: the owner's calls as they then are, and the planted calls in order
of time. When an intruder calls comes from recorded attacks (`Payload`), and how sensitive it is where the scenario is
about routes; routes, agents, networks, objects and sizes come from what innocent keys use. What a scenario does not
name (tests/evaluation/scenarios.json) is as the key's own calls are: its operations, statuses, sizes and objects, or
the leak audit would find it. `planted` is 1 on what the oracle counts, 2 on preparation (a slow ramp), which counts as
detected when it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.detector import NET_HOSTING
from pipeline.evaluation.oracle import Habits, zone
from pipeline.evaluation.sources import ADMIN, CREDENTIAL, DELETE, Ints
from pipeline.evaluation.world import (
    CALL,
    DAY_US,
    DENIED,
    HOUR_US,
    INVALID,
    SUCCESS,
    US,
    Key,
    World,
    new_place,
    own_routes,
)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

BLOCK: Final = 10
"""Calls that follow one another in a donor, as in a visit."""
MOST_CALLS: Final = 400
"""Of an attack; at 40 bits the oracle cuts long before, but for slow ones."""
LEAST_SWARM: Final = 20
"""Addresses."""


@dataclass(frozen=True)
class Stage:
    """One placement: the key, its untouched calls from `start_us` on for some days, and a random stream of its own."""

    key: Key
    world: World
    known: Habits
    base: Array  # CALL
    start_us: int
    days: float
    rng: np.random.Generator

    @property
    def end_us(self) -> int:
        """Where the placement's traffic ends."""
        return self.start_us + int(self.days * DAY_US)

    def some_time(self, margin_days: float = 0.5) -> int:
        """A random time in the first days, `margin_days` before the end at least."""
        return self.start_us + int(self.rng.uniform(0.05, max(0.1, self.days - margin_days)) * DAY_US)

    def active_time(self) -> int:
        """Some minutes after one of the owner's calls; a random time where there is none."""
        early = self.base[self.base["ts_us"] < self.end_us - DAY_US // 2]
        if not len(early):
            return self.some_time()
        return int(self.rng.choice(early["ts_us"])) + int(self.rng.uniform(30, 900) * US)

    def owners(self, at_us: Ints | int) -> tuple[Ints, Ints]:
        """Place and client that the owner has at these times: those of his last call before, else of his next.

        On a trip, or after he has changed his client, these are not the key's first: whoever works beside him there
        (and he himself, when he has more to do) is neither at another place nor with another client.
        """
        if not len(self.base):
            return np.full(np.shape(at_us), self.key.homes[0]), np.full(np.shape(at_us), self.key.clients[0])
        last = np.maximum(np.searchsorted(self.base["ts_us"], at_us, side="right") - 1, 0)
        return self.base["place"][last].astype(np.int64), self.base["client"][last].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Plan:
    """The owner's calls and the planted ones (both CALL, sorted)."""

    owner: Array
    planted: Array


def planted(stage: Stage, at_us: Ints, place: Ints | int, client: Ints | int, lines: Array) -> Array:
    """Planted calls; `lines` gives operation, status, size and outcome. Times are sorted and cut at the stage's end."""
    calls = np.zeros(len(at_us), CALL)
    for name in ("operation", "object", "status", "bytes_out", "outcome"):
        calls[name] = lines[name]
    calls["ts_us"], calls["place"], calls["client"], calls["planted"] = np.sort(at_us), place, client, 1
    calls["key"], calls["zone_h"] = stage.key.number, zone(stage.key)
    return calls[calls["ts_us"] < stage.end_us]


def own_lines(stage: Stage, count: int) -> Array:
    """What the key asks for and gets, drawn as its own visits are."""
    lines = np.zeros(count, CALL)
    own_routes(
        stage.key, stage.world, lines, np.arange(count) // BLOCK, np.arange(0, count, BLOCK), stage.rng
    )  # fmt: skip
    return lines


def payload(stage: Stage, count: int = MOST_CALLS) -> tuple[Ints, Ints]:
    """(microseconds since the first call, sensitivities) of recorded attacks, one after another up to `count`."""
    gaps: list[Floats] = []
    parts: list[Ints] = []
    while sum(map(len, parts)) < count:
        record = stage.world.sources.payloads[int(stage.rng.integers(len(stage.world.sources.payloads)))]
        gaps.append(np.concatenate([[20.0], record.gaps_s[1:] + stage.rng.uniform(0.1, 0.9, len(record.gaps_s) - 1)]))
        parts.append(record.sensitivity)
    since = (np.cumsum(np.concatenate(gaps)) * US).astype(np.int64)
    return (since - since[0])[:count], np.concatenate(parts)[:count]


def as_lines(stage: Stage, sensitivity: Ints, refused: Array) -> Array:
    lines = np.zeros(len(sensitivity), CALL)
    lines["operation"] = [of_kind(stage, int(kind)) for kind in sensitivity]
    lines["status"] = np.where(refused, 403, 200)
    lines["outcome"] = np.where(refused, DENIED, SUCCESS)
    _answered(stage, lines)
    return lines


def of_kind(stage: Stage, kind: int) -> int:
    """An operation of this sensitivity, by its popularity."""
    fitting = stage.world.sources.by_sensitivity[kind]
    share = stage.world.sources.popularity[fitting]
    return int(stage.rng.choice(fitting, p=share / share.sum()))


def _answered(stage: Stage, lines: Array) -> Ints:
    """Into the lines an object that each operation was asked for and the size of that answer; returns its status."""
    answers = stage.world.sources.answered(lines["operation"].astype(np.int64), stage.rng)
    lines["bytes_out"], lines["object"] = answers[:, 0], answers[:, 2]
    return answers[:, 1]


def fresh_client(stage: Stage) -> int:
    """An agent whose family the key does not use, from the same list as everybody's."""
    family = stage.world.words.clients["client"]
    other = np.flatnonzero(~np.isin(family, family[stage.key.clients]))
    return int(stage.rng.choice(other))


def _paced(stage: Stage, start_us: int, count: int, mean_s: float) -> Ints:
    gaps = stage.rng.choice(stage.world.sources.gaps, count) * mean_s
    return start_us + (np.cumsum(gaps) * US).astype(np.int64)


def _stranger(stage: Stage, place: int, client: int) -> Plan:
    since, _ = payload(stage)
    lines = own_lines(stage, len(since))
    return Plan(stage.base, planted(stage, stage.active_time() + since, place, client, lines))


def leaked_abroad(stage: Stage) -> Plan:
    """Somebody in another country uses the key while its owner does."""
    return _stranger(stage, new_place(stage.key, stage.world, stage.rng, abroad=True), fresh_client(stage))


def leaked_vpn_home(stage: Stage) -> Plan:
    """The same through a hosting provider in the owner's country (in any, where there is none)."""
    words, home = stage.world.words, stage.key.homes
    every = np.arange(words.siblings)
    hosting = words.places["net_flags"][every] & NET_HOSTING > 0
    other = ~np.isin(words.network(every), words.network(home)) & hosting
    near = np.flatnonzero(other & np.isin(words.country(every), words.country(home)))
    return _stranger(stage, int(stage.rng.choice(near if len(near) else np.flatnonzero(other))), fresh_client(stage))


def leaked_same_provider(stage: Stage) -> Plan:
    """From another address of the owner's own network, doing what a recorded attack did, as sensitive."""
    since, sensitivity = payload(stage)
    lines = as_lines(stage, sensitivity, np.zeros(len(since), np.bool_))
    at = stage.active_time() + since
    place = stage.owners(int(at[0]))[0] % stage.world.words.siblings + stage.world.words.siblings
    return Plan(stage.base, planted(stage, at, int(place), fresh_client(stage), lines))


def impossible_travel(stage: Stage) -> Plan:
    """Minutes after the owner, from another country, by the same kind of client, doing what the owner does."""
    place = new_place(stage.key, stage.world, stage.rng, abroad=True)
    at = _paced(stage, stage.active_time(), 40, 20.0)
    client = int(stage.owners(int(at[0]))[1])
    return Plan(stage.base, planted(stage, at, place, client, own_lines(stage, 40)))


def residential_swarm(stage: Stage) -> Plan:
    """20 to 500 addresses of people's networks, each for a call or two, over six hours."""
    words = stage.world.words
    people = np.flatnonzero(words.places["net_flags"][: words.siblings] & NET_HOSTING == 0)
    size = int(np.exp(stage.rng.uniform(np.log(LEAST_SWARM), np.log(500))))
    crowd = stage.rng.choice(people, min(len(people), size), replace=False)
    places = stage.rng.permutation(np.repeat(crowd, stage.rng.integers(1, 3, len(crowd))))
    begin = min(stage.active_time(), stage.end_us - 6 * HOUR_US)
    at = begin + (stage.rng.uniform(0, 6 * 3600, len(places)) * US).astype(np.int64)
    clients = stage.rng.choice([fresh_client(stage) for _ in range(4)], len(places))
    return Plan(stage.base, planted(stage, at, places, clients, own_lines(stage, len(places))))


def _own_burst(stage: Stage, start_us: int, count: int, mean_s: float, lines: Array) -> Plan:
    at = _paced(stage, start_us, count, mean_s)
    place, client = stage.owners(start_us)
    return Plan(stage.base, planted(stage, at, int(place), int(client), lines))


def bulk_read(stage: Stage) -> Plan:
    """From the owner's place and client, what the owner reads, two a second."""
    return _own_burst(stage, stage.active_time(), 4 * MOST_CALLS, 0.5, own_lines(stage, 4 * MOST_CALLS))


def slow_exfiltration(stage: Stage) -> Plan:
    """Half as many calls again as the owner's, four times the size, at the owner's hours, for as long as it takes."""
    count = max(10, int(stage.known.calls_a_day * stage.days * 0.5))
    active = stage.base["ts_us"] if len(stage.base) else np.array([stage.some_time()])
    at = np.sort(stage.rng.choice(active, count) + (stage.rng.uniform(0, 3600, count) * US).astype(np.int64))
    lines = own_lines(stage, count)
    lines["bytes_out"] = np.minimum(lines["bytes_out"].astype(np.int64) * 4 + 4000, 2_000_000_000)
    return Plan(stage.base, planted(stage, at, *stage.owners(at), lines))


def endpoint_scan(stage: Stage) -> Plan:
    """With a valid key over the API's routes, a second each: most are not there, some are refused."""
    count = 300
    lines = np.zeros(count, CALL)
    lines["operation"] = stage.rng.permutation(len(stage.world.sources.operations))[:count]
    lines["status"] = stage.rng.choice([404, 403, 200], count, p=[0.6, 0.1, 0.3])
    lines["outcome"] = np.where(lines["status"] == 403, DENIED, SUCCESS)
    _answered(stage, lines)
    return _own_burst(stage, stage.some_time(), count, 1.0, lines)


def privilege_probing(stage: Stage) -> Plan:
    """Sensitive operations one after another, four of five refused."""
    kinds = stage.rng.choice([ADMIN, CREDENTIAL, DELETE], 60)
    lines = as_lines(stage, kinds, stage.rng.random(60) < 0.8)
    return _own_burst(stage, stage.active_time(), 60, 20.0, lines)


def guess_then_success(stage: Stage) -> Plan:
    """Tens of guesses at the secret from elsewhere are refused, then one is right; the rest is paced as an attack."""
    guesses = int(stage.rng.integers(20, 60))
    since, _ = payload(stage)
    lines = own_lines(stage, len(since))
    start = stage.some_time()
    first = own_lines(stage, guesses)
    first["status"], first["outcome"] = 401, INVALID
    before = _paced(stage, start, guesses, 2.0)
    place, client = new_place(stage.key, stage.world, stage.rng), fresh_client(stage)
    after = planted(stage, before[-1] + 5 * US + since, place, client, lines)
    tries = planted(stage, before, place, client, first)
    tries["planted"] = 2
    return Plan(stage.base, np.concatenate([tries, after]))


def off_hours_own(stage: Stage) -> Plan:
    """From the owner's place and client, what the owner does, in the hours that the owner uses least."""
    quiet = np.argsort(stage.known.hourly + np.roll(stage.known.hourly, 1) + np.roll(stage.known.hourly, -1))[0]
    nights = stage.start_us + np.arange(int(stage.days)) * DAY_US + int(quiet) * HOUR_US
    at = np.concatenate([_paced(stage, int(n + stage.rng.uniform(0, 3600) * US), 12, 20.0) for n in nights])
    return Plan(stage.base, planted(stage, at, *stage.owners(at), own_lines(stage, len(at))))


def dormant_wakes(stage: Stage) -> Plan:
    """The owner has stopped; weeks later somebody uses the key, in seven of ten cases from elsewhere."""
    silent = stage.base[:0]
    elsewhere = stage.rng.random() < 0.7
    place = new_place(stage.key, stage.world, stage.rng) if elsewhere else int(stage.key.homes[0])
    since, _ = payload(stage)
    lines = own_lines(stage, len(since))
    wakes = stage.start_us + int(stage.rng.uniform(0.8, 0.95) * stage.days * DAY_US)
    return Plan(silent, planted(stage, wakes + since, place, fresh_client(stage), lines))


def client_swap(stage: Stage) -> Plan:
    """Another client from the owner's place, some calls between the owner's visits, doing what the owner does."""
    visits = max(6, int(stage.days * 4))
    times = np.sort([stage.active_time() for _ in range(visits)])
    at = np.concatenate([_paced(stage, int(t), 4, 20.0) for t in times])
    calls = planted(stage, at, stage.owners(at)[0], fresh_client(stage), own_lines(stage, len(at)))
    return Plan(stage.base, calls)


def destructive_calls(stage: Stage) -> Plan:
    """Single calls that delete or change what is sensitive, hours apart, from the owner's place and client."""
    count = 8
    lines = as_lines(stage, stage.rng.choice([DELETE, ADMIN, CREDENTIAL], count), np.zeros(count, np.bool_))
    at = np.sort(np.array([stage.active_time() for _ in range(count)]))
    return Plan(stage.base, planted(stage, at, *stage.owners(at), lines))


def resource_abuse(stage: Stage) -> Plan:
    """One operation at twenty times the key's pace for hours, from the owner's place and client."""
    count = 4 * MOST_CALLS
    pace_s = min(30.0, 3600.0 / (20.0 * max(0.5, stage.known.calls_a_day / 24)))
    lines = own_lines(stage, count)
    lines["operation"] = lines["operation"][0]
    lines["status"] = _answered(stage, lines)
    lines["outcome"] = np.where(lines["status"] == 403, DENIED, SUCCESS)
    return _own_burst(stage, stage.some_time(1.0), count, pace_s, lines)


def poison_then_burst(stage: Stage) -> Plan:
    """Twelve days of calls that grow by 25 % a day, to train the baseline; then a burst of that height."""
    days = int(stage.days) - 2
    per_day = np.maximum(1, stage.known.calls_a_day * 0.1 * 1.25 ** np.arange(days)).astype(int)
    per_day = np.minimum(per_day, 3 * MOST_CALLS)
    parts = [
        stage.start_us + d * DAY_US + (stage.rng.random(n) * DAY_US).astype(np.int64) for d, n in enumerate(per_day)
    ]
    at = np.sort(np.concatenate(parts))
    ramp = planted(stage, at, *stage.owners(at), own_lines(stage, len(at)))
    ramp["planted"] = 2
    burst_us = stage.start_us + days * DAY_US + int(stage.rng.random() * DAY_US)
    burst = _own_burst(stage, burst_us, 4 * MOST_CALLS, 1.0, own_lines(stage, 4 * MOST_CALLS)).planted
    return Plan(stage.base, np.concatenate([ramp, burst]))


ATTACKS: Final[dict[str, Callable[[Stage], Plan]]] = {
    function.__name__: function
    for function in (
        leaked_abroad, leaked_vpn_home, leaked_same_provider, impossible_travel, residential_swarm, bulk_read,
        slow_exfiltration, endpoint_scan, privilege_probing, guess_then_success, off_hours_own, dormant_wakes,
        client_swap, destructive_calls, resource_abuse, poison_then_burst,
    )
}  # fmt: skip
"""name -> generator."""
DAYS: Final = {"slow_exfiltration": 14.0, "dormant_wakes": 30.0, "poison_then_burst": 15.0, "off_hours_own": 7.0}
"""How long a placement lasts; three days where nothing is said."""
WHOLE: Final = ("residential_swarm",)
"""Placed whole, whatever strength is wanted: cut to 40 bits, a swarm is two addresses. Its bits are as they come."""
