"""The one fleet signal, the outage discount of errors, with 1, 8 and 64 partitions.

`python -m tests.evaluation.outage_partitions`
A partition judges an outage by its own keys alone (detectors/outage.py): with more partitions fewer other keys have
used a route in the last five minutes, and below three it abstains, so the discount fades. The same traffic each time:
 - 640 innocent keys, a request every 30 s each on eight routes; for ten minutes five of the routes answer 503 to a
   share of their requests (*outage*, `--failing`);
 - 20 keys whose own client breaks: 503 on six routes that work for all others (*broken*);
 - 20 keys that probe thirty routes, 403 and 404, half of them during the outage (*probes*).
Told are the shares of innocent keys with a finding of errors and with an incident in the outage (false), and of the
others with a finding (hits). What the keys' partitions tell is judged by the topology of the fleet as well, in one
place: how many incidents of the fleet come of it, and how many keys the largest names.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from pipeline.config.tree import Config
from pipeline.core import Message, Sides, Slice
from pipeline.flow import open_core
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from pipeline.partitioner import PARTITIONERS
from pipeline.topologies import sources
from schemas.event import Event
from schemas.incident import Incident
from schemas.sighting import FLEET
from tests.bench.grown import EPOCH, START_US, cut, print_json

SIZES: Final = (1, 8, 64)
FAILING: Final = (1.0, 0.6)
INNOCENT: Final = 640
OTHERS: Final = 20
VISITS: Final = 6
"""Of each key before: without a history an error says little of it."""
GROUPS: Final = {"good_": INNOCENT, "broken_": OTHERS, "probe_": OTHERS}
EVERY_S: Final = 30.0
SECOND_US: Final = 1_000_000
LENGTH_S: Final = 2_400.0
OUTAGE_S: Final = (1_500.0, 2_100.0)
BROKEN_AT_S: Final = 1_200.0
PROBED_AT_S: Final = (1_300.0, 1_600.0)
ROUTES: Final = ("orders", "users", "invoices", "items", "carts", "search", "tokens", "exports")
WORDS: Final = tuple(first + second + "le" for first in ("ta", "ru", "pi", "so", "ne") for second in "bdgkmp")
"""Thirty routes; a number in a path would be taken for an id."""
DOWN: Final = 5
OUTCOME: Final = {403: "denied", 404: "success", 200: "success", 503: "success"}


def traffic(seed: int, failing: float) -> list[Event]:
    """All of it in order of time."""
    rng = np.random.default_rng(seed)
    events = [*_history(), *_normal(rng, failing), *_broken(), *_probes()]
    return sorted(events, key=lambda event: (event.ts_us, event.key_id))


def _history() -> Iterator[Event]:
    """Before all that: each key's visits of an hour ago, two hours ago ... to eight routes that work."""
    names = [f"{group}{key}" for group, n in GROUPS.items() for key in range(n)]
    for visit in range(VISITS):
        for number, name in enumerate(names):
            for n, route in enumerate(ROUTES):
                yield _event(name, n * 20.0 + number / 10 - (visit + 1) * 3_600.0, route, 200)


def _normal(rng: Any, share: float) -> Iterator[Event]:
    for key in range(INNOCENT):
        for at in np.sort(rng.random(int(LENGTH_S / EVERY_S))) * LENGTH_S:
            route = int(rng.integers(len(ROUTES)))
            failing = route < DOWN and OUTAGE_S[0] <= at < OUTAGE_S[1] and rng.random() < share
            yield _event(f"good_{key}", float(at), ROUTES[route], 503 if failing else 200)


def _broken() -> Iterator[Event]:
    for key in range(OTHERS):
        for n in range(30):
            yield _event(f"broken_{key}", n * 40.0 + key, ROUTES[n % 8], 200)
        for n in range(24):
            yield _event(f"broken_{key}", BROKEN_AT_S + n * 5.0 + key * 12.0, ROUTES[n % 6], 503)


def _probes() -> Iterator[Event]:
    for key in range(OTHERS):
        for n in range(30):
            yield _event(f"probe_{key}", n * 40.0 + key, ROUTES[n % 8], 200)
            yield _event(f"probe_{key}", PROBED_AT_S[key % 2] + n * 2.0 + key, f"admin/{WORDS[n]}", (403, 404)[n % 2])


def _event(key_id: str, at_s: float, route: str, status: int) -> Event:
    outcome: Any = OUTCOME[status]
    return Event(
        key_id=key_id, ts_us=START_US + round(at_s * SECOND_US), client_ip="52.10.1.7", method="GET",
        path=f"/v1/{route}", status=status, outcome=outcome, latency_ms=20.0, request_id=f"{key_id}-{at_s}",
        user_agent="curl/8.7.1", source="native",
    )  # fmt: skip


def rates(partitions: int, failing: float, seed: int = 1) -> dict[str, Any]:
    """Shares of keys."""
    sides, home = Sides(Catalogue.empty(), open_geo(Config().geo), ""), PARTITIONERS["murmur2"]
    cores = [open_core(p, Config(), sides, EPOCH, partitions) for p in range(partitions)]
    found, opened = set[str](), set[str]()
    told: list[Message] = []
    start_us = START_US + int(BROKEN_AT_S * SECOND_US)
    log = ((home(event.key_id.encode(), partitions), event) for event in traffic(seed, failing))
    for part in cut(log, partitions, [0] * partitions):
        effects = cores[part.partition].process(part)
        rows = effects.rows.get("findings", {})
        for key, detector, at in zip(rows.get("key_id", ()), rows.get("detector", ()), rows.get("at", ()), strict=True):
            if detector == "errors" and at >= start_us:
                found.add(key)
        told += [message for message in effects.messages if message.key == FLEET.encode()]
        opened |= {incident.key_id for incident in effects.incidents}
    fleet = outbreaks(told)
    share = {name: sum(key.startswith(name) for key in found) / n for name, n in GROUPS.items()}
    return {
        "partitions": partitions, "keys_per_partition": round((INNOCENT + 2 * OTHERS) / partitions, 1),
        "false_findings": round(share["good_"], 4),
        "false_incidents": round(sum(key.startswith("good_") for key in opened) / INNOCENT, 4),
        "fleet_incidents": len({incident.incident_id for incident in fleet}),
        "fleet_keys": max((incident.keys_total for incident in fleet), default=0),
        "fleet_causes": sorted({incident.key_id for incident in fleet}),
        "broken_found": round(share["broken_"], 3), "probes_found": round(share["probe_"], 3),
    }  # fmt: skip


def outbreaks(told: list[Message]) -> list[Incident]:
    """The fleet's incidents, by the one partition that all of it comes to."""
    judge = sources.open_core(0, Config(), Sides(Catalogue.empty(), None, ""), EPOCH)
    batch = Slice(
        "api.sightings", 0, range(len(told)), [each.key for each in told], [each.value for each in told],
        [0] * len(told),
    )  # fmt: skip
    return [each for each in judge.process(batch).incidents if each.rule == "outbreak"] if told else []


def main() -> None:
    """All sizes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options.add_argument("--failing", type=float, nargs="+", default=FAILING)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    for failing in chosen.failing:
        for partitions in chosen.sizes:
            print_json("outage_partitions", {"failing": failing} | rates(partitions, failing, chosen.seed))


if __name__ == "__main__":
    main()
