"""What the other topologies work on in a simulation: thieves and key makers, and a geo database that moves."""

from __future__ import annotations

import random
from typing import Any, Final

from pipeline.config.tree import Config
from pipeline.core import Core, Sides
from pipeline.geo.provider import Place
from pipeline.partitioner import PARTITIONERS
from pipeline.runners.topology import open_core_of, settings_of
from schemas.key_event import KeyEvent
from schemas.sighting import Sighting
from tests.pipeline.log_of_requests import GEO, Declared
from tests.pipeline.topologies.messages import MINUTE_US, START_US, record
from tests.pipeline.topologies.test_lifecycle import OFFICE, RENTED_ABROAD, made, used
from tests.pipeline.topologies.test_spray import stolen
from tests.simulation.loads import PARTITIONS, REAL
from tests.simulation.schedule import Load


class Placed:
    """A geo database of some build; in every other one the rented servers abroad are the office's neighbours."""

    def __init__(self, number: int) -> None:
        self.build = f"v{number}"
        self._near = number % 2 == 1

    def look_up(self, address: str) -> Place:
        """The shipped one's answer."""
        return GEO.look_up(OFFICE if self._near and address == RENTED_ABROAD else address)


def sides_of(version: int) -> Sides:
    """Only the geo database may change."""
    return Sides(Declared(), Placed(version), "")


def topology_load(topology: str, rng: random.Random) -> Load:
    """Some 200 messages in the order of time, now and then one twice, or junk."""
    said: list[Any] = _thefts(rng) if topology == "sources" else _makers(rng)
    told = sorted(said, key=lambda each: each.ts_us)
    home, requests = PARTITIONERS["murmur2"], list[tuple[int, bytes | None, bytes | None, int]]()
    for each in told:
        key, value, at_ms, _ = record(each)
        for _ in range(2 if rng.random() < 0.05 else 1):
            requests.append((home(key or b"", PARTITIONS), key, b"{" if rng.random() < 0.03 else value, at_ms))
    config: Final = settings_of(REAL, topology)
    opened = open_core_of(topology)

    def open_core(partition: int, config: Config, sides: Sides, epoch: str, partitions: int = 0) -> Core:
        return opened(partition, config, sides, epoch, partitions)

    return Load(config, PARTITIONS, requests, open_core, sides_of)


def _thefts(rng: random.Random) -> list[Sighting]:
    """From some networks many keys of many owners, again after hours of quiet."""
    said: list[Sighting] = []
    for number in range(10):
        more: dict[str, Any] = {"address": number + 1, "asn": 64500 + number % 4, "elsewhere": number % 2 == 0}
        at_us = START_US + rng.randrange(600) * MINUTE_US
        said += stolen(rng.randrange(4, 30), rng.choice((1, 4, 10)) * MINUTE_US, at_us, **more)
    return said


def _makers(rng: random.Random) -> list[KeyEvent]:
    """Keys that are made at home and used there, abroad, or both."""
    said: list[KeyEvent] = []
    for number in range(60):
        key, at_us = f"key_{number}", START_US + rng.randrange(5_000) * MINUTE_US
        said.append(made(at_us, key, rng.choice(("admin", "member")), actor=f"user_{number % 7}"))
        uses = range(rng.randrange(4))
        said += [used(at_us + n * 7 * MINUTE_US, rng.choice((OFFICE, RENTED_ABROAD)), key) for n in uses]
    return said
