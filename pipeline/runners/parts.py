"""What a runner is made of besides Kafka, so that tests and the demo can put other parts in."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from pipeline.config import Config
from pipeline.core import Core, Sides
from pipeline.ports import RowSink

OpenCore = Callable[[int, Config, Sides, str, int], Core]
"""(partition, config, sides, topic epoch, number of partitions) -> an empty core."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Constructors; called inside the event loop but for `warm_up`, which runs before the group is joined."""

    open_core: OpenCore
    open_rows: Callable[[Config], RowSink]
    read_sides: Callable[[Config], Awaitable[Sides]]
    warm_up: Callable[[], None]


def config_version(config: Config) -> str:
    """12 hex digits of the settings that may change a result."""
    judged = (config.detectors, config.budget, config.worker.lateness_s, config.geo)
    return hashlib.blake2b(msgspec.json.encode(judged, order="deterministic"), digest_size=6).hexdigest()


def production_parts() -> Parts:
    """The real ones. Imported late: numba and ClickHouse's client take a second."""
    from pipeline import flow
    from pipeline.catalogue import read_catalogue
    from pipeline.geo.provider import open_geo
    from pipeline.sinks.clickhouse import ClickHouseSink

    geo = None

    async def read_sides(config: Config) -> Sides:
        nonlocal geo
        if geo is None:
            geo = open_geo(config.geo)
        return Sides(await read_catalogue(config), geo, config_version(config))

    return Parts(flow.open_core, lambda config: ClickHouseSink(config.clickhouse), read_sides, flow.warm_up)
