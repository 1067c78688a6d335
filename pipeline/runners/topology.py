"""The other topologies of `keywatch worker`: the same runners, pages, order of effects, and a core of another kind.

A topology is its topic in the place of the requests, its own pages, its own group. So whatever holds for the keys'
workers (slices, checkpoints, generations, zombies) holds for these, without a line of it written twice.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue
from pipeline.runners.parts import OpenCore, Parts, production_parts

TOPOLOGIES: Final = ("keys", "sources", "lifecycle")
"""keys: events by key. sources: sightings by network, and the fleet. lifecycle: what is done to keys, by key."""


def check(topology: str) -> None:
    """Raises ConfigError."""
    if topology not in TOPOLOGIES:
        raise ConfigError(f"unknown topology '{topology}'; there are {', '.join(TOPOLOGIES)}")


def settings_of(config: Config, topology: str) -> Config:
    """The configuration as the runners want it: `topics.requests` and `topics.pages` are this topology's."""
    if topology == "keys":
        return config
    topics, worker = config.topics, config.worker
    read = {"sources": topics.sightings, "lifecycle": topics.key_events}[topology]
    pages = {"sources": topics.sources_pages, "lifecycle": topics.lifecycle_pages}[topology]
    own = config.sources if topology == "sources" else config.lifecycle
    return msgspec.structs.replace(
        config,
        kafka=msgspec.structs.replace(
            config.kafka, group=f"{config.kafka.group}-{topology}", client_id=f"{config.kafka.client_id}-{topology}"
        ),
        topics=msgspec.structs.replace(topics, requests=read, pages=pages),
        worker=msgspec.structs.replace(
            worker, metrics_host=own.metrics_host, metrics_port=own.metrics_port, topic_epoch=""
        ),
    )


def parts_of(topology: str) -> Parts:
    """What a worker of this topology is made of."""
    if topology == "keys":
        return production_parts()
    from pipeline.sinks.clickhouse import ClickHouseSink

    return Parts(
        open_core_of(topology), lambda config: ClickHouseSink(config.clickhouse), _Sides().read, _warm_up,
        section=topology,
    )  # fmt: skip


def open_core_of(topology: str) -> OpenCore:
    """The constructor of this topology's core."""
    from pipeline.topologies import lifecycle, sources

    return {"sources": sources.open_core, "lifecycle": lifecycle.open_core}[topology]


class _Sides:
    """The geo database alone, opened once: owners are named by who tells, nothing else is asked for."""

    def __init__(self) -> None:
        self._sides: Sides | None = None

    async def read(self, config: Config) -> Sides:
        """As of the start. Raises ConfigError where a file can't be read."""
        from pipeline.geo.provider import open_geo

        if self._sides is None:
            geo = await asyncio.to_thread(open_geo, config.geo)
            self._sides = Sides(Catalogue.empty(), geo, "")
        return self._sides


def _warm_up() -> None:
    from pipeline.sinks.connect import without_pandas
    from pipeline.topologies.warm import warm_up

    without_pandas()
    warm_up()
